"""Task requests of sites are held until there is a task, and never for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from nvflare.private.fed.server.server_commands import GetTaskCommand, ServerCommands

from gliofed.federated.flare.names import HELD_SITES
from gliofed.federated.flare.task_requests import TaskRequests, hold_task_requests

LONG, SHORT = 60.0, 0.01


def test_a_request_is_held_until_a_task_of_its_site_is_announced() -> None:
    requests = TaskRequests()
    with ThreadPoolExecutor() as pool:
        north, south = (pool.submit(requests.wait, s, LONG) for s in ("north", "south"))
        requests.announce(["north"])
        assert north.result() is True
        assert not south.done()
        requests.announce(["south"])
        assert south.result() is True


def test_an_announcement_before_the_request_holds_for_one_request() -> None:
    requests = TaskRequests()
    requests.announce(["north", "south"])
    assert requests.wait("north", LONG) is True
    assert requests.wait("north", SHORT) is False
    assert requests.wait("south", LONG) is True


def test_an_announcement_ends_the_one_before() -> None:
    requests = TaskRequests()
    requests.announce(["north"])
    requests.announce(["south"])
    assert requests.wait("north", SHORT) is False


def test_after_the_end_no_request_is_held() -> None:
    requests = TaskRequests()
    with ThreadPoolExecutor() as pool:
        north = pool.submit(requests.wait, "north", LONG)
        requests.end()
        assert north.result() is False
    assert requests.wait("south", LONG) is False


@pytest.mark.parametrize("held", [HELD_SITES - 1, HELD_SITES])
def test_a_bounded_number_of_requests_is_held(held) -> None:
    requests, waiting = TaskRequests(), threading.Semaphore(0)
    condition = requests._changed
    wait_for = condition.wait_for

    def counted(holds, seconds):
        waiting.release()
        return wait_for(holds, seconds)

    condition.wait_for = counted  # type: ignore[method-assign]
    with ThreadPoolExecutor(held + 1) as pool:
        early = [pool.submit(requests.wait, f"s{n}", LONG) for n in range(held)]
        for _ in range(held):
            assert waiting.acquire(timeout=LONG)
        late = pool.submit(requests.wait, "late", LONG)
        if held == HELD_SITES:
            assert late.result() is False  # no place: replied to at once
        else:
            assert waiting.acquire(timeout=LONG)
            requests.announce(["late"])
            assert late.result() is True
        requests.end()
        assert not any(one.result() for one in early)


def test_flares_command_for_task_requests_is_replaced() -> None:
    before = list(ServerCommands.commands)
    try:
        hold_task_requests(TaskRequests())
        names = [type(c) for c in ServerCommands.commands]
        assert len(names) == len(before)
        own = ServerCommands.get_command(GetTaskCommand().get_command_name())
        assert isinstance(own, GetTaskCommand)
        assert type(own) is not GetTaskCommand
        assert [c for c in ServerCommands.commands if c is not own] == [
            c for c in before if not isinstance(c, GetTaskCommand)
        ]
    finally:
        ServerCommands.commands[:] = before
