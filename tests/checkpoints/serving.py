"""Servers for the tests: files over HTTP with and without ranges, and a store that speaks S3."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Files:
    """Serves a folder; keeps what was asked for, and misbehaves where it is told to."""

    def __init__(self, folder: Path, *, ranges: bool = True, tags: bool = True) -> None:
        self.folder = folder
        self.ranges = ranges
        self.tags = tags
        self.asked: list[tuple[str, str, tuple[int, int] | None]] = []
        self.failures: list[int] = []  # statuses to answer the next GETs with
        self.before: Callable[[int], None] = lambda number: None
        self.lock = threading.Lock()
        self.url = ""

    def gets(self) -> list[tuple[int, int]]:
        return [r for method, _, r in self.asked if method == "GET" and r is not None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(head=True)

    def do_GET(self) -> None:
        self.answer(head=False)

    def answer(self, head: bool) -> None:
        files: Files = self.server.files  # type: ignore[attr-defined]
        path = files.folder / self.path.split("?")[0].lstrip("/")
        asked = self.headers.get("Range") if files.ranges else None
        with files.lock:
            if not head:
                files.before(sum(m == "GET" for m, _, _ in files.asked))
            failure = files.failures.pop(0) if files.failures and not head else 0
            span = None
            if asked:
                low, high = asked.removeprefix("bytes=").split("-")
                span = (int(low), int(high) + 1)
            files.asked.append(("HEAD" if head else "GET", path.name, span))
        if failure or not path.is_file():
            self.send(failure or 404, b"", {})
            return
        state = path.stat()
        tag = f'"{state.st_ino:x}-{state.st_mtime_ns:x}-{state.st_size:x}"'
        headers = {"Last-Modified": formatdate(state.st_mtime, usegmt=True)}
        if files.tags:
            headers["ETag"] = tag
        wanted = self.headers.get("If-Match")
        if wanted and wanted != tag:
            self.send(412, b"", {})
        elif head:
            self.send(200, b"", {**headers, "Content-Length": str(state.st_size)})
        elif span is None:
            self.send(200, path.read_bytes(), headers)
        elif span[0] >= state.st_size:
            self.send(416, b"", {"Content-Range": f"bytes */{state.st_size}"})
        else:
            with path.open("rb") as source:
                source.seek(span[0])
                body = source.read(span[1] - span[0])
            last = span[0] + len(body) - 1
            self.send(
                206, body, {**headers, "Content-Range": f"bytes {span[0]}-{last}/{state.st_size}"}
            )

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def http_files(folder: Path, *, ranges: bool = True, tags: bool = True) -> Iterator[Files]:
    """Serve a folder on 127.0.0.1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.files = files = Files(folder, ranges=ranges, tags=tags)  # type: ignore[attr-defined]
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def s3_store() -> Iterator[str]:
    """Run a local store that speaks S3; its endpoint's URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def gcs_store() -> Iterator[str]:
    """Run a local store that speaks the JSON interface of Google Cloud Storage; its URL."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{server._api._httpd.server_port}"
    finally:
        server.stop()
