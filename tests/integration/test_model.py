"""Many workers, one queue, a crowd around it: what must hold at every moment, whatever comes together.

Eight processes with four slots each work beside two of QFieldCloud's own workers (bed/old_loop.py) while the web
application adds jobs, deletes jobs and projects, locks projects and ends jobs (bed/model.py), on an engine that is
played (bed/fast_engine.py) or real. The database itself keeps a log of every transition (bed/model_log.py). What must
hold is said in bed/model_rules.py.

The dice follow from a seed, which is printed; QFC_MODEL_SEED gives it. What meets what is the machine's business, so a
seed repeats the plan and not the run.
"""

import json
import os
import secrets
import signal
import threading
import time

import pytest
from bed.docker import Docker
from bed.fast_engine import FastEngine, Script
from bed.model import CRASH, ERROR, GOOD, Plan, Web
from bed.model_log import Log, Observer, install
from bed.model_rules import EngineEvents, Facts, complaints, report
from bed.old_loop import OldLoop
from bed.worker import Worker
from matrix_feedback import DETAILS, feedback

GUARD_S = 180  # longer than any run takes, for one that hangs
ALL_TYPES = ("package", "delta_apply", "process_projectfile", "create_project")
PLAYED_IMAGE = "played"


def seed():
    return os.environ.get("QFC_MODEL_SEED") or str(secrets.randbelow(10**9))


# What containers do


def delta_result(delta, status):
    return {"delta_id": delta, "status": status, "modified_pk": "7", "msg": "", "feature_pk": "1",
            "layer_id": "points_1", "method": "patch", "delta_file_id": delta, "delta_index": 0, "conflicts": None,
            "e_type": None, "provider_errors": None}  # fmt: skip


def script_of(job, deltas):
    """What the played container of a job does."""
    said = None
    if job.outcome != CRASH:
        results = [delta_result(delta, result) for delta, result in zip(deltas, job.results)]
        said = feedback(job.type, details=DETAILS, delta_results=results)
        if job.outcome == ERROR:
            said |= {"error": "It was told to fail.", "error_type": "UNKNOWN", "error_class": "X", "error_stack": ""}
    return Script(
        run_s=job.run_s,
        start_s=job.start_s,
        exit_code=job.exit_code,
        log=b"a line of the log\n" * (job.log_bytes // 18),
        feedback=json.dumps(said).encode() if said else None,
        refuse_creates=job.refuse_creates,
        refuse_starts=job.refuse_starts,
    )


# The crowd


class Crowd:
    """All of them, from start() to stop()."""

    env = {}

    def __init__(self, worker, plan, docker, image, old_loops, added):
        self.worker, self.plan, self.database, self.docker = worker, plan, worker.database, docker
        self.label = f"{worker.env['ENVIRONMENT']}_worker"
        self.web = Web(self.database, plan, added)
        self.observer = Observer(self.database)
        self.old_loops = [OldLoop(self.database, docker, image, self.label) for _ in range(old_loops)]
        self.processes, self.outputs, self.took_s = [], [], 0

    def start(self, processes, *args):
        self.web.add_projects()
        install(self.database)
        self.web.fill()
        self.observer.start()
        began = time.monotonic()
        self.processes = [self.worker.start("run", *args) for _ in range(processes)]
        for old_loop in self.old_loops:
            old_loop.start()
        self.web.start()
        self._until_done()
        self.took_s = time.monotonic() - began

    def _until_done(self):
        """Until nothing is to be done any more, a player has failed, or it hangs; the rules say which it was."""
        active = "SELECT count(*) FROM core_job WHERE status IN ('pending', 'queued', 'started')"
        deadline = time.monotonic() + GUARD_S * max(1, len(self.plan.jobs) // 500)
        while time.monotonic() < deadline:
            if self.web.failures or any(old.failure for old in self.old_loops):
                return
            if self.web.all_added.is_set() and self.database.value(active) == 0:
                return
            time.sleep(0.05)

    def stop(self):
        """The program ends first: the old loops see to the last orphans."""
        self.web.stop()
        for process in self.processes:
            process.send(signal.SIGTERM)
        self.outputs = [process.wait() for process in self.processes]
        for old_loop in self.old_loops:
            old_loop.stop()
        for old_loop in self.old_loops:
            old_loop.join(60)
            self.database.planted_tokens |= old_loop.tokens
        self.observer.stop()

    def judge(self, events, capsys):
        """Prints what was seen, and fails with all that is not as it must be."""
        facts = Facts(self, Log(self.database), events)
        with capsys.disabled():
            print(f"\n{report(facts)}")
        found = complaints(facts)
        assert not found, f"seed {self.plan.seed}:\n" + "\n".join(found)


def run(crowd, processes, *args):
    try:
        crowd.start(processes, *args)
    finally:
        crowd.stop()


# The engine is played


@pytest.fixture
def played(databases, directory, built, tmp_path):
    """Makes the program on a played engine: played(release)."""
    made = []

    def make(release):
        engine = FastEngine(str(tmp_path))
        worker = Worker(built, databases(release), engine, PLAYED_IMAGE, f"model-{secrets.token_hex(4)}", directory)
        worker.env["RETRY_BASE_DELAY_SECONDS"] = "1"
        made.append((engine, worker))
        return engine, worker

    yield make
    found = [complaint for _, worker in made for complaint in worker.close()]
    for engine, _ in made:
        engine.close()
    assert not found, "\n".join(found)
    assert os.listdir(directory) == []


def play(played, capsys, release, types, count, projects, many, crowd=Crowd):
    """One run of `count` jobs, with the triggers of setup-db."""
    engine, worker = played(release)
    worker.env |= crowd.env
    plan = Plan(seed(), count, projects, types, many)
    assert worker.run("setup-db").returncode == 0

    def added(job, deltas):
        engine.scripts[job.id] = script_of(job, deltas)

    crowd = crowd(worker, plan, Docker(engine.socket_path), PLAYED_IMAGE, 2, added)
    run(crowd, 8, "--concurrency", 4)
    assert engine.unplayed == [] and engine.failures == []
    crowd.judge(engine.events, capsys)


def test_a_crowd(played, capsys):
    play(played, capsys, "v26.25", ALL_TYPES, count=640, projects=120, many=60)


@pytest.mark.long
@pytest.mark.parametrize("release, types", [("v26.25", ALL_TYPES), ("v25.30", ALL_TYPES[:2])])
def test_a_large_crowd(played, capsys, release, types):
    play(played, capsys, release, types, count=5000, projects=300, many=400)


class DyingCrowd(Crowd):
    """The same, while one worker after another is killed, and another one started in its place; and one old loop after
    the other, too. What these have started is ended by the web application's task, a while later."""

    env = {"QFC_TEST_HURRY": "15"}
    deaths = 12

    def _kill(self):
        for number in range(self.deaths):
            if not self.web.pause(self.plan.random.uniform(0.3, 1.0)):
                return
            victim = self.processes[number % len(self.processes)]
            victim.send(signal.SIGKILL)
            victim.process.wait()
            self.processes[number % len(self.processes)] = self.worker.start("run", "--concurrency", 4)
            self.old_loops[number % len(self.old_loops)].kill()
            self._clean_up_after_old_loops()
        while any(old_loop.is_dying() for old_loop in self.old_loops) and self.web.pause(0.1):
            pass
        self._clean_up_after_old_loops()

    def _clean_up_after_old_loops(self):
        for old_loop in self.old_loops:
            abandoned, old_loop.abandoned = old_loop.abandoned, set()
            self.web.clean(abandoned)

    def _until_done(self):
        killer = threading.Thread(target=self._kill)
        killer.start()
        super()._until_done()
        killer.join()
        self.worker.wait_for(lambda: not self._left(), "the end of what the dead have left", GUARD_S)

    def _left(self):
        """Containers and tokens of the dead; each worker looks for them every half a minute."""
        tokens = "SELECT count(*) FROM authentication_authtoken WHERE key LIKE 'qfcworker%%'"
        return self.docker.containers(label=[f"app={self.label}", "qfc_worker"]) or self.database.value(tokens)


def test_a_crowd_whose_workers_die(played, capsys):
    """Beside the old loops, which must not notice. What takes a minute is done in seconds (QFC_TEST_HURRY)."""
    play(played, capsys, "v26.25", ALL_TYPES, count=640, projects=120, many=60, crowd=DyingCrowd)


# The engine is real

# A project's QGIS file says what its containers do.
PLAYS = {"offline.qgs": GOOD, "sleep@0.3.qgs": GOOD, "workflow_error@3.qgs": ERROR, "crash@3.qgs": CRASH}


def test_a_small_crowd_and_a_real_engine(make_worker, database, ground, capsys):
    worker = make_worker(database, ground)
    worker.env["QFIELDCLOUD_DEFAULT_NETWORK"] = "none"
    plan = Plan(seed(), 48, 12, ALL_TYPES[:2], many=6)
    for job in plan.many + plan.jobs:
        job.results = ["status_applied"] * len(job.results)

    def added(job, _deltas):
        job.outcome = PLAYS[crowd.web.plays[job.project]]

    crowd = Crowd(worker, plan, ground.docker, ground.image, 1, added)
    crowd.web.pace = 0.3
    crowd.web.plays = [plan.random.choice(tuple(PLAYS)) for _ in range(plan.projects)]
    events = EngineEvents(ground.docker, crowd.label)
    run(crowd, 2, "--concurrency", 4)
    for container in ground.docker.containers(label=[f"app={crowd.label}"]):
        if not container["Names"][0].startswith("/qfc-"):
            ground.docker.remove(container["Id"])  # old loops leave those that they have killed
    crowd.judge(events.all(ground.image), capsys)
