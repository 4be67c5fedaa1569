"""Plays QFieldCloud's web API for containers: a project's files, and package files of a job that is running.

Paths are those of QFieldCloud's own client library. Each request is checked as the web application does: the token must
be there, not expired and a worker's, and a job of the project must be `started`. What arrives is kept in the database's
tables and in its `objects`, and each request in `requests`. `answer` and `delay` make it fail or slow.
"""

import http.server
import json
import re
import socket
import threading
import time
import urllib.parse

from .rows import PACKAGE_FILE, PROJECT_FILE

PREFIX = "/api/v1/"
IP_FREEBIND = 15  # of linux/in.h
UUID = "[0-9a-f-]{36}"
ROUTES = [
    ("GET", re.compile("status/"), "status"),
    ("GET", re.compile(f"files/(?P<project>{UUID})/?"), "list"),
    ("GET", re.compile(f"files/(?P<project>{UUID})/(?P<name>.+?)/?"), "download"),
    ("POST", re.compile(f"files/(?P<project>{UUID})/(?P<name>.+?)/?"), "upload"),
    ("POST", re.compile(f"packages/(?P<project>{UUID})/(?P<job>{UUID})/files/(?P<name>.+?)/?"), "package"),
]


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.body = status, {"code": code, "message": message}


class Request:
    """What a test can look at: method, path, token, the route's parts, the status answered."""

    def __init__(self, method, path, token):
        self.method, self.path, self.token = method, path, token
        self.route, self.parts, self.status = None, {}, None

    def __repr__(self):
        return f"{self.method} {self.path} -> {self.status}"


def form_file(content_type, body):
    """The bytes of the one file of a multipart form."""
    match = re.search(r'boundary="?([^";]+)', content_type or "")
    if not match:
        raise Refused(400, "validation_error", "not a multipart form")
    parts = body.split(b"--" + match.group(1).encode())
    for part in parts[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content[:-2]
    raise Refused(400, "validation_error", "the form has no file")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer()

    do_POST = do_GET

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, (self.headers.get("Authorization") or "").partition("token ")[2])
        request.status, content = self.server.player.handle(request, self.headers.get("Content-Type"), body)
        if not isinstance(content, bytes):
            content = json.dumps(content, ensure_ascii=False).encode()
        self.send_response(request.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args):
        """Nothing: `requests` has it."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self):
        """Podman gives the machine a network's address only while a container is in it."""
        self.socket.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        super().server_bind()

    def handle_error(self, request, client_address):
        """A container that was killed hangs up in the middle: no matter."""


class Api:
    """The player, listening on an address of the engine's network; `url` is what containers are given."""

    def __init__(self, database, engine, gateway, port=0):
        self.database, self.engine, self.requests = database, engine, []
        self._rules, self._lock = [], threading.Lock()
        self._connection_lock = threading.Lock()
        self._server = engine.inside(_Server, (gateway, port), _Handler)
        self._server.player = self
        self.url = f"http://{gateway}:{self._server.server_address[1]}{PREFIX}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # What a test asks for

    def answer(self, status, match="", times=None):
        """Answers `status` to requests whose "METHOD path" matches, for ever or so many times."""
        self._rules.append({"match": re.compile(match), "status": status, "seconds": 0, "times": times})

    def delay(self, seconds, match="", times=None):
        """Waits before it answers such requests."""
        self._rules.append({"match": re.compile(match), "status": None, "seconds": seconds, "times": times})

    def behave(self):
        """Forgets all that `answer` and `delay` asked for."""
        with self._lock:
            self._rules.clear()

    def uploaded(self, job):
        """{name: bytes} of the package files of a job."""
        with self._connection_lock:
            rows = self.database.execute(
                "SELECT f.name, v.content FROM filestorage_file f JOIN filestorage_fileversion v "
                "ON v.id = f.latest_version_id WHERE f.package_job_id = %s AND f.file_type = 2",
                job["id"],
            )
        return {row["name"]: self.database.objects[row["content"]] for row in rows}

    # Requests

    def handle(self, request, content_type, body):
        """Returns status and body; also what the handler's thread calls."""
        with self._lock:
            self.requests.append(request)
        try:
            self._obey_rules(request)
            act = self._route(request)
            with self._connection_lock:
                if request.route != "status":
                    self._authenticate(request)
                return 200, act(request, content_type, body)
        except Refused as refused:
            return refused.status, refused.body
        except Exception as error:  # noqa: BLE001 (the container is told, and the test can see it)
            return 500, {"code": "bed_error", "message": str(error)}

    def _obey_rules(self, request):
        with self._lock:
            line = f"{request.method} {request.path}"
            rules = [rule for rule in self._rules if rule["times"] != 0 and rule["match"].search(line)]
            for rule in rules:
                rule["times"] = None if rule["times"] is None else rule["times"] - 1
        for rule in rules:
            time.sleep(rule["seconds"])
            if rule["status"]:
                raise Refused(rule["status"], "told_to", f"this request was to be answered with {rule['status']}")

    def _route(self, request):
        path = urllib.parse.unquote(urllib.parse.urlsplit(request.path).path)
        if path.startswith(PREFIX):
            for method, pattern, name in ROUTES:
                match = pattern.fullmatch(path[len(PREFIX) :])
                if match and method == request.method:
                    request.route, request.parts = name, match.groupdict()
                    return getattr(self, "_" + name)
        raise Refused(404, "not_found", "there is nothing at this path")

    def _authenticate(self, request):
        user = self.database.value(
            "SELECT user_id FROM authentication_authtoken "
            "WHERE key = %s AND expires_at > now() AND client_type = 'worker'",
            request.token,
        )
        if user is None:
            raise Refused(401, "token_authentication_failed", "Invalid token.")
        started = self.database.execute(
            "SELECT id::text FROM core_job WHERE project_id = %s AND status = 'started' AND created_by_id = %s",
            request.parts["project"],
            user,
        )
        job = request.parts.get("job")
        if not started or (job and job not in [row["id"] for row in started]):
            raise Refused(403, "permission_denied", "the token's user has no started job here")

    def _file(self, request):
        return self.database.one(
            "SELECT f.*, v.content FROM filestorage_file f "
            "JOIN filestorage_fileversion v ON v.id = f.latest_version_id WHERE f.project_id = %s AND f.name = %s AND f.file_type = 1",
            request.parts["project"],
            request.parts["name"],
        )

    def _status(self, _request, _content_type, _body):
        return {"database": "ok", "storages": {}}

    def _list(self, request, _content_type, _body):
        rows = self.database.execute(
            "SELECT f.name, v.size, encode(v.md5sum, 'hex') AS md5sum FROM filestorage_file f "
            "JOIN filestorage_fileversion v ON v.id = f.latest_version_id "
            "WHERE f.project_id = %s AND f.file_type = 1 ORDER BY f.name",
            request.parts["project"],
        )
        return rows

    def _download(self, request, _content_type, _body):
        file = self._file(request)
        if not file:
            raise Refused(404, "object_not_found", "no such file")
        return self.database.objects[file["content"]]

    def _upload(self, request, content_type, body):
        return self._store(request, PROJECT_FILE, "files", form_file(content_type, body), self._file(request))

    def _package(self, request, content_type, body):
        place = f"packages/{request.parts['job']}"
        return self._store(request, PACKAGE_FILE, place, form_file(content_type, body), None)

    def _store(self, request, file_type, place, content, file):
        parts = request.parts
        if not file:
            values = {"project_id": parts["project"], "name": parts["name"], "package_job_id": parts.get("job")}
            file = self.database.insert("filestorage_file", file_type=file_type, **values)
        key = f"projects/{parts['project']}/{place}/{parts['name']}"
        self.database.version(file, key, content)
        return {"name": parts["name"], "size": len(content)}
