"""Keeps what leaves the site, and has the training of the one named south fail at a case."""

import os
import shutil
from pathlib import Path


def change(site: type) -> None:
    """Copies of each response go to GLIOFED_TEST_KEPT."""
    train = site._train
    kept = Path(os.environ["GLIOFED_TEST_KEPT"])

    def keeping(honest):
        def respond(self, request, response_file: Path) -> None:
            honest(self, request, response_file)
            kept.mkdir(exist_ok=True)
            shutil.copy(response_file, kept / f"{len(list(kept.iterdir())):03d}.safetensors")

        return respond

    def failing(self, request):
        if self.name == "south" and request.round == 1:
            case = self._cases[0].case
            scans = ", ".join(map(str, case.images.values()))
            raise OSError(
                5, f"Input/output error reading {case} of {os.environ['PATIENT_ON_TABLE']}", scans
            )
        return train(self, request)

    site.respond, site._train = keeping(site.respond), failing
    site.respond_without_case = keeping(site.respond_without_case)
