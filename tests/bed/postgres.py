"""A PostgreSQL server for one run, in a directory of its own, and databases of any release in it.

It listens on 127.0.0.1 (password asked) and on a unix socket in its directory (no password). Databases are copies of
one template per release. As root, which PostgreSQL refuses to be, it runs as `postgres` or `nobody`.
"""

import glob
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import threading

import psycopg2

from . import BedError, cleanup, schema
from .rows import Database

ROLE = "qfieldcloud_db_admin"
CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{directory}'
port = {port}
max_connections = 200
shared_buffers = 32MB
fsync = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
autovacuum_naptime = 10s
log_line_prefix = '%m [%p] %u@%d '
lc_messages = 'C'
timezone = 'UTC'
"""
ACCESS = """
local all all trust
host all all 127.0.0.1/32 scram-sha-256
"""


def binaries():
    """The newest directory that has initdb."""
    found = [path for path in glob.glob("/usr/lib/postgresql/*/bin") if os.path.exists(f"{path}/initdb")]
    if found:
        return max(found, key=lambda path: float(re.findall(r"[\d.]+", path)[0]))
    initdb = shutil.which("initdb")
    if not initdb:
        raise BedError("no PostgreSQL server here: neither /usr/lib/postgresql/*/bin/initdb nor initdb in PATH")
    return os.path.dirname(os.path.realpath(initdb))


def account():
    """The user that the server runs as, or None when it can be this one."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise BedError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """The server. start() and stop() may be called as often as wanted; close() removes everything."""

    def __init__(self):
        self.bin, self.account = binaries(), account()
        self.directory, self._remove = cleanup.directory("postgres")
        os.chmod(self.directory, 0o755)
        self.data = os.path.join(self.directory, "data")
        self.log = os.path.join(self.directory, "log")
        self.password = "p@ss w%rd:" + secrets.token_hex(8)
        self.port = 0
        self._templates, self._lock, self._count = {}, threading.Lock(), 0
        self.pg_ctl_path = self._write_pg_ctl()
        self._initialise()
        self._close = cleanup.later(self._stop_quietly)
        self._start_on_a_free_port()
        self._administer(f"CREATE ROLE {ROLE} LOGIN PASSWORD %s", (self.password,))

    def _prefix(self):
        if not self.account:
            return []
        ids = [f"--reuid={self.account.pw_uid}", f"--regid={self.account.pw_gid}", "--clear-groups"]
        return ["setpriv", *ids]

    def _write_pg_ctl(self):
        """A pg_ctl that knows its server and its user, for other programs: QFC_TEST_PG_CTL."""
        path = os.path.join(self.directory, "pg_ctl")
        words = [*self._prefix(), f"{self.bin}/pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "60"]
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\ncd /\nexec {shlex.join(words)} "$@" </dev/null >&2\n')
        os.chmod(path, 0o755)
        return path

    def _run(self, *words):
        done = subprocess.run(
            [*self._prefix(), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", text=True, check=False
        )
        if done.returncode:
            raise BedError(f"{shlex.join(words)} failed:\n{done.stdout}")

    def _initialise(self):
        if self.account:
            os.chown(self.directory, self.account.pw_uid, self.account.pw_gid)
        options = ["-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync"]
        self._run(f"{self.bin}/initdb", "-D", self.data, *options)
        with open(os.path.join(self.data, "pg_hba.conf"), "w", encoding="utf-8") as file:
            file.write(ACCESS)

    def _start_on_a_free_port(self):
        path = os.path.join(self.data, "postgresql.conf")
        with open(path, encoding="utf-8") as file:
            shipped = file.read()
        for attempt in range(5):
            self.port = free_port()
            with open(path, "w", encoding="utf-8") as file:
                file.write(shipped + CONFIGURATION.format(directory=self.directory, port=self.port))
            try:
                return self.start()
            except BedError:
                if attempt == 4:
                    raise

    def pg_ctl(self, *words):
        with open(os.path.join(self.directory, "pg_ctl.log"), "a", encoding="utf-8") as log:
            done = subprocess.run([self.pg_ctl_path, *words], stdout=log, stderr=log, check=False)
        if done.returncode:
            raise BedError(f"pg_ctl {shlex.join(words)} failed; the server's log ends:\n{self.tail()}")

    def tail(self, lines=20):
        if not os.path.exists(self.log):
            return ""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:])

    def start(self):
        self.pg_ctl("start")

    def stop(self, mode="fast"):
        """Modes: smart, fast, and immediate, which is like a crash."""
        self.pg_ctl("stop", "-m", mode)

    def restart(self, mode="fast"):
        self.pg_ctl("restart", "-m", mode)

    def running(self):
        return subprocess.run([self.pg_ctl_path, "status"], stderr=subprocess.DEVNULL, check=False).returncode == 0

    def _stop_quietly(self):
        if self.running():
            subprocess.run([self.pg_ctl_path, "stop", "-m", "immediate"], stderr=subprocess.DEVNULL, check=False)

    def close(self):
        cleanup.now(self._close)
        cleanup.now(self._remove)

    def connect(self, database, superuser=False, **options):
        """A psycopg2 connection over the unix socket, each statement its own transaction."""
        user = "postgres" if superuser else ROLE
        connection = psycopg2.connect(host=self.directory, port=self.port, dbname=database, user=user, **options)
        connection.autocommit = True
        return connection

    def url(self, database):
        """As libpq takes it, over TCP, with the password."""
        password = "".join(c if c.isalnum() else f"%{ord(c):02x}" for c in self.password)
        return f"postgresql://{ROLE}:{password}@127.0.0.1:{self.port}/{database}"

    def settings(self, database):
        """The same as QFieldCloud's settings."""
        return {
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_DB": database,
            "POSTGRES_USER": ROLE,
            "POSTGRES_PASSWORD": self.password,
            "POSTGRES_SSLMODE": "prefer",
        }

    def _administer(self, statement, values=None):
        connection = self.connect("postgres", superuser=True)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
        finally:
            connection.close()

    def create(self, name, template="template0"):
        """An empty database, or a copy of one that nobody is connected to."""
        self._administer(f'CREATE DATABASE "{name}" OWNER {ROLE} TEMPLATE "{template}"')

    def drop(self, name):
        """Whoever is still connected to it is thrown out."""
        self._administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _template(self, release):
        described = schema.Schema(release)
        with self._lock:
            if described.release not in self._templates:
                name = "template_" + described.release.replace(".", "_")
                self.create(name)
                fill(self.connect(name, superuser=True), described)
                self._templates[described.release] = name
        return described, self._templates[described.release]

    def database(self, release="v26.25"):
        """A new database of that release; its close() drops it."""
        described, template = self._template(release)
        with self._lock:
            self._count += 1
            name = f"test_{self._count}"
        self.create(name, template)
        return Database(self, name, described)


def fill(connection, described):
    """Makes a release's schema in an empty database, by a superuser's connection, which this closes."""
    try:
        with connection.cursor() as cursor:
            try:
                cursor.execute("CREATE EXTENSION postgis")
            except psycopg2.Error as error:
                raise BedError(f"the schema has geometry columns, and PostGIS is missing: {error}") from error
            cursor.execute(f"GRANT ALL ON SCHEMA public TO {ROLE}; SET ROLE {ROLE}")
            for statement in described.statements(connection.server_version):
                cursor.execute(statement)
    finally:
        connection.close()


def sweep():
    """Ends servers of runs that were killed, and removes their directories."""
    for directory in cleanup.abandoned():
        if not os.path.basename(directory).startswith(f"{cleanup.PREFIX}postgres-"):
            continue
        try:
            with open(os.path.join(directory, "data", "postmaster.pid"), encoding="utf-8") as file:
                pid = int(file.readline())
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if directory.encode() in file.read():
                    os.kill(pid, signal.SIGQUIT)
        except (OSError, ValueError):
            pass
        shutil.rmtree(directory, ignore_errors=True)
