"""The model card of a run on one machine: training data by hospital, every figure, every gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gliofed.data.formats.registry import DEFAULT
from gliofed.markers import MARKERS
from gliofed.reporting.checklists.checklist import AnsweredChecklist
from gliofed.reporting.checklists.formatting import divided, people, tasks, trained_markers
from gliofed.reporting.checklists.model_answers import calibration
from gliofed.reporting.checklists.results_answers import limits
from gliofed.reporting.checklists.run_facts import (
    TEST_POLICY,
    CaseGroup,
    RunFacts,
    main_files,
    main_model,
)
from gliofed.reporting.checklists.statements import CardStatements
from gliofed.reporting.html.formatting import model_title
from gliofed.reporting.model_card import UNKNOWN_LICENSE, CardHeader, fill_card
from gliofed.reporting.study.tables import full_table
from gliofed.types import SEQUENCES

FOR_AUTHORS = "not said: for the authors"


@dataclass(frozen=True)
class HospitalRow:
    """One hospital in the table of the data, as text."""

    name: str
    part: str
    source: str
    cases: str
    masks: str
    labels: tuple[str, ...]
    missing: tuple[str, ...]
    people: str


@dataclass(frozen=True)
class WeightsFile:
    """One model's file."""

    model: str
    seed: int
    fold: str
    rounds: int
    file: str
    sha256: str


def run_card(facts: RunFacts, checked: Sequence[AnsweredChecklist], words: CardStatements) -> str:
    """The card as Markdown; equal facts give equal text. words: the authors' choices."""
    study, model = facts.study, main_model(facts.rows)
    sets = (f for name, f in study.data.formats.items() if f != DEFAULT and _trains(facts, name))
    head = CardHeader(study, facts.rows, sorted(set(sets)), words.license or UNKNOWN_LICENSE)
    named = (
        ("authors", words.authors), ("contact", words.contact),
        ("version of the model", words.version), ("licence of the weights", words.license),
    )  # fmt: skip
    return fill_card(
        "reporting/study/model_card.md.j2",
        head,
        facts=facts,
        named=[(name, text or FOR_AUTHORS) for name, text in named],
        tasks=tasks(study),
        hospitals=[_row(h.name, h.part, h.source or "own data", h.group) for h in facts.hospitals],
        titles=[f"{m.title} ({'/'.join(m.classes)}/unknown)" for m in MARKERS],
        untrained=[m.title for m in MARKERS if m not in trained_markers(study)],
        divided=divided(facts),
        limits=limits(facts),
        verdicts=facts.evidence.verdicts if facts.evidence else (),
        calibrated=calibration(facts),
        policy=TEST_POLICY,
        weights=[
            WeightsFile(model_title(m.model), m.seed, m.fold, m.rounds, m.file, m.sha256)
            for m in main_files(facts)
        ],
        checked=checked,
        model=model_title(model),
        table=full_table([r for r in facts.rows if r.model == model and not r.stratum]),
        citations=list(dict.fromkeys(h.citation for h in facts.hospitals if h.citation)),
    )


def _trains(facts: RunFacts, name: str) -> bool:
    """Whether a set, or a hospital of it, trains."""
    return any(s == name or s.rpartition("/")[0] == name for s in facts.study.data.train)


def _row(name: str, part: str, source: str, group: CaseGroup) -> HospitalRow:
    return HospitalRow(
        name=name,
        part=part,
        source=source,
        cases=str(group.cases),
        masks=str(group.masks),
        labels=tuple(
            "/".join(map(str, (*group.classes[m.id], group.unknown(m.id)))) for m in MARKERS
        ),
        missing=tuple(f"{s.value} {group.missing[s]}" for s in SEQUENCES if group.missing[s]),
        people=people(group),
    )
