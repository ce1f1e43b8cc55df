"""The lead's command to the server, also while no job runs: which sites of a run have withdrawn.

gliofed_withdrawn RUN                        the sites that have
gliofed_withdrawn RUN withdraw|readmit SITE  record a change; the sites that have then
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Final, get_args

from nvflare.fuel.hci.conn import Connection
from nvflare.fuel.hci.proto import MetaStatusValue, make_meta
from nvflare.fuel.hci.reg import CommandModule, CommandModuleSpec, CommandSpec
from nvflare.fuel.hci.server.authz import PreAuthzReturnCode
from nvflare.fuel.hci.server.constants import ConnProps

from gliofed.errors import GliofedError, LinkError
from gliofed.federated.flare.names import WITHDRAWN
from gliofed.federated.flare.rules import ROLE
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.withdrawals import Change, read_withdrawn, record_change

_RUN: Final = re.compile(r"[0-9a-f]{24}")
_USAGE: Final = f"{WITHDRAWN} RUN [withdraw|readmit SITE]"


class WithdrawalCommand(CommandModule):  # type: ignore[misc]  # (FLARE has no types)
    """Reads and changes the record of the run (`gliofed.federated.governance.withdrawals`)."""

    def __init__(self) -> None:
        self._one_change = threading.Lock()

    def get_spec(self) -> CommandModuleSpec:
        """The command, as FLARE registers it."""
        return CommandModuleSpec(
            "gliofed",
            [
                CommandSpec(
                    name=WITHDRAWN,
                    description="sites that have withdrawn from a run",
                    usage=_USAGE,
                    handler_func=self.handle,
                    authz_func=self.authorize,
                )
            ],
        )

    def authorize(self, conn: Connection, args: list[str]) -> PreAuthzReturnCode:
        """Only the role of the lead may use it; FLARE has authenticated the user."""
        if conn.get_prop(ConnProps.USER_ROLE, "") == ROLE:
            return PreAuthzReturnCode.OK
        why = f"only the role {ROLE} may use {WITHDRAWN}"
        conn.append_error(why, meta=make_meta(MetaStatusValue.NOT_AUTHORIZED, why))
        return PreAuthzReturnCode.ERROR

    def handle(self, conn: Connection, args: list[str]) -> None:
        """Reply with the names of the sites, or with an error."""
        try:
            names = self._withdrawn(Path(conn.app_ctx.args.workspace) / "gliofed", args[1:])
        except (GliofedError, OSError) as error:
            conn.append_error(str(error), meta=make_meta(MetaStatusValue.ERROR, str(error)))
            return
        conn.append_dict({WITHDRAWN: list(names)})

    def _withdrawn(self, own: Path, words: list[str]) -> tuple[str, ...]:
        """own: the folder of gliofed in the server's kit."""
        match words:
            case [run] if _RUN.fullmatch(run):
                return read_withdrawn(own / "work" / run)
            case [run, ("withdraw" | "readmit") as word, site] if _RUN.fullmatch(run):
                change: Change = next(c for c in get_args(Change) if c == word)
                log = AuditLog(own / "audit.jsonl", "server")
                with self._one_change:
                    return record_change(own / "work" / run, site, change, log)
        raise LinkError(f"expected {_USAGE}")
