"""From a hospital's DICOM to a pseudonymised BIDS folder."""
