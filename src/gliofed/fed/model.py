"""The model that comes out of a run: its weights as one file, which names no site and no case."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gliofed import CAUTION, __version__
from gliofed.fed.checkpoint import Committed
from gliofed.fed.wire import save
from gliofed.study import Study


def keep_model(path: Path, state: Committed, study: Study) -> str:
    """Write the weights of `state` in one step; the SHA-256 of the file, hexadecimal.

    A message of `gliofed.fed.wire`, which `load` there reads: tensors by parameter name, as
    `gliofed.nets.unet.build_net(preset, stem, seed)` takes them; its note has these, the run, the
    rounds, the study's digest and gliofed's version. Equal states give equal bytes. Raises OSError.
    """
    note = {
        "run": state.run,
        "rounds": state.rounds,
        "study": study.digest,
        "gliofed": __version__,
        "preset": study.net.preset,
        "stem": study.net.stem,
        "caution": CAUTION,
    }
    save(path, state.model, note)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
