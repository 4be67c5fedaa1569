"""Cycles per second, from claim to finish, without containers: the program's queue beside pgbench.

tests/bench/cycle.c drives the queue as it ships: it claims for some slots, ends each job with an output of 2 KB, and
claims again. pgbench sends the same statements with the same values, prepared and pipelined, as recorded from cycle.c
at first: one pipeline for a claim, one for the end of each job. So both wait for the server as often, and commit as
often; n_tup_upd of core_job shows that both wrote the same. One process is one cycle.c, which has two connections as
each worker has, or one pgbench, which has one.

A pipeline of pgbench cannot use what the one before it has returned, so the end of a job must find its id. With one
process that is counted: the rows have ids in the order of their age, which is the order of claims. With four that is
not known, and pgbench looks the id up by its marker in container_id, which is indexed; what that costs it is measured
with one process, and printed.

Each run begins with the same table: some history, and as many pending jobs as are taken, each of a project of its own.
It is filled anew, vacuumed and analysed before each run, and let alone by autovacuum. The time is from the first claim
to the last commit of all processes.
"""

import os
import re
import statistics
import subprocess
import time

from bed import BedError
from bed.postgres import ROLE
from sent import OPTIONS, Recording, without_setup

RELEASE = "v26.25"
LIMIT = 0.8
ROUNDS = 5  # at least
HISTORY = 20000
SPARE = 40  # pending jobs that are left: so no claim finds nothing at the end
CASES = ((1, 1, 200), (1, 4, 800), (4, 1, 800), (4, 4, 2400))  # processes, slots, jobs
PATIENCE_S = 300
# The key of a job's lock is made of the first half of its id, which is random in real ones.
ID_OF_N = "rpad(lpad(n::text, 16, '0'), 32, '0')"
ID = "rpad(lpad(:n::text, 16, '0'), 32, '0')::uuid"
FOUND = "(SELECT id FROM core_job WHERE container_id = :{} AND status = 'queued' LIMIT 1)"


class Table:
    """core_job of a database of its own."""

    def __init__(self, bed):
        self.database = bed.server.database(RELEASE)
        self._connection = bed.server.connect(self.database.name, superuser=True)
        self._execute("SET session_replication_role = replica")  # no triggers: foreign keys hold by themselves here
        self._execute("ALTER TABLE core_job SET (autovacuum_enabled = off)")
        self._make_projects(max(jobs for _, _, jobs in CASES) + SPARE)

    def _execute(self, statement, *values):
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else None

    def _make_projects(self, count):
        project = self.database.project(qgis_file=None, files=())
        table = self.database.project_table
        self._execute(
            f"INSERT INTO {table} SELECT (jsonb_populate_record(p, jsonb_build_object('id', lpad(n::text, 32, '0'),"
            f" 'name', 'p' || n))).* FROM {table} p, generate_series(1, %s) n WHERE p.id = %s",
            count,
            project["id"],
        )
        self._execute(f"VACUUM ANALYZE {table}")
        self.database.job(project, status="finished")
        self._execute("CREATE TABLE model AS SELECT * FROM core_job")

    def fill(self, pending):
        """Job number n, from the oldest, has the id n. Finished ones are older, and of the same projects."""
        self._execute("DELETE FROM core_job")
        add = (
            "INSERT INTO core_job SELECT (jsonb_populate_record(m, jsonb_build_object('id', {}, 'project_id',"
            " lpad((1 + n %% %s)::text, 32, '0'), 'status', %s, 'output', %s,"
            " 'created_at', now() - {} + n * interval '1 second'))).* FROM model m, generate_series(1, %s) n"
        )
        finished = add.format("gen_random_uuid()", "interval '9 days'")
        self._execute(finished, pending, "finished", "done", HISTORY)
        waiting = add.format(ID_OF_N, "interval '1 day'")
        self._execute(waiting, pending, "pending", None, pending)
        self._execute("VACUUM FULL core_job")
        self._execute("VACUUM ANALYZE core_job")
        self._execute("SELECT pg_stat_reset_single_table_counters('core_job'::regclass)")

    def finished(self):
        return self._execute("SELECT count(*) FROM core_job WHERE status = 'finished'")[0][0] - HISTORY

    def updates(self):
        """How many row versions were written."""
        time.sleep(0.2)  # sessions tell their numbers when they end
        return self._execute("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'core_job'")[0][0]

    def close(self):
        self._connection.close()
        self.database.close()


class Queue:
    """tests/bench/cycle.c."""

    name = "the program's queue"

    def __init__(self, bed, table):
        self.binary = os.path.join(os.path.dirname(bed.binary), "tests", "bench-cycle")
        self.env = {**os.environ, "QFC_TEST_DATABASE_URL": table.database.url}

    def start(self, _number, _processes, slots, jobs):
        command = [self.binary, str(slots), str(jobs)]
        return subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, text=True)

    @staticmethod
    def times(_number, printed):
        begin, end, _empty = map(float, printed.split())
        return begin, end


class Pgbench:
    """pgbench with what cycle.c sends, for some number of slots."""

    name = "pgbench, the same"

    def __init__(self, bed, table, queue, slots, counted):
        self.server, self.table, self.directory = bed.server, table, bed.directory
        self.command = [f"{bed.server.bin}/pgbench", "-n", "-M", "prepared", "-l"]
        self.values, self._counted = {}, counted
        self._path = os.path.join(bed.directory, f"cycle-{slots}-{'counted' if counted else 'found'}.sql")
        claim, finish = self._record(queue, slots)
        with open(self._path, "w", encoding="utf-8") as file:
            file.write(self._pipeline([self._text("c", i, one) for i, one in enumerate(claim)]))
            for _ in range(slots):
                file.write("\\set n :n + 1\n" if counted else "")
                file.write(self._pipeline([self._text("f", 0, finish)]))

    def _record(self, queue, slots):
        """The statements of a claim, and that of a job's end."""
        self.table.fill(8 * slots)
        with Recording(self.table.database) as recording:
            process = queue.start(0, 1, slots, 4 * slots)
            if process.wait(PATIENCE_S):
                raise BedError("the queue failed")
            claims, ends = without_setup(recording.sent()).values()
        return claims[-2:], ends[-1]

    @staticmethod
    def _pipeline(texts):
        return "\n".join(["\\startpipeline", *(f"{text};" for text in texts), "\\endpipeline", ""])

    def _text(self, kind, number, statement):
        """$1 becomes a variable, or what finds the job's id; the marker is one for each process."""

        def place(match):
            value = statement.values[int(match.group(1)) - 1]
            if kind == "f" and match.group(1) == "1":
                return ID if self._counted else FOUND.format("marker")
            if value and value.startswith("qfc-worker:"):
                return ":marker"
            if not value:  # a variable of pgbench is never empty
                return "NULL" if value is None else "''"
            name = f"{kind}{number}v{match.group(1)}"
            self.values[name] = value
            return f":{name}"

        return re.sub(r"\$(\d+)", place, statement.sql.replace("\n", " "))

    def start(self, number, _processes, slots, jobs):
        given = {**self.values, "marker": f"qfc-worker:{number:016x}:bench", "n": "0"}
        command = [*self.command, "-t", str(jobs // slots), "-f", self._path]
        command += ["--log-prefix", os.path.join(self.directory, f"pgbench-{number}")]
        for name, value in given.items():
            command += ["-D", f"{name}={value}"]
        command += ["-h", "127.0.0.1", "-p", str(self.server.port), "-U", ROLE, self.table.database.name]
        env = {**os.environ, **OPTIONS, "PGPASSWORD": self.server.password}
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)

    def times(self, number, _printed):
        """From its log of transactions: the first one's begin, the last one's end."""
        names = [name for name in os.listdir(self.directory) if name.startswith(f"pgbench-{number}.")]
        path = os.path.join(self.directory, names[0])
        with open(path, encoding="ascii") as file:
            rows = [[int(word) for word in line.split()] for line in file]
        os.unlink(path)
        ends = [row[4] + row[5] / 1e6 for row in rows]
        return ends[0] - rows[0][2] / 1e6, ends[-1]


def measure(table, side, processes, slots, jobs):
    """Jobs per second, and row versions per job."""
    table.fill(jobs + SPARE)
    running = [side.start(number, processes, slots, jobs // processes) for number in range(processes)]
    printed = [process.communicate(timeout=PATIENCE_S)[0] for process in running]
    if any(process.returncode for process in running) or table.finished() != jobs:
        raise BedError(f"{side.name}: {table.finished()} of {jobs} jobs were finished")
    times = [side.times(number, text) for number, text in enumerate(printed)]
    seconds = max(end for _, end in times) - min(begin for begin, _ in times)
    return jobs / seconds, table.updates() / jobs


def show(name, measured):
    rates = [rate for rate, _ in measured]
    updates = statistics.mean(updates for _, updates in measured)
    figures = "".join(f"{function(rates):>9.0f}" for function in (statistics.median, min, max))
    print(f"    {name:<26}{figures}{updates:>14.2f}", flush=True)


def run_case(bed, table, rounds, case):
    processes, slots, jobs = case
    queue = Queue(bed, table)
    sides = [queue, Pgbench(bed, table, queue, slots, counted=processes == 1)]
    if processes == 1:
        sides.append(Pgbench(bed, table, queue, slots, counted=False))
        sides[2].name = "pgbench, ids by marker"
    found = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 else sides[::-1]:
            found[side].append(measure(table, side, *case))
    print(f"\n{jobs} jobs, {slots} for each claim, {processes} at a time on each side:")
    print(f"    {'':<26}{'median':>9}{'min':>9}{'max':>9}{'row versions':>14}")
    for side, measured in found.items():
        show(side.name, measured)
    ratio = statistics.median(a[0] / b[0] for a, b in zip(found[sides[0]], found[sides[1]]))
    print(f"    queue / pgbench, median of {rounds} alternations: {ratio:.2f},"
          f" {'within' if ratio >= LIMIT else 'under'} {LIMIT}", flush=True)


def run(bed, pairs):
    """`bed` has what the script has built and started."""
    rounds = max(pairs // 2, ROUNDS)
    table = Table(bed)
    print(f"\nCycles (claim, finish) per second, without containers; {HISTORY} finished jobs beside the pending:")
    for case in CASES:
        run_case(bed, table, rounds, case)
    table.close()
