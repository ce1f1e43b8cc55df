"""The server's delivery of a model to the sites of a run: the finished one, or a given one.

    <folder of the run>/delivered.json     id of the model, and the sites that have it

A site that was not connected, or could not keep the model, gets it at the next `gliofed start`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gliofed.errors import CheckpointError, UpdateError
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.messages import new_nonce
from gliofed.federated.model_delivery import ModelRequest, check_receipt, save_model_request
from gliofed.federated.server.exchange import exchange_files, response_file
from gliofed.federated.server.same_sites import EngineFactory
from gliofed.models.folder import model_files
from gliofed.runtime.files import write_text

DELIVERED: Final = "delivered.json"


def deliver_model(
    make_engine: EngineFactory, model: Path, sites: Sequence[str], log: AuditLog
) -> Mapping[str, str]:
    """Send the folder `model` of a run to those of `sites` that do not have it.

    Returns each site that does not have it then, with the reason. The run is complete all the same.
    Raises ModelError where the folder is damaged, CheckpointError where `delivered.json` is.
    """
    run = model.parent
    id_, files = model_files(model)
    have = _delivered(run, id_)
    awaited = [site for site in sites if site not in have]
    if not awaited:
        return {}
    request = ModelRequest(run.name, new_nonce(), id_, files)
    failures: dict[str, str] = {}
    with exchange_files(
        make_engine(awaited), run, lambda path: save_model_request(path, request)
    ) as replies:
        for reply in replies:
            try:
                check_receipt(reply.site, request, response_file(reply))
            except UpdateError as error:
                failures[reply.site] = str(error)
                continue
            have = [*have, reply.site]
            write_text(run / DELIVERED, json.dumps({"model": id_, "sites": sorted(have)}))
            log.write("model-sent", run=run.name, site=reply.site, model=id_)
    return failures


def _delivered(run: Path, model: str) -> list[str]:
    """The sites that have `model`."""
    path = run / DELIVERED
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return [str(site) for site in record["sites"]] if record["model"] == model else []
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); delete this file: every site gets the model once more"
        ) from None
