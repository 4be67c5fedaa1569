"""Fixtures of the fault tests: the program behind proxies that spoil things on purpose."""

import json
import secrets
import threading
import time

import pytest
from bed.docker import DockerError
from bed.proxy import EngineProxy, PostgresProxy
from bed.stores import S3Server, WebDavServer

JOB = "package"


@pytest.fixture
def proxy(ground):
    """A proxy for the engine that answers here."""
    made = EngineProxy(ground.engine.socket_path)
    yield made
    made.close()


@pytest.fixture
def pg_proxy(postgres):
    made = PostgresProxy(postgres.port)
    yield made
    made.close()


@pytest.fixture(scope="session")
def s3_server():
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server):
    """An S3 store that behaves unless a test tells it otherwise; its buckets stay for the whole run."""
    yield s3_server
    s3_server.behave()


@pytest.fixture(scope="session")
def webdav_server():
    server = WebDavServer()
    yield server
    server.close()


@pytest.fixture
def webdav(webdav_server):
    """A WebDAV store, empty at first."""
    yield webdav_server
    webdav_server.behave()
    webdav_server.clear()


class Events:
    """What an engine says has happened to containers, from now on."""

    def __init__(self, ground):
        self.ground, self.found, self.marks = ground, [], 0
        self._stream = ground.docker.open("GET", "/events", timeout=3600)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while line := self._stream.readline():
                self.found.append(json.loads(line))
        except (OSError, ValueError, AttributeError):
            pass  # the engine was stopped

    def count(self, action, job):
        """All that came before now: a new name for an image is the mark up to which is read."""
        repository, tag = "qfc-bed-mark", secrets.token_hex(8)
        self.ground.docker.tag(self.ground.image, repository, tag)
        deadline = time.monotonic() + 20
        while not any(tag in event["Actor"]["Attributes"].get("name", "") for event in list(self.found)):
            assert time.monotonic() < deadline, "the engine's events do not come"
            time.sleep(0.01)
        self.ground.docker.remove_image(f"{repository}:{tag}")
        return sum(
            event.get("Action") == action and event["Actor"]["Attributes"].get("job_id") == str(job["id"])
            for event in self.found
        )


class Scene:
    """The program behind a proxy, and what the fault tests ask again and again. Containers have no network, so the
    stand-in asks no API."""

    def __init__(self, worker, ground, database, proxy=None, pg_proxy=None):
        self.worker, self.ground, self.docker, self.database = worker, ground, ground.docker, database
        self.proxy, self.pg_proxy, self.process = proxy, pg_proxy, None
        self.events = Events(ground)
        worker.env["QFIELDCLOUD_DEFAULT_NETWORK"] = "none"
        worker.env["QFC_WORKER_POLL_MS"] = "100"
        worker.env["RETRY_BASE_DELAY_SECONDS"] = "0"
        if proxy:
            worker.env["DOCKER_HOST"] = proxy.host
        if pg_proxy:
            worker.env["POSTGRES_PORT"] = str(pg_proxy.port)

    # The program

    def start(self, *args, **env):
        self.process = self.worker.start("run", *args, **env)
        return self.process

    def log(self, level=None, job=None):
        return self.process.output().messages(level, job)

    def said(self, text, level=None):
        """How many lines of the log have this text."""
        return sum(text in message for message in self.log(level))

    def wait_for_word(self, text, times=1, limit=60):
        self.worker.wait_for(lambda: self.said(text) >= times, f'"{text}" in the log', limit)

    def stop(self, code=0):
        """Ends the program as a service manager would; it must end well."""
        output = self.process.stop()
        assert output.returncode == code, str(output)
        return output

    # Jobs

    def job(self, plays="offline.qgs", **values):
        return self.database.job(self.database.project(qgis_file=plays, files=()), JOB, **values)

    def row(self, job):
        return self.database.get("core_job", job["id"])

    def wait_for(self, job, *statuses, limit=60):
        return self.worker.wait_for_status(job, *statuses, limit=limit)

    def finishes(self, job, limit=60):
        """Waits for the job's end, which must be a good one; returns its row."""
        row = self.wait_for(job, "finished", "failed", limit=limit)
        assert row["status"] == "finished", f"{row['feedback']}\n{self.process.output()}"
        return row

    def another_finishes(self):
        """The program is alive and well: a further job is done."""
        return self.finishes(self.job())

    def tokens(self):
        return self.database.execute("SELECT * FROM authentication_authtoken")

    # Containers

    def containers(self, job):
        return self.docker.containers(label=[f"job_id={job['id']}"])

    def running(self, job):
        """Waits until the job's container runs; returns its id."""

        def look():
            return [c["Id"] for c in self.containers(job) if c["State"] == "running"]

        return self.worker.wait_for(look, "a running container")[0]

    def let_go(self, container):
        """Lets the scenario `gate` go on."""
        self.docker.put(container, "/io", {"go": b""})

    def is_gone(self, container):
        try:
            self.docker.inspect(container)
        except DockerError as error:
            if error.status == 404 or "no such container" in str(error):  # podman, which is just removing it: 500
                return True
            raise
        return False

    def wait_until_gone(self, container):
        self.worker.wait_for(lambda: self.is_gone(container), "the container's removal")

    def starts(self, job):
        """How many containers of the job the engine has started."""
        return self.events.count("start", job)

    # The database

    def backend(self, condition="true"):
        """The pid of the program's session, or None."""
        return self.database.value(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            f"AND application_name LIKE 'qfc-worker:%' AND {condition} LIMIT 1"
        )

    def wait_for_lock(self):
        """Waits until the program's session waits for somebody's lock; returns its pid."""
        return self.worker.wait_for(lambda: self.backend("wait_event_type = 'Lock'"), "the program waiting for a lock")


@pytest.fixture
def scene(make_worker, database, ground, proxy):
    """The program with a proxy before its engine."""
    return Scene(make_worker(database, ground), ground, database, proxy)


@pytest.fixture
def pg_scene(make_worker, database, ground, proxy, pg_proxy):
    """The program with a proxy before its engine and one before its database."""
    return Scene(make_worker(database, ground), ground, database, proxy, pg_proxy)


@pytest.fixture
def own_scene(make_worker, database, own_ground):
    """The program with an engine of its own."""
    return Scene(make_worker(database, own_ground), own_ground, database)
