"""The two requests of the comparison of patients between sites, and their responses, as files.

| request         | response         | what for                                                  |
|-----------------|------------------|-----------------------------------------------------------|
| `TokensRequest` | `TokensResponse` | keyed tokens of a site's patients, for the server         |
| `SharedNotice`  | `NoticeReceipt`  | a site's own shared patients, and those it does not use   |

A patient is a number here: its place in the site's announcement. As with every request, run and
nonce are repeated by the response. Values are checked when a file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, uint8
from torch import int32 as i32

from gliofed.errors import UpdateError
from gliofed.federated.linkage.server import CORNERS, SharedRow, TokenAnnouncement
from gliofed.federated.linkage.tokens import TOKENS
from gliofed.federated.wire import LARGEST_HEADER, load, save
from gliofed.types import SEQUENCES

LinkageKind = Literal["link", "notice"]
LINKAGE_KINDS: Final[tuple[LinkageKind, ...]] = ("link", "notice")
FORM: Final = "overlap-2"
"""Version of tokens and fingerprints. Those of two versions cannot be compared."""
MAX_SCANS: Final = 2000
"""Whole-brain cases of one site that are compared by image; further ones only by id."""
MAX_IDS: Final = 8
"""Ids of one patient: its own and its synonyms."""
LARGEST_RECEIPT: Final = 4096
"""Bytes of a `NoticeReceipt`."""
_IMAGE: Final = (len(SEQUENCES), CORNERS, TOKENS)
_TENSORS: Final = {"ids": uint8, "id_owner": i32, "images": i32, "shown": uint8, "image_owner": i32}


@dataclass(frozen=True)
class TokensRequest:
    """A request for the tokens of a site's patients."""

    run: str
    nonce: str


@dataclass(frozen=True)
class TokensResponse:
    """The tokens of one site, or None where its policy forbids the comparison."""

    run: str
    nonce: str
    site: str
    tokens: TokenAnnouncement | None


@dataclass(frozen=True)
class SharedNotice:
    """The patients of `site` that are at other sites, too; for that site alone."""

    run: str
    nonce: str
    site: str
    rows: tuple[SharedRow, ...]


@dataclass(frozen=True)
class NoticeReceipt:
    """The site has taken a notice into account."""

    run: str
    nonce: str
    site: str


LinkageRequest = TokensRequest | SharedNotice


def largest_tokens(max_cases: int) -> int:
    """Bytes of the largest `TokensResponse` of a site with up to `max_cases` patients."""
    scan = 4 * int(np.prod(_IMAGE)) + len(SEQUENCES) + 4
    return min(max_cases, MAX_SCANS) * scan + max_cases * MAX_IDS * 20 + LARGEST_HEADER


def within_limits(tokens: TokenAnnouncement) -> TokenAnnouncement:
    """The announcement with its first `MAX_SCANS` scans."""
    rows = {name: getattr(tokens, name)[:MAX_SCANS] for name in ("images", "shown", "image_owner")}
    return replace(tokens, **rows)


def save_linkage_request(path: Path, request: LinkageRequest) -> None:
    """A request as a file."""
    origin = {"run": request.run, "nonce": request.nonce}
    match request:
        case TokensRequest():
            save(path, {}, {"kind": "link", **origin}, lasting=False)
        case SharedNotice():
            rows = [[r.patient, r.elsewhere, r.kept] for r in request.rows]
            note = {"kind": "notice", **origin, "site": request.site, "elsewhere": rows}
            save(path, {}, note, lasting=False)


def load_linkage_request(path: Path) -> LinkageRequest:
    """A file as a request. Raises UpdateError where it is none."""
    tensors, note = load(path)
    try:
        return _linkage_request(tensors, note)
    except (KeyError, TypeError, ValueError) as error:
        raise UpdateError(f"the request has a missing or wrong field: {error}") from None


def _linkage_request(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> LinkageRequest:
    kind, run, nonce = str(note["kind"]), str(note["run"]), str(note["nonce"])
    if tensors or kind not in LINKAGE_KINDS:
        raise ValueError(f"kind {kind!r} with {len(tensors)} tensors")
    if kind == "link":
        return TokensRequest(run, nonce)
    rows = tuple(_row(*row) for row in note["elsewhere"])
    return SharedNotice(run, nonce, str(note["site"]), rows)


def _row(patient: object, elsewhere: object, kept: object) -> SharedRow:
    if type(patient) is not int or type(elsewhere) is not int or type(kept) is not bool:
        raise ValueError(f"row {[patient, elsewhere, kept]}, expected two integers and a boolean")
    if patient < 0 or elsewhere < 1:
        raise ValueError(f"row {[patient, elsewhere, kept]}, expected at least 0 and at least 1")
    return SharedRow(patient, elsewhere, kept)


def save_tokens(path: Path, response: TokensResponse) -> None:
    """Tokens as a file. With None it has no tensors and no number of patients."""
    note = {
        "form": FORM,
        "run": response.run,
        "nonce": response.nonce,
        "site": response.site,
        "patients": response.tokens.patients if response.tokens else None,
    }
    tokens = response.tokens
    arrays = {name: getattr(tokens, name) for name in _TENSORS} if tokens else {}
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    save(path, tensors, note, lasting=False)


def load_tokens(path: Path, max_cases: int) -> TokensResponse:
    """The tokens in a file, after checks of size, form, types, shapes and owners.

    max_cases: largest number of patients of a site. Tensors are mapped: the file must stay as it
    is. Raises UpdateError naming the first check that failed.
    """
    size, largest = path.stat().st_size, largest_tokens(max_cases)
    if size > largest:
        raise UpdateError(f"its tokens have {size} bytes, allowed are {largest}")
    tensors, note = load(path)
    if note.get("form") != FORM:
        raise UpdateError(
            f"its tokens do not have the form {FORM!r}: all sites and the server need the same "
            "version of gliofed"
        )
    origin = [note.get(key) for key in ("run", "nonce", "site")]
    run, nonce, site = (value if isinstance(value, str) else "" for value in origin)
    if note.get("patients") is None and not tensors:
        return TokensResponse(run, nonce, site, None)
    tokens = _announcement(site, note.get("patients"), tensors, max_cases)
    return TokensResponse(run, nonce, site, tokens)


def _announcement(
    site: str, patients: object, tensors: Mapping[str, Tensor], most: int
) -> TokenAnnouncement:
    if type(patients) is not int or not 0 <= patients <= most:
        raise UpdateError(f"patients is not an integer from 0 to {most}")
    if {k: t.dtype for k, t in tensors.items()} != _TENSORS:
        raise UpdateError(f"its tensors are not exactly {sorted(_TENSORS)} of their dtypes")
    ids, images = len(tensors["id_owner"].ravel()), len(tensors["image_owner"].ravel())
    if ids > patients * MAX_IDS or images > MAX_SCANS:
        raise UpdateError(
            f"{ids} ids and {images} scans of {patients} patients; allowed are {MAX_IDS} ids a "
            f"patient and {MAX_SCANS} scans"
        )
    shapes = {
        "ids": (ids, 16),
        "id_owner": (ids,),
        "images": (images, *_IMAGE),
        "shown": (images, len(SEQUENCES)),
        "image_owner": (images,),
    }
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise UpdateError(f"{name} has shape {tuple(tensors[name].shape)}, expected {shape}")
    arrays: dict[str, Any] = {k: t.numpy() for k, t in tensors.items()}
    for owners in (arrays["id_owner"], arrays["image_owner"]):
        if owners.size and not (owners.min() >= 0 and owners.max() < patients):
            raise UpdateError("the owner of a token is not a patient of the site")
    return TokenAnnouncement(site, patients, **arrays)


def save_receipt(path: Path, receipt: NoticeReceipt) -> None:
    """A receipt as a file."""
    note = {"run": receipt.run, "nonce": receipt.nonce, "site": receipt.site}
    save(path, {}, note, lasting=False)


def load_receipt(path: Path) -> NoticeReceipt:
    """A file as a receipt. Raises UpdateError where it is none, or too large for one."""
    size = path.stat().st_size
    if size > LARGEST_RECEIPT:
        raise UpdateError(f"a receipt has {size} bytes, allowed are {LARGEST_RECEIPT}")
    tensors, note = load(path)
    values = [note.get(key) for key in ("run", "nonce", "site")]
    if tensors or not all(isinstance(v, str) for v in values) or len(note) != len(values):
        raise UpdateError("it is not the receipt of a notice")
    run, nonce, site = map(str, values)
    return NoticeReceipt(run, nonce, site)
