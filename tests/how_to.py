"""The command blocks of docs/how-to, and their commands run as printed on made-up data."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from typer.testing import CliRunner

from gliofed.cli.main import app

PAGES: Final = Path(__file__).parents[1] / "docs/how-to"
_BLOCK: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.S | re.M)
_SHELL: Final = ("sh", "bash", "console")
OTHERS: Final = ("toml", "python", "json", "text", "")
"""Languages of blocks that are no commands."""


@dataclass(frozen=True)
class Command:
    """One command of a page, with its continuation lines joined. words: without comments."""

    page: str
    text: str

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(shlex.split(self.text, comments=True))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of every block."""
    return [(m[2], m[3]) for m in _BLOCK.finditer(page.read_text())]


def commands(page: Path) -> list[Command]:
    """The commands of all blocks of a page, in order."""
    out = []
    for language, text in blocks(page):
        if language in _SHELL:
            whole = text.replace("\\\n", " ")
            lines = [
                re.sub(r" +", " ", line.strip()).removeprefix("$ ") for line in whole.split("\n")
            ]
            out += [Command(page.stem, line) for line in lines if line and not line.startswith("#")]
    return out


def block_with(page: Path, start: str) -> str:
    """The text of the one block of a page that begins with `start`."""
    (found,) = (text for _, text in blocks(page) if text.startswith(start))
    return found


@dataclass
class Desk:
    """Where commands run. root: in place of `/` for the folders in `moved`, and the home.

    other: further texts of a page with what stands for them here.
    """

    root: Path
    other: Mapping[str, str]
    moved: tuple[str, ...] = ("/data/", "/dicom/", "/export/", "/secure/")

    def here(self, word: str) -> str:
        """A word of a command as it is run."""
        for text, instead in self.other.items():
            word = word.replace(text, instead)
        for folder in self.moved:
            word = re.sub(rf"(?<![\w/.]){folder}", f"{self.root}{folder}", word)
        return word.replace("~/", f"{self.root}/") if word.startswith("~/") else word

    def run(self, command: Command, answer: str = "y\n") -> str:
        """Run a command; its output. Raises AssertionError where it fails."""
        words = [self.here(w) for w in command.words]
        env = {}
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        if words[0] == "gliofed":
            return _gliofed(words[1:], answer, env, command)
        done = subprocess.run(
            shlex.join(words), shell=True, capture_output=True, text=True, check=False, timeout=120,
            env={**os.environ, **env},
        )  # fmt: skip
        assert done.returncode == 0, f"{command.page}: {command.text}\n{done.stdout}{done.stderr}"
        return done.stdout


def _gliofed(words: list[str], answer: str, env: Mapping[str, str], command: Command) -> str:
    """A command of gliofed in this process, which has imported torch already."""
    done = CliRunner().invoke(app, words, input=answer, env=env)
    fault = f"{command.page}: {command.text}\nstatus {done.exit_code}\n{done.output}\n{done.exception!r}"
    fine = (0, 1) if words[0] == "plan" else (0,)  # made-up hospitals have few patients
    assert done.exit_code in fine, fault
    return done.output
