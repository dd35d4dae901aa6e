"""Training a smaller model on the answers of a larger one; needs PyTorch. Used by a pass; imports none."""
