"""The program behind a proxy that lets only the documented calls through, and what it says of one that is not."""

import pytest
from bed.allowed import AllowingProxy, listed
from conftest import Scene

CALLS = listed("calls")
OPTIONAL_CALLS = listed("optional calls")
IMAGE_CALLS = listed("image calls")


@pytest.fixture
def behind(make_worker, database, ground):
    """Makes the scene behind a proxy that allows these calls."""
    made = []

    def make(calls):
        made.append(AllowingProxy(ground.engine.socket_path, calls))
        return Scene(make_worker(database, ground), ground, database, made[-1])

    yield make
    for proxy in made:
        proxy.close()


def test_jobs_and_recovery_need_no_other_call(behind, ground):
    """A good job and a bad one, one that is over its time, one that is deleted, one whose worker is killed, a network
    that is missing for a while: and every call of the list is needed."""
    scene = behind(CALLS + OPTIONAL_CALLS)
    network = f"qfc-bed-late-{ground.session}"
    env = {"QFIELDCLOUD_WORKER_TIMEOUT_S": "20", "QFIELDCLOUD_DEFAULT_NETWORK": network, "RETRY_MAX_ATTEMPTS": "1"}
    first = scene.start(**env)
    late = scene.job()
    scene.wait_for_word("the engine has no network")
    scene.docker.create_network(network)
    try:
        scene.finishes(late)
        deltas = scene.database.job(scene.database.project(qgis_file="offline.qgs", files=()), "delta_apply")
        bad, deleted = scene.job("crash.qgs"), scene.job("gate.qgs")
        scene.wait_for(bad, "failed")
        scene.wait_for(deltas, "finished", "failed")
        container = scene.running(deleted)
        scene.database.execute("DELETE FROM core_packagejob WHERE job_ptr_id = %s", deleted["id"])
        scene.database.execute("DELETE FROM core_job WHERE id = %s", deleted["id"])
        scene.wait_until_gone(container)
        left = scene.job("gate.qgs")
        container = scene.running(left)
        first.send(9)
        first.process.wait()
        scene.start(**env)
        assert scene.wait_for(left, "failed")["feedback"]["error_type"] == "TIMEOUT"
        scene.another_finishes()
        scene.worker.wait_for(lambda: scene.proxy.count("^GET /containers/json"), "a look for what is left")
        scene.stop()
    finally:
        for container in scene.docker.containers(network=[network]):
            scene.docker.remove(container["Id"])
        scene.docker.remove_network(network)
    assert scene.proxy.refused == []
    assert set(CALLS) - scene.proxy.used <= {"GET /images/{name}/json"}  # which is for an image that is missing


def test_jobs_go_on_without_the_optional_calls(behind):
    """What they tell is not known then; jobs are done all the same."""
    scene = behind(CALLS)
    scene.start()
    scene.another_finishes()
    scene.stop()


def test_images_need_no_other_call(behind, tmp_path):
    scene = behind(CALLS + OPTIONAL_CALLS + IMAGE_CALLS)
    worker = scene.worker
    backups = {"QFC_WORKER_IMAGE_BACKUP_DIR": str(tmp_path)}
    for command in ("save", "restore"):
        output = worker.run("image", command, **backups)
        assert output.returncode == 0, output
    assert scene.proxy.refused == [] and "GET /images/{name}/get" in scene.proxy.used, scene.proxy.used


# Those that are asked when an image or a network is missing are left out: nothing else is, until they answer.
@pytest.mark.parametrize("call", [call for call in CALLS if "{name}" not in call])
def test_what_is_not_allowed_is_named(behind, call):
    """In the log, as the list has it; and once it is allowed, work goes on."""
    scene = behind([other for other in CALLS if other != call])
    kills = call.endswith("/kill")
    scene.start(QFIELDCLOUD_WORKER_TIMEOUT_S="4" if kills else "60", QFC_WORKER_CONCURRENCY="2")
    project = scene.database.project(qgis_file="sleep@60.qgs" if kills else "offline.qgs", files=())
    job = scene.database.job(project, "delta_apply")
    said = f"must allow {call} (docs/engines.md)"
    scene.worker.wait_for(lambda: scene.said(said), said)
    scene.proxy.allow(call)
    if kills:
        assert scene.wait_for(job, "failed")["feedback"]["error_type"] == "TIMEOUT"
    else:
        scene.another_finishes()
    scene.stop()
