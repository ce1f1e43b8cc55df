"""The server's half on FLARE: an `Engine` whose sites are behind mutual TLS."""

from __future__ import annotations

import shutil
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask
from nvflare.apis.controller_spec import Task as FlareTask
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from gliofed.errors import StoppedError, TransferError, UpdateError
from gliofed.federated.flare.admin_session import END, STATUS
from gliofed.federated.flare.names import (
    ABSENT,
    BYTES,
    CUT,
    FAILURE,
    HEAD,
    LATE,
    LOST,
    REF,
    SOURCE,
    TASK,
)
from gliofed.federated.flare.transfer import FileOffer, download, release_memory
from gliofed.federated.governance.failure import parse_failure
from gliofed.federated.messages import LARGEST_HEADER
from gliofed.federated.server.rounds import SiteReply
from gliofed.runtime.processes import end_with_starter

_POLL_SECONDS: Final = 0.2
_AT_ONCE: Final = 4
"""Answers fetched at a time: a slow line holds up no other, and each holds a few chunks at most."""
_HEARD_SECONDS: Final = 10.0
"""How long a segment that is over waits for the lead to hear how it ended."""


class FlareEngine:
    """Sends a task to every site of the segment and fetches the answers as they come.

    sites: those that the study asks, by name. deadline: seconds from a request until a site that
    has not answered is left out. spool: folder for the answers of one request; on the disk, since
    they come in any order and are used in that of the names. stop: ends the waiting.
    """

    def __init__(
        self,
        controller: FlareController,
        context: FLContext,
        sites: Sequence[str],
        deadline: float,
        spool: Path,
        stop: Callable[[], bool],
    ) -> None:
        self._controller, self._context, self._stop = controller, context, stop
        self._sites, self._deadline, self._spool = sorted(sites), deadline, spool
        self._cell = context.get_engine().get_cell()

    def ask(self, task: Path) -> Iterator[SiteReply]:
        """One reply a site, ordered by name, each as soon as it and those before it are there.

        Raises StoppedError where it is told to stop.
        """
        shutil.rmtree(self._spool, ignore_errors=True)  # what an earlier request left unused
        here = {c.name for c in self._context.get_engine().get_clients()}
        waited = [s for s in self._sites if s in here]
        if not waited:
            yield from (SiteReply(s, None, ABSENT) for s in self._sites)
            return
        until = time.monotonic() + self._deadline
        with self._asked(task, waited, until) as answers:
            for site in self._sites:
                yield (
                    self._reply(site, answers[site], until)
                    if site in answers
                    else SiteReply(site, None, ABSENT)
                )

    @contextmanager
    def _asked(
        self, task: Path, sites: Sequence[str], until: float
    ) -> Iterator[Mapping[str, Future[SiteReply]]]:
        """The task is out while the block runs; each answer is fetched when it comes."""
        started, over = time.monotonic(), threading.Event()
        answers: dict[str, Future[SiteReply]] = {s: Future() for s in sites}
        offer = FileOffer(self._cell, task, len(sites), self._deadline + 60)
        most = offer.size + LARGEST_HEADER  # the gate looks more closely

        def ended() -> bool:
            return over.is_set() or self._stop() or time.monotonic() > until

        def fetched(site: str, told: Shareable | None) -> SiteReply:
            reply = self._fetched(site, told, most, ended)
            return replace(reply, seconds=time.monotonic() - started) if reply.answer else reply

        def take(client_task: ClientTask, fl_ctx: FLContext) -> None:
            site, told = client_task.client.name, client_task.result
            answer = answers[site]
            if not (answer.running() or answer.done()) and answer.set_running_or_notify_cancel():
                fetching.submit(_settle, answer, lambda: fetched(site, told))

        data = Shareable()
        data[SOURCE], data[REF], data[BYTES] = offer.source, offer.ref, offer.size
        data[HEAD] = list(self._controller.head())
        asked = FlareTask(TASK, data, timeout=int(self._deadline) + 1, result_received_cb=take)
        with ThreadPoolExecutor(_AT_ONCE) as fetching:
            self._controller.broadcast(asked, self._context, list(sites), len(sites))
            release_memory()
            try:
                yield answers
            finally:
                over.set()
                for answer in answers.values():
                    answer.cancel()
                self._controller.cancel_task(asked, fl_ctx=self._context)
                offer.withdraw()

    def _reply(self, site: str, answer: Future[SiteReply], until: float) -> SiteReply:
        """What `site` answered, once it has, or cannot any more."""
        while True:
            there = wait([answer], _POLL_SECONDS).done
            if self._stop():
                raise StoppedError("the segment was stopped")
            if there:
                return answer.result()
            why = ""
            if time.monotonic() > until:
                why = f"{LATE} {self._deadline:g} s"
            elif self._controller.get_client_disconnect_time(site):
                why = LOST
            if why and answer.cancel():  # one that is being fetched has its own end
                return SiteReply(site, None, why)

    def _fetched(
        self, site: str, told: Shareable | None, most: int, ended: Callable[[], bool]
    ) -> SiteReply:
        if told is None:
            return SiteReply(site, None, LOST)
        failure, source, ref = (told.get(k) for k in (FAILURE, SOURCE, REF))
        if failure is not None or not isinstance(source, str) or not isinstance(ref, str):
            return SiteReply(site, None, _told(failure))
        path = self._spool / site
        self._spool.mkdir(parents=True, exist_ok=True)
        try:
            download(self._cell, source, ref, path, most, ended)
        except TransferError as error:
            return SiteReply(site, None, f"{CUT}: {error}")
        self._controller.note(site, told.get(HEAD))
        return SiteReply(site, path)


def _settle(answer: Future[SiteReply], work: Callable[[], SiteReply]) -> None:
    try:
        answer.set_result(work())
    except Exception as error:
        answer.set_exception(error)


def _told(failure: object) -> str:
    """What a site says of its own failure, in words of ours."""
    try:
        return parse_failure(failure).text
    except UpdateError as error:
        return str(error)


class FlareController(Controller):  # type: ignore[misc]  # (FLARE has no types)
    """A FLARE workflow that conducts one segment of a run."""

    def __init__(self) -> None:
        super().__init__()
        end_with_starter()
        self.ending = threading.Event()
        self._over, self._heard = threading.Event(), threading.Event()

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Be there for the lead's questions."""
        engine = fl_ctx.get_engine()
        engine.register_app_command(STATUS, self._on_status)
        engine.register_app_command(END, self._on_end)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to do after the last."""

    def _on_status(self, topic: str, data: object, fl_ctx: FLContext) -> dict[str, Any]:
        if self._over.is_set():
            self._heard.set()
        return dict(self.status())

    def _on_end(self, topic: str, data: object, fl_ctx: FLContext) -> dict[str, Any]:
        self.ending.set()
        return {}

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Conduct the segment; a stop ends it between two rounds' commits."""
        root = Path(fl_ctx.get_engine().get_workspace().get_root_dir())

        def engine(sites: Sequence[str], deadline: float, spool: Path) -> FlareEngine:
            return FlareEngine(self, fl_ctx, sites, deadline, spool, lambda: abort_signal.triggered)

        failure = ""
        try:
            self.conduct(engine, root)
        except StoppedError:
            return
        except Exception as error:  # FLARE would print it with a traceback, and call it completed
            failure = f"{type(error).__name__}: {error}"
        self._over.set()
        self._heard.wait(_HEARD_SECONDS)  # what the lead asks after this job, it cannot answer
        if failure:
            self.system_panic(failure, fl_ctx)

    @abstractmethod
    def head(self) -> tuple[int, str]:
        """Of the server's audit log."""

    @abstractmethod
    def note(self, site: str, head: object) -> None:
        """Take note of what a site told of its audit log's head."""

    @abstractmethod
    def status(self) -> Mapping[str, Any]:
        """How the run stands, as plain values; none yet where it is not known. From any thread."""

    @abstractmethod
    def conduct(
        self, engine: Callable[[Sequence[str], float, Path], FlareEngine], kit: Path
    ) -> None:
        """Do the segment's work. kit: the server's.

        engine: makes one, of the sites to ask, a deadline in seconds, and a spool folder.
        """

    def process_result_of_unknown_task(
        self,
        client: Client,
        task_name: str,
        client_task_id: str,
        result: Shareable,
        fl_ctx: FLContext,
    ) -> None:
        """Drop an answer that came after its deadline."""
        self.log_info(fl_ctx, f"dropped an answer of {client.name} that came too late")
