"""The rounds of a federation, from its number of training cases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from gliofed.errors import StudyError
from gliofed.study import Study

MOST: Final = 99_999
"""Rounds of a run at most: the names of its files have five digits."""


@dataclass(frozen=True)
class Schedule:
    """Fixed before the first round, so that later counts do not change it.

    batches: of one pass over the cases of all sites. rounds: of the run. commit: rounds between two
    commits at most; there is one after each pass, too.
    """

    batches: int
    rounds: int
    commit: int

    def commits_after(self, rounds: int) -> bool:
        """Whether the run is committed once `rounds` rounds were made."""
        return rounds % self.commit == 0 or rounds % self.batches == 0 or rounds == self.rounds


def batches_of_pass(cases: int, batch: int) -> int:
    """Batches of one pass over `cases` cases; 1 without a case."""
    return max(1, math.ceil(cases / batch))


def make_schedule(study: Study, cases: int) -> Schedule:
    """The schedule of a study with `cases` training cases at all sites.

    With "synchronous" a round is one batch. Else it is `federation.local_epochs` passes, or
    `federation.local_steps` steps, at every site. With `[privacy]` the cases are those that the
    study states, and every round is committed, since no site answers one twice. Raises StudyError
    for more rounds than `MOST`.
    """
    stated = cases if study.privacy is None else study.privacy.patients
    return _checked(_schedule(study, batches_of_pass(stated, study.train.batch)))


def longer_schedule(study: Study, schedule: Schedule) -> Schedule:
    """The schedule of a study with more epochs than that of `schedule`, whose passes it keeps.

    Raises StudyError for more rounds than `MOST`.
    """
    return _checked(_schedule(study, schedule.batches))


def _checked(schedule: Schedule) -> Schedule:
    if schedule.rounds > MOST:
        raise StudyError(
            f"train: {schedule.rounds} rounds, at most {MOST} are possible; give fewer epochs, a "
            "larger batch, or a method with local steps"
        )
    return schedule


def _schedule(study: Study, batches: int) -> Schedule:
    federation, epochs = study.federation, study.train.epochs
    if federation.synchronous:
        commit = federation.commit if study.privacy is None else 1
        return Schedule(batches, epochs * batches, commit)
    if federation.local_steps:
        return Schedule(batches, math.ceil(epochs * batches / federation.local_steps), 1)
    return Schedule(batches, math.ceil(epochs / federation.local_epochs), 1)
