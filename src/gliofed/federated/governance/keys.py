"""Keys of approvers: Ed25519 (RFC 8032), by the library `cryptography`.

The private key stays with its owner, in a PEM file of mode 0600. The public key, 64 hexadecimal
digits, is listed in `approvers` of a site's policy.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gliofed.errors import ApprovalError
from gliofed.runtime.files import write_private, write_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PUBLIC: Final = re.compile(r"[0-9a-f]{64}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")


def new_approver_key(path: Path) -> str:
    """Write a private key to `path` and its public key to `path`.pub; returns the public key.

    Raises ApprovalError where either file exists: a key is never overwritten.
    """
    with _extra():
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public_file = path.with_name(f"{path.name}.pub")
    for file in (path, public_file):
        if file.exists():
            raise ApprovalError(f"{file}: exists already, and a key is never overwritten")
    write_private(path, pem.decode())
    write_text(public_file, f"{public}\n")
    return public


def read_public(path: Path) -> str:
    """The public key (64 hexadecimal digits) of a .pub file or of a private key's file.

    Raises ApprovalError.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ApprovalError(f"{path}: cannot be read as a key") from None
    if _PUBLIC.fullmatch(text):
        return text
    return _private(path).public_key().public_bytes_raw().hex()


def make_signature(data: bytes, key: Path) -> str:
    """The signature over `data` by the private key in `key`, hexadecimal. Raises ApprovalError."""
    return _private(key).sign(data).hex()


def verify_signature(signature: str | None, data: bytes, approvers: Iterable[str]) -> bool:
    """Whether one of `approvers` (public keys) made `signature` over `data`.

    Raises ApprovalError where the library for it is missing.
    """
    with _extra():
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    if signature is None or not _SIGNATURE.fullmatch(signature):
        return False
    for approver in approvers:
        try:
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(approver))
            public.verify(bytes.fromhex(signature), data)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def _private(path: Path) -> Ed25519PrivateKey:
    with _extra():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    try:
        mode = path.stat().st_mode
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ApprovalError(f"{path}: cannot be read as a key ({error.strerror})") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ApprovalError(
            f"{path}: is not a private key of an approver; make one with: gliofed approve "
            "--new-key KEY"
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ApprovalError(
            f"{path}: other users may access the private key; run: chmod 600 {path}"
        )
    if not isinstance(key, Ed25519PrivateKey):
        raise ApprovalError(f"{path}: is a key of another type; expected Ed25519")
    return key


@contextmanager
def _extra() -> Iterator[None]:
    """Raise ApprovalError where the library for signatures is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ApprovalError(f"{error.name} is missing; install gliofed[federation]") from None
