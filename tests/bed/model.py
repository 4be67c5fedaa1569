"""A crowd around one queue: the web application's part of the model test.

A `Plan` says beforehand what each job is and does; it follows from its seed alone. `Web` plays the web application and
its users in threads: they add jobs, delete jobs and projects, lock projects while files are transferred, and end jobs
as the web application's cleaning task does.
"""

import contextlib
import datetime
import json
import random
import threading
import time
import traceback

import psycopg2
import psycopg2.errors

from .rows import CHILD_TABLES, Database

RESULTS = {"status_applied": "applied", "status_conflict": "conflict", "status_apply_failed": "not_applied"}
GOOD, ERROR, CRASH = "good", "error", "crash"
EXIT_CODES = (1, 2, 134, 139)
MANY = 0  # the index of the project with very many jobs


class Job:
    """A job of the plan: `id` and `deltas` (id of each delta: its result) once it is there."""

    def __init__(self, number, project, type_, outcome):
        self.number, self.project, self.type, self.outcome = number, project, type_, outcome
        self.run_s, self.start_s, self.exit_code, self.log_bytes = 0.01, 0.0, 0, 200
        self.refuse_creates = self.refuse_starts = 0
        self.results, self.late, self.lock_at_once = [], False, False
        self.id, self.deltas = None, {}

    @property
    def status(self):
        return "finished" if self.outcome == GOOD else "failed"


class Plan:
    """`count` jobs in `projects` projects. The first project has a share of its own, and all of that at the start."""

    def __init__(self, seed, count, projects, types, many):
        self.seed, self.random, self.projects = seed, random.Random(seed), projects
        self.many = [self._job(number, MANY, types) for number in range(many)]
        self.jobs = [self._job(number, self.random.randrange(1, projects), types) for number in range(many, count)]

    def _job(self, number, project, types):
        dice = self.random
        job = Job(number, project, dice.choice(types), dice.choices((GOOD, ERROR, CRASH), (80, 10, 10))[0])
        job.run_s = dice.choices((dice.uniform(0.002, 0.03), dice.uniform(0.03, 0.4)), (60, 40))[0]
        job.start_s = dice.choices((0, dice.uniform(0, 0.4)), (90, 10))[0]
        job.exit_code = dice.choice(EXIT_CODES) if job.outcome == CRASH else 0
        job.log_bytes = 300_000 if dice.random() < 0.01 else dice.randrange(2000)
        job.refuse_creates = dice.choices((0, 1, 2), (95, 4, 1))[0]
        job.refuse_starts = dice.choices((0, 1), (97, 3))[0]
        if job.type == "delta_apply":
            job.results = [dice.choice(tuple(RESULTS)) for _ in range(dice.randrange(1, 4))]
        job.late, job.lock_at_once = dice.random() < 0.3, dice.random() < 0.1
        return job


class Player:
    """A connection of somebody's own, whose transactions are tried again where the database asks for it."""

    AGAIN = (
        psycopg2.errors.DeadlockDetected,
        psycopg2.errors.SerializationFailure,
        psycopg2.errors.ForeignKeyViolation,
    )

    def __init__(self, database):
        self.db = Database(database.server, database.name, database.schema)

    @contextlib.contextmanager
    def _transaction(self):
        self.db.execute("BEGIN")
        try:
            yield self.db
            self.db.execute("COMMIT")
        except BaseException:
            self.db.disconnect()
            raise

    def transaction(self, act, *args):
        """What `act` returns, once committed."""
        while True:
            try:
                with self._transaction() as db:
                    return act(db, *args)
            except self.AGAIN:
                time.sleep(0.005)


class Web:
    """The web application with its users; start() after the projects are there. `deleted` are jobs' ids, `cleaned`
    those that the task has ended; `locks` counts. `plays` are the projects' QGIS files."""

    def __init__(self, database, plan, added, first=250, backlog=25, pace=1.0):
        self.database, self.plan, self.added = database, plan, added
        self.first, self.backlog, self.pace = first, backlog, pace
        self.projects, self.of_id, self.plays = [], {}, ["success.qgs"] * plan.projects
        self.deleted, self.gone_projects, self.cleaned, self.locks = set(), set(), set(), 0
        self.failures, self.all_added = [], threading.Event()
        self._stopped, self._threads, self._urgent, self._rest = threading.Event(), [], [], []

    # Before the start

    def add_projects(self):
        owner = self.database.user()
        self.projects = [self.database.project(owner, qgis_file=plays, files=()) for plays in self.plays]

    def fill(self):
        """Jobs that are there before anybody works: more than there are slots, or their order would be of no matter."""
        player, first = Player(self.database), min(self.first, len(self.plan.jobs) // 2)
        for job in self.plan.many + self.plan.jobs[:first]:
            self._add(player, job)
        self._rest = self.plan.jobs[first:]
        player.db.disconnect()

    def start(self):
        for role in (self._feed, self._delete, self._lock, self._lock_at_once, self._clean):
            self._threads.append(threading.Thread(target=self._play, args=(role, Player(self.database)), daemon=True))
            self._threads[-1].start()

    def stop(self):
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)

    def _play(self, role, player):
        dice = random.Random(f"{self.plan.seed} {role.__name__}")
        try:
            role(player, dice)
        except Exception:  # pylint: disable=broad-except
            self.failures.append(traceback.format_exc())
        finally:
            player.db.disconnect()

    def pause(self, seconds):
        """False when it is over."""
        return not self._stopped.wait(seconds / self.pace)

    # Jobs are added

    def _insert(self, db, job, age_s):
        project = self.projects[job.project]
        created = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=age_s)
        if job.results:
            deltas = [db.delta(project) for _ in job.results]
            row = db.apply_job(project, deltas, created_at=created)
            job.deltas = {delta["id"]: result for delta, result in zip(deltas, job.results)}
        else:
            row = db.job(project, job.type, created_at=created)
        return str(row["id"]), [delta["content"]["uuid"] for delta in deltas] if job.results else []

    def _add(self, player, job, age_s=0.0):
        """The script is there before the job can be seen."""

        def act(db):
            if job.project in self.gone_projects:
                return
            job.id, ids = self._insert(db, job, age_s)
            self.added(job, ids)
            self.of_id[job.id] = job

        player.transaction(act)

    def _feed(self, player, dice):
        """Adds the other jobs; few wait, so that most are claimed as soon as they can be seen. A `late` one is created
        first and committed second, as slow transactions do."""
        jobs = list(self._rest)
        while jobs and not self._stopped.is_set():
            waiting = "SELECT count(*) FROM core_job WHERE status = 'pending' AND project_id <> %s"
            if player.db.value(waiting, self.projects[MANY]["id"]) > self.backlog:
                self.pause(0.02)
                continue
            job = jobs.pop(0)
            follower = jobs[0] if jobs and job.late else None
            if follower:
                jobs.pop(0)
                follower.project = job.project = self._idle_project(player, dice, job.project)
                self._add(player, follower)
                time.sleep(dice.uniform(0, 0.008))
            self._add(player, job, 0.1 if follower else 0)
            if job.lock_at_once and not follower:
                self._urgent.append(job.project)
        self.all_added.set()

    def _idle_project(self, player, dice, otherwise):
        busy = player.db.execute(
            "SELECT DISTINCT project_id FROM core_job WHERE status IN ('pending', 'queued', 'started')"
            " OR finished_at > now() - interval '1 second'"
        )
        taken = {row["project_id"] for row in busy}
        idle = [i for i, p in enumerate(self.projects) if i and i not in self.gone_projects and p["id"] not in taken]
        return dice.choice(idle) if idle else otherwise

    # Jobs and projects are deleted

    def _delete(self, player, dice):
        while self.pause(dice.uniform(0.1, 0.5)):
            if dice.random() < 0.15:
                self._delete_project(player, dice.randrange(1, len(self.projects)))
            else:
                status = dice.choice(("pending", "queued", "started", "started"))
                row = player.db.one(
                    "SELECT id FROM core_job WHERE status = %s AND project_id <> %s ORDER BY random() LIMIT 1",
                    status, self.projects[MANY]["id"],
                )  # fmt: skip
                if row:
                    self.deleted |= player.transaction(self._delete_jobs, "id", row["id"])

    def _delete_jobs(self, db, column, value):
        jobs = f"(SELECT id FROM core_job WHERE {column} = %s)"
        db.execute(f"DELETE FROM core_applyjobdelta WHERE apply_job_id IN {jobs}", value)
        for table in CHILD_TABLES.values():
            db.execute(f"DELETE FROM {table} WHERE job_ptr_id IN {jobs}", value)
        rows = db.execute(f"DELETE FROM core_job WHERE {column} = %s RETURNING id", value)
        return {str(row["id"]) for row in rows}

    def _delete_project(self, player, index):
        if index in self.gone_projects or len(self.gone_projects) > len(self.projects) // 4:
            return
        self.gone_projects.add(index)
        self.deleted |= player.transaction(self._delete_project_rows, self.projects[index]["id"])

    def _delete_project_rows(self, db, project):
        files = "(SELECT id FROM filestorage_file WHERE project_id = %s)"
        deleted = self._delete_jobs(db, "project_id", project)
        db.execute("DELETE FROM core_delta WHERE project_id = %s", project)
        db.execute("UPDATE filestorage_file SET latest_version_id = NULL WHERE project_id = %s", project)
        if db.has(db.project_table, "the_qgis_file_id"):
            db.execute(f"UPDATE {db.project_table} SET the_qgis_file_id = NULL WHERE id = %s", project)
        if db.has("project_qgislayer"):
            db.execute("DELETE FROM project_qgislayer WHERE qgis_project_id = %s", project)
            db.execute("DELETE FROM project_qgisproject WHERE project_id = %s", project)
        db.execute(f"DELETE FROM filestorage_fileversion WHERE file_id IN {files}", project)
        db.execute("DELETE FROM filestorage_file WHERE project_id = %s", project)
        db.execute(f"DELETE FROM {db.project_table} WHERE id = %s", project)
        return deleted

    # Projects are locked

    def _set_lock(self, db, index, locked, before_commit_s=0.0):
        at = datetime.datetime.now(datetime.timezone.utc) if locked else None
        db.execute(
            f"UPDATE {db.project_table} SET locked_at = %s WHERE id = %s", at, self.projects[index]["id"]
        )
        time.sleep(before_commit_s)

    def _lock_for(self, player, dice, index, before_commit_s):
        player.transaction(self._set_lock, index, True, before_commit_s)
        self.locks += 1
        self.pause(dice.uniform(0.02, 0.3))
        player.transaction(self._set_lock, index, False)

    def _lock(self, player, dice):
        """A file transfer now and then, of a project that has jobs waiting."""
        numbers = {project["id"]: index for index, project in enumerate(self.projects)}
        while self.pause(dice.uniform(0.02, 0.2)):
            row = player.db.one("SELECT project_id FROM core_job WHERE status = 'pending' ORDER BY random() LIMIT 1")
            if row:
                self._lock_for(player, dice, numbers[row["project_id"]], dice.uniform(0, 0.03))

    def _lock_at_once(self, player, dice):
        """The lock is set while the job that has just come is about to be claimed."""
        while self.pause(0.001):
            if self._urgent:
                self._lock_for(player, dice, self._urgent.pop(0), dice.uniform(0, 0.005))

    # The cleaning task

    def _clean(self, player, dice):
        while self.pause(dice.uniform(0.4, 1.5)):
            self.cleaned |= player.transaction(self._clean_one)

    def clean(self, job_ids):
        """Ends jobs that their old loop has started, and has died."""
        player = Player(self.database)
        for job_id in job_ids:
            self.cleaned |= player.transaction(self._clean_one, f"id = '{job_id}'")
        player.db.disconnect()

    def _clean_one(self, db, which="model_is_ours(id)"):
        row = db.one(
            f"SELECT id, created_by_id FROM core_job WHERE status = 'started' AND {which}"
            " ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED"
        )
        if not row:
            return set()
        said = {"error": "Job unexpectedly terminated.", "error_origin": "worker_wrapper", "container_exit_code": -2}
        db.execute(
            "UPDATE core_job SET status = 'failed', finished_at = now(), output = %s, feedback = %s WHERE id = %s",
            "Job unexpectedly terminated.", json.dumps(said), row["id"],
        )  # fmt: skip
        deltas = "(SELECT delta_id FROM core_applyjobdelta WHERE apply_job_id = %s)"
        db.execute(f"UPDATE core_delta SET last_status = 'error' WHERE id IN {deltas}", row["id"])
        db.execute("UPDATE core_applyjobdelta SET status = 'error' WHERE apply_job_id = %s", row["id"])
        return {str(row["id"])}
