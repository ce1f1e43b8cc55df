"""`gliofed check`: every fault of the corpus gives its code, and health gives none."""

from __future__ import annotations

import shutil

import pytest
from malformed import InProcess, write_healthy
from malformed_corpus import CORPUS, Spoilt

import gliofed
import gliofed.validation.check
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.validation.check import check_path
from gliofed.validation.codes import CODES


@pytest.fixture(scope="session")
def healthy(tmp_path_factory):
    return write_healthy(tmp_path_factory.mktemp("healthy") / "data")


def check_here(path, monkeypatch, pictures=False) -> gliofed.CheckResult:
    monkeypatch.setattr(gliofed.validation.check, "SafeReader", InProcess)
    return check_path(path, pictures, NO_PROGRESS)


def test_the_healthy_hospital_has_no_findings(healthy, monkeypatch) -> None:
    result = check_here(healthy, monkeypatch)
    assert (result.cases, result.tables) == (2, 1)
    assert result.findings == ()


def test_the_corpus_is_large_and_reaches_every_code() -> None:
    assert len(CORPUS) >= 80
    assert len({(s.code, s.name) for s in CORPUS}) == len(CORPUS)
    reached = {s.code for s in CORPUS}
    assert {c.id for c in CODES} - reached == {"FILE-MEMORY", "FILE-TIME", "FILE-CRASH"}


@pytest.mark.parametrize("spoilt", CORPUS, ids=lambda s: f"{s.code}: {s.name}")
def test_every_fault_gives_its_code_and_no_other(
    spoilt: Spoilt, healthy, tmp_path, monkeypatch
) -> None:
    root = tmp_path / "data"
    shutil.copytree(healthy, root)
    spoilt.make(root)
    result = check_here(root, monkeypatch)
    found = {f.code for f in result.findings}
    assert found == {spoilt.code} | spoilt.also, [f.row() for f in result.findings]
