"""What would show only after hours of a study, stated before: each with its cure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.planning.cases import FoldCases, SiteCases
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.label_counts import count_classes, untrained_markers
from gliofed.markers import BY_ID, MARKERS
from gliofed.reporting.html.formatting import count
from gliofed.runtime.printable import size_text
from gliofed.study import ALONE, DataConfig, Study

FEWEST: Final = SitePolicy().min_cases
"""Training cases from which on a hospital takes part by the default policy."""


def label_problems(study: Study, folds: Sequence[FoldCases]) -> Iterator[str]:
    """Markers that a fold cannot train, or cannot test."""
    for fold in folds:
        wanted = [m for m in MARKERS if m.id not in study.loss.unused]
        untrained = untrained_markers(study.loss, fold.trained)
        for marker in wanted:
            if marker.id in untrained:
                yield (
                    f"fold {fold.fold}: {marker.title} is not trained, its training cases are "
                    f"{_classes(marker.id, fold.trained)}; add hospitals with the other class, or "
                    f"set markers = {{ {marker.id} = 0 }} under [loss]"
                )
            elif sum(n > 0 for n in fold.tested[marker.id]) == 1:
                yield (
                    f"fold {fold.fold}: {marker.title} has one class in the external test, "
                    f"{_classes(marker.id, fold.tested)}, so it has no AUC there; add an external "
                    "hospital with the other class"
                )


def _classes(marker: str, classes: Mapping[str, Sequence[int]]) -> str:
    counts = zip(BY_ID[marker].classes, classes[marker], strict=True)
    return ", ".join(f"{name} {number}" for name, number in counts)


def site_problems(sites: Sequence[SiteCases], folds: Sequence[FoldCases]) -> Iterator[str]:
    """Hospitals with too few training cases, and cases that take part in nothing."""
    few: dict[str, int] = {}
    for fold in folds:
        few |= {site: n for site, n in fold.train.items() if n < FEWEST}
    for site, own in few.items():
        yield (
            f"{site}: {count(own, 'training case')}; a hospital's default "
            f"policy takes part with {FEWEST} or more (min_cases), and a model of so few learns "
            "little; add cases, or move it to data.external"
        )
    for fold in folds:
        if fold.external < FEWEST:
            yield (
                f"fold {fold.fold}: {fold.external} external cases; intervals of so few are wide, "
                "and no claim can be supported; add cases to the external test"
            )
    for counted in sites:
        if counted.bare:
            yield (
                f"{counted.site}: {counted.bare} of {counted.cases} cases have neither a mask nor "
                "a known marker: they train and test nothing; add labels to its "
                "participants.tsv, or remove them"
            )


def disk_problem(needed: int, free: int, where: Path) -> str:
    """Empty where `needed` bytes are free."""
    if needed <= free:
        return ""
    return (
        f"disk: {size_text(needed)} are needed, and {size_text(free)} are free at {where}; free "
        "space, or give --out and --store on another disk"
    )


def memory_problem(needed: int, there: int | None, processes: int) -> str:
    """Empty where the machine has so much memory, or does not state how much."""
    if there is None or needed <= there:
        return ""
    fewer = max(1, int(processes * there / needed))
    cure = (
        f"give --processes {fewer}"
        if fewer < processes
        else "set a smaller train.batch or grid.patch, or a coarser grid.spacing_mm"
    )
    return (
        f"memory: {processes} models at a time need {size_text(needed)}, and the machine has "
        f"{size_text(there)}; {cure}"
    )


def notes(study: Study, folds: Sequence[FoldCases], runs: Sequence[ModelRun]) -> Iterator[str]:
    """What is not wrong, but good to know."""
    dropped = max((fold.dropped for fold in folds), default=0)
    if dropped:
        yield (
            f"in no role: {count(dropped, 'case')} of patients who are at another hospital too "
            "(data.overlap); patients that only images show to be the same are not counted"
        )
    yield from _unnamed(study.data)
    alone: dict[str, set[str]] = {}
    for run in runs:
        if run.model.startswith(f"{ALONE}:"):
            counts = count_classes(c.labels for own in run.sites.values() for c in own)
            for marker in untrained_markers(study.loss, counts):
                if marker not in study.loss.unused:
                    alone.setdefault(marker, set()).update(run.sites)
    for marker, names in alone.items():
        yield (
            f"{BY_ID[marker].title}: the models of {', '.join(sorted(names))} alone are not "
            "trained for it, they have fewer than two classes"
        )


def _unnamed(data: DataConfig) -> Iterator[str]:
    """Folders of hospitals that the study does not name."""
    named = {site.partition("/")[0] for site in (*data.train, *data.external)}
    tables = (path.parent.name for path in sorted(data.root.glob("*/participants.tsv")))
    unnamed = [name for name in tables if name not in named]
    if unnamed:
        yield (
            f"hospitals in {data.root} in no role: {', '.join(unnamed)}; name them under "
            "data.train or data.external if they belong to the study"
        )
