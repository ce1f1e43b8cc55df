"""Kits after they were made: certificates renewed and revoked, links, modes, runs that are stored."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import time
import tomllib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from federation_kits import (
    POLICY,
    certificate,
    listening,
    make_kits,
    plan_of,
    running,
    server_of,
    session,
    signed_anew,
    site_of,
    verb,
    wait_for,
)
from hypothesis import given
from hypothesis import strategies as st

import gliofed
from gliofed.deployment.certificates import read_certificates, read_revocations
from gliofed.deployment.federation_plan import parse_plan
from gliofed.deployment.kit import open_any, open_kit
from gliofed.deployment.kit_process import run_process
from gliofed.deployment.process_events import proxy_remark
from gliofed.deployment.provision import make_start_up_kits
from gliofed.deployment.site_data import read_data_paths, write_data_paths
from gliofed.deployment.stored_runs import JOB_DAYS, delete_job_files
from gliofed.errors import CheckpointError, GliofedError, KitError, StudyError
from gliofed.federated.flare.log_lines import parse_log_line
from gliofed.federated.flare.process import ProcessCommand
from gliofed.federated.flare.revocation import LIST_FILE, RevokedCertificates
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.runtime.files import alone_in
from gliofed.settings import toml_of

DAY = timedelta(days=1)
RUN = "0123456789abcdef01234567"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "kits"
    make_kits(out, "north", "south")
    return out


@pytest.fixture
def kits(made, tmp_path):
    return shutil.copytree(made, tmp_path / "kits")


def serials(path) -> list[int]:
    return [c.serial_number for c in read_certificates(path)]


def test_an_expired_certificate_is_renewed_for_the_same_key_without_a_secret(
    kits, tmp_path
) -> None:
    old = certificate(kits / "north/startup/client.crt")
    hospital = shutil.move(kits / "north", tmp_path / "north")
    shutil.copytree(hospital, kits / "north")
    signed_anew(kits, "north", -2 * DAY, -DAY)
    shutil.rmtree(hospital)
    shutil.move(kits / "north", hospital)
    with pytest.raises(KitError, match=r"expired.*gliofed kit renew"):
        open_kit(hospital, "site")
    path = gliofed.renew(kits, "north", 90)
    assert "PRIVATE" not in path.read_text()
    gliofed.install(hospital, path)
    new = certificate(open_kit(hospital, "site").certificate)
    assert abs(new.not_valid_after_utc - datetime.now(UTC) - 90 * DAY) < DAY
    assert (new.subject, new.public_key()) == (old.subject, old.public_key())
    assert list(new.extensions) == list(old.extensions)
    assert serials(kits / "authority/certificates/north.crt") == [
        new.serial_number, old.serial_number,
    ]  # fmt: skip
    with pytest.raises(KitError, match="is the certificate of 'north'; expected 'south'"):
        gliofed.install(kits / "south", path)


@pytest.mark.parametrize("name", ["server", "lead"])
def test_the_servers_and_the_leads_certificates_are_renewed_in_place(kits, name) -> None:
    before = certificate(open_any(kits / name).certificate)
    gliofed.renew(kits, name)
    after = certificate(open_any(kits / name).certificate)
    assert after.serial_number != before.serial_number
    assert list(after.extensions) == list(before.extensions)


def test_a_revoked_name_is_on_the_servers_list_and_gets_a_new_kit(kits) -> None:
    gliofed.renew(kits, "north")
    issued = serials(kits / "authority/certificates/north.crt")
    path = gliofed.revoke(kits, "north")
    root = certificate(kits / "authority/rootCA.pem")
    assert read_revocations(path, root) == (1, issued)
    revoked = RevokedCertificates(kits / "server" / LIST_FILE)
    assert all(serial in revoked for serial in issued)
    assert certificate(kits / "south/startup/client.crt").serial_number not in revoked
    shutil.move(kits / "north", kits.parent / "old")
    again = make_start_up_kits(plan_of("north", "south", port=port_of(kits)), kits, POLICY)
    assert again.made == ("north",)
    new = certificate(kits / "north/startup/client.crt").serial_number
    assert new not in revoked
    gliofed.revoke(kits, "north")
    assert new in revoked, "the running server reads the list again"
    assert read_revocations(path, root)[0] == 2


def port_of(kits) -> int:
    return open_any(kits / "server").port


def test_the_lead_is_revoked_and_gets_a_new_kit(kits) -> None:
    gliofed.revoke(kits, "lead")
    shutil.move(kits / "lead", kits.parent / "old")
    again = make_start_up_kits(plan_of("north", "south", port=port_of(kits)), kits, POLICY)
    assert again.made == ("lead",)
    assert open_kit(kits / "lead", "lead").sites == ("north", "south")


def test_what_cannot_be_renewed_revoked_or_installed_is_refused(kits, tmp_path) -> None:
    with pytest.raises(KitError, match="no certificate of 'west' is known; there are lead, north"):
        gliofed.renew(kits, "west")
    with pytest.raises(KitError, match="server's certificate cannot be revoked"):
        gliofed.revoke(kits, "server")
    with pytest.raises(KitError, match="give the folder that gliofed provision made"):
        gliofed.renew(tmp_path / "elsewhere", "north")
    first = gliofed.revoke(kits, "north")
    shutil.copy(first, tmp_path / "first.crl")
    gliofed.revoke(kits, "south")
    with pytest.raises(KitError, match="is list 1, older than list 2"):
        gliofed.install(kits / "server", tmp_path / "first.crl")
    with pytest.raises(KitError, match="is for the server's kit"):
        gliofed.install(kits / "south", first)
    make_kits(tmp_path / "others", "north")
    with pytest.raises(KitError, match="not signed by this federation's authority"):
        gliofed.install(kits / "server", gliofed.revoke(tmp_path / "others", "north"))


def test_a_kit_of_a_version_that_kept_no_certificates_is_renewed_from_the_kit(kits) -> None:
    shutil.rmtree(kits / "authority/certificates")
    before = serials(kits / "north/startup/client.crt")
    gliofed.renew(kits, "north")
    assert serials(kits / "authority/certificates/north.crt")[1:] == before


@pytest.mark.parametrize("days", [1, 30])
def test_the_lifetime_of_certificates_is_a_parameter(days, tmp_path) -> None:
    make_start_up_kits(plan_of("north"), tmp_path / "kits", POLICY, days)
    end = certificate(tmp_path / "kits/north/startup/client.crt").not_valid_after_utc
    assert abs(end - datetime.now(UTC) - days * DAY) < timedelta(minutes=5)


@pytest.mark.parametrize("link", ["startup/client.key", "gliofed/salt", "gliofed/work", "local"])
def test_a_link_in_a_kit_is_refused(kits, link, tmp_path) -> None:
    path = kits / "north" / link
    shutil.move(path, tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(KitError, match=f"{link}: is a link"):
        open_kit(kits / "north", "site")


def test_a_kit_below_a_link_is_a_kit(kits, tmp_path) -> None:
    (tmp_path / "link").symlink_to(kits)
    assert open_kit(tmp_path / "link/north", "site").root == kits / "north"


@pytest.mark.parametrize("name", ["St. Mary's", 'a "quoted" one', "back\\slash", "é\x7f\n"])
def test_a_folder_of_any_name_is_read_as_it_was_written(kits, name, tmp_path) -> None:
    kit = open_kit(kits / "north", "site")
    paths = gliofed.SiteDataPaths(tmp_path / name / "data", tmp_path / name / "store")
    write_data_paths(kit, paths)
    assert read_data_paths(kit) == paths


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.text(
    st.characters(exclude_categories=["Cs"]))))  # fmt: skip
def test_text_written_as_toml_is_read_as_it_was(values) -> None:
    assert tomllib.loads(toml_of(values)) == values


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.process
def test_files_of_a_kits_process_are_for_the_owner_alone(tmp_path) -> None:
    before = os.umask(0o022)
    try:
        code = "open('made', 'w'); import os; os.mkdir('folder')"
        process = ProcessCommand((sys.executable, "-c", code), dict(os.environ), tmp_path)
        log = AuditLog(tmp_path / "audit.jsonl", "north")
        with pytest.raises(GliofedError, match="ended by itself"):
            run_process(process, tmp_path / "work", log, tmp_path / "log", lambda line: None)
        assert os.umask(0o022) == 0o022, "the caller's own is as it was"
    finally:
        os.umask(before)
    assert [mode(tmp_path / n) for n in ("made", "folder", "log")] == [0o600, 0o700, 0o600]


def test_a_port_in_use_ends_the_server_at_once_with_one_error(kits, tmp_path) -> None:
    process = server_of(kits)
    assert process.listens is not None
    with socket.create_server(process.listens), pytest.raises(KitError, match=r"ss -ltnp") as said:
        run_process(process, kits / "server/gliofed/work", AuditLog(tmp_path / "a", "server"),
                    tmp_path / "log", lambda line: None)  # fmt: skip
    assert str(process.listens[1]) in str(said.value)
    assert not (tmp_path / "log").exists()


def test_runs_in_a_kit_are_listed_and_deleted_unless_they_are_in_use(kits) -> None:
    kit = open_kit(kits / "north", "site")
    assert gliofed.stored_runs(kit.root) == ()
    (kit.work / RUN).mkdir()
    (kit.work / RUN / "weights").write_bytes(b"x" * 1000)
    (kit.work / "tmp").mkdir(exist_ok=True)
    (stored,) = gliofed.stored_runs(kit.root)
    assert (stored.run, stored.bytes, stored.text) == (RUN, 1000, "")
    with alone_in(kit.work / RUN), pytest.raises(CheckpointError):
        gliofed.delete_run(kit.root, RUN)
    for wrong in ("tmp", "../../startup", "0" * 24):
        with pytest.raises(KitError, match="stores no run"):
            gliofed.delete_run(kit.root, wrong)
    gliofed.delete_run(kit.root, RUN)
    assert gliofed.stored_runs(kit.root) == ()


def test_files_of_jobs_are_deleted_after_a_week(kits) -> None:
    kit = open_kit(kits / "north", "site")
    old, new = (kit.root / f"{n}2345678-1234-1234-1234-123456789abc" for n in (0, 1))
    for folder, days in ((old, JOB_DAYS + 0.01), (new, JOB_DAYS - 0.01)):
        folder.mkdir()
        os.utime(folder, (time.time() - days * 86400,) * 2)
    delete_job_files(kit)
    assert not old.exists()
    assert new.exists()
    assert (kit.root / "startup").exists()


def test_a_server_has_several_names_and_a_site_dials_one_of_them(tmp_path) -> None:
    plan = parse_plan({
        "name": "glio",
        "server": {"host": "fed.example.org", "names": ["fed.intranet", "10.0.0.5"]},
        "lead": {"name": "ada@example.org", "org": "university"},
        "sites": [{"name": "north", "org": "north"},
                  {"name": "south", "org": "south", "host": "fed.intranet"}],
    })  # fmt: skip
    make_start_up_kits(plan, tmp_path / "kits", POLICY)
    names = certificate(tmp_path / "kits/server/startup/server.crt").extensions
    text = str(names.get_extension_for_oid(x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value)
    for name in ("fed.example.org", "fed.intranet", "10.0.0.5"):
        assert f"{name}'" in text or f"={name})" in text
    for site, host in (("north", "fed.example.org"), ("south", "fed.intranet")):
        assert open_any(tmp_path / "kits" / site).host == host
        startup = (tmp_path / "kits" / site / "startup/fed_client.json").read_text()
        assert f'"target": "{host}:8002"' in startup


@pytest.mark.parametrize(
    ("server", "site", "message"),
    [({"host": "2001:db8::5"}, {}, "server.host: 2001:db8::5: the engine dials no IPv6"),
     ({"host": "a.org", "names": ["::1"]}, {}, "server.names: ::1: the engine dials no IPv6"),
     ({"host": "a.org", "names": ["b c"]}, {}, "server.names: expected a host name"),
     ({"host": "a.org"}, {"host": "b.org"}, "not in the server's certificate")],
)  # fmt: skip
def test_names_that_cannot_be_dialled_are_refused(server, site, message) -> None:
    with pytest.raises(StudyError, match=message):
        parse_plan({"name": "glio", "server": server,
                    "lead": {"name": "ada@example.org", "org": "u"},
                    "sites": [{"name": "north", "org": "n", **site}]})  # fmt: skip


def test_a_proxy_that_is_set_is_named_without_its_password(monkeypatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_remark("fed.example.org:8002") == ""
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.example.org:3128")
    said = proxy_remark("fed.example.org:8002")
    assert "https_proxy" in said
    assert "proxy.example.org:3128" in said
    assert "no_proxy=fed.example.org" in said
    assert "secret" not in said
    monkeypatch.setenv("no_proxy", "other.org, example.org")
    assert proxy_remark("fed.example.org:8002") == ""


@pytest.mark.parametrize(
    ("line", "event"),
    [("x WARNING gliofed.sites: failed no-start at north", ("site-failed", "no-start", "north")),
     ("x ERROR gliofed.sites: training process failed with 104", ("training-failed", "", "")),
     ("x WARNING gliofed.sites: server has 0.1.0 2.13.0", ("versions", "0.1.0 2.13.0", "")),
     ("x WARNING gliofed.sites: connection ended", ("lost", "", "")),
     ("x ERROR gliofed.sites: connection refused: revoked", ("revoked", "", "")),
     ("x ERROR gliofed.sites: refused revoked certificate of north",
      ("connection-refused", "revoked", "north"))],
)  # fmt: skip
def test_lines_on_sites_are_understood(line, event) -> None:
    found = parse_log_line(line)
    assert (found.what, found.reason, found.who) == event


@pytest.mark.process
@pytest.mark.slow
def test_a_running_server_ends_the_connection_of_a_revoked_kit_and_lets_in_no_other(
    kits, tmp_path
) -> None:
    server, north = tmp_path / "server.txt", tmp_path / "north.txt"
    with running(verb("serve", kits / "server"), server):
        wait_for(lambda: listening(port_of(kits)), "a server that listens")
        with running(site_of(kits / "north"), north), running(
            site_of(kits / "south"), tmp_path / "south.txt"
        ):  # fmt: skip
            wait_for(lambda: session(kits / "lead").get("sites") == ["north", "south"], "both")
            gliofed.revoke(kits, "north")
            wait_for(lambda: "connection refused: revoked" in north.read_text(), "it is refused")
            wait_for(lambda: session(kits / "lead").get("sites") == ["south"], "north is gone")
        lines = list(gliofed.read_log(kits / "server/gliofed/audit.jsonl"))
    refused = [line.fields for line in lines if line.event == "connection-refused"]
    assert refused == [{"site": "north", "reason": "revoked"}]
