"""Tests of the test bed itself: what the other tests rest on."""

import os
import subprocess
import sys
import uuid

import psycopg2
import pytest

from bed import BedError, cleanup, docker, engine as engines, schema
from bed.ctests import judge
from bed.leftovers import Leftovers
from bed.played import PROJECT
from bed.rows import changes
from bed.worker import Worker

RELEASES = ["v25.27", "v25.30", "v26.3", "v26.10", "v26.17", "v26.20", "v26.21", "v26.22", "v26.25"]
TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# PostgreSQL and the schema


@pytest.mark.parametrize(
    "asked, given", [("v26.4", "v26.3"), ("v26.24", "v26.22"), ("v26.9", "v26.3"), ("v27.1", "v26.25")]
)
def test_a_release_in_between_is_like_the_one_before_it(asked, given):
    assert schema.Schema(asked).release == given


def test_a_release_older_than_all_is_refused():
    with pytest.raises(ValueError, match="v25.1"):
        schema.Schema("v25.1")


@pytest.mark.parametrize("database", RELEASES, indirect=True)
def test_each_release_takes_one_row_of_everything(database):
    owner, member = database.user("alice"), database.user()
    organization = database.organization(owner, members=[member], admins=[database.user()])
    team = database.team(organization, members=[database.user()])
    project = database.project(organization, is_public=True)
    database.collaborator(project, member)
    database.collaborator(project, team, role="reader")
    for type_ in ("package", "process_projectfile", "create_project"):
        database.job(project, type_, user=owner)
    delta = database.delta(project, user=owner)
    applied = database.apply_job(project, [delta, database.delta(project, user=owner)], user=owner)
    package = database.job(project, "package", "finished", user=owner, feedback={"steps": []}, output="done")
    database.file(project, "data.gpkg", file_type=2, package_job=package)
    database.constance("WORKER_TIMEOUT_S", 600)
    database.secret("TOKEN", "gAAAA", organization=organization, user=owner)
    database.token(owner)
    if database.has("project_qgisproject"):
        file = database.one("SELECT * FROM filestorage_file WHERE name = 'success.qgs'")
        database.insert("project_qgisproject", project_id=project["id"], file_version_id=file["latest_version_id"])
        database.insert("project_qgislayer", qgis_project_id=project["id"])
    counts = {table: len(rows) for table, rows in database.dump().items()}
    seeds = {"core_projectseed", "project_projectseed", "auditlog_logentry"}
    assert {table for table, count in counts.items() if not count} <= seeds
    of_job = "SELECT delta_id FROM core_applyjobdelta WHERE apply_job_id = %s ORDER BY id"
    deltas = database.execute(of_job, applied["id"])
    assert len(deltas) == 2 and deltas[0]["delta_id"] == delta["id"]
    members = database.execute("SELECT name FROM organizations_with_roles_vw ORDER BY rank DESC")
    assert [row["name"] for row in members] == ["admin", "admin", "member"]
    viewers = database.execute("SELECT origin FROM projects_with_roles_vw ORDER BY rank DESC, user_id")
    origins = ["organization_owner", "organization_admin", "collaborator", "team_member"]
    assert [row["origin"] for row in viewers] == origins


def test_the_project_table_and_its_qgis_file_follow_the_release(databases):
    old, new = databases("v26.20"), databases("v26.21")
    assert old.project()["the_qgis_file_name"] == "success.qgs"
    assert old.value("SELECT app_label FROM django_content_type WHERE model = 'project'") == "core"
    file = new.project()["the_qgis_file_id"]
    assert new.get("filestorage_file", file)["name"] == "success.qgs"
    assert new.value("SELECT app_label FROM django_content_type WHERE model = 'project'") == "project"


LAST_MIGRATIONS = {
    "v25.30": "0094",
    "v26.3": "0095",
    "v26.10": "0099",
    "v26.17": "0101",
    "v26.24": "0109",
    "v26.25": "0110",
}


@pytest.mark.parametrize("release, last", LAST_MIGRATIONS.items())
def test_the_last_migration_is_that_of_the_release(databases, release, last):
    newest = "SELECT name FROM django_migrations WHERE app = 'core' ORDER BY name DESC LIMIT 1"
    assert databases(release).value(newest).startswith(last)


def test_foreign_keys_are_checked_at_commit(database):
    connection = database.connect()
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO core_packagejob (job_ptr_id) VALUES (%s)", (uuid.uuid4(),))
        with pytest.raises(psycopg2.errors.ForeignKeyViolation):
            connection.commit()
    connection.close()


def test_columns_have_no_defaults(database):
    defaults = database.value(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public' AND column_default IS NOT NULL"
    )
    assert defaults == 0


def test_a_file_name_without_a_package_is_unique_where_the_server_can_say_so(database):
    project = database.project()
    with pytest.raises(psycopg2.errors.UniqueViolation):
        database.file(project, "success.qgs")


def test_a_column_that_the_release_lacks_is_refused(databases):
    with pytest.raises(KeyError, match="qgis_version"):
        databases("v26.17").project(qgis_version="3.40")


def test_tcp_asks_for_the_password(postgres, database):
    psycopg2.connect(database.url).close()
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(database.url.replace(postgres.password[-8:], "x"))


def test_dumps_tell_what_has_changed(database):
    project = database.project()
    job = database.job(project)
    before = database.dump("core_job", "core_packagejob")
    database.update("core_job", job["id"], status="queued")
    other = database.job(project)
    found = changes(before, database.dump("core_job", "core_packagejob"))
    assert found["core_job", str(job["id"])] == {"status": ("pending", "queued")}
    assert {table for table, key in found if key == str(other["id"])} == {"core_job", "core_packagejob"}


def test_the_server_can_be_stopped_and_crashed(postgres, database):
    database.user("alice")
    pid = database.value("SELECT pg_backend_pid()")
    postgres.restart("immediate")
    database.disconnect()
    assert database.value("SELECT username FROM core_user") == "alice"
    assert database.value("SELECT pg_backend_pid()") != pid
    postgres.stop()
    assert not postgres.running()
    postgres.start()


def run_with_postgres(*command):
    path = os.path.join(TESTS, "bed", "with_postgres.py")
    return subprocess.run([sys.executable, path, *command], stdout=subprocess.PIPE, text=True, timeout=120, check=False)


def test_other_programs_get_a_server_of_their_own_and_its_end():
    script = (
        'test -n "$QFC_TEST_DATABASE_URL" && $QFC_TEST_PG_CTL restart -m immediate && dirname $QFC_TEST_PG_CTL; exit 7'
    )
    done = run_with_postgres("sh", "-c", script)
    assert done.returncode == 7
    directory = done.stdout.strip()
    assert os.path.basename(directory).startswith("qfc-bed-") and not os.path.exists(directory)


def test_sigterm_takes_the_server_away():
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from bed import cleanup, postgres\n"
        "cleanup.on_signals(); server = postgres.Server(); print(server.directory, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, TESTS], capture_output=True, text=True, timeout=60, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert done.stdout.strip() and not os.path.exists(done.stdout.strip())
    assert not engines.belonging(done.stdout.strip())


def test_what_a_killed_run_left_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(cleanup.tempfile, "gettempdir", lambda: str(tmp_path))
    for name, owner in (("qfc-bed-x-1", "1 0"), ("qfc-bed-x-2", f"{os.getpid()} {cleanup.start_time(os.getpid())}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".owner").write_text(owner)
    assert cleanup.abandoned() == [str(tmp_path / "qfc-bed-x-1")]


# What is left over, and running the program


@pytest.fixture
def watch(ground, databases, directory):
    made = Leftovers(ground.docker, ground.image, ground.network, "qfc-bed", directory)
    made.databases = databases.made
    return made


def test_a_planted_container_is_noticed_and_removed(ground, watch):
    container = ground.create("package", PROJECT, "success.qgs", "qgiscore", name="qfc-bed-planted")
    found = watch.found(patience_s=0)
    assert len(found) == 1 and container[:12] in found[0]
    watch.remove(found)
    assert watch.found() == []


def test_a_container_of_others_is_not_ours(ground, watch):
    shared = next(tag for tag in ground.docker.image(ground.image)["RepoTags"] if "run-" not in tag)
    container = ground.docker.create(shared, ["true"])
    try:
        assert watch.found(patience_s=0) == []
    finally:
        ground.docker.remove(container)


def test_planted_volumes_files_and_tokens_are_noticed(ground, database, directory, watch):
    volume = {"Type": "volume", "Target": "/io"}
    container = ground.create("package", PROJECT, "success.qgs", "qgiscore", network="none", Mounts=[volume])
    volume = ground.docker.inspect(container)["Mounts"][0]["Name"]
    ground.docker.start(container)
    ground.docker.wait(container)
    ground.docker.delete(f"/containers/{container}")  # without its volumes
    with open(os.path.join(directory, "forgotten"), "w", encoding="ascii"):
        pass
    user = database.user()
    database.token(user)
    row = database.insert("authentication_authtoken", key="left", user_id=user["id"], client_type="worker")
    found = watch.found(patience_s=0)
    watch.remove(found)
    assert [line.split()[0] for line in found] == ["file", "token", "volume"]
    assert f"row {row['id']} " in found[1] and volume in found[2]


def test_a_volume_of_others_is_not_ours(ground, watch):
    volume = ground.docker.post("/volumes/create", {})["Name"]
    assert watch.found(patience_s=0) == []
    ground.docker.delete(f"/volumes/{volume}")


PROGRAM = """#!/bin/sh
echo '{"level": "info", "message": "began", "job": "1"}' >&2
echo "not a line of the log" >&2
printf '%s' "$POSTGRES_DB $DOCKER_HOST $1"
[ "$1" = stay ] && { trap 'echo "{\\"message\\": \\"stopped\\"}" >&2; exit 3' TERM; while :; do sleep 0.05; done; }
[ "$1" = bad ] && { echo "x.c:1:2: runtime error: shift" >&2; }
exit 0
"""


@pytest.fixture
def shell_worker(tmp_path, database, ground, directory):
    path = tmp_path / "qfc-worker"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return Worker(str(path), database, ground.engine, ground.image, ground.network, directory)


def test_a_run_gives_exit_code_and_log(shell_worker, database, ground):
    done = shell_worker.run("run")
    assert (done.returncode, done.stdout) == (0, f"{database.name} {ground.engine.host} run")
    assert done.messages("info") == ["began"] and done.other == ["not a line of the log"]
    assert shell_worker.close() == []


def test_a_program_in_the_background_is_stopped(shell_worker):
    process = shell_worker.start("stay")
    shell_worker.wait_for(lambda: process.output().stdout, "its output")
    assert process.stop().messages() == ["began", "stopped"]
    assert process.process.returncode == 3
    assert shell_worker.close() == []


def test_waiting_ends_when_the_program_does(shell_worker):
    shell_worker.start("run")
    with pytest.raises(AssertionError, match="the program has ended without a miracle"):
        shell_worker.wait_for(lambda: False, "a miracle")


def test_a_forgotten_program_and_a_sanitizers_report_are_complaints(shell_worker):
    shell_worker.run("bad")
    process = shell_worker.start("stay")
    complaints = shell_worker.close()
    assert len(complaints) == 2 and "runtime error" in complaints[0] and "left the program running" in complaints[1]
    assert process.process.returncode == -9


# Counting


@pytest.mark.parametrize(
    "returncode, output, passed, failed",
    [
        (0, "1..2\nok 1 - a\nok 2 - b\n# ok - tests\n", 2, 0),
        (1, "1..2\nok 1 - a\nnot ok 2 - b\n# why\n# not ok - tests\n", 1, 1),
        (-11, "1..2\nok 1 - a\n", 1, 1),
        (99, "1..2\nok 1 - a\nok 2 - b\n", 2, 1),
        (0, "1..2\nok 1 - a\n", 1, 1),
        (0, "1..2\nok 1 - a\nnot ok 2 # SKIP b\n", 1, 1),
        (0, "1..1\nok 1 # SKIP a\n", 0, 1),
        (0, "", 0, 1),
        (None, "1..1\nok 1 - a\n", 1, 1),
    ],
)
def test_c_tests_are_counted(returncode, output, passed, failed):
    found, complaints = judge(returncode, output)
    assert (found, len(complaints)) == (passed, failed)


COUNTED = """
import pytest
@pytest.fixture
def bad():
    yield
    assert False
def test_good(): pass
def test_bad(): assert False
def test_bad_teardown(bad): pass
def test_skipped(): pytest.skip("no reason")
@pytest.mark.skip
def test_marked(): assert False
"""


def test_python_tests_are_counted_and_a_skip_is_a_failure(tmp_path):
    (tmp_path / "test_some.py").write_text(COUNTED)
    (tmp_path / "test_none.py").write_text("import nothing_of_that_name\n")
    env = {**os.environ, "PYTHONPATH": TESTS, "QFC_TEST_COUNTS": str(tmp_path / "counts")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "bed.counting", "--rootdir", "."]
    done = subprocess.run(
        [*command, "--continue-on-collection-errors"], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 1
    assert (tmp_path / "counts").read_text() == "test_none.py\t0\t1\ntest_some.py\t1\t4\n"


# An engine of one's own


def test_an_engine_of_our_own_survives_what_tests_do_to_it(own_ground, database):
    engine, client = own_ground.engine, own_ground.docker
    container = own_ground.create("package", PROJECT, "sleep@600.qgs", "qgiscore")
    client.start(container)
    engine.kill()
    assert not client.answers()
    survivors = engines.belonging(engine.directory)
    assert survivors
    engine.end_survivors()
    assert not engines.belonging(engine.directory)
    engine.start()
    assert not client.inspect(container)["State"]["Running"]
    engine.restart()
    assert [entry["Id"] for entry in client.containers()] == [container]


def test_an_engine_of_our_own_leaves_nothing():
    own = engines.OwnEngine()
    directory = own.directory
    own.docker.create_network("one")
    own.kill()
    own.close()
    assert not os.path.exists(directory) and not engines.belonging(directory)
    with open("/proc/mounts", encoding="utf-8") as file:
        assert directory not in file.read()


def test_without_an_engine_the_reason_is_said(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    with pytest.raises(BedError, match="/nowhere/docker.sock"):
        engines.find()


def test_an_error_of_the_engine_says_what_was_asked(ground):
    with pytest.raises(docker.DockerError, match="GET /containers/nobody/json: No such container") as caught:
        ground.docker.inspect("nobody")
    assert caught.value.status == 404
