"""Radiomic features of a segmentation, and logistic regression on them from the sums of sites."""
