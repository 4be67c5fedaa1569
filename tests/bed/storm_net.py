"""Networks that stop without a word: a proxy that holds everything back and forgets nothing, as TCP does over a line
that is cut for a while, and a network namespace whose link can be taken down.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import threading

from . import cleanup
from .proxy import _close, _Listener


class Line(_Listener):
    """To PostgreSQL. While it is cut, what is sent is kept, connections stay open, and new ones get no answer."""

    def __init__(self, port):
        super().__init__()
        self.server_port, self.port, self._passing = port, 0, threading.Event()
        self._passing.set()
        self.up()

    def _bind(self):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(64)
        self.port = listening.getsockname()[1]
        return listening

    def cut(self):
        self._passing.clear()

    def mend(self):
        self._passing.set()

    def close(self):
        self.mend()
        self.down()

    def _serve(self, client):
        self._passing.wait()
        server = socket.create_connection(("127.0.0.1", self.server_port))
        self._keep(server)
        back = threading.Thread(target=self._carry, args=(server, client), daemon=True)
        back.start()
        self._carry(client, server)
        self._drop(server)

    def _carry(self, source, target):
        """One direction; an end on one side, too, arrives at the other only over a line that is whole."""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._passing.wait()
                target.sendall(data)
        self._passing.wait()
        _close(target)


def _ip(*words):
    subprocess.run(["ip", *words], check=True)


class Island:
    """A network namespace with one link to this machine; `host` is this machine's address on it."""

    def __init__(self):
        tag = secrets.token_hex(3)
        self.name, self.link, inner = f"qfc-bed-{tag}", f"qfc{tag}h", f"qfc{tag}n"
        first, second = (byte for byte in secrets.token_bytes(2))
        self.host, self._guest = f"10.{first}.{second}.1", f"10.{first}.{second}.2"
        _ip("netns", "add", self.name)
        self._remove = cleanup.later(self._clear)
        _ip("link", "add", self.link, "type", "veth", "peer", "name", inner, "netns", self.name)
        _ip("addr", "add", f"{self.host}/30", "dev", self.link)
        _ip("-n", self.name, "addr", "add", f"{self._guest}/30", "dev", inner)
        _ip("-n", self.name, "link", "set", inner, "up")
        self.up()

    def command(self, words):
        """The same command, run there."""
        return ["nsenter", f"--net={os.path.join('/run/netns', self.name)}", *words]

    def up(self):
        _ip("link", "set", self.link, "up")

    def down(self):
        _ip("link", "set", self.link, "down")

    def _clear(self):
        subprocess.run(["ip", "link", "del", self.link], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["ip", "netns", "del", self.name], stderr=subprocess.DEVNULL, check=False)

    def close(self):
        cleanup.now(self._remove)
