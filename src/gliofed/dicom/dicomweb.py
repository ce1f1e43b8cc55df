"""Series from a DICOMweb server: QIDO-RS and WADO-RS (DICOM PS3.18), MR alone."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from gliofed.dicom.headers import is_uid, quiet
from gliofed.errors import DataError
from gliofed.runtime.progress import Progress

SECONDS: Final = 60
ATTEMPTS: Final = 3
WAIT_MS: Final = 200
MAX_SERIES: Final = 10_000
_STUDY, _SERIES = "0020000D", "0020000E"


@dataclass(frozen=True)
class DicomWebServer:
    """The query to a server, and the connection settings.

    studies: StudyInstanceUIDs. patient: a PatientID, "" for none. secret_file, secret_env: source
    of `user:password` or `Bearer TOKEN`. ca: certificates of the server's authority. plain: allow
    http without TLS to other machines.
    """

    studies: tuple[str, ...] = ()
    patient: str = ""
    secret_file: Path | None = None
    secret_env: str = ""
    ca: Path | None = None
    plain: bool = False


def is_address(source: str) -> bool:
    """Whether a source is a web address."""
    return source.lower().startswith(("http://", "https://"))


def fetch(address: str, pacs: DicomWebServer, folder: Path, progress: Progress) -> int:
    """Write every requested MR instance below `folder`, under hashed names; return their number.

    Raises DataError, without the ids of the query: no study or patient given, an unsafe address or
    secret, a server that is unreachable or responds unexpectedly, nothing found.
    """
    with _reaching(address), _session(address, pacs) as session:
        client = DICOMwebClient(address.rstrip("/"), session=session, timeout=SECONDS)
        client.set_http_retry_params(max_attempts=ATTEMPTS, wait_exponential_multiplier=WAIT_MS)
        pairs = [pair for study in _studies(client, pacs) for pair in _series(client, study)]
        if not pairs:
            raise DataError(
                f"{_plain(address)}: no MR series of the requested studies or patient; check "
                "--study and --patient"
            )
        if len(pairs) > MAX_SERIES:
            raise DataError(
                f"{_plain(address)}: more than {MAX_SERIES} series; name single studies with "
                "--study UID"
            )
        count = 0
        for number, (study, series) in enumerate(pairs, start=1):
            for data in client.iter_series(study, series):
                _keep(data, study, series, folder)
                count += 1
                progress.update(number - 1, len(pairs), f"{count} files")
        return count


def _studies(client: DICOMwebClient, pacs: DicomWebServer) -> list[str]:
    if not all(map(is_uid, pacs.studies)):
        raise DataError("--study: not a UID; expected digits and dots, at most 64")
    if not (pacs.studies or pacs.patient):
        raise DataError(
            "a DICOMweb address needs --study UID or --patient ID; it never reads a full PACS"
        )
    if not pacs.patient:
        return list(dict.fromkeys(pacs.studies))
    if set(pacs.patient) & set("*?\\"):
        raise DataError("--patient: holds a wildcard; give the complete id of one patient")
    rows = client.search_for_studies(search_filters={"PatientID": pacs.patient}, get_remaining=True)
    studies = list(dict.fromkeys(_first(row, _STUDY) for row in rows))
    return [s for s in studies if not pacs.studies or s in pacs.studies]


def _series(client: DICOMwebClient, study: str) -> list[tuple[str, str]]:
    rows = client.search_for_series(study, search_filters={"Modality": "MR"}, get_remaining=True)
    names = dict.fromkeys(_first(row, _SERIES) for row in rows)
    return [(study, name) for name in names]


def _first(row: dict[str, Any], tag: str) -> str:
    uid = str((row.get(tag, {}).get("Value") or [""])[0])
    if not is_uid(uid):
        raise DataError("the server returned an invalid UID of a study or series; see its log")
    return uid


def _keep(data: Dataset, study: str, series: str, folder: Path) -> None:
    """Written in one step, so that an interrupted transfer leaves no file."""
    if (str(data.get("StudyInstanceUID")), str(data.get("SeriesInstanceUID"))) != (study, series):
        raise DataError(
            "the server sent an instance of a series that was not requested; see its log"
        )
    name = hashlib.sha256(str(data.get("SOPInstanceUID")).encode()).hexdigest()[:32]
    subfolder = folder / hashlib.sha256(series.encode()).hexdigest()[:16]
    subfolder.mkdir(exist_ok=True)
    temporary = subfolder / f".{name}.part"
    data.save_as(temporary, enforce_file_format=True)
    temporary.replace(subfolder / f"{name}.dcm")


@contextmanager
def _session(address: str, pacs: DicomWebServer) -> Iterator[requests.Session]:
    """TLS checked against the system's authorities or `ca`; no redirect, no proxy, no netrc."""
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise DataError("the address holds a password; put it into a file: --secret FILE")
    if parts.scheme == "http" and not pacs.plain and not _loopback(parts.hostname or ""):
        raise DataError(
            f"{_plain(address)}: http without TLS would show patients' images to the network; "
            "use https, or --plain where the network is itself safe"
        )
    if pacs.ca is not None and not pacs.ca.is_file():
        raise DataError(f"{pacs.ca}: no such file of certificates; give one with --ca FILE")
    with requests.Session() as session:
        session.trust_env = False
        session.max_redirects = 0
        session.verify = str(pacs.ca) if pacs.ca is not None else True
        _log_in(session, pacs)
        yield session


def _log_in(session: requests.Session, pacs: DicomWebServer) -> None:
    secret = ""
    if pacs.secret_file is not None:
        if pacs.secret_file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise DataError(
                f"{pacs.secret_file}: others may read it; run: chmod 600 {pacs.secret_file}"
            )
        secret = pacs.secret_file.read_text(encoding="utf-8").strip()
    elif pacs.secret_env:
        secret = os.environ.get(pacs.secret_env, "").strip()
    else:
        return
    user, colon, password = secret.partition(":")
    if secret.startswith("Bearer ") and "\n" not in secret:
        session.headers["Authorization"] = secret
    elif colon and "\n" not in secret:
        session.auth = (user, password)
    else:
        raise DataError(
            "the secret of --secret or --secret-env is neither `user:password` nor `Bearer TOKEN`; "
            "write one of them, on one line"
        )


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Errors of the libraries as one line without the URL (it may hold a patient id)."""
    log, null_handler = logging.getLogger("dicomweb_client"), logging.NullHandler()
    log.addHandler(null_handler)  # it would print the server's warnings
    try:
        with quiet():
            yield
    except requests.exceptions.RequestException as error:
        raise DataError(f"{_plain(address)}: {_reason(error)}") from None
    except (InvalidDicomError, ValueError, KeyError, AttributeError, TypeError, EOFError) as error:
        kind = type(error).__name__
        raise DataError(
            f"{_plain(address)}: its response is not DICOMweb ({kind}); check the address"
        ) from None
    finally:
        log.removeHandler(null_handler)


def _reason(error: requests.exceptions.RequestException) -> str:
    kinds = requests.exceptions
    if isinstance(error, kinds.SSLError):
        return "its certificate is not trusted; give its authority: --ca FILE"
    if isinstance(error, kinds.TooManyRedirects):
        return "it sends on to another address; give that one"
    if isinstance(error, kinds.HTTPError) and error.response is not None:
        code = error.response.status_code
        cure = "check --secret" if code in (401, 403) else "check the address and the server's log"
        return f"it returned HTTP status {code}; {cure}"
    return f"cannot be reached ({type(error).__name__}); check the address and network"


def _plain(address: str) -> str:
    """Scheme and host alone."""
    parts = urlsplit(address)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def _loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
