"""The lead's supervisor against a made-up server: segments, gathering, orders, and giving up."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from federation_kits import make_kits, signed_anew

import gliofed
from gliofed.deployment.certificate_dates import certificate_warning
from gliofed.deployment.kit import open_kit
from gliofed.deployment.left_out import LONGEST_WAIT, LeftOutSites
from gliofed.deployment.run_status import read_status, write_status
from gliofed.deployment.supervisor import (
    LeadOrders,
    Supervisor,
    read_orders,
    run_folder,
    write_orders,
)
from gliofed.errors import CheckpointError, LinkError, StudyError
from gliofed.federated.flare.admin_session import END, STATUS
from gliofed.federated.flare.connected_site import (
    ConnectedSite,
    Versions,
    own_versions,
    parse_versions,
)
from gliofed.federated.flare.names import ABSENT, CUT, LATE, LOST
from gliofed.types import RoundPoint

EVERYONE = ("a", "b", "c")
OWN = parse_versions(own_versions())
QUICK = gliofed.RetryLimits(poll=0.0, gather=0.05, silent=0.3, tries=3, rounds=2)


def point(number: int, refused=()) -> RoundPoint:
    return RoundPoint(
        round=number, rounds=1, losses={"mask": 1.0}, dice=0.5, gradient_norm=None, seconds=1.0,
        bytes_up=10, refused=dict(refused), answered={"a": 1.0}, merged={"a": 1},
    )  # fmt: skip


class Server:
    """Makes a round each time it is asked for its status; `script` may do otherwise."""

    def __init__(self, study, rounds: int = 2) -> None:
        self.rounds, self.total = rounds, study.train.epochs
        self.here = dict.fromkeys(EVERYONE, ConnectedSite(1.0, versions=OWN))
        self.points: list[RoundPoint] = []
        self.jobs: list[dict] = []
        self.told: list[str] = []
        self.made = 0
        self.gone: tuple[str, ...] = ()
        self.on_ask = lambda: None
        self.ending = False

    def sites(self):
        self.on_ask()
        return dict(self.here)

    def withdrawn(self, run):
        return self.gone

    def submit(self, job) -> str:
        import json

        settings = json.loads((job / "server/config/config_fed_server.json").read_text())
        self.jobs.append(settings["workflows"][0]["args"])
        self.made, self.ending = 0, False
        return f"job-{len(self.jobs)}"

    def state(self, job) -> str:
        over = self.made >= self.rounds or self.ending or len(self.points) >= self.total
        return "FINISHED:COMPLETED" if over and self.heard_end else "RUNNING"

    heard_end = False

    def command(self, job, topic):
        self.told.append(topic)
        if topic == END:
            self.ending = True
            return {}
        self.heard_end = True
        if self.made < self.rounds and len(self.points) < self.total:
            self.points.append(point(len(self.points)))
            self.made += 1
        return self.status().plain

    def status(self) -> gliofed.RunStatus:
        done = len(self.points) >= self.total
        return gliofed.RunStatus(
            run="r", study="tiny", digest="d", state="completed" if done else "training", why="",
            rounds=self.total, sites=tuple(self.jobs[-1]["sites"]), points=tuple(self.points),
        )  # fmt: skip

    def abort(self, job) -> None:
        self.told.append("abort")
        self.made = self.rounds


@pytest.fixture
def study(tiny_study):
    train = dataclasses.replace(tiny_study.train, epochs=5)
    federation = dataclasses.replace(tiny_study.federation, method="label_aware", quorum=2)
    return dataclasses.replace(tiny_study, train=train, federation=federation)


@pytest.fixture
def kit(tmp_path):
    make_kits(tmp_path / "kits", *EVERYONE)
    return open_kit(tmp_path / "kits/lead", "lead")


def supervise(kit, study, server, patience=QUICK):
    heard = []
    return Supervisor(kit, study, server, heard.append, patience), heard


def test_a_study_is_seen_through_in_segments(kit, study) -> None:
    server = Server(study)
    job, heard = supervise(kit, study, server)
    end = job.run()
    assert end.state == "completed"
    assert len(end.points) == 5
    assert len(server.jobs) == 3, "five rounds in segments of two"
    assert all(j["sites"] == list(EVERYONE) for j in server.jobs)
    assert read_status(run_folder(kit, study)) == end
    assert [len(h.points) for h in heard] == sorted(len(h.points) for h in heard)


def test_sites_that_are_missing_are_waited_for_and_named(kit, study) -> None:
    server = Server(study)
    del server.here["c"]
    job, heard = supervise(kit, study, server)
    assert job.run().state == "completed"
    assert server.jobs[0]["sites"] == ["a", "b"], "a quorum began without c"
    waited = [h for h in heard if h.state == "waiting"]
    assert waited[0].missing == ("c",)
    assert "c" in waited[0].why


def test_below_quorum_nothing_begins(kit, study) -> None:
    server = Server(study)
    server.here = {"a": ConnectedSite(1.0)}
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        if asked == 200:
            write_orders(run_folder(kit, study), LeadOrders(stop=True))

    server.on_ask = ask
    job, _ = supervise(kit, study, server)
    end = job.run()
    assert end.state == "stopped"
    assert server.jobs == []
    assert asked >= 200, "it asked on, past the time that it gathers for"


def test_a_site_that_comes_late_ends_the_segment_early(kit, study) -> None:
    server = Server(study, rounds=99)
    del server.here["c"]

    def ask() -> None:
        if len(server.points) == 2:
            server.here["c"] = ConnectedSite(1.0)

    server.on_ask = ask
    job, _ = supervise(kit, study, server)
    job.run()
    assert END in server.told
    assert server.jobs[1]["sites"] == list(EVERYONE)


@pytest.mark.parametrize("why", [ABSENT, f"{LATE} 20 s", LOST, f"{CUT}: why"])
def test_a_site_that_was_lost_is_taken_back_only_once_it_was_heard_again(kit, study, why) -> None:
    train = dataclasses.replace(study.train, epochs=12)
    study = dataclasses.replace(study, train=train)
    server = Server(study, rounds=99)

    def ask() -> None:
        if len(server.points) == 3:
            server.points[-1] = point(2, {"c": f"site c: no answer: {why}"})
        if len(server.points) in (4, 5) and len(server.jobs) == 1:
            assert END not in server.told, "the site is still away: nothing heard of it"
        if len(server.points) == 6:
            server.here["c"] = ConnectedSite(2.0)

    server.on_ask = ask
    job, _ = supervise(kit, study, server)
    job.run()
    assert server.told.count(END) == 1, "and it was asked for once"
    assert len(server.jobs) == 2


def test_a_site_that_the_server_names_as_withdrawn_is_in_no_job_of_any_copy_of_the_kit(
    kit, study
) -> None:
    server = Server(study)
    server.gone = ("b",)  # recorded by another copy of the lead's kit
    del server.here["b"]
    job, _ = supervise(kit, study, server)
    end = job.run()
    assert end.state == "completed"
    assert [j["sites"] for j in server.jobs] == [["a", "c"]] * 3, "and it was not waited for"
    assert (end.withdrawn, end.missing) == (("b",), ())
    assert read_status(run_folder(kit, study)).withdrawn == ("b",)


def test_a_withdrawal_does_not_end_a_job_and_one_taken_back_does(kit, study) -> None:
    server = Server(study, rounds=99)

    def ask() -> None:
        server.gone = ("b",) if len(server.points) == 2 else ()

    server.on_ask = ask
    job, heard = supervise(kit, study, server)
    assert job.run().state == "completed"
    assert [j["sites"] for j in server.jobs] == [["a", "b", "c"]]
    assert ("b",) in {h.withdrawn for h in heard}
    server = Server(study, rounds=99)
    server.gone = ("c",)
    server.on_ask = lambda: setattr(server, "gone", ("c",) if len(server.points) < 2 else ())
    study = dataclasses.replace(study, name="again")
    assert supervise(kit, study, server)[0].run().state == "completed"
    assert [j["sites"] for j in server.jobs] == [["a", "b"], ["a", "b", "c"]]


def test_a_stop_ends_the_run_and_the_same_command_goes_on(kit, study) -> None:
    server = Server(study, rounds=99)
    stops = [2]

    def ask() -> None:
        if server.points and len(server.points) == stops[0]:
            stops[0] = -1
            write_orders(run_folder(kit, study), LeadOrders(stop=True))

    server.on_ask = ask
    end = supervise(kit, study, server)[0].run()
    assert end.state == "stopped"
    assert 2 <= len(end.points) < 5
    assert supervise(kit, study, server)[0].run().state == "completed"


def test_segments_that_make_no_round_end_the_run_and_one_fewer_does_not(kit, study) -> None:
    class Dead(Server):
        def command(self, job, topic):
            if len(self.jobs) < self.alive_from:
                self.heard_end, self.made = True, self.rounds
                return None
            return super().command(job, topic)

    server = Dead(study)
    server.alive_from = QUICK.tries
    assert supervise(kit, study, server)[0].run().state == "completed"
    server = Dead(study)
    server.alive_from = QUICK.tries + 1
    end = supervise(kit, study, server)[0].run()
    assert end.state == "failed"
    assert len(server.jobs) == QUICK.tries


def test_a_server_that_does_not_answer_is_asked_again(kit, study) -> None:
    class Away(Server):
        away = 0

        def command(self, job, topic):
            if len(self.points) == 1 and self.away < 3:
                self.away += 1
                raise LinkError("the server does not answer")
            return super().command(job, topic)

    server = Away(study)
    job, heard = supervise(kit, study, server)
    assert job.run().state == "completed"
    assert any("does not answer" in h.why for h in heard)


def test_a_segment_that_knows_nothing_yet_takes_back_no_round(kit, study) -> None:
    class Slow(Server):
        def command(self, job, topic):
            if topic == STATUS and len(self.jobs) == 2 and not self.told.count("slow"):
                self.told.append("slow")
                return {}
            return super().command(job, topic)

    job, heard = supervise(kit, study, Slow(study))
    job.run()
    counts = [len(h.points) for h in heard]
    assert counts == sorted(counts)


@pytest.mark.slow
def test_a_segment_that_fails_early_gives_the_run_its_reason_and_takes_back_no_round(
    kit, study
) -> None:
    class Full(Server):
        def status(self) -> gliofed.RunStatus:
            now = super().status()
            if len(self.jobs) == 1:
                return now
            self.made = self.rounds
            why = "on the server: No space left on device"
            return dataclasses.replace(now, state="failed", why=why, points=())

    job, heard = supervise(kit, study, Full(study))
    end = job.run()
    assert (end.state, end.why) == ("failed", "on the server: No space left on device")
    counts = [len(h.points) for h in heard]
    assert counts == sorted(counts)
    assert counts[-1] == 2


def test_a_study_of_unknown_sites_and_damaged_orders_are_refused(kit, study) -> None:
    data = dataclasses.replace(study.data, external=("elsewhere",))
    with pytest.raises(StudyError, match="no site 'elsewhere'; it has a, b, c"):
        supervise(kit, dataclasses.replace(study, data=data), Server(study))
    folder = run_folder(kit, study)
    assert read_orders(folder) == LeadOrders()
    folder.mkdir(parents=True)
    (folder / "orders.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"orders\.json: damaged"):
        read_orders(folder)


def test_a_status_comes_back_from_the_disk_and_a_damaged_one_is_refused(tmp_path, study) -> None:
    server = Server(study)
    server.jobs.append({"sites": list(EVERYONE)})
    server.points.append(point(0, {"b": "why"}))
    write_status(tmp_path, server.status())
    assert read_status(tmp_path) == server.status()
    (tmp_path / "status.json").write_text('{"run": 1}')
    with pytest.raises(CheckpointError, match="is not the status of a run"):
        read_status(tmp_path)
    with pytest.raises(CheckpointError, match="no run was started here yet"):
        read_status(tmp_path / "elsewhere")


def test_a_site_that_failed_is_not_waited_back(kit, study) -> None:
    server = Server(study, rounds=99)

    def ask() -> None:
        if len(server.points) == 2:
            server.points[-1] = point(1, {"c": "site c: no answer: DataError in train, report 1"})
        server.here["c"] = ConnectedSite(server.here["c"].last_message + 1.0)

    server.on_ask = ask
    job, _ = supervise(kit, study, server)
    assert job.run().state == "completed"
    assert END not in server.told
    assert len(server.jobs) == 1


def failing(server: Server, registered: float = 0.0) -> ConnectedSite:
    """A site as the server has it after it could not run the newest job."""
    job = f"job-{len(server.jobs)}"
    return ConnectedSite(1.0, registered, versions=OWN, job=job, failure="no-start")


def test_a_site_that_cannot_run_a_job_is_named_left_out_and_tried_again_once_it_joins_anew(
    kit, study
) -> None:
    study = dataclasses.replace(
        study,
        train=dataclasses.replace(study.train, epochs=9),
        federation=dataclasses.replace(study.federation, quorum=1),
    )
    server = Server(study)

    def ask() -> None:
        if len(server.jobs) == 1 and server.points:
            server.here["b"] = failing(server)
        if len(server.points) == 6:
            server.here["b"] = ConnectedSite(2.0, 5.0, versions=OWN)

    server.on_ask = ask
    job, heard = supervise(kit, study, server)
    assert job.run().state == "completed"
    sites = [j["sites"] for j in server.jobs]
    assert sites[0] == list(EVERYONE)
    assert sites[1] == ["a", "c"], "it was asked again at once"
    assert sites[-1] == list(EVERYONE), "it joined anew, and was not asked"
    said = next(h.left_out for h in heard if h.left_out)
    assert list(said) == ["b"]
    assert "could not start" in said["b"]
    assert not heard[-1].left_out
    (line,) = [e for e in gliofed.read_log(kit.audit) if e.event == "site-failed"]
    assert line.fields == {"site": "b", "reason": "no-start"}


def test_without_a_quorum_of_others_the_run_waits_and_names_the_site(kit, study) -> None:
    server = Server(study)
    del server.here["c"]
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        if len(server.jobs) == 1:
            server.here["b"] = failing(server)
        if asked == 300:
            write_orders(run_folder(kit, study), LeadOrders(stop=True))

    server.on_ask = ask
    job, heard = supervise(kit, study, server)
    assert job.run().state == "stopped"
    assert len(server.jobs) == 1
    assert any("b: its training process could not start" in h.why for h in heard)


def test_a_failure_is_tried_again_after_a_time_that_doubles_and_is_forgotten_after_a_round() -> (
    None
):
    now = [0.0]
    out = LeftOutSites(300.0, lambda: now[0])

    def fails(job: str) -> dict[str, ConnectedSite]:
        return {"b": ConnectedSite(1.0, job=job, failure="error"), "a": ConnectedSite(1.0)}

    assert out.note("one", fails("zero")) == {}, "of another job"
    assert out.note("one", fails("one")) == {"b": "error"}
    assert out.note("one", fails("one")) == {}, "reported once"
    now[0] = 299.9
    assert list(out.out(fails("one"))) == ["b"]
    assert out.due("one", fails("one")) == set()
    now[0] = 300.0
    assert out.out(fails("one")) == {}
    assert out.due("one", fails("one")) == {"b"}
    assert out.due("two", fails("one")) == set()
    out.note("two", fails("two"))
    now[0] = 899.9
    assert list(out.out(fails("two"))) == ["b"]
    now[0] = 900.0
    assert out.out(fails("two")) == {}
    out.took_part("two", ["b"])
    out.note("three", fails("three"))
    now[0] = 900.0 + 1199.9
    assert list(out.out(fails("three"))) == ["b"], "a round of the same job forgets nothing"
    out.took_part("four", ["b"])
    out.note("four", fails("four"))
    now[0] += 300.0
    assert out.out(fails("four")) == {}
    for number in range(9):
        out.note(f"more {number}", fails(f"more {number}"))
    now[0] += LONGEST_WAIT - 0.1
    assert list(out.out(fails("x"))) == ["b"]
    now[0] += 0.1
    assert out.out(fails("x")) == {}


@pytest.mark.parametrize(
    ("days", "expected"),
    [(30.01, ""), (30, "within 30 days"), (7.01, "within 30 days"), (7, "within 7 days"),
     (0.01, "within 7 days"), (0, "ended on 2026-05-01 12:00")],
)  # fmt: skip
def test_a_certificate_warns_30_and_7_days_before_its_end(days, expected) -> None:
    end = datetime(2026, 5, 1, 12, tzinfo=UTC)
    text = certificate_warning("north", end, end - timedelta(days=days))
    assert expected in text
    assert bool(expected) == bool(text)
    assert not text or text.endswith("gliofed kit renew north")


def test_certificates_and_versions_of_sites_are_warned_of_in_the_status(kit, study) -> None:
    server = Server(study)
    soon = datetime.now(UTC) + timedelta(days=20)
    server.here["b"] = ConnectedSite(1.0, 0.0, soon.timestamp(), OWN)
    server.here["c"] = ConnectedSite(1.0, versions=Versions("9.9", OWN.torch))
    end = supervise(kit, study, server)[0].run()
    assert len(end.warnings) == 2
    assert "the certificate of b ends within 30 days" in end.warnings[0]
    assert f"c has gliofed 9.9, torch {OWN.torch}; here are {OWN.text}" in end.warnings[1]
    assert read_status(run_folder(kit, study)).warnings == end.warnings
    assert gliofed.status(kit.root).warnings == end.warnings
    signed_anew(kit.root.parent, "lead", timedelta(hours=-1), timedelta(days=6))
    own, *others = gliofed.status(kit.root).warnings
    assert own.startswith("the certificate of lead ends within 7 days")
    assert tuple(others) == end.warnings
