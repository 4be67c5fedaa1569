"""Alerts: begun and ended once, whoever judges; and a real Prometheus that watches three workers."""

import http.server
import json
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from test_http import Pages, free_port

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
QUIET = {  # all but what a test is about
    f"QFC_WORKER_ALERT_{name}": "0"
    for name in (
        "QUEUE_WARNING QUEUE_CRITICAL OLDEST_PENDING_S FAILED_JOBS FAILURES_IN_A_ROW SUCCESS_PERCENT AVERAGE_RUN_S "
        "DISK_WARNING_PERCENT DISK_CRITICAL_PERCENT IMAGE_MISSING NETWORK_MISSING"
    ).split()
}
SECRET = "T0KEN-in-the-path"


class Receiver:
    """Takes what is posted, or answers as it was told to."""

    def __init__(self, port=0):
        self.messages, self.status, self.tries = [], 200, 0
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                receiver.tries += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.status == 200:
                    assert self.headers["Content-Type"] == "application/json" and self.path == f"/hooks/{SECRET}"
                    receiver.messages.append(json.loads(body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/{SECRET}"

    def said(self):
        return [(m["alert"], m["severity"], m["state"]) for m in self.messages]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


class Fleet:
    """Workers on one database and one engine, each with pages of its own."""

    def __init__(self, scene, receiver, count, page="/readyz", **env):
        self.scene, self.receiver, self.page = scene, receiver, page
        self.env = {**QUIET, "QFC_WORKER_ALERT_PERIOD_S": "1", "QFC_WORKER_ALERT_WEBHOOK": receiver.url, **env}
        self.workers = []
        for _ in range(count):
            self.add()

    def add(self):
        pages = Pages()
        process = self.scene.worker.start("run", QFC_WORKER_HTTP=pages.address, **self.env)
        self.workers.append((process, pages))
        self.scene.worker.wait_for(lambda: pages.get(self.page) == (200, "ok\n"), f"a worker whose {self.page} is ok")
        return process, pages

    def wait_for(self, predicate, what, limit=60):
        return self.scene.worker.wait_for(predicate, what, limit)

    def judges(self, of="queue"):
        return [w for w in self.workers if w[0].process.poll() is None and w[1].metric(f'qfc_alert_judge{{of="{of}"}}') == 1]

    def judge(self, of="queue"):
        return self.wait_for(lambda: self.judges(of), "a judge")[0]

    def looked(self):
        """Waits until somebody has judged the queue."""
        looks = 'qfc_alert_looks_total{of="queue"}'
        self.wait_for(lambda: sum(pages.metric(looks) for _, pages in self.workers) > 0, "a look")
        return self

    def stop(self):
        """Ends all; returns what all of them logged of alerts."""
        said = []
        for process, _ in self.workers:
            output = process.stop()
            assert SECRET not in output.stderr
            said += [message for message in output.messages() if message.startswith("alert ")]
        return said


DEPTH = ("queue_depth", "warning")


def jobs_that_wait(scene, count):
    """Jobs of one project that is locked."""
    project = scene.database.project(qgis_file="offline.qgs", files=())
    table = scene.database.project_table
    scene.database.execute(f"UPDATE {table} SET locked_at = now() WHERE id = %s", project["id"])
    for _ in range(count):
        scene.database.job(project, "package")

    def unlock():
        scene.database.execute("DELETE FROM core_packagejob")
        scene.database.execute("DELETE FROM core_job WHERE status = 'pending'")

    return unlock


def test_once_from_three_workers(scene, receiver):
    """When it begins and when it is over: one message each, one line each in all logs, and the metric of the judge."""
    fleet = Fleet(scene, receiver, 3, QFC_WORKER_ALERT_QUEUE_WARNING="5", QFC_WORKER_ALERT_QUEUE_FOR_S="2").looked()
    clear = jobs_that_wait(scene, 6)
    fleet.wait_for(lambda: receiver.messages, "a message")
    message = receiver.messages[0]
    assert (message["alert"], message["severity"], message["state"]) == (*DEPTH, "firing")
    assert (message["value"], message["limit"], message["detail"]) == (6, 5, "6 jobs wait")
    assert message["text"].endswith("queue depth, warning: 6 jobs wait (limit: 5 jobs, for 2 s)")
    assert message["stack"] == "qfieldcloud" and message["worker"].startswith("qfc-worker:")
    firing = 'qfc_alert_firing{alert="queue_depth",severity="warning"}'
    values = [pages.metric(firing) for _, pages in fleet.workers]
    assert sorted(values, key=str) == [1.0, None, None], "only the judge tells"
    assert [a["alert"] for a in fleet.judge()[1].status()["alerts"]] == ["queue_depth"]
    time.sleep(3)
    clear()
    fleet.wait_for(lambda: len(receiver.messages) > 1, "the end")
    time.sleep(2)
    assert receiver.said() == [(*DEPTH, "firing"), (*DEPTH, "resolved")]
    assert fleet.judge()[1].metric(firing) == 0
    said = fleet.stop()
    assert len(said) == 2 and said[0] == "alert queue depth, warning: 6 jobs wait (limit: 5 jobs, for 2 s)"
    assert said[1].startswith("alert over after ") and said[1].endswith(" s: queue depth, warning: 0 jobs wait")


def test_not_before_its_time(scene, receiver):
    fleet = Fleet(scene, receiver, 1, QFC_WORKER_ALERT_QUEUE_WARNING="5", QFC_WORKER_ALERT_QUEUE_CRITICAL="7",
                  QFC_WORKER_ALERT_QUEUE_FOR_S="300", QFC_WORKER_ALERT_OLDEST_PENDING_S="1")  # fmt: skip
    jobs_that_wait(scene, 8)
    fleet.wait_for(lambda: receiver.messages, "a message")
    time.sleep(3)
    assert receiver.said() == [("oldest_pending", "warning", "firing")]
    fleet.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_another_judge_goes_on(scene, receiver, how):
    """It does not say again what was said, and says when it is over: also one that came while it was so."""
    fleet = Fleet(scene, receiver, 1, QFC_WORKER_ALERT_QUEUE_WARNING="5", QFC_WORKER_ALERT_QUEUE_FOR_S="1")
    clear = jobs_that_wait(scene, 5)
    fleet.wait_for(lambda: receiver.messages, "a message")
    first, _ = fleet.judge()
    _, pages = fleet.add()
    fleet.wait_for(lambda: pages.status()["alerts"], "the other's knowing of it")
    first.stop(how)
    fleet.wait_for(lambda: pages.metric('qfc_alert_judge{of="queue"}') == 1, "another judge")
    time.sleep(3)
    assert receiver.said() == [(*DEPTH, "firing")]
    clear()
    fleet.wait_for(lambda: len(receiver.messages) > 1, "the end")
    assert receiver.said() == [(*DEPTH, "firing"), (*DEPTH, "resolved")]
    assert len(fleet.stop()) == 2


def test_what_the_receiver_was_not_told_the_next_judge_tells(scene, receiver):
    """The receiver takes nothing while the first judge lives: the second one delivers, once."""
    receiver.status = 503
    fleet = Fleet(scene, receiver, 1, QFC_WORKER_ALERT_QUEUE_WARNING="5", QFC_WORKER_ALERT_QUEUE_FOR_S="1")
    jobs_that_wait(scene, 5)
    fleet.wait_for(lambda: receiver.tries > 0, "a try")
    _, pages = fleet.add()
    fleet.wait_for(lambda: pages.status()["alerts"], "the other's knowing of it")
    first = fleet.workers[0][0]
    output = first.stop(signal.SIGKILL)
    receiver.status = 200
    fleet.wait_for(lambda: receiver.messages, "the message")
    time.sleep(2)
    assert receiver.said() == [(*DEPTH, "firing")]
    trouble = [m for m in output.messages("warning") if "QFC_WORKER_ALERT_WEBHOOK has not taken" in m]
    assert len(trouble) == 1 and "it answers 503" in trouble[0] and SECRET not in str(output)
    fleet.stop()


def test_a_judge_without_memory_says_so(scene, receiver):
    """All workers were away: what is wrong from the first look on may be old."""
    jobs_that_wait(scene, 5)
    fleet = Fleet(scene, receiver, 1, QFC_WORKER_ALERT_QUEUE_WARNING="5", QFC_WORKER_ALERT_QUEUE_FOR_S="0")
    fleet.wait_for(lambda: receiver.messages, "a message")
    assert "qfc-worker: (still) queue depth, warning: 5 jobs wait" in receiver.messages[0]["text"]
    fleet.stop()


def test_a_dead_receiver_delays_nothing(scene, receiver):
    """Nobody listens: jobs run, it is tried again, and delivered in order when somebody does."""
    port = receiver.server.server_port
    receiver.close()
    fleet = Fleet(scene, receiver, 1, QFC_WORKER_ALERT_QUEUE_WARNING="5", QFC_WORKER_ALERT_QUEUE_FOR_S="0")
    pages = fleet.workers[0][1]
    clear = jobs_that_wait(scene, 5)
    fleet.wait_for(lambda: pages.metric("qfc_alert_message_failures_total") >= 2, "two tries")
    scene.finishes(scene.job())
    clear()
    fleet.wait_for(lambda: pages.metric("qfc_alert_messages_waiting") == 2, "the end's message")
    again = Receiver(port)
    fleet.wait_for(lambda: len(again.messages) == 2, "both messages")
    assert again.said() == [(*DEPTH, "firing"), (*DEPTH, "resolved")]
    assert pages.metric("qfc_alert_messages_delivered_total") == 2
    said = fleet.workers[0][0].output().messages()
    assert any("takes alerts again" in message for message in said)
    fleet.stop()
    again.close()


def test_failures(scene, receiver):
    """In number, in a row, and by their share."""
    fleet = Fleet(scene, receiver, 1, QFC_WORKER_ALERT_FAILED_JOBS="5", QFC_WORKER_ALERT_FAILURES_IN_A_ROW="5",
                  QFC_WORKER_ALERT_SUCCESS_PERCENT="90", QFC_WORKER_CONCURRENCY="5")  # fmt: skip
    jobs = [scene.job("workflow_error.qgs") for _ in range(5)]
    for job in jobs:
        scene.wait_for(job, "failed")
    fleet.wait_for(lambda: len(receiver.messages) == 3, "three messages")
    texts = {m["alert"]: (m["severity"], m["detail"]) for m in receiver.messages}
    assert texts == {
        "failed_jobs": ("warning", "5 jobs have failed within an hour"),
        "failures_in_a_row": ("critical", "the last 5 jobs have failed"),
        "success_rate": ("warning", "0 of 5 jobs have succeeded within an hour"),
    }
    scene.finishes(scene.job())
    fleet.wait_for(lambda: len(receiver.messages) == 4, "an end")
    assert receiver.said()[3] == ("failures_in_a_row", "critical", "resolved")
    fleet.stop()


def test_image_missing(scene, receiver):
    """Of the host: once from the two that use the same engine. They live, but are not ready."""
    missing = {"QFC_WORKER_ALERT_IMAGE_MISSING": "1", "QFIELDCLOUD_QGIS3_IMAGE_NAME": "no-such-image:latest"}
    fleet = Fleet(scene, receiver, 2, "/healthz", **missing)
    scene.job()
    fleet.wait_for(lambda: receiver.messages, "a message")
    time.sleep(2)
    assert receiver.said() == [("image_missing", "critical", "firing")]
    assert receiver.messages[0]["detail"] == "the engine has no image no-such-image:latest"
    fleet.stop()


def test_average_run_and_disk(scene, receiver):
    fleet = Fleet(scene, receiver, 1, QFC_WORKER_ALERT_AVERAGE_RUN_S="60", QFC_WORKER_ALERT_DISK_WARNING_PERCENT="1")
    job = scene.job()
    scene.finishes(job)
    scene.database.execute(
        "UPDATE core_job SET started_at = started_at - interval '3 minutes',"
        " docker_started_at = docker_started_at - interval '3 minutes'"
    )
    fleet.wait_for(lambda: any(m["alert"] == "average_run" for m in receiver.messages), "a message")
    details = {m["alert"]: m["detail"] for m in receiver.messages}
    assert details["average_run"].startswith("jobs have run for 18")
    fleet.wait_for(lambda: any(m["alert"] == "disk" for m in receiver.messages), "the disk's message")
    fleet.stop()


def test_off(scene, receiver):
    fleet = Fleet(scene, receiver, 1, QFC_WORKER_ALERTS="0", QFC_WORKER_ALERT_QUEUE_WARNING="1", QFC_WORKER_ALERT_QUEUE_FOR_S="0")
    jobs_that_wait(scene, 2)
    time.sleep(4)
    assert receiver.messages == [] and "qfc_alert" not in fleet.workers[0][1].get("/metrics")[1]
    assert fleet.stop() == []


RULES = ROOT / "docs" / "prometheus" / "rules.yml"


def test_rules():
    """Prometheus's own tool takes them, and they say what they should, when they should."""
    for command in (["check", "rules", RULES], ["test", "rules", RULES.with_name("rules_test.yml")]):
        result = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stdout + result.stderr


class Prometheus:
    """Debian's, which scrapes every second; the rules are the shipped ones, but in a hurry."""

    def __init__(self, directory, targets):
        (directory / "rules.yml").write_text(re.sub(r"for: \d+m", "for: 2s", RULES.read_text()))
        (directory / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            "rule_files: [rules.yml]\n"
            "scrape_configs: [{job_name: qfc-worker, static_configs: [{targets: %s}]}]\n" % json.dumps(targets)
        )
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = open(directory / "log", "w+")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
             f"--web.listen-address={self.url.removeprefix('http://')}"],
            stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def get(self, path):
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError) and error.code != 503:  # it has just been started
                raise AssertionError(f"{path}: {error.read().decode()}") from None
            return None

    def ask(self, query):
        """Values by instance; an error of the query fails the test."""
        answer = self.get("/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        return {row["metric"].get("instance"): float(row["value"][1]) for row in answer["result"]} if answer else {}

    def firing(self):
        answer = self.get("/api/v1/alerts") or {"alerts": []}
        return sorted((a["labels"]["alertname"], a["labels"]["severity"]) for a in answer["alerts"] if a["state"] == "firing")

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def test_prometheus(scene, receiver, tmp_path):
    """It scrapes three workers; an alert fires and is over; it notices that no worker is alive. What the dashboard asks
    it can answer."""
    fleet = Fleet(scene, receiver, 3, QFC_WORKER_ALERT_FAILED_JOBS="100")
    prometheus = Prometheus(tmp_path, [pages.address for _, pages in fleet.workers])
    try:
        fleet.wait_for(lambda: list(prometheus.ask("up").values()) == [1, 1, 1], "three workers that are up")
        scene.finishes(scene.job())
        fleet.wait_for(lambda: sum(prometheus.ask("sum(qfc_worker_jobs_ended_total)").values()) == 1, "the job's count")
        clear = jobs_that_wait(scene, 6)
        fleet.wait_for(lambda: prometheus.firing() == [("QfcQueueDepth", "warning")], "the alert")
        everywhere = {pages.address: 6 for _, pages in fleet.workers}
        fleet.wait_for(lambda: prometheus.ask("qfc_queue_pending") == everywhere, "what each tells")
        dashboard = json.loads((RULES.parent / "dashboard.json").read_text())
        queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        assert len(queries) > 20
        known = set(prometheus.get("/api/v1/label/__name__/values"))
        for query in queries:
            prometheus.ask(query)
            assert set(re.findall(r"\b(?:qfc|process)_\w+", query)) - {"qfc_worker_jobs_failed_total"} <= known, query
        clear()
        fleet.wait_for(lambda: prometheus.firing() == [], "its end")
        fleet.stop()
        deadline = time.monotonic() + 60
        while prometheus.firing() != [("QfcNoWorker", "critical")]:
            assert time.monotonic() < deadline, prometheus.firing()
            time.sleep(0.2)
    finally:
        prometheus.close()
