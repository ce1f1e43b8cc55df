"""Kits of small federations on loopback, and their processes, for tests that start real ones."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryFile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from gliofed.deployment.federation_plan import FederationPlan, parse_plan
from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.provision import make_start_up_kits
from gliofed.federated.flare.process import ProcessCommand, server_process, site_process
from gliofed.runtime.processes import end_groups, starter

HOUR = timedelta(hours=1)
POLICY = "# a policy\n"
LEAD = "ada@example.org"
PATIENCE_S = 90
FEDERATION = """
name = "glio"
[server]
host = "fed.example.org"
[lead]
name = "ada@example.org"
org = "university"
[[sites]]
name = "north"
org = "north_hospital"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def plan_of(*sites: str, port: int = 0, listen: str = "loopback", **top: object) -> FederationPlan:
    """A federation on loopback; port 0: one that is free now."""
    return parse_plan(
        {
            "name": "glio",
            "server": {"host": "127.0.0.1", "port": port or free_port(), "listen": listen},
            "lead": {"name": LEAD, "org": "university"},
            "sites": [{"name": s, "org": f"{s[:40]}_hospital".replace("-", "_")} for s in sites],
            **top,
        }
    )


def make_kits(out: Path, *sites: str) -> FederationPlan:
    plan = plan_of(*sites)
    make_start_up_kits(plan, out, POLICY)
    return plan


def server_of(out: Path) -> ProcessCommand:
    kit = open_kit(out / "server", "server")
    return server_process(kit.root, kit.work, kit.org)


def site_of(folder: Path, name: str = "") -> ProcessCommand:
    """The client of a kit; name: says it is this site instead."""
    kit: Kit = open_kit(folder, "site")
    return site_process(kit.root, kit.work, name or kit.name, kit.org)


@contextmanager
def running(
    process: ProcessCommand, said: Path, path: Path | None = None, answer: bytes = b""
) -> Iterator[subprocess.Popen[bytes]]:
    """The process while the block runs, in a group of its own that is gone afterwards.

    path: of Python, before that of the sources. answer: what it reads, and then nothing more.
    """
    source = Path(__file__).parents[1] / "src"
    with said.open("wb") as out, TemporaryFile() as given:
        given.write(answer)
        given.seek(0)
        child = subprocess.Popen(
            process.argv,
            env={
                **process.env,
                **starter(),
                "PYTHONPATH": os.pathsep.join(map(str, [path, source] if path else [source])),
            },
            cwd=process.folder,
            stdin=given,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        end_groups([child], 10)


def verb(*words: object, **env: str) -> ProcessCommand:
    """A verb of the command line, its environment changed by `env`."""
    argv = (sys.executable, "-m", "gliofed.cli.main", *map(str, words))
    return ProcessCommand(argv, {**os.environ, "COLUMNS": "200", **env}, Path.cwd())


def wait_for(ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.1)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


_SESSION = """
import json, os, sys, traceback
from nvflare.fuel.flare_api.flare_api import new_secure_session
kit, user, commands = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
out = {}
try:
    session = new_secure_session(user, kit, timeout=10)
    out["sites"] = sorted(c.name for c in session.get_system_info().client_info)
    for one in commands:
        out[one] = session.do_command(one)
except BaseException as error:
    out["error"] = f"{type(error).__name__}: {error}"
print("\\n" + json.dumps(out, default=str), flush=True)
os._exit(0)
"""


def session(kit: Path, *commands: str, user: str = LEAD) -> dict:
    """What the server answers to a session of `kit`: its sites, and each command; or "error"."""
    done = subprocess.run(
        [sys.executable, "-c", _SESSION, str(kit), user, json.dumps(commands)],
        capture_output=True, text=True, timeout=PATIENCE_S, check=True, cwd=kit,
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def signed_anew(kits: Path, name: str, start: timedelta, end: timedelta) -> None:
    """Give the site another certificate from the same authority, good from `start` to `end`."""
    root = certificate(kits / "authority/rootCA.pem")
    key = serialization.load_pem_private_key((kits / "authority/rootCA.key").read_bytes(), None)
    old = certificate(kits / name / "startup/client.crt")
    now = datetime.now(UTC)
    new = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(root.subject)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .sign(key, hashes.SHA256())
    )
    path = kits / name / "startup/client.crt"
    path.write_bytes(new.public_bytes(serialization.Encoding.PEM))


_SUBMIT = """
import contextlib, json, os, sys, time
from nvflare.fuel.flare_api.flare_api import new_secure_session
from gliofed.federated.flare.admin_session import STATUS
kit, user, job = sys.argv[1:]
session = new_secure_session(user, kit, timeout=20)
job_id = session.submit_job(job)
end = time.monotonic() + 240
while time.monotonic() < end:
    status = session.get_job_meta(job_id)["status"]
    if status.startswith("FINISHED"):
        break
    with contextlib.suppress(Exception):  # a job that is over waits for this before it ends
        session.do_app_command(job_id, STATUS, {})
    time.sleep(0.2)
print("\\n" + json.dumps(status), flush=True)
os._exit(0)
"""


def submit(kit: Path, job: Path) -> str:
    """How FLARE says that the job ended."""
    done = subprocess.run(
        [sys.executable, "-c", _SUBMIT, str(kit), LEAD, str(job)],
        capture_output=True, text=True, timeout=300, check=False, cwd=kit,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def context(kit: Path | None, authority: Path) -> ssl.SSLContext:
    """As a gRPC client, TLS 1.2 so that a refusal ends the handshake."""
    made = ssl.create_default_context(cafile=str(authority))
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["h2"])
    if kit is not None:
        made.load_cert_chain(kit / "startup/client.crt", kit / "startup/client.key")
    return made


def shake_hands(port: int, made: ssl.SSLContext) -> str:
    """The version of TLS agreed on."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        made.wrap_socket(plain, server_hostname="127.0.0.1") as safe,
    ):
        return str(safe.version())
