"""Figures for print, drawn in a process of their own while the tables and the page are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gliofed.errors import GliofedError
from gliofed.reporting.plots.style import PrintFigures, print_figures
from gliofed.reporting.study.content import ScoredPredictions
from gliofed.reporting.study.report_context import (
    draw_for_print,
    write_drawn_figures,
    write_figures,
)
from gliofed.runtime.processes import cores
from gliofed.runtime.progress import Progress
from gliofed.runtime.workers import ProcessCrash, Work, WorkerPool

MANY: Final = 500
"""From so many results on, a process takes less time to start than the figures to draw."""
_Pool = WorkerPool[ScoredPredictions, PrintFigures]
WriteFigures = Callable[[ScoredPredictions, Path], None]


@contextmanager
def figures_beside(results: int) -> Iterator[WriteFigures]:
    """What takes the place of `write_figures` in the block, with the same files at its end.

    The process starts at once, so that its imports are done when the figures are to be drawn. With
    few results, one core or no memory for a process, it is `write_figures` itself.
    """
    with WorkerPool(_set_up, 1, 1) as pool:
        if results < MANY or cores() < 2 or not _started(pool):
            yield write_figures
            return
        drawn: list[tuple[Path, Future[PrintFigures]]] = []
        with ThreadPoolExecutor(1) as beside:
            yield lambda scored, folder: drawn.append((folder, beside.submit(_draw, pool, scored)))
        for folder, figures in drawn:
            write_drawn_figures(figures.result(), folder)


def _started(pool: _Pool) -> bool:
    try:
        pool.start()
    except GliofedError:
        return False
    return True


def _draw(pool: _Pool, scored: ScoredPredictions) -> PrintFigures:
    ((_, outcome),) = pool.run([scored])
    return draw_for_print(scored) if isinstance(outcome, ProcessCrash) else outcome


def _set_up() -> Work[ScoredPredictions, PrintFigures]:
    print_figures(())  # imports what draws
    return _work


def _work(scored: ScoredPredictions, progress: Progress) -> PrintFigures:
    return draw_for_print(scored)
