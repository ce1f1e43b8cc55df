"""The model card of a run on one machine."""

from __future__ import annotations

from collections.abc import Sequence

from gliofed.data.formats.registry import DEFAULT
from gliofed.markers import MARKERS
from gliofed.reporting.checklists.answers import GROUPS, MODEL, limits, template_values
from gliofed.reporting.checklists.checklist import AnsweredChecklist
from gliofed.reporting.checklists.run_facts import TEST_POLICY, RunFacts, main_files, main_model
from gliofed.reporting.checklists.selection import missing_sequences
from gliofed.reporting.checklists.statements import CardStatements
from gliofed.reporting.html.formatting import model_title
from gliofed.reporting.model_card import UNKNOWN_LICENSE, CardHeader, fill_card
from gliofed.reporting.study.tables import full_table
from gliofed.runtime.templates import text_macros
from gliofed.study import FEDERATED

NOT_STATED = "not stated: for the authors"


def run_card(
    facts: RunFacts, checked: Sequence[AnsweredChecklist], statements: CardStatements
) -> str:
    """The card as Markdown; equal facts give equal text. statements: the authors' own."""
    study, model = facts.study, main_model(facts.rows)
    sets = (f for name, f in study.data.formats.items() if f != DEFAULT and _trains(facts, name))
    head = CardHeader(
        study,
        facts.rows,
        sorted(set(sets)),
        statements.license or UNKNOWN_LICENSE,
        facts.untrained,
        facts.noise if model == FEDERATED else (),
    )
    values = template_values(facts)
    groups = text_macros(GROUPS, **values)
    named = (
        ("authors", statements.authors),
        ("contact", statements.contact),
        ("version of the model", statements.version),
        ("licence of the weights", statements.license),
    )
    return fill_card(
        "reporting/study/model_card.md.j2",
        head,
        facts=facts,
        named=[(name, text or NOT_STATED) for name, text in named],
        tasks=groups["tasks"](),
        people=groups["people"],
        partition_sizes=groups["partition_sizes"](),
        missing_sequences=missing_sequences,
        all_markers=MARKERS,
        test_policy=TEST_POLICY,
        calibration=text_macros(MODEL, **values)["calibration"](),
        titles=[f"{m.title} ({'/'.join(m.classes)}/unknown)" for m in MARKERS],
        limits=limits(facts),
        verdicts=facts.evidence.verdicts if facts.evidence else (),
        weights=main_files(facts),
        model_title=model_title,
        checked=checked,
        model=model_title(model),
        table=full_table([r for r in facts.rows if r.model == model and not r.stratum]),
        citations=list(dict.fromkeys(h.citation for h in facts.hospitals if h.citation)),
    )


def _trains(facts: RunFacts, name: str) -> bool:
    """Whether a set, or a hospital of it, trains."""
    return any(s == name or s.rpartition("/")[0] == name for s in facts.study.data.train)
