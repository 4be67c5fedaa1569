"""What is seen of a job while it runs: its log, its step, what it uses; and that looking on changes nothing about what is
written at its end."""

import json
import re
import signal
import time

import pytest
from bed.proxy import AFTER, BEFORE

pytestmark = pytest.mark.parametrize("database", ["v26.25"], indirect=True)

FOLLOW = r"^GET /containers/\w+/logs\?follow"
MB = 1 << 20


def used(output, job):
    """What the log says at the end of a job."""
    found = [message for message in output.messages("info", job) if message.startswith("used: ")]
    assert len(found) == 1, output
    return found[0]


def check_whole(row, seconds):
    """The output is the container's log, once and in order."""
    assert row["output"].startswith("::<<<::") and "Stop QGIS Application" in row["output"]
    said = [int(number) for number in re.findall(r"INFO     second (\d+)$", row["output"], re.M)]
    assert said == list(range(1, seconds + 1)), row["output"]
    assert "qfc_worker" not in row["feedback"]


def test_steps_and_what_it_used(scene):
    job = scene.job("slow@4.qgs")
    scene.start()
    check_whole(scene.finishes(job), 4)
    told = used(scene.stop(), job)
    taken = re.search(r"Start QGIS Application (\d+\.\d) s", told)
    assert taken and float(taken[1]) >= 3.5, told
    assert re.search(r"processor \d+\.\d s, memory \d+ MB at most, received 0.0 MB, sent 0.0 MB; steps: ", told), told


def test_what_a_network_carries(scene, database, api, network):
    """The containers of this test have one."""
    scene.worker.env.update(QFIELDCLOUD_DEFAULT_NETWORK=network, QFIELDCLOUD_WORKER_QFIELDCLOUD_URL=api.url)
    project = database.project(qgis_file="sleep_after@3.qgs", files=())
    database.file(project, "large.gpkg", b"x" * (3 * MB))
    job = database.job(project, "package")
    scene.start()
    scene.finishes(job)
    received = re.search(r"received (\d+\.\d) MB", used(scene.stop(), job))
    assert 3 <= float(received[1]) < 4


def live_row(scene, job, condition):
    def there():
        row = scene.row(job)
        return row if row["status"] == "started" and row["output"] and condition(row) else None

    return scene.worker.wait_for(there, "live output")


def test_live_output(scene):
    job = scene.job("slow@5.qgs")
    scene.start(QFC_WORKER_LIVE_OUTPUT_S="1")
    row = live_row(scene, job, lambda row: "second 2" in row["output"])
    trail = row["feedback"]["qfc_worker"]
    assert trail["step"] == "Start QGIS Application"
    assert row["started_at"].timestamp() <= trail["step_since"] <= time.time()
    shown = scene.worker.run("status", "--json")
    running = json.loads(shown.stdout)["running"]
    assert [(job["step"], job["step_s"] >= 0) for job in running] == [("Start QGIS Application", True)]
    assert row["feedback"]["qfc_worker"]["worker"].startswith("qfc-worker:")
    check_whole(scene.finishes(job), 5)
    scene.stop()


def test_live_output_is_the_end_of_the_log(scene):
    job = scene.job("talk.qgs")
    scene.start(QFC_WORKER_LIVE_OUTPUT_S="1")
    row = live_row(scene, job, lambda row: row["output"].endswith("the last line\n"))
    assert 60 * 1024 < len(row["output"]) <= 64 * 1024 and row["output"].startswith("a line of the log")
    scene.let_go(scene.running(job))
    assert len(scene.finishes(job)["output"]) > MB
    scene.stop()


def test_live_output_goes_when_the_job_goes_back(scene):
    job = scene.job("slow@4.qgs")
    scene.start(QFC_WORKER_LIVE_OUTPUT_S="1")
    live_row(scene, job, lambda row: "second 1" in row["output"])
    scene.docker.remove(scene.running(job))
    scene.worker.wait_for(lambda: scene.said("put back") or None, "the way back")
    row = scene.row(job)
    assert row["output"] is None and "step" not in row["feedback"]["qfc_worker"], row
    check_whole(scene.finishes(job), 4)
    scene.stop()


def test_live_output_waits_for_nobody(scene, database):
    """Somebody holds the row's lock while the job runs: it is left out, and nothing else waits."""
    job = scene.job("slow@4.qgs")
    scene.start("--concurrency", 2, QFC_WORKER_LIVE_OUTPUT_S="1")
    scene.running(job)
    other = database.connect()
    other.autocommit = False
    with other.cursor() as cursor:
        cursor.execute("SELECT FROM core_job WHERE id = %s FOR UPDATE", (job["id"],))
        scene.another_finishes()
        assert scene.row(job)["output"] is None
    other.close()
    check_whole(scene.finishes(job), 4)
    scene.stop()


@pytest.mark.parametrize("when", [BEFORE, AFTER])
def test_a_log_that_cannot_be_followed(scene, proxy, when):
    proxy.cut(FOLLOW, when, times=1000)
    job = scene.job("slow@2.qgs")
    scene.start(QFC_WORKER_LIVE_OUTPUT_S="1")
    check_whole(scene.finishes(job), 2)
    assert proxy.count(FOLLOW) >= 1
    scene.stop()


def test_an_engine_that_refuses_to_follow(scene, proxy):
    proxy.answer(FOLLOW, 500, times=1000)
    proxy.answer(r"^GET /containers/\w+/stats", 404, times=1000)
    job = scene.job("slow@2.qgs")
    scene.start()
    check_whole(scene.finishes(job), 2)
    scene.stop()


def test_a_log_that_breaks_is_taken_up_again(scene, proxy):
    """Its steps go on, and what had come is not counted twice."""
    job = scene.job("slow@6.qgs")
    scene.start(QFC_WORKER_LIVE_OUTPUT_S="1")
    live_row(scene, job, lambda row: "second 1" in row["output"])
    proxy.down()
    proxy.up()
    row = live_row(scene, job, lambda row: "second 5" in row["output"])
    assert [int(n) for n in re.findall(r"second (\d)", row["output"])] == [1, 2, 3, 4, 5]
    check_whole(scene.finishes(job), 6)
    assert proxy.count(FOLLOW) >= 2
    assert "Start QGIS Application" in used(scene.stop(), job)


def test_a_job_that_was_taken_over(scene):
    """Its log is followed from the beginning; the times of steps that were over are not known."""
    job = scene.job("slow@8.qgs")
    first = scene.start()
    scene.running(job)
    first.send(signal.SIGKILL)
    first.process.wait()
    scene.start(QFC_WORKER_LIVE_OUTPUT_S="1")
    live_row(scene, job, lambda row: "second 6" in row["output"])
    check_whole(scene.finishes(job), 8)
    scene.stop()


def check_cut(row, megabytes, kept):
    """Head and tail, and what is missing between them, as far as the engine let it be counted."""
    output = row["output"]
    assert output.startswith("::<<<::") and output.endswith("the last line\n"), output[:200] + "...." + output[-200:]
    left_out = re.search(r"\n\[\.\.\. at least (\d+) bytes of output left out \.\.\.\]\n", output)
    assert left_out and int(left_out[1]) > 0
    assert len(output) - len(left_out[0]) <= kept * MB
    assert int(left_out[1]) + len(output) < megabytes * MB + 10000


def test_a_log_that_its_engine_has_thrown_away(scene):
    """Its head and its tail are there all the same, since it was followed."""
    job = scene.job("long_log@8.qgs")
    scene.start(QFC_WORKER_MAX_OUTPUT_MB="1", QFC_WORKER_CONTAINER_LOG_MB="2")
    check_cut(scene.finishes(job), 8, 1)
    scene.another_finishes()
    scene.stop()


@pytest.mark.long
def test_a_log_of_a_gigabyte(scene):
    job = scene.job("long_log@1024.qgs")
    scene.start()
    check_cut(scene.finishes(job, limit=600), 1024, 64)
    scene.another_finishes()
    scene.stop()
