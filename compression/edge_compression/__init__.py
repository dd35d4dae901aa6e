"""The compression toolchain: from a trained model, data and a device profile to a bundle of proved variants."""
