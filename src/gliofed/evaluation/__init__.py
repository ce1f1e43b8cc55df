"""Scores: sums that add across sites, and figures that never stand without n and an interval."""
