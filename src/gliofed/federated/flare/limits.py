"""Bounds on what a process of FLARE receives over its connection, written into each kit.

FLARE's driver accepts frames of 2 GiB, and unpacks compressed ones, before it knows who sends. gRPC
applies the bounds here to a frame as it arrives and as it is unpacked, and refuses compressed
streams altogether: FLARE never sends any. Larger messages are cut by FLARE into frames of 1 MiB and
joined by the receiver, up to a bound of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from gliofed.runtime.files import write_text

CHUNK: Final = 2**24
"""Bytes of one chunk of a file that is transferred."""
LARGEST_FRAME: Final = 2**22
"""Bytes of one frame."""
LARGEST_MESSAGE: Final = CHUNK + 2**22
"""Bytes of one message of several frames: a chunk of a file, and what FLARE adds."""
_IDENTITY: Final = 1
"""gRPC's set of compression algorithms that has none but the identity."""
GRPC_OPTIONS: Final = (
    ("grpc.max_send_message_length", LARGEST_FRAME),
    ("grpc.max_receive_message_length", LARGEST_FRAME),
    ("grpc.compression_enabled_algorithms_bitset", _IDENTITY),
)
_FILE: Final = "comm_config.json"


def connection_rules() -> dict[str, Any]:
    """`comm_config.json` of FLARE."""
    return {
        "grpc": {"options": [list(option) for option in GRPC_OPTIONS]},
        "streaming_max_blob_size": LARGEST_MESSAGE,
    }


def write_limits(kit: Path) -> None:
    """Write the bounds into the kit of a server or site, for its process and those of its jobs.

    FLARE reads the first file of this name that it finds from the kit's folder downwards, so a job
    cannot replace it.
    """
    write_text(kit / _FILE, json.dumps(connection_rules(), indent=2) + "\n")
