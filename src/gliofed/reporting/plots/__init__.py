"""Plots shared by pages: forest plots, ROC and reliability curves, training curves, slices."""
