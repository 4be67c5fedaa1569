"""Fifty workers hear of one job: it is taken once, and the others hardly notice.

What each has sent is read from the server's log, session by session. Only one claims; each of the others looks once, in
its turn, and is then as idle as before. Should the machine be so slow that a turn comes before the claim of the first
is committed, that worker claims in vain, as it should, and a further job has to show it.
"""

import os
import re
import signal
from collections import Counter

import pytest

FLEET = 50
JOBS = 10  # so many at the most until one goes by the book
PATIENCE_S = 120
EXECUTED = re.compile(r"\[(\d+)\] \S*@(\S+) LOG:  execute \S+: (.*)")


class Fleet:
    """The workers, and what their sessions for claims have sent since a mark in the server's log."""

    def __init__(self, worker):
        self.worker, self.database, self.path = worker, worker.database, worker.database.server.log
        self.database.execute("SELECT 1")  # this session is not logged
        connection = self.database.server.connect("postgres", superuser=True)
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{self.database.name}" SET log_statement = \'all\'')
        connection.close()
        self.mark()
        self.processes = [worker.start("run", QFIELDCLOUD_DEFAULT_NETWORK="none") for _ in range(FLEET)]
        worker.wait_for(lambda: len(self._sessions()) == FLEET, "all workers", PATIENCE_S)
        self.sessions = self._sessions()
        self._wait_until_counted()

    def _sessions(self):
        rows = self.database.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^qfc-worker:[0-9a-f]{16}:[^:]*$'"
            " AND datname = current_database()"
        )
        return {row["pid"] for row in rows}

    def mark(self):
        self._begin = os.path.getsize(self.path)

    def _sent(self):
        with open(self.path, "rb") as file:
            file.seek(self._begin)
            text = file.read().decode(errors="replace")
        for session, name, sql in EXECUTED.findall(text):
            if name == self.database.name:
                yield int(session), sql

    def counts(self, words):
        """How many statements with these words each session has sent."""
        return Counter(session for session, sql in self._sent() if words in sql)

    def claims(self):
        return self.counts("SET status = 'queued'")

    def looks(self):
        return self.counts(" AS work")

    def idle_looks(self):
        """Those that come every few seconds anyway, and also ask for jobs without an owner."""
        return self.counts(" AS unowned")

    def _wait_until_counted(self):
        """Each worker knows how many they are: it counts them with a look every 30 s."""
        self.mark()
        counted = "AS workers FROM pg_stat_activity"
        self.worker.wait_for(lambda: len(self.counts(counted)) == FLEET, "all workers being counted by all", PATIENCE_S)

    def wait_for_a_word(self, *kinds):
        """Until each has claimed, or looked, since the mark."""

        def heard():
            return self.sessions <= set().union(*(kind() for kind in kinds))

        self.worker.wait_for(heard, "a word from each", PATIENCE_S)

    def hears_of_a_job(self):
        """Inserts a job, whose container goes on until it is let go, and waits until each has done what it does about
        it. Returns the job, how many claims were sent, and the most looks of one that sent none."""
        project = self.database.project(qgis_file="gate.qgs", files=())
        self.mark()
        job = self.database.job(project, "package")
        self.wait_for_a_word(self.claims, self.looks)
        claims, looks = self.claims(), self.looks() - self.idle_looks()
        return job, sum(claims.values()), max(looks[session] for session in self.sessions - claims.keys())

    def lets_go(self, ground, job):
        """Has the job end; waits until all are idle again, who look only when they have a free slot."""
        row = self.worker.wait_for_status(job, "started", limit=PATIENCE_S)
        running = ground.docker.inspect
        self.worker.wait_for(lambda: running(row["container_id"])["State"]["Running"], "the container")
        ground.docker.put(row["container_id"], "/io", {"go": b""})
        self.worker.wait_for_status(job, "finished")
        self.mark()
        self.wait_for_a_word(self.looks)

    def stop(self):
        for process in self.processes:
            process.send(signal.SIGTERM)
        return [process.wait(PATIENCE_S) for process in self.processes]


@pytest.fixture
def built_plainly(worker):
    """Fifty sanitized processes take six gigabytes: the plain program, where it is built beside."""
    plain = worker.binary.replace("-asan" + os.sep, os.sep)
    if os.access(plain, os.X_OK):
        worker.binary = plain
    return worker


@pytest.mark.parametrize("database", ["v26.25"], indirect=True)
def test_one_job_and_fifty_workers(database, built_plainly, ground):
    assert built_plainly.run("setup-db").returncode == 0
    fleet, seen = Fleet(built_plainly), []
    while (1, 1) not in seen and len(seen) < JOBS:
        job, claims, looks = fleet.hears_of_a_job()
        fleet.lets_go(ground, job)
        seen.append((claims, looks))
    outputs = fleet.stop()
    assert all(output.returncode == 0 for output in outputs), outputs
    taken = [line for output in outputs for line in output.messages("info") if line.startswith("claimed")]
    assert len(taken) == len(seen), "a job was taken more than once"
    assert (1, 1) in seen, f"for each job, the claims of all and the most looks of one that did not claim: {seen}"
