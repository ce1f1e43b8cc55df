"""Aggregation of site updates: the streaming mean, and arithmetic on whole models."""
