"""DICOM: headers in, series to NIfTI, DICOMweb and C-STORE. Only this package names the libraries.

They come with the extra `gliofed[hospital]`.
"""
