"""A site's process: FLARE's client, which answers only what a round needs.

FLARE's client obeys some twenty requests, among them `cat`, `grep`, `restart` and `shutdown`. It
checks the site's `authorization.json` only where the request says that it should, so that file
holds against the lead but not against whoever runs the server. Here, all requests but those of
jobs are refused, and logged.
"""

from __future__ import annotations

import sys
from typing import Final

from nvflare.fuel.f3.mpm import MainProcessMonitor
from nvflare.private.fed.app.client import client_train
from nvflare.private.fed.app.utils import version_check
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors

from gliofed.fed.engines.nvflare.denials import Refuser, log_denials
from gliofed.io.process import end_with_starter

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
        one if type(one).__name__ in ANSWERED else Refuser(one.get_topics())
        for one in ClientRequestProcessors.request_processors
    ]


def main() -> int:
    """Run until stopped; the arguments are those of FLARE's client."""
    end_with_starter()
    version_check()
    answer_jobs_only()
    log_denials()
    arguments = client_train.parse_arguments()
    status: int = MainProcessMonitor.run(
        main_func=client_train.main, run_dir=arguments.workspace, args=arguments
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
