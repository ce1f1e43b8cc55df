"""The lead's way to the server: a child process that holds FLARE's session, asked in JSON lines.

FLARE's session prints, starts threads that outlive it, and dies with the server. In a process of
its own it does none of this to ours: one that is lost is replaced by the next question.
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
from gliofed.runtime.processes import end_with_starter, starter

STATUS: Final = "gliofed.status"
"""What a running segment is asked for how it stands."""
END: Final = "gliofed.end"
"""What a running segment is told so that it ends after its present round."""
_CONNECT_SECONDS: Final = 20.0
_ANSWER_SECONDS: Final = 30.0
_REFUSED: Final = frozenset({"AuthorizationError", "AuthenticationError"})
_PLAIN: Final[Mapping[str, str]] = {
    "NoConnection": "the server cannot be reached",
    "FLCommunicationError": "the server does not let this kit in, its audit log says why",
}


class AdminSession:
    """Questions to the server, in the lead's name.

    Each raises LinkError where none answers, KitError where the server refuses what is asked.
    """

    def __init__(self, kit: Path, name: str, log: Path) -> None:
        """kit, name: the lead's. log: file for what FLARE prints."""
        self._kit, self._name, self._log = kit, name, log
        self._child: subprocess.Popen[str] | None = None

    def sites(self) -> Mapping[str, float]:
        """The sites that are connected, and when each was last heard, in the server's seconds."""
        return {str(name): float(at) for name, at in self._ask("sites").items()}

    def submit(self, job: Path) -> str:
        """Hand in a job folder; its id."""
        return str(self._ask("submit", str(job)))

    def state(self, job: str) -> str:
        """What FLARE says of a job, such as "RUNNING" or "FINISHED:COMPLETED"."""
        return str(self._ask("state", job))

    def tell(self, job: str, topic: str) -> Mapping[str, Any] | None:
        """A running segment's answer to `STATUS` or `END`; None where it is not running."""
        found: Mapping[str, Any] | None = self._ask("tell", job, topic)
        return found

    def abort(self, job: str) -> None:
        """End a job; one that has ended already is left alone."""
        self._ask("abort", job)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _ask(self, *question: str) -> Any:
        child = self._child or self._start()
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(question) + "\n")
            child.stdin.flush()
            answer = json.loads(_line(child, _CONNECT_SECONDS + _ANSWER_SECONDS))
        except (OSError, ValueError) as error:
            self.close()
            raise LinkError(f"the server does not answer ({error})") from None
        if "error" in answer:
            self.close()
            kind, text = answer["error"]
            if kind in _REFUSED:
                raise KitError(
                    f"{self._kit}: the server does not grant this kit what a lead may do ({text}); "
                    "use the lead's kit as it was handed over"
                )
            raise LinkError(f"{_PLAIN.get(kind, kind)} ({text})")
        return answer["ok"]

    def _start(self) -> subprocess.Popen[str]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603  (our own command)
                [sys.executable, "-m", __name__, str(self._kit.resolve()), self._name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True, cwd=self._kit, env={**os.environ, **starter()},
            )  # fmt: skip
        return self._child


def _line(child: subprocess.Popen[str], seconds: float) -> str:
    """The child's next line. Raises ValueError where none comes in time."""
    found: list[str] = []
    assert child.stdout is not None
    reader = threading.Thread(target=lambda out=child.stdout: found.append(out.readline()))
    reader.daemon = True
    reader.start()
    reader.join(seconds)
    if not found or not found[0]:
        raise ValueError(f"nothing for {seconds:g} s" if not found else "its process ended")
    return found[0]


def _serve(kit: str, name: str, questions: IO[str], answers: IO[str]) -> None:
    """The child's whole life: one answer a question."""
    from nvflare.fuel.flare_api.flare_api import (  # noqa: PLC0415  (prints, and takes seconds)
        Session,
        new_secure_session,
    )

    session: Session | None = None
    for line in questions:
        verb, *rest = json.loads(line)
        try:
            if session is None:
                session = new_secure_session(name, kit, timeout=_CONNECT_SECONDS)
                session.set_timeout(_ANSWER_SECONDS)
            answer = {"ok": _VERBS[verb](session, *rest)}
        except Exception as error:  # of any kind: FLARE has its own, and none outlives this line
            answer = {"error": (type(error).__name__, str(error))}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _tell(session: Any, job: str, topic: str) -> Mapping[str, Any] | None:
    from nvflare.fuel.flare_api.api_spec import (  # noqa: PLC0415  (as above)
        InternalError,
        JobNotRunning,
        NoReply,
    )

    try:
        found: Mapping[str, Any] = session.do_app_command(job, topic, {})
    except (InternalError, JobNotRunning, NoReply):  # not yet, no more, or lost with its server
        return None
    return found


def _abort(session: Any, job: str) -> None:
    from nvflare.fuel.flare_api.api_spec import (  # noqa: PLC0415  (as above)
        InternalError,
        JobNotRunning,
    )

    if not str(session.get_job_meta(job).get("status", "")).startswith("FINISHED"):
        with suppress(InternalError, JobNotRunning):  # a job lost with its server
            session.abort_job(job)


_VERBS: Final[Mapping[str, Callable[..., Any]]] = {
    "sites": lambda session: {
        c.name: c.last_connect_time or 0.0 for c in session.get_system_info().client_info
    },
    "submit": lambda session, job: session.submit_job(job),
    "state": lambda session, job: session.get_job_meta(job)["status"],
    "tell": _tell,
    "abort": _abort,
}


if __name__ == "__main__":
    end_with_starter()
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what FLARE prints goes to the log
    _serve(sys.argv[1], sys.argv[2], sys.stdin, told)
    os._exit(0)
