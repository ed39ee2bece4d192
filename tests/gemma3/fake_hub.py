"""A Hugging Face Hub on loopback: enough of its HTTP API for ``huggingface_hub`` to download a repository, and ways to fail."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """Serves the files of one repository, whatever its name.

    ``fail`` is an HTTP status for every request, ``error_code`` the Hub's ``X-Error-Code`` beside it; ``cut_short`` closes the
    connection in the middle of the weights; ``corrupt`` flips a byte of them.
    """

    files: dict[str, bytes]
    fail: int = 0
    error_code: str = ""
    cut_short: bool = False
    corrupt: bool = False
    requests: list[str] = field(default_factory=list)
    url: str = ""


def hub_of(folder: Path, **failures: object) -> FakeHub:
    return FakeHub({path.name: path.read_bytes() for path in folder.iterdir()}, **failures)


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(send_body=False)

        def do_GET(self) -> None:
            self.answer(send_body=True)

        def answer(self, *, send_body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if hub.fail:
                return self.reply(
                    hub.fail, b'{"error": "refused"}', {"X-Error-Code": hub.error_code}, send_body=send_body
                )
            if self.path.startswith("/api/models/"):
                return self.reply(200, json.dumps(self.listing()).encode(), {}, send_body=send_body)
            return self.send_file(self.named_file(), send_body=send_body)

        def named_file(self) -> str:
            """``sub/x.gguf`` of ``/owner/name/resolve/main/sub/x.gguf?download=true``."""
            revision_and_name = self.path.partition("/resolve/")[2].partition("?")[0]
            return unquote(revision_and_name.partition("/")[2])

        def listing(self) -> object:
            if "/tree/" in self.path:
                return [
                    {"type": "file", "path": name, "size": len(data), "oid": ""} for name, data in hub.files.items()
                ]
            siblings = [{"rfilename": name, "size": len(data)} for name, data in hub.files.items()]
            return {"id": "owner/name", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}

        def send_file(self, name: str, *, send_body: bool) -> None:
            data = hub.files.get(name)
            if data is None:
                return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, send_body=send_body)
            is_large = name.endswith((".safetensors", ".gguf"))
            digest = (hashlib.sha256 if is_large else hashlib.sha1)(data).hexdigest()
            headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{digest}"'}
            if is_large and hub.corrupt:
                data = data[:-1] + bytes([data[-1] ^ 1])
            return self.reply(200, data, headers, send_body=send_body, cut=is_large and hub.cut_short)

        def reply(
            self, status: int, data: bytes, headers: dict[str, str], *, send_body: bool, cut: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if send_body:
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
