"""Many workers at one queue: hearing of jobs, connections that do not hold each other up, poolers."""

import os
import re
import threading
import time

import pytest
from bed.pooler import Pooler

NEVER = "60000"  # milliseconds between looks, longer than a test waits
NEWEST = pytest.mark.parametrize("database", ["v26.25"], indirect=True)


@pytest.fixture
def transaction(database):
    """A session of somebody else, in a transaction; rolled back at the end."""
    connection = database.connect()
    connection.autocommit = False
    with connection.cursor() as cursor:
        yield cursor
    connection.close()


@pytest.fixture
def heard(database, worker):
    """The program with the triggers, which looks for jobs by itself next to never."""
    assert worker.run("setup-db").returncode == 0
    worker.env["QFC_WORKER_POLL_MS"] = NEVER
    return worker


def log_of(database, pattern, *settings):
    """Has the server log more of what new sessions do; returns a function that finds all of it in the log."""
    server, begin = database.server, os.path.getsize(database.server.log)
    connection = server.connect("postgres", superuser=True)
    with connection.cursor() as cursor:
        for setting in settings:
            cursor.execute(f'ALTER DATABASE "{database.name}" SET {setting}')
    connection.close()
    wanted = re.compile(rf"\[\d+\] \S*@{database.name} LOG:  {pattern}")

    def read():
        with open(server.log, "rb") as file:
            file.seek(begin)
            return wanted.findall(file.read().decode(errors="replace"))

    return read


@pytest.fixture
def sent(database):
    """What the program's sessions have sent so far, in the order of its beginning."""
    return log_of(database, r"execute \S+: (.*)", "log_statement = 'all'")


def claims_upon_an_end(statements):
    """How many claims followed the end of a job with no look in between, which might have found work."""
    found, ended = 0, False
    for sql in statements:
        if "docker_finished_at = docker_started_at +" in sql:
            ended = True
        elif " AS work" in sql:
            ended = False
        elif "SET status = 'queued'" in sql:
            found, ended = found + ended, False
    return found


def ready(worker, *args, **env):
    """A worker that has looked for the first time, and now only listens."""
    process = worker.start("run", *args, **env)
    listening = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'qfc-worker:%%' AND query LIKE %s"
        " AND state = 'idle' AND datname = current_database()"
    )
    worker.wait_for(lambda: worker.database.value(listening, "%AS work%") >= 1, "the first look")
    return process


# Hearing of jobs


@pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
def test_a_new_job_is_heard_of(database, heard):
    process = ready(heard)
    job = database.job(database.project(qgis_file="offline.qgs", files=()), "package")
    assert heard.wait_for_status(job, "finished", "failed", limit=30)["status"] == "finished"
    assert process.stop().returncode == 0


@NEWEST
def test_a_job_that_is_pending_again_and_a_project_that_is_unlocked(database, heard):
    locked = database.project(qgis_file="offline.qgs", files=(), locked_at="2026-01-01T00:00:00Z")
    behind = database.job(locked, "package")
    again = database.job(database.project(qgis_file="offline.qgs", files=()), "package", "stopped")
    process = ready(heard)
    database.update("core_job", again["id"], status="pending")
    assert heard.wait_for_status(again, "finished", "failed", limit=30)["status"] == "finished"
    database.update(database.project_table, locked["id"], locked_at=None)
    assert heard.wait_for_status(behind, "finished", "failed", limit=30)["status"] == "finished"
    assert process.stop().returncode == 0


@NEWEST
def test_a_job_of_ones_own_that_frees_its_project(database, heard, sent):
    """No notification comes: the next job was there before. Not each time another look may have come between."""
    project = database.project(qgis_file="offline.qgs", files=())
    jobs = [database.job(project, "package") for _ in range(3)]
    process = ready(heard)
    database.update("core_job", jobs[0]["id"], status="stopped")
    database.update("core_job", jobs[0]["id"], status="pending")
    assert heard.wait_for_status(jobs[-1], "finished", "failed", limit=60)["status"] == "finished"
    assert claims_upon_an_end(sent()) > 0
    assert process.stop().returncode == 0


@NEWEST
def test_a_project_is_free_before_the_container_is_removed(database, heard, proxy, sent):
    """The engine takes its time for that, and the worker has another slot."""
    process = heard.start("run", "--concurrency", 2, DOCKER_HOST=proxy.host)
    for _ in range(5):
        hold, before = proxy.hold("DELETE /containers/"), len(sent())
        project = database.project(qgis_file="offline.qgs", files=())
        jobs = [database.job(project, "package") for _ in range(2)]
        assert heard.wait_for_status(jobs[1], "finished", "failed")["status"] == "finished"
        upon_its_end = claims_upon_an_end(sent()[before:])
        assert hold.is_reached()
        hold.release()
        if upon_its_end:
            break
    assert upon_its_end
    assert process.stop().returncode == 0


@NEWEST
def test_those_who_hear_take_turns(database, heard):
    """Twelve workers hear of each of twelve jobs; each job is claimed once."""
    workers = [heard.start("run") for _ in range(12)]
    named = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^qfc-worker:[0-9a-f]{16}:[^:]*$'"
    heard.wait_for(lambda: database.value(named) == 12, "all workers")
    jobs = [database.job(database.project(qgis_file="offline.qgs", files=()), "package") for _ in range(12)]
    for job in jobs:
        assert heard.wait_for_status(job, "finished", "failed")["status"] == "finished"
    claimed = [message for process in workers for message in process.output().messages("info") if message.startswith("claimed")]
    assert len(claimed) == len(jobs)
    for process in workers:
        assert process.stop().returncode == 0


@NEWEST
def test_a_job_that_is_not_due_costs_no_claims(database, worker, sent):
    """It was put back, and its time comes in an hour: workers only look."""
    wait = {"qfc_worker": {"attempts": 1, "not_before": time.time() + 3600}}
    database.job(database.project(qgis_file="offline.qgs", files=()), "package", feedback=wait)
    process = worker.start("run", QFC_WORKER_POLL_MS="200")

    def looks():
        return [" AS work" in sql for sql in sent() if " AS work" in sql or "SET status = 'queued'" in sql]

    worker.wait_for(lambda: sum(looks()) > 4, "some looks")
    first = looks().index(True)
    assert all(looks()[first:])
    assert process.stop().returncode == 0


@NEWEST
def test_a_claim_is_planned_once(database, worker):
    """For each of the first two times, that is: with the second it becomes a prepared statement."""
    read = log_of(database, "(PLANNER STATISTICS|execute .*)", "log_statement = 'all'", "log_planner_stats = on")
    locked = database.project(qgis_file="offline.qgs", files=(), locked_at="2026-01-01T00:00:00Z")
    job = database.job(locked, "package")
    process = worker.start("run", "--drain", QFC_WORKER_POLL_MS="100")

    def planned():
        """Of each claim's two statements: was it planned?"""
        lines = read()
        return ["PLANNER" in before for before, line in zip(["", *lines], lines) if "'qfc_worker.locked'" in line]

    worker.wait_for(lambda: len(planned()) > 16, "some claims")
    assert planned()[:2] == [True, True] and not any(planned()[4:])
    database.execute("DELETE FROM core_packagejob")
    database.execute("DELETE FROM core_job WHERE id = %s", job["id"])
    assert process.wait().returncode == 0


# Nobody waits for somebody else's lock


@NEWEST
def test_a_locked_row_holds_up_no_other_job(database, worker, ground, transaction):
    """The web application holds the job's row while its outcome is to be written; the only other slot goes on."""
    job = database.job(database.project(qgis_file="gate.qgs", files=()), "package")
    process = worker.start("run", "--concurrency", 2)
    row = worker.wait_for_status(job, "started")
    transaction.execute("SELECT FROM core_job WHERE id = %s FOR NO KEY UPDATE", (job["id"],))
    worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container")
    ground.docker.put(row["container_id"], "/io", {"go": b""})
    locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE '%%:patient'"
    worker.wait_for(lambda: database.value(locked), "the wait in the lane for that")
    others = [database.job(database.project(qgis_file="offline.qgs", files=()), "package") for _ in range(3)]
    for other in others:
        assert worker.wait_for_status(other, "finished", "failed")["status"] == "finished"
    assert database.get("core_job", job["id"])["status"] == "started"
    transaction.connection.rollback()
    assert worker.wait_for_status(job, "finished", "failed")["status"] == "finished"
    assert process.stop().returncode == 0


SLOW_FOR_LARGE_ROWS = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0
    AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(5); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON core_job FOR EACH ROW WHEN (octet_length(NEW.output) > 1000000)
    EXECUTE FUNCTION slow()
"""


@NEWEST
def test_a_large_outcome_holds_up_no_other_job(database, worker, transaction):
    """The server takes its time with 50 MB; meanwhile the only other slot goes on."""
    database.execute(SLOW_FOR_LARGE_ROWS)
    transaction.execute("SELECT pg_advisory_xact_lock(5)")
    job = database.job(database.project(qgis_file="big_log@50.qgs", files=()), "package")
    process = worker.start("run", "--concurrency", 2)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND application_name LIKE 'qfc-worker:%%'"
    worker.wait_for(lambda: database.value(waiting), "the server at work on the large row")
    others = [database.job(database.project(qgis_file="offline.qgs", files=()), "package") for _ in range(3)]
    for other in others:
        assert worker.wait_for_status(other, "finished", "failed")["status"] == "finished"
    assert database.get("core_job", job["id"])["status"] == "started"
    transaction.connection.rollback()
    row = worker.wait_for_status(job, "finished", "failed")
    assert row["status"] == "finished" and len(row["output"]) > 50_000_000
    assert process.stop().returncode == 0


# Exclusive


@NEWEST
def test_never_two_jobs_of_a_project_at_a_time(database, worker):
    """Six workers, eight projects with nine jobs each, and somebody who looks all the time."""
    projects = [database.project(qgis_file="offline.qgs", files=()) for _ in range(8)]
    jobs = [database.job(project, "package") for _ in range(9) for project in projects]
    seen, done = [], threading.Event()

    def look():
        connection = database.connect()
        with connection.cursor() as cursor:
            while not done.is_set():
                cursor.execute(
                    "SELECT project_id, count(*) FROM core_job WHERE status IN ('queued', 'started') GROUP BY 1"
                    " HAVING count(*) > 1"
                )
                seen.extend(cursor.fetchall())
        connection.close()

    observer = threading.Thread(target=look)
    observer.start()
    workers = [worker.start("run", "--drain", "--concurrency", 2) for _ in range(6)]
    outputs = [process.wait(300) for process in workers]
    done.set()
    observer.join()
    assert seen == []
    rows = [database.get("core_job", job["id"]) for job in jobs]
    assert {row["status"] for row in rows} == {"finished"}
    claimed = [message for output in outputs for message in output.messages("info") if message.startswith("claimed")]
    assert len(claimed) == len(jobs), "\n".join(map(str, outputs))
    for project in projects:
        starts = [row["started_at"] for row in rows if row["project_id"] == project["id"]]
        assert starts == sorted(starts), "not in order"


@NEWEST
def test_ten_thousand_jobs_of_one_project(database, worker, ground):
    """All of them are older than another's, which has the second slot."""
    many = database.project(qgis_file="gate.qgs", files=())
    first = database.job(many, "package", created_at="2026-01-01T00:00:00Z")
    columns = database.schema.tables["core_job"].columns
    names = ", ".join(name for name in columns if name not in ("id", "created_at"))
    database.execute(
        f"INSERT INTO core_job (id, created_at, {names}) SELECT gen_random_uuid(), created_at + n * interval '1 second',"
        f" {names} FROM core_job, generate_series(1, 9999) n"
    )
    others = [database.job(database.project(qgis_file="offline.qgs", files=()), "package") for _ in range(2)]
    process = worker.start("run", "--concurrency", 2)
    for other in others:
        assert worker.wait_for_status(other, "finished", "failed")["status"] == "finished"
    active = database.execute("SELECT id FROM core_job WHERE status IN ('queued', 'started')")
    assert [row["id"] for row in active] == [first["id"]]
    database.execute("DELETE FROM core_job WHERE status = 'pending'")
    row = worker.wait_for_status(first, "started")
    worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container")
    ground.docker.put(row["container_id"], "/io", {"go": b""})
    assert worker.wait_for_status(first, "finished", "failed")["status"] == "finished"
    assert process.stop().returncode == 0


# Poolers


@pytest.fixture(params=["session", "transaction", "statement"])
def pooler(request, database):
    pooler = Pooler(database.server, request.param)
    pooler.mode = request.param
    yield pooler
    pooler.close()


@NEWEST
def test_pgbouncer(database, worker, pooler):
    """Sessions of one's own work; sessions by the transaction are refused, with what to do."""
    job = database.job(database.project(qgis_file="offline.qgs", files=()), "package")
    before = database.dump("core_job")
    output = worker.run("run", "--drain", POSTGRES_PORT=str(pooler.port), POSTGRES_SSLMODE="disable")
    if pooler.mode == "session":
        assert output.returncode == 0, output
        assert database.get("core_job", job["id"])["status"] == "finished"
    else:
        assert output.returncode == 3, output
        assert "pooler" in output.stderr and "pool_mode=session" in output.stderr
        assert database.dump("core_job") == before


@NEWEST
def test_a_pooler_whose_sessions_never_come_back(database, worker):
    """Two connections do not show it then, as when others are at it, too: nothing is claimed all the same."""
    pooler = Pooler(database.server, "transaction", server_lifetime=0)
    try:
        database.job(database.project(qgis_file="offline.qgs", files=()), "package")
        before = database.dump("core_job")
        process = worker.start("run", POSTGRES_PORT=str(pooler.port), POSTGRES_SSLMODE="disable")
        worker.wait_for(lambda: "pool_mode=session" in process.output().stderr, "the reason")
        assert process.stop().returncode == 0
        assert database.dump("core_job") == before
    finally:
        pooler.close()


def test_with_triggers_it_looks_less_often(database, worker):
    """What it says is what the triggers are: one that is switched off tells of nothing."""
    told = re.compile(r"new jobs are looked for every 5\.0 s; triggers tell of them at once")
    untold = re.compile(r"new jobs are looked for every 1\.0 s \(setup-db installs triggers")

    def said():
        process = worker.start("run")
        found = worker.wait_for(
            lambda: [text for text in process.output().messages("info") if "looked for every" in text], "what it says")
        assert process.stop().returncode == 0
        return found

    assert untold.match(said()[0])
    assert worker.run("setup-db").returncode == 0
    assert told.match(said()[0])
    database.execute("ALTER TABLE core_job DISABLE TRIGGER qfc_worker_job_back")
    assert untold.match(said()[0])
