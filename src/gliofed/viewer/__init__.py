"""Answered cases in a browser: served on this machine alone, behind a token."""
