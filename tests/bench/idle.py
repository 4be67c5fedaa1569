"""What workers cost that have nothing to do, what a job that fifty hear of costs them, and the WAL of a job.

Idle is a worker that is connected, has looked for the first time and finds no job pending. For a minute the server logs
what each session sends: so statements are counted, and their times known, without asking anything of the worker. From
/proc come its processor time and how often it went to sleep, which is how often it was woken. The workers have the
triggers of setup-db and the default of QFC_WORKER_POLL_MS. One of them judges alerts, and asks for the queue's state.

A job is inserted while fifty listen: counted are the claims that all send until a second later, and the looks of those
that did not get it, those included that they would have sent in that second anyway. What a look and a claim take is the
server's time for parsing, binding and executing them, a claim's commit not included. The claims are those of the worker
of the next part: most of them find a job, and it keeps on preparing.

WAL is what the server has written, without images of whole pages, which depend on when the last checkpoint was, and
with autovacuum off. The rows that make a job are inserted first, then a worker does the jobs in containers.
"""

import collections
import datetime
import os
import re
import signal
import statistics
import subprocess
import time

from bed import BedError

RELEASE = "v26.25"
FLEET = 50
WINDOW_S = 60
SETTLE_S = 30  # the first minute has more to say: alerts are handed on, images are looked for
WAL_JOBS = 30
LIMIT_STATEMENTS = 1.0
LIMIT_COST = 1.0
LINE = re.compile(
    r"^(\S+ [\d:.]+) \S+ \[(\d+)\] \S*@(\S+) LOG:  duration: ([\d.]+) ms  (parse|bind|execute) \S+: (.*)"
)
LOOKS = "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database()"
LOOKS += " AND application_name ~ '^qfc-worker:[0-9a-f]{16}:'"

Sent = collections.namedtuple("Sent", "at session ms sql")


def is_look(sent):
    return " AS work" in sent.sql


def is_claim(sent):
    """Its last statement: each claim has one."""
    return "SET status = 'queued'" in sent.sql


class Log:
    """What the sessions of a database send, from its making on; those that were there before are not logged."""

    def __init__(self, database):
        self.database, self.path = database, database.server.log
        connection = database.server.connect("postgres", superuser=True)
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{database.name}" SET log_min_duration_statement = 0')
        connection.close()
        self.mark()

    def mark(self):
        self._begin = os.path.getsize(self.path)

    def sent(self):
        """Since the mark, in the log's order; the time is the end of the execution."""
        with open(self.path, "rb") as file:
            file.seek(self._begin)
            lines = file.read().decode(errors="replace").splitlines()
        found, spent = [], collections.Counter()
        for at, session, name, ms, phase, sql in (match.groups() for match in map(LINE.match, lines) if match):
            if name != self.database.name:
                continue
            spent[session] += float(ms)
            if phase == "execute":
                end = datetime.datetime.fromisoformat(f"{at}+00:00").timestamp()  # the server's time zone is UTC
                found.append(Sent(end, int(session), spent.pop(session), sql))
        return found


class Usage:
    """What a process has used so far: nanoseconds of processor time, and how often it went to sleep."""

    def __init__(self, pid):
        self.ns = self.sleeps = 0
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                self.ns += int(file.read().split()[0])
            with open(f"/proc/{pid}/task/{thread}/status", encoding="ascii") as file:
                self.sleeps += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", file.read(), re.MULTILINE).group(1))


class Fleet:
    """So many workers of one database, with the triggers."""

    def __init__(self, bed, count):
        self.bed, self.database = bed, bed.server.database(RELEASE)
        env = {**bed.worker.env, **self.database.settings}
        subprocess.run([bed.binary, "setup-db"], env=env, stdout=subprocess.DEVNULL, check=True)
        self.log = Log(self.database)
        settings = {"QFIELDCLOUD_DEFAULT_NETWORK": "none", **self.database.settings}
        self.processes = [bed.worker.start("run", **settings) for _ in range(count)]
        looked = f"{LOOKS} AND query LIKE '% AS work%'"
        bed.worker.wait_for(lambda: len(self.database.execute(looked)) == count, "the first look of each")
        time.sleep(SETTLE_S)

    def backends(self):
        """{pid of a session: the worker whose it is}."""
        return {row["pid"]: row["application_name"][:27] for row in self.database.execute(LOOKS)}

    def idle(self):
        """A minute of it: [what each worker sent], and the usages [before, after] of workers and of backends."""
        workers = self.backends()
        pids = [process.pid for process in self.processes], list(workers)
        self.log.mark()
        before = [[Usage(pid) for pid in group] for group in pids]
        time.sleep(WINDOW_S)
        after = [[Usage(pid) for pid in group] for group in pids]
        sessions = collections.defaultdict(list)
        for sent in self.log.sent():
            if sent.session in workers:
                sessions[workers[sent.session]].append(sent)
        return list(sessions.values()), *zip(before, after)

    def insert(self):
        """One job that they hear of: how many claims all sent, and each of the others' looks."""
        project = self.database.project(qgis_file="offline.qgs", files=())
        self.log.mark()
        began = time.time()
        job = self.database.job(project)
        self.bed.worker.wait_for(
            lambda: self.database.get("core_job", job["id"])["status"] == "finished" and time.time() > began + 1,
            "the job's end",
        )
        sent = [statement for statement in self.log.sent() if statement.at <= began + 1]
        claims = collections.Counter(statement.session for statement in sent if is_claim(statement))
        looks = collections.Counter(s.session for s in sent if is_look(s) and s.session not in claims)
        time.sleep(1)
        return claims, sum(looks.values()) / (len(self.processes) - len(claims))

    def close(self):
        for process in self.processes:
            process.send(signal.SIGTERM)
        for process in self.processes:
            process.wait()
        self.database.close()


# Idle


def rate(sent):
    """Per second, from the first to the last: where the minute begins and ends makes no difference."""
    spans = len(sent) - 1
    return spans / (sent[-1].at - sent[0].at) if spans > 0 else 0.0


def spent(usages):
    before, after = usages
    seconds = sum(b.ns - a.ns for a, b in zip(before, after)) / 1e9
    sleeps = sum(b.sleeps - a.sleeps for a, b in zip(before, after))
    return seconds * 3600 / WINDOW_S, sleeps / WINDOW_S


def show_idle(count, sessions, workers, backends):
    rates = [rate(sent) for sent in sessions]
    (cpu, wakeups), (backend_cpu, _) = spent(workers), spent(backends)
    others = sum(not is_look(statement) for sent in sessions for statement in sent)
    # A timer is never early, but the log's times have milliseconds only.
    verdict = "within" if max(rates) < LIMIT_STATEMENTS + 0.001 else "over"
    print(f"    {count:>7}{statistics.mean(rates):>14.3f}{max(rates):>8.3f}  {verdict} {LIMIT_STATEMENTS:g}{others:>9}"
          f"{cpu / count:>12.2f}{wakeups / count:>11.2f}{backend_cpu / count:>17.2f}", flush=True)


# WAL


def administer(server, *statements):
    connection = server.connect("postgres", superuser=True)
    with connection.cursor() as cursor:
        for statement in (*statements, "SELECT pg_reload_conf()"):
            cursor.execute(statement)
    connection.close()


def position(database):
    return int(database.value("SELECT pg_current_wal_insert_lsn() - '0/0'"))


def measure_wal(bed):
    """Bytes per job of the inserts and of the worker, an outcome's size, and what was sent."""
    database = bed.server.database(RELEASE)
    administer(bed.server, "ALTER SYSTEM SET autovacuum = off", "ALTER SYSTEM SET full_page_writes = off", "CHECKPOINT")
    time.sleep(1)
    projects = [database.project(qgis_file="offline.qgs", files=()) for _ in range(WAL_JOBS)]
    log = Log(database)
    positions = [position(database)]
    for project in projects:
        database.job(project)
    positions.append(position(database))
    bed.worker.run("run", "--drain", QFIELDCLOUD_DEFAULT_NETWORK="none", **database.settings)
    positions.append(position(database))
    administer(bed.server, "ALTER SYSTEM RESET autovacuum", "ALTER SYSTEM RESET full_page_writes")
    size = database.one(
        "SELECT count(*), avg(octet_length(output)) AS output, avg(octet_length(feedback::text)) AS feedback"
        " FROM core_job WHERE status = 'finished'"
    )
    if size["count"] != WAL_JOBS:
        raise BedError(f"{size['count']} of {WAL_JOBS} jobs were finished")
    sent = log.sent()
    database.close()
    inserts, worker = ((b - a) / WAL_JOBS for a, b in zip(positions, positions[1:]))
    return inserts, worker, size, sent


def claim_times(sent):
    """The server's ms for each claim: its statements are the session's since the claim before."""
    session = next(statement.session for statement in sent if is_claim(statement))
    spent_ms, found = 0.0, []
    for statement in (statement for statement in sent if statement.session == session):
        spent_ms += statement.ms
        if is_claim(statement):
            found.append(spent_ms)
            spent_ms = 0.0
    return found[2:]  # the first two are parsed


# All


def run_one(bed):
    fleet = Fleet(bed, 1)
    sessions, workers, backends = fleet.idle()
    show_idle(1, sessions, workers, backends)
    fleet.close()
    return [sent.ms for sent in sessions[0] if is_look(sent) and "upkeep" not in sent.sql]


def run_fleet(bed, inserts):
    fleet = Fleet(bed, FLEET)
    show_idle(FLEET, *fleet.idle())
    heard = [fleet.insert() for _ in range(inserts)]
    fleet.close()
    return heard


def show_heard(heard, look_ms, claim_ms):
    cost = statistics.mean(looks for _, looks in heard) * look_ms / claim_ms
    rows = {
        "claims of all, those after the job's end included": [sum(claims.values()) for claims, _ in heard],
        "workers that sent a claim": [len(claims) for claims, _ in heard],
        "looks of each other worker": [looks for _, looks in heard],
    }
    print(f"\nOne insert that {FLEET} workers hear of, {len(heard)} times, up to a second after it:")
    for name, values in rows.items():
        print(f"    {name:<52}{statistics.mean(values):.2f} (most {max(values):.2f})")
    print(f"    a look {look_ms:.3f} ms, a claim {claim_ms:.3f} ms in the server: ratio {look_ms / claim_ms:.2f}")
    verdict = "within" if cost < LIMIT_COST else "over"
    print(f"    {'cost for each other worker, in claims':<52}{cost:.2f}  {verdict} {LIMIT_COST:g}", flush=True)


def run(bed, pairs):
    print(f"\nIdle for {WINDOW_S} s, for each worker (its backends with the log that counts):")
    print(f"    {'workers':>7}{'statements/s':>14}{'most':>8}{'':<10}{'no looks':>9}{'CPU s/hour':>12}{'wakeups/s':>11}"
          f"{'backends s/hour':>17}")
    looks = run_one(bed)
    heard = run_fleet(bed, pairs)
    inserts, worker, size, sent = measure_wal(bed)
    show_heard(heard, statistics.median(looks), statistics.median(claim_times(sent)))
    print(f"\nWAL bytes per job, {WAL_JOBS} package jobs, output of {size['output']:.0f} bytes and feedback of"
          f" {size['feedback']:.0f}:")
    print(f"    inserting its rows, as the web application does   {inserts:>8.0f}")
    print(f"    from pending to finished, the worker's own        {worker:>8.0f}", flush=True)
