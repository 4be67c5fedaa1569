"""A worker that is wrong about the world. Its database is suddenly out of reach: another one takes its jobs over, and
when the line is whole again, the first one writes nothing, whatever it had under way. Or its clock is an hour off: time
limits count all the same.
"""

import os
import time

import pytest
from bed import postgres as servers
from bed.storm_clock import Clock, hours_off
from bed.storm_net import Island, Line

NEWEST = pytest.mark.parametrize("database", ["v26.25"], indirect=True)
WAYS = pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "back"])
BOUND_S = 30
TABLES = ("core_job", "core_delta", "core_applyjobdelta", "authentication_authtoken")


def image_of(database):
    """Rows byte for byte, and which transaction wrote each: one that was written again with the same values differs."""
    return {
        table: database.execute(f"SELECT ctid::text, xmin::text, t::text AS row FROM {table} t ORDER BY ctid")
        for table in TABLES
    }


class Sides:
    """Two workers, the first behind something that can be cut."""

    def __init__(self, scene, cut, mend, **env):
        self.scene, self.database, self._cut_it, self._mend_it = scene, scene.database, cut, mend
        self._env, self.cut_at = env, 0.0

    def start(self, job, held=None):
        """The first worker has the job; then there is a second. Returns the job's container."""
        if held:
            self._env["QFC_TEST_STOP"] = held
        self.first = self.scene.start(**self._env)
        self.container = self.scene.running(job)
        self.second = self.scene.worker.start("run")
        self.scene.worker.wait_for(lambda: self.said(self.second, "connected to the database"), "the second worker")
        return self.container

    @staticmethod
    def said(process, text, job=None):
        return [message for message in process.output().messages(job=job) if text in message]

    def cut(self):
        self._cut_it()
        self.cut_at = time.monotonic()

    def wait_for_takeover(self, job):
        self.scene.worker.wait_for(lambda: self.said(self.second, "took over", job), "the takeover", limit=90)
        took = time.monotonic() - self.cut_at
        print(f"taken over after {took:.1f} s: {'within' if took <= BOUND_S else 'over'} {BOUND_S} s")

    def mend(self):
        """Until the first one has come to know how things stand."""
        self._mend_it()
        self.scene.worker.wait_for(
            lambda: self.said(self.first, "connected to the database again"), "the first one's return", limit=150
        )

    def first_is_free(self, job):
        """It has let go of the job, and says why."""
        self.scene.worker.wait_for(
            lambda: [m for m in self.first.output().messages("warning", job) if m.partition(":")[2]],
            "the first one's word on the job",
        )

    def stop(self):
        for process in (self.first, self.second):
            output = process.stop()
            assert output.returncode == 0, str(output)


@pytest.fixture
def line(postgres):
    made = Line(postgres.port)
    yield made
    made.close()


@pytest.fixture
def sides(scene, line):
    return Sides(scene, line.cut, line.mend, POSTGRES_PORT=str(line.port))


def delta_job(scene):
    project = scene.database.project(qgis_file="gate.qgs", files=())
    return scene.database.apply_job(project, [scene.database.delta(project) for _ in range(3)])


def statuses(scene, job):
    rows = scene.database.execute("SELECT status FROM core_applyjobdelta WHERE apply_job_id = %s", job["id"])
    return sorted(row["status"] for row in rows)


@NEWEST
def test_mended_after_the_end(sides, scene):
    """The second has written the outcome before the first comes back."""
    job = delta_job(scene)
    container = sides.start(job)
    sides.cut()
    sides.wait_for_takeover(job)
    scene.let_go(container)
    scene.finishes(job)
    scene.wait_until_gone(container)
    before = image_of(sides.database)
    sides.mend()
    sides.first_is_free(job)
    scene.another_finishes()  # both are alive: whatever the first one had to say is said
    rows, now = {row["row"] for row in before["core_job"]}, image_of(sides.database)
    assert rows <= {row["row"] for row in now["core_job"]}
    for table, was in before.items():
        assert [row for row in was if row not in now[table]] == [], sides.first.output()
    assert scene.starts(job) == 1 and statuses(scene, job) == ["applied"] * 3
    sides.stop()


@NEWEST
def test_mended_while_it_runs(sides, scene):
    """The first comes back while the second waits for the container: it touches neither row nor container."""
    job = delta_job(scene)
    container = sides.start(job)
    sides.cut()
    sides.wait_for_takeover(job)
    before = image_of(sides.database)
    sides.mend()
    sides.first_is_free(job)
    assert image_of(sides.database) == before, sides.first.output()
    assert scene.docker.inspect(container)["State"]["Running"]
    scene.let_go(container)
    scene.finishes(job)
    assert scene.starts(job) == 1 and statuses(scene, job) == ["applied"] * 3
    scene.wait_until_gone(container)
    sides.stop()


@NEWEST
def test_an_outcome_under_way(sides, scene):
    """The container ends while the line is cut: the first one's outcome waits in it, and comes too late."""
    job = delta_job(scene)
    container = sides.start(job)
    sides.cut()
    scene.let_go(container)
    sides.wait_for_takeover(job)
    scene.finishes(job)
    scene.wait_until_gone(container)
    before = image_of(sides.database)
    sides.mend()
    sides.first_is_free(job)
    assert image_of(sides.database) == before, sides.first.output()
    assert scene.starts(job) == 1 and statuses(scene, job) == ["applied"] * 3
    sides.stop()


@pytest.fixture
def island():
    made = Island()
    yield made
    made.close()


@pytest.fixture
def postgres(request, postgres):
    """For a test with an island a server of its own, which listens there, too."""
    if "island" not in request.fixturenames:
        yield postgres
        return
    made = servers.Server()
    with open(os.path.join(made.data, "pg_hba.conf"), "a", encoding="ascii") as file:
        file.write("host all all 10.0.0.0/8 scram-sha-256\n")
    made._administer("ALTER SYSTEM SET listen_addresses = '*'")
    made.restart()
    yield made
    made.close()


@NEWEST
def test_a_link_that_goes_down(scene, island):
    """No proxy between: the kernel of the first one's machine tries again and again, and so does PostgreSQL's."""
    job = delta_job(scene)
    command = scene.worker.command
    sides = Sides(scene, island.down, island.up, POSTGRES_HOST=island.host)
    scene.worker.command = lambda *args: island.command(command(*args))
    first = scene.start(POSTGRES_HOST=island.host)
    scene.worker.command = command
    scene.start = lambda **_env: first
    container = sides.start(job)
    sides.cut()
    sides.wait_for_takeover(job)
    scene.let_go(container)
    scene.finishes(job)
    scene.wait_until_gone(container)
    before = image_of(sides.database)
    sides.mend()
    sides.first_is_free(job)
    assert image_of(sides.database) == before, sides.first.output()
    assert scene.starts(job) == 1 and statuses(scene, job) == ["applied"] * 3
    sides.stop()


@pytest.fixture
def clock(tmp_path):
    return Clock(str(tmp_path))


@NEWEST
@WAYS
def test_a_jump_under_a_job(scene, clock, hours):
    process = scene.start(QFIELDCLOUD_WORKER_TIMEOUT_S="30", **clock.env)
    job = scene.job("gate.qgs")
    container = scene.running(job)
    assert hours_off(process) == 0
    clock.jump(hours)
    later = scene.job("sleep@4.qgs")
    scene.let_go(container)
    row = scene.finishes(job)
    assert row["feedback"]["container_exit_code"] == 0 and scene.starts(job) == 1
    scene.finishes(later)
    assert hours_off(process) == hours, "the clock has not jumped"
    scene.stop()


@NEWEST
@WAYS
def test_the_limit_still_counts(scene, clock, hours):
    """A job that never ends is ended, in time for a test that waits a minute, and not before its limit."""
    process = scene.start(QFIELDCLOUD_WORKER_TIMEOUT_S="4", **clock.env)
    job = scene.job("gate.qgs")
    scene.running(job)
    clock.jump(hours)
    row = scene.wait_for(job, "failed", "finished", limit=60)
    assert row["feedback"]["error_type"] == "TIMEOUT", row["feedback"]
    assert (row["docker_finished_at"] - row["docker_started_at"]).total_seconds() >= 4
    assert hours_off(process) == hours, "the clock has not jumped"
    scene.stop()


@NEWEST
@WAYS
def test_taken_over_by_a_clock_that_is_off(scene, clock, hours):
    """The heir counts from the row's times, on the database's clock."""
    first = scene.start(QFIELDCLOUD_WORKER_TIMEOUT_S="30")
    job = scene.job("gate.qgs")
    container = scene.running(job)
    clock.jump(hours)
    second = scene.worker.start("run", QFIELDCLOUD_WORKER_TIMEOUT_S="30", **clock.env)
    first.process.kill()
    first.process.wait()
    scene.worker.wait_for(lambda: "took over" in str(second.output().messages("warning", job)), "the takeover")
    assert hours_off(second) == hours
    scene.let_go(container)
    row = scene.finishes(job)
    assert row["feedback"]["container_exit_code"] == 0 and scene.starts(job) == 1
    assert second.stop().returncode == 0
