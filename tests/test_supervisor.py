"""The lead's supervisor against a made-up server: segments, gathering, orders, and giving up."""

import dataclasses

import pytest
from federation_kits import make_kits

import gliofed
from gliofed.deployment.kit import open_kit
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
from gliofed.federated.flare.names import ABSENT, CUT, LATE, LOST
from gliofed.types import RoundPoint

EVERYONE = ("a", "b", "c")
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
        self.here = dict.fromkeys(EVERYONE, 1.0)
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
    server.here = {"a": 1.0}
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
            server.here["c"] = 1.0

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
            server.here["c"] = 2.0

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
        server.here["c"] += 1.0

    server.on_ask = ask
    job, _ = supervise(kit, study, server)
    assert job.run().state == "completed"
    assert END not in server.told
    assert len(server.jobs) == 1
