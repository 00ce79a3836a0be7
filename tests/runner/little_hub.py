"""A hub of one model on a loopback port: the part of Hugging Face's API that a download needs."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL = "org/little"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(folder: Path, asked: list[str] | None = None) -> Iterator[str]:
    """Serves the files of a folder as MODEL; gives the address. `asked` gets a line for each file that is sent."""
    told = [] if asked is None else asked

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            api, name = f"/api/models/{MODEL}", re.sub(rf"^/{MODEL}/resolve/({COMMIT}|main)/", "", path)
            if path == api or path.startswith(f"{api}/revision/"):
                self._send(json.dumps(_info(folder)).encode(), body, "application/json")
            elif path.startswith(f"{api}/tree/"):
                self._send(json.dumps(_tree(folder)).encode(), body, "application/json")
            elif name != path and (folder / name).is_file():
                told.append(f"{name} {self.headers.get('Range', 'whole')}")
                self._send((folder / name).read_bytes(), body, "application/octet-stream")
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _send(self, data: bytes, body: bool, kind: str) -> None:
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if span is not None:
                data = data[int(span[1]) : int(span[2]) + 1]
            self.send_response(206 if span is not None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _info(folder: Path) -> dict[str, object]:
    siblings = [{"rfilename": path.name, "size": path.stat().st_size} for path in _files(folder)]
    return {"id": MODEL, "modelId": MODEL, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}


def _tree(folder: Path) -> list[dict[str, object]]:
    return [
        {
            "type": "file",
            "path": path.name,
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for path in _files(folder)
    ]
