"""setup-db: what its triggers tell, that nobody notices them, and that it can be repeated, printed and undone."""

import contextlib
import os
import subprocess
import threading
import time

import psycopg2
import pytest
from bed.worker import Background

BOTH = pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
END = "the end"


class Setup:
    """Calls setup-db with a database."""

    def __init__(self, built, directory):
        self.built, self.directory, self.running = built, directory, []

    def _env(self, database, env):
        known = {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS") or name == "PATH"}
        return {**known, **database.settings, **env}

    def __call__(self, database, *args, code=0, **env):
        done = subprocess.run(
            [self.built, "setup-db", *args], env=self._env(database, env), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert (done.stderr == "") == (code == 0), done.stderr
        return done.stdout if code == 0 else done.stderr

    def start(self, database, *args):
        process = Background([self.built, "setup-db", *args], self._env(database, {}), self.directory)
        self.running.append(process)
        return process

    def close(self):
        for process in self.running:
            if process.process.poll() is None:
                process.process.kill()
                process.process.wait()


@pytest.fixture
def setup_db(built, directory):
    made = Setup(built, directory)
    yield made
    made.close()


def lines(output):
    """{thing: outcome} of what setup-db printed."""
    return {line[14:]: line[:14].strip() for line in output.splitlines()}


def kinds(things):
    return sorted(thing.split()[0] for thing in things)


class Listener:
    """A session that listens."""

    def __init__(self, database):
        self.connection = database.server.connect(database.name)
        self._execute("LISTEN qfc_worker")

    def _execute(self, statement, *values):
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values)

    def heard(self):
        """The payloads that have come since it was asked last. Notifications come in the order of commits."""
        self._execute("SELECT pg_notify('qfc_worker', %s)", END)
        found, deadline = [], time.monotonic() + 60
        while END not in found:
            assert time.monotonic() < deadline, found
            self.connection.poll()
            found += [notification.payload for notification in self.connection.notifies]
            self.connection.notifies.clear()
        assert found[-1] == END
        return found[:-1]

    def close(self):
        self.connection.close()


@pytest.fixture
def listener(database):
    made = Listener(database)
    yield made
    made.close()


def tail(row):
    return str(row["id"])[-2:]


def catalog(database):
    """All that describes the database's own things, by names: for a comparison with a later one."""
    queries = {
        "classes": "SELECT oid::regclass::text, relkind::text, relhasindex, relhastriggers FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace",
        "indexes": "SELECT pg_get_indexdef(indexrelid), indisvalid, indisready FROM pg_index WHERE indexrelid > 16384",
        "triggers": "SELECT pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger WHERE NOT tgisinternal",
        "functions": "SELECT oid::regprocedure::text, prosrc, proconfig::text, prosecdef, pg_get_userbyid(proowner)"
        " FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
        "comments": "SELECT pg_describe_object(classoid, objoid, objsubid), description FROM pg_description"
        " WHERE objoid > 16384",
        "dependencies": "SELECT pg_describe_object(classid, objid, objsubid),"
        " pg_describe_object(refclassid, refobjid, refobjsubid), deptype::text FROM pg_depend WHERE objid > 16384",
    }
    connection = database.server.connect(database.name, superuser=True)
    try:
        with connection.cursor() as cursor:
            found = {}
            for name, query in queries.items():
                cursor.execute(query)
                found[name] = sorted(cursor.fetchall(), key=repr)
            return found
    finally:
        connection.close()


def ours(database):
    """The kinds of what is there by our names."""
    return kinds(
        database.value(
            "SELECT array_agg(kind) FROM ("
            " SELECT 'function' AS kind FROM pg_proc WHERE proname LIKE 'qfc\\_worker%%'"
            " UNION ALL SELECT 'trigger' FROM pg_trigger WHERE tgname LIKE 'qfc\\_worker%%'"
            " UNION ALL SELECT 'index' FROM pg_class WHERE relname LIKE 'qfc\\_worker%%' AND relkind = 'i') AS found"
        )
        or []
    )


TRIGGERS = ["function", "trigger", "trigger", "trigger"]
ALL = ["function", "index", "index", "trigger", "trigger", "trigger"]


@contextlib.contextmanager
def superuser(database):
    connection = database.server.connect(database.name, superuser=True)
    try:
        with connection.cursor() as cursor:
            yield cursor.execute
    finally:
        connection.close()


@contextlib.contextmanager
def held(database, statement):
    """Another session's transaction that has run the statement and stays open."""
    connection = database.server.connect(database.name)
    connection.autocommit = False
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
        yield connection
        connection.rollback()
    finally:
        connection.close()


def wait_for(predicate, process=None):
    deadline = time.monotonic() + 60
    while not predicate():
        assert time.monotonic() < deadline, "60 s have passed"
        assert process is None or process.process.poll() is None, repr(process.output())
        time.sleep(0.02)


def waiting(database, query):
    """The pid of the session of setup-db that waits for a lock with such a statement, or None."""
    return database.value(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND application_name = 'qfc-worker setup-db' AND query LIKE %s",
        f"%{query}%",
    )


# What the triggers tell


@BOTH
def test_the_triggers_tell_of_new_jobs_returned_jobs_and_unlocked_projects(setup_db, database, listener):
    setup_db(database)
    project = database.project()
    assert listener.heard() == []

    job = database.job(project)
    assert listener.heard() == [tail(job)]
    for status in ("queued", "started"):
        database.update("core_job", job["id"], status=status)
        assert listener.heard() == []
        database.update("core_job", job["id"], status="pending")
        assert listener.heard() == [tail(job)]

    table = database.project_table
    database.update(table, project["id"], locked_at="2026-01-01")
    database.update(table, project["id"], locked_at="2026-01-02", name="x")
    assert listener.heard() == []
    database.update(table, project["id"], locked_at=None)
    assert listener.heard() == [tail(project)]


@BOTH
def test_the_triggers_are_silent_about_all_else(setup_db, database, listener):
    setup_db(database)
    project = database.project()
    job = database.job(project, status="queued")
    database.job(project, status="finished")
    for status in ("started", "finished", "failed", "stopped"):
        database.update("core_job", job["id"], status=status)
    waits = database.job(project)
    assert listener.heard() == [tail(waits)]
    database.update("core_job", waits["id"], status="pending", container_id="x")
    database.update("core_job", waits["id"], output="x")
    database.update(database.project_table, project["id"], locked_at=None, name="y")
    with held(database, f"UPDATE core_job SET status = 'pending' WHERE id = '{job['id']}'"):
        pass  # rolled back
    database.execute("DELETE FROM core_packagejob")
    database.execute("DELETE FROM core_job")
    assert listener.heard() == []


@BOTH
def test_many_jobs_in_one_transaction_cost_256_notifications_at_the_most(setup_db, database, listener):
    setup_db(database)
    database.job(database.project())
    listener.heard()
    columns = ", ".join(f'"{name}"' for name in database.schema.tables["core_job"].columns if name != "id")
    database.execute(
        f"INSERT INTO core_job (id, {columns}) SELECT gen_random_uuid(), {columns} FROM core_job,"
        " generate_series(1, 3000)"
    )
    rows = database.execute("SELECT DISTINCT right(id::text, 2) AS id FROM core_job")
    heard = listener.heard()
    assert len(heard) == len(set(heard)) <= 256
    assert set(heard) <= {row["id"] for row in rows} and len(heard) >= 200


# That nobody notices them

USAGE = ("pg_notification_queue_usage", "()", "double precision")
REPLACEMENTS = {
    "the queue is full": (*USAGE, "BEGIN RETURN 0.75; END"),
    "asking fails": (*USAGE, "BEGIN RAISE EXCEPTION 'no'; END"),
    "notifying fails": ("pg_notify", "(text, text)", "void", "BEGIN RAISE EXCEPTION 'no'; END"),
}


@contextlib.contextmanager
def replaced(database, name, arguments, returns, body):
    """A function of PostgreSQL's own is another for a while, in this database."""
    with superuser(database) as execute:
        execute("SET allow_system_table_mods = on")
        execute(f"ALTER FUNCTION pg_catalog.{name}{arguments} RENAME TO {name}_as_it_was")
        execute(
            f"CREATE FUNCTION pg_catalog.{name}{arguments} RETURNS {returns} LANGUAGE plpgsql VOLATILE AS $x${body}$x$"
        )
        database.execute("DISCARD PLANS")  # they know functions by their numbers
        yield
        execute(f"DROP FUNCTION pg_catalog.{name}{arguments}")
        execute(f"ALTER FUNCTION pg_catalog.{name}_as_it_was{arguments} RENAME TO {name}")
        database.execute("DISCARD PLANS")


@pytest.mark.parametrize("what", REPLACEMENTS)
def test_a_job_that_cannot_be_told_of_is_there_all_the_same(setup_db, database, listener, what):
    setup_db(database)
    project = database.project()
    assert listener.heard() == [] and database.job(project) and len(listener.heard()) == 1
    with replaced(database, *REPLACEMENTS[what]):
        job = database.job(project)
        database.update("core_job", job["id"], status="queued")
        database.update("core_job", job["id"], status="pending")
    assert listener.heard() == []
    assert database.get("core_job", job["id"])["status"] == "pending"
    another = database.job(project)
    assert listener.heard() == [tail(another)]


def test_a_column_that_has_gone_hurts_nobody(setup_db, database, listener):
    """A later release may call the key otherwise."""
    setup_db(database)
    database.job(database.project())
    listener.heard()
    database.execute("ALTER TABLE core_job RENAME COLUMN id TO key")
    names = ", ".join(name for name in database.schema.tables["core_job"].columns if name != "id")
    database.execute(f"INSERT INTO core_job (key, {names}) SELECT gen_random_uuid(), {names} FROM core_job")
    assert database.value("SELECT count(*) FROM core_job") == 2 and listener.heard() == []


class Traffic:
    """Threads that insert and update jobs as the web application does, until stop(); `errors` should stay empty."""

    def __init__(self, database, threads=3):
        self.database, self.errors, self.done = database, [], 0
        self.project = database.project()
        columns = database.schema.tables["core_job"].columns
        self.row = database.job(self.project, status="finished")
        self.names = ", ".join(name for name in columns if name not in ("id", "status"))
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        connection = self.database.server.connect(self.database.name)
        try:
            with connection.cursor() as cursor:
                # Ten times as long as setup-db may keep anybody waiting: longer is an error.
                cursor.execute("SET lock_timeout = '10s'")
                while not self._stop.is_set():
                    self._round(cursor)
                    self.done += 1
        except psycopg2.Error as error:
            self.errors.append(error)
        finally:
            connection.close()

    def _round(self, cursor):
        cursor.execute(
            f"INSERT INTO core_job (id, status, {self.names}) SELECT gen_random_uuid(), 'pending', {self.names}"
            " FROM core_job WHERE id = %s RETURNING id",
            (self.row["id"],),
        )
        job = cursor.fetchone()
        for status in ("queued", "pending", "finished"):
            cursor.execute("UPDATE core_job SET status = %s WHERE id = %s", (status, job))
        for locked_at in ("now()", "NULL"):
            table, project = self.database.project_table, self.project["id"]
            cursor.execute(f"UPDATE {table} SET locked_at = {locked_at} WHERE id = %s", (project,))

    def moves(self):
        """Waits until more has been done."""
        before = self.done
        wait_for(lambda: self.done > before + 3 or self.errors)

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def traffic(database):
    made = Traffic(database)
    yield made
    made.stop()


@BOTH
def test_under_traffic_nothing_fails(setup_db, database, traffic):
    for _ in range(3):
        traffic.moves()
        setup_db(database, "--index")
        assert ours(database) == ALL
        traffic.moves()
        setup_db(database, "--undo")
        assert ours(database) == []
    traffic.stop()
    assert traffic.errors == []


def test_a_long_transaction_makes_it_wait_and_nobody_else(setup_db, database, traffic):
    with held(database, "LOCK core_job IN ROW EXCLUSIVE MODE") as holder:
        process = setup_db.start(database)
        for _ in range(2):
            wait_for(lambda: waiting(database, "CREATE TRIGGER"), process)
            traffic.moves()
            wait_for(lambda: not waiting(database, "CREATE TRIGGER"), process)
        assert process.process.poll() is None
        holder.commit()
        output = process.wait()
    traffic.stop()
    assert output.returncode == 0 and traffic.errors == []
    assert ours(database) == TRIGGERS


@pytest.mark.long
def test_a_transaction_that_does_not_end_makes_it_give_up(setup_db, database):
    with held(database, "LOCK core_job IN ROW EXCLUSIVE MODE"):
        said = setup_db(database, code=1)
    assert said.startswith("qfc-worker: trigger qfc_worker_job_new on public.core_job: given up after 10 tries")
    assert "lock timeout" in said


# Again, half of it, two at once


@BOTH
def test_a_repeat_changes_nothing_and_takes_no_lock(setup_db, database):
    first = lines(setup_db(database, "--index"))
    assert kinds(first) == ALL and set(first.values()) == {"made"}
    before = catalog(database)
    with held(database, "LOCK core_job IN ACCESS EXCLUSIVE MODE") as holder:
        with holder.cursor() as cursor:
            cursor.execute(f"LOCK {database.project_table} IN ACCESS EXCLUSIVE MODE")
        again = lines(setup_db(database, "--index"))
    assert again == dict.fromkeys(first, "already there")
    assert catalog(database) == before


SPOILED = {
    "a trigger dropped": ("DROP TRIGGER qfc_worker_job_back ON core_job", "trigger"),
    "a trigger disabled": ("ALTER TABLE core_job DISABLE TRIGGER qfc_worker_job_new", "trigger"),
    "a trigger of another version": (
        "DROP TRIGGER qfc_worker_job_new ON core_job; CREATE TRIGGER qfc_worker_job_new AFTER DELETE ON core_job"
        " FOR EACH ROW EXECUTE FUNCTION qfc_worker_notify()",
        "trigger",
    ),
    "another function": (
        "CREATE OR REPLACE FUNCTION qfc_worker_notify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "function",
    ),
    "an index dropped": ("DROP INDEX qfc_worker_active", "index"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_is_not_as_it_should_be_is_made_again(setup_db, database, what):
    setup_db(database, "--index")
    before = catalog(database)
    statement, kind = SPOILED[what]
    database.execute(statement)
    assert catalog(database) != before
    again = lines(setup_db(database, "--index"))
    assert kinds(thing for thing, outcome in again.items() if outcome == "made") == [kind]
    assert catalog(database) == before


def test_an_interrupted_index_is_made_again(setup_db, database):
    setup_db(database)
    with held(database, "LOCK core_job IN ROW EXCLUSIVE MODE"):
        process = setup_db.start(database, "--index")
        wait_for(lambda: waiting(database, "CREATE INDEX"), process)
        database.execute("SELECT pg_terminate_backend(%s)", waiting(database, "CREATE INDEX"))
        assert process.wait().returncode == 3
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    assert database.value(invalid) == 1
    printed = setup_db(database, "--index", "--print")
    assert printed.index("DROP INDEX CONCURRENTLY") < printed.index("CREATE INDEX CONCURRENTLY")
    output = setup_db(database, "--index")
    assert "removed       unfinished index qfc_worker_pending" in output
    assert database.value(invalid) == 0 and ours(database) == ALL


def test_an_interrupted_index_can_be_undone(setup_db, database):
    before = catalog(database)
    setup_db(database, "--index")
    with superuser(database) as execute:
        execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'qfc_worker_pending'::regclass")
    setup_db(database, "--undo")
    assert catalog(database) == before


def test_many_at_once_end_well(setup_db, database):
    for args in (["--index"], ["--undo"]):
        processes = [setup_db.start(database, *args) for _ in range(4)]
        outputs = [process.wait() for process in processes]
        assert [output.returncode for output in outputs] == [0] * 4, outputs
        assert ours(database) == (ALL if args == ["--index"] else [])


def test_another_who_was_a_moment_earlier(setup_db, database):
    function = "CREATE FUNCTION qfc_worker_notify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    with held(database, function) as other:
        process = setup_db.start(database)
        wait_for(lambda: waiting(database, "CREATE OR REPLACE FUNCTION"), process)
        other.commit()
        output = process.wait()
    assert output.returncode == 0, repr(output)
    assert set(lines(setup_db(database)).values()) == {"already there"}


def test_a_name_that_is_somebody_elses_is_an_error(setup_db, database):
    database.execute("CREATE TABLE qfc_worker_pending (x integer)")
    said = setup_db(database, "--index", code=1)
    assert "index qfc_worker_pending on public.core_job: " in said and "something else has that name" in said


# Undone


@BOTH
@pytest.mark.parametrize("args", [[], ["--index"]])
def test_undo_leaves_no_trace(setup_db, database, args):
    before = catalog(database)
    made = lines(setup_db(database, *args))
    assert catalog(database) != before
    removed = lines(setup_db(database, "--undo"))
    assert removed == dict.fromkeys(made, "removed")
    assert catalog(database) == before
    assert setup_db(database, "--undo") == "nothing of qfc-worker's is there\n"


HALVES = {
    "only the function": "DROP TRIGGER qfc_worker_job_new ON core_job; DROP TRIGGER qfc_worker_job_back ON core_job;"
    " DROP TRIGGER qfc_worker_project_free ON core_project; DROP INDEX qfc_worker_pending;"
    " DROP INDEX qfc_worker_active",
    "only an index": "DROP FUNCTION qfc_worker_notify() CASCADE; DROP INDEX qfc_worker_active",
    "what REINDEX CONCURRENTLY can leave": "CREATE INDEX qfc_worker_active_ccnew1 ON core_job (id)",
    "a trigger of a user's own": "CREATE TRIGGER own AFTER UPDATE ON core_user FOR EACH ROW"
    " EXECUTE FUNCTION qfc_worker_notify()",
}


@pytest.mark.parametrize("database", ["v25.30"], indirect=True)
@pytest.mark.parametrize("what", HALVES)
def test_undo_of_a_half(setup_db, database, what):
    before = catalog(database)
    setup_db(database, "--index")
    database.execute(HALVES[what])
    setup_db(database, "--undo")
    assert catalog(database) == before


@pytest.mark.parametrize("database", ["v25.30"], indirect=True)
@pytest.mark.parametrize("table, name", [("core_project", "project_project"), ("core_job", "jobs_job")])
def test_a_migration_that_renames_a_table(setup_db, database, table, name):
    """As v26.21 did with the project's; what a later one does with the jobs' is not known, but undo finds it."""
    before = catalog(database)
    setup_db(database, "--index")
    database.execute(f"ALTER TABLE {table} RENAME TO {name}")
    if table == "core_project":
        assert set(lines(setup_db(database, "--index")).values()) == {"already there"}
        trigger = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'qfc_worker_project_free'"
        assert database.value(trigger) == name
    assert kinds(lines(setup_db(database, "--undo"))) == ALL
    database.execute(f"ALTER TABLE {name} RENAME TO {table}")
    assert catalog(database) == before


# Printed


def psql(database, text):
    done = subprocess.run(
        [f"{database.server.bin}/psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", database.server.url(database.name)],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr


@BOTH
@pytest.mark.parametrize("args", [[], ["--index"]])
def test_what_is_printed_does_the_same(setup_db, databases, database, args):
    other = databases(database.release)
    before = catalog(database)
    printed = setup_db(database, "--print", *args)
    assert catalog(database) == before
    psql(database, printed)
    setup_db(other, *args)
    after = catalog(database)
    assert after == catalog(other) != before
    psql(database, printed)  # once more
    assert catalog(database) == after
    assert set(lines(setup_db(database, *args)).values()) == {"already there"}

    printed = setup_db(database, "--undo", "--print")
    assert catalog(database) == after
    psql(database, printed)
    assert catalog(database) == before


def test_what_is_printed_is_what_is_still_to_be_done(setup_db, database):
    setup_db(database)
    printed = setup_db(database, "--print", "--index")
    assert printed.count("\nCREATE ") == 2 and printed.count("already there: ") == 4
    assert "COMMENT" not in printed


# Refused


def test_a_role_that_is_not_the_owner_is_told_what_is_needed(setup_db, database):
    before = catalog(database)
    with superuser(database) as execute:
        execute("CREATE ROLE visitor LOGIN PASSWORD 'open'")
    try:
        said = setup_db(database, code=1, POSTGRES_USER="visitor", POSTGRES_PASSWORD="open")
        assert "role visitor is not the owner of public.core_job: connect as qfieldcloud_db_admin" in said
        assert catalog(database) == before
        setup_db(database)
        assert "already there" in setup_db(database, POSTGRES_USER="visitor", POSTGRES_PASSWORD="open")
        said = setup_db(database, "--undo", code=1, POSTGRES_USER="visitor", POSTGRES_PASSWORD="open")
        assert "this needs the role that owns QFieldCloud's tables" in said and ours(database) == TRIGGERS
    finally:
        with superuser(database) as execute:
            execute("DROP ROLE visitor")


def test_a_schema_in_which_nothing_may_be_made(setup_db, database):
    with superuser(database) as execute:
        execute("ALTER SCHEMA public OWNER TO postgres; REVOKE ALL ON SCHEMA public FROM qfieldcloud_db_admin, PUBLIC")
        execute("GRANT USAGE ON SCHEMA public TO qfieldcloud_db_admin")
    said = setup_db(database, code=1)
    assert "it needs GRANT CREATE ON SCHEMA public TO qfieldcloud_db_admin" in said and ours(database) == []


def test_a_database_without_plpgsql(setup_db, database):
    with superuser(database) as execute:
        execute("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC")
    said = setup_db(database, code=1)
    assert "it needs CREATE EXTENSION plpgsql" in said and ours(database) == []


@pytest.mark.parametrize("args", [[], ["--undo"], ["--print"]])
def test_a_server_that_takes_no_writes(setup_db, database, args):
    database.execute(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    assert "takes no writes" in setup_db(database, *args, code=1)


def test_a_database_that_is_not_qfieldclouds(setup_db, database):
    said = setup_db(database, code=1, POSTGRES_DB="postgres")
    assert said.startswith('qfc-worker: database "postgres" has no table core_job')


def test_a_server_that_cannot_be_reached(setup_db, database):
    assert "connect to PostgreSQL" in setup_db(database, code=3, POSTGRES_PORT="1", POSTGRES_PASSWORD="geheim")
    said = setup_db(database, code=3, POSTGRES_PASSWORD="geheim")
    assert "password authentication failed" in said and "geheim" not in said


@pytest.mark.parametrize("url", ["postgresql://u:geheim@host:port/db", "host=x geheim", "sslmode=geheim"])
def test_a_connection_string_that_is_wrong(setup_db, database, url):
    said = setup_db(database, code=2, DATABASE_URL=url)
    assert said.startswith("qfc-worker: DATABASE_URL: ") and "geheim" not in said


@pytest.mark.parametrize(
    "args, message",
    [
        (["--fly"], "no such option of setup-db: --fly"),
        (["--index=yes"], "this option of setup-db takes no value: --index=yes"),
        (["now"], "setup-db takes no such argument: now"),
    ],
)
def test_wrong_calls(setup_db, database, args, message):
    assert setup_db(database, *args, code=2) == f"qfc-worker: {message}\nTry: qfc-worker --help\n"
    assert ours(database) == []


def test_help(setup_db, database):
    said = setup_db(database, "--help")
    for option in ("--index", "--undo", "--print"):
        assert f"\n  {option}\n" in said
    assert ours(database) == []
