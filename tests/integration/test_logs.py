"""The log: one job's story in few lines, each of which says whose it is; and the heartbeat."""

import re
import signal

from test_alerts import jobs_that_wait


def lines_of(scene, job):
    return [line for line in scene.process.output().lines if line.get("job") == str(job["id"])]


def names_of(scene, job):
    """What each line about the job must say."""
    project = scene.database.get(scene.database.project_table, job["project_id"])
    owner = scene.database.get("core_user", project["owner_id"])["username"]
    return {"project": str(job["project_id"]), "project_name": project["name"], "owner": owner, "type": job["type"]}


def check_names(scene, job, lines):
    wanted = names_of(scene, job)
    for line in lines:
        assert {name: line.get(name) for name in wanted} == wanted, line


def test_a_job_that_goes_well(scene):
    """Claimed, started, finished, and what was seen of it between."""
    scene.start()
    job = scene.job()
    scene.finishes(job)
    scene.wait_for_word("finished package")
    lines = lines_of(scene, job)
    assert len(lines) <= 4 and all(line["level"] == "info" for line in lines), lines
    claimed, started, *_, finished = (line["message"] for line in lines)
    assert re.fullmatch(r"claimed package, made \d+\.\d s before", claimed)
    assert re.fullmatch(r"started container [0-9a-f]{12} of image \S+", started)
    assert re.fullmatch(r"finished package after \d+\.\d s", finished)
    check_names(scene, job, lines)
    scene.stop()


def test_a_job_that_fails(scene):
    """The reason is what the failed step has said, in the same line."""
    scene.start()
    job = scene.job("workflow_error.qgs")
    row = scene.wait_for(job, "failed")
    scene.wait_for_word("failed package")
    lines = lines_of(scene, job)
    last = lines[-1]["message"]
    assert len(lines) <= 4 and lines[-1]["level"] == "warning"
    assert re.match(r"failed package after \d+\.\d s: ", last) and row["feedback"]["error"].splitlines()[0] in last
    assert "Traceback" not in last and "\n" not in last
    check_names(scene, job, lines)
    scene.stop()


def test_as_text(scene):
    """For people: names first, and what has blanks is quoted."""
    owner = scene.database.user("alice")
    project = scene.database.project(owner, "offline.qgs", "old trees", files=())
    job = scene.database.job(project, "package")
    output = scene.worker.run("run", "--drain", LOG_FORMAT="text")
    ours = [line for line in output.other if str(job["id"]) in line]
    assert len(ours) <= 4, str(output)
    ours = [ours[0], ours[1], ours[-1]]
    end = f'  type=package owner=alice project_name="old trees" job={job["id"]} project={project["id"]}'
    for line, word in zip(ours, ("claimed", "started", "finished")):
        assert re.match(rf"\d{{4}}-\d\d-\d\dT[\d:.]+Z info    {word} ", line) and line.endswith(end), line


def test_of_a_job_that_is_taken_over(scene):
    scene.start()
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.process.stop(signal.SIGKILL)
    scene.start()
    scene.wait_for_word("took over package")
    scene.let_go(container)
    scene.finishes(job)
    scene.wait_for_word("finished package")
    check_names(scene, job, lines_of(scene, job))
    scene.stop()


def test_heartbeat(scene, postgres, database):
    """How many jobs ran and wait, every few seconds here; also while the database is away."""
    scene.start(QFC_WORKER_HEARTBEAT_S="1", QFC_WORKER_ALERTS="0")

    def says(what):
        pattern = re.compile("alive: " + what.replace("TIME", r"in the last \d+ s"))
        scene.worker.wait_for(lambda: any(pattern.match(message) for message in scene.log("info")), what)

    scene.finishes(scene.job())
    says("1 finished, 0 failed TIME; [01] run here, ")  # its container may still be there
    says("0 finished, 0 failed TIME; 0 run here, none waits$")
    jobs_that_wait(scene, 3)
    scene.wait_for(scene.job("workflow_error.qgs"), "failed")
    says("0 finished, 1 failed TIME; [01] run here, ")
    running = scene.job("gate.qgs")
    container = scene.running(running)
    says(r"0 finished, 0 failed TIME; 1 run here, 3 wait, the oldest for \d+ s$")
    database.disconnect()
    postgres.stop("immediate")
    says("0 finished, 0 failed TIME; 1 run here, the database has not told how many wait; nothing is claimed: database: ")
    postgres.start()
    scene.let_go(container)
    scene.finishes(running)
    scene.stop()


def test_no_heartbeat(scene):
    scene.start(QFC_WORKER_HEARTBEAT_S="0")
    scene.finishes(scene.job())
    assert scene.said("alive") == 0
    scene.stop()
