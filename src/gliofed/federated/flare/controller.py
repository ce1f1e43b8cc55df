"""The server's engine and workflow on FLARE, with sites connected over mutual TLS."""

from __future__ import annotations

import json
import shutil
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from gliofed.federated.flare.failed_sites import FAILURES, failed_sites
from gliofed.federated.flare.job import JOB_MODEL
from gliofed.federated.flare.names import (
    ABSENT,
    BYTES,
    CUT,
    FAILED,
    FAILURE,
    HEAD,
    LATE,
    LOST,
    NOTE,
    REF,
    SOURCE,
    TASK,
)
from gliofed.federated.flare.task_requests import TaskRequests, hold_task_requests
from gliofed.federated.flare.transfer import FileOffer, OfferedFile, download, release_memory
from gliofed.federated.governance.failure import parse_failure
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.wire import LARGEST_HEADER, read_note
from gliofed.runtime.processes import end_with_starter

_POLL_SECONDS: Final = 0.2
_PARALLEL_DOWNLOADS: Final = 4
"""A slow connection delays no other. Each download has at most a few chunks in memory."""
_LAST_STATUS_SECONDS: Final = 10.0
"""How long a finished training job waits for the lead to fetch its last status."""


@dataclass(frozen=True)
class EngineConfig:
    """sites: names of the sites that get requests. deadline: seconds from a request until a site
    without a response is left out. spool: folder for the responses to one request. largest: bytes
    of the largest response, where that is larger than the request. excluded: those of the sites
    that get no request, and the reason, which is their reply."""

    sites: Sequence[str]
    deadline: float
    spool: Path
    largest: int = 0
    excluded: Mapping[str, str] = field(default_factory=dict)


class FlareEngine:
    """Sends requests to the sites of a training job and downloads the responses as they come.

    Responses are stored on the disk, since they come in any order and are used in that of the
    names. should_stop: ends the waiting where it returns True.
    """

    def __init__(
        self,
        controller: FlareController,
        context: FLContext,
        config: EngineConfig,
        should_stop: Callable[[], bool],
    ) -> None:
        self._controller, self._context, self._should_stop = controller, context, should_stop
        self._sites, self._deadline = sorted(config.sites), config.deadline
        self._spool, self._largest = config.spool, config.largest
        self._excluded = config.excluded
        self._cell = context.get_engine().get_cell()
        self._kit = Path(context.get_engine().get_workspace().get_root_dir())
        self._job = context.get_job_id()

    def send(self, request: Path) -> Iterator[SiteReply]:
        """One reply a site, ordered by name, each as soon as it and those before it are complete.

        Raises StoppedError where the training job is stopped.
        """
        shutil.rmtree(self._spool, ignore_errors=True)  # unused responses to an earlier request
        connected = {c.name for c in self._context.get_engine().get_clients()}
        kept_out = {*self._excluded, *failed_sites(self._kit, self._job)}
        expected = [s for s in self._sites if s in connected and s not in kept_out]
        if not expected:
            yield from map(self._without_request, self._sites)
            return
        until = time.monotonic() + self._deadline
        with self._broadcast(request, expected, until) as replies:
            for site in self._sites:
                yield (
                    self._wait_for(site, replies[site], until)
                    if site in replies
                    else self._without_request(site)
                )

    def _without_request(self, site: str) -> SiteReply:
        why = self._excluded.get(site) or self._failure(site) or ABSENT
        return SiteReply(site, None, why)

    def _failure(self, site: str) -> str:
        """Why `site` does not run this training job; "" where it does."""
        reason = failed_sites(self._kit, self._job).get(site, "")
        return f"{FAILED}: {FAILURES[reason]}" if reason in FAILURES else ""

    @contextmanager
    def _broadcast(
        self, request: Path, sites: Sequence[str], until: float
    ) -> Iterator[Mapping[str, Future[SiteReply]]]:
        """The request is on offer while the block runs; each response is downloaded when ready."""
        started, over = time.monotonic(), threading.Event()
        replies: dict[str, Future[SiteReply]] = {s: Future() for s in sites}
        offer = FileOffer(self._cell, request, len(sites), self._deadline + 60)
        max_bytes = max(offer.size, self._largest) + LARGEST_HEADER  # the gate checks more closely

        def ended() -> bool:
            return over.is_set() or self._should_stop() or time.monotonic() > until

        def receive(site: str, message: Shareable | None) -> SiteReply:
            reply = self._receive(site, message, max_bytes, ended)
            if reply.response is None:
                return reply
            return replace(reply, seconds=time.monotonic() - started)

        def take(client_task: ClientTask, fl_ctx: FLContext) -> None:
            site, message = client_task.client.name, client_task.result
            reply = replies[site]
            if not (reply.running() or reply.done()) and reply.set_running_or_notify_cancel():
                downloads.submit(_complete, reply, lambda: receive(site, message))

        data = Shareable()
        data[SOURCE], data[REF], data[BYTES] = offer.source, offer.ref, offer.size
        data[HEAD], data[NOTE] = list(self._controller.head()), json.dumps(read_note(request))
        flare_task = FlareTask(TASK, data, timeout=int(self._deadline) + 1, result_received_cb=take)
        with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as downloads:
            self._controller.broadcast(flare_task, self._context, list(sites), len(sites))
            release_memory()
            try:
                yield replies
            finally:
                over.set()
                for reply in replies.values():
                    reply.cancel()
                self._controller.cancel_task(flare_task, fl_ctx=self._context)
                offer.withdraw()

    def _wait_for(self, site: str, reply: Future[SiteReply], until: float) -> SiteReply:
        """The reply of `site`, when it has arrived or can no longer arrive."""
        while True:
            done = wait([reply], _POLL_SECONDS).done
            if self._should_stop():
                raise StoppedError("the training job was stopped")
            if done:
                return reply.result()
            failure = self._failure(site)
            if time.monotonic() > until:
                failure = f"{LATE} {self._deadline:g} s"
            elif not failure and self._controller.get_client_disconnect_time(site):
                failure = LOST
            if failure and reply.cancel():  # one that is being downloaded has its own end
                return SiteReply(site, None, failure)

    def _receive(
        self, site: str, message: Shareable | None, max_bytes: int, ended: Callable[[], bool]
    ) -> SiteReply:
        if message is None:
            return SiteReply(site, None, LOST)
        failure, source, ref = (message.get(k) for k in (FAILURE, SOURCE, REF))
        if failure is not None or not isinstance(source, str) or not isinstance(ref, str):
            return SiteReply(site, None, _failure_text(failure))
        path = self._spool / site
        self._spool.mkdir(parents=True, exist_ok=True)
        try:
            download(self._cell, OfferedFile(source, ref, max_bytes), path, ended)
        except TransferError as error:
            return SiteReply(site, None, f"{CUT}: {error}")
        self._controller.note_head(site, message.get(HEAD))
        return SiteReply(site, path)


def _complete(reply: Future[SiteReply], work: Callable[[], SiteReply]) -> None:
    try:
        reply.set_result(work())
    except Exception as error:
        reply.set_exception(error)


def _failure_text(failure: object) -> str:
    """The text of a site's failure report, without any text that the site sent."""
    try:
        return parse_failure(failure).text
    except UpdateError as error:
        return str(error)


class FlareController(Controller):  # type: ignore[misc]  # (FLARE has no types)
    """A FLARE workflow that runs one training job.

    job_model: folder of the model that came with the job, where one did.
    """

    def __init__(self) -> None:
        super().__init__()
        end_with_starter()
        self.ending, self._task_requests = threading.Event(), TaskRequests()
        self.job_model = Path()
        self._over, self._status_sent = threading.Event(), threading.Event()

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Register the commands of the lead, and hold the sites' task requests."""
        hold_task_requests(self._task_requests)
        engine = fl_ctx.get_engine()
        engine.register_app_command(STATUS, self._on_status)
        engine.register_app_command(END, self._on_end)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Called by FLARE after the last workflow; does nothing."""

    def _on_status(self, topic: str, data: object, fl_ctx: FLContext) -> dict[str, Any]:
        if self._over.is_set():
            self._status_sent.set()
        return dict(self.status())

    def _on_end(self, topic: str, data: object, fl_ctx: FLContext) -> dict[str, Any]:
        self.ending.set()
        return {}

    def broadcast(
        self, task: FlareTask, fl_ctx: FLContext, targets: list[str], min_responses: int
    ) -> None:
        """Offer a task to the sites `targets`, and reply to their task requests."""
        super().broadcast(task, fl_ctx, targets, min_responses)
        self._task_requests.announce(targets)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Run the training job; a stop ends it after the current round, which is committed."""
        try:
            self._run(abort_signal, fl_ctx)
        finally:
            self._task_requests.end()

    def _run(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        workspace = fl_ctx.get_engine().get_workspace()
        root = Path(workspace.get_root_dir())
        self.job_model = Path(workspace.get_app_dir(fl_ctx.get_job_id())) / JOB_MODEL

        def make_engine(config: EngineConfig) -> FlareEngine:
            return FlareEngine(self, fl_ctx, config, lambda: abort_signal.triggered)

        failure = ""
        try:
            self.run_job(make_engine, root)
        except StoppedError:
            return
        except Exception as error:  # FLARE would print a traceback, and report the job as completed
            failure = f"{type(error).__name__}: {error}"
        self._over.set()
        self._status_sent.wait(_LAST_STATUS_SECONDS)  # after this job no status can be fetched
        if failure:
            self.system_panic(failure, fl_ctx)

    @abstractmethod
    def head(self) -> tuple[int, str]:
        """Number and hash of the last line of the server's audit log."""

    @abstractmethod
    def note_head(self, site: str, head: object) -> None:
        """Record the head of a site's audit log, as the site sent it."""

    @abstractmethod
    def status(self) -> Mapping[str, Any]:
        """The status of the run as plain values, empty at first. Called from any thread."""

    @abstractmethod
    def run_job(self, make_engine: Callable[[EngineConfig], FlareEngine], kit: Path) -> None:
        """Do the work of the training job. kit: the server's."""

    def process_result_of_unknown_task(
        self,
        client: Client,
        task_name: str,
        client_task_id: str,
        result: Shareable,
        fl_ctx: FLContext,
    ) -> None:
        """Drop a response that came after its deadline."""
        self.log_info(fl_ctx, f"dropped a response of {client.name} that came too late")
