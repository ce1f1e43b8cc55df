"""A finished model on its way from the server to a site, and the site's receipt, as files.

| request        | response       | what for                                            |
|----------------|----------------|-----------------------------------------------------|
| `ModelRequest` | `ModelReceipt` | the files of the finished model, for a site to keep |

Each file of the model folder is one tensor, of its bytes. As with every request, run and nonce are
repeated by the response.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from gliofed.errors import UpdateError
from gliofed.federated.message_table import check_note
from gliofed.federated.wire import LARGEST_HEADER, Header, receive, require_no_tensors, save

MODEL_KIND: Final = "model"
"""`kind` in the note of a `ModelRequest`."""


@dataclass(frozen=True)
class ModelRequest:
    """model: its id. files: of the model folder, by name."""

    run: str
    nonce: str
    model: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class ModelReceipt:
    """The site has checked the model and keeps it."""

    run: str
    nonce: str
    site: str
    model: str


def save_model_request(path: Path, request: ModelRequest) -> None:
    """A model as a file. No file of it is empty."""
    tensors = {
        name: torch.frombuffer(bytearray(data), dtype=torch.uint8)
        for name, data in request.files.items()
    }
    note = {
        "kind": MODEL_KIND,
        "run": request.run,
        "nonce": request.nonce,
        "model": request.model,
    }
    save(path, tensors, note, lasting=False)


def load_model_request(path: Path) -> ModelRequest:
    """A file as a model, whose files are still to be checked. Raises UpdateError otherwise."""

    def check(header: Header) -> None:
        check_note("ModelRequest", header.note)
        if any(t.dtype != torch.uint8 or len(t.shape) != 1 for t in header.layout.values()):
            raise UpdateError("a tensor of the request is not the bytes of a file")

    tensors, note = receive(path, check)
    files = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    return ModelRequest(note["run"], note["nonce"], note["model"], files)


def save_receipt(path: Path, receipt: ModelReceipt) -> None:
    """A receipt as a file."""
    note = {
        "run": receipt.run,
        "nonce": receipt.nonce,
        "site": receipt.site,
        "model": receipt.model,
    }
    save(path, {}, note)


def check_receipt(site: str, request: ModelRequest, file: Path) -> None:
    """Raise UpdateError where `file` is not the site's receipt of this model."""
    if file.stat().st_size > 8 + LARGEST_HEADER:
        raise UpdateError(f"site {site}: receipt refused: it is larger than a header")
    try:
        _, note = receive(file, require_no_tensors)
        check_note("ModelReceipt", note, site)
    except UpdateError as error:
        raise UpdateError(f"site {site}: receipt refused: {error}") from None
    expected = (request.run, request.nonce, request.model)
    if (note["run"], note["nonce"], note["model"]) != expected:
        raise UpdateError(f"site {site}: receipt refused: it is not one of this model and request")
