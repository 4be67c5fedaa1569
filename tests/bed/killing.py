"""Workers that stop at a step of a job's life, and one that comes after them: what the kill matrix is made of.

A road is what leads a worker to some of the steps: a kind of job, and what happens to it on the way. A world is a
database with a worker for each of those steps, before and after its operation, and with the rescuer that finishes what
they leave. Worlds do not know of each other, so that all their waiting is done at the same time.
"""

import collections
import json
import signal
import subprocess

from .proxy import EngineProxy
from .rows import PACKAGE_FILE
from .worker import Worker

WHEN = ("before", "after")
LATER, RUNNING, STOPPED = "killed, rescued later", "killed beside its rescuer", "stopped, rescued, woken"
PATIENCE_S = 240
TIMEOUT_S = 3


def steps_of(binary):
    """The steps of a job's life, as the program's own table names them."""
    lines = subprocess.run([binary, "lifecycle"], check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.split("**")[1] for line in lines if line.startswith("**")]


def can_stop(binary):
    """Was the program built to stop for tests?"""
    with open(binary, "rb") as file:
        return b"stopped for a test" in file.read()


class Road:
    """A delta_apply job whose container ends well. Others differ in one thing or two."""

    steps = ("read", "create", "put", "prepare", "start", "wait", "inspect", "logs", "feedback", "finish", "remove")
    release, plays, status, deltas = "v26.25", "offline.qgs", "finished", "applied"
    at_once = True  # all workers of a world are brought to their steps together

    def __init__(self, ground, s3):
        self.ground, self.s3 = ground, s3
        self.env, self.victims_env = {}, {}

    def job(self, database):
        project = database.project(qgis_file=self.plays, files=())
        return database.apply_job(project, [database.delta(project) for _ in range(2)])

    def meanwhile(self, world):
        """What somebody else does when all jobs are there."""

    def afterwards(self, world):
        """What is to be done when all jobs have ended."""

    def check(self, world, victim):
        """What else there is to be right."""

    def close(self):
        pass


class Refused(Road):
    """The engine does not take the container's files: the job goes back."""

    steps, call = ("discard", "put back"), r"^PUT /containers/\w+/archive"

    def __init__(self, ground, s3):
        super().__init__(ground, s3)
        self.proxy = EngineProxy(ground.engine.socket_path)
        self.proxy.answer(self.call, 500, times=None)
        self.victims_env = {"DOCKER_HOST": self.proxy.host}

    def close(self):
        self.proxy.close()


class Unstarted(Refused):
    """The engine does not start the container, whose id the row names by then. It has not run for certain."""

    steps, call = ("put back",), r"^POST /containers/\w+/start"


class Overdue(Road):
    """The container does not end in time."""

    steps, plays, status, deltas = ("kill",), "sleep@600.qgs", "failed", "error"

    def __init__(self, ground, s3):
        super().__init__(ground, s3)
        self.env = {"QFIELDCLOUD_WORKER_TIMEOUT_S": str(TIMEOUT_S)}

    def check(self, world, victim):
        row = world.row(victim)
        assert row["feedback"]["error_type"] == "TIMEOUT" and "within 3 seconds" in row["output"], row


class Deleted(Road):
    """Somebody deletes the job while its container runs."""

    steps, plays, status = ("revoke",), "gate.qgs", None

    def job(self, database):
        return database.job(database.project(qgis_file=self.plays, files=()), "package")

    def meanwhile(self, world):
        world.wait_for(lambda: len(world.containers("running")) == len(world.jobs), "all containers")
        for job in world.jobs:
            world.database.execute("DELETE FROM core_packagejob WHERE job_ptr_id = %s", job["id"])
            world.database.execute("DELETE FROM core_job WHERE id = %s", job["id"])


class Stored(Road):
    """Something is in a storage."""

    def __init__(self, ground, s3):
        super().__init__(ground, s3)
        self.bucket = s3.create_bucket()
        self.env = {"STORAGES": s3.storages(self.bucket)}

    def objects(self, project_id):
        return {key for key in self.s3.objects(self.bucket) if key.startswith(f"projects/{project_id}/")}


class Picture(Stored):
    """The worker stores the project's picture."""

    steps, release, plays = ("thumbnail", "review", "store"), "v26.3", "thumbnail.qgs"

    def job(self, database):
        return database.job(database.project(qgis_file=self.plays, files=()), "process_projectfile")

    def check(self, world, victim):
        project_id = world.row(victim)["project_id"]
        key = world.database.get(world.database.project_table, project_id)["thumbnail"]
        assert key in self.objects(project_id), f"{key} is not in {self.objects(project_id)}"


class Objects(Stored):
    """Objects of earlier packages are to be erased. One worker at a time: in these steps it takes another job."""

    steps, at_once = ("list", "leftovers", "erase"), False

    def job(self, database):
        project = database.project(qgis_file=self.plays, files=("survey.gpkg",))
        past = database.job(project, "package", "finished", created_at="2026-01-01T00:00:00Z")
        database.file(project, "data.gpkg", file_type=PACKAGE_FILE, package_job=past)
        leftover = f"projects/{project['id']}/packages/{past['id']}/leftover.gpkg"
        self.s3.put(self.bucket, leftover, *self.keys(database, project["id"]))
        return database.job(project, "package")

    def keys(self, database, project_id):
        """The objects that rows name."""
        rows = database.execute("SELECT content FROM filestorage_fileversion JOIN filestorage_file f"
                                " ON f.id = file_id WHERE f.project_id = %s", project_id)
        return {row["content"] for row in rows}

    def afterwards(self, world):
        """What one package could not erase goes with the next."""
        for job in list(world.jobs):
            world.jobs.append(world.database.job({"id": job["project_id"], "owner_id": job["created_by_id"]}))
        world.wait_for_jobs()
        world.wait_for(lambda: all(map(self.is_tidy, [world] * len(world.jobs), world.jobs)), "the erasing", False)

    def is_tidy(self, world, job):
        return self.objects(job["project_id"]) == self.keys(world.database, job["project_id"])

    def check(self, world, victim):
        assert self.is_tidy(world, victim.job), self.objects(victim.job["project_id"])


ROADS = (Road, Refused, Unstarted, Overdue, Deleted, Picture, Objects)
CELLS = [(road, step, when) for road in ROADS for step in road.steps for when in WHEN]


class Victim:
    """A worker that stops at a step, by itself."""

    def __init__(self, worker, way, step, when, **env):
        self.way, self.step, self.when, self.job = way, step, when, None
        self.process = worker.start(
            "run", "--concurrency", 1, QFC_TEST_STOP=f"{step} {when}", LOGLEVEL="debug", **env
        )

    def is_stopped(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"

    def job_id(self):
        """Of the job that it stopped with."""
        lines = self.process.output().lines
        return next(line["job"] for line in lines if line["message"].startswith("stopped for a test"))

    def kill(self):
        self.process.send(signal.SIGKILL)
        self.process.process.wait()

    def has_ended_its_job(self):
        return any(message.endswith("so: end") or "so: end:" in message
                   for message in self.process.output().messages("debug", self.job)
                   + self.process.output().messages("warning", self.job))


class World:
    """One road with its workers, which end in these ways."""

    def __init__(self, binary, road, ways, postgres, ground, s3, directory, events):
        self.road, self.ways, self.ground, self.events = road(ground, s3), ways, ground, events
        self.database = postgres.database(road.release)
        self.worker = Worker(binary, self.database, ground.engine, ground.image, ground.network, directory)
        self.worker.env.update(QFIELDCLOUD_DEFAULT_NETWORK="none", QFC_WORKER_POLL_MS="100",
                               RETRY_BASE_DELAY_SECONDS="0", **self.road.env)
        self.jobs, self.victims, self.rescuer = [], [], None
        self.changed, self.started_again, self.starts_in_all, self.complaints = {}, [], {}, []

    # Waiting

    def wait_for(self, predicate, what, must=True):
        try:
            self.worker.wait_for(predicate, what, PATIENCE_S)
        except AssertionError:
            if must:
                raise
            self.complaints.append(f"waited in vain for {what}")

    def wait_for_jobs(self):
        ended = "SELECT count(*) FROM core_job WHERE status NOT IN ('finished', 'failed')"
        self.wait_for(lambda: self.database.value(ended) == 0, "the end of all jobs", False)

    # Looking

    def row(self, victim):
        return self.database.get("core_job", victim.job["id"])

    def victim(self, way, step, when):
        return next(v for v in self.victims if (v.way, v.step, v.when) == (way, step, when))

    def deltas(self, victim):
        rows = self.database.execute(
            "SELECT last_status, status FROM core_applyjobdelta JOIN core_delta d ON d.id = delta_id"
            " WHERE apply_job_id = %s", victim.job["id"])
        return {status for row in rows for status in row.values()}

    def containers(self, *states):
        ids = {str(job["id"]) for job in self.jobs}
        found = self.ground.docker.containers(label=[f"app={self.ground.network}_worker"])
        return [c for c in found if c["Labels"].get("job_id") in ids and (not states or c["State"] in states)]

    # What happens

    def begin(self):
        """All workers stop at their steps."""
        cells = [(way, step, when) for way in self.ways for step in self.road.steps for when in WHEN]
        for batch in [cells] if self.road.at_once else [[cell] for cell in cells]:
            jobs = [self.road.job(self.database) for _ in batch]
            self.jobs += jobs
            victims = [Victim(self.worker, *cell, **self.road.victims_env) for cell in batch]
            self.victims += victims
            if not self.road.at_once:
                self.stopped()

    def stopped(self):
        """Waits until they have."""
        self.road.meanwhile(self)
        self.wait_for(lambda: all(victim.is_stopped() for victim in self.victims), "all workers having stopped")
        by_id = {str(job["id"]): job for job in self.jobs}
        for victim in self.victims:
            victim.job = by_id[victim.job_id()]

    def kill(self, way):
        for victim in self.victims:
            if victim.way == way:
                victim.kill()

    def rescue(self):
        self.rescuer = self.worker.start("run", "--concurrency", 8)

    def rescuer_is_there(self):
        said = self.rescuer.output().messages("info")
        return all(any(word in message for message in said) for word in ("connected to the database", "the engine at"))

    def settle(self):
        """All jobs end, and nothing is left of them."""
        self.wait_for_jobs()
        self.road.afterwards(self)
        self.wait_for(lambda: not self.containers(), "the removal of all containers", False)
        self.wait_for(lambda: not self.tokens(), "the end of all tokens", False)
        self.wait_for(lambda: self.locks() == 0, "the end of all locks", False)

    def tokens(self):
        return self.database.execute("SELECT key FROM authentication_authtoken")

    def locks(self):
        """Of jobs; those with a key of two halves are of what a worker does for all."""
        return self.database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
                                   " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")

    def wake(self):
        """The stopped ones go on, and end when they are told to; what they have written since is remembered."""
        before, starts = self.database.dump(), self.starts()
        sleepers = [victim for victim in self.victims if victim.way == STOPPED]
        for victim in sleepers:
            victim.process.send(signal.SIGCONT)
        self.wait_for(lambda: all(v.has_ended_its_job() for v in sleepers), "their letting go of their jobs", False)
        for victim in sleepers:
            self.end(victim.process)
        after = self.database.dump()
        self.changed = {table: rows for table, rows in after.items() if rows != before[table]}
        after_starts = self.starts()
        self.started_again = [job["id"] for job in self.jobs if after_starts[str(job["id"])] != starts[str(job["id"])]]
        self.wait_for(lambda: not self.containers(), "the removal of what they made", False)

    def starts(self):
        """{job's id: how often a container of it was started}."""
        self.events.count("start", self.jobs[0])
        return collections.Counter(
            event["Actor"]["Attributes"].get("job_id")
            for event in list(self.events.found)
            if event.get("Type") == "container" and event.get("Action") == "start"
        )

    def starts_of(self, victim):
        return self.starts_in_all[str(victim.job["id"])]

    def end(self, process):
        output = process.stop()
        if output.returncode != 0:
            self.complaints.append(f"a worker did not end well:\n{output}")

    def close(self):
        """Ends what still runs."""
        self.starts_in_all = self.starts()
        if self.rescuer:
            self.end(self.rescuer)
        self.complaints += self.worker.close()

    def forget(self):
        for container in self.containers():
            self.ground.docker.remove(container["Id"])
        self.road.close()
        self.database.close()

    def told(self, victim):
        """For a failure: what the worker and its rescuer said of the job."""
        lines = victim.process.output().lines + self.rescuer.output().lines
        return "\n".join(json.dumps(line) for line in lines if line.get("job") == str(victim.job["id"]))
