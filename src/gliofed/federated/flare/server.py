"""The server's process: FLARE's server with the command of gliofed.

It logs what it denies, and ends with its starter. A site that cannot run a job ends it for no other
(`site_outcomes`). Revoked certificates are refused (`revocation`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from nvflare.private.fed.app.server import server_train
from nvflare.private.fed.server.server_cmd_modules import ServerCommandModules

from gliofed.federated.flare.program import run_program
from gliofed.federated.flare.revocation import refuse_revoked
from gliofed.federated.flare.site_outcomes import describe_sites, keep_jobs_running
from gliofed.federated.flare.withdrawal_command import WithdrawalCommand

if __name__ == "__main__":
    keep_jobs_running(Path.cwd())  # the kit
    describe_sites()
    refuse_revoked(Path.cwd())
    ServerCommandModules.register_cmd_module(WithdrawalCommand())
    sys.exit(run_program(server_train))
