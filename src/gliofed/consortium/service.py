"""Files with which a hospital's IT runs a kit as a service: a systemd unit, a compose file.

They name `/srv/gliofed`, which whoever installs them may change; each file says where.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from gliofed.consortium.kit import KitFacts
from gliofed.io.files import write_text

BASE: Final = "/srv/gliofed"
"""Folder that the files name: the kit, and at a site the data and the store, lie below it."""


def write_services(folder: Path, facts: KitFacts) -> None:
    """Write the unit and the compose file of a server's or a site's kit into `folder`."""
    rooms = Environment(
        loader=PackageLoader("gliofed", "consortium"),
        autoescape=False,  # noqa: S701 (no HTML)
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name, template in (
        (f"gliofed-{facts.role}.service", "unit.service.j2"),
        ("compose.yaml", "compose.yaml.j2"),
    ):
        text = rooms.get_template(template).render(
            role=facts.role, name=facts.name, federation=facts.federation, port=facts.port,
            host=facts.host, base=BASE,
        )  # fmt: skip
        write_text(folder / name, text)
