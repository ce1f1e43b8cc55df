"""Reporting checklists (TRIPOD+AI, CLAIM) answered from a finished run."""
