"""The page of a study of hospitals by radiomic features."""
