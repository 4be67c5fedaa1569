"""Proxies that spoil things on purpose: one for the engine's API, one for PostgreSQL.

Each keeps rules that a test has made. A rule names what it waits for (`pattern`) and is used up after `times` uses (None:
never). `hold` lets a test act at a certain step: `reached()` returns when the program has come there, and `release()`
lets it go on.
"""

import contextlib
import json
import os
import re
import select
import socket
import struct
import threading

from . import cleanup

PATIENCE_S = 60
BEFORE, AFTER, MID = "before", "after", "mid"


class Hold:
    """One place where the program is held."""

    def __init__(self):
        self._reached, self._released = threading.Event(), threading.Event()
        self.what = None

    def reached(self, timeout=PATIENCE_S):
        """Waits until the program has come here; returns what it asked for."""
        assert self._reached.wait(timeout), "the program did not come to where it was to be held"
        return self.what

    def is_reached(self):
        return self._reached.is_set()

    def release(self):
        self._released.set()

    def stop_here(self, what):
        """Of the proxy's thread."""
        self.what = what
        self._reached.set()
        self._released.wait(2 * PATIENCE_S)


class Rule:
    """What is done to a request that matches."""

    def __init__(self, pattern, act, times, **more):
        self.pattern, self.act, self.times, self.used = re.compile(pattern), act, times, 0
        self.when = more.get("when")
        self.hold, self.reply = more.get("hold"), more.get("reply")


class _Rules:
    def __init__(self):
        self._rules, self._lock, self._holds = [], threading.Lock(), []

    def add(self, pattern, act, times=1, **more):
        rule = Rule(pattern, act, times, **more)
        with self._lock:
            self._rules.append(rule)
            if rule.hold:
                self._holds.append(rule.hold)
        return rule

    def take(self, text):
        """The rules for what the program asks, each used once more."""
        found = []
        with self._lock:
            for rule in self._rules:
                if rule.times != 0 and rule.pattern.search(text):
                    rule.times = None if rule.times is None else rule.times - 1
                    rule.used += 1
                    found.append(rule)
        return found

    def clear(self):
        with self._lock:
            self._rules.clear()
            for hold in self._holds:
                hold.release()


def _close(connection):
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


class _Listener:
    """Takes connections on a socket, each in a thread of its own; down() and up() as often as wanted."""

    def __init__(self):
        self._listening, self._open, self._lock, self._threads = None, set(), threading.Lock(), []

    def _bind(self):
        raise NotImplementedError

    def _serve(self, client):
        raise NotImplementedError

    def up(self):
        self._listening = self._bind()
        thread = threading.Thread(target=self._accept, args=(self._listening,), daemon=True)
        thread.start()

    def _accept(self, listening):
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            self._keep(client)
            threading.Thread(target=self._serve_quietly, args=(client,), daemon=True).start()

    def _serve_quietly(self, client):
        try:
            self._serve(client)
        except (OSError, ConnectionError, ValueError):
            pass  # one of the two has hung up, or the proxy was taken down
        finally:
            self._drop(client)

    def _keep(self, connection):
        with self._lock:
            self._open.add(connection)

    def _drop(self, connection):
        with self._lock:
            self._open.discard(connection)
        _close(connection)

    def down(self):
        """Hangs up on everybody and takes nobody any more."""
        if self._listening:
            _close(self._listening)
        self._listening = None
        self.hang_up()

    def hang_up(self):
        with self._lock:
            connections, self._open = list(self._open), set()
        for connection in connections:
            _close(connection)


class _Stream:
    """Reads what HTTP is made of from a socket."""

    def __init__(self, connection):
        self.connection, self._rest = connection, b""

    def more(self):
        data = self.connection.recv(65536)
        if not data:
            raise ConnectionError("hung up")
        self._rest += data

    def head(self):
        """Everything to the first empty line; None when the other side hangs up before it begins."""
        while b"\r\n\r\n" not in self._rest:
            try:
                self.more()
            except ConnectionError:
                if self._rest:
                    raise
                return None
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def take(self, size):
        while len(self._rest) < size:
            self.more()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def line(self):
        while b"\r\n" not in self._rest:
            self.more()
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line + b"\r\n"

    def whatever(self):
        """What is there, at least one byte; b"" at the end."""
        if not self._rest:
            try:
                self.more()
            except ConnectionError:
                return b""
        data, self._rest = self._rest, b""
        return data

    def chunks(self):
        """The pieces of a chunked body as they were sent."""
        while True:
            line = self.line()
            size = int(line.partition(b";")[0], 16)
            if size == 0:
                yield line
                while True:
                    end = self.line()
                    yield end
                    if end == b"\r\n":
                        return
            yield line + self.take(size + 2)


def _header(head, name):
    match = re.search(rb"(?im)^" + name + rb":[ \t]*(.*?)\r$", head)
    return match.group(1).lower() if match else b""


def _body(stream, head, is_answer, method=""):
    """The pieces of a message's body."""
    status = int(head.split(b" ", 2)[1]) if is_answer else 0
    if method == "HEAD" or status in (204, 304) or 100 <= status < 200:
        return
    if b"chunked" in _header(head, b"transfer-encoding"):
        yield from stream.chunks()
    elif _header(head, b"content-length"):
        left = int(_header(head, b"content-length"))
        while left > 0:
            piece = stream.take(min(left, 65536))
            left -= len(piece)
            yield piece
    elif is_answer:
        while piece := stream.whatever():
            yield piece


class EngineProxy(_Listener):
    """Between the program and an engine. Patterns are searched in "METHOD /path?query", the path without its version:
    "POST /containers/create". `requests` has all that came, as such texts."""

    def __init__(self, engine_socket):
        super().__init__()
        self.engine_socket, self._rules = engine_socket, _Rules()
        self.directory, self._remove = cleanup.directory("proxy")
        os.chmod(self.directory, 0o755)
        self.socket_path = os.path.join(self.directory, "docker.sock")
        self.requests = []
        self.up()

    @property
    def host(self):
        """As DOCKER_HOST takes it."""
        return f"unix://{self.socket_path}"

    def close(self):
        self.behave()
        self.down()
        cleanup.now(self._remove)

    def _bind(self):
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(self.socket_path)
        listening.listen(64)
        return listening

    def down(self):
        """As an engine that was stopped: its socket is gone, all connections are cut."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)
        super().down()

    # What a test asks for

    def hold(self, pattern):
        """Holds the next such request before the engine sees it."""
        return self._rules.add(pattern, "hold", hold=Hold()).hold

    def hold_answer(self, pattern):
        """Holds the engine's answer to the next such request."""
        return self._rules.add(pattern, "hold_answer", hold=Hold()).hold

    def cut(self, pattern, when=BEFORE, times=1):
        """Hangs up before the request is passed on, after it without passing on an answer, or in the answer's middle."""
        return self._rules.add(pattern, "cut", times, when=when)

    def answer(self, pattern, status, body=None, times=1):
        """Answers in the engine's place."""
        return self._rules.add(pattern, "answer", times, reply=(status, body))

    def behave(self):
        """Forgets all rules, and releases what is held."""
        self._rules.clear()

    def count(self, pattern):
        return sum(bool(re.search(pattern, request)) for request in list(self.requests))

    # One connection

    def _serve(self, client):
        requests = _Stream(client)
        engine = None
        try:
            while head := requests.head():
                method, path, _ = head.decode("latin-1").split(" ", 2)
                body = b"".join(_body(requests, head, False))
                request = f"{method} {re.sub(r'^/v[0-9.]+/', '/', path)}"
                self.requests.append(request)
                if engine is None:
                    engine = socket.socket(socket.AF_UNIX)
                    self._keep(engine)
                if not self._pass(client, engine, request, head + body):
                    return
        finally:
            if engine:
                self._drop(engine)

    def _pass(self, client, engine, request, message):
        """One request and its answer; False: the connection is at its end."""
        rules = self._rules.take(request)
        for rule in rules:
            if rule.act == "hold":
                rule.hold.stop_here(request)
            elif rule.act == "cut" and rule.when == BEFORE:
                return False
            elif rule.act == "answer":
                client.sendall(made_up(*rule.reply))
                return True
        with contextlib.suppress(OSError):
            engine.connect(self.engine_socket)
        engine.sendall(message)
        if not _wait_for_answer(client, engine):
            return False
        return self._answer(client, engine, request.partition(" ")[0], request, rules)

    def _answer(self, client, engine, method, request, rules):
        answers = _Stream(engine)
        head = answers.head()
        if head is None:
            return False
        cuts = {rule.when for rule in rules if rule.act == "cut"}
        pieces = _body(answers, head, True, method)
        if AFTER in cuts:
            # A long poll's answer begins at once and ends late: its beginning says that the engine has done its part.
            return False
        for rule in rules:
            if rule.act == "hold_answer":
                rule.hold.stop_here(request)
        if MID in cuts:
            whole = head + next(pieces, b"") if b"/wait" not in request.encode() else head
            client.sendall(whole if b"/wait" in request.encode() else whole[: max(1, len(whole) * 2 // 3)])
            return False
        client.sendall(head)
        for piece in _until_hung_up(client, engine, pieces):
            client.sendall(piece)
        return b"close" not in _header(head, b"connection") and (
            b"chunked" in _header(head, b"transfer-encoding") or bool(_header(head, b"content-length"))
            or head.split(b" ", 2)[1] in (b"204", b"304")
        )


def made_up(status, body, kind="application/json"):
    """An answer, whole."""
    if body is None:
        body = {"message": "the proxy was told to say so"}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Made up\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def _wait_for_answer(client, engine):
    """False when the program hangs up before the engine has begun to answer: then the engine is hung up on, too."""
    readable, _, _ = select.select([client, engine], [], [])
    return engine in readable or client not in readable


def _until_hung_up(client, engine, pieces):
    """The pieces of an answer; they end early when the program hangs up while the engine is silent."""
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            try:
                readable, _, _ = select.select([client], [], [], 0.05)
                if readable and not client.recv(1, socket.MSG_PEEK):
                    _close(engine)
                    return
                if readable:
                    stop.wait(0.05)
            except (OSError, ValueError):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield from pieces
    finally:
        stop.set()
        watcher.join()


IDLE = b"Z" + struct.pack(">I", 5) + b"I"  # ReadyForQuery outside of a transaction: what was asked is done
SYNC = b"S\x00\x00\x00\x04"  # what a batch ends with


class PostgresProxy(_Listener):
    """Between the program and PostgreSQL, without TLS. Patterns are searched in what the program sends, SQL among it."""

    def __init__(self, port):
        super().__init__()
        self.server_port, self._rules, self.port = port, _Rules(), 0
        self._kept, self._swallow = [], False
        self.up()

    def close(self):
        self.behave()
        self.down()
        self.forget()

    def _bind(self):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(64)
        self.port = listening.getsockname()[1]
        return listening

    # What a test asks for

    def hold(self, pattern):
        """Holds the next batch that matches before the server sees it."""
        return self._rules.add(pattern, "hold", hold=Hold()).hold

    def cut(self, pattern, when=BEFORE, times=1):
        """Cuts the connection: before the server sees the batch, or after it has done it and before the answer."""
        return self._rules.add(pattern, "cut", times, when=when)

    def lose(self, pattern):
        """Passes the batch on, then hangs up on the program alone: the server goes on and does not notice."""
        return self._rules.add(pattern, "lose")

    def swallow(self, on=True):
        """From now on nothing is passed on either way, and nobody is told."""
        self._swallow = on

    def behave(self):
        self._rules.clear()

    def forget(self):
        """Hangs up on the server, too, where `lose` did not."""
        while self._kept:
            _close(self._kept.pop())

    # One connection

    def _serve(self, client):
        server = socket.create_connection(("127.0.0.1", self.server_port))
        self._keep(server)
        state = {"cut": False, "lost": False}
        back = threading.Thread(target=self._back, args=(client, server, state), daemon=True)
        back.start()
        try:
            while data := client.recv(65536):
                if self._swallow:
                    continue
                if not self._forth(client, server, data, state):
                    break
        except OSError:
            pass
        finally:
            if state["lost"]:
                with self._lock:
                    self._open.discard(server)
                self._kept.append(server)
            elif not state["cut"]:
                self._drop(server)
                back.join()

    def _forth(self, client, server, data, state):
        text = data.decode("latin-1")
        for rule in self._rules.take(text):
            if rule.act == "hold":
                rule.hold.stop_here(text)
            elif rule.act == "lose":
                state["lost"] = True
            elif rule.when == BEFORE:
                return False
            else:
                state["cut"] = True
        server.sendall(data)
        if state["lost"]:
            self._pass_the_rest(client, server, data)
            _close(client)
            return False
        return True

    @staticmethod
    def _pass_the_rest(client, server, data):
        """Of a batch that came in several pieces."""
        while not data.endswith(SYNC) and (data := client.recv(65536)):
            server.sendall(data)

    def _back(self, client, server, state):
        """A batch that is to be cut afterwards is done when the server is idle again."""
        seen = b""
        try:
            while data := server.recv(65536):
                if self._swallow or state["lost"]:
                    continue
                if not state["cut"]:
                    client.sendall(data)
                    continue
                seen += data
                if IDLE in seen:
                    break
        except OSError:
            pass
        if not state["lost"]:
            self._drop(server)
            _close(client)
