"""The lead's session with the server: a child process that holds FLARE's session.

FLARE's session prints, starts threads that outlive it, and ends with the server. So it runs in a
separate process, which reads and writes JSON lines. A lost process is replaced at the next request.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from gliofed.errors import KitError, LinkError
from gliofed.federated.flare.connected_site import SITES, ConnectedSite, parse_site
from gliofed.federated.flare.limits import GRPC_OPTIONS
from gliofed.federated.flare.names import WITHDRAWN
from gliofed.federated.governance.withdrawals import Change
from gliofed.runtime.processes import end_with_starter, starter

STATUS: Final = "gliofed.status"
"""Command to a running training job: send the status."""
END: Final = "gliofed.end"
"""Command to a running training job: end after the current round."""
_CONNECT_SECONDS: Final = 20.0
_REPLY_SECONDS: Final = 30.0
_REFUSED: Final = frozenset({"AuthorizationError", "AuthenticationError"})
_PLAIN: Final[Mapping[str, str]] = {
    "NoConnection": "the server cannot be reached",
    "FLCommunicationError": "the server refused this kit; the reason is in its audit log",
}


class AdminSession:
    """Requests of the lead to the server.

    Each raises LinkError without a reply, KitError where the server refuses the request.
    """

    def __init__(self, kit: Path, name: str, log: Path) -> None:
        """kit, name: the lead's. log: file for what FLARE prints."""
        self._kit, self._name, self._log = kit, name, log
        self._child: subprocess.Popen[str] | None = None

    def sites(self) -> Mapping[str, ConnectedSite]:
        """The connected sites by name."""
        return {str(row["name"]): parse_site(row) for row in self._request("sites")}

    def submit(self, job: Path) -> str:
        """Submit a job folder; its id."""
        return str(self._request("submit", str(job)))

    def state(self, job: str) -> str:
        """FLARE's status of a job, such as "RUNNING" or "FINISHED:COMPLETED"."""
        return str(self._request("state", job))

    def command(self, job: str, topic: str) -> Mapping[str, Any] | None:
        """The reply of a training job to `STATUS` or `END`; None where it is not running."""
        reply: Mapping[str, Any] | None = self._request("command", job, topic)
        return reply

    def abort(self, job: str) -> None:
        """End a job; without effect on one that has ended."""
        self._request("abort", job)

    def withdrawn(self, run: str) -> tuple[str, ...]:
        """The sites that have withdrawn from a run, as the server has recorded them."""
        return tuple(map(str, self._request("withdrawn", run)))

    def change_withdrawn(self, run: str, site: str, change: Change) -> tuple[str, ...]:
        """Have the server record a change; the sites that have withdrawn then."""
        return tuple(map(str, self._request("withdrawn", run, change, site)))

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _request(self, *request: str) -> Any:
        child = self._child or self._start()
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            reply = json.loads(_line(child, _CONNECT_SECONDS + _REPLY_SECONDS))
        except (OSError, ValueError) as error:
            self.close()
            raise LinkError(f"the server does not respond ({error})") from None
        if "error" in reply:
            self.close()
            kind, text = reply["error"]
            if kind in _REFUSED:
                raise KitError(
                    f"{self._kit}: the server denies this kit the rights of a lead ({text}); "
                    "use the original kit of the lead"
                )
            raise LinkError(f"{_PLAIN.get(kind, kind)} ({text})")
        return reply["ok"]

    def _start(self) -> subprocess.Popen[str]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603  (our own command)
                [sys.executable, "-m", __name__, str(self._kit.resolve()), self._name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                cwd=self._kit,
                env={**os.environ, **starter()},
            )
        return self._child


def _line(child: subprocess.Popen[str], seconds: float) -> str:
    """The child's next line. Raises ValueError where none comes in time."""
    lines: list[str] = []
    assert child.stdout is not None
    reader = threading.Thread(target=lambda out=child.stdout: lines.append(out.readline()))
    reader.daemon = True
    reader.start()
    reader.join(seconds)
    if not lines or not lines[0]:
        raise ValueError(f"nothing for {seconds:g} s" if not lines else "its process ended")
    return lines[0]


def _serve(kit: str, name: str, requests: IO[str], replies: IO[str]) -> None:
    """Main loop of the child: one reply to each request."""
    from nvflare.fuel.f3.drivers import grpc_driver  # noqa: PLC0415  (as below)
    from nvflare.fuel.flare_api.flare_api import (  # noqa: PLC0415  (prints, and takes seconds)
        Session,
        new_secure_session,
    )

    grpc_driver.GRPC_DEFAULT_OPTIONS[:] = GRPC_OPTIONS  # FLARE has no file of options for a lead
    session: Session | None = None
    for line in requests:
        name_of_command, *rest = json.loads(line)
        try:
            if session is None:
                session = new_secure_session(name, kit, timeout=_CONNECT_SECONDS)
                session.set_timeout(_REPLY_SECONDS)
            reply = {"ok": _COMMANDS[name_of_command](session, *rest)}
        except Exception as error:  # of any type: FLARE has its own classes
            reply = {"error": (type(error).__name__, str(error))}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _command(session: Any, job: str, topic: str) -> Mapping[str, Any] | None:
    from nvflare.fuel.flare_api.api_spec import (  # noqa: PLC0415  (as above)
        InternalError,
        JobNotRunning,
        NoReply,
    )

    try:
        reply: Mapping[str, Any] = session.do_app_command(job, topic, {})
    except (InternalError, JobNotRunning, NoReply):  # not started, ended, or lost with its server
        return None
    return reply


def _withdrawn(session: Any, *words: str) -> list[str]:
    from nvflare.fuel.flare_api.api_spec import AuthorizationError  # noqa: PLC0415  (as above)

    reply = session.do_command(" ".join((WITHDRAWN, *words)))
    meta = reply.get("meta") or {}
    if meta.get("status") == "not_authorized":
        raise AuthorizationError(meta.get("info", ""))
    for item in reply.get("data", ()):
        if isinstance(item, dict) and isinstance(item.get("data"), dict):
            names: list[str] = item["data"][WITHDRAWN]
            return names
    raise LinkError(f"it did not reply to {WITHDRAWN}: {reply.get('details') or reply}")


def _abort(session: Any, job: str) -> None:
    from nvflare.fuel.flare_api.api_spec import (  # noqa: PLC0415  (as above)
        InternalError,
        JobNotRunning,
    )

    if not str(session.get_job_meta(job).get("status", "")).startswith("FINISHED"):
        with suppress(InternalError, JobNotRunning):  # a job lost with its server
            session.abort_job(job)


_COMMANDS: Final[Mapping[str, Callable[..., Any]]] = {
    "sites": lambda session: session._do_command("check_status server")["meta"].get(SITES, []),
    "submit": lambda session, job: session.submit_job(job),
    "state": lambda session, job: session.get_job_meta(job)["status"],
    "command": _command,
    "abort": _abort,
    "withdrawn": _withdrawn,
}


if __name__ == "__main__":
    end_with_starter()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what FLARE prints goes to the log
    _serve(sys.argv[1], sys.argv[2], sys.stdin, replies)
    os._exit(0)
