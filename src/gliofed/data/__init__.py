"""Data sets: one file each reads one layout into `Case`s; nothing here opens an image."""
