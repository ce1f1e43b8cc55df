"""Statements of a study's authors, from their TOML file.

    [tripod-ai]
    17 = "Approved by the ethics committee of ...; consent was waived."
    18a = "Funded by ...; the funder had no part in the study."
    [claim]
    44 = "Funded by ..."
    [card]
    license = "cc-by-4.0"

The file does not enter the study's digest, since it changes no result.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from gliofed.errors import StudyError
from gliofed.reporting.checklists.claim import CLAIM
from gliofed.reporting.checklists.tripod_ai import TRIPOD_AI
from gliofed.settings import build, read_toml


@dataclass(frozen=True)
class CardStatements:
    """Fields of the model card set by the authors; empty if not stated.

    license: of the weights, as Hugging Face writes it (cc-by-4.0, other). version: of the model.
    """

    license: str = ""
    authors: str = ""
    version: str = ""
    contact: str = ""


@dataclass(frozen=True)
class Statements:
    """items: checklist id to item number to the authors' text."""

    items: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    card: CardStatements = field(default_factory=CardStatements)


NO_STATEMENTS: Final = Statements()


def read_statements(path: Path) -> Statements:
    """Read the authors' statements from a file.

    Raises StudyError: no such file, not TOML, a table, item or key that does not exist (with the
    nearest one), or a value that is not text or is blank.
    """
    raw = read_toml(path, "statements")
    lists = {c.id: [i.number for i in c.items] for c in (TRIPOD_AI, CLAIM)}
    _known(raw, (*lists, "card"), str(path), "table")
    items = {}
    for name, numbers in lists.items():
        where = f"{path}: [{name}]"
        given = raw.get(name, {})
        if not isinstance(given, Mapping):
            raise StudyError(f"{where}: expected a table, found {given!r}")
        _known(given, numbers, where, "item")
        items[name] = {number: _words(text, f"{where} {number}") for number, text in given.items()}
    card = build(CardStatements, raw.get("card", {}), f"{path}: [card]")
    for key in fields(card):
        if key.name in raw.get("card", {}):
            _words(getattr(card, key.name), f"{path}: [card] {key.name}")
    return Statements(items, card)


def _known(given: Iterable[str], valid: Iterable[str], where: str, kind: str) -> None:
    known = list(valid)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise StudyError(f"{where}: unknown {kind} {key!r}; the nearest one is {near!r}")


def _words(text: object, where: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise StudyError(f"{where}: expected a text that is not blank, found {text!r}")
    return text.strip()
