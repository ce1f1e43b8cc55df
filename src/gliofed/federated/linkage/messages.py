"""The two requests of the comparison of patients between sites, and their responses, as files.

| request         | response         | what for                                                  |
|-----------------|------------------|-----------------------------------------------------------|
| `TokensRequest` | `TokensResponse` | keyed tokens of a site's patients, for the server         |
| `SharedNotice`  | `NoticeReceipt`  | a site's own shared patients, and those it does not use   |

A patient is a number here: its place in the site's announcement. As with every request, run and
nonce are repeated by the response. Values are checked when a file is read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import int32 as i32
from torch import uint8

from gliofed.errors import UpdateError
from gliofed.federated.linkage.server import CORNERS, SharedRow, TokenAnnouncement
from gliofed.federated.linkage.tokens import TOKENS
from gliofed.federated.message_table import OVERLAP, check_note, check_request_note
from gliofed.federated.named_tensors import Layout, TensorForm, require_layout
from gliofed.federated.schema import Choice, Whole, shown
from gliofed.federated.wire import LARGEST_HEADER, Header, receive, require_no_tensors, save
from gliofed.types import SEQUENCES

LinkageKind = Literal["link", "notice"]
LINKAGE_KINDS: Final[tuple[LinkageKind, ...]] = ("link", "notice")
MAX_SCANS: Final = 2000
"""Whole-brain cases of one site that are compared by image; further ones only by id."""
MAX_IDS: Final = 8
"""Ids of one patient: its own and its synonyms."""
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
    _, note = receive(path, require_no_tensors)
    Choice(LINKAGE_KINDS).check(note.get("kind"), "kind")
    if check_request_note(note) == "link":
        return TokensRequest(note["run"], note["nonce"])
    rows = tuple(SharedRow(*row) for row in note["elsewhere"])
    return SharedNotice(note["run"], note["nonce"], note["site"], rows)


def save_tokens(path: Path, response: TokensResponse) -> None:
    """Tokens as a file. With None it has no tensors and no number of patients."""
    note = {
        "form": OVERLAP,
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

    def check(header: Header) -> None:
        note, sent = header.note, header.layout
        if note.get("form") != OVERLAP:
            raise UpdateError(
                f"its tokens have the form {shown(note.get('form'))}, expected {OVERLAP!r}: all "
                "sites and the server need the same version of gliofed"
            )
        check_note("TokensResponse", note)
        patients = note["patients"]
        if patients is not None:
            Whole(0, max_cases).check(patients, "patients")
        require_layout(sent, {} if patients is None else _layout(sent, patients))

    tensors, note = receive(path, check)
    run, nonce, site = note["run"], note["nonce"], note["site"]
    if note["patients"] is None:
        return TokensResponse(run, nonce, site, None)
    arrays: dict[str, Any] = {k: t.numpy() for k, t in tensors.items()}
    for owners in (arrays["id_owner"], arrays["image_owner"]):
        if owners.size and not (owners.min() >= 0 and owners.max() < note["patients"]):
            raise UpdateError("the owner of a token is not a patient of the site")
    tokens = TokenAnnouncement(site, note["patients"], **arrays)
    return TokensResponse(run, nonce, site, tokens)


def _layout(sent: Layout, patients: int) -> Layout:
    """The tensors of an announcement with as many ids and images as `sent` has."""
    rows = {}
    for name, most in (("id_owner", patients * MAX_IDS), ("image_owner", MAX_SCANS)):
        shape = sent[name].shape if name in sent else ()
        rows[name] = shape[0] if shape else 0
        Whole(0, most).check(rows[name], f"rows of {name}")
    ids, images = rows["id_owner"], rows["image_owner"]
    shapes = {
        "ids": (ids, 16),
        "id_owner": (ids,),
        "images": (images, *_IMAGE),
        "shown": (images, len(SEQUENCES)),
        "image_owner": (images,),
    }
    return {name: TensorForm(_TENSORS[name], shape) for name, shape in shapes.items()}


def save_receipt(path: Path, receipt: NoticeReceipt) -> None:
    """A receipt as a file."""
    note = {"run": receipt.run, "nonce": receipt.nonce, "site": receipt.site}
    save(path, {}, note, lasting=False)


def load_receipt(path: Path) -> NoticeReceipt:
    """A file as a receipt. Raises UpdateError where it is none."""
    _, note = receive(path, require_no_tensors)
    check_note("NoticeReceipt", note)
    return NoticeReceipt(note["run"], note["nonce"], note["site"])
