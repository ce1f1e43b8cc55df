"""The server's process: FLARE's server, which logs what it denies and ends with its starter."""

from __future__ import annotations

import sys

from nvflare.private.fed.app.server import server_train

from gliofed.federated.flare.program import run_program

if __name__ == "__main__":
    sys.exit(run_program(server_train))
