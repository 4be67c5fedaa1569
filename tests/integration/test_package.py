"""One package job of each kind, end to end: what its row, its project and its package are afterwards, in an old and in
the newest release; and that the queue goes on after it."""

import json
import re

import pytest
from bed import cleanup
from bed.rows import changes

RELEASES = ["v25.30", "v26.25"]
BIG = 10**30

pytestmark = pytest.mark.parametrize("database", RELEASES, indirect=True)


@pytest.fixture
def run_one(database, worker):
    """Queues one job of a project that plays `qgis_file` and a good one behind it, drains the queue, checks that the good
    one went well, and returns the first one's row and the worker's output."""

    def run(qgis_file, timeout_s=None, **job):
        first = database.job(database.project(qgis_file=qgis_file, files=()), "package", **job)
        second = database.job(database.project(qgis_file="offline.qgs", files=()), "package")
        output = worker.run("run", "--drain", QFIELDCLOUD_WORKER_TIMEOUT_S=timeout_s)
        assert output.returncode == 0, output
        assert database.get("core_job", second["id"])["status"] == "finished", output
        return database.get("core_job", first["id"]), output

    return run


def check_times(row):
    """All times are there and in order; the container's id was kept."""
    assert row["created_at"] <= row["started_at"] <= row["docker_started_at"], row
    assert row["docker_started_at"] <= row["docker_finished_at"] <= row["finished_at"], row
    assert re.fullmatch("[0-9a-f]{64}", row["container_id"])


def check_failed(row, output, reason, **feedback):
    """Failed, with these members of the feedback and the reason in the log."""
    assert row["status"] == "failed", output
    assert {name: row["feedback"].get(name) for name in feedback} == feedback
    assert isinstance(row["feedback"].get("error_stack", ""), str)
    check_times(row)
    assert any(reason in message for message in output.messages("warning", row)), output


BY_WORKER = {"error_origin": "worker_wrapper", "error_class": "FeedbackError", "error_stack": ""}


def test_success(database, worker, api):
    """The package arrives, and exactly the columns that a package job writes have changed."""
    project = database.project(qgis_file="success.qgs", files=("data.gpkg", "a photo.jpg"))
    job = database.job(project, "package")
    before = database.dump()
    output = worker.run("run", "--drain")
    assert output.returncode == 0, output
    row = database.get("core_job", job["id"])
    assert row["status"] == "finished", output
    check_times(row)
    assert row["feedback"]["workflow_id"] == "package_project"
    assert row["feedback"]["container_exit_code"] == 0
    assert "error" not in row["feedback"] and "error_origin" not in row["feedback"]
    assert [step["stage"] for step in row["feedback"]["steps"]] == [2] * len(row["feedback"]["steps"])
    assert row["output"].startswith("::<<<::") and "Start QGIS Application" in row["output"]

    packaged = database.execute("SELECT name FROM filestorage_file WHERE package_job_id = %s", job["id"])
    assert len(packaged) == 2
    assert {request.token for request in api.requests} == {api.requests[0].token}
    assert len(api.requests[0].token) == 100 and api.requests[0].token.isalnum()

    changed = changes(before, database.dump())
    files = {table for table, _ in changed} - {"core_job", database.project_table}
    assert files == {"filestorage_file", "filestorage_fileversion"}
    columns = set(changed["core_job", str(job["id"])])
    assert columns == {
        "status", "output", "feedback", "started_at", "finished_at", "docker_started_at", "docker_finished_at",
        "container_id",
    }
    project_changes = changed[database.project_table, str(project["id"])]
    assert set(project_changes) == {"data_last_packaged_at"}
    after = database.get(database.project_table, project["id"])
    assert after["data_last_packaged_at"] == row["docker_started_at"]


def test_what_the_container_is_given(database, worker):
    database.constance("WORKER_QGIS_MEMORY_LIMIT", "300m")
    database.constance("WORKER_QGIS_CPU_SHARES", 300, bare=True)
    project = database.project(qgis_file="environment.qgs", packaging_offliner="pythonmini")
    job = database.job(project, "package")
    output = worker.run("run", "--drain")
    text = database.get("core_job", job["id"])["output"]
    assert re.findall("^ARGUMENT (.*)$", text, re.M)[-4:] == [
        "package", str(project["id"]), "environment.qgs", "pythonmini"
    ], output
    variables = dict(line.split("=", 1) for line in re.findall("^VARIABLE (.*)$", text, re.M))
    assert variables["JOB_ID"] == str(job["id"])
    assert variables["QFIELDCLOUD_URL"] == worker.env["QFIELDCLOUD_WORKER_QFIELDCLOUD_URL"]
    assert variables["QFIELDCLOUD_EXTRA_ENVVARS"] == "[]"
    assert variables["PGSERVICE_FILE_CONTENTS"] == ""
    assert variables["PROJ_DOWNLOAD_DIR"] == "/transformation_grids"
    assert variables["QT_QPA_PLATFORM"] == "offscreen"
    assert len(variables["QFIELDCLOUD_TOKEN"]) == 100
    assert f"MEMORY {300 * 1024 * 1024}" in text


def test_labels_limits_and_grids_of_the_container(database, worker, ground):
    """Seen while it runs, as QFieldCloud's own workers and an operator would see it."""
    volume = f"{ground.network}-grids"
    ground.docker.create_volume(volume)
    remove = cleanup.later(ground.docker.remove_volume, volume)
    database.constance("WORKER_QGIS_CPU_SHARES", 300)
    job = database.job(database.project(qgis_file="gate.qgs"), "package")
    process = worker.start("run", "--single-shot", QFIELDCLOUD_TRANSFORMATION_GRIDS_VOLUME_NAME=volume)
    row = worker.wait_for_status(job, "started")
    worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container's start")
    container = ground.docker.inspect(row["container_id"])
    labels = container["Config"]["Labels"]
    assert labels["app"] == worker.env["ENVIRONMENT"] + "_worker"
    assert labels["type"] == "package"
    assert labels["job_id"] == str(job["id"])
    assert labels["project_id"] == str(job["project_id"])
    assert container["Name"].startswith(f"/qfc-{job['id']}-1-")
    assert container["HostConfig"]["CpuShares"] == 300
    assert container["HostConfig"]["Memory"] == 1000 * 1024 * 1024
    mounts = [(m["Name"], m["Destination"], m["RW"]) for m in container["Mounts"]]
    assert [m for m in mounts if m[1] not in ("/io", "/tmp", "/root")] == [(volume, "/transformation_grids", False)]
    ground.docker.put(row["container_id"], "/io", {"go": b""})
    assert worker.wait_for_status(job, "finished", "failed")["status"] == "finished"
    process.wait()
    cleanup.now(remove)


def test_a_token_lives_as_long_as_its_job(database, worker, ground):
    job = database.job(database.project(qgis_file="gate.qgs"), "package")
    process = worker.start("run", "--single-shot", QFIELDCLOUD_WORKER_TIMEOUT_S="100")
    row = worker.wait_for_status(job, "started")
    token = database.one("SELECT *, extract(epoch FROM expires_at - created_at) AS s FROM authentication_authtoken")
    assert token["user_id"] == job["created_by_id"]
    assert token["client_type"] == "worker"
    assert token["s"] == 160
    worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container's start")
    ground.docker.put(row["container_id"], "/io", {"go": b""})
    assert process.wait().returncode == 0
    assert database.execute("SELECT * FROM authentication_authtoken") == []


def test_the_token_of_a_worker_that_died(database, worker, ground):
    """Another worker deletes it as soon as the job has ended, and touches no other token."""
    others = [
        database.token(database.user()),  # of QFieldCloud's own worker, which deletes none
        database.token(database.user(), key="qfcworker" + "x" * 91),
        database.token(database.user(), key="qfcworker" + "0" * 91, client_type="qfield"),
    ]
    job = database.job(database.project(qgis_file="gate.qgs"), "package")
    dead = worker.start("run")
    row = worker.wait_for_status(job, "started")
    dead.process.kill()
    dead.process.wait()
    key = "qfcworker" + str(job["id"]).replace("-", "")
    ours = "SELECT count(*) FROM authentication_authtoken WHERE starts_with(key, %s)"
    other = worker.start("run")
    bystander = database.job(database.project(qgis_file="offline.qgs"), "package")
    worker.wait_for_status(bystander, "finished")
    assert database.value(ours, key) == 1, "the job is active"
    database.update("core_job", job["id"], status="failed")
    worker.wait_for(lambda: database.value(ours, key) == 0, "the token's end", limit=60)
    assert other.stop().returncode == 0
    left = {row["id"] for row in database.execute("SELECT id FROM authentication_authtoken")}
    assert left == {token["id"] for token in others}
    ground.docker.remove(row["container_id"])


def test_token_is_in_no_log(database, worker, api):
    database.job(database.project(qgis_file="success.qgs"), "package")
    output = worker.run("run", "--drain", LOGLEVEL="debug")
    assert api.requests[0].token not in output.stderr + output.stdout
    assert worker.env["POSTGRES_PASSWORD"] not in output.stderr


def test_workflow_error(run_one):
    row, output = run_one("workflow_error.qgs")
    check_failed(row, output, "failed, as it was told to", error_type="UNKNOWN", error_class="QfcWorkerException",
                 error_origin="container", container_exit_code=0)


def test_refused_token(run_one, api):
    api.answer(401)
    row, output = run_one("success.qgs")
    check_failed(row, output, "401", error_type="API_TOKEN_EXPIRED", error_origin="container", container_exit_code=0)


def test_error_stack_is_text_always(run_one):
    row, output = run_one("stack_array.qgs")
    stack = "Traceback (most recent call last):\n  ...\nQfcWorkerException: failed\n"
    check_failed(row, output, "", error_stack=stack, error_origin="container")


def test_empty_error_fails(run_one):
    row, output = run_one("empty_error.qgs")
    check_failed(row, output, "", error="", container_exit_code=0)
    assert "error_origin" not in row["feedback"]


def test_null_error_is_none(run_one):
    row, _ = run_one("null_error.qgs")
    assert row["status"] == "finished"


def test_usage_error(run_one):
    row, output = run_one("usage_error.qgs")
    check_failed(row, output, "/io/feedback.json", container_exit_code=2, **BY_WORKER)
    assert "the following arguments are required" in row["output"]


def test_crash(run_one):
    row, output = run_one("crash@139.qgs")
    check_failed(row, output, "/io/feedback.json", container_exit_code=139, **BY_WORKER)
    assert row["output"].endswith("Fatal Python error: Segmentation fault")


def test_no_feedback(run_one):
    row, output = run_one("no_feedback.qgs")
    check_failed(row, output, "/io/feedback.json", container_exit_code=0, **BY_WORKER)


def test_project_without_qgis_file(database, worker):
    """The text of Python's None is passed, as QFieldCloud's own worker does; the stand-in plays success for it."""
    job = database.job(database.project(qgis_file=None), "package")
    worker.run("run", "--drain")
    row = database.get("core_job", job["id"])
    assert row["status"] == "finished"
    assert 'project "None"' in row["output"]


@pytest.mark.parametrize(
    "scenario, reason",
    [
        ("broken_feedback", "feedback.json: line 1 column"),
        ("empty_feedback", "feedback.json"),
        ("symlink_feedback", "symbolic link"),
        ("directory_feedback", "directory"),
        ("fifo_feedback", "regular file"),
        ("big_feedback@65", "larger than"),
    ],
)
def test_feedback_that_cannot_be_read(run_one, scenario, reason):
    row, output = run_one(f"{scenario}.qgs")
    check_failed(row, output, reason, container_exit_code=0, **BY_WORKER)
    assert reason in row["feedback"]["error"]
    assert "Stop QGIS Application" in row["output"], "the log is lost"


def test_feedback_that_is_no_object(run_one):
    row, output = run_one("array_feedback.qgs")
    check_failed(row, output, "not an object", container_exit_code=0, **BY_WORKER)
    assert row["feedback"]["error_feedback"] == ["not", {"an": "object"}, 0.1]


def test_feedback_is_cleaned_and_numbers_stay(run_one, database):
    row, output = run_one("nan_feedback.qgs")
    assert row["status"] == "finished", output
    odd = row["feedback"]["outputs"]["odd"]
    assert odd["nan"] is None and odd["infinity"] is None and odd["minus"] is None and odd["in"] == [None, None]
    assert odd["nul"] == "a\ufffdb" and odd["lone"] == "a\ufffdb" and odd["low"] == "\ufffd"
    assert odd["pair"] == "\U0001f600" and odd["text"] == "NaN" and odd["escaped"] == "\\u0000"
    texts = database.one(
        "SELECT feedback #>> '{outputs,odd,tenth}' AS tenth, feedback #>> '{outputs,odd,long}' AS long,"
        " feedback #>> '{outputs,odd,exact}' AS exact FROM core_job WHERE id = %s", row["id"])
    assert texts == {"tenth": "0.1", "long": "123456789012345678901234567890", "exact": "1.10"}
    assert any("was cleaned" in message for message in output.messages("warning", row))


def test_numbers_beyond_all_use_are_null(run_one):
    """PostgreSQL would refuse them, or store a row that QFieldCloud cannot load."""
    row, output = run_one("overflow_feedback.qgs")
    assert row["status"] == "finished", output
    assert row["feedback"]["huge"] is None
    assert any("was cleaned" in message for message in output.messages("warning", row))


def test_big_feedback(run_one, database):
    row, output = run_one("big_feedback@30.qgs")
    assert row["status"] == "finished", output
    assert len(row["feedback"]["filler"]) == 30 * 1024 * 1024


def test_dirty_log(run_one):
    row, _ = run_one("dirty_log.qgs")
    assert row["status"] == "finished"
    assert "a NUL: \ufffd, broken: \ufffd\ufffd \ufffd( \ufffd\ufffd\ufffd, cut: " in row["output"]
    assert "\x1b[31mred" in row["output"] and "one\rtwo" in row["output"]
    assert row["output"].endswith("the end, and no newline")


def test_big_log(run_one):
    row, _ = run_one("big_log@20.qgs")
    assert row["status"] == "finished"
    assert row["output"].count("a line of the log that says nothing but is exactly 64 bytes lo.\n") == 20 * 16384
    assert row["output"].endswith("the last line\n")


def test_longer_log_keeps_head_and_tail(run_one):
    row, _ = run_one("big_log@70.qgs")
    assert row["status"] == "finished"
    assert row["output"].startswith("::<<<::") and row["output"].endswith("the last line\n")
    left_out = re.search(r"\[\.\.\. (\d+) bytes of output left out \.\.\.\]", row["output"])
    assert left_out and int(left_out[1]) > 6 * 1024 * 1024


def test_deadline(run_one):
    row, output = run_one("sleep@60.qgs", timeout_s="2")
    check_failed(row, output, "timeout", error="Worker timeout error.", error_type="TIMEOUT", error_class="",
                 error_stack="", error_origin="container", container_exit_code=-1)
    assert row["output"].endswith("\nTimeout error! The job failed to finish within 2 seconds!\n")
    assert row["output"].startswith("::<<<::"), "the log is lost"
    assert set(row["feedback"]) == {
        "error", "error_type", "error_class", "error_stack", "error_origin", "container_exit_code"
    }


def test_time_limit_of_the_administration(database, worker):
    database.constance("WORKER_TIMEOUT_S", 2)
    job = database.job(database.project(qgis_file="sleep@60.qgs"), "package")
    worker.run("run", "--drain")
    assert database.get("core_job", job["id"])["feedback"]["error_type"] == "TIMEOUT"


def test_out_of_memory(run_one, database):
    database.constance("WORKER_QGIS_MEMORY_LIMIT", "20m")
    row, output = run_one("out_of_memory.qgs")
    check_failed(row, output, "out of memory", error_type="OUT_OF_MEMORY", error_origin="container",
                 container_exit_code=137)
    assert row["output"].startswith("::<<<::"), "the log is lost"


def test_kill_from_outside(database, worker, ground):
    job = database.job(database.project(qgis_file="gate.qgs"), "package")
    process = worker.start("run", "--single-shot")
    row = worker.wait_for_status(job, "started")
    worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container's start")
    ground.docker.kill(row["container_id"])
    output = process.wait()
    check_failed(database.get("core_job", job["id"]), output, "sigkill", error="Docker engine sigkill.",
                 error_type="DOCKER_ENGINE_SIGKILL", error_origin="container", container_exit_code=137)


def test_order_and_one_job_per_project(database, worker):
    """Oldest first, and never two of one project at a time."""
    projects = [database.project(qgis_file="offline.qgs") for _ in range(3)]
    jobs = [database.job(project, "package") for _ in range(3) for project in projects]
    worker.run("run", "--drain", "--concurrency", 4)
    rows = [database.get("core_job", job["id"]) for job in jobs]
    assert [row["status"] for row in rows] == ["finished"] * 9
    for project in projects:
        own = [row for row in rows if row["project_id"] == project["id"]]
        for earlier, later in zip(own, own[1:]):
            assert earlier["finished_at"] <= later["started_at"]


def test_single_shot_runs_one_job(database, worker):
    jobs = [database.job(database.project(qgis_file="offline.qgs"), "package") for _ in range(2)]
    assert worker.run("run", "--single-shot", "--concurrency", 4).returncode == 0
    assert [database.get("core_job", job["id"])["status"] for job in jobs] == ["finished", "pending"]
    worker.run("run", "--single-shot")
    assert worker.run("run", "--single-shot").returncode == 0, "nothing is pending"
    assert database.get("core_job", jobs[1]["id"])["status"] == "finished"


def test_what_is_not_claimed(database, worker):
    """A locked project's job, and one of a busy project."""
    locked = database.job(database.project(locked_at="2026-01-01T00:00:00Z"), "package")
    busy = database.project()
    database.job(busy, "package", status="queued")
    waiting = database.job(busy, "package")
    before = database.dump()
    worker.run("run", "--single-shot")
    assert changes(before, database.dump()) == {}, (locked, waiting)


def test_a_job_type_that_nobody_knows(database, worker):
    """It fails with the reason, and its project's next job is run."""
    project = database.project(qgis_file="offline.qgs")
    odd = database.job(project, "tidy_up")
    good = database.job(project, "package")
    output = worker.run("run", "--drain")
    row = database.get("core_job", odd["id"])
    reason = 'nobody knows jobs of type "tidy_up"'
    assert row["status"] == "failed" and row["finished_at"], output
    assert row["feedback"] == {
        "error": reason, "error_class": "WorkerError", "error_stack": "", "error_origin": "worker_wrapper"
    }
    assert row["output"] == reason + "\n"
    assert any(reason in message for message in output.messages("warning", row)), output
    assert database.get("core_job", good["id"])["status"] == "finished", output
