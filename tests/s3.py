"""An S3-compatible server, moto's, in a process of its own; before it a proxy that can refuse.

The proxy also understands Google's client, and so stands in for a server of Google's.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

from tests.ports import free_port

# Moto looks at who signs, not at the signature.
SIGNED = (
    "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
)
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host"}


@dataclass
class S3:
    """`environment` is all that a client needs to know of it."""

    endpoint: str
    refusing: bool = False  # every request is answered with 503
    refused: int = 0
    asked: Counter[str] = field(default_factory=Counter)  # by method

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
        }

    def make_bucket(self, name: str) -> None:
        address = self.endpoint.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200


@contextmanager
def s3_server() -> Iterator[S3]:
    """Both on 127.0.0.1, gone afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, server)
        with _proxy(port) as s3:
            yield s3
    finally:
        server.kill()
        server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        assert server.poll() is None, "the server ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"no server on port {port}"
            time.sleep(0.1)


def _in_s3_spelling(url: str) -> str:
    """Google's client writes "/" and "-" of names with a percent sign, which moto does not take."""
    path, mark, query = url.partition("?")
    return quote(unquote(path)) + mark + query


def _in_s3_words(headers: Mapping[str, str]) -> dict[str, str]:
    """As a client of Google's XML API says it, which else is S3's."""
    words = {name.lower(): value for name, value in headers.items()}
    if words.pop("x-goog-if-generation-match", None) == "0":
        words["if-none-match"] = "*"
    if not words.get("authorization", "").startswith("AWS4"):
        words["authorization"] = SIGNED
    if "x-goog-copy-source" in words:
        words["x-amz-copy-source"] = words.pop("x-goog-copy-source")
    return words


@contextmanager
def _proxy(port: int) -> Iterator[S3]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            s3.asked[self.command] += 1
            if s3.refusing:
                s3.refused += 1
                self._answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
                return
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.request(
                    self.command, _in_s3_spelling(self.path), body, _in_s3_words(self.headers)
                )
                answer = connection.getresponse()
                self._answer(answer.status, answer.getheaders(), answer.read())
            finally:
                connection.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            length = str(len(body))
            for name, value in headers:
                if self.command == "HEAD" and name.lower() == "content-length":
                    length = value
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    s3 = S3(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()
