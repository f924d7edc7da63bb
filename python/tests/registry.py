"""A registry of images that has one, which has one layer."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
import uuid
from pathlib import Path
from typing import Any


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Registry:
    """Answers at a port of this machine's, as long as the ``with`` block lasts."""

    def __init__(self, directory: Path) -> None:
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            member = tarfile.TarInfo("etc/marker")
            member.size = 1 << 20
            tar.addfile(member, io.BytesIO(uuid.uuid4().bytes * (member.size // 16)))
        packed = gzip.compress(layer.getvalue())
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
            }
        ).encode()
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": kind,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(config),
                    "digest": _digest(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": len(packed),
                        "digest": _digest(packed),
                    }
                ],
            }
        ).encode()
        blobs = {_digest(config): config, _digest(packed): packed}

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                last = self.path.rpartition("/")[2]
                if self.path.rstrip("/") == "/v2":
                    self._answer(200, b"{}", "application/json")
                elif "/manifests/" in self.path and last in ("1", _digest(manifest)):
                    self._answer(200, manifest, kind)
                elif "/blobs/" in self.path and last in blobs:
                    self._answer(200, blobs[last], "application/octet-stream")
                else:
                    self._answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', "application/json")

            do_HEAD = do_GET

            def _answer(self, status: int, content: bytes, what: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", what)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Docker-Content-Digest", _digest(content))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.image = f"127.0.0.1:{self._server.server_address[1]}/podkit-test/{directory.name.lower()}:1"

    def __enter__(self) -> Registry:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
