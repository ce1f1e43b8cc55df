"""The models that a server has to start from: those placed in its kit, and those of its runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gliofed.deployment.kit import Kit
from gliofed.deployment.model_card import MODEL
from gliofed.errors import ModelError, StudyError
from gliofed.models.folder import model_id_of, read_record
from gliofed.runtime.files import write_text
from gliofed.study import Study

MODELS: Final = "models"
"""Folder in `KIT/gliofed`, with one folder a model, of any name."""

CAUTION: Final = "caution.txt"
"""In the folder of a run."""


def with_model_folder(study: Study, kit: Kit) -> Study:
    """The study with the folder of the model that it starts from. kit: the server's.

    A study from random weights stays as it is. Raises StudyError where the server has no such
    model; the folder's contents are still to be checked (`read_base`).
    """
    if study.init is None:
        return study
    for folder in _folders(kit):
        if _id_of(folder) == study.init.digest:
            return dataclasses.replace(study, init=dataclasses.replace(study.init, model=folder))
    raise StudyError(
        f"init.digest: the server has no model {study.init.digest}; on the server, copy its folder "
        f"into gliofed/{MODELS} of the kit (cp -r MODEL KIT/gliofed/{MODELS}/), and start again"
    )


def keep_caution(run: Path, caution: str) -> None:
    """Keep what the model that a run starts from states for its users: the run goes on without that
    model. run: folder of the run."""
    if caution:
        write_text(run / CAUTION, caution)


def kept_caution(run: Path) -> str:
    """What `keep_caution` kept; empty if nothing."""
    return (run / CAUTION).read_text() if (run / CAUTION).exists() else ""


def _folders(kit: Kit) -> Iterator[Path]:
    yield from sorted((kit.own / MODELS).glob("*"))
    yield from sorted(kit.work.glob(f"*/{MODEL}"))


def _id_of(folder: Path) -> str:
    """The id of the model; empty where there is none that can be read."""
    try:
        return model_id_of(read_record(folder))
    except (ModelError, KeyError, AttributeError, TypeError):
        return ""
