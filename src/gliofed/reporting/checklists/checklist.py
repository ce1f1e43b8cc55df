"""Reporting checklists, answered from the facts of a run and the statements of its authors."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gliofed.reporting.checklists.answers import STATES, State, answer_texts, item_status
from gliofed.reporting.checklists.run_facts import RunFacts


@dataclass(frozen=True)
class ChecklistItem:
    """One item. number: the published one. asks: paraphrased. answer: a name in
    `answers.RULES`."""

    number: str
    section: str
    topic: str
    asks: str
    answer: str


@dataclass(frozen=True)
class Checklist:
    """A published checklist. id: its table in a file of statements and the name of its own file."""

    id: str
    title: str
    citation: str
    items: tuple[ChecklistItem, ...]


@dataclass(frozen=True)
class ChecklistAnswer:
    """An item and its answer.

    text: information of the run, and what the authors must add. where: the parts of the
    page and the files that show it; empty for none. authors: the authors' own text, which makes an
    item answered; empty for none.
    """

    item: ChecklistItem
    state: State
    text: str
    where: str
    authors: str = ""


@dataclass(frozen=True)
class AnsweredChecklist:
    """A checklist with an answer to each item, in its order."""

    checklist: Checklist
    answers: tuple[ChecklistAnswer, ...]

    @property
    def counts(self) -> Mapping[State, int]:
        """How many items are answered, partly answered and open."""
        counts = Counter(a.state for a in self.answers)
        return {state: counts[state] for state in STATES}


def answer_checklist(
    checklist: Checklist, facts: RunFacts, statements: Mapping[str, str]
) -> AnsweredChecklist:
    """Every item answered. statements: item number to the authors' own text."""
    text_of = answer_texts(facts)
    answers = []
    for item in checklist.items:
        status, authors = item_status(item.answer, facts), statements.get(item.number, "")
        state: State = "answered" if authors else status.state
        text = text_of(item.answer)
        answers.append(ChecklistAnswer(item, state, text, status.where, authors))
    return AnsweredChecklist(checklist, tuple(answers))


def checklist_csv(answers: AnsweredChecklist) -> str:
    """One line an item; `state` is answered, partly or open, `authors` their own text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("item", "section", "topic", "asks", "state", "text", "where", "authors"))
    for a in answers.answers:
        i = a.item
        writer.writerow((i.number, i.section, i.topic, i.asks, a.state, a.text, a.where, a.authors))
    return out.getvalue()
