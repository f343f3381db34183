"""A server on the loopback that plays Hugging Face, ModelScope and a host of files, and misbehaves on request."""

import gzip
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class Hub:
    """`files` maps paths to bytes; `repositories` maps OWNER/NAME to files by name.

    `faults[path]` lists what to do instead of serving, one for each request that comes: `("cut", bytes)`,
    `("status", code, headers)`, `("ignore range",)`, `("wrong range",)`, `("length", n)`, `("data", bytes)`,
    `("redirect", address)`, `("endless",)`, `("gzip",)`, `("html",)`, or None. `slow` are seconds before each block.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.faults: dict[str, list] = {}
        self.etags: dict[str, str | None] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.slow = 0.0
        self.sizes_listed = True
        self.conditions = True  # whether If-Range is obeyed
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self)

            def do_HEAD(self):
                hub.answer(self)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, address):
                """Clients that hang up are what is tested."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.cdn = self.url.replace("127.0.0.1", "localhost")  # for clients, another host
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def gets(self, path: str) -> list[dict[str, str]]:
        """The headers of the requests for a path."""
        return [headers for method, where, headers in self.requests if method == "GET" and where == path]

    def answer(self, handler) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.requests.append((handler.command, path, dict(handler.headers)))
        queue = self.faults.get(path) or [None]
        fault = queue.pop(0) if self.faults.get(path) else None
        kind, *arguments = fault or (None,)
        if kind == "status":
            return send(handler, arguments[0], b"refused", arguments[1] if len(arguments) > 1 else {})
        if kind == "redirect":
            return send(handler, 302, b"", {"Location": arguments[0]})
        if kind == "html":
            return send(handler, 200, b"<html>please log in</html>", {"Content-Type": "text/html; charset=utf-8"})
        data, headers = self.find(path)
        if data is None:
            return send(handler, 404, b"no such thing", headers)
        if headers.get("Location"):
            return send(handler, 302, b"", headers)
        return self.serve(handler, path, arguments[0] if kind == "data" else data, headers, kind, arguments)

    def find(self, path: str) -> tuple[bytes | None, dict[str, str]]:
        """The bytes at a path, and headers to send with them."""
        if path in self.files:
            etag = self.etags.get(path, f'"{hashlib.md5(self.files[path]).hexdigest()}"')
            return self.files[path], {"ETag": etag} if etag else {}
        if match := re.fullmatch(r"/api/models/(.+?)/revision/(.+)", path):
            files = self.repositories.get(match[1])
            return (None if files is None else json.dumps(self.listing(files)).encode()), {}
        if match := re.fullmatch(r"/api/v1/models/(.+?)/repo/files", path):
            files = self.repositories.get(match[1])
            return (None if files is None else json.dumps(modelscope_listing(files)).encode()), {}
        if match := re.fullmatch(r"(?:/models)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            data = self.repositories.get(match[1], {}).get(match[3])
            if data is None:
                return None, {"X-Repo-Commit": COMMIT, "X-Error-Code": "EntryNotFound"}
            sha256 = hashlib.sha256(data).hexdigest()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{git_sha1(data)}"'}
            if large(match[3]) and not path.startswith("/models"):  # on a CDN
                self.files[f"/cdn/{sha256}"] = data
                headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
                headers["Location"] = f"{self.cdn}/cdn/{sha256}"
            return data, headers
        return None, {}

    def listing(self, files: dict[str, bytes]) -> dict:
        siblings = []
        for name, data in files.items():
            entry = {"rfilename": name}
            if self.sizes_listed:
                entry |= {"size": len(data), "blobId": git_sha1(data)}
                if large(name):
                    entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        return {"id": "x", "sha": COMMIT, "siblings": siblings}

    def serve(self, handler, path, data, headers, kind, arguments) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked and kind != "ignore range" else 0
        condition = handler.headers.get("If-Range")
        if condition and condition != headers.get("ETag") and self.conditions:
            start = 0
        if asked and start >= len(data):
            return send(handler, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
        status = 206 if asked and start else 200
        if status == 206:
            start = start // 2 if kind == "wrong range" else start
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if kind == "gzip":
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        length = arguments[0] if kind == "length" else len(body)
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if kind == "endless":
            handler.send_header("Connection", "close")
        else:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        if handler.command == "HEAD":
            return None
        if kind == "endless":
            handler.close_connection = True
            for _ in range(1 << 14):
                handler.wfile.write(bytes(1 << 16))
        if kind == "cut":
            body = body[: max(0, arguments[0] - start)]
        for begin in range(0, len(body), 1 << 14):
            if self.slow:
                time.sleep(self.slow)
            handler.wfile.write(body[begin : begin + (1 << 14)])
        if kind in ("cut", "length"):
            handler.wfile.flush()
            handler.close_connection = True
        return None


def large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def modelscope_listing(files: dict[str, bytes]) -> dict:
    listed = [
        {"Path": name, "Name": name, "Type": "blob", "Size": len(data), "Sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]
    return {"Code": 200, "Data": {"Files": [*listed, {"Path": "onnx", "Name": "onnx", "Type": "tree", "Size": 0}]}}


def send(handler, status: int, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def fetch_slowly(url: str, size: int, sha256: str, path: str) -> None:
    """What a process does that a test kills."""
    from bert4x.hub.transfer import Remote, fetch
    from bert4x.hub.web import new_session

    with new_session() as session:
        fetch(session, Remote("weights.bin", url, size, sha256), Path(path))


def download_here(name: str, environment: dict[str, str], results) -> None:
    """What one of several processes does."""
    import os

    os.environ.update(environment)
    from bert4x.hub import download

    results.put(str(download(name)))
