"""How soon a new job is picked up: from the commit of its row to the request for its container.

One process commits the rows and plays the engine (player.py), in one thread, so both ends are told by one clock. Rows
come one at a time, at random moments, each after the job before has ended; jobs end as soon as they have begun.

Beside the worker stands tests/bench/listener.c, a bare libpq program that does no more than it must: it listens, claims
with the same statements in one pipeline, reads with the same statements in another, and sends a request of the same
bytes over a kept connection. The statements, their values and the request are recorded from the worker at first. The
two have a database each, with the triggers of setup-db, and take turns job by job, so that what else the machine does
meets both. The listener has one connection and prepares all before it begins; the worker has two.

Without the triggers the worker finds jobs by looking for them.
"""

import os
import random
import statistics
import subprocess
import types

from bed import BedError, cleanup
from bed.worker import Worker
from player import Player
from sent import OPTIONS, Recording

RELEASE = "v26.25"
LIMIT = 1.5
PER_PAIR = 15  # jobs of each side for each of `pairs`
POLLED_PER_PAIR = 3
PAUSE_S = (0.02, 0.2)  # from a job's end to the next row
POLLED_PAUSE_S = (0.02, 2.0)
PROJECTS = 20
RECORDINGS = 3
RECORDED_AFTER_S = 0.3  # a look comes 50 ms after a job, another 100 ms after that, and another 200 ms
CHANNEL = "qfc_worker"


class Side:
    """A database with some projects, and who works on it."""

    def __init__(self, bed, player, name):
        self.bed, self.player, self.name = bed, player, name
        self.database = bed.server.database(RELEASE)
        self.projects = [self.database.project(qgis_file="offline.qgs") for _ in range(PROJECTS)]
        self.times = []
        self._connection = self.database.connect()
        self._connection.autocommit = False
        self._count = 0
        self._ending = cleanup.later(self._close)

    def _close(self):
        self._connection.close()

    def close(self):
        cleanup.now(self._ending)

    def install(self):
        """What setup-db does."""
        env = {**os.environ, **self.database.settings}
        subprocess.run([self.bed.binary, "setup-db"], env=env, stdout=subprocess.DEVNULL, check=True)

    def worker(self):
        engine = types.SimpleNamespace(host=self.player.host)
        return Worker(self.bed.binary, self.database, engine, "bench", "bench", self.bed.directory)

    def insert(self):
        """A job of the next project and its child row, committed."""
        project = self.projects[self._count % PROJECTS]
        self._count += 1
        with self._connection.cursor() as cursor:
            cursor.execute(
                "WITH job AS (INSERT INTO core_job (id, project_id, type, status, created_at, updated_at,"
                " created_by_id, triggered_by_id, container_id)"
                " VALUES (gen_random_uuid(), %s, 'package', 'pending', now(), now(), %s, %s, '') RETURNING id)"
                " INSERT INTO core_packagejob (job_ptr_id) SELECT id FROM job",
                (project["id"], project["owner_id"], project["owner_id"]),
            )
        self._connection.commit()

    def one_job(self, pause):
        """A row at a random moment; notes the milliseconds from its commit to the request for its container."""
        self.player.serve(random.uniform(*pause))
        created, deleted = len(self.player.created), len(self.player.deleted)
        self.insert()
        committed = self.player.now()
        self.player.serve(until=lambda: len(self.player.created) > created, what=f"a container for {self.name}")
        self.times.append((self.player.created[created] - committed) / 1e6)
        self.player.serve(until=lambda: len(self.player.deleted) > deleted, what=f"the end of a job of {self.name}")


def record(side):
    """Has a worker that listens take some jobs. Returns the statements that it claims one with, those that it reads
    with, and what stands for their values that differ from job to job. A look at the queue may come between; the
    shortest of some recordings has none."""
    found = []
    with Recording(side.database) as recording:
        process, ending = start_worker(side)
        for _ in range(RECORDINGS):
            side.player.serve(RECORDED_AFTER_S)
            recording.begin()
            side.player.on_created = recording.stop
            side.one_job((0, 0))
            job = side.database.one("SELECT id, project_id FROM core_job ORDER BY created_at DESC LIMIT 1")
            places = {str(job["id"]): "@job", str(job["project_id"]): "@project", None: "@null"}
            found.append((recording.sent(), places))
        side.player.on_created = None
        stop_worker(side, process, ending)
    sent, places = min(found, key=lambda one: len(one[0]))
    ends = [place for place, statement in enumerate(sent, 1) if "SET status = 'queued'" in statement.sql]
    if len(ends) != 1 or ends[0] == len(sent):
        raise BedError("the worker's statements were not recorded as it sends them")
    return (sent[: ends[0]], sent[ends[0] :]), places


def write_statements(path, batches, places):
    with open(path, "w", encoding="utf-8") as file:
        for number, statements in enumerate(batches, 1):
            for statement in statements:
                values = [places.get(value, value) for value in statement.values]
                words = [str(number), statement.sql, *values]
                file.write("\t".join(word.replace("\n", " ").replace("\t", " ") for word in words) + "\n")


class Listener:
    """tests/bench/listener.c on a database."""

    def __init__(self, side, batches, places):
        directory = side.bed.directory
        statements, request = (os.path.join(directory, name) for name in ("statements", "request"))
        write_statements(statements, batches, places)
        with open(request, "wb") as file:
            file.write(side.player.request)
        self._process = subprocess.Popen(
            [os.path.join(os.path.dirname(side.bed.binary), "tests", "bench-listener"), CHANNEL, side.player.path]
            + [statements, request],
            env={**os.environ, **OPTIONS, "QFC_TEST_DATABASE_URL": side.database.url},
            stdout=subprocess.PIPE,
        )
        self._ending = cleanup.later(self._close)
        if self._process.stdout.readline() != b"ready\n":
            raise BedError("the listening program did not begin")

    def _close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def close(self):
        cleanup.now(self._ending)


def start_worker(side):
    """One that has made its first looks."""
    worker = side.worker()
    process = worker.start("run")
    ending = cleanup.later(worker.close)

    def settled():
        messages = process.output().messages()
        return all(any(message.startswith(word) for message in messages) for word in ("connected", "the engine at"))

    side.player.serve(until=settled, what="the worker's connections")
    side.player.serve(2)
    return process, ending


def stop_worker(side, process, ending):
    process.process.terminate()
    side.player.serve(until=lambda: process.process.poll() is not None, what="the worker's end")
    output = process.output()
    failed = side.database.value("SELECT count(*) FROM core_job WHERE status <> 'finished'")
    if output.returncode or failed:
        raise BedError(f"{failed} jobs were not finished:\n{output}")
    cleanup.now(ending)


def percentile(times, part):
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]


def show(name, times):
    figures = (percentile(times, 0.5), percentile(times, 0.99), min(times), max(times))
    print(f"    {name:<28}" + "".join(f"{value:>10.2f}" for value in figures), flush=True)


def measure_heard(bed, player, count):
    ours, bare = (Side(bed, player, name) for name in ("the worker", "the bare program"))
    for side in (ours, bare):
        side.install()
    batches, places = record(ours)
    listener = Listener(bare, batches, places)
    process, ending = start_worker(ours)
    for number in range(-5, count):  # the first ones warm up
        if number == 0:
            ours.times, bare.times = [], []
        for side in (ours, bare) if number % 2 else (bare, ours):
            side.one_job(PAUSE_S)
    stop_worker(ours, process, ending)
    listener.close()
    for side in (ours, bare):
        side.close()
    lengths = " and ".join(str(len(statements)) for statements in batches)
    print(f"    pipelines of {lengths} statements, then a request of {len(player.request)} bytes, on both sides")
    return ours.times, bare.times


def measure_polled(bed, player, count):
    side = Side(bed, player, "the worker without triggers")
    process, ending = start_worker(side)
    for _ in range(count):
        side.one_job(POLLED_PAUSE_S)
    stop_worker(side, process, ending)
    side.close()
    return side.times


def verdict(name, ours, bare, part):
    ratio = percentile(ours, part) / percentile(bare, part)
    print(f"    {name} of worker / bare program: {ratio:.2f}, {'within' if ratio <= LIMIT else 'over'} {LIMIT}")


def run(bed, pairs):
    """`bed` has what the script has built and started."""
    count = PER_PAIR * pairs
    print(f"\nPickup: ms from a row's commit to the request for its container, {count} jobs of each in turns:")
    player = Player(os.path.join(bed.directory, "player"))
    ours, bare = measure_heard(bed, player, count)
    polled = measure_polled(bed, player, POLLED_PER_PAIR * pairs)
    player.close()
    print(f"    {'':<28}{'p50':>10}{'p99':>10}{'min':>10}{'max':>10}")
    show("worker, with the triggers", ours)
    show("bare program, the same", bare)
    show("worker without triggers *", polled)
    verdict("p50", ours, bare, 0.5)
    verdict("p99", ours, bare, 0.99)
    differences = statistics.median(ours) - statistics.median(bare)
    print(f"    medians differ by {1000 * differences:.0f} us")
    low, high = POLLED_PAUSE_S
    print(f"    * {len(polled)} jobs, {low} to {high} s after the one before; it looks after 50 ms, 100 ms, 200 ms and")
    print("      so on, at most QFC_WORKER_POLL_MS = 1000 ms apart")
