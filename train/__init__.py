"""Training: networks, losses, data, checkpoints. PyTorch lives here and in export/."""
