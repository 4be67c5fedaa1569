"""An engine that answers and runs no containers: its disk is full, or its runtime is broken. Jobs wait for it, however
many there are, and one now and then is tried.
"""

import os
import subprocess

import pytest
from bed import engine as engines
from bed.ground import Ground
from conftest import Scene

NEWEST = pytest.mark.parametrize("database", ["v26.25"], indirect=True)
CLOSED = "the engine runs no containers"
JOBS = 12


class SmallEngine(engines.OwnEngine):
    """On a disk of its own, which can be filled."""

    SIZE = "256m"

    def start(self):
        self.disk = os.path.join(self.directory, "data")
        if not os.path.isdir(self.disk):
            os.mkdir(self.disk)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "qfc-bed", self.disk], check=True)
        super().start()

    def fill(self):
        with open(os.path.join(self.disk, "filling"), "wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass

    def clear(self):
        os.unlink(os.path.join(self.disk, "filling"))


@pytest.fixture
def small(make_worker, database):
    """The program on such an engine."""
    engine = SmallEngine()
    try:
        ground = Ground(engine)
        yield Scene(make_worker(database, ground), ground, database)
        ground.close()
    finally:
        engine.close()


def trials(scene):
    return len([message for message in scene.log("info") if message.startswith("claimed")])


def most_at_once(scene):
    """Of the jobs that were claimed, how many had not gone back yet, once the gate was closed and all had gone back."""
    active, most, closed, calm = 0, 0, False, False
    for message in scene.log():
        active += message.startswith("claimed") - message.startswith("put back")
        closed |= CLOSED in message
        calm |= closed and active == 0
        most = max(most, active if calm else 0)
    return most


def all_wait(scene, jobs, most):
    """None has failed while the gate was closed and opened for a trial and another one; so many have been tried."""
    scene.wait_for_word(CLOSED)
    tried = trials(scene)
    scene.worker.wait_for(lambda: trials(scene) >= tried + 2, "two trials")
    rows = [scene.row(job) for job in jobs]
    assert {row["status"] for row in rows} <= {"pending", "queued", "started"}, rows
    assert scene.said(CLOSED) == 1 and most_at_once(scene) == 1
    touched = [row for row in rows if row["feedback"]]
    assert len(touched) <= most, touched
    return touched


def all_finish(scene, jobs):
    for job in jobs:
        scene.finishes(job)
        assert scene.starts(job) == 1
    assert scene.said("the engine runs containers again") == 1
    scene.worker.wait_for(lambda: not any(scene.containers(job) for job in jobs), "the removal of all containers")


@NEWEST
def test_the_disk_is_full(small):
    """A single attempt is allowed: those without a place do not count."""
    engine = small.ground.engine
    engine.fill()
    jobs = [small.job() for _ in range(JOBS)]
    small.start("--concurrency", 2, RETRY_MAX_ATTEMPTS="1", QFC_TEST_HURRY="10")
    for row in all_wait(small, jobs, most=2):
        note = row["feedback"]["qfc_worker"]
        assert (note["faults"], note["reasons"]) == (0, []), note
    assert small.said("no space left on device", "error") == 1
    engine.clear()
    all_finish(small, jobs)
    small.stop()


@NEWEST
def test_no_container_can_be_started(scene):
    """It might be the jobs' doing, so it counts; but only the first few are tried at all."""
    scene.proxy.answer(r"^POST /containers/\w+/start", 500, times=None)
    jobs = [scene.job() for _ in range(JOBS)]
    scene.start("--concurrency", 2, RETRY_BASE_DELAY_SECONDS="1", RETRY_MAX_ATTEMPTS="20", QFC_TEST_HURRY="10")
    touched = all_wait(scene, jobs, most=6)
    assert sum(row["feedback"]["qfc_worker"]["faults"] for row in touched) > 0
    scene.proxy.behave()
    all_finish(scene, jobs)
    scene.stop()


@NEWEST
def test_one_job_that_cannot_be_started(scene):
    """Is no reason to let the others wait."""
    scene.start(RETRY_BASE_DELAY_SECONDS="1", RETRY_MAX_ATTEMPTS="4")
    scene.another_finishes()
    scene.proxy.answer(r"^POST /containers/\w+/start", 500, times=1)
    scene.another_finishes()
    scene.another_finishes()
    assert scene.said(CLOSED) == 0
    scene.stop()
