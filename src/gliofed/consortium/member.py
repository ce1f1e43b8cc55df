"""The site's half of a segment: its own cases, under its own policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from gliofed.consortium.segment import Segment, read_study
from gliofed.fed.engines.nvflare.executor import FlareExecutor
from gliofed.fed.site import Site


class Member(FlareExecutor):
    """The one executor of every job."""

    def __init__(self, **segment: Any) -> None:
        super().__init__()
        self._segment = Segment(**{**segment, "withdrawn": tuple(segment["withdrawn"])})
        self._kit = Path()

    def prepare(self, kit: Path) -> Path:
        """The run's folder in the kit."""
        self._kit = kit
        folder = kit / "gliofed" / "work" / self._segment.run
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def answer(self, asked: Path, answer: Path) -> None:
        """Answer with the site's own cases."""
        self._site.answer(asked, answer)

    def failure(self, error: Exception, kit: Path) -> Mapping[str, str]:
        """Kind only."""
        import traceback

        traceback.print_exception(error)
        return {"kind": type(error).__name__}

    @cached_property
    def _site(self) -> Site:
        from dataclasses import replace

        from gliofed.datasets.formats import format_of
        from gliofed.datasets.split import make_splits
        from gliofed.io.store import PreparedStore
        from gliofed.learn.machine import keep_memory, this_machine
        from gliofed.prepare.cases import prepare_all

        keep_memory()
        study = read_study(self._segment.study)
        told = json.loads((self._kit / "gliofed" / "member.json").read_text())
        name = told["name"]
        cases = format_of(told["format"]).read(Path(told["data"]), name).cases
        cases = tuple(replace(c, site=name) for c in cases)
        store = PreparedStore(Path(told["store"]))
        prepared = {str(p.case): p for p in prepare_all(cases, study.grid, study.prepare, store)}
        data = replace(study.data, train=(name,), external=())
        (split,) = make_splits(data, {name: cases}, study.seeds[0])
        return Site(
            name=name,
            cases=[prepared[str(c)] for c in split.train[name]],
            study=study,
            seed=study.seeds[0],
            folder=self._kit / "gliofed" / "work" / self._segment.run / "state",
            machine=this_machine(),
        )
