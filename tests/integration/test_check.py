"""check: each failure that it knows, made for real, and its line; what --fix mends, seen in tables and engine."""

import contextlib
import datetime
import grp
import json
import os
import pathlib
import re
import secrets
import signal
import subprocess
import time

import pytest
from bed import postgres as servers
from bed.fernet import fernet_of
from bed.pooler import Pooler
from bed.python_image import PythonImage

WORST = {"ok": 0, "warning": 1, "failed": 2, "skipped": 2}
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NOWHERE = "127.0.0.1:9"  # nobody listens there


@pytest.fixture(scope="module")
def python_image(ground):
    made = PythonImage(ground.docker, ground.session)
    yield made.name
    made.close()


class Check:
    """Calls check, and reads its JSON."""

    def __init__(self, worker):
        self.worker, self.secrets = worker, []

    def all(self, *args, **env):
        """[(name, state, seen, next)] of all lines. The exit code says the same as the worst of them, and no secret is
        in any."""
        done = self.worker.run("check", "--json", *args, **env)
        assert done.stderr == "" or "--fix" in args, done  # what is mended leaves a line in the log
        found = json.loads(done.stdout)
        assert done.returncode == max((WORST[line["state"]] for line in found), default=0), done
        for secret in [self.worker.env["POSTGRES_PASSWORD"], *self.secrets]:
            assert secret not in done.stdout
        self.said = {line["name"]: line.get("fixed") or line.get("would") for line in found if len(line) > 4}
        return [(line["name"], line["state"], line["seen"], line["next"]) for line in found]

    def many(self, name, *args, **env):
        """The lines of one check, of which it was asked: [(state, seen, next)]."""
        return [line[1:] for line in self.all("--only", name, *args, **env) if line[0] == name]

    def one(self, name, *args, **env):
        """The only line of it."""
        (line,) = self.many(name, *args, **env)
        return line


@pytest.fixture
def check(worker):
    return Check(worker)


def is_said(line, state, seen, next_=None):
    """Is it the line that is expected? The texts are regular expressions for all of seen and of next."""
    assert line[0] == state and re.fullmatch(seen, line[1], re.DOTALL), line
    assert (line[2] is None) == (next_ is None) and (next_ is None or re.fullmatch(next_, line[2])), line


# The command itself


def test_all_is_well(check, database, worker, python_image, s3, api):
    """Every check makes its line; with triggers, a storage and a worker none of them complains."""
    worker.run("setup-db", "--index")
    running = worker.start("run")
    wait_for(lambda: check.one("workers"), lambda line: line[0] == "ok")
    env = {f"QFIELDCLOUD_QGIS{number}_IMAGE_NAME": python_image for number in ("", "3", "4")}
    found = check.all(STORAGES=s3.storages(), **env)
    names = [row.split(" | ")[0][2:] for row in worker.run("check", "--list").stdout.splitlines()[2:]]
    assert list(dict.fromkeys(line[0] for line in found)) == names
    assert [line for line in found if line[1] != "ok"] == []
    assert [request.path for request in api.requests] == ["/api/v1/status/"]
    running.stop()


def test_lines_for_people(worker):
    """One line for each thing and what to do below, nothing but what is wrong with --quiet, and the sum at the end."""
    env = {"DATABASE_URL": f"postgresql://u:geheim@{NOWHERE}/d"}
    output = worker.run("check", "--only", "release,settings", **env)
    assert output.returncode == 2 and output.stderr == ""
    lines = output.stdout.splitlines()
    assert lines[0].startswith("ok       settings     ")
    assert lines[1].startswith('failed   database     connect to PostgreSQL: connection to server at "127.0.0.1"')
    assert lines[2].startswith("                      next: nobody listens there")
    assert lines[3:] == [
        "skipped  release      not looked at: the database cannot be worked with",
        "1 ok, 0 warnings, 1 failed, 1 not looked at",
    ]
    quiet = worker.run("check", "--only", "release", "--quiet", **env)
    assert quiet.stdout.splitlines() == lines[1:4] and quiet.returncode == 2


def test_document(built):
    """docs/check.md has a section for each check, in their order, and explains each line that is no `ok`: the texts are
    those of the program's source, with … for what differs."""
    document = " ".join((ROOT / "docs" / "check.md").read_text().split())
    listed = subprocess.run([built, "check", "--list"], capture_output=True, text=True, check=True).stdout
    names = [row.split(" | ")[0][2:] for row in listed.splitlines()[2:]]
    assert re.findall(r" ## ([a-z]+) ", document) == names
    missing = [text for text in said_by_the_source() if f"**{text}**" not in document]
    assert not missing, "\n".join(missing)


def said_by_the_source():
    found = set()
    call = re.compile(r'(?:check_found\(look,|snprintf\(what, sizeof what,)([^"]*)((?:"(?:[^"\\\\]|\\\\.)*"\s*)+)')
    for path in (ROOT / "ops").glob("check_*.c"):
        for state, text in call.findall(path.read_text()):
            text = "".join(re.findall(r'"((?:[^"\\\\]|\\\\.)*)"', text)).replace('\\"', '"')
            text = re.sub(r"(?:%[-0-9.*]*(?:ll|l|z)?[dufszgi])+", "…", text).replace("%%", "%")
            if state.strip() != "CHECK_OK," and len(re.findall("[a-z]{2,}", text)) > 1 and text != "and … more":
                found.add(text)
    assert len(found) > 30
    return found


@pytest.mark.parametrize("args, message", [
    (["--only", "database,weather"], "--only: no such check; `qfc-worker check --list` names them: weather"),
    (["now"], "check takes no such argument: now"),
    (["--fly"], "no such option of check: --fly"),
])  # fmt: skip
def test_wrong_calls(worker, args, message):
    output = worker.run("check", *args)
    assert output.returncode == 2 and output.stdout == ""
    assert output.stderr == f"qfc-worker: {message}\nTry: qfc-worker --help\n"


def test_settings(check):
    is_said(check.one("settings", LOGLEVEL="chatty"), "failed", "LOGLEVEL=chatty: expected one of .*", "correct that .*")
    skipped = [line for line in check.all(LOGLEVEL="chatty") if line[0] != "settings"]
    assert skipped and {line[1] for line in skipped} == {"skipped"}
    lines = check.many("settings", QFC_WORKER_CONCURENCY="3")
    is_said(lines[1], "warning", "there is no setting QFC_WORKER_CONCURENCY: it changes nothing", "compare it .*")


# The database


@pytest.mark.parametrize("env, seen, next_", [
    ({"POSTGRES_HOST": "no-such-host.invalid"}, ".*could not translate host name \"no-such-host.invalid\".*",
     "correct POSTGRES_HOST .*"),
    ({"POSTGRES_PORT": "9"}, ".*port 9 failed: Connection refused.*", "nobody listens there: start the server.*"),
    ({"POSTGRES_HOST": "/nowhere"}, ".*\"/nowhere/.*No such file or directory.*", "POSTGRES_HOST names a socket's.*"),
    ({"POSTGRES_PASSWORD": "wrong"}, ".*password authentication failed for user \"qfieldcloud_db_admin\".*",
     "correct POSTGRES_USER and POSTGRES_PASSWORD .*"),
    ({"POSTGRES_PASSWORD": None}, ".*no password supplied.*", "set POSTGRES_PASSWORD"),
    ({"POSTGRES_DB": "elsewhere"}, '.*database "elsewhere" does not exist', "correct POSTGRES_DB and POSTGRES_USER"),
    ({"POSTGRES_SSLMODE": "require"}, ".*server does not support SSL, but SSL was required.*", "turn on ssl .*"),
    ({"DATABASE_URL": "postgresql://u:geheim@host:port/db"},
     "DATABASE_URL: libpq takes one of its values for invalid, such as port or sslmode", "correct POSTGRES_.*"),
])  # fmt: skip
def test_no_connection(check, env, seen, next_):
    check.secrets = ["geheim"]
    is_said(check.one("database", **env), "failed", seen, next_)


def test_certificate(check, postgres, tmp_path):
    """A server whose certificate another authority has signed."""
    key, certificate = (os.path.join(postgres.data, f"server.{end}") for end in ("key", "crt"))
    os.system(f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -subj /CN=db -days 2 2>&1")
    os.system(f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {tmp_path}/k -out {tmp_path}/ca -subj /CN=o 2>&1")
    for path in (key, certificate):
        os.chmod(path, 0o600)
        if postgres.account:
            os.chown(path, postgres.account.pw_uid, postgres.account.pw_gid)
    url = postgres.url(check.worker.database.name)
    with altered(postgres, "ssl", "on"):
        is_said(check.one("database", DATABASE_URL=f"{url}?sslmode=verify-ca&sslrootcert={tmp_path}/ca"), "failed",
                ".*certificate verify failed.*", "the server's certificate is not the one that is trusted.*")
        is_said(check.one("database", DATABASE_URL=f"{url}?sslmode=verify-ca&sslrootcert=/nowhere"), "failed",
                '.*root certificate file "/nowhere" does not exist.*', "put the certificate of the server's .*")
        assert " over TLS, " in check.one("database")[1]


@contextlib.contextmanager
def altered(server, name, value):
    """A setting of the server that a reload changes."""
    connection = server.connect("postgres", superuser=True)
    try:
        with connection.cursor() as cursor:
            for statement in (f"ALTER SYSTEM SET {name} = {value}", f"ALTER SYSTEM RESET {name}"):
                cursor.execute(statement)
                cursor.execute("SELECT pg_reload_conf()")
                if "RESET" not in statement:
                    for _ in range(600):
                        probe = server.connect("postgres", superuser=True)
                        with probe.cursor() as asked:
                            asked.execute(f"SHOW {name}")
                            now = asked.fetchone()[0]
                        probe.close()
                        if now == value:
                            break
                    yield
    finally:
        connection.close()


def test_standby(check):
    server = servers.Server()
    try:
        database = server.database()
        database.disconnect()
        server.stop()
        with open(os.path.join(server.data, "postgresql.conf"), "a", encoding="utf-8") as file:
            file.write("wal_level = replica\n")
        server.start()
        server.stop()
        path = os.path.join(server.data, "standby.signal")
        with open(path, "w", encoding="ascii"):
            pass
        if server.account:
            os.chown(path, server.account.pw_uid, server.account.pw_gid)
        server.start()
        is_said(check.one("database", **database.settings), "failed",
                "the server at 127.0.0.1 is a standby, which takes no writes", "connect to the primary: .*")
    finally:
        server.close()


def test_read_only(check, database):
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    is_said(check.one("database"), "failed", "the database takes no writes: default_transaction_read_only is on",
            f"find out who .* ALTER DATABASE {database.name} RESET .*")


@pytest.mark.parametrize("mode, states", [("session", ["ok"]), ("transaction", ["ok", "failed"])])
def test_pooler(check, database, postgres, mode, states):
    pooler = Pooler(postgres, mode)
    try:
        lines = check.many("database", POSTGRES_PORT=str(pooler.port))
    finally:
        pooler.close()
    assert [line[0] for line in lines] == states
    if len(lines) > 1:
        is_said(lines[1], "failed", "a pooler gives each transaction another session .*", "connect to PostgreSQL itself.*")


def test_pool_of_one(check, postgres):
    """Where two connections have one session, nobody waits for ever."""
    pooler = Pooler(postgres, "transaction", default_pool_size=1)
    try:
        lines = check.many("database", POSTGRES_PORT=str(pooler.port))
    finally:
        pooler.close()
    assert [line[0] for line in lines] == ["ok", "failed"]


@pytest.mark.parametrize("database", ["v25.30", "v26.21", "v26.25"], indirect=True)
def test_release(check, database):
    assert check.one("release")[1].startswith("QFieldCloud v2")
    postgres = database.server
    name = f"empty_{secrets.token_hex(4)}"
    postgres.create(name)
    try:
        is_said(check.one("release", POSTGRES_DB=name), "failed",
                f'database "{name}" has no table core_job: .*', "correct POSTGRES_DB, or let .* migrate")
    finally:
        postgres.drop(name)


@pytest.fixture
def poor_role(database):
    """A role that may look into the tables, and no more."""
    name = f"poor_{secrets.token_hex(4)}"
    server = database.server
    with superuser(database) as execute:
        execute(f"CREATE ROLE {name} LOGIN PASSWORD '{server.password}'")
        execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    yield name
    with superuser(database) as execute:
        execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@contextlib.contextmanager
def superuser(database):
    connection = database.server.connect(database.name, superuser=True)
    try:
        with connection.cursor() as cursor:
            yield cursor.execute
    finally:
        connection.close()


@pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
def test_privileges(check, database, worker, poor_role):
    """What is said to be missing is enough, once it is granted: jobs of all types succeed."""
    line = check.one("privileges", POSTGRES_USER=poor_role)
    is_said(line, "failed", f"{poor_role} lacks .*UPDATE on core_job; .*", f"as the tables' owner: GRANT .* TO {poor_role}")
    with superuser(database) as execute:
        execute(line[2].removeprefix("as the tables' owner: "))
    is_said(check.one("privileges", POSTGRES_USER=poor_role), "ok", f"{poor_role} may do all that a worker does")
    jobs = [database.job(database.project(qgis_file="offline.qgs"), type_) for type_ in ("package", "process_projectfile")]
    project = database.project(qgis_file="offline.qgs")
    jobs.append(database.apply_job(project, [database.delta(project)]))
    output = worker.run("run", "--drain", POSTGRES_USER=poor_role)
    assert output.returncode == 0, output
    for job in jobs:
        row = database.get("core_job", job["id"])
        assert row["status"] == "finished", row["feedback"]


def test_triggers(check, database):
    """Without them there is a warning, and --fix installs them; --dry-run does not."""
    is_said(check.one("triggers"), "warning", "no trigger tells workers of new jobs.*every 1000 ms", "qfc-worker setup-db")
    count = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'qfc_worker%%'"
    assert check.one("triggers", "--dry-run")[0] == "warning" and database.value(count) == 0
    assert check.said == {"triggers": ["install the triggers, as qfc-worker setup-db does"]}
    is_said(check.one("triggers", "--fix"), "ok", "workers hear of new jobs at once")
    assert database.value(count) == 3 and "made trigger qfc_worker_job_new on public.core_job" in check.said["triggers"]
    assert check.one("triggers", "--fix")[0] == "ok" and check.said == {}


def test_indexes(check, database, worker):
    """They are missed only where there are many jobs."""
    assert check.one("indexes")[0] == "ok"
    with superuser(database) as execute:
        execute("UPDATE pg_class SET reltuples = 3e6 WHERE oid = 'core_job'::regclass")
    is_said(check.one("indexes"), "warning", "no index of its own for claims: core_job has some 3000000 rows, among .*",
            "qfc-worker setup-db --index")
    worker.run("setup-db", "--index")
    assert check.one("indexes")[0] == "ok"


# The engine


def test_no_engine(check, proxy):
    is_said(check.one("engine", DOCKER_HOST="unix:///nowhere/docker.sock"), "failed",
            ".*/nowhere/docker.sock: no socket there: is the engine running\\?", "start the engine .* -v /nowhere/.*")
    is_said(check.one("engine", DOCKER_HOST=f"tcp://{NOWHERE}"), "failed",
            f".*{NOWHERE}: nobody listens there.*", "start the engine: systemctl start docker")
    is_said(check.one("engine", DOCKER_HOST="ssh://u:geheim@there"), "failed", "DOCKER_HOST: @there: only unix.*",
            "correct DOCKER_HOST, .*")


def test_socket_without_permission(check, proxy):
    """As a user who is not in the group that owns the socket; then in it."""
    command = check.worker.command
    group = next(g for g in grp.getgrall() if g.gr_gid not in (0, 65534))
    os.chown(proxy.socket_path, 0, group.gr_gid)
    os.chmod(proxy.socket_path, 0o660)
    check.worker.command = lambda *args: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command(*args)]
    is_said(check.one("engine", DOCKER_HOST=proxy.host), "failed",
            f'.*permission denied: this user is not in the group "{group.gr_name}" \\({group.gr_gid}\\) .*',
            f'add group {group.gr_gid} to this user: in compose group_add: \\["{group.gr_gid}"\\], .*')
    check.worker.command = lambda *args: ["setpriv", "--reuid=65534", "--regid=65534",
                                          f"--groups={group.gr_gid}", *command(*args)]
    assert check.one("engine", DOCKER_HOST=proxy.host)[0] == "ok"


@pytest.mark.parametrize("versions, seen", [
    ({"ApiVersion": "1.30", "MinAPIVersion": "1.12"}, "the engine at .* is too old: it speaks API 1.30 at most.*"),
    ({"ApiVersion": "1.90", "MinAPIVersion": "1.80"}, "the engine at .* is too new: it speaks API 1.80 at least.*"),
])  # fmt: skip
def test_engine_of_another_time(check, proxy, versions, seen):
    proxy.answer("GET /version", 200, json.dumps(versions).encode(), times=None)
    is_said(check.one("engine", DOCKER_HOST=proxy.host), "failed", seen, "bring the engine to a version .*")


@pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
def test_images(check, database):
    """Those that the release needs; one that no project needs yet is worth a warning."""
    gone = {f"QFIELDCLOUD_QGIS{number}_IMAGE_NAME": f"gone{number}:now" for number in ("", "3", "4")}
    if not database.has(database.project_table, "qgis_version"):
        is_said(check.one("images", **gone), "failed", "the engine has no image gone:now: no job of any project is run",
                "make it again: .*")
        return
    assert [line[0] for line in check.many("images", **gone)] == ["failed", "warning"]
    database.project(qgis_version="4.0.2")
    three, four = check.many("images", **gone)
    is_said(three, "failed", "the engine has no image gone3:now: no job of projects of QGIS 3 is run", "make it .*")
    is_said(four, "failed", "the engine has no image gone4:now: no job of projects of QGIS 4 is run", "make it .*")


def test_network_and_volume(check, ground):
    is_said(check.one("network", QFIELDCLOUD_DEFAULT_NETWORK="gone"), "failed",
            "the engine has no network gone: no job is run", "docker compose up -d makes it; or .*")
    is_said(check.one("network"), "ok", f"{ground.network} is there")
    is_said(check.one("volumes"), "ok", "none is asked for")
    is_said(check.one("volumes", QFIELDCLOUD_TRANSFORMATION_GRIDS_VOLUME_NAME="gone"), "failed",
            "the engine has no volume gone: it makes an empty one .*", "docker compose up -d makes and fills it; or .*")


@pytest.fixture
def ask_url(check, python_image, ground):
    """Asks from a container; nothing is left of it."""

    def ask(**env):
        line = check.one("url", QFIELDCLOUD_QGIS3_IMAGE_NAME=python_image, **env)
        assert [c for c in ground.docker.containers(label=["qfc_check"]) if c["Image"] == python_image] == []
        return line

    return ask


@pytest.mark.parametrize("url, seen, next_", [
    ("http://no-such-host.invalid/api/v1/", ".*does not answer a container: .*[Nn]ame.*",
     "no service of that name is on the containers' network: .*"),
    ("http://127.0.0.1:9/api/v1/", ".*does not answer a container: .*Connection refused", "the web application does not .*"),
    ("http://u:geheim@127.0.0.1:9/api/v1/", "http://127.0.0.1:9/api/v1/ does not answer a container: .*", ".*"),
])  # fmt: skip
def test_url_without_answer(ask_url, check, url, seen, next_):
    check.secrets = ["geheim"]
    is_said(ask_url(QFIELDCLOUD_WORKER_QFIELDCLOUD_URL=url), "failed", seen, next_)


@pytest.mark.parametrize("status, next_", [
    (400, "add the name in that URL to DJANGO_ALLOWED_HOSTS .*"),
    (404, "QFIELDCLOUD_WORKER_QFIELDCLOUD_URL must end in /api/v1/"),
    (502, "docker compose ps app, docker compose logs app"),
])  # fmt: skip
def test_url_that_answers_badly(ask_url, api, status, next_):
    api.answer(status, "GET /api/v1/status/")
    is_said(ask_url(), "failed", f"{api.url} .*: HTTP {status}", next_)


def test_container_of_a_check(check, ground, proxy, python_image):
    """It is held in as a job's is, and goes when its start is refused, and when nobody hears of its creation."""
    proxy.answer("POST /containers/.*/start", 500)
    line = check.one("url", DOCKER_HOST=proxy.host, QFIELDCLOUD_QGIS3_IMAGE_NAME=python_image)
    assert line[0] == "failed"
    assert [c for c in ground.docker.containers(label=["qfc_check"]) if c["Image"] == python_image] == []
    image = check.one("url", QFIELDCLOUD_QGIS3_IMAGE_NAME="gone:now")
    is_said(image, "skipped", "not looked at: create container qfc-check-.*No such image.*")


# Storages and secrets


def test_storages(check, s3, webdav):
    check.secrets = [s3.secret_key]
    assert check.one("storages")[0] == "warning"
    both = json.dumps({**json.loads(s3.storages()), **json.loads(webdav.storages(name="dav"))})
    assert check.many("storages", STORAGES=both) == [("ok", "default answers", None), ("ok", "dav answers", None)]
    is_said(check.one("storages", STORAGES="{"), "failed", "STORAGES is not JSON.*", "correct STORAGES: .*")
    is_said(check.one("storages", STORAGES=s3.storages(endpoint_url=f"http://{NOWHERE}")), "failed", ".*", "correct the address .*")
    is_said(check.one("storages", STORAGES=s3.storages(bucket="gone")), "failed", ".*NoSuchBucket.*", "correct the bucket's .*")
    is_said(check.one("storages", STORAGES=s3.storages(secret_key="geheim")), "failed", ".*403.*", "the store refuses: .*")
    is_said(check.one("storages", STORAGES=webdav.storages(webdav_url="http://u:geheim@127.0.0.1:9/dav")), "failed",
            ".*", "correct the address .*")


def test_secrets(check, database):
    """Keys that decrypt all, none, and some; secrets that were never encrypted count for nothing."""
    project = database.project()
    database.secret("PLAIN", "in the open", project=project)
    is_said(check.one("secrets"), "ok", "there is no encrypted secret .*")
    keys = check.worker.env["SECRET_KEY"], check.worker.env["SALT_KEY"]
    check.secrets = [keys[1], "value of it", "in the open"]
    database.secret("ONE", fernet_of(*keys).encrypt(b"value of it").decode(), project=project)
    is_said(check.one("secrets"), "ok", "SECRET_KEY and SALT_KEY decrypt the newest 1 secrets")
    is_said(check.one("secrets", SALT_KEY="another"), "failed", "SECRET_KEY and SALT_KEY decrypt none .*", "set both as .*")
    is_said(check.one("secrets", SECRET_KEY=None), "failed", "SECRET_KEY is not set: .*", "set SECRET_KEY and .*")
    database.secret("TWO", fernet_of("old", "keys").encrypt(b"x").decode(), project=project)
    is_said(check.one("secrets"), "warning", '1 of the newest 2 secrets do not decrypt, "TWO" among them', "they were .*")


# Workers and jobs


def ago(**span):
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**span)


def test_workers(check, database, worker, ground):
    """None, fewer than asked for, QFieldCloud's own, and one that hangs."""
    env = {"COMPOSE_PROJECT_NAME": ground.network}
    is_said(check.one("workers", **env), "failed", "no worker is alive: 0 jobs wait", "docker compose up -d worker_.*")
    old = ground.docker.create(ground.image, ["-c", "sleep 600 # manage.py dequeue"], Entrypoint=["/bin/sh"],
                               Labels={"com.docker.compose.project": ground.network, "qfc-bed": ground.session})
    ground.docker.start(old)
    is_said(check.one("workers", **env), "ok", "0 alive, and 1 of QFieldCloud's own")
    ours = worker.start("run")
    worker.wait_for(lambda: check.one("workers", **env)[1].startswith("1 alive: "), "a worker that is alive")
    ground.docker.remove(old)
    is_said(check.one("workers", QFIELDCLOUD_WORKER_REPLICAS="2", **env), "warning",
            "1 of 2 workers are alive \\(.*\\), and 0 of QFieldCloud's own", "docker compose ps worker_wrapper.*")
    ours.send(signal.SIGSTOP)
    worker.wait_for(lambda: len(check.many("workers", **env)) == 2, "a worker that is silent")
    none, silent = check.many("workers", **env)
    assert none[0] == "failed"
    is_said(silent, "warning", "worker [0-9a-f]{16} on .* has said nothing for .* s: it hangs, .*", "restart it .*")
    ours.send(signal.SIGCONT)
    ours.stop()


def test_queue(check, database):
    """A job that nobody takes."""
    is_said(check.one("queue"), "ok", "0 jobs wait, the oldest for -; 0 are under way")
    database.job(database.project(), created_at=ago(hours=2))
    is_said(check.one("queue"), "warning", "1 jobs could be run at once, and nobody has taken the oldest for 2h.*",
            "qfc-worker check --only workers,.*")


def test_queued(check, database):
    """A job that was born queued goes back, and nothing else does; --dry-run changes nothing."""
    project = database.project(name="trees\x1b[2J")
    job = database.job(project, status="queued", created_at=ago(hours=2))
    young = database.job(database.project(), status="queued")
    line = check.one("queued", "--dry-run")
    is_said(line, "warning", f"job {str(job['id'])[:8]} of .*/trees.* is queued, and no worker has ever marked it, .*",
            f"qfc-worker check --fix, or qfc-worker jobs requeue {str(job['id'])[:8]}")
    assert database.get("core_job", job["id"])["status"] == "queued" and len(check.said["queued"]) == 1
    assert "\x1b" not in check.worker.run("check", "--only", "queued").stdout
    is_said(wait_for(lambda: check.one("queued", "--fix"), lambda line: line[0] == "ok"), "ok", "none is queued without a worker's mark")
    assert database.get("core_job", job["id"])["status"] == "pending"
    assert database.get("core_job", young["id"])["status"] == "queued"


def test_jobs(check, database, worker, proxy):
    """One whose worker was killed before it was started goes back; one of QFieldCloud's own worker is only told of."""
    is_said(check.one("jobs"), "ok", "none has lost its worker")
    job = database.job(database.project(qgis_file="offline.qgs"))
    hold = proxy.hold("POST /containers/create")
    victim = worker.start("run", DOCKER_HOST=proxy.host)
    hold.reached()
    victim.stop(signal.SIGKILL)
    hold.release()
    line = wait_for(lambda: check.one("jobs"), lambda line: line[0] == "failed")
    is_said(line, "failed", f"job {str(job['id'])[:8]} of .* has lost its worker, .* and no other is alive; 0 more .*",
            "start a worker, which takes it over; or qfc-worker check --fix")
    # Just after the start of PostgreSQL a worker may be coming back.
    wait_for(lambda: check.one("jobs", "--fix"), lambda line: line[0] == "ok")
    row = database.get("core_job", job["id"])
    assert row["status"] == "pending" and row["container_id"] == "" and len(check.said["jobs"]) == 1
    old = database.job(database.project(), status="started", container_id="c0ffee", started_at=ago(hours=3))
    is_said(check.one("jobs"), "warning", f"job {str(old['id'])[:8]} of .* has run for 3h.* of QFieldCloud's own; .*",
            f"if nothing runs it any more: qfc-worker jobs cancel --force {str(old['id'])[:8]}")
    wait_for(lambda: check.one("leftovers"), lambda line: line[0] == "warning")  # what the victim has made after all
    assert check.one("leftovers", "--fix")[0] == "ok"


def wait_for(ask, is_good, limit=60):
    deadline = time.monotonic() + limit
    while not is_good(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
def test_projects(check, database):
    project = database.project(locked_at=ago(hours=3))
    database.job(project)
    is_said(check.one("projects"), "warning", ".* is locked by a file transfer for 3h.*; 1 jobs wait",
            f"if no transfer .*: UPDATE {database.project_table} SET locked_at = NULL WHERE id = '{project['id']}'")


def test_leftovers(check, database, ground):
    """Containers of jobs that are over go, those of another stack stay."""
    env = check.worker.env
    identity = database.value("SELECT (SELECT system_identifier FROM pg_control_system()) || '-' || oid FROM pg_database"
                              " WHERE datname = current_database()")
    job = database.job(database.project(), status="finished")
    stack = f"{env['COMPOSE_PROJECT_NAME']}/{env['ENVIRONMENT']}/{identity}"
    ours, other = (
        ground.docker.create(ground.image, ["python3", "entrypoint.py"], Labels={
            "app": f"{env['ENVIRONMENT']}_worker", "job_id": str(job["id"]), "qfc_stack": stack + more,
            "qfc_worker": "qfc-worker:0123456789abcdef:host", "qfc-bed": ground.session})
        for more in ("", "-2"))  # fmt: skip
    is_said(check.one("leftovers", "--dry-run"), "warning", f"1 containers are left over, whose jobs are over: {ours[:12]}",
            "workers remove them within minutes; now: qfc-worker check --fix")
    assert check.said == {"leftovers": [f"remove container {ours[:12]}"]}
    is_said(check.one("leftovers", "--fix"), "ok", "no container and no volume is left over")
    left = {container["Id"] for container in ground.docker.containers()}
    assert ours not in left and other in left
    ground.docker.remove(other)
    volume, other = (ground.docker.create_volume(qfc_stack=stack + more) for more in ("", "-2"))
    is_said(check.one("leftovers"), "warning", f"1 volumes are left over, which no container has: {volume[:12]}",
            "workers remove them within minutes; now: qfc-worker check --fix")
    is_said(check.one("leftovers", "--fix"), "ok", "no container and no volume is left over")
    left = {volume["Name"] for volume in ground.docker.volumes()}
    assert volume not in left and other in left
    ground.docker.remove_volume(other)


def test_backups(check, ground, worker, directory, tmp_path):
    """An image without backup, with one, with one of another image; and it comes back from it."""
    name = f"qfc-bed-check:{ground.session}"
    ground.docker.tag(ground.image, *name.split(":"))
    env = {"QFIELDCLOUD_QGIS3_IMAGE_NAME": name, "QFIELDCLOUD_QGIS4_IMAGE_NAME": name}
    is_said(check.one("backups", **env), "ok", "none are kept: QFC_WORKER_IMAGE_BACKUP_DIR is not set")
    env["QFC_WORKER_IMAGE_BACKUP_DIR"] = str(tmp_path)
    is_said(check.one("backups", **env), "warning", f"{name} has no backup", f"qfc-worker image save {name}")
    assert worker.run("image", "save", name, **env).returncode == 0
    is_said(check.one("backups", **env), "ok", f"{name} was saved at 20.*, [0-9]+ MB")
    ground.docker.remove_image(name)
    assert check.one("images", "--dry-run", **env)[0] == "failed" and not ground.docker.image(name)
    is_said(check.one("images", "--fix", **env), "ok", f"{name} is there, .* MB")
    assert check.said["images"][0].startswith(f"restored image {name}") and ground.docker.image(name)
    ground.docker.remove_image(name)
    next(tmp_path.glob("*.tar.gz")).unlink()
    is_said(check.one("backups", **env), "warning", f"{name}: the newest backup cannot be used: .*", "qfc-worker image save.*")
    is_said(check.one("backups", **{**env, "QFC_WORKER_IMAGE_BACKUP_DIR": "/nowhere"}), "failed", ".*/nowhere.*",
            "make that directory, or correct .*")


def test_interrupted(check, proxy, ground, python_image):
    """Ctrl-C while the container is being started: it is removed all the same."""
    hold = proxy.hold("POST /containers/.*/start")
    process = check.worker.start("check", "--only", "url", DOCKER_HOST=proxy.host, QFIELDCLOUD_QGIS3_IMAGE_NAME=python_image)
    hold.reached()
    assert [c for c in ground.docker.containers(label=["qfc_check"]) if c["Image"] == python_image]
    process.send(signal.SIGINT)
    output = process.wait()
    hold.release()
    assert output.returncode == 2 and "interrupted" in output.stderr
    assert [c for c in ground.docker.containers(label=["qfc_check"]) if c["Image"] == python_image] == []


# Clock and disks


def test_engine_clock(check, proxy, ground):
    info = ground.docker.get("/info")
    for time, state, seen in (("2001-01-01T00:00:00.5Z", "failed", "behind"), ("2101-01-01T02:00:00+02:00", "failed", "ahead")):
        proxy.answer("GET /info", 200, json.dumps({**info, "SystemTime": time}).encode(), times=None)
        database, engine = check.many("clock", DOCKER_HOST=proxy.host)
        assert database[0] == "ok"
        is_said(engine, state, f"the engine's clock is [0-9]+ s {seen} of this one", "set the wrong one, .*")
        proxy.behave()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MB; call it with the percentage that is to be used."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path], check=True)

    def fill(percent):
        (path / "file").write_bytes(bytes(8 * 1024 * 1024 * percent // 100))
        return str(path)

    yield fill
    subprocess.run(["umount", path], check=True)


def test_disks(check, proxy, ground, small_disk):
    """Those of backups and of the engine, at 50, 85 and 95 percent, and one that is not there."""
    info = ground.docker.get("/info")
    for used, state in ((50, "ok"), (85, "warning"), (95, "failed")):
        path = small_disk(used)
        proxy.answer("GET /info", 200, json.dumps({**info, "DockerRootDir": path}).encode(), times=None)
        lines = check.many("disks", DOCKER_HOST=proxy.host, QFC_WORKER_IMAGE_BACKUP_DIR=path)
        assert [line[0] for line in lines] == [state, state], lines
        for line, disk in zip(lines, ("the engine's disk", "the backups' disk")):
            is_said(line, state, f"{disk}, {path}: (?:{used}|{used + 1}) % used, .* GB free",
                    None if state == "ok" else "make room: df -h .*")
        proxy.behave()
    lines = check.many("disks", QFC_WORKER_IMAGE_BACKUP_DIR="/nowhere")
    is_said(lines[-1], "failed", "the backups' disk, /nowhere: No such file or directory", "make that directory, .*")


def test_database_clock(check, database):
    """A server whose clock is wrong: its answer is played by a function that comes before the server's own."""
    with superuser(database) as execute:
        execute("CREATE SCHEMA shadow; CREATE FUNCTION shadow.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
                " AS $$ SELECT pg_catalog.clock_timestamp() + interval '90 seconds' $$; GRANT USAGE ON SCHEMA shadow TO PUBLIC")
        execute(f"ALTER DATABASE {database.name} SET search_path = shadow, pg_catalog, public")
    lines = check.many("clock")
    is_said(lines[0], "warning", "the database's clock is (?:89|90) s ahead of this one", "set the wrong one, .*")
