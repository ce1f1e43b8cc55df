"""Files: NIfTI in, the prepared store, and weights as safetensors."""
