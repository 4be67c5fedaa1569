"""Real object stores to test with: moto's S3 and wsgidav, each behind a proxy that spoils things on purpose.

They come from PyPI, with the versions of stores-requirements.txt, into a virtual environment in the user's cache; it is
made once. The servers are processes of their own (stores_server.py) on 127.0.0.1.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import urllib.parse

from . import BedError, cleanup
from .proxy import AFTER, BEFORE, Hold, _body, _header, _Listener, _Rules, _Stream

HERE = os.path.dirname(os.path.abspath(__file__))
REQUIREMENTS = os.path.join(HERE, "stores-requirements.txt")
SERVER = os.path.join(HERE, "stores_server.py")
PYTHON = "/usr/bin/python3"
S3_BACKEND = "qfieldcloud.filestorage.backend.QfcS3Boto3Storage"
WEBDAV_BACKEND = "qfieldcloud.filestorage.backend.QfcWebDavStorage"
MADE_UP = "<?xml version='1.0'?><Error><Code>{}</Code><Message>the proxy was told to say so</Message></Error>"


def _run(*command):
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise BedError(f"{' '.join(command)}: {done.stdout.decode(errors='replace')[-2000:]}")


def _place():
    """The environment's directory: others for other requirements."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    with open(REQUIREMENTS, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:12]
    return os.path.join(cache, "qfc-worker", f"stores-{digest}")


def environment():
    """The path of the environment's Python; makes it where it is not there. Several runs may want it at a time."""
    place = _place()
    python, complete = os.path.join(place, "bin", "python"), os.path.join(place, ".complete")
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(f"{place}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(complete):
            shutil.rmtree(place, ignore_errors=True)
            _run(PYTHON, "-m", "venv", place)
            _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS)
            with open(complete, "w", encoding="ascii"):
                pass
    return python


class _Server:
    """A process of stores_server.py."""

    def __init__(self, *args):
        self._errors, remove = cleanup.directory("stores")
        stderr = open(os.path.join(self._errors, "stderr"), "wb")
        self._process = subprocess.Popen(
            [environment(), SERVER, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={"PATH": os.environ.get("PATH", ""), "HOME": self._errors, "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,  # Ctrl-C is for the tests: it ends when they have closed its stdin
        )
        stderr.close()
        self._end = cleanup.later(self._stop, remove)
        self.where = self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            with open(os.path.join(self._errors, "stderr"), encoding="utf-8", errors="replace") as file:
                raise BedError(f"the object store has ended: {file.read()[-2000:]}")
        return json.loads(line)

    def ask(self, do, **more):
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise BedError(f"{do}: {answer['error']}")
        return answer["result"]

    def close(self):
        cleanup.now(self._end)

    def _stop(self, remove):
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        cleanup.now(remove)


class StoreProxy(_Listener):
    """Between the program and a store. Patterns are searched in "METHOD /path?query"; `requests` has all that came."""

    def __init__(self, server_port):
        super().__init__()
        self.server_port, self._rules, self.port, self.requests = server_port, _Rules(), 0, []
        self.up()

    def _bind(self):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(64)
        self.port = listening.getsockname()[1]
        return listening

    def is_up(self):
        return self._listening is not None

    def hold(self, pattern):
        """Holds the next such request before the store sees it."""
        return self._rules.add(pattern, "hold", hold=Hold()).hold

    def cut(self, pattern, when=BEFORE, times=1):
        """Hangs up before the store sees the request, or after it has done it and before the answer."""
        return self._rules.add(pattern, "cut", times, when=when)

    def answer(self, pattern, status, body, times=None):
        """Answers in the store's place."""
        return self._rules.add(pattern, "answer", times, reply=(status, body))

    def behave(self):
        self._rules.clear()

    def _serve(self, client):
        requests = _Stream(client)
        while head := requests.head():
            method, path, _ = head.decode("latin-1").split(" ", 2)
            body = b"".join(_body(requests, head, False))
            self.requests.append(f"{method} {path}")
            if not self._pass(client, f"{method} {path}", head + body):
                return

    def _pass(self, client, request, message):
        """One request and its answer; False: the connection is at its end."""
        rules = self._rules.take(request)
        for rule in rules:
            if rule.act == "hold":
                rule.hold.stop_here(request)
            elif rule.act == "cut" and rule.when == BEFORE:
                return False
            elif rule.act == "answer":
                status, body = rule.reply
                head = f"HTTP/1.1 {status} Made up\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
                client.sendall((head + body).encode("ascii"))
                return True
        with socket.create_connection(("127.0.0.1", self.server_port)) as server:
            server.sendall(message)
            answers = _Stream(server)
            head = answers.head()
            whole = head + b"".join(_body(answers, head, True, request.partition(" ")[0]))
        if any(rule.act == "cut" and rule.when == AFTER for rule in rules):
            return False
        client.sendall(whole)
        return b"close" not in _header(head, b"connection") and bool(
            _header(head, b"content-length") or _header(head, b"transfer-encoding") or b" 204 " in head[:16]
        )


class _Faulty:
    """What both stores have: a proxy, and words for what it is told to do."""

    proxy = None

    @property
    def requests(self):
        return self.proxy.requests

    def down(self):
        """As a store that was stopped."""
        self.proxy.down()

    def up(self):
        self.proxy.up()

    def fail(self, status, pattern=".", code="MadeUp", times=None):
        """Answers with an error in the store's place."""
        return self.proxy.answer(pattern, status, MADE_UP.format(code), times)

    def pause(self, pattern="."):
        """Holds the next request: see bed.proxy.Hold."""
        return self.proxy.hold(pattern)

    def cut(self, pattern=".", when=AFTER, times=1):
        return self.proxy.cut(pattern, when, times)

    def behave(self):
        """As if nothing had been."""
        self.proxy.behave()
        if not self.proxy.is_up():
            self.proxy.up()
        self.proxy.requests.clear()

    def close(self):
        self.proxy.behave()
        self.proxy.down()
        self._server.close()


class S3Server(_Faulty):
    """S3 with signatures checked. `storages()` is the STORAGES of a worker that uses its first bucket."""

    def __init__(self):
        self._server = _Server("s3")
        self.access_key, self.secret_key = self._server.where["access_key"], self._server.where["secret_key"]
        self.proxy = StoreProxy(self._server.where["port"])
        self._buckets = 0
        self.bucket = self.create_bucket()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.proxy.port}"

    def create_bucket(self, versioned=False):
        """A new bucket; returns its name."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        self._server.ask("create_bucket", bucket=name, versioned=versioned)
        return name

    def put(self, bucket, *keys, text="content"):
        self._server.ask("put", bucket=bucket, keys=keys, text=text)

    def fill(self, bucket, *keys):
        """Puts many: in the server's memory, past its HTTP."""
        self._server.ask("fill", bucket=bucket, keys=keys)

    def delete(self, bucket, key):
        """As the application does: in a bucket with versions this leaves a delete marker."""
        self._server.ask("delete", bucket=bucket, key=key)

    def get(self, bucket, key):
        """{"text", "content_type"}"""
        return self._server.ask("get", bucket=bucket, key=key)

    def objects(self, bucket):
        return set(self._server.ask("objects", bucket=bucket))

    def versions(self, bucket):
        """Of each version: (key, is it a delete marker), sorted."""
        return sorted(tuple(version) for version in self._server.ask("versions", bucket=bucket))

    def options(self, bucket=None, **options):
        return {
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "bucket_name": bucket or self.bucket,
            "region_name": "",
            "endpoint_url": self.endpoint,
            **options,
        }

    def storages(self, bucket=None, name="default", legacy=False, **options):
        entry = {"BACKEND": S3_BACKEND, "OPTIONS": self.options(bucket, **options), "QFC_IS_LEGACY": legacy}
        return json.dumps({name: entry})


class WebDavServer(_Faulty):
    """WebDAV below /dav, with a password that has to be encoded in a URL."""

    user, password = "qfield cloud", "pä:ss@wo/rd"

    def __init__(self):
        self.directory, self._remove = cleanup.directory("webdav")
        self._root = os.path.join(self.directory, "files")
        os.mkdir(self._root)
        self._server = _Server("webdav", self._root, self.user, self.password)
        self.proxy = StoreProxy(self._server.where["port"])

    def close(self):
        super().close()
        cleanup.now(self._remove)

    @property
    def url(self):
        user, password = (urllib.parse.quote(text, safe="") for text in (self.user, self.password))
        return f"http://{user}:{password}@127.0.0.1:{self.proxy.port}/dav"

    def put(self, *keys, text="content"):
        for key in keys:
            path = os.path.join(self._root, key)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)

    def get(self, key):
        with open(os.path.join(self._root, key), encoding="utf-8") as file:
            return file.read()

    def objects(self):
        return {
            os.path.relpath(os.path.join(parent, name), self._root)
            for parent, _, names in os.walk(self._root)
            for name in names
        }

    def clear(self):
        for name in os.listdir(self._root):
            path = os.path.join(self._root, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

    def storages(self, name="default", **options):
        options = {"webdav_url": self.url, "public_url": "http://127.0.0.1", "basic_auth": "share:", **options}
        return json.dumps({name: {"BACKEND": WEBDAV_BACKEND, "OPTIONS": options, "QFC_IS_LEGACY": False}})
