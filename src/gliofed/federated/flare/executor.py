"""The site's executor on FLARE: it downloads a request and offers its response to the server."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from gliofed.errors import TransferError
from gliofed.federated.flare.names import BYTES, FAILURE, HEAD, NOTE, REF, SOURCE, TASK
from gliofed.federated.flare.transfer import FileOffer, OfferedFile, download
from gliofed.runtime.processes import end_with_starter

REQUEST_FILE: Final = "request.safetensors"
"""Name of a request at a site, while it arrives and is answered."""
RESPONSE_FILE: Final = "response.safetensors"
LARGEST_REQUEST: Final = 2**32
"""Bytes of the largest request that a site downloads."""
_OFFER_SECONDS: Final = 3600.0


class FlareExecutor(Executor):  # type: ignore[misc]  # (FLARE has no types)
    """A FLARE executor for the one kind of FLARE task that gliofed has."""

    def __init__(self) -> None:
        super().__init__()
        end_with_starter()
        self._offer: FileOffer | None = None

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """A reply with the source of the response, or with the failure; never with free text."""
        if task_name != TASK:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        if self._offer is not None:  # the server has the file, or no longer expects it
            self._offer.withdraw()
            self._offer = None
        kit = Path(fl_ctx.get_engine().get_workspace().get_root_dir())
        reply = Shareable()
        try:
            folder = self.prepare(kit)
            request = folder / REQUEST_FILE
            response = folder / RESPONSE_FILE
            if not self.respond_to_note(shareable.get(NOTE), response):
                self._download(shareable, fl_ctx, request, abort_signal)
                self.respond(request, response)
                request.unlink()
            reply[HEAD] = list(self.exchange_heads(shareable.get(HEAD)))
            offer = FileOffer(fl_ctx.get_engine().get_cell(), response, 1, _OFFER_SECONDS)
        except Exception as error:  # of any type: the server receives a failure report
            reply[FAILURE] = dict(self.failure(error, kit))
            return reply
        self._offer = offer
        reply[SOURCE], reply[REF], reply[BYTES] = offer.source, offer.ref, offer.size
        return reply

    @staticmethod
    def _download(data: Shareable, fl_ctx: FLContext, to: Path, abort_signal: Signal) -> None:
        source, ref, size = (data.get(k) for k in (SOURCE, REF, BYTES))
        if not isinstance(source, str) or not isinstance(ref, str) or type(size) is not int:
            raise TransferError("the request has no source for its download")
        if not 0 < size <= LARGEST_REQUEST:
            raise TransferError(
                f"the request has {size} bytes; at most {LARGEST_REQUEST} are downloaded"
            )
        cell = fl_ctx.get_engine().get_cell()
        download(cell, OfferedFile(source, ref, size), to, lambda: abort_signal.triggered)

    @abstractmethod
    def prepare(self, kit: Path) -> Path:
        """The folder where requests and responses may be written. kit: the site's start-up kit."""

    @abstractmethod
    def respond(self, request: Path, response: Path) -> None:
        """Read the file `request`; write the file `response`."""

    @abstractmethod
    def respond_to_note(self, note: object, response: Path) -> bool:
        """Write the file `response` where the request's note is all that is needed; else False."""

    @abstractmethod
    def exchange_heads(self, head: object) -> tuple[int, str]:
        """Record the head of the server's audit log, as it was sent; returns the site's own."""

    @abstractmethod
    def failure(self, error: Exception, kit: Path) -> Mapping[str, str]:
        """The report of an error that is sent to the server."""
