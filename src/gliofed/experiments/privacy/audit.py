"""The privacy audit of a finished run.

<run>/privacy.csv     one row a figure (`PrivacyRow`)
<run>/privacy.md      the same as tables to read
<run>/model-card.md   its section "Privacy audit"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from gliofed.data.store import PreparedCase
from gliofed.errors import StudyError
from gliofed.evaluation.files import rows_csv
from gliofed.evaluation.privacy.membership import loss_scores, membership_rows, ratio_scores
from gliofed.evaluation.privacy.rows import NONE, Attack, PrivacyRow
from gliofed.experiments.documents import CARD
from gliofed.experiments.privacy.audited_run import AuditedModel, AuditedRun, open_run
from gliofed.experiments.privacy.case_outputs import play
from gliofed.experiments.privacy.inversion import InversionSettings
from gliofed.experiments.privacy.inversion_audit import (
    Image,
    InversionCase,
    inversion_rows,
    reconstruct,
)
from gliofed.experiments.privacy.label_audit import known_heads, label_rows, patient_gradients
from gliofed.experiments.privacy.site_gradients import SiteGradients
from gliofed.experiments.privacy.table import TABLE, read_privacy_rows
from gliofed.markers import MARKERS
from gliofed.models.network import MultiTaskNet, build_net
from gliofed.reporting.study.privacy import privacy_markdown, with_privacy_section
from gliofed.runtime.device import this_machine
from gliofed.runtime.files import alone_in, write_text
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import Study

PAGE: Final = "privacy.md"
AttackKind = Literal["membership", "labels", "inversion"]
ATTACKS: Final[Mapping[AttackKind, tuple[Attack, ...]]] = {
    "membership": ("membership_loss", "membership_likelihood_ratio"),
    "labels": ("label_inference",),
    "inversion": ("gradient_inversion",),
}
NOISE: Final = (0.001, 0.01, 0.1)
"""Noise against inversion: standard deviations, as shares of the gradient's norm."""
GROUP: Final = 4
"""Patients of one site behind a gradient (the default `min_batch` of a policy), or sites in a
sum."""
MOST_OTHERS: Final = 50
"""Patients whose images a found image is compared with."""


@dataclass(frozen=True)
class AuditOptions:
    """attacks: those that are made; figures of others stay as an earlier audit left them. store:
    folder of prepared cases (default: `store` in the run's folder). inversions: patients whose
    image is searched from a gradient of their own. iterations: of each search. crop: largest side
    of an image that is searched, in voxels. bootstrap: resamples of patients."""

    attacks: tuple[AttackKind, ...] = tuple(ATTACKS)
    store: Path | None = None
    inversions: int = 4
    iterations: int = 300
    crop: int = 16
    bootstrap: int = 2000


@dataclass(frozen=True)
class PrivacyAudit:
    """rows: all figures. table, page: where they are."""

    rows: tuple[PrivacyRow, ...]
    table: Path
    page: Path


def audit_privacy(
    run: Path, options: AuditOptions = AuditOptions(), progress: Progress = NO_PROGRESS
) -> PrivacyAudit:
    """Attack the models of a finished run and gradients of its sites; write what was found.

    Nothing is trained, and no figure of the run changes. Raises CheckpointError where the folder
    has no finished run, its data have changed or another process works there; StudyError where the
    loss trains no marker and labels are attacked; errors of reading and preparing the scans.
    """
    with alone_in(run):
        opened = open_run(run, options.store or run / "store", progress)
        earlier = _earlier(run, options.attacks)
        rows = (*_membership(opened, options, progress), *_updates(opened, options, progress))
        order = [a for attacks in ATTACKS.values() for a in attacks]
        every = tuple(sorted((*earlier, *rows), key=lambda r: order.index(r.attack)))
        write_text(run / TABLE, rows_csv(PrivacyRow, every))
        write_text(run / PAGE, privacy_markdown(opened.study.name, every))
        if (run / CARD).is_file():
            write_text(run / CARD, with_privacy_section((run / CARD).read_text(), every))
    return PrivacyAudit(every, run / TABLE, run / PAGE)


def _earlier(run: Path, attacks: Sequence[AttackKind]) -> tuple[PrivacyRow, ...]:
    """The rows of an earlier audit that are not made again."""
    again = {a for kind in attacks for a in ATTACKS[kind]}
    return tuple(r for r in read_privacy_rows(run) if r.attack not in again)


def _membership(run: AuditedRun, options: AuditOptions, progress: Progress) -> Iterator[PrivacyRow]:
    """Both attacks on the outputs of every model; the likelihood ratio needs reference models."""
    if "membership" not in options.attacks:
        return
    progress.stage(f"membership inference: {len(run.models)} models")
    game = play(run, this_machine(), progress)
    yield from membership_rows(game, "membership_loss", loss_scores(game), options.bootstrap)
    ratios = ratio_scores(game)
    if ratios is None:
        progress.note("no likelihood-ratio attack: it needs models of three seeds")
        return
    yield from membership_rows(game, "membership_likelihood_ratio", ratios, options.bootstrap)


def _updates(run: AuditedRun, options: AuditOptions, progress: Progress) -> Iterator[PrivacyRow]:
    """Attacks on gradients of the first model's sites, before and after its training."""
    if not {"labels", "inversion"} & set(options.attacks):
        return
    model = run.models[0]
    sites, held_out = run.sites(model.split.train), run.sites(model.split.holdout)
    own = [c for cases in held_out.values() for c in cases]
    for name, net in _states(model):
        gradients = SiteGradients(net, run.study, sites)
        if "labels" in options.attacks:
            progress.stage(f"label inference, {name} network")
            markers = _trained_markers(gradients, run.study)
            heads = known_heads(net, gradients, own, markers)
            yield from label_rows(name, patient_gradients(gradients, markers, progress), heads)
        if "inversion" in options.attacks:
            progress.stage(f"gradient inversion, {name} network")
            crops = SiteGradients(net, run.study, sites, options.crop)
            yield from _inversions(name, crops, options, progress)


def _states(model: AuditedModel) -> Iterator[tuple[str, MultiTaskNet]]:
    trained = model.read()
    yield "untrained", build_net(trained.recipe.net, model.seed)
    yield "trained", trained.net()


def _trained_markers(gradients: SiteGradients, study: Study) -> tuple[str, ...]:
    found = tuple(m.id for m in MARKERS if gradients.plan.task_weights[m.id] > 0)
    if not found:
        raise StudyError(
            f"study {study.name}: trains no marker, so there is no label to infer; give "
            "--attack membership --attack inversion"
        )
    return found


def _inversions(
    name: str, gradients: SiteGradients, options: AuditOptions, progress: Progress
) -> Iterator[PrivacyRow]:
    """Rows of every kind of update, over the gradients of that kind."""
    kinds = inversion_cases(gradients.plan.sites, options.inversions)
    attacked = {str(c.case) for kind in kinds for a in kind for group in a.groups for c in group}
    pool = [c for own in gradients.plan.sites.values() for c in own if str(c.case) not in attacked]
    others: list[Image] = [
        gradients.sample([c], 0).image[0].numpy() for c in _shuffled(pool)[:MOST_OTHERS]
    ]
    settings = InversionSettings(iterations=options.iterations)
    for done, kind in enumerate(kinds):
        results = []
        for case in kind:
            progress.update(done, len(kinds), f"{case.seen}, defence: {case.defence}")
            results += reconstruct(gradients, case, others, settings)
        search = f"crops of {options.crop} voxels, {options.iterations} steps"
        for row in inversion_rows(name, kind[0], results, len(others)):
            yield replace(row, note=f"{row.note}; {search}")


def inversion_cases(
    sites: Mapping[str, Sequence[PreparedCase]], patients: int
) -> list[list[InversionCase]]:
    """Every kind of update that is attacked, with the gradients of that kind: of one patient, with
    noise, of several patients of one site, and the sum over several sites, if there are."""
    chosen = _shuffled([c for own in sites.values() for c in own])[:patients]
    one = "gradient of 1 patient"
    kinds = [[InversionCase(one, NONE, ((c,),)) for c in chosen]]
    kinds += [[InversionCase(one, f"noise {s:g}", ((c,),), s) for c in chosen] for s in NOISE]
    largest = max(sites.values(), key=len)
    group = tuple(_shuffled(largest)[:GROUP])
    seen = f"gradient of {len(group)} patients of one site"
    kinds.append([InversionCase(seen, NONE, (group,))])
    firsts = tuple((_shuffled(own)[0],) for own in list(sites.values())[:GROUP])
    if len(firsts) > 1:
        seen = f"sum of the gradients of {len(firsts)} sites, 1 patient each"
        kinds.append([InversionCase(seen, "secure sum", firsts)])
    return kinds


def _shuffled(cases: Sequence[PreparedCase]) -> list[PreparedCase]:
    """In an order that does not follow from data or training."""
    return [cases[i] for i in np.random.default_rng(0).permutation(len(cases))]
