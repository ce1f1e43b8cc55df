"""Confidence intervals: analytic, bootstrap, and the one that covers for each metric."""
