"""DICOM: headers in, series to NIfTI, DICOMweb, C-STORE, segmentations out.

Only this package names pydicom, highdicom and their kin; they come with `gliofed[hospital]`.
"""
