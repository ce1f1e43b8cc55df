"""The version of gliofed."""

__version__ = "0.1.0"
