"""One bad update a round, made from the honest one, and what the server says of it.

Round 0 is answered honestly, so that there is something to replay, and the site is known to be one
whose updates are merged otherwise.
"""

import dataclasses
import math
import shutil
import struct
from pathlib import Path

import torch

from gliofed.federated.gate import largest_update
from gliofed.federated.messages import TrainingRequest, load_request, load_update, save_update
from gliofed.federated.wire import LARGEST_HEADER
from gliofed.types import Update


def _changed(path: Path, **fields) -> None:
    update = load_update(path)
    changed = dataclasses.replace(update, **fields)
    save_update(path.with_name("changed"), changed)
    path.with_name("changed").replace(path)


def _with(path: Path, change) -> None:
    weights = dict(load_update(path).weights)
    name = next(k for k, v in weights.items() if v.dim() > 1)
    change(weights, name)
    _changed(path, weights=weights)


def _poke(value):
    def change(weights, name) -> None:
        weights[name] = weights[name].clone()
        weights[name].view(-1)[0] = value

    return change


def _bytes(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


def _header(data: bytes, length: int) -> bytes:
    return struct.pack("<Q", length) + data[8:]


def _oversize(path: Path, task) -> None:
    with path.open("r+b") as file:
        file.truncate(largest_update(task) + LARGEST_HEADER)  # the transfer's bound, not the gate's


def _earlier(path: Path) -> Path:
    return path.with_name("earlier.safetensors")


BAD = {
    "NaN": (lambda p, t: _with(p, _poke(math.nan)), "has NaN or infinite values"),
    "infinity": (lambda p, t: _with(p, _poke(math.inf)), "has NaN or infinite values"),
    "shape": (lambda p, t: _with(p, lambda w, n: w.update({n: w[n][:1].clone()})), "expected"),
    "dtype": (lambda p, t: _with(p, lambda w, n: w.update({n: w[n].double()})), "float64, expected"),
    "missing tensor": (lambda p, t: _with(p, lambda w, n: w.pop(n)), "lacks tensors of the model"),
    "one tensor more": (lambda p, t: _with(p, lambda w, n: w.update(evil=torch.ones(1))), "tensors the model lacks"),
    "cut short": (lambda p, t: _bytes(p, lambda d: d[:-3]), "cannot be read"),
    "header too long": (lambda p, t: _bytes(p, lambda d: _header(d, 2**40)), "is not in the format of gliofed"),
    "header too short": (lambda p, t: _bytes(p, lambda d: _header(d, 9)), "is not in the format of gliofed"),
    "dtype that does not fit its bytes": (
        lambda p, t: _bytes(p, lambda d: d.replace(b'"dtype":"F32"', b'"dtype":"F64"', 1)), "cannot be read"),
    "too large": (_oversize, "bytes, the limit"),
    "cases": (lambda p, t: _changed(p, cases=10**12), "claims 1000000000000 cases"),
    "norm": (lambda p, t: _changed(p, weights={k: 1000 * v for k, v in load_update(p).weights.items()}), "above the bound"),
    "name of another site": (lambda p, t: _changed(p, site="north"), "the name of site 'north'"),
    "digest": (lambda p, t: _bytes(p, lambda d: d[:-1] + bytes([d[-1] ^ 1])), "its digest does not match"),
    "answer of an earlier round": (lambda p, t: shutil.copy(_earlier(p), p), "it is of round"),
    "old nonce": (lambda p, t: _changed(p, nonce=load_update(_earlier(p)).nonce), "its nonce differs"),
    "answer of another run": (lambda p, t: _changed(p, run="0" * 24), "it is of run"),
}  # fmt: skip


def change(site: type) -> None:
    """From now on, no `site` trains, which takes long; the one named east answers with `BAD`.

    Round n is answered with the n-th of them.
    """
    honest = site.respond

    def respond(self, request_file: Path, response_file: Path) -> None:
        request = load_request(request_file)
        if not isinstance(request, TrainingRequest):
            honest(self, request_file, response_file)
            return
        new, counts = response_file.with_name("new"), self.counts
        weights = {k: 1.001 * v for k, v in request.weights.items()}
        update = Update(
            request.run,
            request.round,
            request.nonce,
            self.name,
            weights,
            counts.cases,
            counts.labelled,
            {},
        )
        save_update(new, update)
        shutil.copy(new, response_file)
        if self.name == "east" and request.round > 0:
            change, _ = list(BAD.values())[request.round - 1]
            change(response_file, request)
        new.replace(_earlier(response_file))

    site.respond = respond
