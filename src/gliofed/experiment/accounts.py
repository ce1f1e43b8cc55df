"""A run's accounts of itself, beside its page: two reporting checklists and the model's card."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gliofed.io.files import write_text
from gliofed.report.checklist import Answers, answer, checklist_csv
from gliofed.report.claim import CLAIM
from gliofed.report.facts import RunFacts
from gliofed.report.run_card import run_card
from gliofed.report.statements import Statements
from gliofed.report.tripod_ai import TRIPOD_AI

CARD: Final = "model-card.md"


def write_accounts(out: Path, facts: RunFacts, statements: Statements) -> tuple[Answers, ...]:
    """Write `tripod-ai.csv`, `claim.csv` and the card below `out`; the answers, for the page.

    Each file is written in one step; equal facts give equal bytes. Raises OSError.
    """
    done = tuple(answer(c, facts, statements.items.get(c.id, {})) for c in (TRIPOD_AI, CLAIM))
    for answers in done:
        write_text(out / f"{answers.checklist.id}.csv", checklist_csv(answers))
    write_text(out / CARD, run_card(facts, done, statements.card))
    return done
