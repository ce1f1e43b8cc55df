"""Sites that have withdrawn from a run, as the server has recorded them.

    <folder of the run>/withdrawn.json     their names, sorted; no file where no site has

The record is the server's alone. A lead only orders a change, so that every copy of the lead's kit
finds the same sites withdrawn. Each change is a line of the server's audit log.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

from gliofed.errors import CheckpointError
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.hash_chain import Event, check_name
from gliofed.runtime.files import write_text

Change = Literal["withdraw", "readmit"]
RECORD: Final = "withdrawn.json"
_EVENTS: Final[dict[Change, Event]] = {"withdraw": "site-withdrawn", "readmit": "site-readmitted"}


def read_withdrawn(folder: Path) -> tuple[str, ...]:
    """The sites that have withdrawn from the run in `folder`.

    Raises CheckpointError where the record is damaged: which sites are left out is then unknown.
    """
    path = folder / RECORD
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _damaged(path, "expected a list of names")
    return tuple(names)


def record_change(folder: Path, site: str, change: Change, log: AuditLog) -> tuple[str, ...]:
    """Record that `site` withdraws from the run in `folder`, or takes part again.

    Returns the sites that are withdrawn then. A change that was made before is not logged again.
    The line in `log` is written first: a change that takes effect is always in it. Raises
    AuditError for a malformed name, CheckpointError as `read_withdrawn`, UnwritableError.
    """
    check_name(site)
    before = read_withdrawn(folder)
    changed = {*before, site} if change == "withdraw" else {*before} - {site}
    after = tuple(sorted(changed))
    if after != before:
        log.write(_EVENTS[change], site=site, run=folder.name)
        write_text(folder / RECORD, json.dumps(after))
    return after


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: damaged ({why}); delete it, then give gliofed withdraw once more for each site "
        "that the server's audit log names as site-withdrawn"
    )
