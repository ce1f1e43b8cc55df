"""Logging of requests that FLARE denies; its authoriser does not log them."""

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
    """From now on, log each right that the authoriser of this process denies, and to whom."""
    decide = AuthorizationService.authorize

    def authorize(ctx: AuthzContext) -> tuple[bool, str]:
        granted, reason = decide(ctx)
        if not granted:
            _log(ctx.right, ctx.user.name)
        return granted, reason

    AuthorizationService.authorize = staticmethod(authorize)


class RequestRefuser(RequestProcessor):  # type: ignore[misc]  # (FLARE has no types)
    """Refuses requests of `topics` with FLARE's reply to unknown requests."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = list(topics)

    def get_topics(self) -> list[str]:
        """The topics that it handles."""
        return self._topics

    def process(self, req: Message, app_ctx: Any) -> Message:
        """Refuse the request and log it."""
        right = req.get_header(RequestHeader.ADMIN_COMMAND, "")
        _log(right, req.get_header(RequestHeader.USER_NAME, ""))
        return error_reply("invalid_request")


def _log(right: object, user: object) -> None:
    """Only known rights and printable user names are logged."""
    known = right if right in _RIGHTS else OTHER
    name = user if isinstance(user, str) and user.isprintable() and " " not in user else ""
    _LOG.warning("denied %s to %s", known, name)
