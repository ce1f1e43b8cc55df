"""The server's half of a segment: rounds made and committed, each written into the audit log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gliofed.consortium.kit import open_kit
from gliofed.consortium.segment import Segment, segment_from
from gliofed.errors import QuorumError
from gliofed.fed.engines.nvflare.controller import FlareController, FlareEngine
from gliofed.fed.rounds import run_rounds
from gliofed.fed.testing import run_test
from gliofed.fed.trust.approval import study_of
from gliofed.fed.trust.audit import AuditLog
from gliofed.io.files import alone_in
from gliofed.nets.unet import build_net
from gliofed.types import RoundPoint


class Conductor(FlareController):
    """The one workflow of every job."""

    def __init__(self, **segment: Any) -> None:
        super().__init__()
        self._segment: Segment = segment_from(segment)

    def conduct(
        self, engine: Callable[[Sequence[str], float, Path], FlareEngine], kit: Path
    ) -> None:
        """Make the segment's rounds, and after the run's last one the test.

        Rounds committed before are not made again.
        """
        segment, own = self._segment, open_kit(kit, "server")
        study = study_of(segment.study)
        log = AuditLog(own.audit, "server")
        folder = own.work / segment.run
        sites = [s for s in study.data.train if s not in segment.withdrawn]
        initial = build_net(study.net.preset, study.net.stem, seed=study.seeds[0]).state_dict()

        def at_round(point: RoundPoint) -> None:
            for site, seconds in point.answered.items():
                log.write("update-accepted", run=segment.run, round=point.round, site=site,
                          seconds=round(seconds, 3))  # fmt: skip
            for site in point.refused:
                log.write("update-refused", run=segment.run, round=point.round, site=site)
            log.write("round-committed", run=segment.run, round=point.round)

        log.write("segment-started", run=segment.run, study=segment.digest)
        with alone_in(folder):
            try:
                state = run_rounds(
                    engine(sites, study.federation.deadline, folder / "spool"),
                    initial,
                    study,
                    segment.run,
                    folder / "rounds",
                    at_round,
                    lambda done: done >= segment.rounds,
                )
                if state.rounds == study.train.rounds:
                    everyone = [*sites, *(set(study.data.external) - set(segment.withdrawn))]
                    asked = engine(everyone, study.federation.deadline, folder / "spool")
                    run_test(asked, state, study, segment.run, folder)
            except QuorumError:
                log.write("quorum-missed", run=segment.run)
                raise
        log.write("segment-ended", run=segment.run, rounds=state.rounds)
