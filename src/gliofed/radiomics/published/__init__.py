"""Readers of published radiomic tables into the common vocabulary, one file a data set."""
