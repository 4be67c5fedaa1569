"""`qfc-worker jobs`: what an operator may do to a job, in each state it can be in, and what is refused."""

import datetime
import json
import os
import signal
import subprocess
import threading

import pytest
from bed.docker import DockerError

RELEASES = pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
INSTANCE = "0123456789abcdef"
MARKER = f"qfc-worker:{INSTANCE}:somewhere"
CONTAINER = "c" * 64
CANCELLED = {
    "error": "The job was cancelled.",
    "error_type": "CANCELLED",
    "error_class": "WorkerError",
    "error_stack": "",
    "error_origin": "worker_wrapper",
}
LOCK_KEY = "('x' || left(replace(%s::text, '-', ''), 16))::bit(64)::bigint"


def ago(**values):
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**values)


class Program:
    """The built program with one database."""

    def __init__(self, binary, database):
        known = {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS") or name == "PATH"}
        self.binary, self.env = binary, {**known, **database.settings, "LOG_FORMAT": "json"}

    def __call__(self, *args, code=0, **env):
        result = subprocess.run(
            [self.binary, *(str(arg) for arg in args)],
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == code, f"exit code {result.returncode}\n{result.stdout}{result.stderr}"
        return result


@pytest.fixture
def program(built, database):
    return Program(built, database)


def row(database, job):
    return database.get("core_job", job["id"])


def hold_lock(database, job):
    """A session that has a job's lock, as its worker's has; closing it is the worker's death."""
    connection = database.connect(application_name=MARKER)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_lock({LOCK_KEY})", (str(job["id"]),))
    return connection


def make(database, state, type="package"):
    """A job in one of the states that matter; returns it and what ends with the test."""
    project = database.project(files=())
    trail = {"qfc_worker": {"worker": MARKER, "attempts": 1, "engine": "E"}}
    started = {"started_at": ago(minutes=1), "docker_started_at": ago(minutes=1)}
    values = {
        "pending": {"status": "pending"},
        "put back": {"status": "pending", "feedback": {"qfc_worker": {"attempts": 2, "reasons": ["x"]}}},
        "claimed": {"status": "queued", "container_id": MARKER},
        "claimed, lost": {"status": "queued", "container_id": MARKER},
        "running": {"status": "started", "container_id": CONTAINER, "feedback": trail, **started},
        "running, lost": {"status": "started", "container_id": CONTAINER, "feedback": trail, **started},
        "nobody's": {"status": "queued"},
        "old": {"status": "started", "container_id": CONTAINER, **started},
        "failed": {"status": "failed", "container_id": CONTAINER, "feedback": {"error": "no"}, "output": "log", "finished_at": ago(), **started},
        "finished": {"status": "finished", "output": "log", "finished_at": ago(), **started},
    }[state]
    if type == "delta_apply":
        delta_status = {"pending": "pending", "failed": "error"}.get(values["status"], "started")
        deltas = [database.delta(project, status=delta_status) for _ in range(2)]
        job = database.apply_job(project, deltas, **values)
        database.execute("UPDATE core_applyjobdelta SET status = %s", delta_status)
    else:
        job = database.job(project, type, **values)
    return job, [hold_lock(database, job)] if state in ("claimed", "running") else []


def deltas(database, job):
    """Statuses of a job's deltas: their own, and those in the job."""
    return [
        (found["last_status"], found["status"])
        for found in database.execute(
            "SELECT d.last_status, a.status FROM core_applyjobdelta a JOIN core_delta d ON d.id = a.delta_id"
            " WHERE a.apply_job_id = %s ORDER BY a.id",
            job["id"],
        )
    ]


# What becomes of a job in each state: its status afterwards, or None where it is left alone.
CANCEL = {
    "pending": "failed",
    "put back": "failed",
    "claimed, lost": None,  # asked, and nobody is there to do it
    "running, lost": None,
    "nobody's": "failed",
    "old": None,
    "failed": None,
    "finished": None,
}
RETRY = {"failed": "pending"}
REQUEUE = {"claimed, lost": "pending", "running, lost": "pending", "nobody's": "pending"}
STATES = (
    "pending", "put back", "claimed", "claimed, lost", "running", "running, lost", "nobody's", "old", "failed", "finished",
)  # fmt: skip
# After a start of PostgreSQL owners have 15 s to come back.
SETTLED = "SELECT pg_sleep(greatest(0, 15.5 - extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())))"


@pytest.fixture
def settled(database):
    database.value(SETTLED)


@pytest.mark.parametrize("action, ends", [("cancel", CANCEL), ("retry", RETRY), ("requeue", REQUEUE)])
def test_each_action_in_each_state(program, database, settled, action, ends):
    made = {state: make(database, state) for state in STATES}
    jobs = {state: job for state, (job, _) in made.items()}
    asked = {state for state in STATES if action == "cancel" and state.startswith(("claimed", "running"))}
    for state, job in jobs.items():
        program("jobs", action, "--dry-run", job["id"], code=0 if state in ends and ends[state] or state in asked else 1)
        assert row(database, job) == job
    call = ["jobs", action, "--yes", *(["--wait", "0.1"] if action == "cancel" else []), *(j["id"] for j in jobs.values())]
    result = program(*call, code=1)
    after = {state: row(database, job) for state, job in jobs.items()}
    for state, job in jobs.items():
        assert after[state]["status"] == (ends.get(state) or job["status"]), state
        assert bool((after[state]["feedback"] or {}).get("qfc_worker", {}).get("cancel")) == (state in asked), state
    said = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert {line["job"] for line in said} == {str(job["id"]) for s, job in jobs.items() if after[s] != job}
    assert all(f"jobs {action} by " in line["message"] and " on " in line["message"] for line in said)
    # Once more: nothing is left to do.
    program(*call, code=1)
    for state in STATES:
        assert row(database, jobs[state]) == after[state]
    for _, locks in made.values():
        for connection in locks:
            connection.close()


def test_what_a_cancelled_job_looks_like(program, database):
    job, _ = make(database, "pending", "delta_apply")
    program("jobs", "cancel", "--yes", str(job["id"])[:8])
    after = row(database, job)
    assert after["status"] == "failed" and after["feedback"] == CANCELLED and after["container_id"] == ""
    assert after["output"] == "The job was cancelled.\n"
    assert after["finished_at"] == after["started_at"] and after["docker_started_at"] is None
    assert deltas(database, job) == [("error", "error")] * 2


@RELEASES
def test_a_retried_job_takes_its_open_deltas_along(program, database):
    job, _ = make(database, "failed", "delta_apply")
    database.execute("UPDATE core_job SET docker_started_at = NULL")
    first = database.execute("SELECT delta_id FROM core_applyjobdelta ORDER BY id LIMIT 1")[0]["delta_id"]
    database.execute("UPDATE core_delta SET last_status = 'applied', last_feedback = '{}' WHERE id = %s", first)
    program("jobs", "retry", "--yes", job["id"])
    after = row(database, job)
    for column in ("feedback", "output", "started_at", "finished_at", "docker_started_at", "docker_finished_at"):
        assert after[column] is None
    assert after["status"] == "pending" and after["container_id"] == "" and after["created_at"] == job["created_at"]
    assert deltas(database, job) == [("pending", "pending")]  # the applied one has left it
    assert database.get("core_delta", first)["last_status"] == "applied"


def test_what_may_have_uploaded_needs_to_be_wanted(program, database):
    job, _ = make(database, "failed", "delta_apply")
    result = program("jobs", "retry", job["id"], code=1)
    assert "WARNING" in result.stdout and "needs --yes" in result.stdout and row(database, job) == job
    program("jobs", "retry", "--yes", job["id"])
    assert row(database, job)["status"] == "pending" and deltas(database, job) == [("pending", "pending")] * 2


def test_a_started_delta_apply_is_not_run_twice(program, database, settled):
    job, _ = make(database, "running, lost", "delta_apply")
    result = program("jobs", "requeue", "--yes", job["id"], code=1)
    assert "it is not run twice" in result.stdout and row(database, job) == job
    program("jobs", "cancel", "--force", "--yes", job["id"])
    after = row(database, job)
    assert after["status"] == "failed" and after["feedback"] == CANCELLED and after["container_id"] == CONTAINER
    assert deltas(database, job) == [("error", "error")] * 2


def test_a_claimed_delta_apply_goes_back_with_its_deltas(program, database, settled):
    job, _ = make(database, "claimed, lost", "delta_apply")
    program("jobs", "requeue", "--yes", job["id"])
    assert row(database, job)["status"] == "pending" and deltas(database, job) == [("pending", "pending")] * 2


def test_an_old_workers_job_is_cancelled_by_force_only(program, database):
    job, _ = make(database, "old")
    result = program("jobs", "cancel", "--yes", job["id"], code=1)
    assert "docker kill cccccccccccc" in result.stdout and "--force" in result.stdout and row(database, job) == job
    program("jobs", "cancel", "--force", job["id"], code=1)  # has a warning, so it needs --yes
    program("jobs", "cancel", "--force", "--yes", job["id"])
    assert row(database, job)["status"] == "failed"


def test_a_job_that_is_claimed_at_this_moment(program, database):
    """Whoever has the row first wins; the other says so."""
    job, _ = make(database, "pending")
    connection = database.connect()
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_job SET status = 'finished' WHERE id = %s", (job["id"],))
    waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'qfc-worker jobs cancel' AND wait_event_type = 'Lock'"
    results = []
    thread = threading.Thread(target=lambda: results.append(program("jobs", "cancel", "--yes", job["id"], code=1)))
    thread.start()
    while thread.is_alive() and not database.value(waits):
        pass
    connection.commit()
    thread.join()
    connection.close()
    assert "has ended already" in results[0].stdout and results[0].stderr == ""
    assert row(database, job)["status"] == "finished" and row(database, job)["feedback"] is None


def test_nothing_is_changed_without_being_asked(program, database):
    job, _ = make(database, "pending")
    result = program("jobs", "cancel", job["id"], code=1)
    assert "needs --yes" in result.stderr and row(database, job) == job


@pytest.mark.parametrize("answer, status", [("y", "failed"), ("n", "pending"), ("", "pending"), ("yes", "failed")])
def test_a_terminal_is_asked(program, database, answer, status):
    job, _ = make(database, "pending")
    master, slave = os.openpty()
    process = subprocess.Popen(
        [program.binary, "jobs", "cancel", str(job["id"])],
        env=program.env, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(slave)
    os.write(master, answer.encode() + b"\n")
    out, err = process.communicate(timeout=60)
    os.close(master)
    assert b"Do this? [y/N]" in err and row(database, job)["status"] == status, out


def test_which_job_is_meant(program, database):
    project = database.project(files=())
    ids = ["aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"]
    for identity in ids:
        database.job(project, id=identity)
    cases = [
        ("aaaaaaaa", 1, "several jobs' ids begin like that"),
        ("aaaaaaa", 2, "first 8 digits"),
        ("aaaaaaaz", 2, "first 8 digits"),
        ("bbbbbbbb", 1, "no job's id begins like that"),
        (ids[0][:-1] + "3", 1, "no such job"),
        (ids[0].replace("-", "").upper(), 0, ""),
        (ids[1], 0, ""),
    ]
    for given, code, message in cases:
        assert message in program("jobs", "cancel", "--dry-run", given, code=code).stderr


def test_names_take_no_hold_of_a_terminal(program, database):
    project = database.project(files=(), name="a\x1b]0;title\x07b\u202ec\nd")
    job = database.job(project)
    result = program("jobs", "cancel", "--dry-run", job["id"])
    assert "a\ufffd]0;title\ufffdb\ufffdc d " in result.stdout


# list, show, logs


@RELEASES
def test_list_finds_by_each_filter(program, database):
    person = database.user()
    trees = database.project(files=(), owner=person, name="trees")
    wells = database.project(files=(), owner=person, name="wells/deep")
    jobs = {
        "old": database.job(trees, status="finished", created_at=ago(days=2), started_at=ago(days=2), finished_at=ago(days=2)),
        "broken": database.job(trees, status="failed", created_at=ago(hours=2), feedback={"error": "No such Layer\nx"}),
        "typed": database.job(trees, status="failed", created_at=ago(hours=1), feedback={"error_type": "API_TIMEOUT"}),
        "waits": database.job(wells, "process_projectfile", created_at=ago(minutes=10)),
        "waits longer": database.job(wells, created_at=ago(minutes=20)),
        "runs": database.job(wells, status="started", created_at=ago(minutes=5), started_at=ago(minutes=1)),
    }
    names = {str(job["id"]): name for name, job in jobs.items()}

    def found(*args):
        return [names[job["job"]] for job in json.loads(program("jobs", "list", "--json", *args).stdout)]

    assert found() == ["runs", "waits", "waits longer", "typed", "broken", "old"]
    assert found("--limit", "2") == ["runs", "waits"]
    assert found("--status", "pending,active") == ["waits longer", "waits", "runs"]  # as their turn comes
    assert found("--status=failed", "--newer", "90m") == ["typed"]
    assert found("--older", "1d") == ["old"] and found("--newer", "300s") == []
    assert found("--type", "process_projectfile") == ["waits"]
    assert found("--project", trees["id"]) == ["typed", "broken", "old"]
    assert found("--project", f"{person['username']}/wells/deep", "--status", "started") == ["runs"]
    assert found("--reason", "no such layer") == ["broken"] and found("--reason", "api_") == ["typed"]
    lines = program("jobs", "list", "--status", "failed").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [str(jobs[name]["id"])[:8] for name in ("typed", "broken")]
    assert lines[2].endswith("No such Layer") and f"{person['username']}/trees" in lines[2]
    for args, code, message in (
        (["--status", "odd"], 2, "--status: expected"),
        (["--older", "x"], 2, "--older: expected an age"),
        (["--limit", "0"], 2, "--limit: expected"),
        (["--project", "trees"], 2, "as owner/name"),
        (["--project", "nobody/trees"], 1, "no project of that name"),
    ):
        assert message in program("jobs", "list", *args, code=code).stderr


def test_list_makes_names_harmless(program, database):
    database.job(database.project(files=(), name="\x1b[31mred\u009b2J\n"))
    listed = program("jobs", "list").stdout
    assert "\x1b" not in listed and "\u009b" not in listed and "red" in listed and len(listed.splitlines()) == 2


def test_show_tells_all_about_a_job(program, database):
    output = (
        "::<<<::a7131562-a571-49dd-ae65-2b986d9651c0 Start\n23:59:59.500 root INFO a\n00:00:01.750 root INFO b\n"
        "::>>>::a7131562-a571-49dd-ae65-2b986d9651c0 2\n::<<<::a37a4176-105e-4c2f-81af-12aa0564ea2e Work\nno time\n"
        "::>>>::a37a4176-105e-4c2f-81af-12aa0564ea2e 1\n"
    )
    steps = [{"id": "a", "name": "Start", "stage": 2, "returns": {}}, {"id": "b", "name": "Work\x07", "stage": 1, "returns": {}}]
    job, _ = make(database, "failed", "delta_apply")
    feedback = {"steps": steps, "error": "bad\x1b[2J", "error_class": "E", "error_stack": "one\ntwo", "container_exit_code": 0}
    database.update("core_job", job["id"], feedback=feedback, output=output)
    told = json.loads(program("jobs", "show", "--json", job["id"]).stdout)
    assert told["id"] == str(job["id"]) and told["error"] == "bad\x1b[2J" and told["exit_code"] == 0
    assert [(s["name"], s["stage"], s.get("took_s")) for s in told["steps"]] == [("Start", 2, 2.25), ("Work\x07", 1, None)]
    assert [d["status"] for d in told["deltas"]] == ["error", "error"] and told["overwrite_conflicts"] is False
    text = program("jobs", "show", str(job["id"])[:8]).stdout
    assert "done       Start  2.2s" in text or "done       Start  2.3s" in text
    assert "FAILED     Work\ufffd" in text and "\x1b" not in text
    for word in (str(job["id"]), "delta_apply", "failed", CONTAINER, "exit code   0", "one\n            two"):
        assert word in text
    running, locks = make(database, "running")
    text = program("jobs", "show", running["id"]).stdout
    assert "a worker that lives" in text and f"{INSTANCE} on somewhere" in text and "attempts    1" in text
    locks[0].close()
    assert "a worker that is gone" in program("jobs", "show", running["id"]).stdout


def test_logs_of_jobs_that_do_not_run(program, database):
    ended, _ = make(database, "finished")
    database.update("core_job", ended["id"], output="one\r\ntwo\x1b[2J\tend\n")
    assert program("jobs", "logs", ended["id"]).stdout == "one\ntwo\ufffd[2J\tend\n"
    assert program("jobs", "logs", "-f", ended["id"]).stdout == "one\ntwo\ufffd[2J\tend\n"
    waiting, _ = make(database, "pending")
    assert "it has not run yet" in program("jobs", "logs", waiting["id"], code=1).stderr


def test_logs_of_a_job_that_runs(scene, program):
    job = scene.job("gate.qgs")
    scene.start()
    container = scene.running(job)
    host = {"DOCKER_HOST": scene.ground.engine.host}
    scene.worker.wait_for(lambda: "waiting for /io/go" in program("jobs", "logs", job["id"], **host).stdout, "its log")
    follower = subprocess.Popen(
        [program.binary, "jobs", "logs", "-f", str(job["id"])], env={**program.env, **host}, stdout=subprocess.PIPE, text=True
    )
    lines = [follower.stdout.readline()]
    while "waiting for /io/go" not in lines[-1]:
        lines.append(follower.stdout.readline())
    scene.let_go(container)
    rest, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0
    assert "".join(lines) + rest == scene.finishes(job)["output"]
    # Where its engine cannot be asked the row tells.
    other = scene.job("gate.qgs")
    container = scene.running(other)
    scene.database.update("core_job", other["id"], output="so far\n")
    told = program("jobs", "logs", other["id"], DOCKER_HOST="unix:///nonexistent")
    assert told.stdout == "so far\n" and "not to be asked here" in told.stderr
    scene.let_go(container)
    scene.finishes(other)
    scene.stop()


# Beside workers


def call(program, *args):
    """Starts the program and goes on."""
    return subprocess.Popen(
        [program.binary, *(str(arg) for arg in args)],
        env=program.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_who_retry_at_the_same_moment(scene, program):
    """One of them does it, the job runs once more, and each says what it did."""
    workers = [scene.start(), scene.worker.start("run")]
    for _ in range(3):
        job = scene.job(status="failed", feedback={"error": "no"}, started_at=ago(minutes=1), finished_at=ago())
        calls = [call(program, "jobs", "retry", "--yes", job["id"]) for _ in range(4)]
        said = [process.communicate(timeout=60)[0] for process in calls]
        assert sum(process.returncode == 0 for process in calls) == 1, said
        assert scene.finishes(job)["status"] == "finished" and scene.starts(job) == 1
    for worker in workers:
        assert worker.stop().returncode == 0


@pytest.mark.parametrize("release", [False, True], ids=["cancelled while it runs", "ends at that moment"])
def test_cancel_with_two_workers(scene, program, release):
    """Whoever is first: the row says the same as the command, and nothing of the job is left."""
    workers = [scene.start("--concurrency", "2"), scene.worker.start("run", "--concurrency", "2")]
    jobs = [scene.job("gate.qgs") for _ in range(4)]
    containers = [scene.running(job) for job in jobs]
    calls = [call(program, "jobs", "cancel", "--yes", job["id"]) for job in jobs for _ in range(2)]
    if release:
        for container in containers:
            try:
                scene.let_go(container)
            except DockerError:
                pass  # it has been killed and removed already
    said = [process.communicate(timeout=90)[0] for process in calls]
    for number, job in enumerate(jobs):
        after = scene.wait_for(job, "finished", "failed")
        cancelled = after["status"] == "failed"
        assert not cancelled or after["feedback"]["error_type"] == "CANCELLED", after["feedback"]
        assert cancelled or release
        codes = {process.returncode for process in calls[2 * number : 2 * number + 2]}
        assert codes == {0} if cancelled and not release else codes <= {0, 1}, said
        assert cancelled or codes == {1}, said
        assert scene.starts(job) == 1
    for container in containers:
        scene.wait_until_gone(container)
    assert scene.tokens() == []
    for worker in workers:
        assert worker.stop().returncode == 0


def test_requeue_beside_the_recovery_of_another_worker(scene, program, settled):
    """The operator and the second worker want the same job: it ends once, and well."""
    job = scene.job("gate.qgs")
    first = scene.start()
    scene.running(job)
    second = scene.worker.start("run")
    first.send(signal.SIGKILL)
    first.process.wait()
    calls = [call(program, "jobs", "requeue", "--yes", job["id"]) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in calls]
    assert sum(process.returncode == 0 for process in calls) <= 1, said
    container = scene.worker.wait_for(
        lambda: scene.row(job)["status"] == "started" and scene.row(job)["container_id"], "a container"
    )
    scene.worker.wait_for(lambda: container in [c["Id"] for c in scene.containers(job)], "it")
    scene.let_go(container)
    after = scene.finishes(job)
    assert after["container_id"] == container
    scene.worker.wait_for(lambda: not scene.containers(job), "the removal of the first container", 120)
    assert second.stop().returncode == 0
