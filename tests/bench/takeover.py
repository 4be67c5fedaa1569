"""How long a job is nobody's: from kill -9 of its worker until another one on the same engine has it.

One worker has the job, a second one is idle; the first is killed, and the time counts until the row names the second.
Then a new one is started and the roles change. The bound is what the second's looks allow: one every 5 s, and what it
sees must be seen twice. (For 15 s after the start of PostgreSQL nothing is taken over: that is waited for first.)
"""

import signal
import statistics
import time

from bed import BedError

BOUND_S = 6
PATIENCE_S = 60
SETTLED = "SELECT clock_timestamp() - pg_postmaster_start_time() > interval '16 seconds'"
OWNER = "SELECT feedback #>> '{qfc_worker,worker}' AS owner, container_id FROM core_job WHERE id = %s"


def _wait_for(predicate, what):
    deadline = time.monotonic() + PATIENCE_S
    while not (result := predicate()):
        if time.monotonic() > deadline:
            raise BedError(f"no {what} within {PATIENCE_S} s")
        time.sleep(0.005)
    return result


def _start(bed):
    process = bed.worker.start("run", QFIELDCLOUD_DEFAULT_NETWORK="none")
    _wait_for(lambda: "connected to the database" in str(process.output()), "connection")
    return process


def _owner(bed, job):
    return bed.database.one(OWNER, job["id"])["owner"]


def _measure(bed, job):
    """One killing; seconds until the other one has the job."""
    former = _owner(bed, job)
    process = next(p for p in bed.takeover if former.split(":")[1] in str(p.output()))
    process.send(signal.SIGKILL)
    began = time.monotonic()
    _wait_for(lambda: _owner(bed, job) != former, "takeover")
    took = time.monotonic() - began
    process.wait()
    bed.takeover[bed.takeover.index(process)] = _start(bed)
    time.sleep(began % 5)  # the next one strikes at another moment between two looks
    return took


def run(bed, pairs):
    docker = bed.engine.docker
    job = bed.database.job(bed.database.project(qgis_file="gate.qgs", files=()), "package")
    bed.takeover = [_start(bed) for _ in range(2)]
    _wait_for(lambda: _owner(bed, job), "start of the job")
    _wait_for(lambda: bed.database.value(SETTLED), "16 s of the server")
    times = [_measure(bed, job) for _ in range(pairs)]
    docker.put(bed.database.get("core_job", job["id"])["container_id"], "/io", {"go": b""})
    _wait_for(lambda: bed.database.get("core_job", job["id"])["status"] == "finished", "end of the job")
    for process in bed.takeover:
        process.stop()
    print(f"\nFrom kill -9 of a worker to the takeover of its job, {pairs} times, one job all the while:")
    verdict = "within" if max(times) <= BOUND_S else "over"
    print(f"    median {statistics.median(times):.1f} s, least {min(times):.1f} s, most {max(times):.1f} s: "
          f"{verdict} {BOUND_S} s", flush=True)
