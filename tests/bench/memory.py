"""The worker's memory beside that of a program that only has the same libraries.

Private is what no other process has, Private_Clean + Private_Dirty. The clean part is of files, libraries mostly, that
nobody else uses at that moment, and so depends on what else runs; the dirty part is the program's own.

Then what one large job adds at most: one with a log of LOG_MB, of which QFC_WORKER_MAX_OUTPUT_MB are kept, and one with
a feedback of FEEDBACK_MB.
"""

import signal
import subprocess
import time

from bed import BedError, cleanup

JOBS = 16
SETTLE_S = 3
LOG_MB, OUTPUT_MB, FEEDBACK_MB = 1024, 16, 30
LARGE = (
    (f"a log of {LOG_MB} MB, {OUTPUT_MB} MB of it kept", f"long_log@{LOG_MB}.qgs"),
    (f"a feedback of {FEEDBACK_MB} MB", f"big_feedback@{FEEDBACK_MB}.qgs"),
)
NAMES = ("Private_Clean", "Private_Dirty")


def private_kb(pid):
    """{"Private_Clean": kB, "Private_Dirty": kB} of a process."""
    found = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in NAMES:
                found[name] = int(rest.split()[0])
    return found


def measure_empty(binary):
    process = subprocess.Popen([binary], stdout=subprocess.PIPE)
    ending = cleanup.later(process.kill)
    process.stdout.readline()
    time.sleep(SETTLE_S)
    found = private_kb(process.pid)
    process.terminate()
    process.wait()
    process.stdout.close()
    cleanup.never(ending)
    return found


def said(process, words):
    return [line for line in process.output().lines if line.get("message", "").startswith(words)]


def measure_worker(bed):
    """Idle and with JOBS jobs, which then are over, or the next worker would take them over."""
    process = bed.worker.start("run", "--concurrency", JOBS)
    bed.worker.wait_for(lambda: said(process, "connected to the database"), "a connection to the database")
    bed.worker.wait_for(lambda: said(process, "the engine at"), "a connection to the engine")
    time.sleep(SETTLE_S)
    idle = private_kb(process.pid)
    for _ in range(JOBS):
        bed.database.job(bed.database.project(qgis_file="sleep@600.qgs"))
    bed.worker.wait_for(lambda: len(said(process, "started")) >= JOBS, f"{JOBS} containers")
    time.sleep(SETTLE_S)
    busy = private_kb(process.pid)
    running = sum(container["State"] == "running" for container in bed.containers())
    if running != JOBS:
        raise BedError(f"{running} containers ran, not {JOBS}:\n{process.output()}")
    process.stop(signal.SIGQUIT)
    bed.database.execute("UPDATE core_job SET status = 'failed', finished_at = now() WHERE status <> 'finished'")
    bed.remove_containers()
    return idle, busy


def measure_large(bed, plays):
    """Dirty kB of the idle worker, and the most that it had until the job had ended."""
    process = bed.worker.start("run", QFC_WORKER_MAX_OUTPUT_MB=str(OUTPUT_MB), QFIELDCLOUD_DEFAULT_NETWORK="none")
    bed.worker.wait_for(lambda: said(process, "the engine at"), "a connection to the engine")
    time.sleep(SETTLE_S)
    idle = most = private_kb(process.pid)["Private_Dirty"]
    job = bed.database.job(bed.database.project(qgis_file=plays, files=()))
    while bed.database.get("core_job", job["id"])["status"] not in ("finished", "failed"):
        most = max(most, private_kb(process.pid)["Private_Dirty"])
        time.sleep(0.02)
    process.stop()
    return idle, most


def columns(value, base):
    return f"{value:>9}{value - base:>9}{value / base:>8.2f}"


def run(bed, _pairs):
    rows = [("libraries alone", measure_empty(bed.empty))]
    rows += zip(("worker, idle", f"worker, {JOBS} jobs"), measure_worker(bed))
    bases = {name: rows[0][1][name] for name in NAMES}
    print("\nPrivate memory in kB, and beside that of a program that only has the same libraries (more, ratio):")
    print(f"    {'':<18}{'private':>9}{'more':>9}{'ratio':>8}   {'of it dirty':>11}{'more':>9}{'ratio':>8}")
    for name, kb in rows:
        whole = columns(sum(kb.values()), sum(bases.values()))
        print(f"    {name:<18}{whole}     {columns(kb['Private_Dirty'], bases['Private_Dirty'])}")
    print("\nDirty memory in MB that one job adds to the idle worker, at most:")
    for name, plays in LARGE:
        idle, most = measure_large(bed, plays)
        print(f"    {name:<42}{(most - idle) / 1024:>8.1f}")
