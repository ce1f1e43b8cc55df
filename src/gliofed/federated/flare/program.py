"""A program of FLARE, server or client, as a process of gliofed."""

from __future__ import annotations

from types import ModuleType

from nvflare.fuel.f3.mpm import MainProcessMonitor
from nvflare.private.fed.app.utils import version_check

from gliofed.federated.flare.denials import log_denials
from gliofed.runtime.processes import end_with_starter


def run_program(program: ModuleType) -> int:
    """Run it until stopped and return its exit status. Denied requests are logged.

    The process ends with the process that started it.
    """
    end_with_starter()
    version_check()
    log_denials()
    arguments = program.parse_arguments()
    status: int = MainProcessMonitor.run(
        main_func=program.main, run_dir=arguments.workspace, args=arguments
    )
    return status
