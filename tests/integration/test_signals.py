"""How the program ends when it is told to, and how containers end when their time is up or somebody kills them."""

import signal

import pytest

BY_SIGNAL = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


def connected(scene):
    scene.wait_for_word("connected to the database")
    scene.wait_for_word("the engine at")


@BY_SIGNAL
def test_idle(scene, number):
    scene.start()
    connected(scene)
    scene.process.send(number)
    assert scene.process.wait(10).returncode == 0


@BY_SIGNAL
def test_waits_for_running_jobs(scene, number):
    """It claims no more, waits, writes the outcome and ends."""
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.process.send(number)
    scene.wait_for_word("stopping: no more jobs are claimed; waiting for 1 to end")
    later = scene.job()
    scene.let_go(container)
    output = scene.process.wait()
    assert output.returncode == 0, str(output)
    assert scene.row(job)["status"] == "finished" and scene.row(later)["status"] == "pending"
    assert scene.is_gone(container)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_second_signal_puts_back(scene, second):
    """Or SIGQUIT, which is as good as two. The job has nothing left of this attempt but the note of it."""
    job = scene.job("gate.qgs")
    scene.start()
    container = scene.running(job)
    if second != signal.SIGQUIT:
        scene.process.send(signal.SIGTERM)
        scene.wait_for_word("stopping")
    scene.process.send(second)
    output = scene.process.wait(20)
    assert output.returncode == 0, str(output)
    assert scene.is_gone(container), "a container was left"
    assert scene.tokens() == []
    row = scene.row(job)
    assert (row["status"], row["container_id"], row["output"]) == ("pending", "", None)
    assert not any(row[name] for name in ("started_at", "finished_at", "docker_started_at", "docker_finished_at"))
    note = row["feedback"]["qfc_worker"]
    assert note["reason"] == "the worker was told to leave" and note["attempts"] == 1 and note["faults"] == 0


def test_put_back_job_is_taken_by_the_next(scene):
    job = scene.job("gate.qgs")
    scene.start()
    scene.running(job)
    scene.process.send(signal.SIGQUIT)
    assert scene.process.wait(20).returncode == 0
    scene.start(RETRY_MAX_ATTEMPTS="1")
    scene.let_go(scene.running(job))
    assert "qfc_worker" not in scene.finishes(job)["feedback"]
    scene.stop()


@pytest.mark.parametrize("step", ["create", "start"])
def test_second_signal_at_the_beginning(scene, step):
    """What is under way at the engine ends first; then the job goes back."""
    hold = scene.proxy.hold({"create": "^POST /containers/create", "start": r"^POST /containers/\w+/start"}[step])
    scene.start()
    job = scene.job("gate.qgs")
    hold.reached()
    scene.process.send(signal.SIGTERM)
    scene.wait_for_word("stopping")
    scene.process.send(signal.SIGTERM)
    scene.wait_for_word("leaving now")
    hold.release()
    output = scene.process.wait(20)
    assert output.returncode == 0, str(output)
    assert scene.row(job)["status"] == "pending" and scene.row(job)["container_id"] == ""
    assert scene.containers(job) == [] and scene.tokens() == []


def test_signal_while_the_database_is_away(scene, postgres, database):
    scene.start()
    connected(scene)
    database.disconnect()
    postgres.stop("immediate")
    scene.wait_for_word("no job is claimed until")
    scene.process.send(signal.SIGTERM)
    assert scene.process.wait(10).returncode == 0
    postgres.start()


def test_signal_while_the_database_was_never_there(scene, postgres, database):
    database.disconnect()
    postgres.stop()
    scene.start()
    scene.wait_for_word("no job is claimed until")
    scene.process.send(signal.SIGINT)
    assert scene.process.wait(10).returncode == 0
    postgres.start()


def test_signal_while_the_engine_is_away(scene):
    scene.proxy.down()
    scene.start()
    scene.wait_for_word("no socket there")
    scene.process.send(signal.SIGTERM)
    assert scene.process.wait(10).returncode == 0


def test_signals_while_the_engine_is_away_under_a_job(scene):
    """The first one waits for the engine; the second gives the job up: it says so, and the exit code does, too."""
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.proxy.down()
    scene.wait_for_word("no job is claimed until")
    scene.process.send(signal.SIGTERM)
    scene.wait_for_word("stopping")
    scene.process.send(signal.SIGTERM)
    output = scene.process.wait(20)
    row = scene.row(job)
    scene.docker.remove(container)
    scene.database.execute("DELETE FROM authentication_authtoken")
    assert row["status"] == "started", "nobody knows whether the container still runs"
    assert any("left behind" in message for message in output.messages("error", job)), str(output)
    assert output.returncode == 1, str(output)


def test_signals_while_the_database_is_away_under_a_job(scene, postgres, database):
    """What could not be written is said, and so does the exit code; the container does not go on alone."""
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    database.disconnect()
    postgres.stop("immediate")
    scene.wait_for_word("no job is claimed until")
    scene.process.send(signal.SIGTERM)
    scene.wait_for_word("stopping")
    scene.process.send(signal.SIGTERM)
    output = scene.process.wait(30)
    postgres.start()
    assert output.returncode == 1, str(output)
    assert any("left behind" in message for message in output.messages("error", job)), str(output)
    scene.docker.remove(container)
    scene.database.execute("DELETE FROM authentication_authtoken")


def check_deadline(scene, job, seconds):
    row = scene.wait_for(job, "finished", "failed")
    assert row["status"] == "failed" and row["finished_at"] and row["docker_finished_at"]
    assert row["feedback"] == {
        "error": "Worker timeout error.",
        "error_type": "TIMEOUT",
        "error_class": "",
        "error_stack": "",
        "error_origin": "container",
        "container_exit_code": -1,
    }
    assert row["output"].startswith("::<<<::"), "the log is lost"
    assert row["output"].endswith(f"\nTimeout error! The job failed to finish within {seconds} seconds!\n")
    return row


# The stand-in's process 1 is a shell that waits: it ignores SIGTERM; `offline` has written its feedback before.
@pytest.mark.parametrize("plays", ["sleep@60.qgs", "gate.qgs", "sleep_after@60.qgs"])
def test_deadline(scene, plays):
    scene.start(QFIELDCLOUD_WORKER_TIMEOUT_S="2")
    job = scene.job(plays)
    container = scene.running(job)
    row = check_deadline(scene, job, 2)
    assert 2 <= (row["docker_finished_at"] - row["docker_started_at"]).total_seconds() < 10
    scene.wait_until_gone(container)
    scene.another_finishes()
    scene.stop()


def test_deadline_while_the_engine_does_not_answer_the_kill(scene):
    """Tried until it works."""
    rule = scene.proxy.cut(r"^POST /containers/\w+/kill", "before", times=3)
    scene.start(QFIELDCLOUD_WORKER_TIMEOUT_S="1")
    job = scene.job("sleep@60.qgs")
    check_deadline(scene, job, 1)
    assert rule.used == 3
    scene.stop()


def test_kill_that_does_not_kill_is_repeated(scene):
    rule = scene.proxy.answer(r"^POST /containers/\w+/kill", 204, b"")
    scene.start(QFIELDCLOUD_WORKER_TIMEOUT_S="1")
    job = scene.job("sleep@60.qgs")
    check_deadline(scene, job, 1)
    assert rule.used == 1
    scene.stop()


def test_deadline_after_the_first_signal(scene):
    """Waiting for the running jobs has an end."""
    scene.start(QFIELDCLOUD_WORKER_TIMEOUT_S="2")
    job = scene.job("gate.qgs")
    scene.running(job)
    scene.process.send(signal.SIGTERM)
    output = scene.process.wait(30)
    assert output.returncode == 0, str(output)
    check_deadline(scene, job, 2)


def test_kill_from_outside(scene):
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.worker.wait_for(lambda: b"waiting for /io/go" in scene.docker.logs(container), "its log")
    scene.docker.kill(container)
    row = scene.wait_for(job, "finished", "failed")
    assert row["status"] == "failed"
    assert row["feedback"] == {
        "error": "Docker engine sigkill.",
        "error_type": "DOCKER_ENGINE_SIGKILL",
        "error_class": "",
        "error_stack": "",
        "error_origin": "container",
        "container_exit_code": 137,
    }
    assert row["output"].startswith("::<<<::"), "the log is lost"
    scene.another_finishes()
    scene.stop()


def test_removed_from_outside(scene):
    """Somebody's `docker rm -f`: how it ended is not known any more, and a package may be made again."""
    hold = scene.proxy.hold(r"^GET /containers/\w+/json")
    scene.start()
    job = scene.job("gate.qgs")
    first = scene.running(job)
    scene.docker.remove(first)
    hold.reached()
    hold.release()
    again = scene.running(job)
    assert again != first
    scene.let_go(again)
    scene.finishes(job)
    output = scene.stop()
    assert any("put back" in m and "No such container" in m for m in output.messages("warning", job)), str(output)


def test_pruned_before_the_start(scene):
    """Somebody's `docker system prune` takes containers that were created and do not run yet."""
    hold = scene.proxy.hold(r"^POST /containers/\w+/wait")
    scene.start()
    job = scene.job()
    hold.reached()
    scene.docker.remove(scene.containers(job)[0]["Id"])
    hold.release()
    scene.finishes(job)
    assert scene.starts(job) == 1
    scene.stop()


@pytest.mark.parametrize("call", ["logs", "archive"])
def test_pruned_after_the_end(scene, call):
    """Gone before its log or its feedback were read: the job is run again, since a package may be."""
    hold = scene.proxy.hold(rf"^GET /containers/\w+/{call}")
    scene.start()
    job = scene.job()
    hold.reached()
    scene.docker.remove(scene.containers(job)[0]["Id"])
    hold.release()
    row = scene.finishes(job)
    assert row["container_id"] and row["output"].startswith("::<<<::")
    assert scene.starts(job) == 2
    scene.stop()


@pytest.mark.parametrize("plays, code", [("out_of_memory.qgs", 137), ("out_of_memory_child.qgs", 1)])
def test_out_of_memory(scene, database, plays, code):
    database.constance("WORKER_QGIS_MEMORY_LIMIT", "20m")
    scene.start()
    job = scene.job(plays)
    row = scene.wait_for(job, "finished", "failed")
    assert row["status"] == "failed"
    assert row["feedback"]["error_type"] == "OUT_OF_MEMORY" and row["feedback"]["error_origin"] == "container"
    assert row["feedback"]["container_exit_code"] == code
    assert "memory" in row["feedback"]["error"]
    assert row["output"].startswith("::<<<::"), "the log is lost"
    scene.another_finishes()
    scene.stop()
