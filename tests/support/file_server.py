"""A web server on the loopback that serves bytes and fails as it is told to."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """`files` by path. Requests are kept in order as (path, headers)."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    versions: bool = True  # whether it sends an ETag
    breaks: list[int] = field(default_factory=list)  # each of the next responses ends after so many bytes
    answers: list[int] = field(default_factory=list)  # the status of each of the next responses
    redirects: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)  # path -> (URL, headers)
    claims: int | None = None  # the length that it states, whatever it sends
    pause: float = 0.0  # seconds in the middle of each response
    requests: list[tuple[str, Message]] = field(default_factory=list)
    port: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def header(self, name: str) -> list[str | None]:
        """A header's value in each request."""
        return [headers[name] for _, headers in self.requests]

    def __enter__(self) -> FileServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with suppress(ConnectionError):  # the client was killed, or had enough
                    server.respond(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def respond(self, to: BaseHTTPRequestHandler) -> None:
        self.requests.append((to.path, to.headers))
        if to.path in self.redirects:
            url, extra = self.redirects[to.path]
            return self._head(to, 302, {"Location": url, "Content-Length": "0", **extra})
        status = self.answers.pop(0) if self.answers else 200 if to.path in self.files else 404
        if status != 200:
            return self._head(to, status, {"Content-Length": "0"})
        data = self.files[to.path]
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        begin = 0
        if self.ranges and to.headers["Range"] and to.headers["If-Range"] in (None, etag):
            begin = int(to.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if begin >= len(data):
                return self._head(to, 416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
        body = data[begin:]
        headers = {"Content-Length": str(self.claims or len(body))}
        headers |= {"ETag": etag} if self.versions else {}
        headers |= {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}
        self._head(to, 206 if begin else 200, headers)
        body = body[: self.breaks.pop(0)] if self.breaks else body
        to.wfile.write(body[: len(body) // 2])
        to.wfile.flush()
        time.sleep(self.pause)
        to.wfile.write(body[len(body) // 2 :])
        return None

    def _head(self, to: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name, value)
        to.end_headers()
