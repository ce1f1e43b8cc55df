"""Gradient inversion measured on a run's own patients.

The attacker is given the network, its weights, and the labels, masks, present sequences and dropout
of each patient; images are searched. So a figure is an upper bound of what this attack gets in a
federation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliofed.data.store import PreparedCase
from gliofed.evaluation.by_site_sums.sums import ValueMoments
from gliofed.evaluation.intervals.analytic import mean_interval, wilson_bounds
from gliofed.evaluation.privacy.image_similarity import (
    correlation,
    matched,
    structural_similarity,
)
from gliofed.evaluation.privacy.rows import JOINT, PrivacyRow
from gliofed.experiments.privacy.inversion import InversionSettings, invert, with_noise
from gliofed.experiments.privacy.site_gradients import SiteGradients
from gliofed.types import Batch

Image = NDArray[np.float32]


@dataclass(frozen=True)
class InversionCase:
    """What is attacked. groups: cases of each site whose gradients are added before they are seen.
    noise: of every number, a share of the gradient's norm."""

    seen: str
    defence: str
    groups: tuple[tuple[PreparedCase, ...], ...]
    noise: float = 0.0


@dataclass(frozen=True)
class Reconstruction:
    """How like one patient's image the image found is, and how like those of patients who are not
    behind the gradient, on average and at most."""

    correlation: float
    ssim: float
    other_correlation: float
    other_ssim: float
    best_other: float

    @property
    def identified(self) -> bool:
        """Whether the image found is more like the patient's than like every other."""
        return self.correlation > self.best_other


def reconstruct(
    gradients: SiteGradients,
    attacked: InversionCase,
    others: Sequence[Image],
    settings: InversionSettings,
) -> list[Reconstruction]:
    """Attack one gradient; one result a patient behind it. others: images of other patients."""
    batches = [gradients.sample(group, 0) for group in attacked.groups]
    sent = [list(gradients.sent(b).values()) for b in batches]
    observed = [torch.stack(parts).sum(0) for parts in zip(*sent, strict=True)]
    if attacked.noise:
        observed = with_noise(observed, attacked.noise, seed=0)
    whole = _joined(batches)

    def gradient_of(image: Tensor) -> list[Tensor]:
        return gradients.differentiable(whole, image)

    found = invert(observed, gradient_of, whole.image.shape, settings)
    there = whole.present[..., None, None, None]
    return compare(_images(found * there), _images(whole.image), others)


def compare(
    found: Sequence[Image], truths: Sequence[Image], others: Sequence[Image]
) -> list[Reconstruction]:
    """Each true image with the found image that is matched with it.

    Against others, the found images are matched with as many of them at a time, so that matching
    favours neither side.
    """
    size = len(truths)
    beside: list[tuple[float, float]] = []
    for first in range(0, len(others) - size + 1, size):
        chosen = others[first : first + size]
        beside += [
            (correlation(f, o), structural_similarity(f, o))
            for f, o in zip(matched(found, chosen), chosen, strict=True)
        ]
    mean_corr, mean_ssim = np.mean(beside, axis=0) if beside else (math.nan, math.nan)
    return [
        Reconstruction(
            correlation(f, t),
            structural_similarity(f, t),
            float(mean_corr),
            float(mean_ssim),
            max((correlation(f, o) for o in others), default=-1.0),
        )
        for f, t in zip(matched(found, truths), truths, strict=True)
    ]


def inversion_rows(
    model: str, attacked: InversionCase, results: Sequence[Reconstruction], others: int
) -> list[PrivacyRow]:
    """Three figures: correlation, structural similarity, and the share of identified patients."""
    n = len(results)
    hits = sum(r.identified for r in results)
    chosen = PrivacyRow(
        "gradient_inversion",
        model,
        attacked.seen,
        attacked.defence,
        JOINT,
        "identified",
        hits / n,
        *wilson_bounds(hits, n),
        1 / (others + 1),
        n,
        f"nearer to the patient's image than to those of {others} other patients",
    )
    rows = [chosen]
    for metric in ("correlation", "ssim"):
        values = np.array([getattr(r, metric) for r in results])
        chance = float(np.mean([getattr(r, f"other_{metric}") for r in results]))
        low, high = _mean_bounds(values)
        note = "chance: with images of other patients"
        rows.append(
            replace(
                chosen,
                metric=metric,
                value=float(values.mean()),
                low=low,
                high=high,
                chance=chance,
                note=note,
            )
        )
    return rows


def _mean_bounds(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Student's t interval of a mean of values from -1 to 1; none of one value."""
    above = values + 1  # the interval is cut to begin at 0
    moments = ValueMoments(len(above), float(above.sum()), float((above**2).sum()))
    bounds = mean_interval(moments, 2.0)
    if bounds.low is None or bounds.high is None:
        return None, None
    return bounds.low - 1, bounds.high - 1


def _joined(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows."""
    names = ("image", "present", "mask", "has_mask", "labels", "known", "dropout")
    return Batch(**{name: torch.cat([getattr(b, name) for b in batches]) for name in names})


def _images(tensor: Tensor) -> list[Image]:
    return [image.numpy() for image in tensor]
