"""Has FLARE say what it denies: its authoriser answers whoever asked, and writes nothing down."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from nvflare.fuel.sec.authz import AuthorizationService, AuthzContext
from nvflare.private.admin_defs import Message, error_reply
from nvflare.private.defs import RequestHeader
from nvflare.private.fed.client.admin import RequestProcessor
from nvflare.security.security import COMMAND_CATEGORIES

from gliofed.federated.flare.log_lines import CODE, DENIED, OTHER

_RIGHTS: Final = frozenset(COMMAND_CATEGORIES) | {
    "submit_job",
    "app_command",
    "get_job_log",
    "clone_job",
    CODE,
}
_LOG: Final = logging.getLogger(DENIED)


def log_denials() -> None:
    """From now on, log whom this process's authoriser denies which right."""
    decide = AuthorizationService.authorize

    def authorize(ctx: AuthzContext) -> tuple[bool, str]:
        granted, fault = decide(ctx)
        if not granted:
            _log(ctx.right, ctx.user.name)
        return granted, fault

    AuthorizationService.authorize = staticmethod(authorize)


class RequestRefuser(RequestProcessor):  # type: ignore[misc]  # (FLARE has no types)
    """Answers requests of `topics`, which a site does not obey, as FLARE answers unknown ones."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = list(topics)

    def get_topics(self) -> list[str]:
        """What it answers."""
        return self._topics

    def process(self, req: Message, app_ctx: Any) -> Message:
        """Refuse, and log it."""
        right = req.get_header(RequestHeader.ADMIN_COMMAND, "")
        _log(right, req.get_header(RequestHeader.USER_NAME, ""))
        return error_reply("invalid_request")


def _log(right: object, who: object) -> None:
    """Rights are FLARE's own words; of who asked, only what can be a name."""
    known = right if right in _RIGHTS else OTHER
    name = who if isinstance(who, str) and who.isprintable() and " " not in who else ""
    _LOG.warning("denied %s to %s", known, name)
