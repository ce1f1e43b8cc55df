"""The results page: one self-contained HTML file and the figures on it."""
