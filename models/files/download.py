"""A file over HTTP: tried again when the connection breaks, and continued where it broke, if the server can.

Why this is our own. The files are of 0.1 to 2.7 GB, and a fetch that was cut off, or killed with its job, must go on
where it was. Neither library can: huggingface_hub (2.4: `_download_to_tmp_and_move`) and pooch (1.9: `retrieve`,
`HTTPDownloader`) begin each call with an empty temporary file and delete it when the call fails. huggingface_hub also
compares a file's length, not its SHA-256, and puts it into its place before its caller could.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

# Called with the bytes that are here, and those in all or None where the server does not say.
OnBytes = Callable[[int, int | None], None]

HUB = "https://huggingface.co"
RETRY_WAITS = (1.0, 3.0, 9.0)  # seconds before each further try
TIMEOUT = 60.0  # seconds without a byte
BLOCK = 1 << 20


class FetchError(OSError):
    """A file could not be fetched. One line: which, from where, why."""


class Unreachable(FetchError):
    """The network or the server does not answer, or stopped answering, each time it was tried."""


def download(url: str, part: Path, on_bytes: OnBytes | None = None) -> str | None:
    """Bring `part` to the full length of what `url` has, and sync it. Returns the SHA-256 that the server states.

    What is in `part` from an earlier try is kept if the server can send the rest of the same version (Range and
    If-Range, RFC 9110 section 13.1.5). URLs of the Hugging Face hub go to $HF_ENDPOINT, with $HF_TOKEN.

    Raises:
        Unreachable: no answer, or an unfinished one, each time.
        FetchError: the server refuses.
        OSError: the disk is full, or `part` cannot be written.
    """
    waits = iter(RETRY_WAITS)
    while True:
        try:
            return _receive(url, part, on_bytes)
        except HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code == 416 and part.exists():  # the server's file is shorter than what is here
                part.unlink()
            elif error.code < 500 and error.code != 429:
                hint = "; is $HF_TOKEN set, and right?" if error.code in (401, 403) and _on_hub(url) else ""
                raise FetchError(f"{at_endpoint(url)}: {reason}{hint}") from None
        except URLError as error:
            reason = str(error.reason)
        wait = next(waits, None)
        if wait is None:
            raise Unreachable(f"{at_endpoint(url)}: {reason}")
        time.sleep(wait)


def discard(part: Path) -> None:
    """Delete what is left of a download: the file, if it was not moved to its place, and its version."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def at_endpoint(url: str) -> str:
    """The URL at the mirror of the Hugging Face hub that $HF_ENDPOINT names, if it is one of the hub."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return endpoint + url.removeprefix(HUB) if endpoint and _on_hub(url) else url


def _on_hub(url: str) -> bool:
    return url.startswith(f"{HUB}/")


def _receive(url: str, part: Path, on_bytes: OnBytes | None) -> str | None:
    """One request for what `part` lacks. Raises URLError for the network, other OSErrors for the disk."""
    if part.exists() and not os.access(part, os.W_OK):
        discard(part)  # another user's, who left it half done
    # The last byte is asked for again: a server answers 416 where nothing is left to send.
    have = max(part.stat().st_size - 1, 0) if part.exists() and _version_file(part).exists() else 0
    redirects = _Redirects()
    with _network():
        response = build_opener(redirects).open(_request(url, part, have), timeout=TIMEOUT)
    with closing(response):
        have = have if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if total is not None and (free := shutil.disk_usage(part.parent).free) < total - have:
            raise OSError(f"{(total - have) / 1e9:.1f} GB are to come, {free / 1e9:.1f} GB are free")
        with part.open("r+b" if have else "wb") as out:
            out.seek(have)
            _remember_version(response.headers, _version_file(part))
            for block in _blocks(response):
                out.write(block)
                have += len(block)
                if on_bytes:
                    on_bytes(have, total)
            out.flush()
            os.fsync(out.fileno())
    if total is not None and have != total:
        raise URLError(f"the connection ended after {have:,} of {total:,} bytes")
    return redirects.sha256


def _request(url: str, part: Path, have: int) -> Request:
    request = Request(at_endpoint(url), headers={"User-Agent": "ditbench"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", _version_file(part).read_text())  # else all of it, and with status 200
    if _on_hub(url) and (token := os.environ.get("HF_TOKEN")):
        request.add_header("Authorization", f"Bearer {token}")
    return request


class _Redirects(HTTPRedirectHandler):
    """Keeps the token from other hosts, and the SHA-256 that the hub states (X-Linked-Etag) where it redirects."""

    sha256: str | None = None

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        stated = headers.get("X-Linked-Etag", "").strip('"')
        self.sha256 = stated if re.fullmatch("[0-9a-f]{64}", stated) else self.sha256
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and new.host != req.host:
            new.remove_header("Authorization")
        return new


@contextmanager
def _network() -> Iterator[None]:
    """URLError for all that the network does: urllib wraps only errors of the connection's beginning."""
    try:
        yield
    except URLError:
        raise
    except (OSError, HTTPException) as error:
        raise URLError(str(error) or type(error).__name__) from None


def _blocks(response: HTTPResponse) -> Iterator[bytes]:
    while True:
        with _network():
            block = response.read(BLOCK)
        if not block:
            return
        yield block


def _version_file(part: Path) -> Path:
    """Holds which version of the server's file `part` is the beginning of; without it nothing is continued."""
    return part.with_name(f"{part.name}.version")


def _remember_version(headers: HTTPMessage, path: Path) -> None:
    etag = headers.get("ETag", "")
    version = headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag  # If-Range takes no weak tag
    if version:
        path.write_text(version)
    else:
        path.unlink(missing_ok=True)
