"""A hub on this machine, with as much of the interface of huggingface.co as uploads and downloads of models use.

As there, large kinds of files go to a storage of their own, and a commit names them by their digest.
"""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN, USER = "hf_right", "me"


@dataclass
class Repository:
    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=lambda: [("0" * 40, {})])

    def files(self, revision="main"):
        return self.commits[-1][1] if revision == "main" else dict(self.commits).get(revision)

    def commit(self, added):
        """Adds files and returns the new revision."""
        files = {**self.files(), **added}
        parts = [
            len(self.commits),
            *sorted((name, hashlib.sha1(content).hexdigest()) for name, content in files.items()),
        ]
        self.commits.append((hashlib.sha1(repr(parts).encode()).hexdigest(), files))
        return self.commits[-1][0]


class FakeHub:
    """Repositories by name, and the requests that came, as "GET /path"."""

    def __init__(self):
        self.repositories, self.requests, self.stored = {}, [], {}
        self.refuse_commits = False


@contextmanager
def running_hub():
    """Starts a hub and yields it, with its address as `url`."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        self.route()

    do_GET = do_HEAD = do_PUT = do_POST

    def route(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(self.path.partition("?")[0]).strip("/")
        self.hub.requests.append(f"{self.command} /{path}")
        parts = path.split("/")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if parts[0] == "storage":
            self.hub.stored[parts[1]] = body
            self.answer(200)
        elif token and token != TOKEN:
            self.answer(
                401, {"error": "Invalid credentials"}, X_Error_Message="Invalid credentials in Authorization header"
            )
        elif path == "api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif path == "api/repos/create":
            self.create(json.loads(body), token)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.answer(200, {"objects": [self.ticket(wanted) for wanted in json.loads(body)["objects"]]})
        elif parts[0] == "api":
            self.of_repository("/".join(parts[2:4]), parts[4:], body, token)
        else:
            self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), token)

    def create(self, wanted, token):
        name = f"{wanted['organization']}/{wanted['name']}"
        if not token or wanted["organization"] != USER:
            self.answer(403 if token else 401, {"error": "You don't have the rights to create a model there"})
        elif name in self.hub.repositories:
            self.answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        else:
            self.hub.repositories[name] = Repository(private=wanted.get("visibility") == "private")
            self.answer(200, {"url": f"{self.hub.url}/{name}"})

    def ticket(self, wanted):
        return {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/storage/{wanted['oid']}"}}}

    def of_repository(self, name, rest, body, token):
        repository = self.seen(name, token)
        if repository is None:
            return
        if rest[:1] == ["preupload"]:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".wav")) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": modes})
        elif rest[:1] == ["commit"]:
            if self.hub.refuse_commits:
                self.answer(500, {"error": "the disk is full"})
                return
            added = {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    added[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    added[value["path"]] = self.hub.stored[value["oid"]]
            revision = repository.commit(added)
            self.answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{revision}", "commitOid": revision})
        else:
            self.answer(200, {"id": name, "sha": repository.commits[-1][0], "private": repository.private})

    def file(self, name, revision, path, token):
        repository = self.seen(name, token)
        if repository is None:
            return
        files = repository.files(revision)
        commit = repository.commits[-1][0] if revision == "main" else revision
        if files is None:
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif path not in files:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        else:
            etag = hashlib.sha256(files[path]).hexdigest()
            self.answer(200, files[path], ETag=f'"{etag}"', X_Repo_Commit=commit)

    def seen(self, name, token):
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not token):
            self.answer(401 if not token else 404, X_Error_Code="RepoNotFound")
            return None
        return repository
