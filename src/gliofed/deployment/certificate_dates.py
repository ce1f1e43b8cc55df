"""Warnings before a certificate ends: 30 and 7 days before, and after it has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

WARNING_DAYS: Final = (7, 30)
_EVERY_SECONDS: Final = 60.0


def certificate_warning(name: str, end: datetime, now: datetime) -> str:
    """The warning for the certificate of `name`, or "" where it is valid for over 30 days."""
    left = (end - now).total_seconds() / 86400
    cure = f"the lead renews it: gliofed kit renew {name}"
    if left <= 0:
        return f"the certificate of {name} ended on {end:%Y-%m-%d %H:%M} UTC; {cure}"
    for days in WARNING_DAYS:
        if left <= days:
            return (
                f"the certificate of {name} ends within {days} days, on {end:%Y-%m-%d %H:%M} UTC; "
                f"{cure}"
            )
    return ""


def certificate_end(path: Path) -> datetime:
    """The end of the first certificate in a PEM file. Raises OSError, ValueError."""
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc


@dataclass
class CertificateWatch:
    """Reports the warning for a kit's certificate whenever it changes, while a process runs.

    path: of the certificate, which a renewal replaces.
    """

    name: str
    path: Path
    report: Callable[[str], None]
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    _next: float = 0.0
    _reported: str = ""

    def tick(self) -> None:
        """Read the certificate, at most once a minute."""
        now = self.clock()
        if now.timestamp() < self._next:
            return
        self._next = now.timestamp() + _EVERY_SECONDS
        try:
            text = certificate_warning(self.name, certificate_end(self.path), now)
        except (OSError, ValueError) as error:
            text = f"{self.path}: cannot be read ({error})"
        if text and text != self._reported:
            self.report(text)
        self._reported = text
