"""The server's process: FLARE's server, which logs what it denies and ends with its starter."""

from __future__ import annotations

import sys

from nvflare.fuel.f3.mpm import MainProcessMonitor
from nvflare.private.fed.app.server import server_train
from nvflare.private.fed.app.utils import version_check

from gliofed.fed.engines.nvflare.denials import log_denials
from gliofed.io.process import end_with_starter


def main() -> int:
    """Run until stopped; the arguments are those of FLARE's server."""
    end_with_starter()
    version_check()
    log_denials()
    arguments = server_train.parse_arguments()
    status: int = MainProcessMonitor.run(
        main_func=server_train.main, run_dir=arguments.workspace, args=arguments
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
