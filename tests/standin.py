"""A stand-in of the hub on this machine: what huggingface_hub asks of it, and every way in which it can fail.

Models and data sets alike. Files of `LARGE` bytes and more lie on a second server as the hub's do on a CDN,
behind a redirect. Point a test at it with `install`, a child process with `environment`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE = 4096


@dataclass
class Repository:
    """`commits` in their order; `main` is the last. With `gated`, files need the token."""

    commits: dict[str, dict[str, bytes]]
    card: dict[str, Any] = field(default_factory=dict)
    gated: bool = False
    granted: str = "hf_granted"

    def commit(self, revision: str) -> str | None:
        return list(self.commits)[-1] if revision == "main" else revision if revision in self.commits else None


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]


class StandIn:
    """Two servers, what they hold, how they fail, and every request that they saw."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.sent: Counter[str] = Counter()  # bytes of each file's body
        self.cuts: dict[str, list[int]] = {}  # file → offsets at which its connection is cut, once each
        self.statuses: dict[str, list[tuple[int, dict[str, str]]]] = {}  # end of a path → answers given first
        self.broken: set[str] = set()  # files that arrive with another byte
        self.stall: threading.Event | None = None  # what a connection waits for where it would be cut
        self.ranges = True
        self.xet = False  # whether large files claim to lie in the newer storage, as most of the hub's do
        self.hub, self.cdn = (_Server(self, main) for main in (True, False))

    @property
    def endpoint(self) -> str:
        return self.hub.address

    def add(self, name: str, files: Mapping[str, bytes], *, kind: str = "models", **more: Any) -> Repository:
        """A repository with one commit; `kind` is models or datasets."""
        made = Repository({commit_of(files): dict(files)}, **more)
        self.repositories[f"{kind}/{name}"] = made
        return made

    def install(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """This process asks the stand-in, and keeps its files in `cache`."""
        from huggingface_hub import constants

        template = self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {"ENDPOINT": self.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": template}.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)

    def environment(self, home: Path) -> dict[str, str]:
        """The same for a child process."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "HF_TOKEN": ""}

    def close(self) -> None:
        if self.stall:
            self.stall.set()
        for server in (self.hub, self.cdn):
            server.shutdown()
            server.server_close()


def commit_of(files: Mapping[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def blob_id(content: bytes) -> str:
    """What git calls a blob."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE else blob_id(content)


def _entry(path: str, content: bytes, key: str) -> dict[str, Any]:
    """A file as the listings have it; `key` is what they call its path by."""
    large = {"sha256": etag(content), "oid": etag(content), "size": len(content), "pointerSize": 134}
    git = {"size": len(content), "blobId": blob_id(content), "oid": blob_id(content), "type": "file", key: path}
    return git | ({"lfs": large} if len(content) >= LARGE else {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, standin: StandIn, main: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.standin, self.main = standin, main
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `requests`."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        standin, path = self.server.standin, unquote(urlsplit(self.path).path)
        standin.requests.append(Request(self.command, path, dict(self.headers)))
        for end, answers in standin.statuses.items():
            if path.endswith(end) and answers:
                status, headers = answers.pop(0)
                return self._empty(status, headers)
        if not self.server.main:
            return self._file(path.split("/")[2], path.rpartition("/")[2])
        if path.startswith("/api/"):
            return self._api(path.removeprefix("/api/"))
        return self._resolve(path.strip("/"))

    def _api(self, path: str) -> None:
        """/api/models/OWNER/NAME[/revision/REV | /tree/REV]"""
        kind, owner, name, *rest = path.split("/")
        repository = self.server.standin.repositories.get(f"{kind}/{owner}/{name}")
        if repository is None:
            return self._empty(404, {"X-Error-Code": "RepoNotFound"})
        commit = repository.commit("/".join(rest[1:]) or "main")
        if commit is None:
            return self._empty(404, {"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[commit]
        if rest[:1] == ["tree"]:
            xet = {"xetHash": "5" * 64} if self.server.standin.xet else {}
            entries = [_entry(path, content, "path") for path, content in files.items()]
            return self._json([entry | xet if "lfs" in entry else entry for entry in entries])
        found = {
            "id": f"{owner}/{name}",
            "sha": commit,
            "private": False,
            "gated": "auto" if repository.gated else False,
        }
        siblings = [_entry(path, content, "rfilename") for path, content in files.items()]
        return self._json(found | {"cardData": repository.card, "siblings": siblings, "tags": []})

    def _resolve(self, path: str) -> None:
        """/[datasets/]OWNER/NAME/resolve/REV/FILE"""
        kind = "datasets" if path.startswith("datasets/") else "models"
        name, _, rest = path.removeprefix("datasets/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        repository = self.server.standin.repositories.get(f"{kind}/{name}")
        if repository is None:
            return self._empty(404, {"X-Error-Code": "RepoNotFound"})
        if (commit := repository.commit(revision)) is None:
            return self._empty(404, {"X-Error-Code": "RevisionNotFound"})
        bearer = self.headers.get("Authorization", "")
        if repository.gated and bearer != f"Bearer {repository.granted}":
            return self._empty(403 if bearer else 401, {"X-Error-Code": "GatedRepo"})
        content = repository.commits[commit].get(file)
        if content is None:
            return self._empty(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(content)}"'}
        if len(content) < LARGE:
            return self._body(file, content, headers)
        linked = {"X-Linked-ETag": f'"{etag(content)}"', "X-Linked-Size": str(len(content))}
        if self.server.standin.xet:
            route = f"/api/{kind}/{name}/xet-read-token/{commit}"
            linked |= {"X-Xet-Hash": etag(content), "X-Xet-Refresh-Route": route}
        where = f"{self.server.standin.cdn.address}/cdn/{etag(content)}/{file}"
        return self._empty(302, headers | linked | {"Location": where})

    def _file(self, checksum: str, name: str) -> None:
        for repository in self.server.standin.repositories.values():
            for files in repository.commits.values():
                for content in files.values():
                    if etag(content) == checksum:
                        return self._body(name, content, {"ETag": f'"{checksum}"'})
        return self._empty(404, {})

    def _body(self, name: str, content: bytes, headers: dict[str, str]) -> None:
        standin, size, start = self.server.standin, len(content), 0
        if name in standin.broken:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = self.headers.get("Range", "")
        if asked and standin.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers = headers | {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        self.send_response(206 if asked and standin.ranges else 200)
        for key, value in (headers | {"Content-Length": str(size - start), "Accept-Ranges": "bytes"}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = standin.cuts.get(name, [])
        end = cuts.pop(0) if cuts else size
        self.wfile.write(content[start:end])
        self.wfile.flush()
        standin.sent[name] += max(0, end - start)
        if end < size:
            if standin.stall:
                standin.stall.wait()
            self.close_connection = True

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _empty(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(key, value)
        self.end_headers()
