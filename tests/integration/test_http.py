"""What the worker shows of itself: pages over HTTP, and the local socket that `health` asks."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid

import pytest


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Pages:
    """The pages of a worker at a port of its own."""

    def __init__(self):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def request(self, path, method="GET", data=None, **headers):
        """Status, body and headers; None while nobody listens."""
        request = urllib.request.Request(f"http://{self.address}{path}", method=method, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers
        except urllib.error.URLError:
            return None

    def get(self, path, **headers):
        answer = self.request(path, **headers)
        return answer and answer[:2]

    def status(self):
        return json.loads(self.get("/status.json")[1])

    def metric(self, name):
        """The value of a sample, written with its labels as in the page."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        return None


@pytest.fixture
def pages():
    return Pages()


@pytest.fixture(autouse=True)
def own_socket(scene):
    """Workers of other tests run on this machine, too."""
    scene.worker.env["QFC_WORKER_SOCKET"] = f"@qfc-worker-test-{uuid.uuid4()}"
    scene.worker.env["QFIELDCLOUD_QGIS4_IMAGE_NAME"] = scene.worker.env["QFIELDCLOUD_QGIS3_IMAGE_NAME"]


def start(scene, pages, **env):
    scene.start(QFC_WORKER_HTTP=pages.address, **env)
    scene.worker.wait_for(lambda: pages.get("/readyz") == (200, "ok\n"), "a worker that is ready")


def promtool(text):
    return subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)


def health(scene, *args, **env):
    output = scene.worker.run("health", *args, **env)
    return output.returncode, output.stdout


def test_metrics(scene, pages):
    """They count what was done, promtool has nothing to say against them, and no label names a job or a project."""
    start(scene, pages)
    done, failing = scene.job("slow@3.qgs"), scene.job("workflow_error.qgs")
    scene.finishes(done)
    scene.wait_for(failing, "failed")
    job_type = done["type"]
    ended = "qfc_worker_jobs_ended_total"
    scene.worker.wait_for(lambda: pages.metric(f'{ended}{{type="{job_type}",outcome="failed"}}') == 1, "its count")
    assert pages.metric(f'{ended}{{type="{job_type}",outcome="finished"}}') == 1
    assert pages.metric(f'qfc_worker_jobs_claimed_total{{type="{job_type}"}}') == 2
    for name in ("pickup", "wait", "run"):
        assert pages.metric(f'qfc_worker_{name}_seconds_count{{type="{job_type}"}}') == 2
        assert pages.metric(f'qfc_worker_{name}_seconds_bucket{{type="{job_type}",le="+Inf"}}') == 2
        assert pages.metric(f'qfc_worker_{name}_seconds_sum{{type="{job_type}"}}') > 0
    used = f'{{type="{job_type}"}}'
    assert pages.metric(f"qfc_worker_job_cpu_seconds_total{used}") > 0
    assert pages.metric(f"qfc_worker_job_peak_memory_bytes{used}") > 1 << 20
    assert pages.metric('qfc_worker_step_seconds_sum{step="Start QGIS Application"}') > 2  # of slow@3.qgs
    assert pages.metric("qfc_worker_ready") == 1 and pages.metric("qfc_worker_slots") == 1
    text = pages.get("/metrics")[1]
    checked = promtool(text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert str(done["id"]) not in text and str(done["project_id"]) not in text
    assert sum(line.startswith("qfc_worker_jobs_failed_total{") for line in text.splitlines()) == 1
    scene.stop()


def test_status_tells_the_running_jobs(scene, pages):
    start(scene, pages, QFC_WORKER_CONCURRENCY="2")
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.worker.wait_for(lambda: [j["step"] for j in pages.status()["worker"]["jobs"]] == ["wait"], "its step")
    worker = pages.status()["worker"]
    shown = worker["jobs"][0]
    project = scene.database.get(scene.database.project_table, job["project_id"])
    owner = scene.database.get("core_user", project["owner_id"])
    assert (shown["id"], shown["container"], shown["attempt"]) == (str(job["id"]), container, 1)
    assert (shown["project"], shown["owner"], shown["type"]) == (project["name"], owner["username"], job["type"])
    assert 0 <= shown["started_s"] <= shown["had_s"]
    assert (worker["ready"], worker["reasons"], worker["busy"], worker["slots"]) == (True, [], 1, 2)
    assert worker["marker"].startswith("qfc-worker:") and "v26.25" in worker["release"]
    scene.let_go(container)
    scene.finishes(job)
    scene.worker.wait_for(lambda: pages.status()["worker"]["jobs"] == [], "its end")
    scene.stop()


def test_only_get_and_head(scene, pages):
    start(scene, pages)
    for method, data in (("POST", b"x" * 100_000), ("PUT", b"x"), ("DELETE", None), ("PATCH", b"")):
        status, _, headers = pages.request("/metrics", method, data)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, body, headers = pages.request("/metrics", "HEAD")
    assert (status, body) == (200, "") and int(headers["Content-Length"]) > 1000
    assert pages.get("/etc/passwd")[0] == 404
    assert pages.get("/")[0] == 200 and pages.get("/healthz") == (200, "ok\n")
    scene.stop()


def test_token(scene, pages):
    """All but /healthz asks for it; it is in no log and on no page."""
    token = "a-token-of-some-length"
    scene.start(QFC_WORKER_HTTP=pages.address, QFC_WORKER_HTTP_TOKEN=token)
    right = {"Authorization": f"Bearer {token}"}
    scene.worker.wait_for(lambda: pages.get("/readyz", **right) == (200, "ok\n"), "a worker that is ready")
    for path in ("/metrics", "/readyz", "/status.json", "/"):
        for wrong in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {token}x"}, {"Authorization": f"Basic {token}"}):
            status, body, headers = pages.request(path, **wrong)
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer") and token not in body
        assert pages.get(path, **right)[0] == 200
        assert token not in pages.get(path, **right)[1]
    assert pages.get("/healthz") == (200, "ok\n")
    assert health(scene) == (0, "ok\n"), "the local socket asks for none"
    assert token not in scene.stop().stderr


def test_why_it_is_not_ready(scene, pages):
    """The engine is away: it lives, and says why it claims nothing. So does `health`."""
    start(scene, pages)
    scene.proxy.down()
    job = scene.job()
    status, why = scene.worker.wait_for(lambda: pages.get("/readyz")[0] == 503 and pages.get("/readyz"), "its being not ready")
    assert (status, why.startswith("engine: ")) == (503, True)
    assert pages.get("/healthz") == (200, "ok\n") and pages.metric("qfc_worker_engine_up") == 0
    code, told = health(scene)
    assert code == 1 and told.startswith("engine: ") and told.count("\n") == 1
    assert health(scene, "--live") == (0, "ok\n")
    scene.proxy.up()
    scene.finishes(job)
    assert health(scene) == (0, "ok\n")
    scene.stop()


def test_an_image_that_is_missing(scene, pages):
    gone = "no-such-image:latest"
    scene.start(QFC_WORKER_HTTP=pages.address, QFIELDCLOUD_QGIS3_IMAGE_NAME=gone, QFIELDCLOUD_QGIS4_IMAGE_NAME=gone)
    scene.worker.wait_for(lambda: pages.get("/healthz"), "the pages")
    scene.job()
    scene.worker.wait_for(lambda: pages.get("/readyz")[1].startswith("image"), "its being not ready")
    assert pages.get("/readyz")[1] == "image: the engine has no image no-such-image:latest\n"
    assert pages.metric('qfc_worker_missing{kind="image",name="no-such-image:latest"}') == 1
    assert pages.metric("qfc_worker_images_missed_total") >= 1
    assert health(scene) == (1, "image: the engine has no image no-such-image:latest\n")
    scene.stop()


def test_the_database_is_away(scene, pages, postgres, database):
    start(scene, pages)
    database.disconnect()
    postgres.stop("immediate")
    scene.worker.wait_for(lambda: pages.get("/readyz")[0] == 503, "its being not ready")
    assert pages.get("/readyz")[1].startswith("database: ")
    assert pages.metric("qfc_worker_database_up") == 0 and promtool(pages.get("/metrics")[1]).returncode == 0
    assert pages.status()["worker"]["database"] is False
    assert health(scene)[0] == 1
    postgres.start()
    scene.worker.wait_for(lambda: pages.get("/readyz")[0] == 200, "its being ready again")
    assert pages.metric("qfc_worker_database_connects_total") == 2
    scene.stop()


def test_stopping_is_well(scene, pages):
    """Told to stop, it is not ready any more, and goes on being healthy."""
    start(scene, pages)
    job = scene.job("gate.qgs")
    container = scene.running(job)
    scene.process.send(signal.SIGTERM)
    scene.worker.wait_for(lambda: pages.get("/readyz")[0] == 503, "its being not ready")
    assert pages.get("/readyz")[1] == "stopping: 1 jobs still run\n"
    assert health(scene) == (0, "stopping: 1 jobs still run\n")
    scene.let_go(container)
    assert scene.process.wait().returncode == 0
    assert pages.get("/healthz") is None
    assert health(scene) == (1, "no worker listens there\n")


def test_a_taken_port(scene, pages):
    """It is said once, jobs run, and the pages are there once the port is free."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", pages.port))
        other.listen()
        scene.start(QFC_WORKER_HTTP=pages.address)
        scene.finishes(scene.job())
        assert health(scene) == (0, "ok\n")
        said = f"QFC_WORKER_HTTP={pages.address} cannot be listened at: Address already in use"
        assert scene.said(said, "error") == 1
    scene.worker.wait_for(lambda: pages.get("/healthz") == (200, "ok\n"), "the pages", limit=30)
    assert scene.said(said) == 1
    scene.stop()


def test_ipv6(scene):
    pages = Pages()
    pages.address = f"[::1]:{pages.port}"
    start(scene, pages)
    scene.stop()


@pytest.mark.parametrize(
    "value", ["9187", "localhost:9187", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", "::1:9187", "[::1]"]
)
def test_wrong_addresses(scene, value):
    output = scene.worker.run("run", QFC_WORKER_HTTP=value)
    assert output.returncode == 2
    assert output.stderr == (
        f"qfc-worker: QFC_WORKER_HTTP={value}: expected a numeric address and a port, such as 127.0.0.1:9187 or "
        "[::1]:9187\n"
    )


def test_clients_that_are_slow_or_many(scene, pages):
    """Connections that say a byte now and then are cut, more than there may be wait; the pages are there again, and
    jobs run meanwhile."""
    start(scene, pages)
    clients = [socket.create_connection(("127.0.0.1", pages.port), timeout=5) for _ in range(40)]
    for client in clients:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
    scene.finishes(scene.job())
    assert health(scene) == (0, "ok\n")

    def dripping():
        """How many clients are not cut yet."""
        time.sleep(0.2)
        for client in list(clients):
            try:
                client.sendall(b"x")
            except OSError:
                client.close()
                clients.remove(client)
        return len(clients)

    scene.worker.wait_for(lambda: dripping() <= 8, "the cutting of 32 clients")
    for client in clients:
        client.close()
    assert pages.get("/healthz") == (200, "ok\n")
    scene.stop()


def test_garbage(scene, pages):
    start(scene, pages)
    for data in (b"\0" * 5000, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 200_000, b"GET /" + b"a" * 50_000):
        with socket.create_connection(("127.0.0.1", pages.port)) as client:
            client.settimeout(30)
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
            except OSError:
                pass
    assert pages.get("/healthz") == (200, "ok\n")
    scene.stop()


def test_health_of_several(scene):
    """Without a socket's name all workers of the place are asked."""
    del scene.worker.env["QFC_WORKER_SOCKET"]
    workers = [scene.worker.start("run") for _ in range(2)]

    def told():
        return health(scene)[1].splitlines()

    def says(line):
        lines = told()
        return [any(other.endswith(f"/{worker.pid}: {line}") for other in lines) for worker in workers]

    scene.worker.wait_for(lambda: says("ok") == [True, True], "two workers that are well")
    os.kill(workers[0].pid, signal.SIGSTOP)
    assert says("the worker does not answer within 4 s: its loop hangs") == [True, False]
    assert health(scene, "--live")[0] == 1
    os.kill(workers[0].pid, signal.SIGCONT)
    for worker in workers:
        worker.stop()
    lines = told()
    assert not any(f"/{worker.pid}: " in line for line in lines for worker in workers)


@pytest.mark.parametrize("name", ["@a-name-of-ours", "path"])
def test_health_at_a_given_socket(scene, name, tmp_path):
    """A file that a worker left which was killed does not hinder the next one."""
    where = str(tmp_path / "socket") if name == "path" else f"{name}-{uuid.uuid4()}"
    assert health(scene, QFC_WORKER_SOCKET=where) == (1, "no worker listens there\n")
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = scene.worker.start("run", QFC_WORKER_SOCKET=where)
        scene.worker.wait_for(lambda: health(scene, QFC_WORKER_SOCKET=where) == (0, "ok\n"), "a worker that is well")
        process.stop(number)
    assert not os.path.exists(where)


def test_health_asks_only_its_own_user(scene, tmp_path):
    """Others get nothing from the local socket; root does."""
    where = scene.worker.env["QFC_WORKER_SOCKET"]
    scene.start()
    scene.worker.wait_for(lambda: health(scene, QFC_WORKER_SOCKET=where) == (0, "ok\n"), "a worker that is well")
    asked = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c",
         "import socket, sys\ns = socket.socket(socket.AF_UNIX)\n"
         "s.connect('\\0' + sys.argv[1][1:])\ns.sendall(b'GET /status.json HTTP/1.0\\r\\n\\r\\n')\n"
         "print(s.makefile().read())", where],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert " 403 " in asked.stdout.splitlines()[0] and "qfc-worker:" not in asked.stdout
    scene.stop()
