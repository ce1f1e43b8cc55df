"""A site's process: FLARE's client, which answers only what a round needs.

FLARE's client obeys some twenty requests, among them `cat`, `grep`, `restart` and `shutdown`. It
checks the site's `authorization.json` only where the request says that it should, so that file
holds against the lead but not against whoever runs the server. Here, all requests but those of
jobs are refused, and logged.
"""

from __future__ import annotations

import sys
from typing import Final

from nvflare.private.fed.app.client import client_train
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors

from gliofed.federated.flare.denials import RequestRefuser
from gliofed.federated.flare.program import run_program

ANSWERED: Final = (
    "AbortAppProcessor",
    "AbortTaskProcessor",
    "CancelResourceProcessor",
    "CheckResourceProcessor",
    "ClientStatusProcessor",
    "DeployProcessor",
    "NotifyJobStatusProcessor",
    "StartJobProcessor",
)


def answer_jobs_only() -> None:
    """Put a refusal in the place of every other request's processor, for this process."""
    ClientRequestProcessors.request_processors[:] = [
        one if type(one).__name__ in ANSWERED else RequestRefuser(one.get_topics())
        for one in ClientRequestProcessors.request_processors
    ]


if __name__ == "__main__":
    answer_jobs_only()
    sys.exit(run_program(client_train))
