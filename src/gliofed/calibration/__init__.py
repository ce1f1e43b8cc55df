"""Probabilities that can be taken at their word, and when not to say: all fitted from sums."""
