"""Tests of the stand-in QGIS image, played directly through the engine, and of the API player that it talks to."""

import json
import time
import urllib.error
import urllib.request

import psycopg2
import pytest

from bed.api import Api
from bed.played import PROJECT, Played, package


# The stand-in image


DELTAS = {
    "id": "d8a1c4cc-9f1b-41a8-8d1c-0c4d5e0e4b2c",
    "deltas": [
        {
            "uuid": "1",
            "new": {"uuid": "no", "a": ['}"', {"b": "\\"}]},
            "localLayerId": 'a "layer" {',
            "sourcePk": "12",
            "method": "patch",
        },
        {"sourcePk": None, "uuid": "2", "old": None, "localLayerId": "b", "method": "create"},
        {"uuid": "3", "sourcePk": "text", "localLayerId": "c", "method": "delete"},
    ],
    "files": [{"uuid": "no"}],
    "clientPks": {"x__y__z": "5"},
}


@pytest.mark.parametrize(
    "args, workflow, steps",
    [
        (("package", PROJECT, "any.qgs", "qgiscore"), "package_project", 7),
        (("apply_deltas", PROJECT, "any.qgs"), "apply_changes", 5),
        (("process_projectfile", PROJECT, "any.qgs"), "process_projectfile", 8),
        (("create_project", PROJECT), "create_project", 4),
    ],
)
def test_each_workflow_goes_well(ground, args, workflow, steps):
    played = Played(ground, *args, files={"deltafile.json": json.dumps(DELTAS).encode()})
    assert played.code == 0
    feedback = played.feedback
    assert (feedback["feedback_version"], feedback["workflow_id"]) == ("2.0", workflow)
    assert [step["stage"] for step in feedback["steps"]] == [2] * steps
    assert list(feedback["outputs"]) == [step["id"] for step in feedback["steps"]]
    assert "error" not in feedback
    assert played.log.count(b"::<<<::") == played.log.count(b"::>>>::") == steps
    assert b"No QFieldCloud to ask" in played.log


def delta_results(ground, scenario, deltas):
    played = Played(ground, "apply_deltas", PROJECT, f"{scenario}.qgs", files={"deltafile.json": deltas})
    return played.feedback["outputs"]["apply_deltas"]["delta_feedback"]


@pytest.mark.parametrize("indent", [None, 2])
def test_deltas_are_read_from_the_delta_file(ground, indent):
    results = delta_results(ground, "success", json.dumps(DELTAS, indent=indent).encode())
    assert [result["delta_id"] for result in results] == ["1", "2", "3"]
    assert [result["modified_pk"] for result in results] == [12, None, "text"]
    assert [result["layer_id"] for result in results] == ['a "layer" {', "b", "c"]
    assert {result["delta_file_id"] for result in results} == {DELTAS["id"]}
    assert {result["status"] for result in results} == {"status_applied"}


def test_deltas_get_the_results_asked_for(ground):
    results = delta_results(ground, "deltas@status_conflict,-,status_apply_failed", json.dumps(DELTAS).encode())
    found = [(result["delta_id"], result["status"]) for result in results]
    assert found == [("1", "status_conflict"), ("3", "status_apply_failed")]


def test_a_workflow_error_exits_0_and_says_why(ground):
    played = package(ground, "workflow_error@4")
    assert played.code == 0
    assert [step["stage"] for step in played.feedback["steps"]] == [2, 2, 2, 1, 0, 0, 0]
    assert "Package Project" in played.feedback["error"]
    assert played.feedback["error_stack"].endswith("\n")


@pytest.mark.parametrize(
    "scenario, code, feedback",
    [
        ("usage_error", 2, False),
        ("crash@139", 139, False),
        ("crash", 1, False),
        ("no_feedback", 0, False),
        ("empty_feedback", 0, True),
    ],
)
def test_exit_codes_with_and_without_feedback(ground, scenario, code, feedback):
    played = package(ground, scenario)
    assert played.code == code
    assert (played.member is not None) == feedback


def test_too_few_arguments_are_a_usage_error(ground):
    played = Played(ground, "package", PROJECT)
    assert played.code == 2 and played.log.startswith(b"usage: COMMAND package")


def test_broken_feedback_is_no_json(ground):
    with pytest.raises(ValueError):
        package(ground, "broken_feedback").feedback


def test_array_feedback_is_no_object(ground):
    assert isinstance(package(ground, "array_feedback").feedback, list)


def test_nan_feedback_has_what_postgresql_refuses(ground, database):
    text = package(ground, "nan_feedback").bytes.decode()
    odd = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)["outputs"]["odd"]
    assert odd["nan"] == "NaN" and odd["minus"] == "-Infinity" and odd["nul"] == "a\0b" and odd["lone"] == "a\ud800b"
    assert odd["escaped"] == "\\u0000" and odd["long"] == "123456789012345678901234567890" and odd["exact"] == "1.10"
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
        database.execute("SELECT %s::jsonb", text)


def test_big_feedback_is_good_and_as_big_as_asked(ground):
    played = package(ground, "big_feedback@3")
    assert 3 << 20 < len(played.bytes) < (3 << 20) + 10000
    assert len(played.feedback["filler"]) == 3 << 20


@pytest.mark.parametrize(
    "scenario, kind", [("symlink_feedback", "issym"), ("directory_feedback", "isdir"), ("fifo_feedback", "isfifo")]
)
def test_feedback_that_is_no_file(ground, scenario, kind):
    assert getattr(package(ground, scenario).member, kind)()


def test_a_dirty_log_has_all_that_a_log_should_not(ground):
    log = package(ground, "dirty_log").log
    assert b"\0" in log and b"\033[31m" in log and log.endswith(b"no newline")
    # An engine that keeps logs as JSON has replaced broken UTF-8 already.
    assert b"\377\376" in log or "\ufffd\ufffd" in log.decode()


def test_a_big_log_is_as_big_as_asked(ground):
    log = package(ground, "big_log@2").log
    assert 2 << 20 < len(log) < (2 << 20) + 10000 and log.endswith(b"the last line\n")


def test_error_stack_as_an_array_and_error_without_text(ground):
    assert isinstance(package(ground, "stack_array").feedback["error_stack"], list)
    assert package(ground, "empty_error").feedback["error"] == ""
    assert package(ground, "null_error").feedback["error"] is None


def test_a_gate_is_opened_from_outside(ground):
    container = ground.create("package", PROJECT, "gate.qgs", "qgiscore", network="none")
    try:
        ground.docker.start(container)
        assert ground.docker.inspect(container)["State"]["Running"]
        ground.docker.put(container, "/io", {"go": b""})
        assert ground.docker.wait(container) == 0
    finally:
        ground.docker.remove(container)


def test_sigterm_is_ignored_like_by_the_real_container(ground):
    container = ground.create("package", PROJECT, "sleep@600.qgs", "qgiscore", network="none")
    try:
        ground.docker.start(container)
        ground.docker.kill(container, "TERM")
        assert ground.docker.inspect(container)["State"]["Running"]
        ground.docker.kill(container)
        assert ground.docker.wait(container) == 137
    finally:
        ground.docker.remove(container)


def test_the_log_shows_what_the_container_was_given(ground):
    log = package(ground, "environment", env={"JOB_ID": "x y"}, CapDrop=["ALL"]).log.decode()
    assert "VARIABLE JOB_ID=x y\n" in log and "ARGUMENT environment.qgs\n" in log
    assert "STATUS CapEff:\t0000000000000000\n" in log


def test_running_out_of_memory_is_seen_by_the_engine(ground):
    played = package(ground, "out_of_memory", Memory=32 << 20)
    assert (played.code, played.state["OOMKilled"]) == (137, True)


def wait_for_event(ground, container, action, since, limit=60):
    """Waits until the engine says that something has happened to a container."""
    deadline = time.monotonic() + limit
    while not ground.docker.events(since, time.time(), container=[container], event=[action]):
        assert time.monotonic() < deadline, f"no event {action} within {limit} s"
        time.sleep(0.02)


def test_a_childs_running_out_of_memory_is_seen_by_the_engine(ground):
    """The container lives until the engine has told it: an engine may hear of the end first, and then never tell."""
    args = ("package", PROJECT, "out_of_memory_child.qgs", "qgiscore")
    since, scenario = int(time.time()) - 1, "/usr/src/app/scenarios/out_of_memory_child.sh"
    container = ground.create(*args, network="none", Memory=32 << 20)
    try:
        entry, content = ground.docker.member(container, scenario)
        held = content.replace(b"\nexit 1", b"\nuntil [ -e /io/go ]; do sleep 0.02; done\nexit 1")
        assert held != content
        ground.docker.put(container, "/usr/src/app/scenarios", {entry.name: held})
        ground.docker.start(container)
        wait_for_event(ground, container, "oom", since)
        ground.docker.put(container, "/io", {"go": b""})
        assert ground.docker.wait(container) == 1
        assert ground.docker.inspect(container)["State"]["OOMKilled"]
    finally:
        ground.docker.remove(container)


def test_a_container_works_with_all_that_a_worker_takes_from_it(ground):
    confined = {"CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": True, "PidsLimit": 256}
    volumes = [{"Type": "volume", "Target": path} for path in ("/io", "/tmp")]
    played = package(ground, "success", Mounts=volumes, **confined)
    assert played.code == 0 and "error" not in played.feedback


# The API player


def running_package(database, scenario="success", **values):
    project = database.project(qgis_file=f"{scenario}.qgs", files=["data.gpkg", "a dir/né & ü.csv"], **values)
    return project, database.job(project, status="started")


def play_with_api(ground, api, project, job, token, scenario="success"):
    env = {"QFIELDCLOUD_URL": api.url, "QFIELDCLOUD_TOKEN": token, "JOB_ID": str(job["id"])}
    return Played(ground, "package", str(project["id"]), f"{scenario}.qgs", "qgiscore", network=ground.network, env=env)


@pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
def test_a_container_downloads_and_uploads(ground, database, api):
    project, job = running_package(database)
    token = database.token(database.get("core_user", job["created_by_id"]))
    played = play_with_api(ground, api, project, job, token["key"])
    assert played.code == 0 and "error" not in played.feedback, played.log.decode()
    assert [request.route for request in api.requests] == ["list"] + ["download"] * 3 + ["package"] * 2
    assert {request.status for request in api.requests} == {200}
    data = f"the data of {project['id']}\n".encode()
    assert api.uploaded(job) == {"data.gpkg": data, "project_qfield.qgz": b"the project success.qgs\n"}


def test_deltas_change_the_projects_file(ground, database, api):
    project = database.project()
    job = database.apply_job(project, [database.delta(project)], status="started")
    token = database.token(database.get("core_user", job["created_by_id"]))
    env = {"QFIELDCLOUD_URL": api.url, "QFIELDCLOUD_TOKEN": token["key"], "JOB_ID": str(job["id"])}
    files = {"deltafile.json": json.dumps(DELTAS).encode()}
    args = ("apply_deltas", str(project["id"]), "success.qgs")
    played = Played(ground, *args, network=ground.network, env=env, files=files)
    assert "error" not in played.feedback
    key = f"projects/{project['id']}/files/data.gpkg"
    assert database.objects[key] == f"this is data.gpkg\nwith deltas of {job['id']}\n".encode()
    assert database.value("SELECT latest_version_count FROM filestorage_file WHERE name = 'data.gpkg'") == 2


def test_a_refused_token_is_a_workflow_error(ground, database, api):
    project, job = running_package(database)
    played = play_with_api(ground, api, project, job, "wrong")
    assert played.code == 0
    assert played.feedback["error_type"] == "API_TOKEN_EXPIRED"
    assert '"401 Unauthorized"' in played.feedback["error"]
    assert [step["stage"] for step in played.feedback["steps"]] == [2, 1, 0, 0, 0, 0, 0]
    assert [request.status for request in api.requests] == [401]


def ask(api, path, token):
    """As from a container: the player listens where the engine's bridges are."""
    return api.engine.inside(ask_here, f"{api.url}{path}", token)


def ask_here(url, token):
    request = urllib.request.Request(url, headers={"Authorization": f"token {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_only_a_workers_live_token_of_a_running_job_is_taken(database, api):
    project, job = running_package(database)
    owner = database.get("core_user", project["owner_id"])
    path = f"files/{project['id']}/"
    good = database.token(owner)["key"]
    assert ask(api, path, good)[0] == 200
    assert ask(api, path, "")[0] == 401
    assert ask(api, path, database.token(owner, expires_in_s=-1)["key"])[0] == 401
    assert ask(api, path, database.token(owner, client_type="qfield")["key"])[0] == 401
    assert ask(api, path, database.token(database.user())["key"])[0] == 403
    database.update("core_job", job["id"], status="finished")
    assert ask(api, path, good)[0] == 403


def test_the_api_fails_when_told_to(database, api):
    project, _ = running_package(database)
    token = database.token(database.get("core_user", project["owner_id"]))["key"]
    api.answer(500, match="GET .*/data.gpkg", times=1)
    path = f"files/{project['id']}/data.gpkg/"
    assert ask(api, path, token)[0] == 500
    assert ask(api, path, token) == (200, b"this is data.gpkg\n")
    assert [request.status for request in api.requests] == [500, 200]


def test_an_engine_of_our_own_reaches_the_api(own_ground, database):
    project, job = running_package(database)
    token = database.token(database.get("core_user", job["created_by_id"]))
    api = Api(database, own_ground.engine, own_ground.gateway)
    try:
        played = play_with_api(own_ground, api, project, job, token["key"])
    finally:
        api.close()
    assert "error" not in played.feedback
    assert len(api.uploaded(job)) == 2
