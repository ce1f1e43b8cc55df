"""The prepared store of a study, estimated from a few cases that are prepared for it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import DataError
from gliofed.experiments.planning.rehearsal import StandIn
from gliofed.preprocessing.cases import known_key
from gliofed.preprocessing.dataset import preparation_request
from gliofed.preprocessing.recipe import check_installed
from gliofed.preprocessing.workers import CasePreparation, prepare_cases, processes_at_once
from gliofed.runtime.progress import Progress, ProgressCounter
from gliofed.study import Study
from gliofed.types import Case


@dataclass(frozen=True)
class StoreEstimate:
    """The prepared cases of a study.

    stored: cases in the store now, of which `samples` were looked at. bytes, missing_bytes: of all
    cases, and of those that are not in the store; exact where `stored` is `cases`. mask_bytes: of
    all masks. seconds: of the preparation of one case in one of `processes` at once; None where no
    sample was prepared now. excluded: samples that `[quality]` excludes, each with the reason.
    """

    cases: int
    stored: int
    samples: int
    bytes: int
    missing_bytes: int
    mask_bytes: int
    seconds: float | None
    processes: int
    excluded: tuple[str, ...]

    @property
    def hours(self) -> float:
        """Until every case is prepared."""
        missing = self.cases - self.stored
        if not missing or self.seconds is None:
            return 0.0
        return missing * self.seconds / min(self.processes, missing) / 3600


@dataclass(frozen=True)
class Samples:
    """The prepared cases of which the others are estimated, in the order of the hospitals."""

    prepared: tuple[PreparedCase, ...]
    accounts: tuple[CasePreparation, ...]

    def stand_in(self, case: Case) -> StandIn:
        """The entry of the case, or one of a sample: of its hospital and with a mask if it has one
        itself, where there is such a sample."""
        best = max(
            self.prepared,
            key=lambda p: (
                str(p.case) == str(case),
                (p.case.mask is None) == (case.mask is None),
                p.case.site == case.site,
            ),
        )
        return StandIn(case, best.key)


def prepare_samples(
    study: Study, sites: Mapping[str, Sequence[Case]], store: Path, count: int, progress: Progress
) -> tuple[Samples, StoreEstimate]:
    """Prepare `count` cases that the store lacks, as the run would, and estimate all others.

    Where it lacks fewer, cases of the store are samples too. Raises DataError where a sample cannot
    be prepared, and as `prepare_cases` does.
    """
    request = preparation_request(study, store)
    check_installed(request.steps)
    entries, cases = PreparedStore(store), [c for own in sites.values() for c in own]
    keys = {str(c): known_key(c, study.grid, study.prepare, entries) for c in cases}
    ordered = list(_in_turn(sites))
    missing = [c for c in ordered if keys[str(c)] is None]
    chosen = [*missing, *(c for c in ordered if keys[str(c)] is not None)][:count]
    counter = ProgressCounter(progress, len(chosen))
    accounts = prepare_cases(
        chosen, request, processes_at_once(), lambda account: counter.step("cases")
    )
    for account in accounts:
        if account.key is None:
            raise DataError(account.reasons[0])
        keys[str(account.case)] = account.key
    opened = {str(a.case): entries.open(a.key, a.case) for a in accounts if a.key is not None}
    samples = Samples(tuple(opened.values()), accounts)
    return samples, _estimate(cases, keys, samples, entries)


def _in_turn(sites: Mapping[str, Sequence[Case]]) -> Iterator[Case]:
    """One case of each hospital after the other, those with a mask first."""
    ordered = [sorted(own, key=lambda case: case.mask is None) for own in sites.values()]
    for turn in itertools.zip_longest(*ordered):
        yield from (case for case in turn if case is not None)


def _estimate(
    cases: Sequence[Case],
    keys: Mapping[str, str | None],
    samples: Samples,
    entries: PreparedStore,
) -> StoreEstimate:
    sizes = {str(p.case): entries.size(p.key) for p in samples.prepared}
    masks = {str(p.case): p.mask.nbytes for p in samples.prepared if p.mask is not None}
    typical, typical_mask = statistics.median(sizes.values()), _median(masks.values())
    known = {name: key for name, key in keys.items() if key is not None}
    missing = [case for case in cases if str(case) not in known]
    absent = round(sum(typical - (typical_mask if c.mask is None else 0) for c in missing))
    fresh = [a.seconds for a in samples.accounts if a.status in ("prepared", "excluded")]
    return StoreEstimate(
        cases=len(cases),
        stored=len(known),
        samples=len(samples.prepared),
        bytes=sum(entries.size(key) for key in dict.fromkeys(known.values())) + absent,
        missing_bytes=absent,
        mask_bytes=round(sum(typical_mask for case in cases if case.mask is not None)),
        seconds=statistics.median(fresh) if fresh else None,
        processes=processes_at_once(),
        excluded=tuple(
            f"{a.case}: {'; '.join(a.reasons)}" for a in samples.accounts if a.status == "excluded"
        ),
    )


def _median(values: Collection[int]) -> float:
    return statistics.median(values) if values else 0.0
