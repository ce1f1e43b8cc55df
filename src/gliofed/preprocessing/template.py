"""MNI152, the template that cases are registered to (ICBM 2009a nonlinear symmetric, 1 mm).

Fonov et al. 2011, NeuroImage 54:313. The nilearn package ships it, skull-stripped; nothing is
downloaded, and nilearn itself is not imported.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.nifti import Volume, read_nifti
from gliofed.errors import DataError
from gliofed.preprocessing.brain_extraction import nonzero_brain

FILE: Final = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


@functools.cache
def mni152() -> tuple[Volume, NDArray[np.bool_]]:
    """The template (1 mm, RAS) and its brain. Raises DataError where nilearn is not installed."""
    package = importlib.util.find_spec("nilearn")
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise DataError(
            "MNI152 comes with the package nilearn, which is not installed; install it with "
            "pip install 'gliofed[hospital]', or set [prepare] space = \"scanner\""
        )
    volume = read_nifti(Path(folders[0]) / FILE)
    return volume, nonzero_brain([volume.data])
