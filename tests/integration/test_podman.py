"""Whole jobs on podman's Docker socket: what differs there, and a selection of the tests that run on Docker elsewhere.

`QFC_TEST_ENGINE=podman tests/run PART` runs any part on podman.
"""

import os
import subprocess
import sys

import pytest
from bed.ground import Ground
from bed.image import REPOSITORY, root_file_system
from bed.podman import Podman

# pylint: disable=unused-import
from test_confinement import test_confined_by_default  # noqa: F401
from test_deletion import test_deleted_while_the_container_runs  # noqa: F401
from test_deltas import test_a_delta_that_the_feedback_does_not_mention  # noqa: F401
from test_engine_faults import (  # noqa: F401
    NOT_CLAIMING,
    test_image_that_appears_later,
    test_network_that_appears_later,
)
from test_package import (  # noqa: F401
    run_one,
    test_crash,
    test_deadline,
    test_dirty_log,
    test_success,
    test_usage_error,
)
from test_recovery import test_a_job_that_ended_while_its_worker_was_dead  # noqa: F401
from test_signals import test_kill_from_outside, test_pruned_before_the_start, test_removed_from_outside  # noqa: F401

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture(scope="module")
def engine():
    made = Podman()
    yield made
    made.close()


@pytest.fixture
def own_ground():
    """On a podman that only this test has."""
    own = Podman()
    try:
        made = Ground(own)
        yield made
        if own.docker.answers():
            made.close()
    finally:
        own.close()


# What a start can end in


@pytest.fixture
def image_that_runs(ground):
    """Makes an image of the stand-in's files with this entry point; returns its name."""
    made = []

    def make(entrypoint):
        tag = f"{ground.session}-{len(made)}"
        ground.docker.import_image(root_file_system(), REPOSITORY, tag, [f'ENTRYPOINT ["{entrypoint}"]'])
        made.append(f"{REPOSITORY}:{tag}")
        return made[-1]

    yield make
    for name in made:
        ground.docker.remove_image(name)


@pytest.mark.parametrize("entrypoint, said", [("/no/such", "no such file"), ("/etc/passwd", "permission denied")])
def test_what_cannot_be_executed(database, worker, image_that_runs, entrypoint, said):
    """Docker: 400 at the start, exit codes 127 and 126."""
    image = image_that_runs(entrypoint)
    job = database.job(database.project(qgis_file="offline.qgs"), "package")
    output = worker.run("run", "--drain", QFIELDCLOUD_QGIS3_IMAGE_NAME=image, RETRY_BASE_DELAY_SECONDS="0")
    row = database.get("core_job", job["id"])
    assert row["status"] == "failed" and said in row["feedback"]["error"], output
    assert "the engine answered 400" in row["feedback"]["error"], row["feedback"]


@pytest.mark.parametrize("plays, code", [("out_of_memory.qgs", 137), ("out_of_memory_child.qgs", 1)])
def test_out_of_memory(scene, database, plays, code):
    """Before 5.0 podman does not see that it was for memory, so to us it is a kill from outside, or a failure."""
    database.constance("WORKER_QGIS_MEMORY_LIMIT", "20m")
    scene.start()
    row = scene.wait_for(scene.job(plays), "failed")
    assert row["feedback"]["container_exit_code"] == code, row["feedback"]
    scene.another_finishes()
    scene.stop()


# After a boot of the machine


@pytest.mark.parametrize("job_type", ["package", "delta_apply"])
def test_a_boot_under_a_running_job(own_scene, job_type):
    """Podman calls such a container `created` (4.x) or `exited` with code 0 (5.x). It has run: what must not run twice
    is lost, and what may is made again."""
    scene, podman = own_scene, own_scene.ground.engine
    project = scene.database.project(qgis_file="gate.qgs", files=())
    scene.start()
    job = scene.database.job(project, job_type)
    container = scene.running(job)
    podman.kill()
    podman.end_survivors()
    scene.wait_for_word(NOT_CLAIMING)
    podman.forget_boot()
    podman.start()
    if job_type == "package":
        again = scene.running(job)
        assert again != container
        scene.let_go(again)
        scene.finishes(job)
    else:
        row = scene.wait_for(job, "failed")
        assert row["feedback"].get("error_type") in ("ENGINE_LOST", "HOST_REBOOTED"), (row["feedback"], row["output"])
    scene.worker.wait_for(lambda: not scene.containers(job), "the container's removal")
    scene.stop()


# All of it


@pytest.mark.long
@pytest.mark.parametrize("part", ["package", "deltas", "deletion", "signals", "engine_faults", "recovery",
                                  "container", "told_apart", "image_backup"])  # fmt: skip
def test_a_whole_part(part):
    """What is known to differ is left out: podman follows a symbolic link within the container, and says nothing of
    memory."""
    known = "not (out_of_memory or (feedback_that_cannot_be_read and symlink))"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", f"{HERE}/../pytest.ini", "--rootdir",
         f"{HERE}/..", "-k", known, f"{HERE}/test_{part}.py"],
        env={**os.environ, "QFC_TEST_ENGINE": "podman"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-8000:]
