"""What becomes of a job and of the program when the database is not there, goes away, or refuses what is written."""

import os

import pytest
from bed import postgres as servers

TROUBLE = "no job is claimed until"
CLAIM, READ = r"SET status = 'queued'", r"AS images_by_qgis"
PREPARE, FINISH = r"SET status = 'started'", r"docker_finished_at = docker_started_at"
PUT_BACK = r"SET status = 'pending', container_id = '', started_at"
STEPS = {"claim": CLAIM, "read": READ, "prepare": PREPARE, "finish": FINISH}


@pytest.fixture
def lock(database):
    """Holds locks in a session of somebody else: lock("SELECT ... FOR UPDATE", value) and lock.release()."""

    class Lock:
        def __init__(self):
            self.connection = database.connect()
            self.connection.autocommit = False

        def __call__(self, statement, *values):
            with self.connection.cursor() as cursor:
                cursor.execute(statement, values or None)

        def release(self):
            self.connection.rollback()

    made = Lock()
    yield made
    made.connection.close()


def done_once(scene, job):
    """The job's one outcome, from one container."""
    row = scene.finishes(job)
    assert scene.starts(job) == 1, str(scene.process.output())
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    assert scene.tokens() == []
    assert scene.row(job) == row
    return row


# At the start

def test_database_that_is_started_later(scene, postgres, database):
    """Said once, and the program goes on by itself."""
    job = scene.job()
    database.disconnect()
    postgres.stop()
    scene.start(LOGLEVEL="debug")
    scene.wait_for_word(TROUBLE)
    # Two more attempts: backoff from 0.25 s.
    hits = []
    scene.worker.wait_for(lambda: hits.append(1) or len(hits) > 100, "two seconds of attempts")
    assert scene.said(TROUBLE) == 1, str(scene.process.output())
    postgres.start()
    scene.finishes(job)
    output = scene.stop()
    assert sum("refused" in message for message in output.messages("error")) == 1, str(output)


def test_trouble_is_said_once_over_many_attempts(scene, database, postgres):
    """Counted by the server: each attempt is a line of its log."""
    size = os.path.getsize(postgres.log)

    def attempts():
        with open(postgres.log, encoding="utf-8", errors="replace") as file:
            file.seek(size)
            return file.read().count("password authentication failed")

    scene.start(POSTGRES_PASSWORD="wrong")
    scene.worker.wait_for(lambda: attempts() >= 4, "four attempts")
    assert scene.said(TROUBLE) == 1, str(scene.process.output())
    scene.stop()


REFUSALS = {
    "password": ({"POSTGRES_PASSWORD": "s3cr3t-and-wrong"}, "password authentication failed"),
    "name": ({"POSTGRES_DB": "no_such_database"}, 'database "no_such_database" does not exist'),
    "schema": ({"POSTGRES_DB": "postgres"}, 'database "postgres" has no table core_job'),
    "port": ({"POSTGRES_PORT": "1"}, "Connection refused"),
    "host": ({"POSTGRES_HOST": "no-such-host.invalid"}, "no-such-host.invalid"),
}


@pytest.mark.parametrize("mode", ["--drain", "--single-shot"])
@pytest.mark.parametrize("case", REFUSALS)
def test_no_database_for_a_script(scene, case, mode):
    """Exit code 3 and a last line that says why, without the password."""
    variables, reason = REFUSALS[case]
    output = scene.start(mode, **variables).wait()
    assert output.returncode == 3, str(output)
    assert output.lines[-1]["level"] == "error" and reason in output.lines[-1]["message"], str(output)
    assert TROUBLE not in output.lines[-1]["message"], "it does not try again: it has ended"
    assert "s3cr3t" not in output.stderr and scene.worker.env["POSTGRES_PASSWORD"] not in output.stderr


@pytest.mark.parametrize("password", ["s3cr3t-and-wrong", "s3cr3t%40with%2Fsigns"])
def test_wrong_password_in_the_url(scene, postgres, password):
    url = f"postgresql://{servers.ROLE}:{password}@127.0.0.1:{postgres.port}/{scene.database.name}"
    output = scene.start("--drain", DATABASE_URL=url, LOGLEVEL="debug").wait()
    assert output.returncode == 3, str(output)
    assert "password authentication failed" in output.lines[-1]["message"]
    assert "s3cr3t" not in output.stderr


def test_url_that_is_malformed(scene, postgres):
    """A password that is not encoded: a wrong setting, told without showing it."""
    url = f"postgresql://{servers.ROLE}:s3cr3t/x@127.0.0.1:{postgres.port}/{scene.database.name}"
    output = scene.start("--drain", DATABASE_URL=url).wait()
    assert output.returncode == 2, str(output)
    assert "s3cr3t" not in output.stderr


def test_database_that_takes_no_writes(scene, postgres, database):
    """As after a failover, until somebody makes it writable."""
    postgres._administer(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    job = scene.database.value("SELECT 1")
    scene.start()
    scene.wait_for_word("takes no writes")
    postgres._administer(f'ALTER DATABASE "{database.name}" RESET default_transaction_read_only')
    database.disconnect()
    assert scene.another_finishes() and job
    output = scene.stop()
    assert sum("takes no writes" in message for message in output.messages("error")) == 1


def test_standby(scene, ground):
    """A server in recovery is refused, until it is promoted."""
    server = servers.Server()
    try:
        database = server.database()
        database.disconnect()
        server.stop()
        with open(os.path.join(server.data, "postgresql.conf"), "a", encoding="utf-8") as file:
            file.write("wal_level = replica\n")
        server.start()
        server.stop()
        path = os.path.join(server.data, "standby.signal")
        with open(path, "w", encoding="ascii"):
            pass
        if server.account:
            os.chown(path, server.account.pw_uid, server.account.pw_gid)
        server.start()
        output = scene.start("--drain", **database.settings).wait()
        assert output.returncode == 3, str(output)
        assert "the server is a standby, which takes no writes" in output.lines[-1]["message"]
        scene.start(**database.settings)
        scene.wait_for_word("is a standby")
        server.pg_ctl("promote")
        scene.wait_for_word("connected to the database")
        scene.stop()
        database.disconnect()
    finally:
        server.close()


# While it works

def test_crash_while_a_container_runs(scene, postgres, database):
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    database.disconnect()
    postgres.restart("immediate")
    scene.wait_for_word("connected to the database again")
    scene.let_go(container)
    done_once(scene, job)
    output = scene.stop()
    assert sum("connected to the database again" in m for m in output.messages()) == 1


def test_database_away_when_a_container_ends(scene, postgres, database):
    """The outcome waits for the database."""
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    database.disconnect()
    postgres.stop("immediate")
    scene.wait_for_word(TROUBLE)
    scene.let_go(container)
    scene.docker.wait(container)
    postgres.start()
    done_once(scene, job)
    scene.stop()


def terminate(scene, lock):
    """Ends the program's session while it waits for a lock, and then lets the lock go."""
    pid = scene.wait_for_lock()
    scene.database.value("SELECT pg_terminate_backend(%s)", pid)
    scene.wait_for_word("connected to the database again")
    lock.release()


def test_session_ended_while_claiming(scene, lock):
    job = scene.job()
    lock("LOCK TABLE core_job IN SHARE MODE")
    scene.start()
    terminate(scene, lock)
    done_once(scene, job)
    scene.stop()


def test_session_ended_while_reading(scene, lock):
    lock("LOCK TABLE constance_constance IN ACCESS EXCLUSIVE MODE")
    scene.start()
    job = scene.job()
    terminate(scene, lock)
    done_once(scene, job)
    scene.stop()


@pytest.mark.parametrize(
    "step, call", [("prepare", "^POST /containers/create"), ("finish", r"^GET /containers/\w+/archive")]
)
def test_session_ended_while_writing(scene, lock, step, call):
    hold = scene.proxy.hold_answer(call)
    scene.start()
    job = scene.job()
    hold.reached()
    lock("SELECT FROM core_job WHERE id = %s FOR UPDATE", job["id"])
    hold.release()
    terminate(scene, lock)
    done_once(scene, job)
    scene.stop()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_connection_cut(pg_scene, step, when):
    """Before the server sees the batch, and after it has committed it: the answer is lost."""
    scene = pg_scene
    rule = scene.pg_proxy.cut(STEPS[step], when)
    job = scene.job()
    scene.start()
    row = done_once(scene, job)
    assert rule.used == 1
    assert row["started_at"] <= row["docker_started_at"] <= row["docker_finished_at"] <= row["finished_at"]
    output = scene.stop()
    if (step, when) == ("claim", "after"):
        assert any("the answer to its claim was lost" in m for m in output.messages("warning", job)), str(output)


@pytest.mark.parametrize("when", ["before", "after"])
def test_connection_cut_while_putting_back(pg_scene, when):
    scene = pg_scene
    scene.proxy.answer(r"^POST /containers/\w+/start", 500)
    rule = scene.pg_proxy.cut(PUT_BACK, when)
    scene.start()
    job = scene.job()
    done_once(scene, job)
    assert rule.used == 1
    scene.stop()


def test_claim_that_commits_after_its_connection_was_cut(pg_scene, lock):
    """The server goes on with what it has, and does not notice that nobody listens: the job is claimed by nobody."""
    scene = pg_scene
    job = scene.job()
    lock("LOCK TABLE core_job IN SHARE MODE")
    scene.pg_proxy.lose(CLAIM)
    scene.start()
    scene.wait_for_lock()
    scene.wait_for_word("connected to the database again")
    lock.release()
    done_once(scene, job)
    scene.stop()


@pytest.mark.parametrize("step, status", [("prepare", "started"), ("finish", "finished")])
def test_write_that_commits_after_its_connection_was_cut(pg_scene, step, status):
    """The first one takes the server long; the repetition meets its lock, and then finds that it is done."""
    scene, database = pg_scene, pg_scene.database
    database.execute("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
                     " $$ BEGIN PERFORM pg_sleep(2); RETURN NEW; END $$")
    database.execute("CREATE TRIGGER slow BEFORE UPDATE ON core_job FOR EACH ROW WHEN"
                     f" (NEW.status = '{status}' AND OLD.status <> NEW.status) EXECUTE FUNCTION slow()")
    scene.pg_proxy.lose(STEPS[step])
    scene.start()
    job = scene.job()
    scene.wait_for_word("connected to the database again")
    done_once(scene, job)
    scene.stop()


@pytest.mark.long
def test_connection_that_goes_silent(pg_scene):
    """Nothing comes any more and nobody hangs up, as behind a firewall that has forgotten the connection."""
    scene = pg_scene
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.pg_proxy.swallow()
    scene.let_go(container)
    scene.wait_for_word("lost", limit=240)
    scene.pg_proxy.swallow(False)
    scene.pg_proxy.hang_up()  # in what was swallowed the other connections lack some bytes for ever
    done_once(scene, job)
    scene.stop()


# What the database refuses, or makes wait

def test_lock_that_is_held_too_long(scene, lock):
    """Longer than lock_timeout: the outcome is written when the lock is gone, all of it and once."""
    hold = scene.proxy.hold_answer(r"^GET /containers/\w+/archive")
    scene.start(LOGLEVEL="debug")
    job = scene.job()
    hold.reached()
    lock(f"SELECT FROM {scene.database.project_table} WHERE id = %s FOR UPDATE", job["project_id"])
    hold.release()
    scene.wait_for_word("lock timeout", limit=30)
    assert scene.row(job)["status"] == "started"
    lock.release()
    done_once(scene, job)
    project = scene.database.get(scene.database.project_table, job["project_id"])
    assert project["data_last_packaged_at"] == scene.row(job)["docker_started_at"]
    scene.stop()


def test_claim_does_not_wait_for_a_locked_project(scene, lock):
    """Another project's job is taken meanwhile."""
    job = scene.job()
    lock(f"SELECT FROM {scene.database.project_table} WHERE id = %s FOR UPDATE", job["project_id"])
    scene.start()
    scene.another_finishes()
    assert scene.row(job)["status"] == "pending"
    lock.release()
    done_once(scene, job)
    scene.stop()


CHECKS = {
    "feedback": ("core_job", "CHECK (NOT coalesce(feedback ? 'outputs', false))", "outputs"),
    "project": ("{project}", "CHECK (data_last_packaged_at IS NULL)", "data_last_packaged_at"),
    "success": ("core_job", "CHECK (status <> 'finished')", "status"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_outcome_that_the_database_refuses(scene, database, case):
    """The job ends failed, with the database's reason, and keeps its output; feedback too where it is not the cause."""
    table, check, _ = CHECKS[case]
    table = table.format(project=database.project_table)
    database.execute(f"ALTER TABLE {table} ADD CONSTRAINT no_such_luck {check}")
    scene.start()
    job = scene.job()
    row = scene.wait_for(job, "finished", "failed")
    assert row["status"] == "failed"
    assert "no_such_luck" in row["feedback"]["error"] and row["feedback"]["error_origin"] == "worker_wrapper"
    assert row["feedback"]["container_exit_code"] == 0
    assert ("steps" in row["feedback"]) == (case != "feedback")
    assert row["output"].startswith("::<<<::") and row["finished_at"]
    assert database.get(database.project_table, job["project_id"])["data_last_packaged_at"] is None
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    assert scene.tokens() == [] and scene.starts(job) == 1
    database.execute(f"ALTER TABLE {table} DROP CONSTRAINT no_such_luck")
    scene.another_finishes()
    scene.stop()


def test_feedback_that_the_database_refuses(scene, database):
    """The job ends with the database's reason and its log, without the feedback."""
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    database.execute("ALTER TABLE core_job ADD CONSTRAINT no_feedback CHECK (NOT feedback ? 'workflow_id') NOT VALID")
    scene.let_go(container)
    row = scene.wait_for(job, "finished", "failed")
    assert row["status"] == "failed"
    assert "no_feedback" in row["feedback"]["error"] and row["feedback"]["container_exit_code"] == 0
    assert row["output"].startswith("::<<<::")
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    database.execute("ALTER TABLE core_job DROP CONSTRAINT no_feedback")
    scene.another_finishes()
    scene.stop()


def test_database_that_refuses_every_outcome(scene, database):
    """Nothing can be written of the job: the program says so, cleans up, and goes on with others."""
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    database.execute("ALTER TABLE core_job ADD CONSTRAINT no_such_luck CHECK (finished_at IS NULL) NOT VALID")
    scene.let_go(container)
    scene.wait_until_gone(container)
    output = scene.process.output()
    assert any("no_such_luck" in message for message in output.messages("error", job)), str(output)
    database.execute("ALTER TABLE core_job DROP CONSTRAINT no_such_luck")
    scene.another_finishes()
    scene.stop()
    database.execute("DELETE FROM authentication_authtoken")


def test_beginning_that_the_database_refuses(scene, database):
    """The job's fault or not, its container must not run; the job fails with the reason."""
    database.execute("ALTER TABLE core_job ADD CONSTRAINT no_such_luck CHECK (status <> 'started')")
    scene.start()
    job = scene.job()
    row = scene.wait_for(job, "failed", "finished")
    assert row["status"] == "failed" and "no_such_luck" in row["feedback"]["error"]
    assert scene.starts(job) == 0 and scene.tokens() == []
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    database.execute("ALTER TABLE core_job DROP CONSTRAINT no_such_luck")
    scene.another_finishes()
    scene.stop()


@pytest.mark.long
@pytest.mark.parametrize("database", ["v26.25"], indirect=True)
def test_a_column_that_a_job_type_needs_is_not_there(pg_scene):
    """A schema that nobody has seen yet: after the time that a migration may take the job fails with PostgreSQL's word
    for it, and the queue goes on."""
    database = pg_scene.database
    database.execute("ALTER TABLE core_applyjobdelta RENAME COLUMN modified_pk TO something_else")
    project = database.project(qgis_file="offline.qgs", files=())
    job = database.job(project, "delta_apply", child={"overwrite_conflicts": False})
    pg_scene.start()
    row = pg_scene.wait_for(job, "failed", limit=300)
    assert "modified_pk" in row["feedback"]["error"]
    pg_scene.another_finishes()
    pg_scene.stop()


@pytest.mark.parametrize("database", ["v26.25"], indirect=True)
def test_a_column_that_comes_back(pg_scene):
    """The web application migrates meanwhile: the job waits for it."""
    database = pg_scene.database
    database.execute("ALTER TABLE core_applyjobdelta RENAME COLUMN modified_pk TO something_else")
    project = database.project(qgis_file="offline.qgs", files=())
    job = database.job(project, "delta_apply", child={"overwrite_conflicts": False})
    pg_scene.start()
    pg_scene.wait_for_word("modified_pk")
    database.execute("ALTER TABLE core_applyjobdelta RENAME COLUMN something_else TO modified_pk")
    pg_scene.finishes(job)
    pg_scene.stop()
