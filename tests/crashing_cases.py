"""Cases whose preparation crashes its process, as a fault in a native library would."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gliofed.preprocessing import workers

_VARIABLE = "CASES_THAT_CRASH"
_set_up = workers._set_up


def set_up_with_crashes(request: workers.PreparationRequest) -> Callable[[Any, Any], Any]:
    """As the real one, but for the cases named in the environment."""
    prepare = _set_up(request)

    def crash_or_prepare(job: Any, progress: Any) -> Any:
        if job.case.id in os.environ[_VARIABLE].split():
            os.kill(os.getpid(), signal.SIGSEGV)
        return prepare(job, progress)

    return crash_or_prepare


@contextmanager
def crashing(*cases: str) -> Iterator[None]:
    """Within the block, a process that prepares one of these cases is gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_VARIABLE, " ".join(cases))
        patch.setattr(workers, "_set_up", set_up_with_crashes)
        yield
