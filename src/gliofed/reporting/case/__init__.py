"""The page of one case, and the worklist of predicted cases."""
