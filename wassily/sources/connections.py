"""Connections to web servers with shards: no redirect to another host, an end to each wait."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import datasets

from wassily.errors import UserError, printable

CONNECT = 30.0  # seconds for a connection to be made
IDLE = 60.0  # seconds without a byte
TOTAL = 6 * 3600.0  # seconds for one answer: a shard, read as slowly as a training goes
PORTS = {"http": 80, "https": 443}

# How often the library asks again after an interruption, and seconds between. It is 20 times and 5
# by itself: the same patience with a server that restarts, a quarter of it with one that stalls.
datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 5
datasets.config.STREAMING_READ_RETRY_INTERVAL = datasets.config.STREAMING_OPEN_RETRY_INTERVAL = 20


def _place(address: str) -> tuple[str, str, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme)


def check_redirect(source: str, location: str) -> None:
    """Raise UserError where a server sends to another host or port; to https at its own is fine.

    A public server could have addresses of the own network asked, and their content be data.
    """
    target = urljoin(source, location)
    before, after = _place(source), _place(target)
    if after != before and after != ("https", before[1], 443):
        host = f"{after[0]}://{after[1]}" + (f":{after[2]}" if after[2] else "")
        raise UserError(
            f"{before[0]}://{before[1]}:{before[2]}: it sends on to {printable(host):.200}, which "
            "is not followed. Name that address itself if it is right."
        )


async def _redirected(session: Any, context: Any, params: Any) -> None:
    check_redirect(str(params.url), params.response.headers.get("Location", ""))


async def _client(**given: Any) -> Any:
    """The session of `fsspec` for http: as its own, with limits."""
    import aiohttp  # slow to import, and for addresses alone

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_redirected)
    limits = aiohttp.ClientTimeout(total=TOTAL, sock_connect=CONNECT, sock_read=IDLE)
    return aiohttp.ClientSession(trace_configs=[trace], timeout=limits, **given)


OPTIONS = {protocol: {"get_client": _client} for protocol in PORTS}  # for `datasets`
