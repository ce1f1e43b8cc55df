"""Mechanisms that limit what the server learns from the updates of the sites."""
