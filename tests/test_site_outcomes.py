"""Reports of sites on a job, as the server takes them: no report ends the job for another site."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.private.defs import CellMessageHeaderKeys, JobFailureMsgKey, new_cell_message

from gliofed.federated.flare.failed_sites import FAILURES, failed_sites
from gliofed.federated.flare.site_outcomes import _REASONS, _take_outcome


class Client:
    name = "north"

    def __init__(self) -> None:
        self.props: dict[str, object] = {}

    def set_prop(self, name: str, value: object) -> None:
        self.props[name] = value


class Runner:
    def __init__(self) -> None:
        self.resolved: list[tuple[str, str]] = []

    def is_client_outcome_pending(self, job: str, site: str) -> bool:
        return job == "job"

    def resolve_client_outcome(self, job: str, site: str) -> None:
        self.resolved.append((job, site))


@pytest.fixture
def server():
    engine = SimpleNamespace(job_runner=Runner(), run_processes={"job": {}})
    return SimpleNamespace(client_manager=SimpleNamespace(clients={"t": Client()}), engine=engine)


def report(job: object, code: object, token: str = "t"):
    payload = {JobFailureMsgKey.JOB_ID: job, JobFailureMsgKey.CODE: code}
    return new_cell_message({CellMessageHeaderKeys.TOKEN: token}, payload)


@pytest.mark.parametrize("code", _REASONS)
def test_a_failure_is_noted_and_awaited_no_longer(code, server, tmp_path) -> None:
    reply = _take_outcome(tmp_path, server, report("job", code), ())
    assert reply.get_header(MessageHeaderKey.RETURN_CODE) == ReturnCode.OK
    assert failed_sites(tmp_path, "job") == {"north": _REASONS[code]}
    assert _REASONS[code] in FAILURES
    assert server.engine.job_runner.resolved == [("job", "north")]


@pytest.mark.parametrize("code", [0, 1, 10**9, "104", None, [104]])
def test_an_end_without_failure_or_a_malformed_report_notes_nothing(code, server, tmp_path) -> None:
    _take_outcome(tmp_path, server, report("job", code), ())
    assert failed_sites(tmp_path, "job") == {}
    assert server.engine.job_runner.resolved == [("job", "north")]


def test_reports_on_other_jobs_of_strangers_and_of_a_stopped_job_note_nothing(
    server, tmp_path
) -> None:
    for job in ("other", 7, None, "../../x"):
        _take_outcome(tmp_path, server, report(job, 104), ())
    assert server.engine.job_runner.resolved == []
    reply = _take_outcome(tmp_path, server, report("job", 104, token="other"), ())
    assert reply.get_header(MessageHeaderKey.RETURN_CODE) == ReturnCode.UNAUTHENTICATED
    _take_outcome(tmp_path, server, report("job", 9), {"job"})
    server.engine.run_processes.clear()
    _take_outcome(tmp_path, server, report("job", 104), ())
    assert list(tmp_path.iterdir()) == []
    assert server.engine.job_runner.resolved == [("job", "north")] * 2
