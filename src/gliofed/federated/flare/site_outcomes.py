"""The server's handling of sites: a job goes on where one site cannot run it, and the lead sees
versions, certificates and failures of the connected sites.

FLARE 2.9 ends a job for all when the training process of one site reports an error, or when one
site cannot start it (`FederatedServer.process_job_failure`, `JobRunner._start_run`). Here, such a
site is noted and left out of the job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobReturnCode
from nvflare.fuel.f3.cellnet.core_cell import make_reply
from nvflare.fuel.f3.cellnet.defs import IdentityChallengeKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.fuel.hci.conn import Connection
from nvflare.private.admin_defs import Message as AdminMessage
from nvflare.private.defs import ERROR_MSG_PREFIX, CellMessageHeaderKeys, JobFailureMsgKey
from nvflare.private.fed.server import job_runner
from nvflare.private.fed.server.client_manager import ClientManager
from nvflare.private.fed.server.fed_server import FederatedServer
from nvflare.private.fed.server.job_runner import JobRunner
from nvflare.private.fed.server.training_cmds import TrainingCommandModule
from nvflare.private.fed.utils.identity_utils import load_crt_chain_bytes

from gliofed.federated.flare.connected_site import (
    SITES,
    SITES_LOGGER,
    VERSIONS,
    own_versions,
    parse_versions,
)
from gliofed.federated.flare.failed_sites import note_failed_site

_REASONS: Final = {
    JobReturnCode.INFRASTRUCTURE_ERROR: "no-start",
    JobReturnCode.EXCEPTION: "error",
    JobReturnCode.CONFIG_ERROR: "error",
    JobReturnCode.UNSAFE_COMPONENT: "not-permitted",
    JobReturnCode.ABORTED: "ended",
}
_REGISTERED: Final = "gliofed_registered"
_CERTIFICATE_END: Final = "gliofed_certificate_end"
_FAILURE: Final = "gliofed_failure"
_LOG: Final = logging.getLogger(SITES_LOGGER)


def keep_jobs_running(kit: Path) -> None:
    """From now on, in this process, a site that cannot run a job does not end it for the others.

    kit: of the server, where such sites are noted for the job's process.
    """
    deploy, start, stop = JobRunner._deploy_job, JobRunner._start_run, JobRunner._stop_run
    not_started: list[str] = []
    stopped: set[str] = set()

    def report(server: FederatedServer, request: Message) -> Message:
        return _take_outcome(kit, server, request, stopped)

    def stop_run(self: JobRunner, job_id: str, fl_ctx: FLContext) -> None:
        stopped.add(job_id)
        stop(self, job_id, fl_ctx)

    def deploy_job(self: JobRunner, job: Any, sites: Any, fl_ctx: FLContext) -> Any:
        number, failed = deploy(self, job, sites, fl_ctx)
        _note(kit, fl_ctx.get_engine(), job.job_id, failed)
        return number, failed

    def check_replies(
        replies: list[Any], client_sites: list[str], command: str, strict: bool = False
    ) -> list[str]:
        not_started[:] = [r.client_name for r in replies if _is_error(r.reply)]
        return []

    def start_run(
        self: JobRunner, job_id: str, job: Any, client_sites: Any, fl_ctx: FLContext
    ) -> None:
        not_started.clear()
        try:
            start(self, job_id, job, client_sites, fl_ctx)
        finally:
            _note(kit, fl_ctx.get_engine(), job_id, not_started)
            for site in not_started:
                self.resolve_client_outcome(job_id, site)

    FederatedServer.process_job_failure = report
    JobRunner._deploy_job, JobRunner._start_run = deploy_job, start_run
    JobRunner._stop_run = stop_run
    job_runner.check_client_replies = check_replies


def _is_error(reply: AdminMessage | None) -> bool:
    """Whether a site could not start a job; a late reply is no error. FLARE's errors are texts."""
    return reply is not None and str(reply.body).startswith(ERROR_MSG_PREFIX)


def _note(kit: Path, engine: Any, job: str, sites: Iterable[str]) -> None:
    for site in sites:
        client = engine.client_manager.name_to_clients.get(site)
        if client is not None:
            _note_failure(kit, client, job, "no-job")


def _note_failure(kit: Path, client: Any, job: str, reason: str) -> None:
    client.set_prop(_FAILURE, (job, reason))
    note_failed_site(kit, job, client.name, reason)
    _LOG.warning("failed %s at %s", reason, client.name)


def _take_outcome(
    kit: Path, server: FederatedServer, request: Message, stopped: Collection[str]
) -> Message:
    """Take the report of how a site's training process ended.

    It is dropped unless it is of a registered site and of a job that the server expects one for.
    stopped: jobs that the server itself has ended, whose training processes end too.
    """
    client = server.client_manager.clients.get(request.get_header(CellMessageHeaderKeys.TOKEN))
    if client is None:
        return make_reply(ReturnCode.UNAUTHENTICATED, "", None)
    outcome = request.payload if isinstance(request.payload, dict) else {}
    job, code = (outcome.get(k) for k in (JobFailureMsgKey.JOB_ID, JobFailureMsgKey.CODE))
    runner = server.engine.job_runner
    if isinstance(job, str) and runner.is_client_outcome_pending(job, client.name):
        reason = _REASONS.get(code) if isinstance(code, int) else None
        running = job in server.engine.run_processes and job not in stopped
        if reason is not None and running:
            _note_failure(kit, client, job, reason)
        runner.resolve_client_outcome(job, client.name)
    return make_reply(ReturnCode.OK, "", None)


def describe_sites() -> None:
    """From now on, in this process, the lead's request for the status has the table `SITES`."""
    authenticate, status = ClientManager.authenticate, TrainingCommandModule.check_status
    register = FederatedServer.register_client

    def authenticate_client(self: ClientManager, request: Message, fl_ctx: FLContext) -> Any:
        client = authenticate(self, request, fl_ctx)
        if client is not None:
            client.set_prop(_REGISTERED, time.time())
            if fl_ctx.get_prop(FLContextKey.SECURE_MODE, False):  # verified by then
                chain = load_crt_chain_bytes(request.payload[IdentityChallengeKey.CERT])
                client.set_prop(_CERTIFICATE_END, chain[0].not_valid_after_utc.timestamp())
        return client

    def register_client(self: FederatedServer, request: Message) -> Message:
        reply = register(self, request)
        if isinstance(reply.payload, dict):
            reply.payload[VERSIONS] = own_versions()
        return reply

    def check_status(self: TrainingCommandModule, conn: Connection, args: list[str]) -> None:
        status(self, conn, args)
        if args[1] == self.TARGET_TYPE_SERVER:
            table = conn.append_table(["site"], name=SITES)
            for client in conn.app_ctx.get_clients():
                table.add_row([client.name], meta=_row(client))

    ClientManager.authenticate = authenticate_client
    FederatedServer.register_client = register_client
    TrainingCommandModule.check_status = check_status


def _row(client: Any) -> dict[str, Any]:
    job, failure = client.get_prop(_FAILURE, ("", ""))
    versions = parse_versions((client.get_site_config() or {}).get(VERSIONS))
    return {
        "name": client.name,
        "last_message": client.last_connect_time,
        "registered": client.get_prop(_REGISTERED, 0.0),
        "certificate_end": client.get_prop(_CERTIFICATE_END, 0.0),
        "versions": {"gliofed": versions.gliofed, "torch": versions.torch},
        "job": job,
        "failure": failure,
    }
