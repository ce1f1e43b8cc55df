"""DICOM: the only place that knows pydicom, highdicom and their kin."""
