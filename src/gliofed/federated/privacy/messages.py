"""The requests and responses of secret sums, each as one file.

| request         | response         | what for                                                 |
|-----------------|------------------|----------------------------------------------------------|
| `KeysRequest`   | `KeysResponse`   | the public keys of a site                                |
| `SharesRequest` | `SharesResponse` | shares of its secrets, encrypted to the other sites      |
| `CountsRequest` | `MaskedSum`      | masked counts                                            |
| `TrainingRequest` | `MaskedSum`    | a masked gradient with its figures                       |
| `UnmaskRequest` | `UnmaskResponse` | shares that open one sum                                 |

A site's place in a tensor is its place in the list of members of the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from gliofed.errors import UpdateError
from gliofed.federated.message_table import check_note, check_request_note
from gliofed.federated.messages import Request
from gliofed.federated.named_tensors import Layout, TensorForm, layout_of, require_layout
from gliofed.federated.privacy.figures import SIZE
from gliofed.federated.privacy.keys import PublicKeys
from gliofed.federated.privacy.shamir import SECRET_BYTES, SHARE_BYTES
from gliofed.federated.privacy.slot import SLOTS, SumSlot
from gliofed.federated.schema import Choice
from gliofed.federated.wire import Header, receive, save

SUM_KINDS: Final = ("keys", "shares", "unmask")
FIGURES: Final = "figures"
SEALED_BYTES: Final = 2 * SHARE_BYTES + 16
"""Of two shares and the tag of their encryption."""


@dataclass(frozen=True)
class KeysRequest:
    """A request for new keys."""

    run: str
    nonce: str


@dataclass(frozen=True)
class KeysResponse:
    """The keys of one site."""

    run: str
    nonce: str
    site: str
    keys: PublicKeys


@dataclass(frozen=True)
class SharesRequest:
    """The keys of all sites. agreement: the nonce of the request for keys. members: in the order of
    their names; holder number x of a share is the x-th of them."""

    run: str
    nonce: str
    agreement: str
    members: tuple[PublicKeys, ...]


@dataclass(frozen=True)
class SharesResponse:
    """Shares of one site's secrets.

    shares: (`SLOTS`, members, `SEALED_BYTES`) uint8: for each slot and holder, the share of the
    seed of the own mask and that of the key of the pair masks, encrypted. digests: (`SLOTS`,
    members, 2, 32) uint8: the SHA-256 of each share, for the server.
    """

    run: str
    nonce: str
    site: str
    shares: Tensor
    digests: Tensor


@dataclass(frozen=True)
class MaskedSum:
    """The masked integers of one site: of a gradient, or none for counts; and `FIGURES`, int64."""

    run: str
    nonce: str
    site: str
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class UnmaskRequest:
    """A request for the shares that open a sum.

    present: members whose masked tensors were added. shares: (members, members, `SEALED_BYTES`)
    uint8, by dealer and holder.
    """

    run: str
    nonce: str
    slot: SumSlot
    present: tuple[str, ...]
    shares: Tensor


@dataclass(frozen=True)
class UnmaskResponse:
    """The shares that one site holds.

    shares: (members, `SHARE_BYTES`) uint8: of the seed of a present dealer, of the key of another
    one. withheld: dealers whose shares could not be decrypted; their rows are 0.
    """

    run: str
    nonce: str
    site: str
    withheld: tuple[str, ...]
    shares: Tensor


SumRequest = KeysRequest | SharesRequest | UnmaskRequest


def save_sum_request(path: Path, request: SumRequest) -> None:
    """A request as a file."""
    tensors, fields = _request_content(request)
    save(path, tensors, {"run": request.run, "nonce": request.nonce, **fields}, lasting=False)


def _request_content(request: SumRequest) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    match request:
        case KeysRequest():
            return {}, {"kind": "keys"}
        case SharesRequest():
            stacked = [_key_tensors(m) for m in request.members]
            members = [[m.site, m.signature, m.certificate] for m in request.members]
            return (
                {name: torch.stack([own[name] for own in stacked]) for name in stacked[0]},
                {"kind": "shares", "agreement": request.agreement, "members": members},
            )
        case UnmaskRequest():
            present = list(request.present)
            fields = {"kind": "unmask", "slot": request.slot.plain, "present": present}
            return {"shares": request.shares}, fields


def load_sum_request(path: Path) -> SumRequest:
    """A file as a request. Raises UpdateError where it is none."""

    def check(header: Header) -> None:
        Choice(SUM_KINDS).check(header.note.get("kind"), "kind")
        kind = check_request_note(header.note)
        if kind == "keys":
            require_layout(header.layout, {})
        elif kind == "shares":
            many = len(header.note["members"])
            require_layout(header.layout, {k: _bytes(many, *s) for k, s in _KEY_SHAPES.items()})
        else:
            many = len(header.note["slot"]["members"])
            require_layout(header.layout, {"shares": _bytes(many, many, SEALED_BYTES)})

    tensors, note = receive(path, check)
    run, nonce = note["run"], note["nonce"]
    if note["kind"] == "keys":
        return KeysRequest(run, nonce)
    if note["kind"] == "unmask":
        slot = SumSlot.of(note["slot"])
        assert slot is not None, "the table has no null for it"
        return UnmaskRequest(run, nonce, slot, tuple(note["present"]), tensors["shares"])
    members = tuple(
        _keys(note["members"][i], {k: t[i] for k, t in tensors.items()})
        for i in range(len(note["members"]))
    )
    return SharesRequest(run, nonce, note["agreement"], members)


def save_keys(path: Path, response: KeysResponse) -> None:
    """Keys as a file."""
    keys = response.keys
    signed = {"signature": keys.signature, "certificate": keys.certificate}
    save(path, _key_tensors(keys), {**_origin(response), **signed}, lasting=False)


def load_keys(path: Path) -> KeysResponse:
    """A file as keys. Raises UpdateError where it is none."""
    layout = {name: _bytes(*shape) for name, shape in _KEY_SHAPES.items()}
    tensors, note = _receive(path, "KeysResponse", layout)
    keys = _keys((note["site"], note["signature"], note["certificate"]), tensors)
    return KeysResponse(note["run"], note["nonce"], note["site"], keys)


def save_shares(path: Path, response: SharesResponse) -> None:
    """Shares as a file."""
    tensors = {"shares": response.shares, "digests": response.digests}
    save(path, tensors, _origin(response), lasting=False)


def load_shares(path: Path, members: int) -> SharesResponse:
    """A file as shares for `members` holders. Raises UpdateError where it is none."""
    layout = {
        "shares": _bytes(SLOTS, members, SEALED_BYTES),
        "digests": _bytes(SLOTS, members, 2, 32),
    }
    tensors, note = _receive(path, "SharesResponse", layout)
    return SharesResponse(note["run"], note["nonce"], note["site"], **_copied(tensors))


def save_masked(path: Path, masked: MaskedSum) -> None:
    """Masked tensors as a file."""
    save(path, masked.tensors, _origin(masked), lasting=False)


def load_masked(
    path: Path, model: Mapping[str, Tensor], dtype: torch.dtype = torch.int64
) -> MaskedSum:
    """A file as masked tensors, mapped. model: those of the gradient; none for counts.

    dtype: of a gradient. Raises UpdateError where it is none.
    """
    layout = {name: TensorForm(dtype, form.shape) for name, form in layout_of(model).items()}
    figures = {FIGURES: TensorForm(torch.int64, (SIZE,))}
    tensors, note = _receive(path, "MaskedSum", {**layout, **figures})
    return MaskedSum(note["run"], note["nonce"], note["site"], tensors)


def save_opening(path: Path, response: UnmaskResponse) -> None:
    """Shares that open a sum as a file."""
    note = {**_origin(response), "withheld": list(response.withheld)}
    save(path, {"shares": response.shares}, note, lasting=False)


def load_opening(path: Path, members: int) -> UnmaskResponse:
    """A file as shares that open a sum of `members`. Raises UpdateError where it is none."""
    tensors, note = _receive(path, "UnmaskResponse", {"shares": _bytes(members, SHARE_BYTES)})
    run, nonce, site = note["run"], note["nonce"], note["site"]
    return UnmaskResponse(run, nonce, site, tuple(note["withheld"]), **_copied(tensors))


SumResponse = KeysResponse | SharesResponse | MaskedSum | UnmaskResponse


def _origin(response: SumResponse) -> dict[str, Any]:
    return {"run": response.run, "nonce": response.nonce, "site": response.site}


def _receive(path: Path, message: str, layout: Layout) -> tuple[dict[str, Tensor], dict[str, Any]]:
    def check(header: Header) -> None:
        check_note(message, header.note)
        require_layout(header.layout, layout)

    return receive(path, check)


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Small tensors that stay when their file is deleted."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


_KEY_SHAPES: Final = {
    "encryption": (32,),
    "masking": (SLOTS, 32),
    "commitments": (SLOTS, SECRET_BYTES),
}


def _key_tensors(keys: PublicKeys) -> dict[str, Tensor]:
    return {
        "encryption": as_bytes(keys.encryption),
        "masking": torch.stack([as_bytes(k) for k in keys.masking]),
        "commitments": torch.stack([as_bytes(c) for c in keys.commitments]),
    }


def _keys(names: Sequence[str], tensors: Mapping[str, Tensor]) -> PublicKeys:
    """names: site, signature, certificate."""
    return PublicKeys(
        names[0],
        from_bytes(tensors["encryption"]),
        tuple(map(from_bytes, tensors["masking"])),
        tuple(map(from_bytes, tensors["commitments"])),
        *names[1:],
    )


def as_bytes(data: bytes) -> Tensor:
    """(n,) uint8."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def from_bytes(tensor: Tensor) -> bytes:
    """The bytes of a uint8 tensor."""
    return tensor.numpy().tobytes()


def _bytes(*shape: int) -> TensorForm:
    return TensorForm(torch.uint8, shape)


def check_origin(site: str, request: SumRequest | Request, response: SumResponse) -> None:
    """Raise UpdateError where a response is of another site, run or request."""
    if (response.run, response.nonce, response.site) != (request.run, request.nonce, site):
        raise UpdateError(
            f"site {site}: it responds to another request (its run, nonce or site differs)"
        )
