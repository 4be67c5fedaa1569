"""How a job can end, and that each way is told from the others: in its feedback, in its output, and in the log's field
`reason`; and what is to be done about it. After each of them the queue goes on."""

import json
import subprocess
import time

import pytest
from bed.image import root_file_system

pytestmark = pytest.mark.parametrize("database", ["v26.25"], indirect=True)


WATCHED_S = 3.5  # in that time the program has looked at its rows


def reasons(output, job):
    """The reasons that the log gives for what became of the job."""
    return {line["reason"] for line in output.lines if line.get("job") == str(job["id"]) and "reason" in line}


def delta_job(database, plays):
    """A job that must not run twice, and its delta."""
    project = database.project(qgis_file=plays, files=())
    delta = database.delta(project)
    return database.apply_job(project, [delta]), delta


@pytest.fixture
def drain(database, worker):
    """Runs one job and a good one behind it to the queue's end; returns the first one's row and the worker's output."""

    def run(plays, qgis_version="3.40", **env):
        env.setdefault("QFIELDCLOUD_DEFAULT_NETWORK", "none")
        job = database.job(database.project(qgis_file=plays, files=(), qgis_version=qgis_version), "package")
        good = database.job(database.project(qgis_file="offline.qgs", files=()), "package")
        output = worker.run("run", "--drain", **env)
        assert database.get("core_job", good["id"])["status"] == "finished", output
        return database.get("core_job", job["id"]), output

    return run


def check(row, output, reason, error_type, advice):
    assert row["status"] == "failed", output
    assert row["feedback"].get("error_type") == error_type, row["feedback"]
    assert reasons(output, row) == {reason}, output
    assert f"[QFC/Worker/{reason}]" in row["output"] and advice in row["output"], row["output"][-1000:]
    assert any(advice in message for message in output.messages("warning", row)), output


# What a job does to itself


@pytest.mark.parametrize("plays, code", [("out_of_memory", 137), ("out_of_memory_child", 1)])
def test_out_of_memory(drain, database, plays, code):
    database.constance("WORKER_QGIS_MEMORY_LIMIT", "20m")
    row, output = drain(f"{plays}.qgs")
    check(row, output, "OUT_OF_MEMORY", "OUT_OF_MEMORY", "Raise WORKER_QGIS_MEMORY_LIMIT")
    assert row["feedback"]["container_exit_code"] == code


def test_time_is_up(drain):
    row, output = drain("stubborn.qgs", QFIELDCLOUD_WORKER_TIMEOUT_S="2")
    check(row, output, "TIMEOUT", "TIMEOUT", "Raise WORKER_TIMEOUT_S")
    assert row["output"].endswith("\nTimeout error! The job failed to finish within 2 seconds!\n")


@pytest.mark.parametrize(
    "plays, reason, setting",
    [
        ("deny@write.qgs", "READ_ONLY", "QFC_WORKER_CONTAINER_READ_ONLY=0"),
        ("deny@mount.qgs", "NOT_PERMITTED", "QFC_WORKER_CONTAINER_DROP_CAPABILITIES=0"),
        ("deny@raw.qgs", "NOT_PERMITTED", "QFC_WORKER_CONTAINER_DROP_CAPABILITIES=0"),
        ("forks.qgs", "TOO_MANY_PROCESSES", "QFC_WORKER_CONTAINER_PROCESSES"),
    ],
)
def test_what_a_container_is_denied(drain, plays, reason, setting):
    row, output = drain(plays, QFC_WORKER_CONTAINER_PROCESSES="40")
    check(row, output, reason, None, setting)


def test_what_is_not_denied_any_more(drain):
    """With the setting the same job goes well."""
    row, output = drain("deny@write.qgs", QFC_WORKER_CONTAINER_READ_ONLY="0")
    assert row["status"] == "finished" and not reasons(output, row), output


def test_the_disk_is_full(make_worker, database, own_ground):
    """An engine whose disk has room for the image and little more."""
    data = f"{own_ground.engine.directory}/data/volumes"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=701", "none", data], check=True)
    worker = make_worker(database, own_ground)
    job = database.job(database.project(qgis_file="fill_disk@64.qgs", files=()), "package")
    good = database.job(database.project(qgis_file="offline.qgs", files=()), "package")
    output = worker.run("run", "--drain", QFIELDCLOUD_DEFAULT_NETWORK="none")
    row = database.get("core_job", job["id"])
    check(row, output, "OUT_OF_DISK", None, "docker system df")
    assert database.get("core_job", good["id"])["status"] == "finished", output
    assert own_ground.docker.volumes() == []


# What others do to it


def test_a_kill_from_outside(database, worker, ground):
    job = database.job(database.project(qgis_file="gate.qgs", files=()), "package")
    process = worker.start("run", "--single-shot", QFIELDCLOUD_DEFAULT_NETWORK="none")
    row = worker.wait_for_status(job, "started")
    worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container's start")
    ground.docker.kill(row["container_id"])
    output = process.wait()
    row = database.get("core_job", job["id"])
    check(row, output, "DOCKER_ENGINE_SIGKILL", "DOCKER_ENGINE_SIGKILL", "docker kill")
    assert row["feedback"]["error"] == "Docker engine sigkill."


def test_a_forced_removal(database, worker, ground):
    job, delta = delta_job(database, "gate.qgs")
    process = worker.start("run", "--single-shot", QFIELDCLOUD_DEFAULT_NETWORK="none")
    row = worker.wait_for_status(job, "started")
    worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container's start")
    ground.docker.remove(row["container_id"])
    output = process.wait()
    row = database.get("core_job", job["id"])
    check(row, output, "ENGINE_LOST", "ENGINE_LOST", "before it is started again")
    assert database.get("core_delta", delta["id"])["last_status"] == "error"


def cancel(database, job):
    """As `jobs cancel` asks for it."""
    database.execute(
        "UPDATE core_job SET feedback = jsonb_set(jsonb_set(coalesce(feedback, '{}'), '{qfc_worker}',"
        " coalesce(feedback -> 'qfc_worker', '{}')), '{qfc_worker,cancel}', 'true') WHERE id = %s",
        job["id"],
    )


def test_cancelled_while_it_runs(scene, database):
    job, delta = delta_job(database, "gate.qgs")
    scene.start()
    container = scene.running(job)
    cancel(database, job)
    row = scene.wait_for(job, "finished", "failed")
    assert row["status"] == "failed" and row["output"].startswith("::<<<::")
    assert (row["feedback"]["error"], row["feedback"]["error_type"]) == ("The job was cancelled.", "CANCELLED")
    assert "qfc_worker" not in row["feedback"]
    assert database.get("core_delta", delta["id"])["last_status"] == "error"
    scene.wait_until_gone(container)
    scene.another_finishes()
    assert reasons(scene.stop(), job) == {"CANCELLED"}


@pytest.mark.parametrize("call", [r"^POST /containers/create", r"^POST /containers/\w+/start"])
def test_cancelled_before_it_runs(scene, database, proxy, call):
    """It is asked for while the engine does not answer: the container is not started, or killed at once."""
    job = scene.job("gate.qgs")
    hold = proxy.hold(call)
    scene.start()
    hold.reached()
    cancel(database, job)
    time.sleep(WATCHED_S)
    hold.release()
    row = scene.wait_for(job, "finished", "failed")
    assert row["feedback"]["error_type"] == "CANCELLED", row["feedback"]
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    scene.another_finishes()
    scene.stop()


def test_cancelled_and_ended_meanwhile(scene, database, proxy):
    """What was done is done, and is said as it is."""
    job = scene.job("gate.qgs")
    scene.start()
    container = scene.running(job)
    hold = proxy.hold(r"^POST /containers/\w+/kill")
    cancel(database, job)
    hold.reached()
    scene.let_go(container)
    scene.docker.wait(container)
    hold.release()
    scene.finishes(job)
    scene.stop()


def test_deleted(scene, database):
    job = scene.job("gate.qgs")
    scene.start()
    container = scene.running(job)
    database.execute("DELETE FROM core_packagejob WHERE job_ptr_id = %s", job["id"])
    database.execute("DELETE FROM core_job WHERE id = %s", job["id"])
    scene.wait_until_gone(container)
    assert reasons(scene.stop(), job) == {"DELETED"}


def test_ended_by_somebody_else(scene, database):
    job = scene.job("gate.qgs")
    scene.start()
    container = scene.running(job)
    database.update("core_job", job["id"], status="failed", feedback={"error": "Job unexpectedly terminated."})
    scene.wait_until_gone(container)
    assert scene.row(job)["feedback"] == {"error": "Job unexpectedly terminated."}
    assert reasons(scene.stop(), job) == {"ENDED_ELSEWHERE"}


# What befalls the infrastructure


def test_the_host_goes_down_and_the_engine_is_stopped(own_scene, database):
    """Two jobs that must not run twice: each is told what took its container along."""
    scene, engine = own_scene, own_scene.ground.engine
    scene.start()
    first, _ = delta_job(database, "gate.qgs")
    scene.running(first)
    engine.kill()
    engine.end_survivors()
    engine.start()
    row = scene.wait_for(first, "finished", "failed")
    assert row["feedback"]["error_type"] == "HOST_REBOOTED", row["feedback"]
    second, _ = delta_job(database, "gate.qgs")
    scene.running(second)
    engine.stop()
    engine.start()
    row = scene.wait_for(second, "finished", "failed")
    assert row["feedback"]["error_type"] == "ENGINE_LOST", row["feedback"]
    scene.another_finishes()
    output = scene.stop()
    assert reasons(output, first) == {"HOST_REBOOTED"} and reasons(output, second) == {"ENGINE_LOST"}


@pytest.mark.parametrize("entrypoint", ["/no/such/program", "/etc/passwd"])
def test_an_image_that_cannot_run_the_program(drain, ground, entrypoint):
    """127 where it is missing, 126 where it is not executable."""
    name = f"{ground.session}-{entrypoint.rpartition('/')[2]}"
    image = f"qfc-bed-broken:{name}"
    ground.docker.import_image(root_file_system(), "qfc-bed-broken", name, [f"ENTRYPOINT {json.dumps([entrypoint])}"])
    try:
        row, output = drain("offline.qgs", "4.0", QFIELDCLOUD_QGIS4_IMAGE_NAME=image, RETRY_MAX_ATTEMPTS="1")
    finally:
        ground.docker.remove_image(image)
    check(row, output, "EXEC_FAILED", "EXEC_FAILED", "QFIELDCLOUD_QGIS3_IMAGE_NAME")
    assert entrypoint in row["feedback"]["error"]


@pytest.mark.parametrize(
    "call, words, reason",
    [
        (r"^POST /containers/create", "No such image: x:latest", "IMAGE_MISSING"),
        (r"^POST /containers/create", "network x not found", "NETWORK_MISSING"),
        (r"^POST /containers/\w+/start", "network x not found", "NETWORK_MISSING"),
    ],
)
def test_what_the_engine_lacks(database, worker, proxy, call, words, reason):
    """It was there when it was looked for. It is nobody's attempt: the job waits, and runs when it is there again."""
    worker.env["DOCKER_HOST"] = proxy.host
    proxy.answer(call, 404, {"message": words})
    job = database.job(database.project(qgis_file="offline.qgs", files=()), "package")
    process = worker.start("run", RETRY_MAX_ATTEMPTS="1")
    worker.wait_for_status(job, "finished")
    assert reasons(process.stop(), job) == {reason}
