"""Checks that an exported model gives the outputs of the original."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

import torch
from torch import Tensor

from gliofed.errors import ModelError
from gliofed.models.network import MultiTaskNet, NetworkOutput

MAX_LOGIT_DIFFERENCE: Final = 1e-4
"""The greatest difference of a logit: 0.000025 of a probability."""

Outputs = Mapping[str, Tensor]
"""By name, in this order: `mask` and each marker's id; logits as in `NetworkOutput`."""
_ASKED: Final = (
    ((24, 24, 24), ((1, 1, 1, 1), (0, 1, 0, 1))),
    ((33, 20, 29), ((1, 0, 1, 1),)),
    ((9, 40, 13), ((0, 0, 0, 1),)),
)
"""Grid size, and the present sequences of each case of the batch."""


def named_outputs(answers: NetworkOutput, without: Collection[str] = ()) -> Outputs:
    """A network's outputs under the names of exported formats. without: markers to leave out."""
    markers = {m: logits for m, logits in answers.markers.items() if m not in without}
    return {"mask": answers.mask, **markers}


def check_equivalence(
    net: MultiTaskNet,
    other: Callable[[Tensor, Tensor], Outputs],
    name: str,
    without: Collection[str] = (),
) -> float:
    """The greatest difference of any output of `other`, called as `net` is: image, present.

    without: markers whose outputs `other` must not have.

    Compared in float32 on the CPU on noise of several sizes, odd ones too, with sequences missing.
    name: of the format, for the error. Raises ModelError: other outputs, or a difference that is
    above `MAX_LOGIT_DIFFERENCE` or not a number.
    """
    greatest, where = 0.0, ""
    for image, present in _questions():
        with torch.inference_mode():
            expected = named_outputs(net(image, present), without)
        actual = other(image, present)
        if {k: v.shape for k, v in expected.items()} != {k: v.shape for k, v in actual.items()}:
            raise ModelError(f"{name}: has other outputs than the model; nothing was written")
        for output, logits in expected.items():
            difference = (logits - actual[output]).abs().max().item()
            if math.isnan(difference) or difference > greatest:
                greatest, where = math.inf if math.isnan(difference) else difference, output
    if greatest > MAX_LOGIT_DIFFERENCE:
        raise ModelError(
            f"{name}: gives other results than the model: {where} differs by {greatest:.1e}, "
            "allowed "
            f"is {MAX_LOGIT_DIFFERENCE:.0e}; nothing was written"
        )
    return greatest


def _questions() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for size, rows in _ASKED:
        present = torch.tensor(rows, dtype=torch.float32)
        image = torch.randn(*present.shape, *size, generator=generator)
        yield image * present[:, :, None, None, None], present
