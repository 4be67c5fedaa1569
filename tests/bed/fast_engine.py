"""An engine that is played, for tests of thousands of jobs: the Docker API as far as the program and the old loop call
it, on a unix socket, with containers that are only a timer, an exit code, a log and a feedback.json.

What a container does is told beforehand by a `Script` for its job. Whatever is asked that is not played here is refused
with 400 and kept in `unplayed`. `events` has all that happened to containers, in order.
"""

import asyncio
import collections
import dataclasses
import io
import json
import os
import re
import secrets
import struct
import tarfile
import threading
import time
import urllib.parse

API_VERSION, OLDEST = "1.44", "1.24"
REASONS = {200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified", 400: "Bad Request", 404: "Not Found",
           409: "Conflict", 500: "Internal Server Error"}  # fmt: skip


@dataclasses.dataclass
class Script:
    """What the container of a job does; `refuse_creates` and `refuse_starts` are how often the engine says 500 first,
    to the program (the old loop knows no second attempt)."""

    run_s: float = 0.01
    start_s: float = 0.0  # until the engine has started it
    exit_code: int = 0
    log: bytes = b""
    feedback: bytes = None
    refuse_creates: int = 0
    refuse_starts: int = 0


# `what`: create, start, exit, kill, remove; `at`: seconds since 1970
Event = collections.namedtuple("Event", "at what container job project ours")


class Refused(Exception):
    """An answer that is none of success."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Container:
    """One container; `ours` is one that the program has made, which names its containers."""

    def __init__(self, name, body):
        self.name, self.labels, self.image = name, body.get("Labels") or {}, body.get("Image", "")
        self.job, self.project = self.labels.get("job_id"), self.labels.get("project_id")
        self.ours = bool(name) and name.startswith("qfc-")
        self.id = secrets.token_hex(32)
        self.status, self.exit_code, self.files = "created", 0, {}
        self.timer, self.waiting = None, []


def tar_of(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Containers:
    """The engine's state and what its calls do to it; only the loop's thread comes here."""

    def __init__(self, scripts):
        self.scripts, self.by_id, self.events, self.refusals = scripts, {}, [], 0

    def _note(self, what, container):
        ours, job, project = container.ours, container.job, container.project
        self.events.append(Event(time.time(), what, container.id, job, project, ours))

    def find(self, id_or_name):
        found = self.by_id.get(id_or_name)
        for container in self.by_id.values() if not found else ():
            if container.name == id_or_name:
                return container
        if not found:
            raise Refused(404, f"No such container: {id_or_name}")
        return found

    def _refuse_some(self, container, attribute):
        left = getattr(self.scripts[container.job], attribute)
        if container.ours and left > 0:
            setattr(self.scripts[container.job], attribute, left - 1)
            self.refusals += 1
            raise Refused(500, "a fault that is played")

    def create(self, name, body):
        container = Container(name, body)
        if container.job not in self.scripts:
            raise Refused(400, f"there is no script for job {container.job}")
        if name and any(other.name == name for other in self.by_id.values()):
            raise Refused(409, f'Conflict. The container name "/{name}" is already in use')
        self._refuse_some(container, "refuse_creates")
        self.by_id[container.id] = container
        self._note("create", container)
        return container

    def start(self, container):
        if container.status == "running":
            return 304
        self._refuse_some(container, "refuse_starts")
        container.status = "running"
        self._note("start", container)
        run_s = self.scripts[container.job].run_s
        container.timer = asyncio.get_running_loop().call_later(run_s, self.exit, container, None)
        return 204

    def exit(self, container, code):
        """Ends a container by itself (None), or with the exit code of a kill."""
        script = self.scripts[container.job]
        container.timer.cancel()
        container.status, container.exit_code = "exited", script.exit_code if code is None else code
        if code is None and script.feedback is not None:
            container.files["/io/feedback.json"] = script.feedback
        self._note("exit" if code is None else "kill", container)
        self._wake(container, {"StatusCode": container.exit_code, "Error": None})

    def _wake(self, container, answer):
        waiting, container.waiting = container.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(answer)

    def kill(self, container):
        if container.status != "running":
            raise Refused(409, f"Container {container.id} is not running")
        self.exit(container, 137)

    def remove(self, container, force):
        if container.status == "running" and not force:
            raise Refused(409, "You cannot remove a running container")
        if container.status == "running":
            self.exit(container, 137)
        self.by_id.pop(container.id, None)
        self._note("remove", container)
        self._wake(container, {"StatusCode": container.exit_code, "Error": {"Message": "removed"}})

    def wait(self, container, condition):
        """A future for the answer."""
        future = asyncio.get_running_loop().create_future()
        if condition != "next-exit" and container.status != "running":
            future.set_result({"StatusCode": container.exit_code, "Error": None})
        else:
            container.waiting.append(future)
        return future

    def listed(self, everything, labels):
        return [
            {"Id": c.id, "Names": [f"/{c.name}"], "Image": c.image, "State": c.status, "Labels": c.labels}
            for c in self.by_id.values()
            if (everything or c.status == "running")
            and all(c.labels.get(key) == value for key, _, value in (label.partition("=") for label in labels))
        ]


class FastEngine:
    """The server, in a thread of its own. `scripts` may be added to at any time; close() ends it."""

    api, oldest = API_VERSION, OLDEST
    log_type = "application/vnd.docker.raw-stream"

    def __init__(self, directory):
        self.socket_path = os.path.join(directory, "engine.sock")
        self.host = f"unix://{self.socket_path}"
        self.scripts, self.unplayed, self.failures, self.calls = {}, [], [], 0
        self.containers = Containers(self.scripts)
        self._loop, self._up = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._up.wait(20), "the played engine does not come up"

    @property
    def events(self):
        return list(self.containers.events)

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        serving = asyncio.start_unix_server(self._serve, self.socket_path, limit=1 << 20)
        server = self._loop.run_until_complete(serving)
        self._up.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request, *lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length") or 0))
                await self._answer(writer, request, body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # hung up, or closed
        finally:
            writer.close()

    async def _answer(self, writer, request, body):
        method, target, _ = request.split(" ")
        url = urllib.parse.urlsplit(target)
        query = {name: values[-1] for name, values in urllib.parse.parse_qs(url.query).items()}
        version, path = re.fullmatch(r"(?:/v([0-9.]+)(?=/))?(.*)", url.path).groups()
        self.calls += 1
        try:
            self.check(version, method, path, query, body)
            await self._play(writer, method, path, query, body)
        except Refused as refused:
            if refused.status == 400:
                self.unplayed.append(f"{request}: {refused}")
            self._send(writer, refused.status, {"message": str(refused)})
        except Exception as error:  # pylint: disable=broad-except
            self.failures.append(f"{request}: {error!r}")
            raise

    def check(self, version, method, path, query, body):
        """Raises Refused where an engine of this API version would, or where a call is not as it should be."""

    def _send(self, writer, status, content=b"", kind="application/json"):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\n"
        if status not in (204, 304):
            head += f"Content-Length: {len(content)}\r\n"
        writer.write(head.encode() + b"\r\n" + content)

    async def _play(self, writer, method, path, query, body):
        if method == "GET" and path == "/version":
            return self._send(writer, 200, {"ApiVersion": self.api, "MinAPIVersion": self.oldest, "Version": "played"})
        if method == "GET" and path == "/info":
            return self._send(writer, 200, {"ID": "played"})
        if method == "GET" and path == "/_ping":
            return self._send(writer, 200, b"OK", "text/plain")
        if method == "POST" and path == "/containers/create":
            made = self.containers.create(query.get("name"), json.loads(body))
            return self._send(writer, 201, {"Id": made.id, "Warnings": []})
        if method == "GET" and path == "/containers/json":
            labels = json.loads(query.get("filters", "{}")).get("label", [])
            return self._send(writer, 200, self.containers.listed(query.get("all") in ("1", "true"), list(labels)))
        if method == "GET" and (match := re.fullmatch(r"/(images|networks|volumes)/([^/]+)(?:/json)?", path)):
            return self._send(writer, 200, {"Id": f"sha256:{'a' * 64}", "Name": match[2], "Size": 1})
        if method == "GET" and path == "/volumes":
            return self._send(writer, 200, {"Volumes": None, "Warnings": None})
        if method == "GET" and path == "/events":
            return await self._get_events(writer)
        match = re.fullmatch(r"/containers/([^/]+)(?:/([a-z]+))?", path)
        play = match and getattr(self, f"_{method.lower()}_{match[2] or 'container'}", None)
        if not play:
            raise Refused(400, "this call is not played")
        return await play(writer, self.containers.find(match[1]), query, body)

    async def _get_events(self, writer):
        """There are none, and there is no end."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.Future()

    async def _post_start(self, writer, container, _query, _body):
        await asyncio.sleep(self.scripts[container.job].start_s)
        container = self.containers.find(container.id)  # it may have been removed meanwhile
        self._send(writer, self.containers.start(container))

    async def _post_wait(self, writer, container, query, _body):
        """The headers come at once, as Docker sends them."""
        future = self.containers.wait(container, query.get("condition", "not-running"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        text = json.dumps(await future).encode()
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text))

    async def _post_kill(self, writer, container, _query, _body):
        self.containers.kill(container)
        self._send(writer, 204)

    async def _delete_container(self, writer, container, query, _body):
        self.containers.remove(container, query.get("force") in ("1", "true"))
        self._send(writer, 204)

    async def _get_json(self, writer, container, _query, _body):
        state = {"Status": container.status, "Running": container.status == "running", "OOMKilled": False,
                 "ExitCode": container.exit_code, "Error": ""}  # fmt: skip
        self._send(writer, 200, {"Id": container.id, "Name": f"/{container.name}", "State": state})

    async def _get_stats(self, writer, _container, _query, _body):
        self._send(writer, 200, {"cpu_stats": {"cpu_usage": {"total_usage": 5000000}}, "memory_stats": {"usage": 1 << 20}})

    async def _get_logs(self, writer, container, query, _body):
        if query.get("follow") in ("1", "true"):
            await self.containers.wait(container, "not-running")
        log = self.scripts[container.job].log if container.status == "exited" else b""
        frame = struct.pack(">BxxxI", 1, len(log)) + log if log else b""
        self._send(writer, 200, frame, self.log_type)

    async def _put_archive(self, writer, container, query, body):
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            for entry in tar:
                if entry.isreg():
                    container.files[os.path.join(query["path"], entry.name)] = tar.extractfile(entry).read()
        self._send(writer, 200)

    async def _get_archive(self, writer, container, query, _body):
        content = container.files.get(query["path"])
        if content is None:
            raise Refused(404, f"Could not find the file {query['path']} in container {container.id}")
        stat = "e30="  # {}: nobody reads it
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nX-Docker-Container-Path-Stat: {stat}\r\n"
        archive = tar_of(os.path.basename(query["path"]), content)
        writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(archive) + archive)
