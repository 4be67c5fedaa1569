"""A job or its project is deleted, ended or taken over by others, at each step of the job's life.

Each test holds the program within a step: at the engine's call (before the engine sees it), or by a transaction that
deletes the row and commits later, while the program waits for it. Afterwards the container is gone, nothing was written
but the deletion, and the program does another job.
"""

import pytest
from bed.rows import changes

CALLS = {
    "create": r"^POST /containers/create",
    "start": r"^POST /containers/\w+/start",
    "inspect": r"^GET /containers/\w+/json",
    "logs": r"^GET /containers/\w+/logs\?stdout",
    "feedback": r"^GET /containers/\w+/archive",
    "remove": r"^DELETE /containers/",
}
WHOLE = ["job", "project"]
TOKENS = "authentication_authtoken"


def deletion(database, job, what):
    """Statements that delete the job, or its project with all that belongs to it, as the web application would."""
    statements = [
        ("DELETE FROM core_packagejob WHERE job_ptr_id = %s", job["id"]),
        ("DELETE FROM core_job WHERE id = %s", job["id"]),
    ]
    if what == "project":
        project = job["project_id"]
        files = "(SELECT id FROM filestorage_file WHERE project_id = %s)"
        statements += [
            ("UPDATE filestorage_file SET latest_version_id = NULL WHERE project_id = %s", project),
            (f"UPDATE {database.project_table} SET the_qgis_file_id = NULL WHERE id = %s", project),
            (f"DELETE FROM filestorage_fileversion WHERE file_id IN {files}", project),
            ("DELETE FROM filestorage_file WHERE project_id = %s", project),
            (f"DELETE FROM {database.project_table} WHERE id = %s", project),
        ]
    return statements


class Transaction:
    """A transaction of somebody else, open until commit()."""

    def __init__(self, database):
        self.connection = database.connect()
        self.connection.autocommit = False

    def run(self, statements):
        with self.connection.cursor() as cursor:
            for statement, *values in statements:
                cursor.execute(statement, values)

    def commit(self):
        self.connection.commit()
        self.connection.close()


@pytest.fixture
def transaction(database):
    made = Transaction(database)
    yield made
    made.connection.close()


def delete(scene, job, what):
    made = Transaction(scene.database)
    made.run(deletion(scene.database, job, what))
    made.commit()


def beyond_deletion(before, after, next_job):
    """What has changed since the deletion, but for the next job's own traces and a token that went."""
    own = {str(next_job["id"]), str(next_job["project_id"])}
    return {
        where: what
        for where, what in changes(before, after).items()
        if where[1] not in own and not (where[0] == TOKENS and what.get("", ("", ""))[1] is None)
    }


def check_afterwards(scene, job, next_job, before):
    """The program has done the next job, and of the deleted one nothing is left. It has one slot: when the next job is
    done, it was done with the deleted one before."""
    scene.finishes(next_job)
    assert beyond_deletion(before, scene.database.dump(), next_job) == {}
    assert scene.row(job) is None
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    assert scene.tokens() == [], "the token outlived its job"
    output = scene.stop()
    trouble = [message for message in output.messages("error") if "no job is claimed until" not in message]
    assert not trouble, str(output)


@pytest.mark.parametrize("what", WHOLE)
@pytest.mark.parametrize("step", CALLS)
def test_deleted_while_the_engine_is_asked(scene, step, what):
    hold = scene.proxy.hold(CALLS[step])
    scene.start()
    job = scene.job("gate.qgs" if step == "start" else "offline.qgs")
    hold.reached()
    delete(scene, job, what)
    next_job = scene.job()
    before = scene.database.dump()
    hold.release()
    check_afterwards(scene, job, next_job, before)
    assert scene.starts(job) == (0 if step == "create" else 1)


@pytest.mark.parametrize("what", WHOLE)
@pytest.mark.parametrize("step", ["create", "start"])
def test_deleted_before_the_engines_answer(scene, step, what):
    hold = scene.proxy.hold_answer(CALLS[step])
    scene.start()
    job = scene.job("gate.qgs")
    hold.reached()
    delete(scene, job, what)
    next_job = scene.job()
    before = scene.database.dump()
    hold.release()
    check_afterwards(scene, job, next_job, before)


@pytest.mark.parametrize("what", WHOLE)
def test_deleted_while_the_container_runs(scene, what):
    scene.start()
    job = scene.job("gate.qgs")
    scene.running(job)
    delete(scene, job, what)
    next_job = scene.job()
    check_afterwards(scene, job, next_job, scene.database.dump())


@pytest.mark.parametrize("what", WHOLE)
def test_deleted_before_it_is_read(pg_scene, what):
    """Claimed, and gone when its rows are asked for."""
    scene = pg_scene
    hold = scene.pg_proxy.hold(r"AS images_by_qgis")
    scene.start()
    job = scene.job()
    hold.reached()
    assert scene.row(job)["status"] == "queued"
    delete(scene, job, what)
    next_job = scene.job()
    before = scene.database.dump()
    hold.release()
    check_afterwards(scene, job, next_job, before)
    assert scene.proxy.count(r"^POST /containers/create") == 1, "a container was made for a job that is gone"


@pytest.mark.parametrize("what", WHOLE)
def test_deleted_while_it_is_read(scene, transaction, what):
    """Its row was still there, its settings wait for somebody's lock."""
    transaction.run([("LOCK TABLE constance_constance IN ACCESS EXCLUSIVE MODE",)])
    scene.start()
    job = scene.job()
    scene.wait_for_lock()
    assert scene.row(job)["status"] == "queued"
    next_job = scene.job()
    transaction.run(deletion(scene.database, job, what))
    transaction.commit()
    before = scene.database.dump()
    check_afterwards(scene, job, next_job, before)
    assert scene.starts(job) == 0


@pytest.mark.parametrize("what", WHOLE)
@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_deleted_while_it_is_written(scene, transaction, step, what):
    """The program's transaction waits for the row, which is gone when the other one commits."""
    hold = scene.proxy.hold_answer(CALLS["create" if step == "prepare" else "feedback"])
    scene.start()
    job = scene.job()
    hold.reached()
    transaction.run(deletion(scene.database, job, what))
    next_job = scene.job()
    hold.release()
    scene.wait_for_lock()
    transaction.commit()
    check_afterwards(scene, job, next_job, scene.database.dump())
    assert scene.starts(job) == (0 if step == "prepare" else 1)


@pytest.mark.parametrize("what", WHOLE)
def test_deleted_while_it_is_claimed(scene, transaction, what):
    """The claim leaves out a row that is locked, and goes on with others."""
    job = scene.job()
    transaction.run(deletion(scene.database, job, what))
    scene.start()
    scene.another_finishes()
    transaction.commit()
    next_job = scene.job()
    check_afterwards(scene, job, next_job, scene.database.dump())
    assert scene.proxy.count(r"^POST /containers/create") == 2


@pytest.mark.parametrize("what", WHOLE)
def test_deleted_before_it_is_put_back(scene, transaction, what):
    """The engine refuses to make the container; the job that should go back to pending is gone by then."""
    scene.proxy.answer(CALLS["create"], 500, times=1)
    hold = scene.proxy.hold(CALLS["remove"])
    scene.start()
    job = scene.job()
    hold.reached()
    assert scene.row(job)["status"] == "queued"
    delete(scene, job, what)
    next_job = scene.job()
    before = scene.database.dump()
    hold.release()
    check_afterwards(scene, job, next_job, before)


@pytest.mark.parametrize("what", WHOLE)
def test_deleted_while_the_engine_is_away(scene, what):
    """When the engine is back, the program comes and cleans up."""
    scene.start()
    job = scene.job("gate.qgs")
    scene.running(job)
    scene.proxy.down()
    scene.wait_for_word("no job is claimed until")
    delete(scene, job, what)
    next_job = scene.job()
    before = scene.database.dump()
    scene.proxy.up()
    check_afterwards(scene, job, next_job, before)


VERDICT = {
    "status": "failed",
    "output": "Job unexpectedly terminated.",
    "feedback": {"error_stack": "", "error": "Job unexpectedly terminated.", "error_origin": "worker_wrapper"},
}


def end(scene, job):
    """As the web application's scheduled task ends a job that takes too long."""
    scene.database.update("core_job", job["id"], finished_at="2026-01-01T00:00:00Z", **VERDICT)
    return scene.row(job)


def check_verdict(scene, job, verdict, next_job):
    scene.finishes(next_job)
    assert scene.row(job) == verdict
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    assert scene.tokens() == [], "the token outlived its job"
    assert scene.database.get(scene.database.project_table, job["project_id"])["data_last_packaged_at"] is None
    scene.stop()


def test_ended_by_the_web_application(scene):
    """Its verdict stands, and the container is removed."""
    scene.start()
    job = scene.job("gate.qgs")
    scene.running(job)
    verdict, next_job = end(scene, job), scene.job()
    check_verdict(scene, job, verdict, next_job)


@pytest.mark.parametrize("step", ["create", "start", "logs", "feedback"])
def test_ended_by_the_web_application_at_a_step(scene, step):
    hold = scene.proxy.hold(CALLS[step])
    scene.start()
    job = scene.job("gate.qgs" if step == "start" else "offline.qgs")
    hold.reached()
    verdict, next_job = end(scene, job), scene.job()
    hold.release()
    check_verdict(scene, job, verdict, next_job)


OTHER = "qfc-worker:0123456789abcdef:another"


def take_over(scene, job):
    mark = {"worker": "qfc-worker:00000000000000aa:elsewhere", "engine": "AAAA", "attempts": 1}
    scene.database.update("core_job", job["id"], container_id=OTHER, feedback={"qfc_worker": mark})
    return scene.row(job)


def check_forgotten(scene, job, row, container):
    """Nothing was touched; the test clears up."""
    scene.another_finishes()
    assert scene.row(job) == row
    state = scene.docker.inspect(container)["State"]
    assert len(scene.tokens()) == 1, "the container needs its token"
    scene.stop()
    assert scene.row(job) == row
    scene.docker.remove(container)
    scene.database.execute(f"DELETE FROM {TOKENS}")
    return state


def test_taken_over_while_the_container_runs(scene):
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    row = take_over(scene, job)
    state = check_forgotten(scene, job, row, container)
    assert state["Running"]
    assert scene.events.count("kill", job) == 1, "the removal by the test alone"


def test_taken_over_before_it_began(scene):
    """Somebody has put the row back, and another worker runs the job: its token is left to it, our container goes."""
    hold = scene.proxy.hold(CALLS["create"])
    scene.start()
    job = scene.job()
    hold.reached()
    scene.database.update("core_job", job["id"], status="started", container_id="0" * 64)
    key = "qfcworker" + str(job["id"]).replace("-", "")
    user = {"id": job["created_by_id"]}
    token = scene.database.token(user, key=key + "x" * (100 - len(key)))
    row = scene.row(job)
    hold.release()
    scene.another_finishes()
    assert scene.row(job) == row
    assert [found["id"] for found in scene.tokens()] == [token["id"]]
    assert scene.containers(job) == []
    scene.stop()
    scene.database.execute(f"DELETE FROM {TOKENS}")


@pytest.mark.parametrize("step", ["logs", "feedback"])
def test_taken_over_at_a_step(scene, step):
    hold = scene.proxy.hold(CALLS[step])
    scene.start()
    job = scene.job()
    hold.reached()
    container = scene.containers(job)[0]["Id"]
    row = take_over(scene, job)
    hold.release()
    check_forgotten(scene, job, row, container)
