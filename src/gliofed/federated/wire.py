"""Packing of one message: tensors and one JSON note in safetensors form, without pickle.

Every note has the key `digest`, the SHA-256 of the tensors and of the rest of the note. A message
that was changed or cut in transit is refused. Messages with a model are files: their tensors are
mapped rather than read, so that a server holds those of one site at a time.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gliofed.errors import UpdateError
from gliofed.runtime.files import replacing
from gliofed.runtime.processes import cores

NOTE: Final = "gliofed"
"""Key of the note in the header's metadata."""
LARGEST_HEADER: Final = 16 * 2**20
"""Bytes of the longest header that is read."""
_DIGEST: Final = "digest"
_LARGE: Final = 2**20
"""Bytes from which a thread of its own pays for the digest of a tensor."""


def pack(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> bytes:
    """Tensors and a JSON-able note as safetensors bytes; equal inputs give equal bytes."""
    stored = _contiguous(tensors)
    data: bytes = safetensors.torch.save(stored, _metadata(stored, note))
    return data


def save(
    path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any], lasting: bool = True
) -> None:
    """As `pack`, into a file that is replaced atomically.

    lasting: whether the file is flushed to the disk. False for a message of one round, which a
    loss of power ends anyway. Tensors on the CPU are not copied. Raises OSError naming the path.
    """
    stored = _contiguous(tensors)
    with replacing(path, lasting=lasting) as part:
        try:
            safetensors.torch.save_file(stored, part, _metadata(stored, note))
        except SafetensorError as error:  # of the disk: names and dtypes are our own
            raise OSError(None, str(error), str(path)) from None


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and note of what `pack` made. Raises UpdateError: no such message, or changed."""
    note = read_note(data)
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise UpdateError(f"the message's tensors cannot be read: {error}") from None
    return tensors, _check_digest(tensors, note)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and note of a file that `save` wrote.

    The tensors are mapped: the file must not change while they are in use. Raises UpdateError as
    `unpack` does, and OSError.
    """
    note = load_note(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, KeyError, ValueError) as error:
        raise UpdateError(f"the message's tensors cannot be read: {error}") from None
    return tensors, _check_digest(tensors, note)


class TensorFile:
    """The tensors of a file whose digest `load` has checked before, mapped one at a time."""

    def __init__(self, path: Path) -> None:
        self._file = safetensors.safe_open(path, framework="pt")
        self._names = frozenset(self._file.keys())  # type: ignore[no-untyped-call]

    def get(self, name: str) -> Tensor | None:
        """The tensor `name`; None where the file has none."""
        if name not in self._names:
            return None
        tensor: Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor


def read_note(data: bytes) -> dict[str, Any]:
    """The JSON note alone, without reading a tensor. Raises UpdateError as `unpack` does."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = data[8 : 8 + min(length, LARGEST_HEADER)]
        note: dict[str, Any] = dict(json.loads(json.loads(header)["__metadata__"][NOTE]))
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UpdateError(f"the message is not in the format of gliofed: {error}") from None
    return note


def load_note(path: Path) -> dict[str, Any]:
    """As `read_note`, of a file."""
    with path.open("rb") as file:
        return read_note(file.read(8 + LARGEST_HEADER))


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}


def _metadata(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> dict[str, str]:
    signed = {**note, _DIGEST: digest_of(tensors, note)}
    return {NOTE: json.dumps(signed, sort_keys=True)}


def digest_of(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> str:
    """SHA-256 of a message.

    It covers the note without `digest`, then name, dtype, shape and the SHA-256 of the values of
    every tensor, in the order of names. Values of large tensors are hashed on all cores at once.
    """
    message = hashlib.sha256()
    rest = {k: v for k, v in note.items() if k != _DIGEST}
    message.update(json.dumps(rest, sort_keys=True).encode())
    digests = _tensor_digests(tensors)
    for name in sorted(tensors):
        tensor = tensors[name]
        message.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode() + digests[name])
    return message.hexdigest()


def _tensor_digests(tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Of the values; those of large tensors are computed on all cores at once."""
    large = [name for name, t in tensors.items() if t.nbytes >= _LARGE]
    digests = {name: _tensor_digest(t) for name, t in tensors.items() if t.nbytes < _LARGE}
    with ThreadPoolExecutor(cores()) as pool:
        found = pool.map(_tensor_digest, [tensors[name] for name in large])
        return digests | dict(zip(large, found, strict=True))


def _tensor_digest(tensor: Tensor) -> bytes:
    flat = tensor.as_strided((tensor.numel(),), (1,))  # contiguous, and so also where of one
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).digest()


def _check_digest(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> dict[str, Any]:
    """The note without its digest. Raises UpdateError where the digest does not match."""
    if note.get(_DIGEST) != digest_of(tensors, note):
        raise UpdateError("the message was changed or cut in transit: its digest does not match")
    return {k: v for k, v in note.items() if k != _DIGEST}
