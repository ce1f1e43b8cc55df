"""Label inference measured on a run's own patients: groups of one site, and sums over sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from gliofed.data.store import PreparedCase
from gliofed.evaluation.privacy.label_inference import (
    GroupHits,
    KnownHead,
    apportioned,
    group_hits,
    inferred_counts,
    share_right,
)
from gliofed.evaluation.privacy.rows import JOINT, NONE, PrivacyRow
from gliofed.experiments.privacy.site_gradients import FLOAT32, SiteGradients
from gliofed.inference.forward import predict
from gliofed.markers import BY_ID
from gliofed.models.network import MultiTaskNet
from gliofed.runtime.progress import Progress
from gliofed.types import Unknown

Array = NDArray[np.float64]
GROUPS: Final = (1, 4, 8)
"""Patients of one site behind a gradient."""
NOISE: Final = (0.001, 0.01, 0.1)
"""Standard deviations of the noise on every number, as shares of the gradient of one patient."""


@dataclass(frozen=True)
class PatientGradient:
    """What one patient adds to the gradient of a site. classes: marker to the class, of known ones.
    biases: marker to the gradient of its head's last bias. norm: of the gradient of all
    parameters."""

    site: str
    patient: str
    classes: Mapping[str, int]
    biases: Mapping[str, Array]
    norm: float


def patient_gradients(
    gradients: SiteGradients, markers: Sequence[str], progress: Progress
) -> list[PatientGradient]:
    """One a training case; a site's gradient is the sum of those of its cases of the batch."""
    cases = [(site, c) for site, own in gradients.plan.sites.items() for c in own]
    out = []
    for done, (site, case) in enumerate(cases):
        progress.update(done, len(cases), str(case.case))
        sent = gradients.sent(gradients.sample([case], 0))
        norm = float(torch.stack([t.square().sum() for t in sent.values()]).sum().sqrt())
        biases = {m: sent[f"heads.{m}.layers.4.bias"].double().numpy() for m in markers}
        out.append(PatientGradient(site, case.case.patient, _classes(case), biases, norm))
    return out


def known_heads(
    net: MultiTaskNet, gradients: SiteGradients, own: Sequence[PreparedCase], markers: Sequence[str]
) -> Mapping[str, KnownHead]:
    """What a server knows of each head. own: labelled cases that the server has itself, such as the
    run's held-out ones; a class of which it has none is taken as predicted evenly."""
    answers = [(_classes(c), predict(net, c, FLOAT32, False).markers) for c in own]
    plan = gradients.plan
    out = {}
    for marker in markers:
        count = len(BY_ID[marker].classes)
        mean = np.full((count, count), 1 / count)
        for k in range(count):
            of_class = [a[marker] for known, a in answers if known.get(marker) == k]
            if of_class:
                mean[k] = np.mean(of_class, axis=0)
        weights = plan.task_weights[marker] * np.array(plan.class_weights[marker])
        out[marker] = KnownHead(weights, mean, plan.study.loss.label_smoothing)
    return out


def label_rows(
    model: str, patients: Sequence[PatientGradient], heads: Mapping[str, KnownHead]
) -> list[PrivacyRow]:
    """The share of right labels for every size of group, with every defence. model: "untrained" or
    "trained"."""
    rows = []
    for size in GROUPS:
        groups = _groups(patients, size)
        if not groups:
            continue
        seen = "gradient of 1 patient" if size == 1 else f"gradient of {size} patients of one site"
        rows += _rows(model, seen, NONE, _guess(patients, groups, heads, 0.0))
        for share in NOISE:
            found = _guess(patients, groups, heads, share)
            rows += _rows(model, seen, f"noise {share:g}", found, joint_only=True)
    sums = _across_sites(_groups(patients, 1))
    if not sums:
        return rows
    size = round(float(np.mean([len(s) for s in sums])))
    seen = f"sum of the gradients of sites, about {size} patients"
    rows += _rows(model, seen, "secure sum", _guess_of_sums(patients, sums, heads))
    return rows


Group = Sequence[PatientGradient]


def _groups(patients: Sequence[PatientGradient], size: int) -> list[Group]:
    """Groups of `size` patients of one site; what is left of a site is in none."""
    sites = dict.fromkeys(p.site for p in patients)
    out: list[Group] = []
    for site in sites:
        own = [p for p in patients if p.site == site]
        out += [own[i : i + size] for i in range(0, len(own) - size + 1, size)]
    return out


def _across_sites(groups: Sequence[Group]) -> list[list[Group]]:
    """Sums over two sites at least: the first group of every site, then the second, and so on."""
    of_site: dict[str, list[Group]] = {}
    for group in groups:
        of_site.setdefault(group[0].site, []).append(group)
    most = max(len(own) for own in of_site.values())
    every = [[own[i] for own in of_site.values() if i < len(own)] for i in range(most)]
    return [s for s in every if len(s) > 1]


def _guess(
    patients: Sequence[PatientGradient],
    groups: Sequence[Group],
    heads: Mapping[str, KnownHead],
    noise: float,
) -> Mapping[str, list[GroupHits]]:
    """marker: the hits in every group. noise: of each number, a share of the median norm."""
    rng = np.random.default_rng(0)
    deviation = noise * float(np.median([p.norm for p in patients]))
    out: dict[str, list[GroupHits]] = {}
    for marker, head in heads.items():
        for group in groups:
            truth, gradient = _sum(group, marker)
            noisy = gradient + deviation * rng.standard_normal(len(gradient))
            counts = inferred_counts(noisy, head, sum(truth))
            site = _site_counts(patients, group[0].site, marker)
            out.setdefault(marker, []).append(group_hits(counts, site, truth))
    return out


def _guess_of_sums(
    patients: Sequence[PatientGradient],
    sums: Sequence[Sequence[Group]],
    heads: Mapping[str, KnownHead],
) -> Mapping[str, list[GroupHits]]:
    """The classes of the sum are shared out evenly among its patients, whatever their site."""
    out: dict[str, list[GroupHits]] = {}
    for marker, head in heads.items():
        for groups in sums:
            whole = [p for group in groups for p in group]
            truth, gradient = _sum(whole, marker)
            counts = inferred_counts(gradient, head, sum(truth))
            for group in groups:
                own, _ = _sum(group, marker)
                site = _site_counts(patients, group[0].site, marker)
                share = apportioned(counts, sum(own))
                out.setdefault(marker, []).append(group_hits(share, site, own))
    return out


def _sum(group: Group, marker: str) -> tuple[tuple[int, ...], Array]:
    """Patients of each class, and the gradient of the head's last bias."""
    gradient = np.sum([p.biases[marker] for p in group], axis=0)
    found = [p.classes[marker] for p in group if marker in p.classes]
    return tuple(found.count(k) for k in range(len(gradient))), gradient


def _site_counts(patients: Sequence[PatientGradient], site: str, marker: str) -> list[int]:
    found = [p.classes[marker] for p in patients if p.site == site and marker in p.classes]
    return [found.count(k) for k in range(len(BY_ID[marker].classes))]


def _rows(
    model: str,
    seen: str,
    defence: str,
    hits: Mapping[str, list[GroupHits]],
    joint_only: bool = False,
) -> list[PrivacyRow]:
    """One row a marker, and one of all labels together."""
    parts = {JOINT: [h for own in hits.values() for h in own]}
    parts |= {} if joint_only else hits
    out = []
    for task, own in parts.items():
        found = share_right([h.hits for h in own], [h.labelled for h in own])
        guess = share_right([h.guessed for h in own], [h.labelled for h in own])
        n = sum(h.labelled for h in own)
        note = "chance: a guess from the site's label counts; n: labels"
        out.append(
            PrivacyRow(
                "label_inference",
                model,
                seen,
                defence,
                task,
                "right",
                found.value,
                found.low,
                found.high,
                guess.value,
                n,
                note,
            )
        )
    return out


def _classes(case: PreparedCase) -> dict[str, int]:
    return {
        m.id: m.classes.index(value)
        for m in BY_ID.values()
        if not isinstance(value := case.case.labels[m.id], Unknown)
    }
