"""Being dissolved: see `gliofed`."""
