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


LATE = {"QFC_WORKER_STOP_GRACE_S": "300"}  # a grace that no test outlasts


def next_worker_finishes(scene, job, container):
    """It takes the running container over: the same one, started once."""
    scene.start()
    scene.wait_for_word("took over package")
    scene.let_go(container)
    row = scene.finishes(job)
    assert row["container_id"] == container and "qfc_worker" not in row["feedback"]
    assert scene.starts(job) == 1
    scene.wait_until_gone(container)
    scene.stop()


@BY_SIGNAL
def test_waits_for_running_jobs(scene, number):
    """It claims no more, waits, writes the outcome and ends."""
    scene.start(**LATE)
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.process.send(number)
    scene.wait_for_word("stopping: no more jobs are claimed; 1 have 300 s to end")
    later = scene.job()
    scene.let_go(container)
    output = scene.process.wait()
    assert output.returncode == 0, str(output)
    assert scene.row(job)["status"] == "finished" and scene.row(later)["status"] == "pending"
    assert scene.is_gone(container)


@BY_SIGNAL
def test_leaves_what_outlasts_the_grace(scene, number):
    """The container runs on, its row and its token stay, and the next worker on this engine goes on with it."""
    first = scene.start(QFC_WORKER_STOP_GRACE_S="1")
    job = scene.job("gate.qgs")
    container = scene.running(job)
    tokens = scene.tokens()
    first.send(number)
    output = first.wait(30)
    assert output.returncode == 0, str(output)
    assert any("for the next worker" in message for message in output.messages("info", job)), str(output)
    row = scene.row(job)
    assert (row["status"], row["container_id"], row["finished_at"]) == ("started", container, None)
    assert scene.docker.inspect(container)["State"]["Running"] and scene.tokens() == tokens
    next_worker_finishes(scene, job, container)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_second_signal_leaves_at_once(scene, second):
    """Or SIGQUIT, which is as good as two. It does not count against the job's attempts."""
    job = scene.job("gate.qgs")
    scene.start(**LATE)
    container = scene.running(job)
    if second != signal.SIGQUIT:
        scene.process.send(signal.SIGTERM)
        scene.wait_for_word("stopping")
    scene.process.send(second)
    output = scene.process.wait(30)
    assert output.returncode == 0, str(output)
    assert scene.row(job)["status"] == "started" and scene.docker.inspect(container)["State"]["Running"]
    scene.worker.env["RETRY_MAX_ATTEMPTS"] = "1"
    next_worker_finishes(scene, job, container)


@pytest.mark.parametrize("how", ["--stop", "QFC_WORKER_STOP"])
@BY_SIGNAL
def test_drain_waits_for_all(scene, number, how):
    """However long it takes: a grace of no time at all says nothing then."""
    variables = {"QFC_WORKER_STOP": "drain"} if how == "QFC_WORKER_STOP" else {"QFC_WORKER_STOP": "leave"}
    arguments = ("--stop", "drain") if how == "--stop" else ()
    scene.start(*arguments, QFC_WORKER_STOP_GRACE_S="0", **variables)
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.process.send(number)
    scene.wait_for_word("stopping: no more jobs are claimed; waiting for 1 to end")
    later = scene.job()
    scene.let_go(container)
    output = scene.process.wait()
    assert output.returncode == 0, str(output)
    assert scene.row(job)["status"] == "finished" and scene.row(later)["status"] == "pending"


def test_second_signal_while_draining(scene):
    scene.start("--stop", "drain")
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.process.send(signal.SIGTERM)
    scene.wait_for_word("waiting for 1 to end")
    scene.process.send(signal.SIGTERM)
    output = scene.process.wait(30)
    assert output.returncode == 0, str(output)
    assert scene.row(job)["status"] == "started"
    next_worker_finishes(scene, job, container)


def test_second_signal_before_the_start(scene):
    """What is under way at the engine ends first; then the job goes back, uncounted. Where that takes too long, the
    next worker does it."""
    hold = scene.proxy.hold("^POST /containers/create")
    first = scene.start(**LATE)
    job = scene.job()
    hold.reached()
    first.send(signal.SIGTERM)
    scene.wait_for_word("stopping")
    first.send(signal.SIGTERM)
    hold.release()
    output = first.wait(30)
    assert output.returncode == 0, str(output)
    assert scene.starts(job) == 0 and scene.tokens() == []
    if not any("for the next worker" in message for message in output.messages("warning", job)):
        row = scene.row(job)
        assert (row["status"], row["container_id"], row["output"]) == ("pending", "", None)
        assert not any(row[name] for name in ("started_at", "finished_at", "docker_started_at", "docker_finished_at"))
        note = row["feedback"]["qfc_worker"]
        assert (note["attempts"], note["faults"], note["reasons"]) == (1, 0, []), note
        assert scene.containers(job) == []
    scene.start()
    scene.finishes(job)
    assert scene.starts(job) == 1
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    scene.stop()


def test_second_signal_at_the_start(scene):
    """The container was asked to start: it is left to the next worker, whether the answer comes in time or not."""
    hold = scene.proxy.hold(r"^POST /containers/\w+/start")
    first = scene.start(**LATE)
    job = scene.job("gate.qgs")
    hold.reached()
    first.send(signal.SIGTERM)
    scene.wait_for_word("stopping")
    first.send(signal.SIGTERM)
    hold.release()
    output = first.wait(30)
    assert output.returncode == 0, str(output)
    assert scene.row(job)["status"] == "started"
    next_worker_finishes(scene, job, scene.running(job))


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
    """The first one waits for the engine; the second leaves the job, and says so. The next worker finishes it when the
    engine is back."""
    scene.start(**LATE)
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.proxy.down()
    scene.wait_for_word("no job is claimed until")
    scene.process.send(signal.SIGTERM)
    scene.wait_for_word("stopping")
    scene.process.send(signal.SIGTERM)
    output = scene.process.wait(30)
    assert output.returncode == 0, str(output)
    assert scene.row(job)["status"] == "started", "nobody knows whether the container still runs"
    assert any("for the next worker" in message for message in output.messages(None, job)), str(output)
    scene.proxy.up()
    next_worker_finishes(scene, job, container)


def test_signals_while_the_database_is_away_under_a_job(scene, postgres, database):
    """The container goes on; it is said, and the next worker finishes the job when the database is back."""
    scene.start(**LATE)
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
    assert output.returncode == 0, str(output)
    assert any("for the next worker" in message for message in output.messages(None, job)), str(output)
    next_worker_finishes(scene, job, container)


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
    scene.start("--stop", "drain", QFIELDCLOUD_WORKER_TIMEOUT_S="2")
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
    assert any("put back" in m and "o such container" in m for m in output.messages("warning", job)), str(output)


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


@pytest.mark.parametrize("call", [r"logs\?stdout", "archive"])
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
