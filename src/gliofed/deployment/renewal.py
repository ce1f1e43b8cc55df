"""`gliofed kit renew`, `revoke` and `install`: certificates of kits that were handed over.

OUT/authority/certificates/NAME.crt   every certificate of the name, the newest first
OUT/renewed/NAME.crt                  for the receiver of the kit; not secret
OUT/revoked.crl                       for whoever runs the server; not secret
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography import x509

from gliofed.deployment.certificates import (
    pem,
    read_certificates,
    read_revocations,
    renewed,
    revocation_list,
)
from gliofed.deployment.federation_plan import LEAD, SERVER
from gliofed.deployment.kit import Kit, check_certificate, open_any, read_kit
from gliofed.deployment.provision import ISSUED, forget_party, open_authority
from gliofed.errors import KitError
from gliofed.federated.flare.provision import CERTIFICATE_DAYS
from gliofed.federated.flare.revocation import LIST_FILE
from gliofed.runtime.files import alone_in, write_bytes, write_private

LIST: Final = "revoked.crl"


def renew(out: Path, name: str, days: int = CERTIFICATE_DAYS) -> Path:
    """Sign the certificate of the kit `name` anew; returns the file for its receiver.

    out: folder of `gliofed provision`. The key stays the same, so no secret is sent; the old
    certificate is valid until its end. A kit that lies in `out` gets the file at once. Raises
    KitError where `out` has no authority, or no certificate of `name`.
    """
    with alone_in(out):
        authority = open_authority(out)
        issued = _issued(out, name)
        new = renewed(issued[0], authority, days)
        write_private(out / ISSUED / f"{name}.crt", "".join(map(pem, [new, *issued])))
        path = out / "renewed" / f"{name}.crt"
        write_bytes(path, pem(new).encode())
    if (out / name / "startup").is_dir():
        install(out / name, path)
    return path


def revoke(out: Path, name: str) -> Path:
    """Revoke every certificate of `name`; returns the list for whoever runs the server.

    From then on the server refuses the kit, once it has the list; a server's kit in `out` gets it
    at once. `gliofed provision` makes a new kit in this name. Raises KitError as `renew` does, and
    for the server, whose certificate is checked by sites that get no list.
    """
    if name == SERVER:
        raise KitError(
            "the server's certificate cannot be revoked, since sites get no list; make a new "
            "federation with gliofed provision in another --out"
        )
    with alone_in(out):
        authority = open_authority(out)
        issued = _issued(out, name)
        root = x509.load_pem_x509_certificate(authority.certificate.encode())
        number, serials = read_revocations(out / LIST, root)
        serials += [c.serial_number for c in issued if c.serial_number not in serials]
        write_bytes(out / LIST, revocation_list(authority, serials, number + 1))
        forget_party(out, name)
    if (out / SERVER / "startup").is_dir():
        install(out / SERVER, out / LIST)
    return out / LIST


def install(kit: Path, file: Path) -> Kit:
    """Put a renewed certificate, or into a server's kit a list of revoked ones, in its place.

    Raises KitError where the file is not for this kit, or an older list; the kit is then unchanged.
    """
    if b"BEGIN X509 CRL" in file.read_bytes():
        return _install_list(open_any(kit), file)
    found = read_kit(kit)
    check_certificate(found, file)
    write_private(found.certificate, pem(read_certificates(file)[0]))
    return found


def _install_list(kit: Kit, file: Path) -> Kit:
    if kit.role != SERVER:
        raise KitError(f"{file}: is for the server's kit; {kit.root} is the kit of a {kit.role}")
    (root,) = read_certificates(kit.root / "startup/rootCA.pem")
    known, _ = read_revocations(kit.root / LIST_FILE, root)
    number, _ = read_revocations(file, root)
    if number < known:
        raise KitError(f"{file}: is list {number}, older than list {known} of the kit")
    write_private(kit.root / LIST_FILE, file.read_text(encoding="ascii"))
    return kit


def _issued(out: Path, name: str) -> list[x509.Certificate]:
    """Every certificate of the kit `name`, the newest first."""
    path = out / ISSUED / f"{name}.crt"
    if path.is_file():
        return read_certificates(path)
    startup = out / name / "startup"  # of a federation that was made by an earlier version
    for base in ("server", "client"):
        if (startup / f"{base}.crt").is_file():
            return read_certificates(startup / f"{base}.crt")
    names = ", ".join(sorted(p.stem for p in (out / ISSUED).glob("*.crt"))) or f"{SERVER}, {LEAD}"
    raise KitError(
        f"{out}: no certificate of {name!r} is known; there are {names}; of a kit made by an "
        f"earlier version, ask its owner for startup/client.crt and put it into "
        f"{startup}"
    )
