"""A real server and real clients, started from kits on loopback: what each may do, and its ports.

Who does not get in is in `test_attacks.py`.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import psutil
import pytest
from federation_kits import (
    POLICY,
    context,
    listening,
    make_kits,
    plan_of,
    running,
    server_of,
    session,
    shake_hands,
    site_of,
    wait_for,
)
from frames import peak_mib, site_channel, stream, zeros

import gliofed
from gliofed.deployment.kit import open_kit
from gliofed.deployment.provision import make_start_up_kits
from gliofed.errors import LinkError
from gliofed.federated.flare.admin_session import AdminSession

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Live:
    out: Path
    port: int
    server: subprocess.Popen[bytes]
    north: subprocess.Popen[bytes]

    @property
    def server_log(self) -> str:
        return (self.out / "server/log.txt").read_text()


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> Iterator[Live]:
    """A server, and the site north registered with it."""
    out = tmp_path_factory.mktemp("live")
    plan = make_kits(out, "north", "south")
    with running(server_of(out), out / "server.txt") as server:
        wait_for(lambda: listening(plan.server.port), "a server that listens")
        with running(site_of(out / "north"), out / "north.txt") as north:
            wait_for(lambda: session(out / "lead").get("sites") == ["north"], "north registered")
            yield Live(out, plan.server.port, server, north)


@pytest.mark.process
def test_the_lead_sees_the_site_and_may_list_jobs_but_not_look_into_it(live) -> None:
    said = session(
        live.out / "lead", "list_jobs", "check_status client", "ls server", "sys_info server"
    )
    assert said["sites"] == ["north"]
    assert said["list_jobs"]["meta"]["status"] == "ok"
    assert said["check_status client"]["meta"]["client_status"][0]["client_name"] == "north"
    for command in ("ls server", "sys_info server"):
        assert said[command]["meta"]["status"] == "not_authorized", said


@pytest.mark.process
def test_a_withdrawal_is_recorded_by_the_server_while_no_job_runs(live) -> None:
    kit, run = open_kit(live.out / "lead", "lead"), "ab" * 12
    sessions = [AdminSession(kit.root, kit.name, live.out / f"{n}.log") for n in range(2)]
    try:
        first, second = sessions
        assert first.withdrawn(run) == ()
        assert first.change_withdrawn(run, "south", "withdraw") == ("south",)
        assert second.withdrawn(run) == ("south",)
        assert second.change_withdrawn(run, "south", "readmit") == ()
        with pytest.raises(LinkError, match="not a name"):
            first.change_withdrawn(run, "south/", "withdraw")
    finally:
        for one in sessions:
            one.close()
    server = open_kit(live.out / "server", "server")
    lines = [(x.event, x.fields) for x in gliofed.read_log(server.audit)]
    fields = {"site": "south", "run": run}
    assert lines[-2:] == [("site-withdrawn", fields), ("site-readmitted", fields)]


@pytest.mark.process
def test_a_site_answers_no_request_but_those_of_jobs(live) -> None:
    commands = ("ls north", "cat north startup/fed_client.json", "shutdown client north",
                "restart client north", "sys_info client north", "report_env north",
                "configure_site_log client north DEBUG")  # fmt: skip
    said = session(live.out / "lead", *commands)
    for command in commands:
        answer = str(said[command])
        assert "invalid_request" in answer or "not authorized" in answer, (command, answer)
    assert session(live.out / "lead")["sites"] == ["north"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("size", "gzip", "end"),
    [(100 * 2**20, True, "UNIMPLEMENTED"), (100 * 2**20, False, "RESOURCE_EXHAUSTED")],
)
def test_frames_of_a_site_without_login_take_no_memory_of_the_server(live, size, gzip, end) -> None:
    before = peak_mib(live.server.pid)
    with site_channel(live.out / "south", live.port) as channel:
        assert stream(channel, zeros(6, size), gzip) == end
    assert peak_mib(live.server.pid) - before < 100
    assert session(live.out / "lead")["sites"] == ["north"]


def listeners(process: subprocess.Popen[bytes]) -> set[tuple[bool, int]]:
    """Each open port of a process, and whether only its own machine can reach it."""
    found = psutil.Process(process.pid).net_connections("inet")
    heard = [c.laddr for c in found if c.status == psutil.CONN_LISTEN]
    return {(a.ip.rpartition(":")[2].startswith("127."), a.port) for a in heard}


@pytest.mark.process
def test_a_site_opens_no_port_to_others_and_its_files_stay_in_its_kit(live) -> None:
    assert listeners(live.north)
    assert all(own for own, _ in listeners(live.north))
    assert (live.out / "server/gliofed/work/flare/jobs").is_dir()
    assert (live.out / "north/log.txt").is_file()


@pytest.mark.process
def test_the_server_opens_one_port_to_others_unless_it_is_to_open_none(live, tmp_path) -> None:
    assert all(own for own, _ in listeners(live.server))
    plan = plan_of("north", listen="all")
    make_start_up_kits(plan, tmp_path / "out", POLICY)
    with running(server_of(tmp_path / "out"), tmp_path / "said.txt") as server:
        wait_for(lambda: listening(plan.server.port), "a server that listens")
        assert {port for own, port in listeners(server) if not own} == {plan.server.port}


@pytest.mark.process
def test_a_server_of_another_authority_is_not_believed(live, tmp_path) -> None:
    make_kits(tmp_path / "other", "north")
    believer = context(live.out / "north", tmp_path / "other/authority/rootCA.pem")
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        shake_hands(live.port, believer)


def old(made: ssl.SSLContext) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TLS 1.1, the point here
        made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1_1
    made.set_ciphers("ALL:@SECLEVEL=0")
    return made


@contextmanager
def listener_of_tls_1_1(kit: Path) -> Iterator[int]:
    """Shows that this machine's own library would speak TLS 1.1 if the other end did."""
    made = old(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
    made.load_cert_chain(kit / "startup/server.crt", kit / "startup/server.key")
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            one, _ = plain.accept()
            with made.wrap_socket(one, server_side=True) as safe:
                safe.recv(1)

        thread = Thread(target=answer)
        thread.start()
        yield plain.getsockname()[1]
        thread.join(10)


@pytest.mark.process
def test_tls_1_1_is_refused_by_the_server_and_not_by_this_machine(live) -> None:
    made = old(context(live.out / "north", live.out / "authority/rootCA.pem"))
    with listener_of_tls_1_1(live.out / "server") as port:
        assert shake_hands(port, made) == "TLSv1.1"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake_hands(live.port, made)
