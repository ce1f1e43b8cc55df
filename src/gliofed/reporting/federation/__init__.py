"""The page of a running federation."""
