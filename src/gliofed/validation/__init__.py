"""Checking data before it is trusted: every fault a finding, never an exception."""
