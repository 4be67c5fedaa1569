"""`qfc-worker status`: what it says is what stands in the database, in every form it has, and on a real terminal."""

import csv
import datetime
import json
import os
import signal
import socket
import subprocess
import threading
import time
import uuid

import pytest

RELEASES = pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
NEVER_S = 30


def ago(**values):
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**values)


class Status:
    """The built program's `status` with one database."""

    def __init__(self, binary, database):
        known = {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS") or name == "PATH"}
        self.binary, self.env = binary, {**known, **database.settings}

    def __call__(self, *args, code=0, **env):
        result = subprocess.run(
            [self.binary, "status", *(str(arg) for arg in args)],
            env={**self.env, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert result.returncode == code, f"exit code {result.returncode}\n{result.stdout}{result.stderr}"
        return result

    def json(self):
        return json.loads(self("--json").stdout)


@pytest.fixture
def status(built, database):
    return Status(built, database)


@pytest.fixture
def busy(database):
    """A queue with one of everything; returns its jobs by what they are."""
    projects = {name: database.project(files=(), name=name) for name in ("ready", "busy", "held", "later", "ended")}
    locked = {"locked_at": ago(hours=2)}
    database.update(database.project_table, projects["held"]["id"], **locked)
    jobs = {
        "ready": database.job(projects["ready"], created_at=ago(minutes=5)),
        "next": database.job(projects["ready"], "process_projectfile", created_at=ago(minutes=4)),
        "running": database.job(projects["busy"], status="started", started_at=ago(seconds=90), container_id="c" * 64),
        "behind": database.job(projects["busy"]),
        "held": database.job(projects["held"]),
        "later": database.job(
            projects["later"],
            feedback={"qfc_worker": {"attempts": 1, "reasons": ["a", "no engine"], "not_before": time.time() + 600}},
        ),
    }
    for minutes, kind in ((3, "finished"), (4, "finished"), (5, "finished"), (90, "failed"), (91, "failed")):
        began = ago(minutes=minutes + 1)
        database.job(
            projects["ended"], status=kind, created_at=ago(minutes=minutes + 2), started_at=began,
            docker_started_at=began, finished_at=ago(minutes=minutes),
            feedback={"error": "first line\nsecond"} if kind == "failed" else {},
        )  # fmt: skip
    # As QFieldCloud's own worker leaves one whose container failed; of one that ended days ago nothing is counted.
    database.job(
        projects["ended"], status="failed", created_at=ago(minutes=14), started_at=ago(minutes=13),
        docker_started_at=ago(minutes=12), docker_finished_at=ago(minutes=11), feedback={"error_type": "API_OTHER"},
    )  # fmt: skip
    database.job(projects["ended"], status="failed", created_at=ago(days=3), started_at=ago(days=3), finished_at=ago(days=3))
    return jobs


@RELEASES
def test_what_is_told(status, database, busy):
    told = status.json()
    queue = told["queue"]
    counts = {name: queue[name] for name in ("pending", "claimable", "behind", "locked", "retry", "queued", "started")}
    assert counts == {"pending": 5, "claimable": 1, "behind": 2, "locked": 1, "retry": 1, "queued": 0, "started": 1}
    assert 300 <= queue["oldest_pending_s"] < 300 + NEVER_S and queue["oldest_claimable_s"] == queue["oldest_pending_s"]
    assert {(d["status"], d["type"]): d["jobs"] for d in queue["by_type"]} == {
        ("pending", "package"): 4, ("pending", "process_projectfile"): 1, ("started", "package"): 1,
    }  # fmt: skip
    (running,) = told["running"]
    assert running["job"] == str(busy["running"]["id"]) and running["project"] == "busy"
    assert running["held_by"] == "old" and running["container"] == "c" * 64 and 90 <= running["since_s"] < 90 + NEVER_S
    blocked = {b["project"]: b for b in told["blocked"]}
    assert blocked["held"]["why"] == "locked" and 7200 <= blocked["held"]["since_s"] < 7200 + NEVER_S
    assert blocked["later"]["why"] == "retry" and blocked["later"]["reason"] == "no engine"
    assert -600 <= blocked["later"]["since_s"] < -600 + NEVER_S and set(blocked) == {"held", "later"}
    hour, day = told["ended"]["hour"], told["ended"]["day"]
    assert (hour["finished"], hour["failed"], hour["success"], hour["by_old_workers"]) == (3, 1, 0.75, 1)
    assert (day["finished"], day["failed"], day["success"]) == (3, 3, 0.5)
    assert abs(hour["run_s"]["p50"] - 60) < 1 and abs(hour["wait_s"]["p99"] - 60) < 1
    assert day["by_type"]["package"]["failed"] == 3
    assert [(f["reason"], f["jobs"]) for f in told["failures"]] == [("first line", 2), ("API_OTHER", 1)]
    assert told["failures_in_a_row"] == 0 and told["workers"] == [] and told["old_workers_started"] == 1


def test_workers_are_told_by_their_sessions(scene, status, database):
    job = scene.job("gate.qgs")
    scene.start("--concurrency", "3")
    container = scene.running(job)
    told = status.json()
    (worker,) = told["workers"]
    version = subprocess.run([status.binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    assert (worker["host"], worker["version"], worker["slots"], worker["jobs"]) == (socket.gethostname()[:36], version, 3, 1)
    (running,) = told["running"]
    assert running["held_by"] == "worker" and running["worker"] == worker["instance"]
    assert running["host"] == worker["host"] and running["container"] == container and running["attempts"] == 1
    assert f"1 of 3" in status().stdout
    scene.let_go(container)
    scene.finishes(job)
    scene.stop()
    assert status.json()["workers"] == []


def test_a_quiet_queue_is_well(scene, status):
    assert "! No worker is alive." in status().stdout
    scene.start()
    scene.wait_for_word("connected to")
    scene.worker.wait_for(lambda: "Nothing is wrong that the database tells of." in status().stdout, "a good word")
    scene.stop()


def test_what_is_wrong_comes_first(status, database, busy):
    orphan = database.job(database.project(files=()), status="started", container_id="d" * 64,
                          feedback={"qfc_worker": {"worker": "qfc-worker:0123456789abcdef:gone"}})  # fmt: skip
    lines = status().stdout.splitlines()
    wrong = [line for line in lines[1:6] if line.startswith("! ")]
    assert any(f'"jobs requeue {str(orphan["id"])[:8]}"' in line for line in wrong)
    assert any("Project held is locked for 2h" in line for line in wrong)


def test_csv_grows_by_whole_lines(status, database, busy, tmp_path):
    path = tmp_path / "queue.csv"
    threads = [threading.Thread(target=status, args=("--csv", path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert status("--csv", path).stdout == ""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and all(None not in row and None not in row.values() for row in rows)
    row = rows[-1]
    assert (row["pending"], row["started"], row["hour_success"], row["day_failed"]) == ("5", "1", "0.7500", "3")
    assert abs(float(row["hour_run_p50_s"]) - 60) < 1 and datetime.datetime.fromisoformat(row["time"][:-1])


def test_csv_is_rotated_and_never_mixed(status, tmp_path):
    path = tmp_path / "queue.csv"
    path.write_text("time,other\nnot ours, and cut")
    for _ in range(8):
        status("--csv", path, "--rotate", "0.0004")  # the heads and one line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["queue.csv", *(f"queue.csv.{i}" for i in range(1, 6))]
    for file in tmp_path.iterdir():
        with open(file, newline="") as opened:
            rows = list(csv.DictReader(opened))
        assert rows and all(None not in row and None not in row.values() for row in rows)
    assert status("--csv", tmp_path / "no" / "such.csv", code=1).stderr.startswith("qfc-worker: open ")


def test_history_is_not_walked(status, database):
    """What PostgreSQL reads of core_job stays the same, however many jobs have ended."""
    project = database.project(files=())
    database.job(project, status="finished", created_at=ago(days=9))
    read = "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'core_job'"

    def rows_read():
        database.disconnect()  # a session hands in what it counted when it ends
        before = database.value(read)
        status("--json")
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'qfc-worker%'"
        while not database.value(gone):
            pass
        database.disconnect()
        time.sleep(0.2)
        return database.value(read) - before

    alone = rows_read()
    database.execute(
        "INSERT INTO core_job SELECT made.* FROM core_job j, generate_series(1, 5000) i, jsonb_populate_record(j,"
        " jsonb_build_object('id', gen_random_uuid(), 'created_at', now() - interval '3 days' - i * interval '1 min')) made"
    )
    assert rows_read() <= alone + 50


def test_wrong_calls(status):
    assert "needs a terminal" in status("--watch", code=2, TERM="xterm").stderr
    assert "expected seconds" in status("--watch=0", code=2).stderr
    assert "not with --json" in status("--watch", "3", "--json", code=2).stderr
    assert status(code=3, POSTGRES_PORT="1").stderr.startswith("qfc-worker: connect to PostgreSQL")


class Terminal:
    """tmux with one window of a given size, in which the program runs."""

    def __init__(self, status, columns, lines, command):
        self.socket = f"qfc-test-{uuid.uuid4().hex}"
        self.env = {**status.env, "TERM": "screen"}
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), "sh")
        self.tmux("set-option", "-g", "status", "off")
        self.tmux("resize-window", "-x", str(columns), "-y", str(lines))
        self.type("PS1='$ '; clear", "Enter")
        self.wait_for(lambda: self.screen().strip() == "$")
        self.type(f"{status.binary} {command}; echo ended $?", "Enter")

    def tmux(self, *args):
        done = subprocess.run(["tmux", "-L", self.socket, *args], env=self.env, capture_output=True, text=True, check=True)
        return done.stdout

    def type(self, *keys):
        self.tmux("send-keys", *keys)

    def screen(self):
        return self.tmux("capture-pane", "-p")

    def wait_for(self, predicate):
        deadline = time.monotonic() + 60
        while not (found := predicate()):
            assert time.monotonic() < deadline, self.screen()
            time.sleep(0.05)
        return found

    def flag(self, name):
        return self.tmux("display-message", "-p", f"#{{{name}}}").strip()

    def pid(self):
        """The program's: the only child of the shell."""
        found = subprocess.run(["pgrep", "-P", self.flag("pane_pid")], capture_output=True, text=True, check=True)
        return int(found.stdout.split()[0])

    def close(self):
        self.tmux("kill-server")


@pytest.fixture
def terminal(status):
    opened = []

    def open_terminal(columns, lines, command):
        opened.append(Terminal(status, columns, lines, command))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


def shown(terminal, database):
    """The page, once it is there as a whole."""
    return terminal.wait_for(lambda: "QFieldCloud v" in terminal.screen() and terminal.screen().splitlines())


@pytest.mark.parametrize("columns, lines", [(80, 24), (200, 50)])
def test_watch_fills_any_terminal(terminal, database, busy, columns, lines):
    long = database.project(files=(), name="n" * 200)
    for _ in range(30):
        database.job(database.project(files=(), owner=database.user()), status="started", started_at=ago(seconds=5))
    database.job(long, status="started", started_at=ago(minutes=50), container_id="c" * 64)
    window = terminal(columns, lines, "status --watch 0.3")
    page = shown(window, database)
    assert page[0].startswith("20") and "UTC   QFieldCloud v26.25 or later" in page[0]
    assert window.flag("alternate_on") == "1" and window.flag("cursor_flag") == "0"
    assert len(page) <= lines and all(len(line) <= columns for line in page)
    text = "\n".join(page)
    for head in ("QUEUE", "ENDED", "RUNNING", "WORKER", "BLOCKED PROJECT", "FAILED IN THE LAST DAY"):
        assert head in text or lines < 30
    assert "nnnn… " in text or columns > 100, "the long name gives way"
    assert "... and" in text
    # It is drawn anew, and nothing of before is left.
    database.execute("DELETE FROM core_packagejob")
    database.execute("DELETE FROM core_job WHERE status = 'started'")
    window.wait_for(lambda: "RUNNING" not in window.screen() and "QUEUE" in window.screen())
    assert "nnnn" not in window.screen()
    # Another size.
    window.tmux("resize-window", "-x", "60", "-y", "15")
    window.wait_for(lambda: len(window.screen().splitlines()) <= 15 and max(map(len, window.screen().splitlines())) <= 60)
    window.wait_for(lambda: "QFieldCloud v" in window.screen())
    window.type("q")
    window.wait_for(lambda: "ended 0" in window.screen())
    assert window.flag("alternate_on") == "0" and window.flag("cursor_flag") == "1" and window.flag("wrap_flag") == "1"
    assert "QUEUE" not in window.screen()


@pytest.mark.parametrize(
    "number, ended", [(signal.SIGINT, "ended 0"), (signal.SIGTERM, "ended 143"), (signal.SIGHUP, "ended 129")]
)
def test_the_terminal_is_given_back(terminal, database, number, ended):
    window = terminal(80, 24, "status --watch")
    shown(window, database)
    if number == signal.SIGINT:
        window.type("C-c")
    else:
        os.kill(window.pid(), number)
    window.wait_for(lambda: ended in window.screen())
    assert window.flag("alternate_on") == "0" and window.flag("cursor_flag") == "1"
    window.type("echo he''re", "Enter")  # the terminal echoes again, and ends lines
    window.wait_for(lambda: window.screen().splitlines().count("here") == 1 and "echo he''re" in window.screen())


def test_the_terminal_is_given_back_for_a_while(terminal, database):
    window = terminal(80, 24, "status --watch 0.3")
    shown(window, database)
    window.type("C-z")
    window.wait_for(lambda: "Stopped" in window.screen())
    assert window.flag("alternate_on") == "0" and window.flag("cursor_flag") == "1"
    window.type("fg", "Enter")
    window.wait_for(lambda: window.flag("alternate_on") == "1" and "QFieldCloud v" in window.screen())
    window.type("q")
    window.wait_for(lambda: window.flag("alternate_on") == "0")


def test_watch_outlives_a_lost_database(terminal, database):
    window = terminal(100, 30, "status --watch 0.3")
    shown(window, database)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'qfc-worker status --watch'"
    database.execute(end)
    before = window.screen().splitlines()[0]
    window.wait_for(lambda: window.screen().startswith("20") and window.screen().splitlines()[0] != before)
    window.type("q")
    window.wait_for(lambda: "ended 0" in window.screen())
