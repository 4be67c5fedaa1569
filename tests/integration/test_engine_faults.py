"""What becomes of a job and of the program when the engine is not there, goes away, or answers badly."""

import grp
import json
import os

import pytest

# Each call of a job's life, as the proxy sees it.
CALLS = {
    "version": r"^GET /version",
    "create": r"^POST /containers/create",
    "wait": r"^POST /containers/\w+/wait",
    "start": r"^POST /containers/\w+/start",
    "inspect": r"^GET /containers/\w+/json",
    "logs": r"^GET /containers/\w+/logs\?stdout",
    "archive": r"^GET /containers/\w+/archive",
    "delete": r"^DELETE /containers/",
}
NOT_CLAIMING = "no job is claimed until"


def test_socket_that_appears_later(scene):
    """Said once, and the program goes on by itself."""
    scene.proxy.down()
    scene.start()
    scene.wait_for_word("no socket there: is the engine running?")
    job = scene.job()
    scene.proxy.up()
    scene.finishes(job)
    output = scene.stop()
    assert sum(NOT_CLAIMING in message for message in output.messages("error")) == 1, str(output)


def test_trouble_is_said_once_over_many_probes(scene):
    rule = scene.proxy.answer("^GET /version", 500, times=None)
    scene.start()
    job = scene.job()
    scene.worker.wait_for(lambda: rule.used >= 4, "four probes")
    assert scene.said(NOT_CLAIMING) == 1, str(scene.process.output())
    assert scene.row(job)["status"] == "pending"
    assert scene.said("the proxy was told to say so", "error") == 1
    scene.proxy.behave()
    scene.finishes(job)
    scene.stop()


def test_another_trouble_is_said_too(scene):
    rule = scene.proxy.answer("^GET /version", 500, times=None)
    scene.start()
    scene.worker.wait_for(lambda: rule.used >= 2, "two probes")
    scene.proxy.down()
    scene.wait_for_word("no socket there")
    assert scene.said(NOT_CLAIMING) == 2
    scene.proxy.behave()
    scene.proxy.up()
    scene.another_finishes()
    scene.stop()


@pytest.fixture
def as_nobody(scene):
    """The program as a user who may use the socket only when the test allows it."""
    command = scene.worker.command
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    scene.worker.command = lambda *args: prefix + command(*args)
    group = next(g for g in grp.getgrall() if g.gr_gid not in (0, 65534))
    os.chown(scene.proxy.socket_path, 0, group.gr_gid)
    os.chmod(scene.proxy.socket_path, 0o660)
    return scene, group


def test_socket_that_is_not_permitted(as_nobody):
    """The message names the group that would help; once permitted, the program goes on by itself."""
    scene, group = as_nobody
    scene.start()
    scene.wait_for_word(f'permission denied: this user is not in the group "{group.gr_name}" ({group.gr_gid})')
    job = scene.job()
    os.chmod(scene.proxy.socket_path, 0o666)
    scene.finishes(job)
    output = scene.stop()
    assert sum(NOT_CLAIMING in message for message in output.messages("error")) == 1, str(output)


@pytest.mark.parametrize("mode", ["--drain", "--single-shot"])
def test_no_engine_for_a_script(scene, mode):
    """Exit code 3 and a last line that says why; nothing was touched."""
    scene.proxy.down()
    job = scene.job()
    before = scene.database.dump()
    output = scene.start(mode).wait()
    assert output.returncode == 3, str(output)
    assert output.lines[-1]["level"] == "error"
    assert f"connect to the engine at {scene.proxy.socket_path}: no socket there" in output.lines[-1]["message"]
    assert NOT_CLAIMING not in output.lines[-1]["message"], "it does not wait: it has ended"
    assert scene.database.dump() == before, job


@pytest.mark.parametrize("call", CALLS)
def test_engine_hangs_up_once(scene, call):
    """Before the request arrives, after the engine has done it, and in the middle of the answer: the job is done all the
    same, and its container was started once only."""
    scene.start()
    for when in ("before", "after", "mid"):
        rule = scene.proxy.cut(CALLS[call], when)
        if call == "version":  # asked for again only when the engine was away
            scene.proxy.hang_up()
            scene.proxy.cut(CALLS["create"], "before")
        job = scene.job()
        row = scene.finishes(job)
        scene.worker.wait_for(lambda: rule.used == 1, "the call that is cut")  # a removal comes after the outcome
        assert scene.starts(job) == 1, (when, scene.process.output())
        assert row["output"].startswith("::<<<::"), when
        assert row["feedback"]["container_exit_code"] == 0 and row["feedback"]["steps"], when
        scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    scene.stop()


def test_engine_that_never_answers_a_create(scene):
    """Back to pending with the reason, and failed with it when the attempts are spent."""
    rule = scene.proxy.cut(CALLS["create"], "after", times=None)
    scene.start(RETRY_MAX_ATTEMPTS="2", RETRY_BASE_DELAY_SECONDS="1")
    job = scene.job()
    row = scene.worker.wait_for(
        lambda: (r := scene.row(job))["status"] == "pending" and r["feedback"] and r, "the job's return"
    )
    note = row["feedback"]["qfc_worker"]
    assert note["attempts"] == note["faults"] == 1 and "create container" in note["reasons"][0], note
    assert row["container_id"] == "" and row["started_at"] is None
    row = scene.wait_for(job, "failed", limit=30)
    assert "create container" in row["feedback"]["error"] and row["feedback"]["error_origin"] == "worker_wrapper"
    assert "qfc_worker" not in row["feedback"]
    assert row["output"].startswith(row["feedback"]["error"] + "\n") and "Before:\n1. " in row["output"]
    assert scene.tokens() == [] and scene.starts(job) == 0
    scene.worker.wait_for(lambda: not scene.containers(job), "the removal of what was created")
    assert rule.used >= 2
    scene.proxy.behave()
    scene.another_finishes()
    scene.stop()


@pytest.mark.parametrize("call", ["create", "start"])
def test_answer_500_before_the_start(scene, call):
    """The container has not run: the job goes back, and its second attempt is the one that runs."""
    scene.proxy.answer(CALLS[call], 500)
    scene.start()
    job = scene.job()
    scene.finishes(job)
    assert scene.starts(job) == 1
    output = scene.stop()
    told = [m for m in output.messages("warning", job) if m.startswith("put back")]
    assert len(told) == 1 and "the proxy was told to say so" in told[0], str(output)


@pytest.mark.parametrize("call", ["wait", "inspect", "delete"])
def test_answer_500_once(scene, call):
    """No matter which call: the job is done in the end, and nothing is left."""
    rule = scene.proxy.answer(CALLS[call], 500)
    scene.start()
    job = scene.job()
    scene.finishes(job)
    scene.worker.wait_for(lambda: rule.used == 1, "the call")  # a removal comes after the outcome
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    scene.stop()


def test_answer_500_for_the_log(scene):
    """The outcome counts without it, and the output says so."""
    scene.proxy.answer(CALLS["logs"], 500, times=None)
    scene.start()
    row = scene.finishes(scene.job())
    assert "Failed to read logs" in row["output"]
    scene.stop()


def test_answer_500_for_the_feedback(scene):
    """One such answer is not the job's fault: the file is there."""
    scene.proxy.answer(CALLS["archive"], 500)
    scene.start()
    row = scene.finishes(scene.job())
    assert row["feedback"]["steps"]
    scene.stop()


def looks(scene):
    return scene.proxy.count(r"^GET /(images|networks|volumes)/")


def waits_untouched(scene, job, what):
    """It was looked for before the first claim: the job is never claimed while that is missing."""
    scene.wait_for_word(f"the engine has no {what}: no job that needs it is claimed until it has")
    before = looks(scene)
    scene.worker.wait_for(lambda: looks(scene) >= before + 4, "two looks")
    row = scene.row(job)
    assert (row["status"], row["container_id"], row["feedback"]) == ("pending", "", None), "claimed meanwhile"
    assert scene.said(f"the engine has no {what}") == 1 and scene.containers(job) == []


def waits_uncounted(scene, job, what):
    """The job has gone back with nothing counted against it, and is not claimed again while that is missing: it is
    asked for, again and again, and others' jobs are let go by."""
    scene.wait_for_word(f"the engine has no {what}: no job that needs it is claimed until it has")
    row = scene.worker.wait_for(
        lambda: (r := scene.row(job))["status"] == "pending" and r["feedback"] and r, "the job's return"
    )
    note = row["feedback"]["qfc_worker"]
    assert (note["attempts"], note["faults"], note["reasons"]) == (1, 0, []), note
    before = looks(scene)
    scene.worker.wait_for(lambda: looks(scene) >= before + 4, "two looks")
    assert scene.row(job) == row, "claimed meanwhile"
    assert scene.said(f"the engine has no {what}:") == 1 and scene.containers(job) == []


def appears_later(scene, job, what, make, remove):
    waits_untouched(scene, job, what)
    make()
    try:
        scene.wait_for_word(f"{what} is there again")
        scene.finishes(job)
        assert scene.starts(job) == 1
        scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
        scene.stop()
    finally:
        remove()


def test_image_that_appears_later(scene, ground):
    name = f"qfc-bed-late:{ground.session}"
    images = {"QFIELDCLOUD_QGIS_IMAGE_NAME": name, "QFIELDCLOUD_QGIS3_IMAGE_NAME": name}
    scene.start(RETRY_MAX_ATTEMPTS="1", **images)
    make, remove = scene.docker.tag, scene.docker.remove_image
    appears_later(
        scene, scene.job(), f"image {name}", lambda: make(ground.image, *name.split(":")), lambda: remove(name)
    )


def test_network_that_appears_later(scene, ground):
    name = f"qfc-bed-late-{ground.session}"
    scene.start(RETRY_MAX_ATTEMPTS="1", QFIELDCLOUD_DEFAULT_NETWORK=name)
    make, remove = scene.docker.create_network, scene.docker.remove_network
    appears_later(scene, scene.job(), f"network {name}", lambda: make(name), lambda: remove(name))


GRIDS = "QFIELDCLOUD_TRANSFORMATION_GRIDS_VOLUME_NAME"


def test_volume_that_appears_later(scene, ground):
    """An engine would make it by itself, empty, and the job would go wrong without a word."""
    name = f"qfc-bed-late-{ground.session}"
    scene.start(RETRY_MAX_ATTEMPTS="1", **{GRIDS: name})
    make, remove = scene.docker.create_volume, scene.docker.remove_volume
    job = scene.job()
    appears_later(scene, job, f"volume {name}", lambda: make(name), lambda: remove(name))


def test_volume_that_goes_unnoticed(scene, ground):
    """The engine tells nothing of it, and a minute is not over: each container is preceded by a look."""
    name = f"qfc-bed-late-{ground.session}"
    scene.docker.create_volume(name)
    scene.proxy.answer("^GET /events", 403, times=None)
    scene.start(RETRY_MAX_ATTEMPTS="1", **{GRIDS: name})
    try:
        scene.another_finishes()
        scene.docker.remove_volume(name)
        job = scene.job()
        waits_uncounted(scene, job, f"volume {name}")
        assert scene.docker.volumes(name=[name]) == []
        scene.docker.create_volume(name)
        scene.finishes(job)
        scene.stop()
    finally:
        scene.docker.remove_volume(name)


@pytest.mark.parametrize(
    "what, told", [("image", "create"), ("network", "start"), ("network", "create")], ids=lambda value: value
)
def test_removed_just_before(scene, ground, what, told):
    """It was there when it was looked for. A single attempt is allowed: this one does not count. Of a network Docker
    tells at the start, when the row says `started` already."""
    name = ground.image if what == "image" else ground.network
    scene.proxy.answer("^GET /events", 403, times=None)  # what others do to the engine would make it look
    scene.start(RETRY_MAX_ATTEMPTS="1", QFIELDCLOUD_DEFAULT_NETWORK=ground.network)
    scene.another_finishes()
    words = "No such image: x" if what == "image" else f"network {name} not found"
    gone = scene.proxy.answer(CALLS[told], 404, json.dumps({"message": words}).encode())
    job = scene.job()
    scene.worker.wait_for(lambda: gone.used, "the engine's refusal")
    scene.proxy.answer(f"^GET /{what}s/", 404, times=None)  # before the next look, which comes after two seconds
    waits_uncounted(scene, job, f"{what} {name}")
    scene.proxy.behave()
    scene.wait_for_word(f"{what} {name} is there again")
    assert "qfc_worker" not in scene.finishes(job)["feedback"]
    assert scene.starts(job) == 1
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    scene.stop()


@pytest.mark.parametrize("database", ["v26.25"], indirect=True)
def test_one_of_two_images_is_missing(scene, ground, database):
    """What needs the other one goes on."""
    scene.start(QFIELDCLOUD_QGIS4_IMAGE_NAME="no-such")
    project = database.project(qgis_file="offline.qgs", files=(), qgis_version="4.0.1")
    waiting = database.job(project, "package")
    waits_untouched(scene, waiting, "image no-such")
    row = scene.row(waiting)
    assert scene.another_finishes() and scene.another_finishes()
    assert scene.row(waiting) == row, "claimed meanwhile"
    scene.stop()


def test_engine_away_while_a_container_runs(scene):
    """For longer than a few tries: it is said once, the container lives on, and what it has done counts."""
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    rule = scene.proxy.cut("", "before", times=None)
    scene.proxy.hang_up()
    scene.worker.wait_for(lambda: rule.used >= 8, "eight tries")
    told = [message for message in scene.log("error") if NOT_CLAIMING in message]
    scene.let_go(container)
    scene.docker.wait(container)
    scene.proxy.behave()
    scene.finishes(job)
    assert scene.starts(job) == 1
    scene.another_finishes()
    scene.stop()
    assert len(told) == 1, "\n".join(told)


@pytest.mark.parametrize("call", ["logs", "archive", "delete"])
def test_engine_away_after_the_end(scene, call):
    """An engine that is restarted takes a few seconds: the log, the feedback and the removal wait for it."""
    hold = scene.proxy.hold(CALLS[call])
    scene.start(LOGLEVEL="debug")
    job = scene.job()
    hold.reached()
    scene.proxy.down()
    hold.release()
    step = {"logs": "logs", "archive": "feedback", "delete": "remove"}[call]
    scene.worker.wait_for(
        lambda: scene.said(f"{step}: again") >= 6 or scene.said(f"{step}: spent"), "six tries without an engine", 20
    )
    scene.proxy.up()
    row = scene.finishes(job)
    assert row["output"].startswith("::<<<::") and row["feedback"]["steps"]
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal", 20)
    scene.stop()


def test_engine_away_before_the_start(scene):
    """The job goes back at once, uncounted. The container may have been created: it is removed when the engine is
    back."""
    hold = scene.proxy.hold_answer(CALLS["create"])
    scene.start(RETRY_MAX_ATTEMPTS="1")
    job = scene.job()
    hold.reached()
    scene.proxy.down()
    hold.release()
    scene.wait_for_word("no socket there")
    scene.wait_for_word("put back package")
    assert scene.row(job)["status"] == "pending" and len(scene.containers(job)) == 1
    scene.proxy.up()
    scene.finishes(job)
    assert scene.starts(job) == 1
    scene.worker.wait_for(lambda: not scene.containers(job), "the removal of what was created", 20)
    scene.stop()


def test_engine_that_is_being_stopped(scene):
    """It takes no more connections, but answers on over those that it has, and does things by half. After its first
    refusal nothing more is asked of it before it is back."""
    scene.start()
    scene.another_finishes()  # by now there are connections
    hold = scene.proxy.hold(CALLS["start"])
    scene.proxy.answer(CALLS["start"], 500)
    job = scene.job()
    hold.reached()
    removals = scene.proxy.count(CALLS["delete"])
    path = scene.proxy.socket_path
    os.rename(path, f"{path}.closed")
    hold.release()
    scene.wait_for_word("no socket there")
    assert scene.proxy.count(CALLS["delete"]) == removals and len(scene.containers(job)) == 1
    os.rename(f"{path}.closed", path)
    scene.finishes(job)
    assert scene.starts(job) == 1
    scene.worker.wait_for(lambda: not scene.containers(job), "the removal of both containers")
    scene.stop()


def test_engine_killed_under_a_running_job(own_scene):
    """One job runs and one waits. The machine takes engine and container along; the program waits for the engine, puts
    the job back, and does both."""
    scene, engine = own_scene, own_scene.ground.engine
    scene.start()
    job, later = scene.job("gate.qgs"), scene.job()
    container = scene.running(job)
    engine.kill()
    engine.end_survivors()
    scene.wait_for_word(NOT_CLAIMING)
    engine.start()
    again = scene.worker.wait_for(
        lambda: [c["Id"] for c in scene.containers(job) if c["State"] == "running" and c["Id"] != container],
        "the second attempt",
    )[0]
    scene.let_go(again)
    scene.finishes(job)
    scene.finishes(later)
    output = scene.stop()
    assert any("put back" in message for message in output.messages("warning", job)), str(output)
    assert scene.containers(job) == []


def test_engine_stopped_under_a_running_job(own_scene):
    """A service manager stops and starts it. The engine kills the container, says so, and is gone a moment later: that
    was no kill from outside, so the job goes back. What waits is done when the engine is back."""
    scene, engine = own_scene, own_scene.ground.engine
    scene.start()
    job, later = scene.job("gate.qgs"), scene.job()
    container = scene.running(job)
    engine.stop()
    scene.wait_for_word(NOT_CLAIMING)
    engine.start()
    again = scene.worker.wait_for(
        lambda: [c["Id"] for c in scene.containers(job) if c["State"] == "running" and c["Id"] != container],
        "the second attempt",
    )[0]
    scene.let_go(again)
    scene.finishes(job)
    scene.finishes(later)
    assert any("the engine went away" in message for message in scene.log("warning", job))
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    output = scene.stop()
    assert "ENGINE_LOST" in {line.get("reason") for line in output.lines}, str(output)
