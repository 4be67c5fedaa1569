"""A job's time with the worker, beside the same engine calls made by a plain program.

The worker runs all the time, as it does in production, and takes one job at a time. It is given JOBS + 1 of them at
once, of as many projects. Measured is from its log's "claimed" of the first to that of the last, so JOBS whole rounds:
rows read, container made, run, looked at and removed, outcome written, next job claimed. Nothing is taken off: the
worker's four transactions per job and its own work count against it. Only the wait for the first look at the queue is
not in it, which the setting QFC_WORKER_POLL_MS decides. tests/bench/plain.c makes JOBS rounds of the same calls with
the same description of the container, without database and loop; its time is from before the first call to after the
last. Both talk to the engine over kept connections that stand when the clock starts. The containers do the same work,
on no network: that is where the engine is fastest, and a worker's own share the largest.

That the calls are the same is shown, not claimed: at first both run once through a recorder.
"""

import datetime
import os
import re
import statistics
import subprocess
import time

from bed import BedError
from recorder import Recorder

JOBS = 4
NETWORK = "none"
PAUSE_S = 0.3  # for the engine, after each batch
PATIENCE_S = 120
FIGURES = (("median", statistics.median), ("min", min), ("max", max))
PHASES = ("until started", "until outcome known", "rest, to the next")


class Plain:
    """tests/bench/plain.c, with what a worker's container is made of."""

    def __init__(self, binary, engine, body, directory):
        self.binary, self.engine = binary, engine
        self.body = os.path.join(directory, "body.json")
        with open(self.body, "wb") as file:
            file.write(body)
        self.calls, self._count = {}, 0

    def run(self, jobs, socket_path=None):
        """Returns [{call: ms}] of so many jobs."""
        self._count += 1
        command = [
            self.binary,
            socket_path or self.engine.socket_path,
            self.engine.docker.version[1:],
            self.body,
            f"qfc-bench-{os.getpid()}-{self._count}",
            str(jobs),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        time.sleep(PAUSE_S)
        if done.returncode:
            raise BedError("the plain program failed")
        names, *lines = [line.split() for line in done.stdout.splitlines()]
        return [dict(zip(names, map(float, line))) for line in lines]

    def batch(self):
        """Milliseconds per job, and the means of the phases."""
        rounds = self.run(JOBS)
        phases = []
        for names in ("create wait start", "exit inspect logs feedback", "delete"):
            phases.append(statistics.mean(sum(calls[name] for name in names.split()) for calls in rounds))
        for calls in rounds:
            for name, value in calls.items():
                self.calls.setdefault(name, []).append(value)
        return statistics.mean(sum(calls.values()) for calls in rounds), phases


def queue(database, projects):
    """A job of each project, all of them pending at the same moment."""
    jobs = [str(database.job(project, status="stopped")["id"]) for project in projects]
    database.execute("UPDATE core_job SET status = 'pending' WHERE id = ANY(%s::uuid[])", jobs)
    return set(jobs)


def _time(line):
    return datetime.datetime.fromisoformat(line["time"].rstrip("Z")).timestamp() * 1000


def processor_ms(pid):
    """What a process's only thread has computed so far."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e6


class Running:
    """The worker that runs."""

    def __init__(self, worker, database, projects):
        self.database, self.projects, self._jobs = database, projects, 0
        self.process = worker.start("run", "--concurrency", 1, QFIELDCLOUD_DEFAULT_NETWORK=NETWORK)
        self._backend = worker.wait_for(self._find_backend, "a connection to the database")

    def _find_backend(self):
        return self.database.value(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def warmed_up(self):
        """From here on processor time counts."""
        self._jobs, self._before = 0, self._processor_ms()

    def _processor_ms(self):
        return [processor_ms(pid) for pid in (self.process.pid, self._backend)]

    def processor_ms_per_job(self):
        """Of the worker, and of its connection's process in PostgreSQL, looking for jobs included."""
        return [(after - before) / self._jobs for before, after in zip(self._before, self._processor_ms())]

    def _wait(self, jobs):
        """Asks rarely, and little: what this costs counts against the worker."""
        deadline = time.monotonic() + PATIENCE_S
        while self.database.value(
            "SELECT count(*) FROM core_job WHERE id = ANY(%s::uuid[]) AND status = 'finished'", list(jobs)
        ) < len(jobs):
            if self.process.process.poll() is not None or time.monotonic() > deadline:
                raise BedError(f"not all jobs were finished:\n{self.process.output()}")
            time.sleep(0.2)
        time.sleep(PAUSE_S)

    def batch(self):
        """Milliseconds per job, and the means of the phases."""
        jobs = queue(self.database, self.projects)
        self._wait(jobs)
        self._jobs += len(jobs)
        lines = [line for line in self.process.output().lines if line.get("job") in jobs]
        claimed, started, finished = (
            [_time(line) for line in lines if line["message"].startswith(word)]
            for word in ("claimed", "started container", "finished")
        )
        phases = [
            statistics.mean(b - a for a, b in zip(claimed[:JOBS], started)),
            statistics.mean(b - a for a, b in zip(started[:JOBS], finished)),
            statistics.mean(b - a for a, b in zip(finished[:JOBS], claimed[1:])),
        ]
        return (claimed[JOBS] - claimed[0]) / JOBS, phases


def record_worker(worker, database, projects, engine, directory):
    """One job through the recorder; returns the calls and the container's description."""
    recorder = Recorder(os.path.join(directory, "recorder"), engine.socket_path)
    queue(database, projects[:1])
    output = worker.run(
        "run", "--drain", DOCKER_HOST=f"unix://{recorder.path}", QFIELDCLOUD_DEFAULT_NETWORK=NETWORK
    )
    recorder.close()
    if database.value("SELECT count(*) FROM core_job WHERE status = 'finished'") != 1:
        raise BedError(f"the job for the recorder was not finished:\n{output}")
    return recorder.calls(), recorder.body()


def record_plain(plain, directory):
    recorder = Recorder(os.path.join(directory, "recorder"), plain.engine.socket_path)
    plain.run(1, recorder.path)
    recorder.close()
    return recorder.calls()


def show_calls(worker_calls, plain_calls):
    if worker_calls == plain_calls:
        print(f"\nBoth make the same {len(worker_calls)} calls for a job:")
        for call in worker_calls:
            print(f"    {call}")
        return
    print("\nTHE CALLS ARE NOT THE SAME, so the times do not compare; the worker's, then the plain program's:")
    for calls in (worker_calls, plain_calls):
        print("\n".join(f"    {call}" for call in calls), end="\n\n")


def show(name, values, digits=1):
    figures = (f"{word} {function(values):7.{digits}f}" for word, function in FIGURES)
    print(f"    {name:<22}" + "   ".join(figures))


def report(pairs, plain):
    """`pairs` is [(worker's batch, plain program's batch)]."""
    print(f"\nTime per job in ms, {len(pairs)} pairs of {JOBS} jobs on each side, network \"{NETWORK}\":")
    show("with the worker", [a[0] for a, _ in pairs])
    show("the calls alone", [b[0] for _, b in pairs])
    ratios = [a[0] / b[0] for a, b in pairs]
    show("worker / calls alone", ratios, 3)
    print(f"    median of the pairs' ratios: {'within' if statistics.median(ratios) <= 1.1 else 'over'} 1.1\n")
    print("Where it goes, medians in ms (worker, calls alone, difference):")
    for i, phase in enumerate(PHASES):
        a, b = (statistics.median([pair[side][1][i] for pair in pairs]) for side in (0, 1))
        print(f"    {phase:<22}{a:9.1f} {b:9.1f} {a - b:9.1f}")
    print("The plain program's calls, medians in ms:")
    print("    " + "  ".join(f"{name} {statistics.median(values):.1f}" for name, values in plain.calls.items()))


def run(bed, pairs):
    """`bed` has what the script has built and started."""
    projects = [bed.database.project(qgis_file="offline.qgs") for _ in range(JOBS + 1)]
    calls, body = record_worker(bed.worker, bed.database, projects, bed.engine, bed.directory)
    # Other labels: nobody may take the plain program's containers for the worker's.
    plain = Plain(bed.plain, bed.engine, re.sub(rb'_worker"', b'_plain_"', body), bed.directory)
    show_calls(calls, record_plain(plain, bed.directory))
    running = Running(bed.worker, bed.database, projects)
    measured = []
    for number in range(-1, pairs):  # the first pair warms up
        sides = [running, plain]
        batches = {}
        for side in sides if number % 2 else reversed(sides):
            batches[side] = side.batch()
        if number < 0:
            plain.calls.clear()
            running.warmed_up()
        else:
            measured.append((batches[running], batches[plain]))
    processor = running.processor_ms_per_job()
    running.process.stop()
    report(measured, plain)
    print("Processor time per job in ms: the worker {:.1f}, its backend of PostgreSQL {:.1f}".format(*processor))
