"""A small client of the engine's API over its unix socket: what the checks and the bed itself need.

Written apart from the program's own, so that each can find the other's mistakes.
"""

import http.client
import io
import json
import socket
import struct
import tarfile
import time
import urllib.parse

NEWEST = (1, 44)


class DockerError(Exception):
    """What the engine refused; `status` is the HTTP status."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def demultiplexed(data):
    """The frames of a log as [(stream, bytes)]; stream is 1 (stdout) or 2 (stderr)."""
    frames, at = [], 0
    while at + 8 <= len(data):
        stream, size = struct.unpack(">BxxxI", data[at : at + 8])
        frames.append((stream, data[at + 8 : at + 8 + size]))
        at += 8 + size
    return frames


class Docker:
    """One engine. Each call is a connection of its own, so calls may come from several threads."""

    def __init__(self, socket_path, timeout=60):
        self.socket_path, self.timeout = socket_path, timeout
        self._version = None

    @property
    def version(self):
        """The prefix of all paths, from the first answer of the engine."""
        if not self._version:
            newest = tuple(int(part) for part in self.get("/version", plain=True)["ApiVersion"].split("."))
            self._version = "v%d.%d" % min(newest, NEWEST)
        return self._version

    def open(self, method, path, body=None, /, content_type=None, plain=False, timeout=None, **query):
        """Sends a request; returns the answer unread, its status below 400. The caller reads or closes it."""
        if query:
            pairs = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in query.items()}
            path += "?" + urllib.parse.urlencode(pairs, doseq=True)
        headers = {"Content-Type": content_type} if content_type else {}
        if isinstance(body, (dict, list)):
            body, headers = json.dumps(body), {"Content-Type": "application/json"}
        prefix = "" if plain else "/" + self.version
        connection = _Connection(self.socket_path, timeout or self.timeout)
        connection.request(method, prefix + path, body, headers)
        answer = connection.getresponse()
        if answer.status >= 400:
            text = answer.read().decode(errors="replace")
            try:
                text = json.loads(text)["message"]
            except (ValueError, KeyError, TypeError):
                pass
            raise DockerError(answer.status, f"{method} {path}: {text}")
        return answer

    def bytes(self, method, path, body=None, /, **options):
        with self.open(method, path, body, **options) as answer:
            return answer.read()

    def get(self, path, /, **options):
        return json.loads(self.bytes("GET", path, **options))

    def post(self, path, body=None, /, **options):
        data = self.bytes("POST", path, {} if body is None else body, **options)
        return json.loads(data) if data.strip() else None

    def delete(self, path, /, missing_ok=False, **options):
        try:
            self.bytes("DELETE", path, **options)
        except DockerError as error:
            if not (missing_ok and error.status == 404):
                raise

    def answers(self):
        try:
            return bool(self.bytes("GET", "/_ping", plain=True, timeout=10))
        except (OSError, DockerError, http.client.HTTPException):
            return False

    # Containers

    def containers(self, **filters):
        """All that match, running or not, e.g. label=["app=test_worker"]."""
        return self.get("/containers/json", all=1, filters=filters)

    def create(self, image, command=None, name=None, **more):
        """`more` is what else the request's JSON holds. Returns the id."""
        query = {"name": name} if name else {}
        return self.post("/containers/create", {"Image": image, "Cmd": command, **more}, **query)["Id"]

    def start(self, container):
        self.post(f"/containers/{container}/start")

    def wait(self, container, timeout=None):
        """Its exit code, once it is not running."""
        return self.post(f"/containers/{container}/wait", timeout=timeout)["StatusCode"]

    def kill(self, container, signal="KILL"):
        self.post(f"/containers/{container}/kill", signal=signal)

    def remove(self, container):
        """Returns when it is gone, whoever removes it: 409 says that somebody else is about to."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return self.delete(f"/containers/{container}", missing_ok=True, force=1, v=1)
            except DockerError as error:
                if error.status != 409 or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def inspect(self, container):
        return self.get(f"/containers/{container}/json")

    def logs(self, container):
        """What it printed, both streams in order."""
        data = self.bytes("GET", f"/containers/{container}/logs", stdout=1, stderr=1)
        return b"".join(frame for _, frame in demultiplexed(data))

    def put(self, container, directory, files):
        """Writes {name: bytes} into a directory of the container."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        path = f"/containers/{container}/archive"
        self.bytes("PUT", path, buffer.getvalue(), content_type="application/x-tar", path=directory)

    def member(self, container, path):
        """(tarfile.TarInfo, bytes or None) of one path of the container; (None, None) when it is not there."""
        try:
            data = self.bytes("GET", f"/containers/{container}/archive", path=path)
        except DockerError as error:
            if error.status == 404:
                return None, None
            raise
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            entry = tar.next()
            return entry, tar.extractfile(entry).read() if entry.isreg() else None

    # Volumes, networks, images, events

    def volumes(self, **filters):
        return self.get("/volumes", filters=filters)["Volumes"] or []

    def create_volume(self, name=None, **labels):
        """Its name; an anonymous one without."""
        return self.post("/volumes/create", {"Labels": labels} | ({"Name": name} if name else {}))["Name"]

    def remove_volume(self, name):
        """Returns when it is gone: of a container that is being removed, the volume stays in use for a while (409)."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return self.delete(f"/volumes/{name}", missing_ok=True)
            except DockerError as error:
                if error.status != 409 or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def networks(self, **filters):
        return self.get("/networks", filters=filters)

    def create_network(self, name, labels=None):
        return self.post("/networks/create", {"Name": name, "CheckDuplicate": True, "Labels": labels or {}})["Id"]

    def gateway(self, network):
        """The host's own address in a network."""
        return self.get(f"/networks/{network}")["IPAM"]["Config"][0]["Gateway"]

    def remove_network(self, network):
        self.delete(f"/networks/{network}", missing_ok=True)

    def image(self, name):
        """The image's description, or None."""
        try:
            return self.get(f"/images/{name}/json")
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    def import_image(self, tar, repository, tag, changes):
        """Makes an image of a root file system; `changes` are lines such as those of a Dockerfile."""
        answer = self.bytes(
            "POST",
            "/images/create",
            tar,
            content_type="application/x-tar",
            fromSrc="-",
            repo=f"{repository}:{tag}",  # podman passes over a `tag` beside it
            changes=changes,
        )
        for line in answer.decode().splitlines():
            if line.strip() and "error" in json.loads(line):
                raise DockerError(200, json.loads(line)["error"])

    def tag(self, image, repository, tag):
        self.post(f"/images/{image}/tag", repo=repository, tag=tag)

    def remove_image(self, name):
        self.delete(f"/images/{name}", missing_ok=True)

    def events(self, since, until, **filters):
        """What happened between two times (seconds), at most the engine's last 256 events."""
        data = self.bytes("GET", "/events", since=since, until=until, filters=filters)
        return [json.loads(line) for line in data.decode().splitlines() if line.strip()]
