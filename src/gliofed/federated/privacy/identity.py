"""Who announces a key: the part of a site's identity that secret sums need."""

from __future__ import annotations

from typing import Final, Protocol

from gliofed.errors import UpdateError


class Identity(Protocol):
    """Signs the keys of a site, and checks those of the others."""

    def sign(self, data: bytes) -> tuple[str, str]:
        """Signature (hexadecimal) and certificate (PEM)."""
        ...

    def verify(self, site: str, data: bytes, signed: tuple[str, str]) -> None:
        """Raise UpdateError where `data` is not signed by `site`. signed: as of `sign`."""
        ...


class Unsigned:
    """Sites of one process, run by one person: nothing is signed."""

    def sign(self, data: bytes) -> tuple[str, str]:
        """As of `Identity`: both are empty."""
        return "", ""

    def verify(self, site: str, data: bytes, signed: tuple[str, str]) -> None:
        """As of `Identity`: it must not be signed."""
        if signed != ("", ""):
            raise UpdateError(f"the keys of site {site} are signed, and this site has no kit")


UNSIGNED: Final = Unsigned()
