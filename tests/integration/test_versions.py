"""The program with engines of all versions from Docker 20.10 to 29, as far as their API differs: they are played."""

import json

import pytest
from bed.fast_engine import Script
from bed.versions import DOCKER, VersionedEngine, number
from matrix_feedback import DETAILS, feedback

NEWEST_READ = "1.47"  # what is spoken where the engine does not ask for a newer one


@pytest.fixture
def scene(make_worker, database, ground, tmp_path):
    """Makes a played engine and the program for it."""
    made = []

    def make(api, oldest):
        engine = VersionedEngine(str(tmp_path), api, oldest)
        made.append(engine)
        worker = make_worker(database, ground)
        worker.env.update(DOCKER_HOST=engine.host, RETRY_BASE_DELAY_SECONDS="0", QFC_WORKER_POLL_MS="100")
        return engine, worker

    yield make
    for engine in made:
        engine.close()
        assert engine.failures == []


def scripted(engine, database, job_type, exit_code=0, **script):
    """A job, and what its container does."""
    project = database.project(qgis_file="project.qgs", files=())
    job = database.job(project, job_type)
    said = json.dumps(feedback(job_type, details=DETAILS)).encode() if exit_code == 0 else None
    engine.scripts[str(job["id"])] = Script(exit_code=exit_code, log=b"::<<<::1 a line\n", feedback=said, **script)
    return job


def check_jobs(engine, worker, database, api):
    """Whole jobs: one that is good, one that is not, one that is killed, and one whose container is refused first."""
    good = scripted(engine, database, "process_projectfile")
    crash = scripted(engine, database, "package", exit_code=139)
    again = scripted(engine, database, "package", refuse_creates=1, refuse_starts=1)
    late = scripted(engine, database, "package", run_s=60)
    output = worker.run("run", "--drain", QFIELDCLOUD_WORKER_TIMEOUT_S="2", QFC_WORKER_CONCURRENCY="4")
    assert output.returncode == 0, output
    rows = [database.get("core_job", job["id"]) for job in (good, crash, again, late)]
    assert [row["status"] for row in rows] == ["finished", "failed", "finished", "failed"], output
    assert rows[0]["output"] == "::<<<::1 a line\n"
    assert rows[1]["feedback"]["container_exit_code"] == 139
    assert rows[3]["feedback"]["error_type"] == "TIMEOUT"
    assert engine.unplayed == [] and engine.spoken == {api}
    assert not engine.containers.by_id, "a container is left"


@pytest.mark.parametrize("docker", DOCKER)
def test_whole_jobs(scene, database, docker):
    api, oldest = DOCKER[docker]
    engine, worker = scene(api, oldest)
    check_jobs(engine, worker, database, min(api, NEWEST_READ, key=number))


def test_an_engine_that_no_longer_speaks_our_favourite(scene, database):
    engine, worker = scene("1.60", "1.50")
    check_jobs(engine, worker, database, "1.50")


@pytest.mark.parametrize(
    "api, oldest, said",
    [("1.39", "1.12", "is too old: it speaks API 1.39 at most"), ("1.90", "1.80", "is too new: it speaks API 1.80")],
)
def test_an_engine_that_cannot_be_spoken_to(scene, database, api, oldest, said):
    engine, worker = scene(api, oldest)
    job = scripted(engine, database, "package")
    output = worker.run("run", "--drain")
    assert output.returncode == 3, output
    assert any(said in message for message in output.messages("error")), output
    assert database.get("core_job", job["id"])["status"] == "pending"


@pytest.mark.parametrize("before, after", [("20.10", "29.0"), ("29.0", "20.10")])
def test_another_engine_in_its_place(scene, database, before, after):
    """Upgraded, or taken back, under a running worker."""
    engine, worker = scene(*DOCKER[before])
    process = worker.start("run")
    first = scripted(engine, database, "package")
    worker.wait_for_status(first, "finished")
    engine.become(*DOCKER[after])
    second = scripted(engine, database, "package")
    worker.wait_for_status(second, "finished")
    output = process.stop()
    assert output.returncode == 0, output
    assert database.get("core_job", second["id"])["feedback"]["steps"]
    assert engine.spoken == {min(DOCKER[name][0], NEWEST_READ, key=number) for name in (before, after)}
