"""A storm: many workers on an engine of their own, many jobs, and everything that can die dies again and again.

What happens, and in which order, is made from one number, the seed; when exactly it strikes is the machine's business.
`blow()` returns when calm has come and all jobs have ended; the checks are the test's.
"""

import random
import signal
import time
import types

import psycopg2

from .docker import DockerError
from .rows import now
from .storm_trail import OVER, Starts, lay, patiently

# What a job may play, by its type: how it must end when nobody disturbs it.
SCENES = {
    "package": [("offline.qgs", True), ("sleep@0.5.qgs", True), ("sleep@2.qgs", True), ("sleep_after@1.qgs", True),
                ("workflow_error.qgs", False), ("crash@7.qgs", False)],
    "process_projectfile": [("offline.qgs", True), ("sleep@1.qgs", True), ("workflow_error.qgs", False)],
    "create_project": [("offline.qgs", True), ("sleep@1.qgs", True)],
    "delta_apply": [("deltas@status_applied,status_conflict.qgs", True), ("sleep@1.qgs", True),
                    ("sleep_after@1.qgs", True), ("crash@9.qgs", False)],
}
TYPES = ("package", "delta_apply", "process_projectfile", "create_project")
JOBS_OF_A_PROJECT = 4
DELTAS = 3


def prune(docker):
    """As `docker system prune -f` does."""
    for kind in ("containers", "networks", "volumes", "images"):
        try:
            docker.post(f"/{kind}/prune")
        except DockerError as error:
            if error.status != 409:  # another one is under way
                raise


class Job:
    """What is known of a job beforehand."""

    def __init__(self, row, type_, plays, good):
        self.id, self.type, self.plays, self.good = str(row["id"]), type_, plays, good

    def __repr__(self):
        return f"{self.type} {self.id} ({self.plays})"


class Storm:
    """`counts` has how many there are of each kind of stroke: the names are those of the methods below."""

    def __init__(self, scene, postgres, seed, **counts):
        self.worker, self.ground, self.docker = scene.worker, scene.ground, scene.docker
        self.database, self.postgres, self.seed = scene.database, postgres, seed
        self.random = random.Random(seed)
        self.jobs, self.slots, self.killed_containers = [], [], set()
        self.struck = dict.fromkeys(counts, 0)
        self._plan = [name for name, count in counts.items() for _ in range(count)]
        self.random.shuffle(self._plan)
        self.starts = Starts(self.docker)
        lay(self.database)

    # Jobs

    def _project(self):
        """A project and its jobs: all of one project play the same, since its QGIS file says what. It is locked until
        all rows are there, which the web application writes in one transaction."""
        first = self.random.choice(TYPES)
        plays, good = self.random.choice(SCENES[first])
        project = self.database.project(qgis_file=plays, files=(), locked_at=now())
        types = [type_ for type_ in TYPES if (plays, good) in SCENES[type_]]
        for _ in range(JOBS_OF_A_PROJECT):
            type_ = self.random.choice(types)
            if type_ == "delta_apply":
                row = self.database.apply_job(project, [self.database.delta(project) for _ in range(DELTAS)])
            else:
                row = self.database.job(project, type_)
            self.jobs.append(Job(row, type_, plays, good))
        self.database.update(self.database.project_table, project["id"], locked_at=None)

    def _queue(self, up_to):
        while len(self.jobs) < up_to:
            self._project()

    # Workers

    def _start(self, slot):
        slot.process, slot.due = self.worker.start("run", QFC_WORKER_CONCURRENCY="2"), None

    def _revive(self, at_once=False):
        """Starts workers that are dead, each after a while of its own."""
        for slot in self.slots:
            if slot.process.process.poll() is None:
                continue
            if slot.due is None:
                slot.due = time.monotonic() + self.random.uniform(0, 2)
            if at_once or slot.due <= time.monotonic():
                self._start(slot)

    def _alive(self):
        return [slot for slot in self.slots if slot.process.process.poll() is None]

    # Strokes

    def kill_worker(self):
        alive = self._alive()
        if not alive:
            return False
        slot = self.random.choice(alive)
        slot.process.send(signal.SIGKILL)
        slot.process.process.wait()
        return True

    def stop_worker(self):
        alive = self._alive()
        if not alive:
            return False
        self.random.choice(alive).process.send(signal.SIGTERM)
        return True

    def kill_container(self):
        running = [c for c in self.docker.containers() if c["State"] == "running" and "job_id" in c["Labels"]]
        if not running:
            return False
        container = self.random.choice(sorted(running, key=lambda c: c["Id"]))
        try:
            self.docker.kill(container["Id"])
        except DockerError:
            return False  # it has just ended
        self.killed_containers.add(container["Labels"]["job_id"])
        return True

    def end_session(self):
        pids = patiently(
            self.database,
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name LIKE 'qfc-worker:%%' AND %s ORDER BY pid",
            True,
        )
        return bool(pids) and bool(
            patiently(self.database, "SELECT pg_terminate_backend(%s)", self.random.choice(pids)["pid"])
        )

    def restart_postgres(self):
        self.database.disconnect()
        self.postgres.restart("immediate")
        return True

    def restart_engine(self):
        self.ground.engine.restart()
        return True

    def kill_engine(self):
        engine = self.ground.engine
        engine.kill()
        if self.random.random() < 0.5:
            engine.end_survivors()
        time.sleep(self.random.uniform(0, 2))
        engine.start()
        return True

    def prune(self):
        prune(self.docker)
        return True

    def _strike(self, name):
        """Tries for a while, since there may be nothing to strike at."""
        deadline = time.monotonic() + 10
        while not getattr(self, name)():
            if time.monotonic() > deadline:
                return
            self._revive()
            time.sleep(0.05)
        self.struck[name] += 1

    # The whole

    def blow(self, jobs, workers=8, pause_s=(0.1, 0.9), calm_s=150):
        """The storm, and the calm after it. Fails when a job has not ended then. `pause_s`: between two strokes."""
        for _ in range(workers):
            self.slots.append(types.SimpleNamespace(process=None, due=None))
            self._start(self.slots[-1])
        for number, name in enumerate(self._plan, 1):
            self._queue(jobs * number // len(self._plan))
            self._revive()
            time.sleep(self.random.uniform(*pause_s))
            self._strike(name)
        self._wait_for_calm(calm_s)

    def open_jobs(self):
        return patiently(self.database, "SELECT * FROM core_job WHERE NOT status = ANY (%s)", list(OVER))

    def _wait_for_calm(self, limit):
        """Fails when nothing ends for so long."""
        left, deadline = None, 0
        while True:
            self._revive(at_once=True)
            open_jobs = self.open_jobs()
            if not open_jobs:
                return
            if left is None or len(open_jobs) < left:
                left, deadline = len(open_jobs), time.monotonic() + limit
            assert time.monotonic() < deadline, f"{left} jobs do not end: {self.told(open_jobs)}"
            time.sleep(0.2)

    def told(self, rows, most=3):
        """Rows and what the workers' logs say of them."""
        texts = []
        for row in rows[:most]:
            lines = [
                f"{line.get('time', line.get('timestamp', ''))} {process.pid} {line.get('message')}"
                for process in self.worker._started
                for line in process.output().lines
                if line.get("job") == str(row["id"])
            ]
            known = {name: row[name] for name in ("id", "type", "status", "container_id", "feedback")}
            texts.append("\n  ".join([str(known), *sorted(lines)]))
        return "\n".join(texts)

    def wait_until(self, predicate, limit=90):
        """Does it become true in good time?"""
        deadline = time.monotonic() + limit
        while not predicate():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def stop(self):
        """Ends all workers as a service manager would; returns the exit codes of those that did not end well."""
        for slot in self.slots:
            slot.process.send(signal.SIGTERM)
        outputs = [slot.process.wait() for slot in self.slots]
        return [output for output in outputs if output.returncode != 0]

    def close(self):
        """Whatever came of it."""
        self.starts.close()
        for slot in self.slots:
            if slot.process.process.poll() is None:
                slot.process.stop(signal.SIGKILL)
        if not self.postgres.running():
            self.postgres.start()
        try:
            self.database.execute("SELECT 1")
        except psycopg2.Error:
            self.database.disconnect()
