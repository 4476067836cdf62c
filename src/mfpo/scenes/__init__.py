"""The scene world: drawn scenes with exact ground truth, and a small LLaVA trained on them."""
