"""Who may ask the studio for what: its own pages, with its token, for the routes that they use.

Functions of a request in the form of ASGI, so that they are tested without gradio and a server.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from wassily.files import reading

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PAGES = ("/", "/ar", "/ar/")
# gradio asks for it itself, before anybody has the token. It answers true or false.
OPEN = ("/gradio_api/startup-events",)
READ = (*OPEN, "/theme.css", "/favicon.ico", "/gradio_api/queue/data")
READ_BELOW = ("/assets/", "/static/", "/gradio_api/heartbeat/")
SENT = ("/gradio_api/queue/join", "/gradio_api/run/predict")
FILE = "/gradio_api/file="
WRONG_REQUEST, NO_TOKEN, FORBIDDEN, NOT_FOUND = 400, 401, 403, 404
REASONS = {
    WRONG_REQUEST: "The request is not HTTP.",
    NO_TOKEN: "The token is missing or old. Open the address that `wassily studio` printed.",
    FORBIDDEN: "The studio answers to its own pages only. Open the address that it printed.",
    NOT_FOUND: "There is no such page.",
}
# The browser fetches nothing from another address, and no other page embeds an answer.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@dataclass(frozen=True)
class Access:
    """The port, the folders whose PNGs may be fetched, and the token of one studio."""

    port: int
    images: tuple[Path, ...]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def hosts(self) -> list[str]:
        """Its own names, as a browser writes them into `Host`."""
        port = "" if self.port == 80 else f":{self.port}"
        return [f"127.0.0.1{port}", f"localhost{port}"]

    @property
    def cookie(self) -> str:
        """The name of the cookie, with the port: cookies do not tell ports apart."""
        return f"wassily-studio-{self.port}"

    def address(self, path: str) -> str:
        """The full address of a page, with the token."""
        return f"http://{self.hosts[0]}/{path}?token={self.token}"


def refusal(access: Access, scope: Scope) -> int | None:
    """The HTTP status of the answer to a request that is refused, None for one that is served."""
    if scope["type"] != "http":
        return WRONG_REQUEST
    if not _is_own(access, scope):
        return FORBIDDEN
    if scope["path"] not in OPEN and not _has_token(access, scope):
        return NO_TOKEN
    return None if _is_used(access, scope["method"], scope["path"]) else NOT_FOUND


def _values(scope: Scope, name: bytes) -> list[str]:
    """The values of a header, in Latin-1 as HTTP has them."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _is_own(access: Access, scope: Scope) -> bool:
    """Whether a request comes from the studio's own pages, or by an address typed or followed."""
    hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
    if len(hosts) != 1 or hosts[0].lower() not in access.hosts:
        return False
    if any(origin != f"http://{hosts[0].lower()}" for origin in origins):
        return False
    if scope["method"] not in ("GET", "HEAD"):
        return len(origins) == 1  # a browser always sends it
    # A page of another port of this machine gets the cookie sent, but does not hide where it is.
    elsewhere = {"same-site", "cross-site"} & set(_values(scope, b"sec-fetch-site"))
    followed = scope["path"] in PAGES and _values(scope, b"sec-fetch-mode") == ["navigate"]
    return not elsewhere or followed


def _has_token(access: Access, scope: Scope) -> bool:
    held = _cookies(_values(scope, b"cookie"), access.cookie)
    return brings_token(access, scope) or any(_same(access.token, one) for one in held)


def brings_token(access: Access, scope: Scope) -> bool:
    """Whether the token is in the address, as at the first visit of a page."""
    if scope["path"] not in PAGES or scope["method"] not in ("GET", "HEAD"):
        return False
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return any(_same(access.token, one) for one in query.get("token", []))


def _cookies(headers: Iterable[str], name: str) -> Iterable[str]:
    """The values of the cookies of a name."""
    for pair in (pair for header in headers for pair in header.split(";")):
        key, _, value = pair.strip().partition("=")
        if key == name:
            yield value


def _same(token: str, given: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(token.encode(), given.encode("utf-8", "surrogateescape"))


def _is_used(access: Access, method: str, path: str) -> bool:
    """Whether the studio's pages ask for a route."""
    if ".." in path.split("/"):
        return False
    if method == "POST":
        return path in SENT
    if method not in ("GET", "HEAD"):
        return False
    if path.startswith(FILE):
        return is_shown(access.images, path.removeprefix(FILE))
    return path in (*PAGES, *READ) or path.startswith(READ_BELOW)


def is_shown(folders: Iterable[Path], name: str) -> bool:
    """Whether a file may be fetched: a PNG in one of these folders, links followed."""
    path = Path(name)
    if path.suffix != ".png" or not path.is_absolute():
        return False
    return any(reading.is_inside(path, folder) for folder in folders)


class Guard:
    """ASGI middleware: refuses by `refusal`, and adds HEADERS to each answer."""

    def __init__(self, app: App, access: Access):
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        status = refusal(self.access, scope)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        more = list(HEADERS)
        if status is None and brings_token(self.access, scope):
            more.append((b"set-cookie", _set_cookie(self.access)))

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        if status is None:
            return await self.app(scope, receive, with_headers)
        return await _answer(with_headers, status)


def _set_cookie(access: Access) -> bytes:
    return f"{access.cookie}={access.token}; Path=/; HttpOnly; SameSite=Strict".encode()


async def _answer(send: Send, status: int) -> None:
    body = f"{REASONS[status]}\n".encode()
    kind = (b"content-type", b"text/plain; charset=utf-8")
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [kind, length]})
    await send({"type": "http.response.body", "body": body})
