"""What crosses of an error: nothing that the hospital wrote, and nothing that a site made up."""

from __future__ import annotations

import errno
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliofed import errors
from gliofed.errors import (
    ApprovalError,
    DataError,
    GliofedError,
    PolicyError,
    UnwritableError,
    UpdateError,
)
from gliofed.federated.governance.failure import (
    KINDS,
    NOT_WRITTEN,
    REPORTS,
    STAGES,
    FailureReport,
    parse_failure,
    write_report,
)

KEY = b"k" * 32
PLANTED = ("Müller^Hans", "1961-04-02", "MRN0047711", "/srv/pacs/Müller", "sub-0047", "Dr. Weiß")


def fail(message: str, kind: type[BaseException] = DataError) -> BaseException:
    """An error that was really raised, with another as its cause."""
    try:
        try:
            int(f"inner {message}")
        except ValueError as inner:
            raise kind(message) from inner
    except kind as error:
        return error


def test_identifiers_in_an_error_stay_in_the_report(tmp_path) -> None:
    message = " | ".join(PLANTED)
    failure = write_report(fail(message), "train", tmp_path / "reports", KEY)
    crossing = json.dumps(failure.plain(), ensure_ascii=False) + failure.text
    for planted in (*PLANTED, str(tmp_path), "inner", "test_failure"):
        assert planted not in crossing
    (report,) = (tmp_path / "reports").iterdir()
    kept = report.read_text()
    for planted in (*PLANTED, "inner", "DataError", "test_failure.py"):
        assert planted in kept
    assert report.name == f"{failure.report}.txt"
    assert report.stat().st_mode & 0o777 == 0o600
    assert (failure.stage, failure.kind) == ("train", "DataError")
    assert f"{REPORTS}/{failure.report}.txt" in failure.text


@given(st.text())
def test_whatever_an_error_says_only_the_agreed_form_crosses(tmp_path_factory, message) -> None:
    failure = write_report(fail(message), "data", tmp_path_factory.mktemp("reports"), KEY)
    assert re.fullmatch(r"[0-9a-f]{16}", failure.report)
    assert parse_failure(json.loads(json.dumps(failure.plain()))) == failure


def test_an_id_tells_nothing_to_whoever_lacks_the_key_and_is_never_used_twice(tmp_path) -> None:
    error = fail("the same")
    ids = {
        write_report(error, "train", tmp_path, key).report
        for key in (KEY, b"j" * 32)
        for _ in range(3)
    }
    assert len(ids) == 6
    assert len(list(tmp_path.iterdir())) == 6


class Smith1961Error(DataError):
    """A class whose name is not one of gliofed's own."""


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "stage", "kind"),
    [
        (DataError("x"), "count", "DataError"),
        (Smith1961Error("x"), "count", "Error"),
        (ValueError("x"), "count", "Error"),
        (KeyError("MRN0047711"), "count", "Error"),
        (PolicyError("x"), "policy", "PolicyError"),
        (ApprovalError("x"), "approval", "ApprovalError"),
        (MemoryError(), "memory", "Error"),
        (OutOfMemoryError("CUDA out of memory"), "memory", "Error"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory", "Error"),
        (RuntimeError("something else"), "count", "Error"),
        (UnwritableError("x"), "disk", "UnwritableError"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk", "Error"),
        (OSError(errno.ENOENT, "No such file"), "count", "Error"),
        (KeyboardInterrupt(), "count", "Error"),
    ],
)
def test_stage_and_kind_are_of_closed_lists(tmp_path, error, stage, kind) -> None:
    failure = write_report(error, "count", tmp_path, KEY)
    assert (failure.stage, failure.kind) == (stage, kind)


def test_every_error_of_gliofed_can_be_named() -> None:
    def below(kind: type) -> set[str]:
        return {kind.__name__}.union(*map(below, kind.__subclasses__()))

    own = {n for n in below(GliofedError) if hasattr(errors, n)}
    assert own | {"Error"} == KINDS
    assert len(own) > 10


def test_a_report_that_cannot_be_written_still_lets_the_failure_be_told(tmp_path) -> None:
    (tmp_path / "file").touch()
    failure = write_report(fail("MRN0047711"), "train", tmp_path / "file" / "reports", KEY)
    assert failure == FailureReport("train", "DataError", NOT_WRITTEN)
    assert parse_failure(failure.plain()) == failure
    assert "could not write its report" in failure.text


SOUND = {"stage": "train", "kind": "DataError", "report": "0123456789abcdef"}


@pytest.mark.parametrize(
    "sent",
    [
        None, [], "train", 7, {}, SOUND | {"more": "x"}, {k: SOUND[k] for k in ("stage", "kind")},
        SOUND | {"stage": "training"}, SOUND | {"stage": "\x1b[2J"}, SOUND | {"stage": ["train"]},
        SOUND | {"kind": "<script>"}, SOUND | {"kind": "Smith1961Error"}, SOUND | {"kind": None},
        SOUND | {"report": "0123456789abcde"}, SOUND | {"report": "0123456789abcdef0"},
        SOUND | {"report": "0123456789ABCDEF"}, SOUND | {"report": "0123456789abcdef\n"},
        SOUND | {"report": "../../etc/passwd"}, SOUND | {"report": 0}, SOUND | {"report": None},
    ],
)  # fmt: skip
def test_what_a_site_made_up_is_refused_and_not_repeated(sent) -> None:
    assert parse_failure(SOUND).kind == "DataError"
    with pytest.raises(UpdateError) as caught:
        parse_failure(sent)
    assert str(caught.value) == "the site failed, and its failure report is malformed"


def test_no_failure_has_a_character_that_a_terminal_or_page_obeys() -> None:
    for stage in STAGES:
        for kind in KINDS:
            for report in ("0123456789abcdef", NOT_WRITTEN):
                text = parse_failure({"stage": stage, "kind": kind, "report": report}).text
                assert re.fullmatch(r"[A-Za-z0-9 ,.;:/'_-]+", text)
