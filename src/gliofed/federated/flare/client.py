"""A site's process: FLARE's client, restricted to the requests of jobs.

FLARE's client accepts some twenty requests, among them `cat`, `grep`, `restart` and `shutdown`. It
checks the site's `authorization.json` only if the request has a flag for it. That file therefore
protects against the lead, but not against the operator of the server. Here, all requests except
those of jobs are refused and logged.
"""

from __future__ import annotations

import sys
from typing import Final

from nvflare.private.fed.app.client import client_train
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors

from gliofed.federated.flare.denials import RequestRefuser
from gliofed.federated.flare.program import run_program
from gliofed.federated.flare.site_reports import (
    exchange_versions,
    print_connection,
    print_failures,
)

ACCEPTED: Final = (
    "AbortAppProcessor",
    "AbortTaskProcessor",
    "CancelResourceProcessor",
    "CheckResourceProcessor",
    "ClientStatusProcessor",
    "DeployProcessor",
    "NotifyJobStatusProcessor",
    "StartJobProcessor",
)


def accept_jobs_only() -> None:
    """Replace the processors of all other requests by refusals, in this process."""
    ClientRequestProcessors.request_processors[:] = [
        processor
        if type(processor).__name__ in ACCEPTED
        else RequestRefuser(processor.get_topics())
        for processor in ClientRequestProcessors.request_processors
    ]


if __name__ == "__main__":
    accept_jobs_only()
    exchange_versions()
    print_connection()
    print_failures()
    sys.exit(run_program(client_train))
