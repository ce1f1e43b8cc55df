"""Frames that are too large or compressed are refused before they take memory, at both ends.

The same at a real server: `test_kits_live.py`.
"""

from __future__ import annotations

import json

import grpc
import pytest
from federation_kits import free_port, make_kits, running, site_of, wait_for
from frames import peak_mib, sender, stream

from gliofed.federated.flare.limits import GRPC_OPTIONS, LARGEST_FRAME, connection_rules

_FIELDS = 16
"""Bytes of a frame besides its data, at most."""


@pytest.mark.parametrize(
    ("size", "gzip", "end"),
    [
        (LARGEST_FRAME - _FIELDS, False, ""),
        (LARGEST_FRAME + 1, False, "RESOURCE_EXHAUSTED"),
        (1, True, "INTERNAL"),
    ],
)
def test_a_receiver_takes_frames_up_to_the_bound_and_none_that_is_compressed(
    size, gzip, end
) -> None:
    port = free_port()
    with (
        sender(None, port, (2, size), gzip),
        grpc.insecure_channel(f"127.0.0.1:{port}", options=GRPC_OPTIONS) as channel,
    ):
        found = stream(channel, iter(()), gzip=False)
    assert found == end


@pytest.mark.slow
@pytest.mark.process
def test_compressed_frames_of_a_server_take_no_memory_at_a_site(tmp_path) -> None:
    plan = make_kits(tmp_path, "north")
    port = plan.server.port
    with (
        sender(tmp_path / "server", port, (6, 100 * 2**20), gzip=True) as bomb,
        running(site_of(tmp_path / "north"), tmp_path / "north.txt") as site,
    ):
        wait_for(lambda: bomb.streams > 0, "the site connects")
        before = peak_mib(site.pid)
        wait_for(lambda: bomb.streams > 1, "the site ends the stream, and connects again")
        assert peak_mib(site.pid) - before < 100
        assert site.poll() is None
    assert json.loads((tmp_path / "north/comm_config.json").read_text()) == connection_rules()
