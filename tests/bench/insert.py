"""What the triggers of setup-db cost the one who inserts a job.

Three databases on the same server: one without triggers, one where setup-db was, and one with a trigger that calls
pg_notify and nothing else, which shows what PostgreSQL takes for a notification by itself. pgbench inserts into each in
turns, over TCP and with the simple protocol: `transaction` is a job and its package row between BEGIN and COMMIT, as the
web application inserts them, but without all that it asks before and does beside it, of which the trigger's share is
smaller; `statement` is a job's row alone. In the two with triggers a session listens, as workers do. Commits wait for
the disk, as in production. A batch's time is the median of its transactions': what else the machine does hits some of
them hard, and most not at all.

Last comes the processor time of the session that inserts, without the disk, without the network, and whatever else the
machine does: from /proc, in many small batches, of which the quickest tenth counts. So the ratio is the largest there,
and the same each time.
"""

import glob
import os
import select
import statistics
import subprocess
import threading
import time

from bed import BedError, cleanup
from bed.postgres import ROLE

RELEASE = "v26.25"
COUNT = 200  # transactions in a batch
SMALL, SMALL_BATCHES, QUICKEST = 25, 10, 0.1  # transactions, batches for each of `pairs`, the part that counts
LIMIT = 1.1
BARE = """
CREATE FUNCTION bare() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_notify('qfc_worker', right(NEW.id::text, 2)); RETURN NULL; END $$;
CREATE TRIGGER bare AFTER INSERT ON core_job FOR EACH ROW EXECUTE FUNCTION bare()
"""
KINDS = ("transaction", "statement")


class Listener:
    """A session that listens, and reads what it hears."""

    def __init__(self, database):
        self._connection, self._ended = database.server.connect(database.name), False
        with self._connection.cursor() as cursor:
            cursor.execute("LISTEN qfc_worker")
        self.heard = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        while not self._ended:
            if select.select([self._connection], [], [], 0.2)[0]:
                self._connection.poll()
                self.heard += len(self._connection.notifies)
                self._connection.notifies.clear()

    def close(self):
        self._ended = True
        self._thread.join()
        self._connection.close()


class Case:
    """A database, and pgbench's scripts for it."""

    def __init__(self, bed, name):
        self.bed, self.name = bed, name
        self.database = bed.server.database(RELEASE)
        self.scripts = {kind: self._write(kind, text) for kind, text in zip(KINDS, self._texts())}

    def _texts(self):
        project = self.database.project()
        row = self.database.job(project, status="finished")
        values = {name: value for name, value in row.items() if value is not None}
        values |= {"id": None, "status": "pending", "created_at": None, "updated_at": None}
        made = {"id": "gen_random_uuid()", "created_at": "now()", "updated_at": "now()"}
        written = ", ".join(made.get(name) or f"'{value}'" for name, value in values.items())
        self.insert = insert = f"INSERT INTO core_job ({', '.join(values)}) VALUES ({written})"
        child = "INSERT INTO core_packagejob (job_ptr_id) VALUES (':id')"
        return f"BEGIN;\n{insert} RETURNING id \\gset\n{child};\nCOMMIT;\n", f"{insert};\n"

    def _write(self, kind, text):
        path = os.path.join(self.bed.directory, f"insert-{self.name.split()[0]}-{kind}.sql")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def processor_us(self, session):
        """Of one transaction in this session of the database."""

        def used():
            with open(f"/proc/{session.info.backend_pid}/schedstat", encoding="ascii") as file:
                return int(file.read().split()[0])

        with session.cursor() as cursor:
            before = used()
            for _ in range(SMALL):
                cursor.execute("BEGIN")
                cursor.execute(f"{self.insert} RETURNING id")
                cursor.execute("INSERT INTO core_packagejob (job_ptr_id) VALUES (%s)", cursor.fetchone())
                cursor.execute("COMMIT")
            return (used() - before) / SMALL / 1000

    def measure(self, kind):
        """Milliseconds of one; pgbench writes a line with the microseconds of each."""
        server, prefix = self.bed.server, os.path.join(self.bed.directory, "insert-log")
        command = [f"{server.bin}/pgbench", "-n", "-t", str(COUNT), "-f", self.scripts[kind]]
        command += ["-l", "--log-prefix", prefix]
        command += ["-h", "127.0.0.1", "-p", str(server.port), "-U", ROLE, self.database.name]
        env = {**os.environ, "PGPASSWORD": server.password}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        times = []
        for path in glob.glob(f"{prefix}.*"):
            with open(path, encoding="ascii") as file:
                times += [int(line.split()[2]) / 1000 for line in file]
            os.unlink(path)
        if done.returncode or len(times) != COUNT:
            raise BedError(f"pgbench failed:\n{done.stdout}{done.stderr}")
        return statistics.median(times)


def make_cases(bed):
    cases = [Case(bed, name) for name in ("no trigger", "bare pg_notify", "setup-db")]
    _, bare, ours = cases
    bare.database.execute(BARE)
    env = {**os.environ, **ours.database.settings}
    subprocess.run([bed.binary, "setup-db"], env=env, stdout=subprocess.DEVNULL, check=True)
    return cases


def set_durable(server):
    """Commits wait for the disk."""
    connection = server.connect("postgres", superuser=True)
    with connection.cursor() as cursor:
        for name in ("fsync", "full_page_writes"):
            cursor.execute(f"ALTER SYSTEM SET {name} = on")
        cursor.execute("SELECT pg_reload_conf()")
    connection.close()
    time.sleep(1)


def measure(cases, kind, pairs):
    """{case: [ms]}; who is first changes from round to round."""
    found = {case: [] for case in cases}
    for number in range(pairs):
        for case in cases[number % 3 :] + cases[: number % 3]:
            found[case].append(case.measure(kind))
    return found


def measure_processor(cases, pairs):
    """{case: [microseconds of the quickest]}."""
    sessions = {case: case.database.connect() for case in cases}
    found = {case: [] for case in cases}
    for number in range(-5, SMALL_BATCHES * pairs):  # the first ones warm up
        for case in cases[number % 3 :] + cases[: number % 3]:
            us = case.processor_us(sessions[case])
            if number >= 0:
                found[case].append(us)
    for session in sessions.values():
        session.close()
    return {case: sorted(times)[: max(1, round(len(times) * QUICKEST))] for case, times in found.items()}


def show_processor(found):
    print("\ntransaction, the session's processor time")
    print(f"    {'':<16}{'us':>10}{'more us':>10}{'ratio':>8}")
    without = max(next(iter(found.values())))
    for case, times in found.items():
        us = max(times)
        verdict = f"  {'within' if us / without <= LIMIT else 'over'} {LIMIT}" if case.name == "setup-db" else ""
        print(f"    {case.name:<16}{us:>10.0f}{us - without:>10.0f}{us / without:>8.2f}{verdict}", flush=True)


def show(title, found):
    without = next(iter(found.values()))
    print(f"\n{title}")
    print(f"    {'':<16}{'median ms':>10}{'min ms':>10}{'more us':>10}{'ratio':>8}")
    for case, times in found.items():
        more = statistics.median(times) - statistics.median(without)
        ratio = statistics.median(mine / theirs for mine, theirs in zip(times, without))
        figures = f"{statistics.median(times):>10.3f}{min(times):>10.3f}{1000 * more:>10.0f}{ratio:>8.2f}"
        verdict = f"  {'within' if ratio <= LIMIT else 'over'} {LIMIT}" if case.name == "setup-db" else ""
        print(f"    {case.name:<16}{figures}{verdict}", flush=True)


def run(bed, pairs):
    cases = make_cases(bed)
    listeners = [Listener(case.database) for case in cases[1:]]
    endings = [cleanup.later(listener.close) for listener in listeners]
    print(f"\nInserting a job, {pairs} batches of {COUNT} each, ratio: the median of the batches' ratios:")
    set_durable(bed.server)
    for kind in KINDS:
        cases[0].measure(kind)
        show(kind, measure(cases, kind, pairs))
    show_processor(measure_processor(cases, pairs))
    print(f"\nheard: {', '.join(str(listener.heard) for listener in listeners)}")
    for ending in endings:
        cleanup.now(ending)
