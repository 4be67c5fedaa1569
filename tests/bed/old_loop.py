"""QFieldCloud's own worker, played: how `manage.py dequeue` and its wrapper (v25.27 to v26.25) claim, run and end jobs,
statement by statement, so that the program can be seen beside it.

As there, each step is a transaction of its own, final writes ask nobody whose the row is, and an error in the claim
ends the process; its container then starts it anew. Not played are QGIS's effects beyond deltas, details and times.
"""

import collections
import datetime
import http.client
import json
import threading
import uuid

import psycopg2
import psycopg2.errors
import psycopg2.extras

from .docker import DockerError

SIGKILL = 137
IDLE_ROUNDS, ROUND_S, RESTART_S = 3, 0.2, 0.2  # 5, 1 and some seconds in the real one

CLAIM = """
SELECT core_job.id FROM core_job INNER JOIN {project} ON core_job.project_id = {project}.id
WHERE core_job.status = 'pending' AND NOT (
    core_job.project_id IN (SELECT u.project_id FROM core_job u WHERE u.status IN ('queued', 'started'))
    OR {project}.locked_at IS NOT NULL)
ORDER BY core_job.created_at ASC LIMIT 1 FOR UPDATE SKIP LOCKED
"""
# The claim takes long where the history is, so what it locks is as its snapshot was some time ago.
SLOWNESS = "SELECT pg_sleep(CASE WHEN random() < 0.3 THEN random() * 0.04 ELSE 0 END)"
STATUS_OF_DELTA = {"status_applied": "applied", "status_conflict": "conflict", "status_apply_failed": "not_applied"}


class RowGone(Exception):
    """Django: the object does not exist, or `Save with update_fields did not affect any rows`."""


class Died(Exception):
    """Killed, between two statements."""


def utc():
    return datetime.datetime.now(datetime.timezone.utc)


class OldLoop(threading.Thread):
    """One replica, from start() until stop(). `counts` says what it met; `killed` are the containers that it took for
    orphans, `lost` its own jobs whose container somebody killed."""

    def __init__(self, database, docker, image, label):
        super().__init__(daemon=True)
        self.database, self.docker, self.image, self.label = database, docker, image, label
        self.counts, self.killed, self.lost, self.ran = collections.Counter(), [], set(), set()
        self.failure, self.tokens = None, set()
        self.abandoned = set()  # jobs that it had when it was killed, and had marked as started
        self._stopped, self._connection = threading.Event(), None
        self._killed, self._job, self._mortal = threading.Event(), None, True

    def stop(self):
        """Ends it after its current job, as SIGTERM does."""
        self._stopped.set()

    def kill(self):
        """As kill -9 does, at the next statement before it ends a job; it is started again then."""
        self._killed.set()

    def is_dying(self):
        return self._killed.is_set()

    def run(self):
        while not self._stopped.is_set():
            try:
                self._connection = self.database.connect()
                self._handle()
            except (psycopg2.errors.SerializationFailure, psycopg2.errors.DeadlockDetected):
                self.counts["serialization errors"] += 1
            except RowGone:
                self.counts["deaths by a deleted row"] += 1
            except Died:
                self.counts["killed"] += 1
                self.abandoned |= {str(self._job["id"])} if self._job else set()
                self._killed.clear()
            except Exception as error:  # pylint: disable=broad-except
                self.failure = error
                self._stopped.set()
            finally:
                self._job = None
                self._connection.close()
            self._stopped.wait(RESTART_S)

    def _execute(self, statement, *values):
        if self._mortal and self._killed.is_set():
            raise Died()
        with self._connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(statement.replace("{project}", self.database.project_table), values or None)
            return cursor.fetchall() if cursor.description else cursor.rowcount

    def _save(self, job, **values):
        """job.save(update_fields=...)."""
        sets = ", ".join(f"{name} = %s" for name in values)
        if not self._execute(f"UPDATE core_job SET {sets} WHERE id = %s", *values.values(), job["id"]):
            raise RowGone(job["id"])

    # dequeue.py

    def _handle(self):
        while not self._stopped.is_set():
            self._cancel_orphans()
            job_id = self._dequeue()
            if job_id:
                self.counts["claims"] += 1
                self._run_job(job_id)
                continue
            for _ in range(IDLE_ROUNDS):
                if not self._stopped.is_set():
                    self._cancel_orphans()
                    self._stopped.wait(ROUND_S)

    def _dequeue(self):
        self._execute("BEGIN")
        self._execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._execute(SLOWNESS)
        rows = self._execute(CLAIM)
        if rows:
            self._execute("UPDATE core_job SET status = 'queued' WHERE id = %s", rows[0]["id"])
        self._execute("COMMIT")
        return rows[0]["id"] if rows else None

    # wrapper.py

    def _cancel_orphans(self):
        listed = self.docker.get("/containers/json", filters={"label": [f"app={self.label}"]})
        running = [container["Id"] for container in listed]
        if not running:
            return
        known = self._execute("SELECT container_id FROM core_job WHERE container_id = ANY(%s)", running)
        for container in set(running) - {row["container_id"] for row in known}:
            try:
                self.docker.kill(container)
                self.killed.append(container)
                self.docker.delete(f"/containers/{container}", v=1)
            except DockerError:
                pass  # it is gone

    def _run_job(self, job_id):
        rows = self._execute("SELECT * FROM core_job WHERE id = %s", job_id)
        if not rows:
            raise RowGone(job_id)
        job = rows[0]
        try:
            self._start(job)
            self._job = None
        except (RowGone, DockerError, OSError, http.client.HTTPException) as error:
            self.counts["errors around the container"] += 1
            self._end_by_exception(job, error)

    def _start(self, job):
        job["started_at"] = utc()
        self._save(job, status="started", started_at=job["started_at"])
        self._job = job
        others = self._execute(
            "SELECT count(*) FROM core_job WHERE project_id = %s AND status IN ('queued', 'started') AND NOT id = %s",
            job["project_id"], job["id"],
        )  # fmt: skip
        if others[0]["count"] > 0:
            self._save(job, status="pending", started_at=None)
            self._job = None
            self.counts["yields"] += 1
            return
        deltas = self._deltas(job) if job["type"] == "delta_apply" else []
        self._make_token(job)
        self._save(job, docker_started_at=utc())
        self.ran.add(str(job["id"]))
        code, log, feedback = self._run_docker(job, deltas)
        self._finish(job, code, log, feedback, deltas)

    def _make_token(self, job):
        row = self._execute(
            "INSERT INTO authentication_authtoken (key, user_id, client_type, created_at, expires_at, updated_at,"
            " user_agent) VALUES (%s, %s, 'worker', now(), now(), now(), '') RETURNING id",
            uuid.uuid4().hex, job["created_by_id"],
        )  # fmt: skip
        self.tokens.add(row[0]["id"])

    def _deltas(self, job):
        self._execute("BEGIN")
        found = self._execute(
            "SELECT d.id, d.content FROM core_delta d JOIN core_applyjobdelta a ON a.delta_id = d.id"
            " WHERE a.apply_job_id = %s ORDER BY a.id", job["id"],
        )  # fmt: skip
        self._mark(job, found, "started", None, None, False)
        self._execute("COMMIT")
        return found

    def _mark(self, job, deltas, status, feedback, modified_pk, attempted):
        ids = [delta["id"] for delta in deltas]
        said = json.dumps(feedback) if feedback else None
        if attempted:
            self._execute(
                "UPDATE core_delta SET last_status = %s, last_feedback = %s, last_modified_pk = %s,"
                " last_apply_attempt_at = %s, last_apply_attempt_by_id = %s WHERE id = ANY(%s::uuid[])",
                status, said, modified_pk, job["started_at"], job["created_by_id"], ids,
            )  # fmt: skip
        else:
            self._execute("UPDATE core_delta SET last_status = %s WHERE id = ANY(%s::uuid[])", status, ids)
        self._execute(
            "UPDATE core_applyjobdelta SET status = %s, feedback = %s, modified_pk = %s"
            " WHERE apply_job_id = %s AND delta_id = ANY(%s::uuid[])", status, said, modified_pk, job["id"], ids,
        )  # fmt: skip

    def _run_docker(self, job, deltas):
        labels = {"app": self.label, "type": job["type"], "job_id": str(job["id"]),
                  "project_id": str(job["project_id"])}  # fmt: skip
        container = self.docker.create(
            self.image, self._command(job), Labels=labels, HostConfig={"NetworkMode": "none"},
            Env=[f"JOB_ID={job['id']}", "QFIELDCLOUD_TOKEN=x", "QFIELDCLOUD_URL=http://127.0.0.1:9/"],
        )  # fmt: skip
        if job["type"] == "delta_apply":  # there it lies in a directory that is mounted
            contents = {"deltas": [delta["content"] for delta in deltas], "files": [], "id": str(uuid.uuid4()),
                        "project": str(job["project_id"]), "version": "1.0", "clientPks": {}}  # fmt: skip
            self.docker.put(container, "/io", {"deltafile.json": json.dumps(contents).encode()})
        self.docker.start(container)
        self._save(job, docker_started_at=utc(), container_id=container)
        code = self.docker.wait(container)
        if code == SIGKILL:
            self.lost.add(str(job["id"]))
            return code, b"Job has been cancelled by parent process!", None
        self._save(job, docker_finished_at=utc())
        log = self.docker.logs(container)
        _, feedback = self.docker.member(container, "/io/feedback.json")
        self.docker.remove(container)
        return code, log, feedback

    def _command(self, job):
        word = {"delta_apply": "apply_deltas"}.get(job["type"], job["type"])
        asked = "SELECT name FROM filestorage_file WHERE project_id = %s AND file_type = 1"
        name = self._execute(asked, job["project_id"])
        file_name = name[0]["name"] if name else "None"
        more = ["qgiscore"] if job["type"] == "package" else []
        return ["python3", "entrypoint.py", word, str(job["project_id"]), file_name, *more]

    def _finish(self, job, code, log, feedback, deltas):
        """It ends a job in several transactions: who dies between them leaves deltas undecided for ever."""
        self._mortal = False
        try:
            self._write_end(job, code, log, feedback, deltas)
        finally:
            self._mortal = True

    def _write_end(self, job, code, log, feedback, deltas):
        try:
            said = json.loads(feedback)
        except (TypeError, ValueError) as error:
            said = {"error": str(error), "error_origin": "worker_wrapper"}
        if code == SIGKILL:
            said = {"error": "Docker engine sigkill.", "error_type": "DOCKER_ENGINE_SIGKILL"}
            if not self._execute("SELECT FROM core_job WHERE id = %s", job["id"]):
                return
        said["container_exit_code"] = code
        self._save(job, output=log.decode("utf-8"), feedback=json.dumps(said))
        if code != 0 or said.get("error") is not None:
            self._save(job, status="failed")
            self._mark(job, deltas, "error", None, None, True)
        else:
            self._succeed(job, said, deltas)
            self._save(job, status="finished", finished_at=utc())
        self.counts["ended"] += 1

    def _succeed(self, job, said, deltas):
        if job["type"] == "package":
            self._execute("UPDATE {project} SET data_last_packaged_at = now() WHERE id = %s", job["project_id"])
        if job["type"] == "process_projectfile":
            details = json.dumps(said["outputs"]["project_details"]["project_details"])
            self._execute("UPDATE {project} SET project_details = %s WHERE id = %s", details, job["project_id"])
        for result in said["outputs"]["apply_deltas"]["delta_feedback"] if deltas else ():
            status = STATUS_OF_DELTA.get(result["status"], "error")
            self._mark(job, [{"id": result["delta_id"]}], status, result, result["modified_pk"], True)

    def _end_by_exception(self, job, error):
        """The row may be gone, which is said in a log and no more."""
        self._job, self._mortal = None, False
        try:
            self._write_exception(job, error)
        finally:
            self._mortal = True

    def _write_exception(self, job, error):
        said = json.dumps({"error": str(error), "error_origin": "worker_wrapper"})
        ended = "UPDATE core_job SET status = 'failed', feedback = %s, finished_at = %s WHERE id = %s"
        if self._execute(ended, said, utc(), job["id"]):
            deltas = self._execute("SELECT delta_id AS id FROM core_applyjobdelta WHERE apply_job_id = %s", job["id"])
            self._mark(job, deltas, "error", None, None, True)
            self.lost.add(str(job["id"]))
            self.counts["ended"] += 1
