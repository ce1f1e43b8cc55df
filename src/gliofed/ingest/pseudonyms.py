"""The site's key, its pseudonyms, and the table that links them to patients; all stay there.

A pseudonym is HMAC-SHA-256 (RFC 2104) of issuer and patient id under the site's key, its first
50 bits in base32 (RFC 4648). Two patients with one pseudonym are refused, never merged: by the
birthday bound less than 1 in 2000 for a million patients.
"""

from __future__ import annotations

import base64
import csv
import hmac
import io
import secrets
import stat
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

from gliofed.errors import DataError
from gliofed.runtime.files import write_private
from gliofed.tables import read_table

KEY_BYTES: Final = 32
LETTERS: Final = 10
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class PseudonymKey:
    """The site's secret. With it, the pseudonym of a known patient id can be computed."""

    secret: bytes

    def __repr__(self) -> str:
        return "PseudonymKey(...)"

    def patient(self, issuer: str, patient: str) -> str:
        """The pseudonym of a patient: ten of a to z and 2 to 7."""
        return self._name("patient", issuer, patient)

    def series(self, uid: str) -> str:
        """A name of a series from which its UID cannot be derived."""
        return self._name("series", uid)

    def _name(self, *parts: str) -> str:
        # Lengths before the texts, so that no two lists of parts look alike.
        data = b"".join(len(b).to_bytes(4, "big") + b for b in (p.encode() for p in parts))
        digest = hmac.digest(self.secret, data, "sha256")
        return base64.b32encode(digest).decode().lower()[:LETTERS]


@dataclass(frozen=True)
class PseudonymLink:
    """One row of links.tsv, the only link from a pseudonym to its patient."""

    pseudonym: str
    session: str
    sequence: str
    issuer: str
    patient_id: str
    study_uid: str
    series_uid: str


def open_private_folder(folder: Path) -> None:
    """Create the private folder for its owner alone. Raises DataError where others have access."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & _OTHERS:
        raise DataError(
            f"{folder}: others have access to the private folder; run: chmod 700 {folder}"
        )


def read_key(path: Path) -> PseudonymKey:
    """Read the key, hexadecimal digits; a new key of 32 random bytes is written where none exists.

    Raises DataError: others have access to the file, or it holds no key.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, secrets.token_hex(KEY_BYTES) + "\n")
    if path.stat().st_mode & _OTHERS:
        raise DataError(f"{path}: others have access to the key; run: chmod 600 {path}")
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (ValueError, UnicodeDecodeError):
        secret = b""
    if len(secret) < KEY_BYTES:
        raise DataError(
            f"{path}: expected at least {KEY_BYTES} random bytes as hexadecimal digits; restore "
            "the site's key from its backup: with another key every pseudonym changes"
        )
    return PseudonymKey(secret)


def read_links(path: Path) -> tuple[PseudonymLink, ...]:
    """Every row; empty where there is no file. Raises DataError: other columns."""
    if not path.exists():
        return ()
    names = tuple(f.name for f in fields(PseudonymLink))
    table = read_table(path, delimiter="\t", utf8_only=True)
    if table.columns != names:
        raise DataError(f"{path}: expected the columns {', '.join(names)}; restore the file")
    return tuple(PseudonymLink(*(row.cells[n] for n in names)) for row in table.rows)


def replace_links(path: Path, pseudonym: str, rows: Iterable[PseudonymLink]) -> None:
    """Replace the rows of one patient, who keeps the pseudonym. Raises DataError as `read_links`
    and `check_links`."""
    old_rows = read_links(path)
    new_rows = tuple(rows)
    check_links(path, (*old_rows, *new_rows))
    other_rows = [r for r in old_rows if r.pseudonym != pseudonym]
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerows(
        [[f.name for f in fields(PseudonymLink)], *map(astuple, (*other_rows, *new_rows))]
    )
    write_private(path, text.getvalue())


def check_links(path: Path, rows: Iterable[PseudonymLink]) -> None:
    """Raises DataError where two patients have one pseudonym, or a patient has two."""
    owner: dict[str, tuple[str, str]] = {}
    named: dict[tuple[str, str], str] = {}
    for row in rows:
        patient = (row.issuer, row.patient_id)
        if owner.setdefault(row.pseudonym, patient) != patient:
            raise DataError(
                f"{path}: two patients would have the pseudonym {row.pseudonym}; nothing was "
                "written; use another key for a new hospital folder (--key), or check whether the "
                "key was changed"
            )
        before = named.setdefault(patient, row.pseudonym)
        if before != row.pseudonym:
            raise DataError(
                f"{path}: the patient of {before} would now be {row.pseudonym}: the key is not the "
                "one that this hospital folder was made with; nothing was written; restore that "
                "key, or name its file with --key"
            )
