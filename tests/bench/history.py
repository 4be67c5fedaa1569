"""What a claim costs with a long history of jobs, and what a transaction that stays open costs.

The statements are those that ship: a worker that does one job is recorded, and what it sent is prepared and executed
here, a transaction in one round trip, as the worker does. Beside it runs the query of QFieldCloud's own loop
(dequeue.py), as Django makes it, with its update.

History: three databases with the same pending rows behind none, one and three million ended ones, which are asked in
turns, so that others' work on the machine meets them alike. Claims are rolled back, untimed, so each meets the same
rows. A tenth of the pending rows is old, amid the history: of projects that are locked or busy. The tables are vacuumed
and analysed first; then once more a burst of pending rows comes after that, so that PostgreSQL expects few: behind a
long history autovacuum analyses seldom.

Old snapshot: jobs are inserted and done one after the other, statements only, with 20 pending all the time, for a
minute; then what the last tenth of that minute took is compared: with nobody else there, and with another transaction
(REPEATABLE READ) that began before the minute and idles, so that no row version that died since can be removed. The
old loop's part are its seven updates of a job's row, each a transaction but the first, which belongs to its claim.
"""

import math
import re
import statistics
import subprocess
import time

from psycopg2 import errors
from psycopg2.extras import Json
from sent import Recording, without_setup

RELEASE = "v26.25"
HISTORIES = (0, 1_000_000, 3_000_000)
FEW, MANY = 20, 20_000
PENDING = ((FEW, 0), (MANY, 0), (FEW, MANY - FEW))  # before the tables are analysed, and after
PROJECTS = 1000  # the first LOCKED are locked, the next BUSY have a job that runs
LOCKED, BUSY = 10, 30
CHUNK = 100_000
LIMIT = 2.0
BATCH = 5  # claims, or looks, in a round
SLOW_MS, SLOW_ROUNDS = 200, 3
WARM_UP = 7  # after five times PostgreSQL decides whether it plans anew
MINUTE_S = 60
REAL_JOBS = 30

OLD_CLAIM = """
SELECT "core_job"."id", "core_job"."project_id", "core_job"."type", "core_job"."status", "core_job"."output",
 "core_job"."feedback", "core_job"."triggered_by_id", "core_job"."created_by_id", "core_job"."created_at",
 "core_job"."updated_at", "core_job"."started_at", "core_job"."finished_at", "core_job"."docker_started_at",
 "core_job"."docker_finished_at", "core_job"."container_id"
 FROM "core_job" INNER JOIN "{project}" ON ("core_job"."project_id" = "{project}"."id")
 WHERE ("core_job"."status" = 'pending' AND NOT (("core_job"."project_id" IN (SELECT U0."project_id" AS "project_id"
 FROM "core_job" U0 WHERE U0."status" IN ('queued', 'started')) OR "{project}"."locked_at" IS NOT NULL)))
 ORDER BY "core_job"."created_at" ASC LIMIT 1 FOR UPDATE SKIP LOCKED
"""
OLD_QUEUED = "UPDATE core_job SET status = 'queued' WHERE id = %s"
OLD_UPDATES = (
    "status = 'started', started_at = now()",
    "docker_started_at = now()",
    "docker_started_at = docker_started_at, container_id = '{container}'",
    "docker_finished_at = now()",
    "output = %(output)s, feedback = %(feedback)s",
    "status = 'finished', finished_at = now()",
)
INSERT = """
INSERT INTO core_job (id, created_at, updated_at, project_id, type, status, created_by_id, triggered_by_id,
 output, feedback, started_at, finished_at, docker_started_at, docker_finished_at, container_id)
"""
# A finished job's row is about 700 bytes here: what is longer lies elsewhere and is not met by any of this.
ENDED = f"""{INSERT}
SELECT gen_random_uuid(), t, t, projects.ids[1 + floor(random() * {PROJECTS})], 'package',
 CASE WHEN i %% 30 = 0 THEN 'failed' ELSE 'finished' END, %(user)s, %(user)s, repeat(md5(i::text), 10),
 jsonb_build_object('feedback_version', '2.0', 'container_exit_code', 0, 'workflow_id', 'package_project'), t, t, t, t,
 md5(i::text) || md5((i + 1)::text)
 FROM (SELECT array_agg(id ORDER BY name) AS ids FROM {{project}}) AS projects, generate_series(%(first)s, %(last)s) i,
 LATERAL (SELECT now() - interval '1 hour' - (%(all)s - i + random() * 100) / %(all)s * interval '1000 days' AS t) age
"""
WAITING = f"""{INSERT}
SELECT gen_random_uuid(), t, t,
 projects.ids[1 + floor(random() * CASE WHEN amid THEN {LOCKED + BUSY} ELSE {PROJECTS} END)],
 'package', 'pending', %(user)s, %(user)s, NULL, NULL, NULL, NULL, NULL, NULL, ''
 FROM (SELECT array_agg(id ORDER BY name) AS ids FROM {{project}}) AS projects, generate_series(1, %(count)s) i,
 LATERAL (SELECT i %% 10 = 0 AS amid) AS kind,
 LATERAL (SELECT now() - random() * CASE WHEN amid THEN interval '1000 days' ELSE interval '1 hour' END AS t) AS age
"""
RUNNING = f"""{INSERT}
SELECT gen_random_uuid(), now(), now(), id, 'package', 'started', %(user)s, %(user)s, NULL, NULL, now(), NULL, now(),
 NULL, md5(id::text)
 FROM (SELECT id FROM {{project}} ORDER BY name OFFSET {LOCKED} LIMIT {BUSY}) AS busy
"""


# What the program sends


class Recorded:
    """One job's way, as a worker sent it: transactions, each a list of statements."""

    def __init__(self, bed):
        database = bed.server.database(RELEASE)
        bed.worker.database = database
        project = database.project(qgis_file="offline.qgs")
        with Recording(database) as recording:
            process = bed.worker.start("run", QFIELDCLOUD_DEFAULT_NETWORK="none", **database.settings)
            look = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            look += " AND datname = current_database() AND query LIKE '%AS work%' AND query NOT LIKE '%upkeep%' AND query NOT LIKE '%unowned%'"
            bed.worker.wait_for(lambda: database.value(look), "a look")
            job = database.job(project)
            bed.worker.wait_for_status(job, "finished")
            process.stop()
        bed.worker.database = bed.database
        self.job, self.project = str(job["id"]), str(project["id"])
        row = database.get("core_job", job["id"])
        self.container, self.output, self.feedback = row["container_id"], row["output"], row["feedback"]
        self._sort(recording.sent())
        database.close()

    def _sort(self, sent):
        # What a worker's session begins with: its time zone, for instance.
        self.setup = next(s for s in sent if "set_config('lock_timeout'" in s.sql)
        sessions = without_setup(sent).values()
        claims = next(found for found in sessions if any(" AS work" in s.sql for s in found))
        self.look = next([s] for s in claims if " AS work" in s.sql and "upkeep" not in s.sql and "unowned" not in s.sql)
        ends = [i for i, s in enumerate(claims) if "SET status = 'queued'" in s.sql or " AS work" in s.sql]
        last = next(i for i in ends if "SET status = 'queued'" in claims[i].sql)
        self.claim = claims[max([i + 1 for i in ends if i < last], default=0) : last + 1]
        self.rest = []
        for found in sessions:
            if found is claims:
                continue
            for statement in found:
                if "qfc-fence" in statement.sql or not self.rest:  # each transaction of a job begins with its fence
                    self.rest.append([])
                self.rest[-1].append(statement)


class Session:
    """A session like the worker's, in which recorded statements are prepared and executed."""

    def __init__(self, database, recorded):
        self.recorded, self._names = recorded, {}
        self.connection = database.connect()
        self.cursor = self.connection.cursor()
        self.run([recorded.setup])

    def _execute(self, statement, swap):
        name = self._names.get(statement.sql)
        if name is None:
            name = self._names[statement.sql] = f"recorded_{len(self._names)}"
            self.cursor.execute(f"PREPARE {name} AS {statement.sql}")
        values = []
        for value in statement.values:
            for old, new in swap if value else ():
                value = value.replace(old, new)
            values.append(self.cursor.mogrify("%s", (value,)).decode())
        return f"EXECUTE {name}({', '.join(values)})" if values else f"EXECUTE {name}"

    def text(self, statements, swap=()):
        """For one round trip, in which they are one transaction."""
        return "; ".join(self._execute(statement, swap) for statement in statements)

    def run(self, statements, swap=()):
        """Returns the last statement's rows."""
        text = self.text(statements, swap)
        self.cursor.execute(text)
        return self.cursor.fetchall() if self.cursor.description else []

    def close(self):
        self.connection.close()


def timed(cursor, *texts):
    """Milliseconds for these, one after the other."""
    began = time.perf_counter()
    for text in texts:
        cursor.execute(text)
    return 1000 * (time.perf_counter() - began)


# A database with a history


def make_projects(database, count):
    """So many of them, alike; returns their owner's id."""
    project, table = database.project(files=()), database.project_table
    changed = "jsonb_build_object('id', gen_random_uuid(), 'name', to_char(i, 'FM00000'), 'the_qgis_file_id', NULL)"
    database.execute(
        f"INSERT INTO {table} SELECT made.* FROM {table} p, generate_series(1, %s) i,"
        f" jsonb_populate_record(p, {changed}) AS made WHERE p.id = %s",
        count - 1,
        project["id"],
    )
    return project["owner_id"]


class Case:
    """A database with so many ended jobs, and a session in it."""

    def __init__(self, bed, recorded, ended):
        self.bed, self.ended = bed, ended
        self.database = bed.server.database(RELEASE)
        self.user = make_projects(self.database, PROJECTS)
        self.database.execute("ALTER TABLE core_job SET (autovacuum_enabled = off)")
        table = self.database.project_table
        locked = f"SELECT id FROM {table} ORDER BY name LIMIT {LOCKED}"
        self.database.execute(f"UPDATE {table} SET locked_at = now() WHERE id IN ({locked})")
        self._fill()
        self.session, self.recorded = Session(self.database, recorded), recorded
        self.cursor = self.session.cursor
        self.old_claim = OLD_CLAIM.format(project=table)

    def _insert(self, cursor, text, **values):
        cursor.execute(text.replace("{project}", self.database.project_table), {"user": self.user, **values})

    def _fill(self):
        """Without checks of foreign keys, and with the indexes made last: what is there in the end is the same."""
        connection = self.database.server.connect(self.database.name, superuser=True)
        cursor = connection.cursor()
        cursor.execute("SET session_replication_role = replica; SET maintenance_work_mem = '256MB'")
        cursor.execute(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
            " WHERE indrelid = 'core_job'::regclass AND NOT indisprimary"
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {name}")
        for first in range(1, self.ended + 1, CHUNK):
            last = min(first + CHUNK - 1, self.ended)
            self._insert(cursor, ENDED, first=first, last=last, all=self.ended)
        for _, definition in indexes:
            cursor.execute(definition)
        self._insert(cursor, RUNNING)
        connection.close()

    def set_pending(self, count, more):
        connection = self.database.connect()
        cursor = connection.cursor()
        cursor.execute("DELETE FROM core_job WHERE status = 'pending'")
        self._insert(cursor, WAITING, count=count)
        cursor.execute("VACUUM ANALYZE core_job")
        cursor.execute(f"VACUUM ANALYZE {self.database.project_table}")
        if more:
            self._insert(cursor, WAITING, count=more)
        connection.close()

    def set_index(self, there):
        words = ["setup-db", "--index" if there else "--undo"]
        env = {**self.bed.worker.env, **self.database.settings}
        subprocess.run([self.bed.binary, *words], env=env, stdout=subprocess.DEVNULL, check=True)

    def claim_ms(self):
        """Infinite where the statement timeout that the worker sets has ended it."""
        text = self.session.text(self.recorded.claim)
        try:
            found = timed(self.cursor, f"BEGIN; {text}")
            assert len(self.cursor.fetchall()) == 1, "the recorded claim took no job"
        except errors.QueryCanceled:
            found = math.inf
        self.cursor.execute("ROLLBACK")
        return found

    def look_ms(self):
        found = timed(self.cursor, self.session.text(self.recorded.look))
        assert True in self.cursor.fetchone(), "the recorded look saw no job"
        return found

    def old_ms(self):
        found = timed(self.cursor, "BEGIN", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", self.old_claim)
        queued = self.cursor.mogrify(OLD_QUEUED, (self.cursor.fetchone()[0],))
        found += timed(self.cursor, queued)
        self.cursor.execute("ROLLBACK")
        return found

    def plan(self, text):
        """How the tables of jobs and projects are read."""
        self.cursor.execute(f"EXPLAIN {text}")
        lines = [line for (line,) in self.cursor.fetchall()]
        scans = "(Index Only Scan|Index Scan|Seq Scan|Bitmap Index Scan)(?: Backward)?"
        tables = rf"(?:core_job|{self.database.project_table})"
        found = {}
        for line in lines:
            match = re.search(rf"{scans} (?:using (\S+) )?on ({tables}\S*)", line)
            if match:
                scan, index, table = match.groups()
                found[f"{scan} {index or table}"] = True
        return ", ".join(found)

    def plans(self):
        yield "look", self.plan(self.session.text(self.recorded.look))
        for number, statement in enumerate(self.recorded.claim, 1):
            yield f"claim, {number}", self.plan(self.session.text([statement]))
        yield "old loop", self.plan(self.old_claim)

    def close(self):
        self.session.close()
        self.database.close()


KINDS = {"claim": (Case.claim_ms, BATCH), "look": (Case.look_ms, BATCH), "old loop's claim": (Case.old_ms, 1)}


def measure(cases, rounds):
    """{kind: [the cases' medians in ms]}; who is first changes from round to round."""
    found = {}
    for kind, (ask, batch) in KINDS.items():
        slowest, count = max(warmed_up(ask, case) for case in cases), rounds
        if slowest > SLOW_MS:
            count, batch = min(rounds, SLOW_ROUNDS) if slowest < math.inf else 1, 1
        times = {case: [] for case in cases}
        for number in range(count):
            turn = number % len(cases)
            for case in cases[turn:] + cases[:turn]:
                times[case] += [ask(case) for _ in range(batch)]
        found[kind] = [statistics.median(times[case]) for case in cases]
    return found


def warmed_up(ask, case):
    """Asks until PostgreSQL has decided whether it plans anew; returns the last time."""
    for _ in range(WARM_UP):
        ms = ask(case)
        if ms > 10 * SLOW_MS:
            break
    return ms


def name_of(pending):
    before, after = pending
    return f"{before + after:,}{'*' if after else ''}"


def show_cell(pending, index, found):
    for kind, medians in found.items():
        base, *longer = medians
        figures = "".join(f"{ms:>11.2f}{ms / base:>9.2f}" for ms in longer)
        worst = max(ms / base for ms in longer)
        verdict = "" if kind != "claim" else f"  {'within' if worst <= LIMIT else 'over'} {LIMIT:g}"
        where = f"{name_of(pending):>7}  {'with' if index else 'without':<8}"
        print(f"    {where}{kind:<17}{base:>9.2f}{figures}{verdict}", flush=True)


def run_history(bed, recorded, pairs):
    began = time.monotonic()
    cases = [Case(bed, recorded, ended) for ended in HISTORIES]
    print(f"\nThree histories of {', '.join(f'{ended:,}' for ended in HISTORIES)} ended jobs in {PROJECTS} projects,"
          f" made in {time.monotonic() - began:.0f} s.")
    print(f"A claim of one job and a look, medians in ms of {pairs} rounds of {BATCH}, and the ratio to no history:")
    titles = "".join(f"{f'{ended:,}':>11}{'ratio':>9}" for ended in HISTORIES[1:])
    print(f"    pending  index   {'':<17}{'none':>9}{titles}        (*: few when the tables were analysed)")
    plans = []
    for pending in PENDING:
        for case in cases:
            case.set_pending(*pending)
        for index in (False, True):
            for case in cases:
                case.set_index(index)
            show_cell(pending, index, measure(cases, pairs))
            plans.append((pending, index, list(cases[-1].plans())))
    for pending, index, found in plans:
        words = f"{HISTORIES[-1]:,} ended and {name_of(pending)} pending, {'with' if index else 'without'} index"
        print(f"\nHow tables are read with {words}:")
        for name, text in found:
            print(f"    {name:<10} {text}", flush=True)
    for case in cases:
        case.close()


# An old snapshot


class Cycles:
    """Jobs from their row to their end, one after the other, without containers."""

    def __init__(self, bed, recorded):
        self.recorded = recorded
        self.database = bed.server.database(RELEASE)
        self.user = make_projects(self.database, PROJECTS)
        self.session = Session(self.database, recorded)
        self.cursor, self._count = self.session.cursor, 0
        self.cursor.execute(f"SELECT id::text FROM {self.database.project_table}")
        self.projects = [identity for (identity,) in self.cursor.fetchall()]
        self._old_claim = OLD_CLAIM.format(project=self.database.project_table)
        for _ in range(FEW):
            self._insert()

    def _insert(self):
        project = self.projects[self._count % len(self.projects)]
        self._count += 1
        self.cursor.execute(
            f"WITH job AS ({INSERT} SELECT gen_random_uuid(), now(), now(), %s, 'package', 'pending', %s, %s,"
            " NULL, NULL, NULL, NULL, NULL, NULL, '' RETURNING id)"
            " INSERT INTO core_packagejob (job_ptr_id) SELECT id FROM job",
            (project, self.user, self.user),
        )

    def ours(self):
        """One job by the recorded statements."""
        recorded = self.recorded
        row = self.session.run(recorded.claim)[0]
        job, project = str(row[0]), str(row[1])
        swap = [(recorded.job, job), (recorded.project, project)]
        swap.append((recorded.job.replace("-", ""), job.replace("-", "")))
        for transaction in recorded.rest:
            self.session.run(transaction, swap)

    def old(self):
        """One job by the old loop's claim and updates."""
        self.cursor.execute("BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self.cursor.execute(self._old_claim)
        job = self.cursor.fetchone()[0]
        self.cursor.execute(OLD_QUEUED, (job,))
        self.cursor.execute("COMMIT")
        values = {"job": job, "output": self.recorded.output, "feedback": Json(self.recorded.feedback)}
        for change in OLD_UPDATES:
            change = change.replace("{container}", self.recorded.container)
            self.cursor.execute(f"UPDATE core_job SET {change} WHERE id = %(job)s", values)

    def rate(self, cycle, seconds):
        """Cycles per second of the last tenth of so many seconds, and how many there were; the inserts untimed."""
        began, spent, count, everything = time.monotonic(), 0, 0, 0
        while (age := time.monotonic() - began) < seconds:
            self._insert()
            started = time.perf_counter()
            cycle(self)
            if age > 0.9 * seconds:
                spent += time.perf_counter() - started
                count += 1
            everything += 1
        return count / spent, everything

    def dead(self):
        """Row versions of core_job that are dead and cannot be removed, or are not removed yet."""
        self.cursor.execute("SELECT pg_sleep(1.1)")  # so that the counts have been handed in
        return self.database.value("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'core_job'")

    def close(self):
        self.session.close()
        self.database.close()


def hold(database):
    """A session whose snapshot stays."""
    connection = database.connect()
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM core_job")
    return connection


def run_snapshot(bed, recorded):
    print(f"\nClaim to finish, statements only, cycles per second after {MINUTE_S} s of them, {FEW} pending:")
    print(f"    {'':<24}{'alone':>9}{'old snapshot':>14}{'ratio':>8}{'jobs meanwhile':>16}{'dead versions kept':>20}")
    for name, cycle in (("qfc-worker", Cycles.ours), ("old loop's 7 updates", Cycles.old)):
        cycles = Cycles(bed, recorded)
        alone, _ = cycles.rate(cycle, MINUTE_S)
        cycles.database.execute("VACUUM ANALYZE core_job")
        before = cycles.dead()
        holder = hold(cycles.database)
        held, count = cycles.rate(cycle, MINUTE_S)
        dead = cycles.dead() - before
        holder.close()
        print(f"    {name:<24}{alone:>9.0f}{held:>14.0f}{held / alone:>8.2f}{count:>16}{dead:>20}", flush=True)
        cycles.close()


# Row versions of real jobs

COUNTS = """
SELECT relname, n_tup_ins AS inserted, n_tup_upd AS updated, n_tup_del AS deleted FROM pg_stat_user_tables
 WHERE n_tup_ins + n_tup_upd + n_tup_del > 0
"""


def counts(database):
    return {row.pop("relname"): row for row in database.execute(COUNTS)}


def run_versions(bed):
    database = bed.server.database(RELEASE)
    jobs = [database.job(database.project(qgis_file="offline.qgs", files=())) for _ in range(REAL_JOBS)]
    database.disconnect()  # a session hands in what it counted when it ends, at the latest
    before = counts(database)
    bed.worker.run("run", "--drain", "--concurrency", 4, QFIELDCLOUD_DEFAULT_NETWORK="none", **database.settings)
    finished = database.value("SELECT count(*) FROM core_job WHERE status = 'finished'")
    assert finished == len(jobs), f"{finished} of {len(jobs)} jobs were finished"
    print(f"\nDead row versions per job, {finished} package jobs in containers (the old loop: 7 of core_job):")
    for table, row in sorted(counts(database).items()):
        grown = {kind: (value - before.get(table, {}).get(kind, 0)) / finished for kind, value in row.items()}
        dead = grown["updated"] + grown["deleted"]
        if dead:
            details = ", ".join(f"{value:.2f} {kind}" for kind, value in grown.items() if value)
            print(f"    {table:<28}{dead:>6.2f}   ({details})", flush=True)
    database.close()


def run(bed, pairs):
    recorded = Recorded(bed)
    counts_of = ", ".join(str(len(transaction)) for transaction in [recorded.claim, *recorded.rest])
    print(f"\nRecorded of one package job: transactions of {counts_of} statements")
    run_history(bed, recorded, pairs)
    run_versions(bed)
    run_snapshot(bed, recorded)
