"""Sources to typed rows, and the dataset folder on disk."""
