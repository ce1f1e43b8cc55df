"""Where the example model of the repository is. It is not part of the installed package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gliofed.errors import ModelError

CHECKOUT: Final = Path(__file__).parents[3]
"""The repository, where the package was installed from one (`pip install -e`)."""
_IN_REPOSITORY: Final = "models/example"


def example_model() -> Path:
    """Its folder, in the checkout that this package was installed from. Raises ModelError where it
    was not."""
    folder = CHECKOUT / _IN_REPOSITORY
    if not folder.is_dir():
        raise ModelError(
            "no model was given, and the example model is not part of an installed package; give "
            f"one with --model, or clone the repository of gliofed, which has {_IN_REPOSITORY}"
        )
    return folder
