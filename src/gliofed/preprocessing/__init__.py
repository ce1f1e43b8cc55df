"""Prepares scans for the network: one module a step, and the recipe that runs them."""
