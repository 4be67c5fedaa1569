"""A played engine, for measurements: answers as Docker does, and no container ever runs.

All is in the caller's one thread, so that what it does besides (committing a row) and when a request arrives are told
by the same clock, and nothing waits for another thread: requests are answered within serve().
"""

import io
import os
import re
import selectors
import socket
import tarfile
import time

from bed import BedError, cleanup

VERSION = b'{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}'
FEEDBACK = b'{"feedback_version":"2.0","workflow_id":"package_project","steps":[],"outputs":{}}'
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
PATIENCE_S = 60
TICK_S = 0.05


def _archive(name, content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _answer(status, body=b"", kind=b"application/json"):
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: " + kind + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


def _chunk(data):
    return b"%x\r\n" % len(data) + data + b"\r\n"


class Player:
    """Listens on `path`. `created` and `deleted` have the time (monotonic, ns) of each such request; `request` is the
    last one for a container, as it came."""

    def __init__(self, path):
        self.path, self.host = path, f"unix://{path}"
        self.created, self.deleted, self.request = [], [], b""
        self.on_created = None
        self._feedback = _archive("feedback.json", FEEDBACK)
        self._waiting, self._buffers = {}, {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(16)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ending = cleanup.later(self._close)

    @staticmethod
    def now():
        return time.monotonic_ns()

    def close(self):
        cleanup.now(self._ending)

    def _close(self):
        for connection in [*self._buffers, self._listener]:
            connection.close()
        self._selector.close()
        os.unlink(self.path)

    def serve(self, seconds=None, until=None, what=""):
        """For so long, or until `until` gives something true, which is an error not to come."""
        deadline = time.monotonic() + (PATIENCE_S if until else seconds)
        while not (until and until()):
            left = deadline - time.monotonic()
            if left <= 0 and until:
                raise BedError(f"the played engine waited in vain for {what}")
            if left <= 0:
                return
            for key, _ in self._selector.select(min(left, TICK_S)):
                self._take(key.fileobj)

    def _take(self, source):
        if source is self._listener:
            connection, _ = source.accept()
            self._buffers[connection] = b""
            self._selector.register(connection, selectors.EVENT_READ)
            return
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        now = time.monotonic_ns()
        if data:
            self._buffers[source] = self._read(source, self._buffers[source] + data, now)
        else:
            self._selector.unregister(source)
            del self._buffers[source]
            source.close()

    def _read(self, connection, buffer, now):
        """Answers the whole requests in the buffer; returns the rest."""
        while b"\r\n\r\n" in buffer:
            head, _, rest = buffer.partition(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            size = int(length.group(1)) if length else 0
            if len(rest) < size:
                return buffer
            whole, buffer = buffer[: len(head) + 4 + size], rest[size:]
            method, path = head.split(b" ")[:2]
            self._act(connection, method, re.sub(rb"^/v[0-9.]+", b"", path), whole, now)
        return buffer

    def _act(self, connection, method, path, whole, now):
        container = path.split(b"/")[2].partition(b"?")[0] if path.count(b"/") > 1 else b""
        if path.startswith(b"/containers/create"):
            self.request = whole
            self.created.append(now)
            name = b"%064x" % len(self.created)
            connection.sendall(_answer(b"201 Created", b'{"Id":"' + name + b'","Warnings":[]}'))
            if self.on_created:
                self.on_created()
        elif b"/wait" in path:
            self._waiting[container] = connection
            connection.sendall(ENDLESS)
        elif path.startswith(b"/events"):
            connection.sendall(ENDLESS)  # and nothing ever happens
        elif path.endswith(b"/start"):
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            waiter = self._waiting.pop(container)
            waiter.sendall(_chunk(b'{"StatusCode":0}\n') + _chunk(b""))
        elif method == b"DELETE":
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            self.deleted.append(now)
        else:
            connection.sendall(self._content(method, path, container))

    def _content(self, method, path, container):
        """Answers that change nothing."""
        if path == b"/version":
            return _answer(b"200 OK", VERSION)
        if path == b"/info":
            return _answer(b"200 OK", b'{"ID":"played"}')
        if re.match(rb"/(images|networks|volumes)/", path):
            return _answer(b"200 OK", b'{"Id":"sha256:%s","Name":"bench","Size":1}' % (b"a" * 64))
        if path.startswith(b"/containers/json"):
            return _answer(b"200 OK", b"[]")
        if path.startswith(b"/volumes?"):
            return _answer(b"200 OK", b'{"Volumes":null,"Warnings":null}')
        if method == b"PUT":
            return _answer(b"200 OK")
        if path.endswith(b"/json"):
            state = b'{"Status":"exited","ExitCode":0,"OOMKilled":false,"Error":""}'
            return _answer(b"200 OK", b'{"Id":"' + container + b'","State":' + state + b"}")
        if b"/logs" in path:
            return _answer(b"200 OK", b"", b"application/vnd.docker.raw-stream")
        if b"/archive" in path:
            return _answer(b"200 OK", self._feedback, b"application/x-tar")
        return _answer(b"404 Not Found", b'{"message":"the played engine does not know this"}')
