"""The multi-task network: one encoder-decoder, a mask, and one head a marker."""
