"""One bad update a round, made from the honest one, and what the server says of it.

Round 0 is answered honestly, so that there is something to replay, and the site is known to be one
whose updates are merged otherwise.
"""

import dataclasses
import math
import shutil
import struct
import sys
from pathlib import Path

import torch

from gliofed.federated.gate import UpdateGate
from gliofed.federated.messages import TrainingRequest, load_request, load_update, save_update
from gliofed.federated.wire import LARGEST_HEADER, read_note
from gliofed.types import Stat, Update


def _changed(path: Path, **fields) -> None:
    update = load_update(path)
    changed = dataclasses.replace(update, **fields)
    save_update(path.with_name("changed"), changed)
    path.with_name("changed").replace(path)


def _with(path: Path, change) -> None:
    tensors = dict(load_update(path).tensors)
    name = next(k for k, v in tensors.items() if v.dim() > 1)
    change(tensors, name)
    _changed(path, tensors=tensors)


def _poke(value):
    def change(tensors, name) -> None:
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[0] = value

    return change


def _bytes(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


def _header(data: bytes, length: int) -> bytes:
    return struct.pack("<Q", length) + data[8:]


def _oversize(path: Path, gate: UpdateGate) -> None:
    with path.open("r+b") as file:
        file.truncate(gate.largest + LARGEST_HEADER)  # the transfer's bound, not the gate's


def _earlier(path: Path) -> Path:
    return path.with_name("earlier.safetensors")


def _larger(path: Path, factor: float) -> None:
    _changed(path, tensors={k: factor * v for k, v in load_update(path).tensors.items()})


_OF_BOTH = {
    "NaN": (lambda p, g: _with(p, _poke(math.nan)), "has NaN or infinite values"),
    "infinity": (lambda p, g: _with(p, _poke(math.inf)), "has NaN or infinite values"),
    "shape": (lambda p, g: _with(p, lambda w, n: w.update({n: w[n][:1].clone()})), "expected"),
    "dtype": (lambda p, g: _with(p, lambda w, n: w.update({n: w[n].double()})), "float64, expected"),
    "missing tensor": (lambda p, g: _with(p, lambda w, n: w.pop(n)), "lacks tensors of the model"),
    "one tensor more": (lambda p, g: _with(p, lambda w, n: w.update(evil=torch.ones(1))), "tensors the model lacks"),
    "cut short": (lambda p, g: _bytes(p, lambda d: d[:-3]), "cannot be read"),
    "header too long": (lambda p, g: _bytes(p, lambda d: _header(d, 2**40)), "is not in the format of gliofed"),
    "header too short": (lambda p, g: _bytes(p, lambda d: _header(d, 9)), "is not in the format of gliofed"),
    "dtype that does not fit its bytes": (
        lambda p, g: _bytes(p, lambda d: d.replace(b'"dtype":"F32"', b'"dtype":"F64"', 1)), "float64, expected"),
    "too large": (_oversize, "bytes, the limit"),
    "cases": (lambda p, g: _changed(p, cases=10**12), "cases is 1000000000000, expected"),
    "name of another site": (lambda p, g: _changed(p, site="north"), "the name of site 'north'"),
    "digest": (lambda p, g: _bytes(p, lambda d: d[:-1] + bytes([d[-1] ^ 1])), "its digest does not match"),
    "answer of an earlier round": (lambda p, g: shutil.copy(_earlier(p), p), "it is of round"),
    "statistic beyond the floats": (lambda p, g: _changed(p, stats={"mask": Stat(10**400, 1)}), "stats.mask.0 is 1000"),
    "free statistics": (lambda p, g: _changed(p, stats={f"s{n}": Stat(1, 1) for n in range(9000)}), "stats has 's0'"),
    "old nonce": (lambda p, g: _changed(p, nonce=load_update(_earlier(p)).nonce), "its nonce differs"),
    "answer of another run": (lambda p, g: _changed(p, run="0" * 24), "it is of run"),
}  # fmt: skip
BAD = {
    "synchronous": _OF_BOTH | {
        "norm": (lambda p, g: _larger(p, 1e7), "above the bound 1000 (max_gradient)"),
        "tensors without a case": (lambda p, g: _changed(p, cases=0), "it has tensors, but no case"),
        "cases without a tensor": (lambda p, g: _changed(p, tensors={}), "lacks tensors of the model"),
        "cases below 0": (lambda p, g: _changed(p, cases=-1), "cases is -1, expected"),
        "label counts": (lambda p, g: _changed(p, labelled={"idh": 1}), "it has label counts"),
    },
    "label_aware": _OF_BOTH | {
        "norm": (lambda p, g: _larger(p, 1000), "max_norm_ratio 2 x model norm"),
        "no case": (lambda p, g: _changed(p, cases=0), "claims 0 cases"),
        "no label counts": (lambda p, g: _changed(p, labelled={}), "it counts labels for []"),
        "more labels than cases": (
            lambda p, g: _changed(p, labelled={**load_update(p).labelled, "idh": 5}), "claims 5 labels of idh for 4 cases"),
    },
}  # fmt: skip
"""By method: gradients and weights."""


def _report_honestly(response: Path) -> None:
    """The site's own report of the round reads what the file says before it is changed."""
    executor = sys.modules["gliofed.deployment.client_executor"]
    read, honest = executor.read_note, read_note(response)
    executor.read_note = lambda path: honest if path == response else read(path)


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
        new, limits = response_file.with_name("new"), self._training._setup.study.federation
        gradient = limits.method == "synchronous"
        share = 0.001 if gradient else 1.001
        update = Update(
            run=request.run,
            round=request.round,
            nonce=request.nonce,
            site=self.name,
            tensors={k: share * v for k, v in request.weights.items()},
            cases=self.counts.cases,
            labelled={} if gradient else self.counts.labelled,
            stats={},
        )
        save_update(new, update)
        shutil.copy(new, response_file)
        if self.name == "east" and request.round > 0:
            change, _ = list(BAD[limits.method].values())[request.round - 1]
            _report_honestly(response_file)
            change(response_file, UpdateGate(request, limits))
        new.replace(_earlier(response_file))

    site.respond = respond
