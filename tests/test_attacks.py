"""Attacks on a federation of real processes over mutual TLS, each refused and recorded once.

A server (`gliofed serve`) and two hospitals (`gliofed join`), of which one sends bad updates
(`changed_site`), run for the whole module. Logs are compared before and after each attack.
"""

from __future__ import annotations

import dataclasses
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from changed_site.bad_updates import BAD
from conftest import TINY, write_hospital
from federation_kits import (
    HOUR,
    LEAD,
    PATIENCE_S,
    context,
    listening,
    make_kits,
    running,
    session,
    shake_hands,
    signed_anew,
    site_of,
    submit,
    verb,
    wait_for,
)

import gliofed
from gliofed.deployment.kit import open_kit
from gliofed.deployment.kit_process import run_process
from gliofed.deployment.process_events import (
    CONNECT_SECONDS,
    REPEAT_SECONDS,
    ConnectionReporter,
    RefusalRecorder,
)
from gliofed.deployment.training_job import make_job
from gliofed.errors import GliofedError
from gliofed.federated.flare.job import write_job
from gliofed.federated.flare.log_lines import parse_log_line
from gliofed.federated.flare.process import ProcessCommand
from gliofed.federated.governance.approval import approve
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.audit_verification import verify_lines
from gliofed.federated.governance.policy import load_policy
from gliofed.study import Study, parse_study, study_toml

POLICY = "min_cases = 1\nmin_batch = 1\nsmallest_count = 1\n"
SITES = ("east", "north")
REFUSED = {"connection-refused", "command-refused", "job-refused", "update-refused",
           "failure-reported", "policy-refused"}  # fmt: skip
CHANGED = Path(__file__).parent / "changed_site"


@dataclass(frozen=True)
class Live:
    """The running federation. studies: by method. said: what each verb printed, by the name of its
    kit."""

    kits: Path
    port: int
    studies: Mapping[str, Study]
    said: Mapping[str, Path]
    noted: dict[str, int] = field(default_factory=dict)
    """Refusals that each side had written down after the last attack."""

    @property
    def study(self) -> Study:
        """That of the default method, which sends gradients."""
        return self.studies["synchronous"]

    @property
    def authority(self) -> Path:
        return self.kits / "authority/rootCA.pem"

    def refusals(self) -> dict[str, list[gliofed.LogLine]]:
        """Lines that tell of a refusal, by the kit whose log has them."""
        logs = {n: self.kits / n / "gliofed/audit.jsonl" for n in ("server", *SITES, "lead")}
        return {
            name: [line for line in gliofed.read_log(log) if line.event in REFUSED]
            for name, log in logs.items()
            if log.exists()
        }

    def counts(self) -> dict[str, int]:
        return {side: len(lines) for side, lines in self.refusals().items()}

    def heard(self, reason: str) -> int:
        """How often the server's process printed a refusal for this reason."""
        printed = (self.kits / "server/log.txt").read_text(errors="replace").splitlines()
        return sum(event.reason == reason for line in printed if (event := parse_log_line(line)))

    def job(self, name: str, study: Study | None = None) -> Path:
        segment = make_job(study or self.study, rounds=1)
        return write_job(self.kits.parent / "jobs", name, segment.plain, SITES, 1)


def study_of_attacks(tiny: Study, method: str) -> Study:
    """A round an epoch: all cases of both sites are in one batch. Each round is committed."""
    return dataclasses.replace(
        tiny,
        data=dataclasses.replace(tiny.data, train=SITES, external=("south",)),
        train=dataclasses.replace(tiny.train, epochs=1 + len(BAD[method]), batch=8),
        federation=dataclasses.replace(
            tiny.federation, method=method, commit=1, quorum=1, deadline=60.0
        ),
    )


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> Iterator[Live]:
    """A server and two sites that were let in."""
    root = tmp_path_factory.mktemp("live")
    kits = root / "kits"
    plan = make_kits(kits, *SITES, "south")
    studies = {method: study_of_attacks(parse_study(TINY), method) for method in BAD}
    for method, study in studies.items():
        (root / f"{method}.toml").write_text(study_toml(study))
    said = {name: root / f"{name}.txt" for name in ("server", *SITES)}
    with ExitStack() as stack:
        stack.enter_context(running(verb("serve", kits / "server"), said["server"]))
        for number, name in enumerate(SITES):
            kit = open_kit(kits / name, "site")
            kit.policy.write_text(POLICY)
            approved = make_job(studies["label_aware"], rounds=1).study
            approve(approved, "Dr Who", kit.approvals, load_policy(kit.policy))
            rows = {f"{name}{n}": (str(n % 2), "0", "unknown", "2") for n in range(4)}
            data = write_hospital(root / name, rows, seed=number)
            join = verb("join", kits / name, "--data", data, "--store", root / f"store-{name}",
                        "--study", root / "synchronous.toml", "--yes", GLIOFED_TEST_SITE="bad_updates")  # fmt: skip
            stack.enter_context(running(join, said[name], path=CHANGED))
        wait_for(lambda: listening(plan.server.port), "a server that listens")
        for name in SITES:
            wait_for(lambda n=name: "connected to" in said[n].read_text(), f"{name} is let in")
        yield Live(kits, plan.server.port, studies, said)


@pytest.fixture(scope="module")
def rounds(live) -> Mapping[str, gliofed.RunStatus]:
    """By method, a whole study in which one site sends a bad update each round but the first."""
    ends = {}
    for method, study in live.studies.items():
        patience = gliofed.RetryLimits(gather=0, rounds=study.train.epochs)
        path = live.kits.parent / f"{method}.toml"
        ends[method] = gliofed.start(path, live.kits / "lead", lambda now: None, patience)
        assert ends[method].state == "completed", ends[method]
    return ends


def ran(live: Live, *words: object) -> subprocess.CompletedProcess[str]:
    """A verb that ends by itself, without a traceback."""
    process = verb(*words)
    done = subprocess.run(
        process.argv, env=process.env, cwd=live.kits, capture_output=True, text=True,
        timeout=3 * PATIENCE_S, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


# --- attacks on the transport and by commands, each as: what is done, and what the log says of it


def no_certificate(live: Live, place: Path) -> None:
    refused_handshake(live, context(None, live.authority))


def other_authority(live: Live, place: Path) -> None:
    make_kits(place / "other", "north")
    refused_handshake(live, context(place / "other/north", live.authority))


def expired(live: Live, place: Path) -> None:
    for name in ("north", "authority"):
        shutil.copytree(live.kits / name, place / name)
    signed_anew(place, "north", -HOUR, HOUR)
    assert shake_hands(live.port, context(place / "north", live.authority)) == "TLSv1.2"
    signed_anew(place, "north", -HOUR, -timedelta(minutes=1))
    refused_handshake(live, context(place / "north", live.authority))


def refused_handshake(live: Live, made: ssl.SSLContext) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake_hands(live.port, made)


def other_name(live: Live, place: Path) -> None:
    shutil.copytree(live.kits / "north", place / "north")
    before = live.heard("other-name")
    with running(site_of(place / "north", name="south"), place / "said.txt"):
        wait_for(lambda: live.heard("other-name") > before + 1, "it is refused, and tries again")
        assert "south" not in session(live.kits / "lead")["sites"]


def leads_name(live: Live, place: Path) -> None:
    assert "sites" not in session(sites_kit_for_the_lead(live, place), user=LEAD)


def sites_kit_for_the_lead(live: Live, place: Path) -> Path:
    """A lead's kit with a site's certificate and key in it."""
    kit = Path(shutil.copytree(live.kits / "lead", place / "lead"))
    for name in ("client.crt", "client.key"):
        shutil.copy(live.kits / "north/startup" / name, kit / "startup" / name)
    return kit


_OPERATE = """
import os, sys
from nvflare.fuel.flare_api.flare_api import new_secure_session
kit, name, *words = sys.argv[1:]
session = new_secure_session("north", kit, timeout=20)
try:
    print("\\nDONE", getattr(session, name)(*words), flush=True)
except BaseException as error:
    print(f"\\nREFUSED {type(error).__name__}", flush=True)
os._exit(0)
"""


def operate(command: str) -> Callable[[Live, Path], None]:
    def attack(live: Live, place: Path) -> None:
        kit = sites_kit_for_the_lead(live, place)
        jobs = live.kits / "server/gliofed/work/flare/jobs"
        words = {"submit_job": [str(live.job("theirs"))], "list_jobs": [],
                 "abort_job": [next(p.name for p in jobs.rglob("*-*-*-*-*"))]}[command]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", _OPERATE, str(kit), command, *words],
            capture_output=True, text=True, timeout=PATIENCE_S, check=True, cwd=kit,
        )  # fmt: skip
        assert "REFUSED" in done.stdout, done.stdout + done.stderr
        assert "DONE" not in done.stdout

    return attack


def by_the_lead(command: str) -> Callable[[Live, Path], None]:
    def attack(live: Live, place: Path) -> None:
        answer = session(live.kits / "lead", command)[command]
        assert "not_authorized" in str(answer) or "not authorized" in str(answer), answer

    return attack


def submit_to_both(live: Live, job: Path) -> str:
    """The status of the job's end. A site whose name another connection had is let in anew first:
    its next heartbeat may be ten seconds away, and a job goes to those that are connected."""
    lead = live.kits / "lead"
    wait_for(lambda: set(SITES) <= set(session(lead)["sites"]), "both sites are connected")
    return submit(lead, job)


def code_for(side: str) -> Callable[[Live, Path], None]:
    def attack(live: Live, place: Path) -> None:
        job = live.job(f"code-{side}")
        (job / side / "custom").mkdir()
        (job / side / "custom/evil.py").write_text(f"open({str(place / 'ran')!r}, 'w')")
        assert submit_to_both(live, job) == "FINISHED:FAILED_TO_RUN"
        assert not (place / "ran").exists()

    return attack


def class_for(side: str, config: str, ours: str, theirs: str) -> Callable[[Live, Path], None]:
    def attack(live: Live, place: Path) -> None:
        job = live.job(f"class-{side}")
        path = job / side / "config" / config
        assert ours in path.read_text()
        path.write_text(path.read_text().replace(ours, theirs))
        before = requests_received(live)
        status = submit_to_both(live, job)
        # sites that refuse do not end a job, and this run is complete without them
        assert side == "site" or status != "FINISHED:COMPLETED"
        assert requests_received(live) == before

    return attack


def requests_received(live: Live) -> dict[str, int]:
    """Site to the number of requests in its audit log."""
    logs = {name: live.kits / name / "gliofed/audit.jsonl" for name in SITES}
    return {
        name: sum(line.event == "request-received" for line in gliofed.read_log(log))
        for name, log in logs.items()
    }


def changed_study(live: Live, place: Path) -> None:
    """One byte of the study, and the digests that a job brings made to fit."""
    changed = dataclasses.replace(live.study, train=dataclasses.replace(live.study.train, batch=3))
    assert [*map(len, map(study_toml, (changed, live.study)))] == [len(study_toml(changed))] * 2
    status = submit_to_both(live, live.job("changed", changed))
    assert status != "FINISHED:COMPLETED"
    run = make_job(changed, 1).run
    for name in SITES:
        assert not (live.kits / name / "gliofed/work" / run).exists()
        lines = gliofed.read_log(live.kits / name / "gliofed/audit.jsonl")
        assert not [x for x in lines if x.event == "request-received" and x.fields["run"] == run]


@dataclass(frozen=True)
class Attack:
    """do: the attack. found: by the side that refuses, the event and its fields."""

    do: Callable[[Live, Path], None]
    found: Mapping[str, tuple[str, Mapping[str, str]]]


def at_server(event: str, **fields: str) -> Mapping[str, tuple[str, Mapping[str, str]]]:
    return {"server": (event, fields)}


def at_sites(event: str, **fields: str) -> Mapping[str, tuple[str, Mapping[str, str]]]:
    return dict.fromkeys(SITES, (event, fields))


ATTACKS = {
    "no certificate": Attack(no_certificate, at_server("connection-refused", reason="no-certificate")),
    "certificate of another authority": Attack(
        other_authority, at_server("connection-refused", reason="unknown-authority")),
    "expired certificate": Attack(expired, at_server("connection-refused", reason="expired")),
    "kit under another site's name": Attack(
        other_name, at_server("connection-refused", reason="other-name", site="north")),
    "site's certificate under the lead's name": Attack(
        leads_name, at_server("connection-refused", reason="other-name")),
    "site lists jobs": Attack(
        operate("list_jobs"), at_server("command-refused", reason="list-jobs", site="north")),
    "site submits a job": Attack(
        operate("submit_job"), at_server("command-refused", reason="submit-job", site="north")),
    "site aborts the lead's job": Attack(
        operate("abort_job"), at_server("command-refused", reason="abort-job", site="north")),
    "lead looks into the server": Attack(
        by_the_lead("ls server"), at_server("command-refused", reason="ls")),
    "lead shuts the server down": Attack(
        by_the_lead("shutdown server"), at_server("command-refused", reason="shutdown")),
    "code for the server": Attack(code_for("server"), at_server("job-refused", reason="custom-code")),
    "code for the sites": Attack(code_for("site"), at_sites("job-refused", reason="custom-code")),
    "other class at the server": Attack(
        class_for("server", "config_fed_server.json", "gliofed.deployment.server_controller.ServerController",
                  "nvflare.app_common.workflows.fedavg.FedAvg"),
        at_server("job-refused", reason="class-not-allowed")),
    "other class at the sites": Attack(
        class_for("site", "config_fed_client.json", "gliofed.deployment.client_executor.ClientExecutor",
                  "nvflare.app_common.np.np_trainer.NPTrainer"),
        at_sites("job-refused", reason="class-not-allowed")),
    "study with another byte": Attack(
        changed_study, at_sites("failure-reported", stage="approval", kind="ApprovalError")),
}  # fmt: skip


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_recorded_once(live, rounds, tmp_path, name) -> None:
    attack = ATTACKS[name]
    before = live.counts()
    assert live.noted in ({}, before), "the attack before this one was recorded again"
    attack.do(live, tmp_path)

    def new() -> dict[str, list[gliofed.LogLine]]:
        found = {side: lines[before[side] :] for side, lines in live.refusals().items()}
        return {side: lines for side, lines in found.items() if lines}

    wait_for(lambda: new().keys() == attack.found.keys(), f"the logs tell of it: {new()}")
    for side, (event, fields) in attack.found.items():
        (line,) = new()[side]
        assert (line.event, line.fields | dict(fields)) == (event, line.fields)
        assert "times" not in line.fields
        assert ("site" in fields) == ("site" in line.fields)
    assert new().keys() == attack.found.keys()
    live.noted.update(live.counts())


@pytest.mark.process
@pytest.mark.slow
def test_no_attack_is_recorded_again_afterwards(live) -> None:
    session(live.kits / "lead")  # a session later, whatever was still to come is there
    assert live.noted in ({}, live.counts())


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(("method", "kind"), [(m, k) for m, kinds in BAD.items() for k in kinds])
def test_a_bad_update_is_refused_and_recorded_once_and_the_round_goes_on(
    live, rounds, method, kind
) -> None:
    number, said = 1 + list(BAD[method]).index(kind), BAD[method][kind][1]
    end = rounds[method]
    assert end.points[0].answered.keys() == set(SITES)
    point = end.points[number]
    assert point.answered.keys() == {"north"}
    assert said in point.refused["east"]
    (line,) = [x for x in live.refusals()["server"]
               if x.fields.get("round") == number and x.fields["run"] == end.run]  # fmt: skip
    assert (line.event, line.fields["site"]) == ("update-refused", "east")


@pytest.mark.process
@pytest.mark.slow
def test_a_lead_kit_with_a_sites_certificate_starts_nothing(live, tmp_path) -> None:
    """The kit says that it is north's, as far as the lead's verb looks."""
    kit = sites_kit_for_the_lead(live, tmp_path)
    facts = kit / "gliofed/kit.toml"
    done = ran(live, "start", live.kits.parent / "synchronous.toml", "--kit", kit)
    assert done.returncode == 1
    assert "is the certificate of 'north'; expected 'ada@example.org'" in done.stderr
    facts.write_text(facts.read_text().replace(f'name = "{LEAD}"', 'name = "north"'))
    done = ran(live, "start", live.kits.parent / "synchronous.toml", "--kit", kit)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "the server denies this kit the rights of a lead" in line


class TestWhatIsHeard:
    """Without processes: how often a refusal is written, and what a site is told."""

    SHAKE = (
        "I1 ssl_transport_security.cc:1] Handshake failed with error x CERTIFICATE_VERIFY_FAILED"
    )

    def test_a_refusal_without_end_is_written_once_an_hour_with_how_often(self, tmp_path) -> None:
        now = [0.0]
        log = AuditLog(tmp_path / "audit.jsonl", "server")
        refusals = RefusalRecorder(log, SITES, lambda: now[0])
        for number in range(50_000):
            now[0] = number * 2 * REPEAT_SECONDS / 50_000
            refusals.handle_line(self.SHAKE)
            refusals.handle_line("another line")
        refusals.close()
        lines = list(gliofed.read_log(log.path))
        assert len(lines) <= 4
        assert sum(int(x.fields.get("times", 1)) for x in lines) == 50_000

    def test_kinds_are_counted_apart_and_only_sites_are_named(self, tmp_path) -> None:
        log = AuditLog(tmp_path / "audit.jsonl", "server")
        refusals = RefusalRecorder(log, ("North",))
        for who in ("north", "ada@example.org", "sub-001", ""):
            refusals.handle_line(f"WARNING gliofed.denied: denied list_jobs to {who}")
        lines = list(gliofed.read_log(log.path))
        assert [x.fields.get("site") for x in lines] == ["North", None]
        refusals.close()
        assert [*gliofed.read_log(log.path)][-1].fields["times"] == 2

    @pytest.mark.slow
    def test_each_line_of_a_process_is_heard_and_kept_and_its_silence_too(self, tmp_path) -> None:
        code = (
            "import time; print('one\\n\\xe9', flush=True); time.sleep(2.5); print('x' * 200_000)"
        )
        process = ProcessCommand(
            (sys.executable, "-c", code), {"PYTHONIOENCODING": "latin-1"}, tmp_path
        )
        audit, heard, log = AuditLog(tmp_path / "a.jsonl", "north"), [], tmp_path / "process.log"
        with pytest.raises(GliofedError, match="ended by itself, with status 0"):
            run_process(process, tmp_path / "work", audit, log, heard.append)
        assert heard[:2] == ["one", "\ufffd"]
        assert heard.count("") >= 2
        rest = [line for line in heard[2:] if line]
        assert "".join(rest) == "x" * 200_000
        assert log.read_text().split() == [*heard[:2], *rest]
        assert [x.event for x in gliofed.read_log(audit.path)] == ["started", "stopped"]

    def test_a_site_that_is_not_let_in_is_told_so_once_with_what_to_look_at(self) -> None:
        now, said = [0.0], []
        presence = ConnectionReporter(
            "fed.example.org:8002", Path("process.log"), said.append, lambda: now[0]
        )
        now[0] = CONNECT_SECONDS - 0.1
        presence.handle_line("")
        assert said == []
        now[0] = CONNECT_SECONDS
        presence.handle_line("")
        presence.handle_line("")
        (line,) = said
        assert "no connection to fed.example.org:8002" in line
        assert "clocks" in line

    def test_a_site_whose_kit_is_used_twice_is_told_so(self) -> None:
        now, said = [0.0], []
        presence = ConnectionReporter("host:1", Path("process.log"), said.append, lambda: now[0])
        let_in = "INFO nvflare.private.fed.client.fed_client.FederatedClient: Successfully registered client:n"
        lost = "2026-01-01 WARNING gliofed.sites: connection ended"
        presence.handle_line(let_in)
        for seconds in (200, 400, 410, 420):
            now[0] = seconds
            presence.handle_line(lost)
            assert len(said) == (1 if seconds < 410 else 2)
        assert said[0] == "connected to host:1"
        assert "also in use on another machine" in said[1]


@pytest.mark.process
@pytest.mark.slow
def test_whoever_runs_a_site_is_told_that_its_kit_is_in_use_elsewhere(live, tmp_path) -> None:
    """Last of the attacks, since it leaves north less well connected."""
    shutil.copytree(live.kits / "north", tmp_path / "north")
    with running(site_of(tmp_path / "north"), tmp_path / "said.txt"):
        told = "or this kit is also in use on another machine"
        wait_for(lambda: told in live.said["north"].read_text(), "north is told")


@pytest.mark.process
@pytest.mark.slow
def test_nobody_who_runs_a_verb_sees_a_traceback_and_every_log_is_sound(live) -> None:
    for said in live.said.values():
        assert "Traceback" not in said.read_text()
    for name in ("server", *SITES):
        assert verify_lines(live.kits / name / "gliofed/audit.jsonl").sound
