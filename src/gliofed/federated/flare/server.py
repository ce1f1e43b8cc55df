"""The server's process: FLARE's server with the command of gliofed.

It logs what it denies, and ends with its starter.
"""

from __future__ import annotations

import sys

from nvflare.private.fed.app.server import server_train
from nvflare.private.fed.server.server_cmd_modules import ServerCommandModules

from gliofed.federated.flare.program import run_program
from gliofed.federated.flare.withdrawal_command import WithdrawalCommand

if __name__ == "__main__":
    ServerCommandModules.register_cmd_module(WithdrawalCommand())
    sys.exit(run_program(server_train))
