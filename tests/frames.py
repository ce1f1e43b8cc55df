"""Streams of FLARE's gRPC service that are not FLARE's: compressed frames, and frames too large."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
from nvflare.fuel.f3.drivers.grpc.streamer_pb2 import Frame
from nvflare.fuel.f3.drivers.grpc.streamer_pb2_grpc import (
    StreamerServicer,
    StreamerStub,
    add_StreamerServicer_to_server,
)

NO_LIMIT = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


def zeros(count: int, size: int) -> Iterator[Frame]:
    """Frames of `size` zeros, which gzip makes a thousand times smaller."""
    yield from (Frame(seq=n + 1, data=bytes(size)) for n in range(count))


def stream(channel: grpc.Channel, frames: Iterator[Frame], gzip: bool) -> str:
    """Send the frames; the code with which the stream ended, "" where both sides took all."""
    compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
    try:
        for _ in StreamerStub(channel).Stream(frames, compression=compression, timeout=60):
            pass
    except grpc.RpcError as error:
        return error.code().name
    return ""


def site_channel(kit: Path, port: int) -> grpc.Channel:
    """A channel with a site's certificate and no other login."""
    own = kit / "startup"
    credentials = grpc.ssl_channel_credentials(
        (own / "rootCA.pem").read_bytes(),
        (own / "client.key").read_bytes(),
        (own / "client.crt").read_bytes(),
    )
    return grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=NO_LIMIT)


class _Sender(StreamerServicer):
    """Sends the same frames to each who connects."""

    def __init__(self, count: int, size: int) -> None:
        self._frames, self.ends, self.streams = (count, size), [], 0

    def Stream(self, requests: object, context: grpc.ServicerContext) -> Iterator[Frame]:
        self.streams += 1
        context.add_callback(lambda: self.ends.append(context.code()))
        yield from zeros(*self._frames)


@contextmanager
def sender(kit: Path | None, port: int, frames: tuple[int, int], gzip: bool) -> Iterator[_Sender]:
    """A server that sends frames (count, bytes of each). kit: of the server; None: without TLS."""
    service = _Sender(*frames)
    compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
    pool = futures.ThreadPoolExecutor(4)
    server = grpc.server(pool, options=NO_LIMIT, compression=compression)
    add_StreamerServicer_to_server(service, server)
    address = f"127.0.0.1:{port}"
    if kit is None:
        server.add_insecure_port(address)
    else:
        own = kit / "startup"
        pair = (own / "server.key").read_bytes(), (own / "server.crt").read_bytes()
        root = (own / "rootCA.pem").read_bytes()
        server.add_secure_port(address, grpc.ssl_server_credentials([pair], root, True))
    server.start()
    try:
        yield service
    finally:
        server.stop(None)
        pool.shutdown(cancel_futures=True)


def peak_mib(pid: int) -> float:
    """The largest memory that a process has had."""
    (line,) = (
        s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024
