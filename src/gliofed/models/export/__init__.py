"""Model export to ONNX and to a MONAI bundle, each compared with the model."""
