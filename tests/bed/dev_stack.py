"""What stands in for QFieldCloud in a compose stack: runs in the stack's own containers, made by docker/Dockerfile.dev.

    python3 -m bed.dev_stack create       database, tables and a dozen jobs, beside the server, as its superuser
    python3 -m bed.dev_stack jobs N       N more jobs
    python3 -m bed.dev_stack app          plays the web application's API on port 8000
    python3 -m bed.dev_stack old-worker   plays QFieldCloud's own worker until SIGTERM, and its current job's end
"""

import os
import secrets
import signal
import sys
import threading

import psycopg2

from . import postgres, schema
from .api import Api
from .docker import Docker
from .old_loop import OldLoop
from .rows import Database

PLAYS = ("success.qgs", "success.qgs", "success.qgs", "sleep@1.qgs")
TYPES = ("process_projectfile", "package", "delta_apply")


class Server:
    """The stack's: by its socket where POSTGRES_HOST is not set."""

    def __init__(self):
        self.name = os.environ.get("POSTGRES_DB", "qfieldcloud_db")
        self.host, self.password = os.environ.get("POSTGRES_HOST"), os.environ.get("POSTGRES_PASSWORD")
        self.described = schema.Schema(os.environ.get("QFC_RELEASE", "v26.25"))

    def connect(self, database, **_options):
        by = {"host": self.host, "user": postgres.ROLE, "password": self.password} if self.host else {"user": "postgres"}
        connection = psycopg2.connect(dbname=database, **by)
        connection.autocommit = True
        return connection

    def create(self):
        connection = self.connect("postgres")
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {postgres.ROLE} LOGIN PASSWORD %s", [self.password])
            cursor.execute(f'CREATE DATABASE "{self.name}" OWNER {postgres.ROLE}')
        connection.close()
        postgres.fill(self.connect(self.name), self.described)

    def database(self):
        return Database(self, self.name, self.described)


class Here:
    """In place of an engine's network: this container's own."""

    @staticmethod
    def inside(make, *arguments):
        return make(*arguments)


class AnyContent(dict):
    """Objects of a storage: what nobody has stored here is empty."""

    def __missing__(self, key):
        return b""


def queue(database, count):
    """Jobs of all types in as many projects as fit."""
    owner = database.user(f"person-{secrets.token_hex(4)}")
    projects = [database.project(owner, PLAYS[i % len(PLAYS)], files=()) for i in range(max(4, count // 5))]
    for place in range(count):
        project, type_ = projects[place % len(projects)], TYPES[place // len(projects) % len(TYPES)]
        if type_ == "delta_apply":
            database.apply_job(project, [database.delta(project) for _ in range(2)])
        else:
            database.job(project, type_)


def wait_for_stop():
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()


def app(database):
    database.objects = AnyContent()
    api = Api(database, Here, "0.0.0.0", 8000)
    wait_for_stop()
    api.close()


def old_worker(database):
    image, label = os.environ["QFIELDCLOUD_QGIS3_IMAGE_NAME"], f"{os.environ['ENVIRONMENT']}_worker"
    loop = OldLoop(database, Docker("/var/run/docker.sock"), image, label)
    loop.start()
    wait_for_stop()
    loop.stop()
    loop.join()
    if loop.failure:
        raise loop.failure


def main(what, *arguments):
    server = Server()
    if what == "create":
        server.create()
        queue(server.database(), 12)
    elif what == "jobs":
        queue(server.database(), int(arguments[0]))
    else:
        {"app": app, "old-worker": old_worker}[what](server.database())


if __name__ == "__main__":
    main(*sys.argv[1:])
