"""DICOM: headers, series to NIfTI, DICOMweb, C-STORE, segmentations and reports.

Only this package imports DICOM libraries; they come with `gliofed[hospital]`.
"""
