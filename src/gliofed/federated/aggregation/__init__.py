"""Aggregation of site updates: strategies, the streaming mean, shared optimiser moments."""
