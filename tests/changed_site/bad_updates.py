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

from gliofed.federated.gate import largest_response
from gliofed.federated.messages import LARGEST_HEADER, load_task, load_update, save_update
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
        file.truncate(
            largest_response(task) + LARGEST_HEADER
        )  # the transfer's bound, not the gate's


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
    "header too long": (lambda p, t: _bytes(p, lambda d: _header(d, 2**40)), "is not one of gliofed's"),
    "header too short": (lambda p, t: _bytes(p, lambda d: _header(d, 9)), "is not one of gliofed's"),
    "dtype that does not fit its bytes": (
        lambda p, t: _bytes(p, lambda d: d.replace(b'"dtype":"F32"', b'"dtype":"F64"', 1)), "cannot be read"),
    "too large": (_oversize, "bytes that it may have"),
    "cases": (lambda p, t: _changed(p, cases=10**12), "claims 1000000000000 cases"),
    "norm": (lambda p, t: _changed(p, weights={k: 1000 * v for k, v in load_update(p).weights.items()}), "above the bound"),
    "name of another site": (lambda p, t: _changed(p, site="north"), "the name of site 'north'"),
    "digest": (lambda p, t: _bytes(p, lambda d: d[:-1] + bytes([d[-1] ^ 1])), "its digest does not fit"),
    "answer of an earlier round": (lambda p, t: shutil.copy(_earlier(p), p), "it is of round"),
    "old nonce": (lambda p, t: _changed(p, nonce=load_update(_earlier(p)).nonce), "its nonce differs"),
    "answer of another run": (lambda p, t: _changed(p, run="0" * 24), "it is of run"),
}  # fmt: skip


def change(site: type) -> None:
    """From now on, no `site` trains, which takes long; the one named east answers with `BAD`.

    Round n is answered with the n-th of them.
    """
    honest = site.answer

    def answer(self, asked: Path, answer: Path) -> None:
        task = load_task(asked)
        if task.kind != "train":
            honest(self, asked, answer)
            return
        new, counts = answer.with_name("new"), self.counts
        weights = {k: 1.001 * v for k, v in task.weights.items()}
        update = Update(task.run, task.round, task.nonce, self.name, weights, counts.cases,
                        counts.labelled, {})  # fmt: skip
        save_update(new, update)
        shutil.copy(new, answer)
        if self.name == "east" and task.round > 0:
            change, _ = list(BAD.values())[task.round - 1]
            change(answer, task)
        new.replace(_earlier(answer))

    site.answer = answer
