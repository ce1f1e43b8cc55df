"""Keeps what leaves the site, and has the training of the one named south fail at a case."""

import os
import shutil
from pathlib import Path


def change(site: type) -> None:
    """Copies of each answer go to GLIOFED_TEST_KEPT."""
    honest, train = site.answer, site._train
    kept = Path(os.environ["GLIOFED_TEST_KEPT"])

    def answer(self, asked: Path, answer: Path) -> None:
        honest(self, asked, answer)
        kept.mkdir(exist_ok=True)
        shutil.copy(answer, kept / f"{len(list(kept.iterdir())):03d}.safetensors")

    def failing(self, task):
        if self.name == "south" and task.round == 1:
            case = self._cases[0].case
            scans = ", ".join(map(str, case.images.values()))
            raise OSError(
                5, f"Input/output error reading {case} of {os.environ['PATIENT_ON_TABLE']}", scans
            )
        return train(self, task)

    site.answer, site._train = answer, failing
