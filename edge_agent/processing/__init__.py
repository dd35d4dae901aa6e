"""What a sample goes through before the model, and an answer behind it, as the manifest declares. Pure arithmetic.

Read `preprocess.py` first; the declared records are in `edge_contracts.processing` and `answering`.
"""
