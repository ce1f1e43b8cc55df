"""Checks scans, masks and tables before use; every fault becomes a finding, not an exception."""
