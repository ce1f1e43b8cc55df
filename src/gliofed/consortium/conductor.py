"""The server's half of a segment: rounds made and committed, and word of how it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gliofed.consortium.segment import Segment, read_study
from gliofed.fed.engines.nvflare.controller import FlareController, FlareEngine
from gliofed.fed.rounds import run_rounds
from gliofed.io.files import alone_in, write_text
from gliofed.nets.unet import build_net
from gliofed.types import RoundPoint


class Conductor(FlareController):
    """The one workflow of every job."""

    def __init__(self, **segment: Any) -> None:
        super().__init__()
        self._segment = Segment(**{**segment, "withdrawn": tuple(segment["withdrawn"])})

    def conduct(
        self, engine: Callable[[Sequence[str], float, Path], FlareEngine], kit: Path, job: Path
    ) -> None:
        """Make the segment's rounds; those committed before are not made again."""
        segment = self._segment
        study = read_study(segment.study)
        folder = kit / "gliofed" / "work" / segment.run
        sites = [s for s in study.data.train if s not in segment.withdrawn]
        initial = build_net(study.net.preset, study.net.stem, seed=study.seeds[0]).state_dict()

        def at_round(point: RoundPoint) -> None:
            print("ROUND", point, flush=True)

        with alone_in(folder):
            state = run_rounds(
                engine(sites, study.federation.deadline, folder / "spool"),
                initial,
                study,
                segment.run,
                folder / "rounds",
                at_round,
                lambda done: done >= segment.rounds,
            )
            write_text(job / "status.json", str(state.rounds))
