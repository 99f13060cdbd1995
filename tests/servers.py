"""A server on loopback that speaks the model hub's protocol, and fails as it is told."""

import hashlib
import http.server
import re
import threading

WEIGHTS = "/me/tiny/resolve/main/model.safetensors"


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, a dict from path to bytes, as the hub does; `faults`, a dict from path to a list, come first.

    A fault is a status, or "cut" (half of what is asked for, then the end), "truncated" (half a file for a whole one),
    "damaged" (other bytes), "html" (a page), "slow"; it happens to one GET, or HEAD too if it is a status in a list
    under "HEAD path". `requests` are kept as (method, path, Range).
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests, self.authorization = {}, {}, [], set()
        self.commit = f"{1:040x}"
        self.digest = "sha256"  # of large files; "git" is how the hub knows small ones
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Stay silent where a client has gone away."""

    def add_model(self, hub_id, files):
        for name, content in files.items():
            self.files[f"/{hub_id}/resolve/main/{name}"] = content

    def asked(self, method="GET"):
        """Return the names of the files that were asked for, in order."""
        return [path.rsplit("/", 1)[1] for m, path, _ in self.requests if m == method and "/resolve/" in path]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers for a Server."""

    def do_HEAD(self):
        server, start = self.server, self.headers.get("Range", "")
        server.requests.append((self.command, self.path, start))
        server.authorization.add(self.headers.get("Authorization"))
        # every revision of a model has the same files
        path = re.sub(r"/resolve/[^/]+/", "/resolve/main/", self.path)
        content = server.files.get(path)
        faults = server.faults.get(path if self.command == "GET" else f"HEAD {path}") or [None]
        fault = faults.pop(0)
        if isinstance(fault, int) or content is None:
            return self.refuse(fault or 404, any(p.startswith(path.split("/resolve")[0] + "/") for p in server.files))
        self.answer(content, fault, int(start.removeprefix("bytes=").removesuffix("-") or 0))

    do_GET = do_HEAD

    def refuse(self, status, known_model):
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound" if known_model else "RepoNotFound")
        self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, content, fault, start):
        etag = hashlib.sha256(content).hexdigest()
        if self.server.digest == "git":
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if fault == "html":
            content, start = b"<html>Please log in to this network</html>", 0
        if fault == "damaged":
            content = bytes(byte ^ 1 for byte in content)
        if fault == "truncated":
            content = content[: len(content) // 2]
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("Content-Type", "text/html" if fault == "html" else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            for part in range(0, len(body) // 2 if fault == "cut" else len(body), max(len(body) // 5, 1)):
                if fault == "slow":
                    threading.Event().wait(0.2)
                end = min(part + max(len(body) // 5, 1), len(body) // 2 if fault == "cut" else len(body))
                self.wfile.write(body[part:end])

    def log_message(self, *arguments):
        pass


def change(hub, **files):
    """Change files of me/tiny (dots are written as __); None deletes."""
    for name, content in files.items():
        path = f"/me/tiny/resolve/main/{name.replace('__', '.')}"
        hub.files[path] = content
        if content is None:
            del hub.files[path]
    hub.commit = f"{int(hub.commit, 16) + 1:040x}"
