"""Predicted cases in a browser: served on this machine only, behind a token."""
