"""/io through TMP_DIRECTORY, a directory that program and engine share: quicker, as safe, and done without where it is
not shared after all."""

import os
import stat

import pytest

ARCHIVES = r"^(PUT|GET) /containers/\w+/archive"


@pytest.fixture
def shared(tmp_path):
    path = tmp_path / "shared"
    path.mkdir()
    return path


def left(shared):
    """What lies in the directory but for the one that holds all of them."""
    return [name for base in shared.iterdir() for name in os.listdir(base)]


def deltas_job(scene, plays="offline.qgs"):
    return scene.database.job(scene.database.project(qgis_file=plays, files=()), "delta_apply")


def test_files_go_through_it(scene, shared):
    """In and out, without a call of the archive API; nobody else may enter, and nothing is left."""
    scene.start(TMP_DIRECTORY=str(shared))
    job = scene.job("gate.qgs")
    container = scene.running(job)
    mounts = {mount["Destination"]: mount for mount in scene.docker.inspect(container)["Mounts"]}
    assert mounts["/io"]["Type"] == "bind" and mounts["/io"]["Source"].startswith(f"{shared}/qfc-worker-")
    (base,) = shared.iterdir()
    assert stat.S_IMODE(base.stat().st_mode) == 0o700
    calls = scene.proxy.count(ARCHIVES)
    with open(os.path.join(mounts["/io"]["Source"], "go"), "wb"):
        pass
    assert scene.finishes(job)["feedback"]["steps"]
    deltas = scene.wait_for(deltas_job(scene, "show_deltafile.qgs"), "finished", "failed")
    assert "eyJkZWx0YXMi" in deltas["output"], deltas["output"]
    assert scene.proxy.count(ARCHIVES) == calls == 0
    scene.worker.wait_for(lambda: not left(shared), "the directories' removal")
    scene.stop()


def test_a_directory_that_only_the_program_has(scene, shared):
    """Said once, and no job suffers: files go through the engine's API."""
    plain = scene.worker.command
    script = f'mount -t tmpfs none {shared} && exec "$0" "$@"'
    scene.worker.command = lambda *args: ["unshare", "-m", "sh", "-c", script, *plain(*args)]
    scene.start(TMP_DIRECTORY=str(shared), RETRY_MAX_ATTEMPTS="1")
    scene.another_finishes()
    scene.wait_for(deltas_job(scene), "finished", "failed")
    assert scene.said("TMP_DIRECTORY is not used") == 1
    assert scene.proxy.count(ARCHIVES) >= 2
    assert left(shared) == []
    scene.stop()


def test_a_directory_that_somebody_else_has_made(scene, shared):
    """As anybody could in /tmp: it is not trusted."""
    scene.start(TMP_DIRECTORY=str(shared))
    scene.another_finishes()
    (base,) = shared.iterdir()
    base.chmod(0o777)
    scene.another_finishes()
    assert scene.said("it is not this user's alone") == 1
    assert scene.proxy.count(ARCHIVES) == 1
    scene.stop()


@pytest.mark.parametrize(
    "plays, reason",
    [
        ("symlink_feedback.qgs", "symbolic link"),
        ("fifo_feedback.qgs", "regular file"),
        ("directory_feedback.qgs", "directory"),
        ("broken_feedback.qgs", "feedback.json: line 1 column"),
        ("big_feedback@65.qgs", "larger than"),
        ("no_feedback.qgs", "left no /io/feedback.json"),
    ],
)
def test_what_a_container_leaves_is_not_trusted(scene, shared, plays, reason):
    """The same end as through the API, and no waiting at a fifo."""
    scene.start(TMP_DIRECTORY=str(shared))
    row = scene.wait_for(scene.job(plays), "finished", "failed")
    assert row["status"] == "failed" and reason in row["feedback"]["error"], row["feedback"]
    scene.worker.wait_for(lambda: not left(shared), "the directory's removal")
    scene.stop()


def test_a_job_that_a_worker_without_it_takes_over(scene, shared):
    """It asks the engine. The directory goes with the next worker that sees it."""
    job = scene.job("gate.qgs")
    first = scene.start(TMP_DIRECTORY=str(shared))
    container = scene.running(job)
    first.send(9)
    first.process.wait()
    second = scene.start()
    scene.let_go(container)
    assert scene.finishes(job)["feedback"]["steps"] and scene.starts(job) == 1
    scene.wait_until_gone(container)
    second.stop()
    assert len(left(shared)) == 1
    scene.start(TMP_DIRECTORY=str(shared), QFC_TEST_HURRY="100")
    scene.worker.wait_for(lambda: not left(shared), "the sweep")
    scene.stop()


def test_a_worker_that_is_not_root(scene, shared):
    """The container's root has no capabilities, and is not who owns the directory; and the other way round."""
    plain = scene.worker.command
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    scene.worker.command = lambda *args: prefix + plain(*args)
    os.chmod(scene.proxy.socket_path, 0o666)
    for path in (shared, *shared.parents[:3]):
        if str(path) != "/tmp":
            path.chmod(path.stat().st_mode | 0o755)
    os.chown(shared, 65534, 65534)
    scene.start(TMP_DIRECTORY=str(shared))
    assert scene.another_finishes()["feedback"]["steps"]
    deltas = scene.wait_for(deltas_job(scene, "show_deltafile.qgs"), "finished", "failed")
    assert "eyJkZWx0YXMi" in deltas["output"]
    assert scene.proxy.count(ARCHIVES) == 0
    scene.worker.wait_for(lambda: not left(shared), "the directories' removal")
    scene.stop()
