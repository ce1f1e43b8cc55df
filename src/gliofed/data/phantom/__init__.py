"""Synthetic hospitals: drawn from a seed, written as BIDS, and labelled synthetic in every file."""

from gliofed.data.phantom.cohort import HOSPITALS, PhantomHospital
from gliofed.data.phantom.write import write_phantom

__all__ = ["HOSPITALS", "PhantomHospital", "write_phantom"]
