"""The worker's memory beside that of a program that only has the same libraries."""

import signal
import subprocess
import time

from bed import BedError, cleanup

JOBS = 16
SETTLE_S = 3


def private_kb(pid):
    """{"Private_Clean": kB, "Private_Dirty": kB} of a process."""
    found = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("Private_Clean", "Private_Dirty"):
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
    """Idle and with JOBS jobs; they end with the worker's second signal, which puts them back."""
    process = bed.worker.start("run", "--concurrency", JOBS)
    bed.worker.wait_for(lambda: said(process, "connected to the database") and said(process, "the engine"), "a connection")
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
    return idle, busy


def run(bed):
    empty = sum(parts(measured := measure_empty(bed.empty)))
    rows = [("libraries alone", measured)]
    rows += zip(("worker, idle", f"worker, {JOBS} jobs"), measure_worker(bed))
    print("\nPrivate memory in kB, and beside the libraries alone:")
    print(f"    {'':<20}{'private':>9}{'of it dirty':>13}{'more':>9}{'ratio':>8}")
    for name, measured in rows:
        total = sum(parts(measured))
        print(f"    {name:<20}{total:>9}{measured['Private_Dirty']:>13}{total - empty:>9}{total / empty:>8.2f}")


def parts(measured):
    return measured["Private_Clean"], measured["Private_Dirty"]
