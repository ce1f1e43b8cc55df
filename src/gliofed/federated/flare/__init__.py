"""The round loop and the sites on NVIDIA FLARE; the only place that names it."""
