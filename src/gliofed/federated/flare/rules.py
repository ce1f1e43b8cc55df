"""Rights and resources of FLARE at sites and on the server, written into each kit's `local/`.

FLARE's role `lead` is the only role in use. It may submit jobs, abort its own, list them, list the
connected sites, and send commands to a running job. It may not browse a workspace, read a log,
submit code, change a site, or shut a process down. Other roles have no rights. Nor has a
certificate without a role, such as that of a site.
"""

from __future__ import annotations

from typing import Any, Final

from gliofed.federated.flare.log_lines import CLIENT_LOGGER

ROLE: Final = "lead"
CONTROLLER: Final = "gliofed.deployment.server_controller.ServerController"
EXECUTOR: Final = "gliofed.deployment.client_executor.ClientExecutor"

HEARTBEAT_TIMEOUT_S: Final = 60
"""Seconds without a heartbeat (one each 10 s) after which a site counts as disconnected."""

_DENIED: Final = (
    "manage_job",
    "operate",
    "view",
    "shell_commands",
    "download_job",
    "byoc",
    "clone_job",
    "get_job_log",
    "server-predeployed-flwr",
)
_AT_SERVER: Final = {
    "submit_job": "any",
    "list_jobs": "any",
    "get_job_meta": "any",
    "check_status": "any",
    "app_command": "n:submitter",
    "abort_job": "n:submitter",
    "abort": "n:submitter",
}
_AT_SITE: Final = {
    "submit_job": "any",  # a site checks again whether the signer of a job may deploy it
    "check_status": "any",
    "abort_job": "n:submitter",
    "abort": "n:submitter",
}


def rights(server: bool) -> dict[str, Any]:
    """`authorization.json`. In FLARE, a single right overrides the group it belongs to."""
    allowed = _AT_SERVER if server else _AT_SITE
    return {
        "format_version": "1.0",
        "permissions": {ROLE: {**dict.fromkeys(_DENIED, "none"), **allowed}},
    }


def server_resources() -> dict[str, Any]:
    """`resources.json` of the server, without the folders of its state (`process.place_server`)."""
    return {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [CONTROLLER],
        "servers": [
            {
                "admin_storage": "transfer",
                "max_num_clients": 1000,
                "heart_beat_timeout": HEARTBEAT_TIMEOUT_S,
                "admin_timeout": 10.0,
            }
        ],
        "snapshot_persistor": {
            "path": "nvflare.app_common.state_persistors.storage_state_persistor"
            ".StorageStatePersistor",
            "args": {
                "uri_root": "/",
                "storage": {"path": _STORAGE, "args": {"root_dir": "", "uri_root": "/"}},
            },
        },
        "components": [
            {
                "id": "job_scheduler",
                "path": "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler",
                "args": {
                    "max_jobs": 1,
                    "min_schedule_interval": 2.0,
                    "max_schedule_interval": 20.0,
                },
            },
            {
                "id": "job_manager",
                "path": "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
                "args": {"uri_root": "", "job_store_id": "job_store"},
            },
            {"id": "job_store", "path": _STORAGE},
            {
                "id": "process_launcher",
                "path": "nvflare.app_common.job_launcher.server_process_launcher"
                ".ServerProcessJobLauncher",
                "args": {},
            },
        ],
    }


def site_resources() -> dict[str, Any]:
    """`resources.json` of a site: no log leaves it, and a job never waits for a free GPU."""
    return {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [EXECUTOR],
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": [
            {
                "id": "resource_manager",
                "path": "nvflare.app_common.resource_managers.passthrough_resource_manager"
                ".PassthroughResourceManager",
                "args": {},
            },
            {
                "id": "resource_consumer",
                "path": "nvflare.app_common.resource_consumers.passthrough_resource_consumer"
                ".PassthroughResourceConsumer",
                "args": {},
            },
            {
                "id": "process_launcher",
                "path": "nvflare.app_common.job_launcher.client_process_launcher"
                ".ClientProcessJobLauncher",
                "args": {},
            },
            {
                # Removes a log streamer that a job declares.
                "id": "site_log_streamer",
                "path": "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer",
                "args": {"log_file_name": "log.txt"},
            },
        ],
    }


def logging_rules() -> dict[str, Any]:
    """`log_config.json`: one file in the kit, 10 MB and 5 older ones; to the terminal warnings, and
    whether a site is connected."""
    line = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": line}},
        "handlers": {
            "terminal": {
                "class": "logging.StreamHandler",
                "level": "WARNING",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            },
            "presence": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            },
            "file": {
                "class": "logging.handlers.RotatingFileHandler",
                "level": "DEBUG",
                "formatter": "line",
                "filename": "log.txt",
                "maxBytes": 10_000_000,
                "backupCount": 5,
            },
        },
        "loggers": {
            "root": {"level": "INFO", "handlers": ["terminal", "file"]},
            CLIENT_LOGGER: {"level": "INFO", "handlers": ["presence"]},
        },
    }


_STORAGE: Final = "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"
