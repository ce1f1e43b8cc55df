"""Metrics as pure functions: discrimination, calibration, segmentation overlap."""
