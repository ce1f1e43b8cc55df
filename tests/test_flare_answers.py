"""The answers of one request on FLARE, with made-up sites in place of FLARE's processes."""

import threading
import time
from types import SimpleNamespace

import pytest

from gliofed.errors import StoppedError, TransferError
from gliofed.federated.flare import controller
from gliofed.federated.flare.controller import EngineConfig, FlareEngine
from gliofed.federated.flare.failed_sites import failed_sites, note_failed_site
from gliofed.federated.flare.names import HEAD, REF, SOURCE


class Sites:
    """A FLARE controller: each site answers after its seconds; None never does."""

    def __init__(self, after, lost=()):
        self.after, self.lost, self.cancelled = after, lost, False
        self.noted = {}

    def head(self):
        return 7, "ab" * 32

    def note_head(self, site, head):
        self.noted[site] = head

    def broadcast(self, task, context, names, least):
        for name in names:
            if self.after[name] is not None:
                threading.Timer(self.after[name], self._answer, (task, name)).start()

    def _answer(self, task, name):
        told = {SOURCE: name, REF: name, HEAD: [1, name]}
        client_task = SimpleNamespace(client=SimpleNamespace(name=name), result=told)
        task.result_received_cb(client_task, None)
        task.result_received_cb(client_task, None)  # a second copy changes nothing

    def get_client_disconnect_time(self, name):
        return 1.0 if name in self.lost else None

    def cancel_task(self, task, fl_ctx):
        self.cancelled = True


class Fetched:
    """In place of `download`: notes who came when; a site may be slow, or fail."""

    def __init__(self, slow=(), failing=()):
        self.order, self.slow, self.failing = [], slow, failing

    def __call__(self, cell, offered, to, stop):
        source = offered.source
        while source in self.slow and not stop():
            time.sleep(0.01)
        if source in self.failing or stop():
            raise TransferError("it broke off")
        to.write_bytes(source.encode())
        self.order.append(source)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    def make(sites, deadline=20.0, stop=lambda: False, **fetched):
        offer = SimpleNamespace(source="server", ref="r", size=5, withdraw=lambda: None)
        found = Fetched(**fetched)
        monkeypatch.setattr(controller, "FileOffer", lambda *a: offer)
        monkeypatch.setattr(controller, "download", found)
        monkeypatch.setattr(controller, "read_note", lambda path: {"kind": "count"})
        flare = SimpleNamespace(
            get_cell=lambda: None,
            get_clients=lambda: [SimpleNamespace(name=n) for n in sites.after],
            get_workspace=lambda: SimpleNamespace(get_root_dir=lambda: str(tmp_path)),
        )
        context = SimpleNamespace(get_engine=lambda: flare, get_job_id=lambda: "job")
        names = (*sites.after, "absent")
        return FlareEngine(
            sites, context, EngineConfig(names, deadline, tmp_path / "spool"), stop
        ), found

    return make


@pytest.mark.slow
def test_answers_come_in_the_order_of_names_and_are_there_until_the_next_request(
    engine, tmp_path
) -> None:
    sites = Sites({"b": 0.0, "c": 1.0, "a": 4.0})
    asking, fetched = engine(sites)
    seen = []
    for reply in asking.send(tmp_path / "task"):
        seen.append(reply.site)
        if reply.response is not None:
            assert reply.response.read_bytes() == reply.site.encode()
            assert reply.seconds >= sites.after[reply.site]
    assert seen == ["a", "absent", "b", "c"]
    assert fetched.order == ["b", "c", "a"]
    assert sites.noted == {name: [1, name] for name in "abc"}
    spool = tmp_path / "spool"
    assert sorted(p.name for p in spool.iterdir()) == ["a", "b", "c"]
    sites.after["c"] = None
    next(asking.send(tmp_path / "task"))
    assert "c" not in {p.name for p in spool.iterdir()}
    assert sites.cancelled


def test_the_first_answer_is_used_while_another_is_still_to_come(engine, tmp_path) -> None:
    sites = Sites({"a": 0.0, "b": None})
    asking, _ = engine(sites, deadline=5.0)
    replies = asking.send(tmp_path / "task")
    assert next(replies).response is not None
    assert not sites.cancelled  # the request to b is still out
    replies.close()
    assert sites.cancelled


@pytest.mark.slow
def test_who_is_late_lost_or_breaks_off_is_named_and_the_rest_goes_on(engine, tmp_path) -> None:
    sites = Sites({"a": None, "b": 0.0, "c": None, "d": 0.0, "e": 0.0}, lost=("c",))
    asking, _ = engine(sites, deadline=4.0, failing=("b",), slow=("d",))
    found = {r.site: r for r in asking.send(tmp_path / "task")}
    assert {name for name, r in found.items() if r.response is not None} == {"e"}
    assert found["a"].failure == "no response within 4 s"
    assert "it broke off" in found["b"].failure
    assert "it broke off" in found["d"].failure  # ended by the deadline
    assert found["c"].failure in ("its connection was lost", "no response within 4 s")


@pytest.mark.slow
def test_a_stop_ends_the_waiting_and_no_half_round_is_left(engine, tmp_path) -> None:
    stopped = threading.Event()
    sites = Sites({"a": 0.0, "b": 0.0})
    asking, _ = engine(sites, stop=stopped.is_set, slow=("b",))
    replies = asking.send(tmp_path / "task")
    assert next(replies).site == "a"
    stopped.set()
    with pytest.raises(StoppedError):
        next(r for r in replies if r.site == "b")
    assert sites.cancelled


def test_a_site_that_cannot_run_the_job_is_not_waited_for(engine, tmp_path) -> None:
    made, _ = engine(Sites({"a": 0.0, "b": None, "c": None}))
    note_failed_site(tmp_path, "job", "b", "error")
    threading.Timer(0.3, note_failed_site, (tmp_path, "job", "c", "no-start")).start()
    started = time.monotonic()
    a, absent, b, c = made.send(tmp_path / "request")
    assert time.monotonic() - started < 10, "the deadline is 20 s"
    assert a.response is not None
    assert "not connected" in absent.failure
    assert b.failure.startswith("it does not run the training job: its training process ended")
    assert c.failure.startswith("it does not run the training job: its training process could not")


def test_failed_sites_are_those_of_the_newest_job(tmp_path) -> None:
    assert failed_sites(tmp_path, "one") == {}
    note_failed_site(tmp_path, "one", "north", "no-start")
    note_failed_site(tmp_path, "one", "west", "ended")
    assert failed_sites(tmp_path, "one") == {"north": "no-start", "west": "ended"}
    note_failed_site(tmp_path, "two", "north", "error")
    assert failed_sites(tmp_path, "two") == {"north": "error"}
    assert failed_sites(tmp_path, "one") == {}
