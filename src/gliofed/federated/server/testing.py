"""The federated test on the server: every site tests the model, and only sums leave the site.

    <folder>/test.json     the table, the sites in it, and the reason for each other site

The file is replaced atomically, and read again by a later call.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from torch import Tensor

from gliofed.errors import QuorumError, UpdateError
from gliofed.evaluation.by_site_sums.score_table import score_table_from_sums
from gliofed.evaluation.by_site_sums.sums import ScoreSums
from gliofed.evaluation.results import Role, ScoreRow
from gliofed.federated.checkpoint import RecordFormat, last_record
from gliofed.federated.gate import check_scores
from gliofed.federated.messages import ScoresRequest, new_nonce
from gliofed.federated.server.exchange import Engine, collect_replies, response_file
from gliofed.runtime.files import write_text
from gliofed.study import LossConfig, Study

TABLE: Final = "test.json"


class TestedModel(Protocol):
    """The model of a test: the state of a run, or a `GivenModel`."""

    @property
    def run(self) -> str:
        """Id of the run."""
        ...

    @property
    def rounds(self) -> int:
        """Rounds of training that made it."""
        ...

    @property
    def weights(self) -> Mapping[str, Tensor] | None:
        """None where the sites have the model."""
        ...

    def untrained(self, loss: LossConfig) -> tuple[str, ...]:
        """The markers that it was not trained for."""
        ...


@dataclass(frozen=True)
class GivenModel:
    """A model that the sites of a validation have. rounds: of its own training."""

    run: str
    rounds: int
    weights: None = None

    def untrained(self, loss: LossConfig) -> tuple[str, ...]:
        """The markers that the study of the validation leaves out."""
        return loss.unused


@dataclass(frozen=True)
class FinishedTest:
    """A finished test. rounds: that made the model. sites: whose sums are in the rows. failures:
    each other site and the reason."""

    run: str
    rounds: int
    rows: tuple[ScoreRow, ...]
    sites: tuple[str, ...]
    failures: Mapping[str, str]


def run_test(
    engine: Engine, state: TestedModel, study: Study, run: str, folder: Path
) -> FinishedTest:
    """Have every site test the model of `state`; a site that fails is named in the result.

    A test that `folder` holds is returned with the sites that failed then; delete
    `folder`/test.json to test again. Raises QuorumError where no site's response could be used,
    and CheckpointError as `last_test` does.
    """
    done = last_test(folder, run, state.rounds)
    if done is not None:
        return done
    request = ScoresRequest(run, new_nonce(), state.rounds, state.weights)
    sums: dict[str, Mapping[Role, ScoreSums]] = {}
    failures: dict[str, str] = {}
    with collect_replies(engine, request, folder) as replies:
        for reply in replies:
            try:
                file = response_file(reply)
                sums[reply.site] = check_scores(reply.site, request, file, study.federation)
            except UpdateError as error:
                failures[reply.site] = str(error)
    if not sums:
        why = "; ".join(failures.values()) or "no site responded"
        raise QuorumError(f"the test: no response could be used ({why}); the model is kept")
    untrained = state.untrained(study.loss)
    table = tuple(r for r in score_table_from_sums(sums, failures) if r.task not in untrained)
    failed = dict(sorted(failures.items()))
    finished = FinishedTest(run, state.rounds, table, tuple(sorted(sums)), failed)
    write_text(folder / TABLE, json.dumps(dataclasses.asdict(finished), indent=1))
    return finished


def last_test(folder: Path, run: str, rounds: int) -> FinishedTest | None:
    """The test of the model after `rounds` rounds, or None before it.

    Raises CheckpointError where it is damaged or belongs to another run.
    """

    def read(raw: Any) -> FinishedTest:
        table = tuple(ScoreRow(**row) for row in raw["rows"])
        return FinishedTest(raw["run"], raw["rounds"], table, tuple(raw["sites"]), raw["failures"])

    return last_record(folder / TABLE, run, rounds, RecordFormat(read, "test", "test"))
