"""A study of three phantom hospitals that trains in seconds."""

import json
from collections.abc import Sequence
from pathlib import Path

from gliofed.data.phantom import PhantomHospital, write_phantom

TEXT = """
name = "small"
models = {models}
[data]
root = "hospitals"
train = ["one", "two"]
external = ["three"]
synthetic = true
{data}
[grid]
spacing_mm = [7.0, 7.0, 7.0]
patch = [24, 24, 24]
[prepare]
brain = "stripped"
register = false
space = "scanner"
bias = false
[quality]
brain_litres = [0.3, 2.2]
alignment = 0.0
[train]
epochs = {epochs}
[score]
bootstrap = 100
"""


def write_study(
    root: Path,
    hospitals: Sequence[PhantomHospital],
    models: Sequence[str],
    epochs: int = 1,
    data: str = "",
) -> Path:
    """The hospitals below `root`, and the study file beside them. data: lines of its [data]."""
    write_phantom(root / "hospitals", hospitals, 1)
    path = root / "small.toml"
    path.write_text(TEXT.format(models=json.dumps(list(models)), epochs=epochs, data=data))
    return path
