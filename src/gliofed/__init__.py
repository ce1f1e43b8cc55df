"""gliofed: hospitals train one 3D glioma network together; no image leaves the building."""

__version__ = "0.1.0"
