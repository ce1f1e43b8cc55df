"""Training: samples, augmentation, masked losses and the one training loop."""
