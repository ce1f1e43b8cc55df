"""Write a run's two reporting checklists and its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gliofed.experiments.privacy.table import read_privacy_rows
from gliofed.reporting.checklists.checklist import (
    AnsweredChecklist,
    answer_checklist,
    checklist_csv,
)
from gliofed.reporting.checklists.claim import CLAIM
from gliofed.reporting.checklists.run_facts import RunFacts
from gliofed.reporting.checklists.statements import Statements
from gliofed.reporting.checklists.tripod_ai import TRIPOD_AI
from gliofed.reporting.study.model_card import run_card
from gliofed.reporting.study.privacy import with_privacy_section
from gliofed.runtime.files import write_text

CARD: Final = "model-card.md"


def write_checklists_and_card(
    out: Path, facts: RunFacts, statements: Statements
) -> tuple[AnsweredChecklist, ...]:
    """Write `tripod-ai.csv`, `claim.csv` and the card below `out`; return the answered checklists.

    The card has the figures of a privacy audit that was made of the run. Each file is written in
    one step; equal facts give equal bytes. Raises OSError, and DataError for a damaged audit.
    """
    checklists = tuple(
        answer_checklist(c, facts, statements.items.get(c.id, {})) for c in (TRIPOD_AI, CLAIM)
    )
    for answered in checklists:
        write_text(out / f"{answered.checklist.id}.csv", checklist_csv(answered))
    card = run_card(facts, checklists, statements.card)
    write_text(out / CARD, with_privacy_section(card, read_privacy_rows(out)))
    return checklists
