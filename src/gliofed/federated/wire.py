"""Packing of one message: tensors and one JSON note in safetensors form, without pickle.

Every note has the key `digest`, the SHA-256 of the tensors and of the rest of the note. A message
that was changed or cut in transit is refused. Messages with a model are files: their tensors are
mapped rather than read, so that a server holds those of one site at a time.

`receive` reads what another party sent, and `load` what this one wrote itself. The first is checked
in the order of cost: the header's length, the header, the tensors it lists, the digest, and only
then any value. So the time for a message that is refused does not depend on what it contains.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gliofed.errors import UpdateError
from gliofed.federated.named_tensors import Layout, TensorForm
from gliofed.federated.schema import Items, Whole, shown
from gliofed.runtime.files import replacing
from gliofed.runtime.processes import cores

NOTE: Final = "gliofed"
"""Key of the note in the header's metadata."""
LARGEST_HEADER: Final = 2**20
"""Bytes of the longest header of a message: that of a model of 3,000 tensors with one kind more."""
_LARGEST_OWN_HEADER: Final = 100_000_000
"""Bytes of the longest header that safetensors reads and writes: for files of one's own."""
_DIGEST: Final = "digest"
_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_SHAPE: Final = Items(Whole(0, 2**40), 0, 8)
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


@dataclass(frozen=True)
class Header:
    """The header of a message. layout: the tensors that it lists. digest: as it was sent."""

    layout: Layout
    note: dict[str, Any]
    digest: object


def receive(
    message: Path | bytes, check: Callable[[Header], None]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and note of a message from another party.

    check: called before any tensor is read; it raises UpdateError where the header is not expected.
    Tensors of a file are mapped: the file must not change while they are in use. Raises UpdateError
    where the message is malformed or its digest does not match, and OSError.
    """
    header = _read_header(message)
    check(header)
    tensors = _tensors(message)
    _check_digest(tensors, header.note, header.digest)
    return tensors, header.note


def require_no_tensors(header: Header) -> None:
    """A check of `receive`: raises UpdateError where the message has a tensor."""
    if header.layout:
        raise UpdateError(f"it comes with tensors: {shown(sorted(header.layout))}")


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and note of a file that this party wrote with `save`.

    The tensors are mapped: the file must not change while they are in use. Raises UpdateError:
    no such file, or changed; and OSError.
    """
    note, digest = _note(_header_of(path, _LARGEST_OWN_HEADER))
    tensors = _tensors(path)
    _check_digest(tensors, note, digest)
    return tensors, note


def _tensors(message: Path | bytes) -> dict[str, Tensor]:
    try:
        if isinstance(message, bytes):
            tensors: dict[str, Tensor] = safetensors.torch.load(message)
            return tensors
        with safetensors.safe_open(message, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, KeyError, ValueError) as error:
        raise UpdateError(f"the message's tensors cannot be read: {error}") from None


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


def read_note(message: Path | bytes) -> dict[str, Any]:
    """The JSON note of a message from another party, without its tensors and unchecked.

    Raises UpdateError where the message is malformed, and OSError.
    """
    return _read_header(message).note


def parse_note(text: str) -> dict[str, Any]:
    """A note of another party from its JSON text. Raises UpdateError where it is none."""
    if len(text) > LARGEST_HEADER:
        raise _malformed(f"its note has {len(text)} characters, at most {LARGEST_HEADER} are read")
    return _parse(text)


def _read_header(message: Path | bytes) -> Header:
    header = _header_of(message, LARGEST_HEADER)
    note, digest = _note(header)
    entries = ((name, entry) for name, entry in header.items() if name != "__metadata__")
    return Header({name: _tensor_form(name, entry) for name, entry in entries}, note, digest)


def _header_of(message: Path | bytes, longest: int) -> dict[str, Any]:
    """The header as JSON values; at most `longest` bytes of it are read."""
    source = io.BytesIO(message) if isinstance(message, bytes) else message.open("rb")
    with source as file:
        start = file.read(8)
        if len(start) < 8:
            raise _malformed("it is shorter than a header")
        (length,) = struct.unpack("<Q", start)
        if length > longest:
            raise _malformed(f"its header has {length} bytes, at most {longest} are read")
        return _parse(file.read(length))


def _note(header: Mapping[str, Any]) -> tuple[dict[str, Any], object]:
    """The note, and the digest that was in it."""
    metadata = header.get("__metadata__")
    text = metadata.get(NOTE) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise _malformed("its header has no note of gliofed")
    note = _parse(text)
    return note, note.pop(_DIGEST, None)


def _parse(text: str | bytes) -> dict[str, Any]:
    """A JSON object in which no name stands twice."""
    try:
        parsed = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _malformed(str(error)) from None
    if not isinstance(parsed, dict):
        raise _malformed("its header or note is no JSON object")
    return parsed


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    once = dict(pairs)
    if len(once) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return once


def _tensor_form(name: str, entry: object) -> TensorForm:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _malformed(f"its header lists the tensor {shown(name)} wrongly")
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _malformed(f"the tensor {shown(name)} has dtype {shown(dtype)}")
    try:
        _SHAPE.check(shape, "shape")
    except UpdateError as error:
        raise _malformed(f"the tensor {shown(name)}: {error}") from None
    return TensorForm(_DTYPES[dtype], tuple(shape))


def _malformed(why: str) -> UpdateError:
    return UpdateError(f"the message is not in the format of gliofed: {why}")


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}


def _metadata(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> dict[str, str]:
    signed = {**note, _DIGEST: digest_of(tensors, note)}
    return {NOTE: json.dumps(signed, sort_keys=True)}


def digest_of(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> str:
    """SHA-256 of a message.

    It covers the note, which has no digest yet, then name, dtype, shape and the SHA-256 of the
    values of every tensor, in the order of names. Values of large tensors are hashed on all cores
    at once.
    """
    message = hashlib.sha256()
    message.update(json.dumps(note, sort_keys=True).encode())
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


def _check_digest(tensors: Mapping[str, Tensor], note: Mapping[str, Any], digest: object) -> None:
    """Raise UpdateError where the digest does not match."""
    if digest != digest_of(tensors, note):
        raise UpdateError("the message was changed or cut in transit: its digest does not match")
