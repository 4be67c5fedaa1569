"""Jobs whose worker dies, hangs or loses its way: another one takes them over, and each ends once with the truth."""

import signal

import pytest

NEWEST = pytest.mark.parametrize("database", ["v26.25"], indirect=True)


def start_another(scene, *args, **env):
    """A second worker beside the scene's."""
    return scene.worker.start("run", *args, **env)


def kill(process, number=signal.SIGKILL):
    process.send(number)
    if number == signal.SIGKILL:
        process.process.wait()


@NEWEST
@pytest.mark.parametrize("running", [True, False], ids=["already running", "started later"])
def test_a_running_job_is_taken_over(scene, running):
    job = scene.job("gate.qgs")
    first = scene.start()
    container = scene.running(job)
    second = start_another(scene) if running else None
    kill(first)
    second = second or start_another(scene)
    scene.worker.wait_for(lambda: second.output().messages("warning", job), "the takeover")
    scene.let_go(container)
    row = scene.finishes(job)
    assert row["status"] == "finished" and row["container_id"] == container
    assert "qfc_worker" not in row["feedback"] and row["feedback"]["container_exit_code"] == 0
    assert scene.starts(job) == 1
    scene.wait_until_gone(container)
    assert scene.tokens() == []
    assert second.stop().returncode == 0


@NEWEST
def test_a_job_that_ended_while_its_worker_was_dead(scene):
    job = scene.job("gate.qgs")
    first = scene.start()
    container = scene.running(job)
    kill(first)
    scene.let_go(container)
    second = start_another(scene)
    row = scene.finishes(job)
    assert row["status"] == "finished" and scene.starts(job) == 1
    assert row["docker_finished_at"] < row["finished_at"]
    scene.wait_until_gone(container)
    assert second.stop().returncode == 0


@NEWEST
def test_a_hung_worker_writes_nothing_when_it_wakes(scene):
    """Its sessions are ended after 20 s of silence; another one has the job by then."""
    job = scene.job("gate.qgs")
    first = scene.start()
    container = scene.running(job)
    second = start_another(scene)
    kill(first, signal.SIGSTOP)
    scene.worker.wait_for(lambda: second.output().messages("warning", job), "the takeover")
    scene.let_go(container)
    row = scene.finishes(job)
    kill(first, signal.SIGCONT)
    scene.worker.wait_for(lambda: "connected to the database again" in first.output().stderr, "its return")
    scene.another_finishes()
    assert scene.row(job) == row and scene.starts(job) == 1
    assert first.stop().returncode == 0 and second.stop().returncode == 0


@NEWEST
def test_a_job_left_at_the_end_of_the_grace(scene):
    job = scene.job("gate.qgs")
    first = scene.start(QFC_WORKER_STOP_GRACE_S="1")
    container = scene.running(job)
    first.send(signal.SIGTERM)
    assert first.wait(20).returncode == 0
    assert scene.row(job)["status"] == "started" and not scene.is_gone(container)
    second = start_another(scene)
    scene.worker.wait_for(lambda: second.output().messages("warning", job), "the takeover")
    scene.let_go(container)
    assert scene.finishes(job)["status"] == "finished" and scene.starts(job) == 1
    assert second.stop().returncode == 0


@NEWEST
def test_a_time_limit_that_was_over_before_the_machine_was_started(scene, database):
    """The heir's clock counts from there: the engine may be elsewhere, and may have been up for longer."""
    job = scene.job("gate.qgs")
    first = scene.start()
    container = scene.running(job)
    kill(first)
    database.update("core_job", job["id"], started_at=database.value("SELECT now() - interval '20 years'"))
    second = start_another(scene, QFIELDCLOUD_WORKER_TIMEOUT_S=str(7 * 24 * 3600))
    row = scene.wait_for(job, "finished", "failed")
    assert row["status"] == "failed" and row["feedback"]["error_type"] == "TIMEOUT", row
    assert row["container_id"] == container
    scene.wait_until_gone(container)
    assert second.stop().returncode == 0


# What goes back is free for all at once


def start_elsewhere(scene):
    """A second worker, whose engine answers."""
    return start_another(scene, DOCKER_HOST=scene.ground.engine.host)


@NEWEST
def test_put_back_and_not_tidied_up_yet(scene):
    """Its worker is still at the container. Another one runs the job, and what is younger does not wait for that."""
    scene.proxy.answer(r"^POST /containers/\w+/start", 500)
    hold = scene.proxy.hold(r"^DELETE /containers/")
    first = scene.start()
    job = scene.job()
    hold.reached()
    later = scene.job()
    second = start_elsewhere(scene)
    scene.finishes(later)
    scene.finishes(job)
    assert scene.starts(job) == 1
    hold.release()
    scene.worker.wait_for(lambda: not scene.containers(job), "the removal of both containers")
    assert first.stop().returncode == 0 and second.stop().returncode == 0


@NEWEST
def test_claimed_by_a_worker_whose_engine_goes_away(scene):
    """A worker on another engine has the job at once; what the first one has created goes when its engine is back."""
    hold = scene.proxy.hold_answer(r"^POST /containers/create")
    first = scene.start()
    job = scene.job()
    hold.reached()
    scene.proxy.down()
    hold.release()
    second = start_elsewhere(scene)
    row = scene.finishes(job)
    assert scene.starts(job) == 1
    created = [c["Id"] for c in scene.containers(job) if c["Id"] != row["container_id"]]
    assert len(created) == 1 and scene.row(job) == row
    scene.proxy.up()
    scene.worker.wait_for(lambda: not scene.containers(job), "the removal of what was created")
    assert first.stop().returncode == 0 and second.stop().returncode == 0


# What is left without any worker


def patient(scene):
    """A worker whose waits of a minute are two seconds."""
    return scene.start(QFC_TEST_HURRY="30")


@NEWEST
def test_a_job_that_is_queued_without_anybodys_mark(scene, database):
    """Its project was blocked for ever. What QFieldCloud's own worker has started is left to its own task."""
    project = database.project(qgis_file="offline.qgs", files=())
    stuck = database.job(project, "package", "queued")
    behind = database.job(project, "package")
    others = scene.job(status="started", started_at="2026-01-01T00:00:00Z", container_id="0123456789ab")
    before = scene.row(others)
    patient(scene)
    assert scene.finishes(stuck)["status"] == "finished" and scene.finishes(behind)["status"] == "finished"
    assert any("queued for a minute" in message for message in scene.log("warning", stuck))
    assert scene.row(others) == before
    scene.stop()


@NEWEST
def test_a_job_on_another_engine(scene, database):
    """It is left alone until its time is over; then its deltas are decided, too."""
    project = database.project(qgis_file="offline.qgs", files=())
    delta = database.delta(project, status="started")
    job = database.apply_job(project, [delta])
    mark = {"worker": "qfc-worker:00000000000000aa:elsewhere", "engine": "AAAA:BBBB", "attempts": 1}
    started = {"status": "started", "container_id": "ab" * 32, "feedback": {"qfc_worker": mark}}
    database.update("core_job", job["id"], started_at=database.value("SELECT now() - interval '1 hour'"), **started)
    young = scene.job(**started, started_at=database.value("SELECT now()"))
    before = scene.row(young)
    scene.start(QFIELDCLOUD_WORKER_TIMEOUT_S="600")
    row = scene.wait_for(job, "finished", "failed")
    assert row["status"] == "failed" and row["feedback"]["error_type"] == "ENGINE_LOST"
    assert "another engine (AAAA:BBBB)" in row["output"] and row["finished_at"]
    assert database.get("core_delta", delta["id"])["last_status"] == "error"
    scene.another_finishes()
    assert scene.row(young) == before
    scene.stop()


@NEWEST
def test_the_story_of_all_attempts(scene, database):
    trail = {"attempts": 4, "faults": 4, "reasons": ["the disk was full", "and full again"]}
    job = scene.job(feedback={"qfc_worker": trail})
    scene.proxy.answer(r"^POST /containers/create", 500, {"message": "the disk is full"}, times=None)
    scene.start()
    row = scene.wait_for(job, "finished", "failed")
    assert row["status"] == "failed"
    assert "1. the disk was full\n2. and full again" in row["output"], row["output"]
    scene.stop()


@pytest.fixture
def lying(ground, database, scene):
    """Containers that lie about: name -> id, and whether they are to stay."""
    scene.worker.env["QFIELDCLOUD_DEFAULT_NETWORK"] = ground.network
    patient(scene)
    job = scene.job("gate.qgs")
    running = scene.running(job)
    labels = scene.docker.inspect(running)["Config"]["Labels"]
    dead = labels | {"qfc_worker": "qfc-worker:00000000000000aa:dead"}
    own = {name: labels[name] for name in ("app", "type", "project_id")}
    unknown, ended = "00000000-0000-0000-0000-000000000001", scene.job(status="failed", finished_at="2026-01-01T00:00:00Z")

    def make(labels, job_id, network=ground.network):
        network = {"HostConfig": {"NetworkMode": network}}
        return scene.docker.create(ground.image, ["sleep", "600"], Labels=labels | {"job_id": str(job_id)}, **network)

    gone = {
        "ours, its job over": make(dead, ended["id"]),
        "ours, its job unknown": make(dead, unknown),
        "ours, of another attempt": make(dead, job["id"]),
        "QFieldCloud's, its job unknown": make(own, unknown),
        "QFieldCloud's, its job over": make(own, ended["id"]),
    }
    kept = {
        "the one that runs": running,
        "another stack's": make(dead | {"qfc_stack": "other/prod/1-2"}, unknown),
        "QFieldCloud's on another network": make(own, unknown, "none"),
        "QFieldCloud's, its job active": make(own, job["id"]),
        "another environment's": make(dead | {"app": "other_worker"}, unknown),
    }
    yield gone, kept
    scene.let_go(running)
    scene.wait_for(job, "finished", "failed")
    scene.stop()
    for container in [*gone.values(), *kept.values()]:
        scene.docker.remove(container)


@NEWEST
def test_containers_that_nobody_needs(scene, lying):
    gone, kept = lying
    for name, container in gone.items():
        scene.worker.wait_for(lambda container=container: scene.is_gone(container), f"the end of {name}")
    assert [name for name, container in kept.items() if scene.is_gone(container)] == []


@NEWEST
def test_volumes_that_no_container_has(scene):
    """As an engine leaves them that dies while it makes or removes a container; those of a container that runs stay,
    and another stack's."""
    patient(scene)
    job = scene.job("gate.qgs")
    running = scene.docker.inspect(scene.running(job))
    labels = running["Config"]["Labels"]
    used = [mount["Name"] for mount in running["Mounts"]]
    assert {scene.docker.get(f"/volumes/{name}")["Labels"]["qfc_stack"] for name in used} == {labels["qfc_stack"]}
    lost = scene.docker.create_volume(qfc_stack=labels["qfc_stack"])
    other = scene.docker.create_volume(qfc_stack=labels["qfc_stack"] + "-2")

    def left(*names):
        return {volume["Name"] for volume in scene.docker.volumes()} & set(names)

    scene.worker.wait_for(lambda: not left(lost), "the end of the volume")
    assert left(other, *used) == {other, *used}
    scene.docker.remove_volume(other)
    scene.let_go(running["Id"])
    scene.finishes(job)
    scene.stop()
