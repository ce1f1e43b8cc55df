"""Data sets: readers of formats, synthetic cases, splits, NIfTI files and the prepared store."""
