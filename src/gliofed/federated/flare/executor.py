"""The site's half on FLARE: a task is fetched, answered, and its answer offered to the server."""

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
from gliofed.federated.flare.names import BYTES, FAILURE, HEAD, REF, SOURCE, TASK
from gliofed.federated.flare.transfer import FileOffer, download
from gliofed.runtime.processes import end_with_starter

LARGEST_TASK: Final = 2**32
"""Bytes that a site fetches at most for one task."""
_KEPT_SECONDS: Final = 3600.0


class FlareExecutor(Executor):  # type: ignore[misc]  # (FLARE has no types)
    """A FLARE executor that answers the one kind of task there is."""

    def __init__(self) -> None:
        super().__init__()
        end_with_starter()
        self._offer: FileOffer | None = None

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """A reply that says where the answer can be fetched, or how it failed; never a text."""
        if task_name != TASK:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        if self._offer is not None:  # the server has it, or no longer waits for it
            self._offer.withdraw()
            self._offer = None
        kit = Path(fl_ctx.get_engine().get_workspace().get_root_dir())
        reply = Shareable()
        try:
            folder = self.prepare(kit)
            asked, answer = folder / "asked.safetensors", folder / "answer.safetensors"
            self._fetch(shareable, fl_ctx, asked, abort_signal)
            self.answer(asked, answer)
            asked.unlink()
            reply[HEAD] = list(self.exchange(shareable.get(HEAD)))
            offer = FileOffer(fl_ctx.get_engine().get_cell(), answer, 1, _KEPT_SECONDS)
        except Exception as error:  # whatever it is, the server hears that there is no answer
            reply[FAILURE] = dict(self.failure(error, kit))
            return reply
        self._offer = offer
        reply[SOURCE], reply[REF], reply[BYTES] = offer.source, offer.ref, offer.size
        return reply

    @staticmethod
    def _fetch(data: Shareable, fl_ctx: FLContext, to: Path, abort_signal: Signal) -> None:
        source, ref, size = (data.get(k) for k in (SOURCE, REF, BYTES))
        if not isinstance(source, str) or not isinstance(ref, str) or type(size) is not int:
            raise TransferError("the task does not say where it can be fetched")
        if not 0 < size <= LARGEST_TASK:
            raise TransferError(f"the task has {size} bytes; at most {LARGEST_TASK} are fetched")
        cell = fl_ctx.get_engine().get_cell()
        download(cell, source, ref, to, size, lambda: abort_signal.triggered)

    @abstractmethod
    def prepare(self, kit: Path) -> Path:
        """The folder where tasks and answers may be written. kit: the site's start-up kit."""

    @abstractmethod
    def answer(self, asked: Path, answer: Path) -> None:
        """Do the task in the file `asked`; write the file `answer`."""

    @abstractmethod
    def exchange(self, head: object) -> tuple[int, str]:
        """Take note of what the server told of its audit log's head; the site's own."""

    @abstractmethod
    def failure(self, error: Exception, kit: Path) -> Mapping[str, str]:
        """What the server is told of an error."""
