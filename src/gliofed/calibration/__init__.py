"""Calibrated probabilities, prediction sets and thresholds of confidence, fitted from sums."""
