"""The same score table from the sums that sites send."""
