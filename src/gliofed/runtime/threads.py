"""Work on several items side by side, in threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gliofed.runtime.processes import cores

FirstT = TypeVar("FirstT")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
SecondT = TypeVar("SecondT")


def side_by_side(work: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
    """`work` of each item, in their order, one thread a core; for native code that does not hold
    Python's lock (NumPy, SciPy, gzip, writing files).

    Raises what `work` raised for the first such item; the others have ended by then.
    """
    with ThreadPoolExecutor(cores()) as threads:
        return list(threads.map(work, items))


def both(first: Callable[[], FirstT], second: Callable[[], SecondT]) -> tuple[FirstT, SecondT]:
    """The results of two calls, side by side. Raises what the first raised, else the second, when
    both have ended.
    """
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(second)
        return first(), other.result()
