"""PgBouncer in front of a test's PostgreSQL, as an operator would set it up."""

import os
import shutil
import socket
import subprocess
import time

from . import BedError, cleanup
from .postgres import ROLE, free_port

PATIENCE_S = 30


def program():
    found = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise BedError("there is no pgbouncer here")
    return found


class Pooler:
    """`pool_mode` is session or transaction; `more` are further settings. Whoever connects is let in, and gets the
    server's only role."""

    def __init__(self, server, pool_mode, **more):
        self.directory, remove = cleanup.directory("pooler")
        self.port = free_port()
        password = server.password.replace("'", "''")
        configuration = os.path.join(self.directory, "pgbouncer.ini")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(
                "[databases]\n"
                f"* = host=127.0.0.1 port={server.port} user={ROLE} password='{password}'\n"
                "[pgbouncer]\n"
                f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\n"
                f"pool_mode = {pool_mode}\nignore_startup_parameters = extra_float_digits\n"
                + "".join(f"{name} = {value}\n" for name, value in more.items())
            )
        for path in (self.directory, configuration):
            shutil.chown(path, server.account.pw_uid if server.account else None)
        user = ["-u", server.account.pw_name] if server.account else []
        self._process = subprocess.Popen(
            [program(), "-q", *user, configuration], stdin=subprocess.DEVNULL,
            stdout=open(os.path.join(self.directory, "log"), "wb"), stderr=subprocess.STDOUT, cwd="/",
        )  # fmt: skip
        self._end = cleanup.later(self._stop, remove)
        self._wait()

    def _wait(self):
        deadline = time.monotonic() + PATIENCE_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        with open(os.path.join(self.directory, "log"), encoding="utf-8", errors="replace") as file:
            raise BedError(f"pgbouncer does not listen: {file.read()[-2000:]}")

    def _stop(self, remove):
        self._process.kill()
        self._process.wait()
        cleanup.now(remove)

    def close(self):
        cleanup.now(self._end)
