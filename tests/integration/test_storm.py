"""A storm: everything that can die dies again and again, while jobs are queued. Afterwards each has ended once, with
the truth, and nothing is left over.

The seed is printed; QFC_TEST_SEED gives it.
"""

import os
import random
from collections import Counter

import pytest
from bed.ground import LABEL
from bed.leftovers import Leftovers
from bed.proxy import EngineProxy
from bed.rows import now
from bed.storm import Storm, prune
from bed.storm_trail import OVER, outcomes

STRIKES = {"kill_worker": 25, "kill_container": 8, "end_session": 8, "stop_worker": 3, "restart_postgres": 1,
           "restart_engine": 1, "kill_engine": 1}


@pytest.fixture
def seed():
    number = int(os.environ.get("QFC_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"QFC_TEST_SEED={number}")
    return number


@pytest.fixture
def weather(own_scene, own_ground, postgres, databases, directory, seed):
    """Makes a storm of so many strokes."""
    made = []
    watch = Leftovers(own_ground.docker, own_ground.image, own_ground.network, LABEL, directory, own_ground.engine)
    watch.databases = databases.made

    def make(**strokes):
        made.append(Storm(own_scene, postgres, seed, **strokes))
        made[0].leftovers = watch
        return made[0]

    own_scene.worker.env["RETRY_BASE_DELAY_SECONDS"] = None  # the default: an engine takes its time to come back
    yield make
    for storm in made:
        storm.close()


def ended_once(storm):
    """Complaints about jobs that have not exactly one outcome."""
    found = outcomes(storm.database)
    return [
        f"{job}: {found.get(job.id)}"
        for job in storm.jobs
        if len(found.get(job.id, [])) != 1 or found[job.id][0][1] not in OVER
    ]


def undecided(storm):
    """Deltas without an end, and those whose two rows say different things."""
    rows = storm.database.execute(
        "SELECT d.id, a.status, d.last_status, a.apply_job_id FROM core_delta d "
        "JOIN core_applyjobdelta a ON a.delta_id = d.id "
        "WHERE a.status IN ('pending', 'started') OR d.last_status <> a.status"
    )
    return [str(dict(row)) for row in rows]


def is_engines_fault(row):
    """Or that of its workers, each of which died when it had the job; or all five attempts came to nothing before a
    container ran, as where each was pruned: the output tells of the four before."""
    feedback = row["feedback"] or {}
    said = (feedback.get("error") or "").partition(":")[0]
    if "container_exit_code" not in feedback and "\n4. " in (row["output"] or ""):
        return True
    return feedback.get("error_type") == "ENGINE_LOST" or "engine" in said or said.startswith("its worker")


def untrue(storm):
    """Complaints about outcomes that do not fit what was played and what was done to the job. (Where the power fails, a
    container's processes die one after the other, and its shell may find no results to tell of.)"""
    complaints = []
    for job in storm.jobs:
        row = storm.database.get("core_job", job.id)
        feedback = row["feedback"] or {}
        if "qfc_worker" in feedback:
            complaints.append(f"{job}: {feedback['qfc_worker']}")
        finished = row["status"] == "finished"
        ran = storm.starts.of({"id": job.id}) > 0
        if finished and not (job.good and ran and feedback.get("container_exit_code") == 0):
            complaints.append(f"{job} has finished: {feedback}")
        if not finished and not feedback.get("error") and not row["output"]:
            complaints.append(f"{job} has failed without a reason")
        if not finished and job.good and job.id not in storm.killed_containers and not is_engines_fault(row):
            complaints.append(f"{job} has failed, and nobody has killed its container: {feedback}")
        statuses = Counter(
            r["status"]
            for r in storm.database.execute("SELECT status FROM core_applyjobdelta WHERE apply_job_id = %s", job.id)
        )
        told = feedback.get("outputs", {}).get("apply_deltas", {}).get("delta_feedback")
        if finished and told and set(statuses) - {"applied", "conflict"}:
            complaints.append(f"{job} has finished: {statuses}")
        if not finished and job.type == "delta_apply" and set(statuses) != {"error"}:
            complaints.append(f"{job} has failed: {statuses}")
    return complaints


def tell(storm):
    rows = storm.database.execute("SELECT id::text, status, feedback ->> 'error' AS error FROM core_job")
    good = {job.id for job in storm.jobs if job.good}
    reasons = Counter(
        (row["error"] or "")[:110] for row in rows if row["status"] == "failed" and row["id"] in good
    )
    starts = Counter(storm.starts.of({"id": job.id}) for job in storm.jobs)
    print(f"{len(storm.jobs)} jobs, {storm.struck}, outcomes {dict(Counter(row['status'] for row in rows))}")
    print(f"starts of a job: {dict(starts)}; containers killed of {len(storm.killed_containers)} jobs; faults:")
    for reason, count in reasons.most_common():
        print(f"{count:>5}  {reason}")


def check(storm):
    tell(storm)
    assert ended_once(storm) == []
    assert undecided(storm) == []
    assert untrue(storm) == []
    twice = [job for job in storm.jobs if job.type == "delta_apply" and storm.starts.of({"id": job.id}) > 1]
    assert twice == [], storm.told([storm.database.get("core_job", job.id) for job in twice])
    locks = (
        "SELECT * FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
        "WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND a.datname = current_database()"
    )
    assert storm.wait_until(lambda: not storm.database.execute(locks)), storm.database.execute(locks)
    left = storm.leftovers.found(patience_s=180)  # they must be seen unwanted for 45 s, and are looked for every 30
    assert left == [], "left over:\n" + "\n".join(left)
    bad = storm.stop()
    assert bad == [], bad[0]


@pytest.mark.parametrize("database", ["v26.25"], indirect=True)
def test_short_storm(weather, own_scene):
    own_scene.worker.env["QFC_TEST_HURRY"] = "10"
    storm = weather(**STRIKES)
    storm.blow(120)
    check(storm)


@pytest.mark.parametrize("database", ["v26.25"], indirect=True)
def test_pruned_again_and_again(weather, own_scene):
    """`docker system prune -f` in a loop: it takes what was created and is about to run, and what has ended and is
    about to be looked at."""
    own_scene.worker.env["QFC_TEST_HURRY"] = "10"
    storm = weather(prune=120)
    storm.blow(60, workers=3, pause_s=(0.05, 0.25))
    check(storm)


@pytest.fixture
def pruned(own_scene, own_ground):
    """The program behind a proxy, on an engine that may be pruned."""
    proxy = EngineProxy(own_ground.engine.socket_path)
    own_scene.proxy = proxy
    own_scene.worker.env["DOCKER_HOST"] = proxy.host
    yield own_scene
    proxy.close()


def deltas_of(scene, job):
    return {row["status"] for row in scene.database.execute(
        "SELECT status FROM core_applyjobdelta WHERE apply_job_id = %s", job["id"])}


def delta_job(scene, plays):
    """The project is locked until all rows of the job are there."""
    database = scene.database
    project = database.project(qgis_file=plays, files=(), locked_at=now())
    job = database.apply_job(project, [database.delta(project) for _ in range(3)])
    database.update(database.project_table, project["id"], locked_at=None)
    return job


def test_pruned_before_the_start(pruned):
    """It never ran: a delta_apply, too, is run again."""
    hold = pruned.proxy.hold(r"^POST /containers/\w+/start")
    pruned.start()
    job = delta_job(pruned, "offline.qgs")
    hold.reached()
    prune(pruned.docker)
    assert pruned.containers(job) == []
    hold.release()
    pruned.finishes(job)
    assert pruned.starts(job) == 1 and deltas_of(pruned, job) == {"applied"}
    pruned.stop()


def test_pruned_between_end_and_collection(pruned):
    """Nobody knows how it ended: a package job is run again, a delta_apply has failed."""
    pruned.start()
    for make, outcome in ((pruned.job, "finished"), (lambda plays: delta_job(pruned, plays), "failed")):
        hold = pruned.proxy.hold(r"^GET /containers/\w+/json")
        job = make("offline.qgs")
        hold.reached()
        prune(pruned.docker)
        assert pruned.containers(job) == []
        hold.release()
        row = pruned.wait_for(job, "finished", "failed")
        assert row["status"] == outcome and pruned.starts(job) == (2 if outcome == "finished" else 1)
    assert row["feedback"]["error_type"] == "ENGINE_LOST" and deltas_of(pruned, job) == {"error"}
    pruned.stop()


@pytest.mark.long
@pytest.mark.parametrize("database", ["v26.25"], indirect=True)
def test_long_storm(weather):
    storm = weather(**{name: 8 * count for name, count in STRIKES.items()})
    storm.blow(1000, calm_s=300)
    check(storm)
