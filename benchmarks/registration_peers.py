"""Registration by gliofed and by other tools, each as one function from two files to a matrix.

All answer with RAS mm of the fixed scan to RAS mm of the moving one. Each tool runs with its own
defaults but for what is written here: two threads, a fixed seed, and a start at the centres of
mass, without which a moved head is out of their reach. Install the peers with

    pip install itk-elastix antspyx niimath picsl-greedy

The peers get no brain mask. Stripped scans need none: what lies outside is 0.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Kind = Literal["rigid", "affine"]
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
THREADS = 2
SEED = 1


def gliofed(fixed: Path, moving: Path, kind: Kind) -> Matrix:
    """For "affine" the fixed file is a template without a skull."""
    from gliofed.data.nifti import read_nifti
    from gliofed.preprocessing.brain_extraction import nonzero_brain
    from gliofed.preprocessing.registration import register_affine, register_rigid

    ours, theirs = read_nifti(fixed), read_nifti(moving)
    brain = nonzero_brain(ours.data[None])
    if kind == "rigid":
        return register_rigid(ours, theirs, brain)
    return register_affine(ours, brain, theirs, nonzero_brain(theirs.data[None]))


def elastix(fixed: Path, moving: Path, kind: Kind) -> Matrix:
    """The default parameter maps: rigid, and for "affine" affine after it."""
    import itk

    parameters = itk.ParameterObject.New()
    for name in ("rigid", "affine")[: 1 if kind == "rigid" else 2]:
        one = parameters.GetDefaultParameterMap(name)
        one["RandomSeed"] = [str(SEED)]
        if name == "rigid":
            one["AutomaticTransformInitialization"] = ["true"]
            one["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
        parameters.AddParameterMap(one)
    method = itk.ElastixRegistrationMethod.New(
        itk.imread(str(fixed), itk.F), itk.imread(str(moving), itk.F)
    )
    method.SetParameterObject(parameters)
    method.SetLogToConsole(False)
    method.SetNumberOfThreads(THREADS)
    method.UpdateLargestPossibleRegion()
    found = method.ConvertToItkTransform(method.GetCombinationTransform())
    return _from_points(found.TransformPoint)


def ants(fixed: Path, moving: Path, kind: Kind) -> Matrix:
    """`ants.registration` with type "Rigid" or "Affine"."""
    import ants as antspyx

    found = antspyx.registration(
        antspyx.image_read(str(fixed)),
        antspyx.image_read(str(moving)),
        type_of_transform=kind.capitalize(),
        random_seed=SEED,
    )
    linear = antspyx.read_transform(found["fwdtransforms"][-1])
    return _from_points(linear.apply_to_point)


def niimath(fixed: Path, moving: Path, kind: Kind) -> Matrix:
    """`-allineate` with its default engine, which always fits twelve parameters.

    Its other engines can be held to six; they took minutes a pair.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved, image = Path(folder) / "matrix.json", Path(folder) / "image.nii"
        command = (_niimath(), moving, "-allineate", fixed, "-savemat", saved, image)
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        numbers = [v for v in json.loads(saved.read_text()).values() if np.size(v) in (12, 16)]
    matrix = np.eye(4)
    flat = np.asarray(numbers[0], float).reshape(-1, 4)
    matrix[: len(flat)] = flat
    return matrix


def greedy(fixed: Path, moving: Path, kind: Kind) -> Matrix:
    """Normalised mutual information, at three resolutions."""
    from picsl_greedy import Greedy3D

    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nothing:
        saved = Path(folder) / "matrix.txt"
        Greedy3D().execute(
            f"-i {fixed} {moving} -a -dof {6 if kind == 'rigid' else 12} -ia-image-centers -m NMI "
            f"-n 100x50x10 -threads {THREADS} -o {saved}",
            out=nothing,
            err=nothing,
        )
        return np.loadtxt(saved)


METHODS: dict[str, Callable[[Path, Path, Kind], Matrix]] = {
    "gliofed": gliofed,
    "elastix": elastix,
    "ants": ants,
    "niimath": niimath,
    "greedy": greedy,
}
NEEDS = {
    "elastix": ("itk", "itk-elastix"),
    "ants": ("ants", "antspyx"),
    "niimath": ("niimath", "niimath"),
    "greedy": ("picsl_greedy", "picsl-greedy"),
}
"""Module, and the package to install for it."""


def require(names: Sequence[str]) -> None:
    """End with what to install, where a peer is not there."""
    lacking = [n for n in names if n in NEEDS and importlib.util.find_spec(NEEDS[n][0]) is None]
    if lacking:
        packages = " ".join(dict.fromkeys(NEEDS[n][1] for n in lacking))
        sys.exit(f"not installed: {', '.join(lacking)}; pip install {packages}, or leave them out")


def _from_points(transform: Callable[[Any], Any]) -> Matrix:
    """The matrix of a linear ITK transform, by where it puts four points."""
    corners = np.vstack([np.zeros(3), 100 * np.eye(3)])
    there = np.array([list(transform(c.tolist())) for c in corners])
    matrix = np.eye(4)
    matrix[:3, :3] = (there[1:] - there[0]).T / 100
    matrix[:3, 3] = there[0]
    return LPS @ matrix @ LPS


def _niimath() -> Path:
    """The program of the Python package, beside this interpreter."""
    return Path(sys.executable).with_name("niimath")
