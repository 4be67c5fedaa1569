"""What a job's container cannot do to its host and to the jobs beside it, and how each of that is loosened."""

import re

import pytest

pytestmark = pytest.mark.parametrize("database", ["v26.25"], indirect=True)

DENIED = "Operation not permitted|permission denied"


class Probed:
    """What the stand-in could do, and could not."""

    def __init__(self, row):
        self.output = row["output"]
        self.said = dict(re.findall("^PROBE ([a-z_]+): (.*)$", self.output, re.M))
        self.status = dict(re.findall(r"^STATUS (\w+) (\w+)$", self.output, re.M))
        self.processes = re.search("^PROCESSES (.*)$", self.output, re.M)[1].split()


@pytest.fixture
def run_one(database, worker):
    """Queues one job that plays `qgis_file` and a good one behind it, drains the queue, checks that the good one went
    well, and returns the first one's row and the worker's output."""

    def run(qgis_file, **env):
        env.setdefault("QFIELDCLOUD_DEFAULT_NETWORK", "none")
        first = database.job(database.project(qgis_file=qgis_file, files=()), "package")
        second = database.job(database.project(qgis_file="offline.qgs", files=()), "package")
        output = worker.run("run", "--drain", **env)
        assert output.returncode == 0, output
        assert database.get("core_job", second["id"])["status"] == "finished", output
        return database.get("core_job", first["id"]), output

    return run


def test_confined_by_default(run_one):
    row, output = run_one("probe.qgs")
    assert row["status"] == "finished", output
    probed = Probed(row)
    assert "Read-only file system" in probed.said["write"]
    assert [probed.said[f"write_{place}"] for place in ("io", "tmp", "root")] == ["done"] * 3
    for name in ("mount", "raw_socket", "device", "owner", "kernel_log", "host_name"):
        assert re.search(DENIED, probed.said[name]), (name, probed.said[name])
    assert probed.status == {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1"}
    assert set(probed.processes) <= {"sh", "cat", "sort", "tr", "xvfb-run", "python3"}, "it sees others' processes"


def test_each_loosened_by_its_setting(run_one):
    row, output = run_one(
        "probe.qgs",
        QFC_WORKER_CONTAINER_READ_ONLY="0",
        QFC_WORKER_CONTAINER_DROP_CAPABILITIES="0",
        QFC_WORKER_CONTAINER_NO_NEW_PRIVILEGES="0",
    )
    assert row["status"] == "finished", output
    probed = Probed(row)
    assert probed.said["write"] == probed.said["device"] == probed.said["owner"] == "done"
    assert int(probed.status["CapEff"], 16) > 0 and probed.status["NoNewPrivs"] == "0"


def test_limits_as_the_engine_has_them(database, worker, ground):
    job = database.job(database.project(qgis_file="gate.qgs"), "package")
    process = worker.start("run", "--single-shot", QFC_WORKER_CONTAINER_CPU_PERCENT="150")
    row = worker.wait_for_status(job, "started")
    worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container's start")
    container = ground.docker.inspect(row["container_id"])
    host = container["HostConfig"]
    assert host["PidsLimit"] == 1024 and host["ReadonlyRootfs"]
    assert host["CpuQuota"] == 1.5 * host["CpuPeriod"]
    assert host["LogConfig"]["Config"] == {"max-size": "262144k", "max-file": "2"}
    assert {mount["Destination"] for mount in container["Mounts"]} == {"/io", "/tmp", "/root"}
    volumes = {mount["Name"] for mount in container["Mounts"]}
    ground.docker.put(row["container_id"], "/io", {"go": b""})
    assert process.wait().returncode == 0
    assert not volumes & {volume["Name"] for volume in ground.docker.volumes()}, "volumes stay behind"


def test_forking_without_end(run_one):
    row, output = run_one("forks.qgs", QFC_WORKER_CONTAINER_PROCESSES="40")
    assert row["status"] == "failed", output
    assert "can't fork: Resource temporarily unavailable" in row["output"]


def test_what_ignores_signals_is_killed(run_one):
    row, output = run_one("stubborn.qgs", QFIELDCLOUD_WORKER_TIMEOUT_S="3")
    assert row["status"] == "failed", output
    assert row["feedback"]["error_type"] == "TIMEOUT"


def test_feedback_over_its_limit(run_one):
    row, output = run_one("big_feedback@3.qgs", QFC_WORKER_MAX_FEEDBACK_MB="2")
    assert row["status"] == "failed", output
    assert "larger than 2097152 bytes" in row["feedback"]["error"]


def test_output_over_its_limit(run_one):
    row, output = run_one("big_log@5.qgs", QFC_WORKER_MAX_OUTPUT_MB="2")
    assert row["status"] == "finished", output
    text = row["output"]
    assert text.startswith("::<<<::") and text.endswith("the last line\n")
    left_out = re.search(r"\[\.\.\. (\d+) bytes of output left out \.\.\.\]", text)
    assert 3 << 20 < int(left_out[1]) < (3 << 20) + 10000
    assert len(text) < (2 << 20) + 100
