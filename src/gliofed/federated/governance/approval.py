"""Approval of studies: a site runs a study only if its exact text was approved there.

    approval = approve(text, "Dr. A. Example", kit / "gliofed/approvals")
    require_approval(text, digest, kit / "gliofed/approvals", policy)

The text is the study's canonical TOML (`canonical_toml`), in which every setting is written out.
What is approved is this text with the default of each operational setting
(`gliofed.study.OPERATIONAL`), which the lead may change without a new approval.
If the policy lists approvers, an approval is valid only with the Ed25519 signature (RFC 8032) of
one of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import stat
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from gliofed.errors import ApprovalError, StudyError
from gliofed.federated.governance.keys import make_signature, verify_signature
from gliofed.federated.governance.policy import SitePolicy
from gliofed.runtime.files import write_private
from gliofed.study import Study, parse_study, study_toml, with_default_operations
from gliofed.version import __version__

LARGEST: Final = 64 * 2**10
"""Characters of the longest study text."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PURPOSE: Final = b"gliofed approval 1\n"


@dataclass(frozen=True)
class Approval:
    """The approval of one study at one site.

    study: its digest. text: SHA-256 of the canonical TOML with default operational settings. name:
    of the study. who: the person who approved it. when: UTC. version: of gliofed there. policy:
    digest of the policy that was shown with it; the approval is not valid under another one.
    signature: Ed25519 over all other fields, hexadecimal.
    """

    study: str
    text: str
    name: str
    who: str
    when: str
    version: str
    policy: str | None = None
    signature: str | None = None

    def signed_bytes(self) -> bytes:
        """The bytes that are signed."""
        plain = dataclasses.asdict(self)
        del plain["signature"]
        return _PURPOSE + json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def parse_study_text(text: str, where: str = "study") -> Study:
    """The study in `text`; `[data] root` is not resolved. Raises StudyError."""
    if len(text) > LARGEST:
        raise StudyError(f"{where}: longer than {LARGEST} characters")
    try:
        return parse_study(tomllib.loads(text), where)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise StudyError(f"{where}: not a TOML file: {error}") from None


def canonical_toml(text: str, where: str = "study") -> str:
    """The canonical text of the study in `text`: every setting written out, in a fixed order.

    `[data] root` stays as written. Raises StudyError.
    """
    return study_toml(parse_study_text(text, where))


def make_approval(text: str, who: str, policy: SitePolicy | None = None) -> Approval:
    """An approval of the study `text`, which is not written to a file.

    policy: bind the approval to it. Raises StudyError; ApprovalError: `who` is not a line of 1 to
    80 printable characters.
    """
    if not 1 <= len(who.strip()) <= 80 or not who.isprintable():
        raise ApprovalError("expected the name of the approver: 1 to 80 printable characters")
    study = parse_study_text(text)
    return Approval(
        study=study.digest,
        text=_approved_text(study),
        name=study.name,
        who=who.strip(),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        policy=None if policy is None else policy.digest,
    )


def sign(approval: Approval, key: Path) -> Approval:
    """The approval with the signature of an approver's private key.

    Raises ApprovalError: no such key, or others may read it.
    """
    return dataclasses.replace(approval, signature=make_signature(approval.signed_bytes(), key))


def write_approval(approval: Approval, path: Path) -> Path:
    """Write an approval, mode 0600: to `path`, or as `<digest>.json` where that is a folder."""
    target = path / f"{approval.study}.json" if path.is_dir() else path
    text = json.dumps(dataclasses.asdict(approval), indent=1, ensure_ascii=False)
    write_private(target, text + "\n")
    return target


def approve(text: str, who: str, folder: Path, policy: SitePolicy | None = None) -> Approval:
    """Approve the study `text` at this site, without a signature; see `make_approval`.

    folder: of approvals; made if it does not exist.
    """
    approval = make_approval(text, who, policy)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_approval(approval, folder)
    return approval


def require_approval(text: str, digest: str, folder: Path, policy: SitePolicy) -> Approval:
    """The approval of this text; its operational settings may differ.

    text, digest: as the server sent them. Raises ApprovalError: the text is not the canonical text
    of a valid study, does not have `digest`, was not approved here, was approved under another
    policy, or lacks a signature that the policy requires.
    """
    try:
        study = parse_study_text(text, "the study that was sent")
        canonical = study_toml(study)
    except StudyError as error:
        raise ApprovalError(f"the study cannot run here: {error}") from None
    if canonical != text:
        raise ApprovalError(
            "the study that was sent is not in canonical form, so it cannot be compared with the "
            "approved text; server and site need the same version of gliofed"
        )
    if not _DIGEST.fullmatch(digest) or study.digest != digest:
        raise ApprovalError(
            f"the study that was sent has digest {study.digest[:12]}..., not the one it was "
            "announced with; it was not run"
        )
    path = folder / f"{digest}.json"
    if not path.is_file():
        raise ApprovalError(
            f"study {study.name!r} ({digest[:12]}...) is not approved here: read it, then approve "
            f"it with gliofed approve STUDY --out {folder}"
        )
    approval = read_approval(path)
    check_approval(approval, study, policy, path)
    return approval


def check_approval(approval: Approval, study: Study, policy: SitePolicy, path: Path) -> None:
    """Raise ApprovalError where the approval in `path` is not of `study` under `policy`."""
    _check_same(approval, study, path)
    _check_policy(approval, policy, path)


def read_approval(path: Path) -> Approval:
    """An approval from its file. Raises ApprovalError: unreadable, or others may write to it."""
    try:
        mode = path.stat().st_mode
        plain = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise ApprovalError(f"{path}: cannot be read as an approval; approve again") from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ApprovalError(f"{path}: other users may write to the approval; run: chmod 600 {path}")
    if not _well_formed(plain):
        raise ApprovalError(f"{path}: is not an approval of gliofed; approve again")
    return Approval(**plain)


def _well_formed(plain: Any) -> bool:
    fields = dataclasses.fields(Approval)
    if not isinstance(plain, dict) or set(plain) != {f.name for f in fields}:
        return False
    optional = {"policy", "signature"}
    return all(isinstance(v, str) or (v is None and k in optional) for k, v in plain.items())


def _check_same(approval: Approval, study: Study, path: Path) -> None:
    if (approval.study, approval.text) != (study.digest, _approved_text(study)):
        raise ApprovalError(
            f"{path}: approves another text than the one that was sent, with the same digest "
            "(the data folder differs, or the file was changed); read it, then approve again"
        )


def _check_policy(approval: Approval, policy: SitePolicy, path: Path) -> None:
    if approval.policy not in (None, policy.digest):
        raise ApprovalError(
            f"{path}: the study was approved under another policy than this site's present one; "
            "read what leaves under this one, and approve it again"
        )
    if policy.approvers and not verify_signature(
        approval.signature, approval.signed_bytes(), policy.approvers
    ):
        raise ApprovalError(
            f"{path}: has no signature of an approver that this site's policy lists; one of them "
            "must sign it: gliofed approve STUDY --key KEY"
        )


def _approved_text(study: Study) -> str:
    """SHA-256 of what is approved of a study."""
    return _sha256(study_toml(with_default_operations(study)))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
