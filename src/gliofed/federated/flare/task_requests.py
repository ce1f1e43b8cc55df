"""The server's replies to task requests of sites, held back until there is a task.

FLARE's server replies at once that there is no task, and a site asks again after a fixed time. With
short rounds that time is a large part of a round, and a shorter one takes more of the server's
processor. Held requests cost nothing while the server waits, and end with the next request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

from nvflare.apis.fl_constant import ServerCommandKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.private.fed.server.server_commands import GetTaskCommand, ServerCommands

from gliofed.federated.flare.names import HELD_SITES

_HOLD_SECONDS: Final = 5.0
"""After this time a site is told that there is no task, and asks again."""


class TaskRequests:
    """Holds task requests of sites until a task for them is announced."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._expected: set[str] = set()
        self._held, self._over = 0, False

    def announce(self, sites: Iterable[str]) -> None:
        """Let requests of `sites` through, one each: there is a task for them."""
        with self._changed:
            self._expected = set(sites)
            self._changed.notify_all()

    def end(self) -> None:
        """Let all requests through from now on."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wait(self, site: str, seconds: float = _HOLD_SECONDS) -> bool:
        """Whether a task of `site` is announced within `seconds`.

        False at once where `HELD_SITES` requests are held already, or after `end`.
        """
        with self._changed:
            if self._held >= HELD_SITES:
                return False
            self._held += 1
            self._changed.wait_for(lambda: self._over or site in self._expected, seconds)
            self._held -= 1
            announced = site in self._expected
            self._expected.discard(site)
            return announced


class _HeldGetTask(GetTaskCommand):  # type: ignore[misc]  # (FLARE has no types)
    def __init__(self, requests: TaskRequests) -> None:
        super().__init__()
        self._requests = requests

    def process(self, data: Shareable, fl_ctx: FLContext) -> Shareable:
        """The reply to one task request of a site, which FLARE has authenticated."""
        self._requests.wait(data.get_header(ServerCommandKey.FL_CLIENT).name)
        return super().process(data, fl_ctx)


def hold_task_requests(requests: TaskRequests) -> None:
    """Pass all task requests of sites to this process through `requests`."""
    ServerCommands.commands[:] = [
        _HeldGetTask(requests) if isinstance(command, GetTaskCommand) else command
        for command in ServerCommands.commands
    ]
