"""Access control: requests need the token and a loopback host name."""

from __future__ import annotations

import hmac
import ipaddress
from html import escape
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Headers of every response. A page with its own policy keeps it."""
READING: Final = ("GET", "HEAD")


class AccessGuard:
    """Guards the application: only permitted requests reach its routes.

    In this order: a request whose Host is not this server's is misdirected (421); one without the
    token is refused (401), for any path; one that is not a read is refused (405). A valid token in
    the query is stored as a cookie, and the browser is redirected to the address without it.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token, self._port = app, token, port
        self._cookie = f"gliofed-view-{port}"  # browsers share cookies among ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            refused = self._answer(Request(scope))
            reading = {**scope, "method": "GET"}
            safe = _with_headers(send, bodiless=scope["method"] == "HEAD")
            await (refused or self._app)(reading, receive, safe)

    def _answer(self, request: Request) -> Response | None:
        """The response in place of the application; None passes the request on."""
        if not self._is_ours(request.headers.getlist("host")):
            return plain_page(421, "Not here", "This address is not one of this server's.")
        has_token = any(map(self._is_token, request.query_params.getlist("token")))
        if not (has_token or self._is_known(request)):
            return plain_page(
                401,
                "Not open",
                "Open the whole address that gliofed view printed when it was started: it ends "
                "with a token. A token is good until that command ends.",
                {"www-authenticate": "Bearer"},
            )
        if request.method not in READING:
            allowed = ", ".join(READING)
            return plain_page(405, "Read only", "Nothing can be sent here.", {"allow": allowed})
        if not has_token:
            return None
        path = quote(request.scope["path"].lstrip("/"), errors="replace")
        response = RedirectResponse(f"/{path}", 303)
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        return response

    def _is_ours(self, hosts: list[str]) -> bool:
        """Protects against DNS rebinding."""
        try:
            (host,) = hosts
            parts = urlsplit(f"//{host}")
            hostname = parts.hostname or ""
            if parts.netloc != host or "@" in host or (parts.port or 80) != self._port:
                return False
            return hostname == "localhost" or ipaddress.ip_address(hostname).is_loopback
        except ValueError:
            return False

    def _is_known(self, request: Request) -> bool:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else ""
        return self._is_token(given) or self._is_token(request.cookies.get(self._cookie, ""))

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="replace"), self._token.encode())


def plain_page(
    status: int, title: str, text: str, headers: dict[str, str] | None = None
) -> HTMLResponse:
    """A page of one sentence, which names no version. Its text is escaped."""
    return HTMLResponse(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title></head>\n"
        f"<body><h1>{escape(title)}</h1><p>{escape(text)}</p></body></html>\n",
        status,
        headers,
    )


def _with_headers(send: Send, bodiless: bool) -> Send:
    async def safe(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            message = {**message, "headers": headers.raw}
        elif bodiless and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return safe
