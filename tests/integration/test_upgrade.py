"""A new version is rolled out while jobs run: workers are replaced one by one, and no job notices."""

import signal
import threading
import time

import pytest
from bed.rows import Database
from bed.storm_trail import lay, outcomes

NEWEST = pytest.mark.parametrize("database", ["v26.25"], indirect=True)
WORKERS, LONG_JOBS = 4, 8
PAUSE_S = 2
ENV = {"QFC_WORKER_CONCURRENCY": "4", "QFC_WORKER_STOP_GRACE_S": "1"}


class Stream:
    """Short jobs that come all the time, each of a project of its own."""

    def __init__(self, scene, every_s=0.4):
        self.jobs, self._scene, self._every_s = [], scene, every_s
        self._ended = threading.Event()
        self._projects = [scene.database.project(qgis_file="offline.qgs", files=()) for _ in range(120)]
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self):
        mine = self._scene.database
        database = Database(mine.server, mine.name, mine.schema)  # a connection of this thread's own
        for project in self._projects:
            if self._ended.wait(self._every_s):
                break
            self.jobs.append(database.job(project, "create_project"))
        database.disconnect()

    def end(self):
        self._ended.set()
        self._thread.join()


def tell_pauses(database):
    """The longest time that a job was pending, and the longest between two claims while one was."""
    waits = database.execute(
        "SELECT extract(epoch FROM t.at - j.created_at)::float AS waited FROM trail t JOIN core_job j ON j.id = t.job "
        "WHERE t.new = 'queued' AND t.old = 'pending' ORDER BY t.at"
    )
    longest = max(row["waited"] for row in waits)
    print(f"{len(waits)} claims; the longest that a job waited for one: {longest:.2f} s: "
          f"{'within' if longest <= PAUSE_S else 'over'} {PAUSE_S} s")


@NEWEST
@pytest.mark.parametrize("leave", [signal.SIGTERM, signal.SIGQUIT], ids=["SIGTERM", "SIGQUIT"])
def test_workers_are_replaced_one_by_one(scene, leave):
    database = scene.database
    long_jobs = [scene.job("gate.qgs") for _ in range(LONG_JOBS)]
    workers = [scene.start(**ENV) for _ in range(WORKERS)]
    former = list(workers)
    containers = [scene.running(job) for job in long_jobs]
    lay(database)
    stream = Stream(scene)
    for number, worker in enumerate(workers):
        worker.send(leave)
        output = worker.wait()
        assert output.returncode == 0, str(output)
        workers[number] = scene.start(**ENV)
        scene.wait_for_word("connected to the database")
        time.sleep(1)  # more of the stream, between one and the next
    told = [message for process in former for message in process.output().messages()]
    left = sum("for the next worker" in message for message in told)
    print(f"{left} times a job was left for the next worker")
    assert left >= LONG_JOBS, "hardly a job ran in the workers that were replaced"
    scene.worker.wait_for(
        lambda: sum(len([m for m in w.output().messages() if "took over" in m]) for w in workers) >= 1, "a takeover"
    )
    for container in containers:
        scene.let_go(container)
    for job in long_jobs:
        scene.finishes(job)
    stream.end()
    for job in stream.jobs:
        scene.finishes(job)
    for job, container in zip(long_jobs, containers):
        assert scene.starts(job) == 1 and scene.row(job)["container_id"] == container
    found = outcomes(database)
    assert [job for job in long_jobs + stream.jobs if found.get(str(job["id"])) is None] == []
    assert {tuple(changes) for changes in found.values()} == {(("started", "finished"),)}
    assert [job for job in stream.jobs if scene.starts(job) != 1] == []
    tell_pauses(database)
    for worker in workers:
        output = worker.stop()
        assert output.returncode == 0, str(output)
