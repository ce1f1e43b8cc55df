"""Files with which a hospital's IT runs a kit as a service: a systemd unit, a compose file.

They contain the folder `/srv/gliofed`; a comment in each file shows how to change it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gliofed.deployment.kit import KitFacts
from gliofed.runtime.files import write_text
from gliofed.runtime.templates import render_text

BASE: Final = "/srv/gliofed"
"""Folder in the files; the kit, and at a site the data and the store, are below it."""


def write_services(folder: Path, facts: KitFacts) -> None:
    """Write the unit and the compose file of a server's or a site's kit into `folder`."""
    for name, template in (
        (f"gliofed-{facts.role}.service", "deployment/unit.service.j2"),
        ("compose.yaml", "deployment/compose.yaml.j2"),
    ):
        text = render_text(
            template,
            role=facts.role,
            name=facts.name,
            federation=facts.federation,
            port=facts.port,
            host=facts.host,
            base=BASE,
        )
        write_text(folder / name, text)
