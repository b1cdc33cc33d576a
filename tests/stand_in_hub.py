"""A small stand-in for the hub on this machine: what creating and uploading a repository needs."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass
class StandInHub:
    """`with StandInHub() as hub:` serves at `hub.url`; `HF_ENDPOINT` is to be set to it.

    It knows one token and one user, and keeps what was committed: repository -> path -> bytes.
    """

    token: str = "hf_standInToken0123456789"
    user: str = "someone"
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    broken: bool = False  # answer every commit with 500

    def __enter__(self) -> StandInHub:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, token: str | None = "") -> dict[str, str | None]:
        """Variables for a process that is to talk to it; the right token unless another is given,
        None for no token at all.
        """
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": self.token if token == "" else token,
            "HF_HUB_DISABLE_XET": "1",
        }

    # -- answers

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of a request."""
        if token != self.token:
            return 401, {"error": "Invalid username or password."}
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": self.user, "orgs": [], "auth": {}}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.startswith("/api/models/"):
            return self._model(method, path.removeprefix("/api/models/").split("?")[0], body)
        return 404, {"error": f"the stand-in knows no {method} {path}"}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked.get('organization') or self.user}/{asked['name']}"
        status = 409 if name in self.repositories else 200
        self.repositories.setdefault(name, {})
        return status, {"url": f"{self.url}/{name}", "name": name}

    def _model(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        owner, name, *rest = path.split("/")
        full = f"{owner}/{name}"
        if full not in self.repositories:
            return 404, {"error": "Repository not found"}
        kind = rest[0] if rest else ""
        if kind == "preupload":
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            return 200, {"files": modes}
        if kind == "commit":
            if self.broken:
                return 500, {"error": "out of order"}
            return self._commit(full, body)
        if kind in ("", "revision"):
            siblings = [{"rfilename": file} for file in self.repositories[full]]
            return 200, {"id": full, "sha": "0" * 40, "siblings": siblings, "private": False}
        if kind == "tree":
            return 200, []
        return 404, {"error": f"the stand-in knows no {method} {path}"}

    def _commit(self, full: str, body: bytes) -> tuple[int, Any]:
        for line in body.decode().splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                value = operation["value"]
                self.repositories[full][value["path"]] = base64.b64decode(value["content"])
        done = {
            "success": True,
            "commitOid": "1" * 40,
            "commitUrl": f"{self.url}/{full}/commit/{'1' * 40}",
            "pullRequestUrl": None,
            "hookOutput": "",
        }
        return 200, done

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def _reply(self) -> None:
                body = self._body()
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                hub.requests.append((self.command, self.path))
                status, content = hub.answer(self.command, self.path, token, body)
                raw = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "") == "chunked":
                    parts = []
                    while size := int(self.rfile.readline().strip() or b"0", 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            do_GET = do_POST = do_PUT = do_HEAD = _reply

            def log_message(self, *args: object) -> None:
                pass

        return Handler
