"""Reporting checklists answered from a run: what it knows, and what its authors have yet to say."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gliofed.reporting.checklists.run_facts import RunFacts

State = Literal["answered", "partly", "open"]
STATES: Final[tuple[State, ...]] = ("answered", "partly", "open")


@dataclass(frozen=True)
class ItemAnswer:
    """What a run says to an item. text: what it knows, and what of the item is left to the authors.
    where: the parts of the page and the files that show it; empty for none."""

    state: State
    text: str
    where: str = ""


Say = Callable[[RunFacts], ItemAnswer]


@dataclass(frozen=True)
class ChecklistItem:
    """One item. number: the published one. asks: in our own words."""

    number: str
    section: str
    topic: str
    asks: str
    say: Say


@dataclass(frozen=True)
class Checklist:
    """A published checklist. id: its table in a file of statements and the name of its own file."""

    id: str
    title: str
    citation: str
    items: tuple[ChecklistItem, ...]


@dataclass(frozen=True)
class ChecklistAnswer:
    """An item and what was said to it. authors: the authors' own words, which settle an item; empty
    for none."""

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
        found = Counter(a.state for a in self.answers)
        return {state: found[state] for state in STATES}


def answer(checklist: Checklist, facts: RunFacts, words: Mapping[str, str]) -> AnsweredChecklist:
    """Every item answered. words: item number to what the authors say."""
    out = []
    for item in checklist.items:
        said, own = item.say(facts), words.get(item.number, "")
        state: State = "answered" if own else said.state
        out.append(ChecklistAnswer(item, state, said.text, said.where, own))
    return AnsweredChecklist(checklist, tuple(out))


def for_authors(known: str = "") -> Say:
    """An item that no run can answer. known: what the run can add, as a sentence."""
    text = f"For the authors to say. {known}".strip()
    return lambda _: ItemAnswer("open", text)


def checklist_csv(answers: AnsweredChecklist) -> str:
    """One line an item; `state` is answered, partly or open, `authors` their own words."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("item", "section", "topic", "asks", "state", "text", "where", "authors"))
    for a in answers.answers:
        i = a.item
        writer.writerow((i.number, i.section, i.topic, i.asks, a.state, a.text, a.where, a.authors))
    return out.getvalue()
