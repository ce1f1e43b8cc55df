"""Radiomic features of an outline, and logistic regression on them by sums that sites send."""
