"""A file server on loopback that stands in for Hugging Face and for Google Drive."""

import hashlib
import io
import json
import re
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from fast3d_core.download import source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS = 1000  # files of so many bytes have a sha256, as at Hugging Face those in LFS


def zipped(**files):
    """A zip archive; a name's "__" is a slash."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/"), data)
    return content.getvalue()


@dataclass
class Server:
    """What is served, what goes wrong, and what was asked.

    Attributes:
        repos: "models/owner/name" -> {path: content}.
        drive: id -> (file name, content), or for a folder a list of (name, id).
        answers: path prefix -> statuses that the next requests get instead of an answer; a status repeats if negative.
        cut: path prefix -> bytes after which the next answer ends.
        instead: path prefix -> what is answered there, as a page.
        lies: what listings say instead, (path) -> {"size"} or {"sha256"}.
    """

    url: str = ""
    repos: dict = field(default_factory=dict)
    drive: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)
    cut: dict = field(default_factory=dict)
    instead: dict = field(default_factory=dict)
    lies: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)

    def ranges(self, path):
        return [asked["range"] for asked in self.asked if asked["path"].endswith(path) and asked["verb"] == "GET"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        state, path = self.server_state, unquote(urlsplit(self.path).path)
        query = parse_qs(urlsplit(self.path).query)
        if path == "/api/agent-harnesses":  # huggingface_hub's own business
            return self._send(404, b"", {})
        state.asked.append(
            {"verb": self.command, "path": self.path, "range": self.headers.get("Range"),
             "token": self.headers.get("Authorization")}
        )  # fmt: skip
        for prefix, statuses in state.answers.items():
            if statuses and self.path.startswith(prefix):
                return self._send(abs(statuses[0]) if statuses[0] < 0 else statuses.pop(0), b"no", {"Retry-After": "0"})
        for prefix, content in state.instead.items():
            if self.path.startswith(prefix):
                return self._send(200, content, {"Content-Type": "text/html"})
        if found := re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+?)(?:/revision/(.+))?", path):
            return self._list(found[1], found[2])
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(f"{'datasets' if found[1] else 'models'}/{found[2]}", found[3], found[4])
        if path in ("/uc", "/embeddedfolderview"):
            return self._drive(query["id"][0], path == "/embeddedfolderview")
        return self._send(404, b"", {})

    def _list(self, repo, revision):
        files = self.server_state.repos.get(repo)
        if files is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if revision not in (None, "main", "v2", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        entries = []
        for name, content in files.items():
            entry = {"rfilename": name, "size": len(content), "blobId": git(content)}
            if len(content) >= LFS:
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
            lie = self.server_state.lies.get(name, {})
            if "sha256" in lie:
                entry["lfs"]["sha256"] = lie["sha256"]
            entries.append(entry | {key: value for key, value in lie.items() if key == "size"})
        answer = {"id": repo.partition("/")[2], "sha": COMMIT, "siblings": entries, "tags": [], "private": False}
        return self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, repo, revision, name):
        content = self.server_state.repos.get(repo, {}).get(name)
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(content).hexdigest() if len(content) >= LFS else git(content)
        return self._content(content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _drive(self, identity, folder):
        found = self.server_state.drive.get(identity)
        if found is None:
            return self._send(404, b"<html>no</html>", {"Content-Type": "text/html"})
        if folder:
            link = "https://drive.google.com/{}{}{}"
            lines = [
                f'<a href="{link.format("drive/folders/", id_, "")}">{name}</a>'
                if isinstance(self.server_state.drive.get(id_), list)
                else f'<a href="{link.format("file/d/", id_, "/view")}">{name}</a>'
                for name, id_ in found
            ]
            folders = [entry for entries in self.server_state.drive.values() for entry in entries]
            title = next((entry[0] for entry in folders if entry[1:] == (identity,)), "all")
            page = f"<html><title>{title}</title>{''.join(lines)}</html>".encode()
            return self._send(200, page, {"Content-Type": "text/html"})
        name, content = found
        if name is None:  # a page that says no, as Drive does with status 200
            return self._send(200, content, {"Content-Type": "text/html"})
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Type": "application/octet-stream"}
        return self._content(content, headers)

    def _content(self, content, headers):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if asked else 200, content[start:], headers)

    def _send(self, status, content, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        for prefix, cuts in self.server_state.cut.items():
            if cuts and self.path.startswith(prefix):
                self.wfile.write(content[: cuts.pop(0)])
                self.close_connection = True
                return
        self.wfile.write(content)


def git(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def served():
    """A server with nothing on it yet."""
    state = Server()
    handler = type("Served", (Handler,), {"server_state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield state
        server.shutdown()


@pytest.fixture
def hub(served, monkeypatch, tmp_path):
    """Hugging Face's place taken by `served`, as HF_ENDPOINT does when a process starts; an empty cache, no waiting."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(source.time, "sleep", lambda seconds: None)
    return served


@pytest.fixture
def drive(hub, monkeypatch, tmp_path):
    """Google Drive's place taken by `hub`'s server, too: gdown's own requests are sent there."""
    pytest.importorskip("gdown", reason="the extra gdrive is not installed")
    import sys

    import requests

    get = requests.Session.get
    monkeypatch.setattr(
        requests.Session,
        "get",
        lambda self, url, **more: get(self, url.replace("https://drive.google.com", hub.url), **more),
    )
    monkeypatch.setattr(sys.modules["gdown.download"], "CHUNK_SIZE", 10_000)
    monkeypatch.setattr(sys.modules["gdown.download"], "DEFAULT_COOKIES_FILE", str(tmp_path / "cookies.txt"))
    monkeypatch.setattr(source.time, "sleep", lambda seconds: None)
    return hub
