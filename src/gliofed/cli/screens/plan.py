"""The plan of a study, as tables and lines or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.table import Table

from gliofed.experiments.planning.study_plan import StudyPlan
from gliofed.markers import MARKERS
from gliofed.reporting.html.formatting import count, short_title
from gliofed.runtime.printable import size_text

FILE_WIDTH: Final = 1000
"""Where the output is no terminal: no word of a table is cut."""


def show_plan(plan: StudyPlan) -> None:
    """Cases, networks, rounds, bytes, disk, memory and hours; then problems and notes."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_WIDTH)
    _show_sites(plan, console)
    console.print(_folds(plan))
    if plan.networks:
        console.print(_networks(plan))
    for title, text in (
        *_training_lines(plan), *_disk_lines(plan), *_hour_lines(plan),
        *(("Problem", text) for text in plan.problems),
        *(("Note", text) for text in plan.notes),
    ):  # fmt: skip
        console.print(f"{title}: {text}", soft_wrap=True, markup=False, highlight=False)
    if not plan.problems:
        console.print("No problem was found.", highlight=False)


def plan_json(plan: StudyPlan) -> str:
    """The same as JSON; a value that does not exist is null. Sizes are bytes."""
    values = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan) if f.name != "study"}
    plain = {name: _plain(value) for name, value in values.items()}
    return json.dumps({"study": plan.study.name, **plain}, indent=1, default=str)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _show_sites(plan: StudyPlan, console: Console) -> None:
    """One column a hospital, by number: names would not fit a terminal."""
    for number, site in enumerate(plan.sites, start=1):
        console.print(f"{number}: {site.site}", highlight=False)
    table = Table(title="Cases by hospital and label")
    heads = [*map(str, range(1, len(plan.sites) + 1)), "all"]
    for head in ("", "", *heads):
        table.add_column(head, justify="right" if head else "left")
    for name, category, counts in _counts(plan):
        table.add_row(name, category, *map(str, counts), str(sum(counts)))
    console.print(table)


def _counts(plan: StudyPlan) -> Iterator[tuple[str, str, list[int]]]:
    """What is counted, its class, and the cases of each hospital."""
    yield "cases", "", [site.cases for site in plan.sites]
    yield "mask", "", [site.masks for site in plan.sites]
    for marker in MARKERS:
        for place, name in enumerate(marker.classes):
            title = "" if place else short_title(marker.id, "")
            yield title, name, [site.classes[marker.id][place] for site in plan.sites]
        yield "", "unknown", [site.cases - sum(site.classes[marker.id]) for site in plan.sites]


def _folds(plan: StudyPlan) -> Table:
    table = Table(title="Roles of the cases (first seed)")
    for head in ("fold", "train", "held out", "external"):
        table.add_column(head, justify="left" if head == "fold" else "right")
    for fold in plan.folds:
        counts = (sum(fold.train.values()), sum(fold.holdout.values()), fold.external)
        table.add_row(fold.fold, *map(str, counts))
    return table


def _networks(plan: StudyPlan) -> Table:
    table = Table(title="Networks")
    for head in ("", "number", "steps or rounds", "training", "tests"):
        table.add_column(head, justify="right" if head else "left")
    for own in plan.networks:
        times = (_time(own.training_hours), _time(own.test_hours))
        table.add_row(own.kind, str(own.networks), f"{own.steps:,}", *times)
    return table


def _training_lines(plan: StudyPlan) -> list[tuple[str, str]]:
    lines = []
    if traffic := plan.traffic:
        here = traffic.here
        each = f"{size_text(here.down / here.rounds)} to all hospitals and "
        each += f"{size_text(here.up / here.rounds)} from them a round"
        models = count(traffic.networks, "federated model")
        lines += [
            ("Rounds", f"{here.rounds:,}, {models} ({traffic.method})"),
            ("Bytes", f"{each}; {size_text(here.total)} in all, {here.updates:,} updates"),
            (
                "Bytes between hospitals",
                f"{size_text(traffic.between.total)} in all with the default policy (min_batch), "
                f"{traffic.between.updates:,} updates; without tests and calibration, which take "
                "the model twice to each hospital",
            ),
        ]
    if memory := plan.memory:
        machine = "" if memory.machine is None else f" of {size_text(memory.machine)}"
        lines.append((
            "Memory",
            f"{size_text(memory.process)} a training process (measured, with all masks), "
            f"{memory.processes} at a time: {size_text(memory.run)}{machine} with "
            f"the process that draws the page ({size_text(memory.page)}, estimated); "
            f"server between hospitals {size_text(memory.server)} (estimated)",
        ))  # fmt: skip
        if memory.accelerator:
            lines.append(("Accelerator", f"{size_text(memory.accelerator)} a model (measured)"))
    return lines


def _disk_lines(plan: StudyPlan) -> list[tuple[str, str]]:
    store, disk = plan.store, plan.disk
    how = (
        "exact, every case is prepared"
        if store.stored == store.cases
        else f"{store.stored} of {store.cases} cases are prepared, the others estimated from "
        f"{store.samples}"
    )
    return [
        ("Disk, prepared store", f"{size_text(disk.store)} ({how})"),
        (
            "Disk, run",
            f"{size_text(disk.rounds)} commits, {size_text(disk.models)} model folders, "
            f"{size_text(disk.messages)} messages of a round; tables and page add some MB",
        ),
        ("Disk, free", f"{size_text(disk.free)} at {disk.where}; {size_text(disk.needed)} needed"),
    ]


def _hour_lines(plan: StudyPlan) -> list[tuple[str, str]]:
    hours, store = plan.hours, plan.store
    each = (
        "every sample was in the store"
        if store.seconds is None
        else f"{store.seconds:.1f} s a case, measured on {store.samples} cases"
    )
    lines = [("Time, preparation", f"{_time(hours.preparation)} ({each})")]
    if plan.step is not None and plan.memory is not None:
        lines += [
            (
                "Time, networks",
                f"{_time(hours.models)}, {plan.memory.processes} at a time (a step on "
                f"{plan.study.train.batch} cases: {plan.step:.2f} s, measured)",
            ),
            ("Time, tests with sequences dropped", f"{_time(hours.ablation)} (estimated)"),
        ]
    return [
        *lines,
        (
            "Time on this machine",
            f"{_time(hours.total)}; regressions, scores and page are not in it",
        ),
    ]


def _time(hours: float) -> str:
    """Hours, minutes or seconds, by their size."""
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"
