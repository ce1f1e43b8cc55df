"""Withdrawals are the server's: recorded with a line in its audit log, changed by the lead alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from nvflare.fuel.hci.server.authz import PreAuthzReturnCode

import gliofed
from gliofed.errors import AuditError, CheckpointError
from gliofed.federated.flare.names import WITHDRAWN
from gliofed.federated.flare.rules import ROLE
from gliofed.federated.flare.withdrawal_command import WithdrawalCommand
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.withdrawals import RECORD, read_withdrawn, record_change

RUN = "0123456789abcdef01234567"


class Connection:
    """What FLARE gives to a command's handler. role: in the user's certificate."""

    def __init__(self, kit, role=ROLE) -> None:
        self.app_ctx = SimpleNamespace(args=SimpleNamespace(workspace=str(kit)))
        self.role, self.sent, self.errors = role, [], []

    def get_prop(self, name, default):
        return self.role

    def append_dict(self, data) -> None:
        self.sent.append(data)

    def append_error(self, text, meta) -> None:
        self.errors.append((text, meta["status"]))


def ask(kit, *words):
    conn = Connection(kit)
    WithdrawalCommand().handle(conn, [WITHDRAWN, *words])
    return conn.errors or conn.sent[0][WITHDRAWN]


def events(log):
    return [(x.event, x.fields.get("site"), x.fields.get("run")) for x in gliofed.read_log(log)]


def test_a_change_is_in_the_record_and_once_in_the_audit_log(tmp_path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", "server")
    folder = tmp_path / RUN
    assert read_withdrawn(folder) == ()
    for site in ("north", "north", "east"):
        record_change(folder, site, "withdraw", log)
    assert read_withdrawn(folder) == ("east", "north")
    for _ in range(2):
        assert record_change(folder, "north", "readmit", log) == ("east",)
    assert events(log.path) == [
        ("site-withdrawn", "north", RUN),
        ("site-withdrawn", "east", RUN),
        ("site-readmitted", "north", RUN),
    ]


def test_a_malformed_name_or_record_is_refused(tmp_path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", "server")
    with pytest.raises(AuditError, match="not a name"):
        record_change(tmp_path / RUN, "../north", "withdraw", log)
    (tmp_path / RUN).mkdir()
    for text in ("{", "{}", "[1]", '"north"'):
        (tmp_path / RUN / RECORD).write_text(text)
        with pytest.raises(CheckpointError, match="delete it, then give gliofed withdraw"):
            read_withdrawn(tmp_path / RUN)


def test_the_command_reads_and_changes_the_record(tmp_path) -> None:
    assert ask(tmp_path, RUN) == []
    assert ask(tmp_path, RUN, "withdraw", "north") == ["north"]
    assert ask(tmp_path, RUN) == ["north"]
    assert ask(tmp_path, RUN, "readmit", "north") == []
    assert [e for e, *_ in events(tmp_path / "gliofed/audit.jsonl")] == [
        "site-withdrawn", "site-readmitted",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [(), ("../../etc",), (RUN.upper(),), (RUN, "withdraw"), (RUN, "remove", "north"),
     (RUN, "withdraw", "a b"), (RUN, "withdraw", "north", "south")],
)  # fmt: skip
def test_a_malformed_command_is_an_error_and_changes_nothing(tmp_path, words) -> None:
    ((_, status),) = ask(tmp_path, *words)
    assert status == "error"
    assert not (tmp_path / "gliofed/audit.jsonl").exists()


@pytest.mark.parametrize("role", ["", "project_admin", "org_admin", "member"])
def test_only_the_lead_may_use_it(tmp_path, role) -> None:
    conn = Connection(tmp_path, role)
    assert WithdrawalCommand().authorize(conn, []) is PreAuthzReturnCode.ERROR
    assert [status for _, status in conn.errors] == ["not_authorized"]
    assert WithdrawalCommand().authorize(Connection(tmp_path), []) is PreAuthzReturnCode.OK
