"""Each command that README and documents print is known here, and is run: those of the program in this file, as printed;
those that build, install and compose in test_deploy.py, which takes them from here."""

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FIRST = re.compile(r"(sudo )?(build/)?(qfc-worker|docker|docker-compose|docker/demo|tests/\S+|meson|ninja|systemctl|install|cp|curl|promtool)\b")
LINE = re.compile(r"^(?:    |\t|   +)(\S.*)$")

# What is run by something else than this file, by how it begins.
ELSEWHERE = {
    "docker/demo": "a newcomer's first command; tests/integration/test_package.py runs the same jobs",
    "tests/run": "this very run",
    "tests/bench/run": "measures; it asserts nothing",
    "meson setup": "test_deploy.py, test_dist and the image's build",
    "meson install": "test_deploy.py, test_what_is_installed",
    "ninja -C build": "tests/run",
    "docker build": "test_deploy.py",
    "docker run": "test_deploy.py, test_confined",
    "docker-compose": "test_deploy.py",
    "install -": "test_deploy.py, test_secrets_as_files",
    "cp docker/.env.example": "test_deploy.py, test_secrets_as_files",
    "systemctl": "test_deploy.py, test_the_unit: there is no systemd to start it here",
    "docker image prune": "test_image_guard.py",
    "docker system prune": "test_storm.py",
    "curl": "test_http.py",
    "promtool": "test_alerts.py",
}
ASKS = re.compile(rb"\[y/N\] ?$|\(y/N\)\W*$|y/N\W*$")


def printed():
    """(document, command) of each code line that begins like a command; what is said beside it is left out."""
    for path in DOCUMENTS:
        for line in path.read_text().splitlines():
            match = LINE.match(line)
            if match and FIRST.match(match[1]):
                command = re.split(r" {3,}|  +#| # ", match[1])[0].strip()
                yield path.name, command


COMMANDS = sorted({command for _, command in printed()})
OURS = [command for command in COMMANDS if re.match(r"(build/)?qfc-worker\b", command)]


def test_every_command_is_known():
    strangers = [c for c in COMMANDS if c not in OURS and not any(c.startswith(word) for word in ELSEWHERE)]
    assert strangers == [] and len(OURS) > 15, strangers


def in_a_terminal(words, env, patience=90):
    """Runs a command as a person does who says yes; returns its exit code and what it showed. One that goes on until it
    is told to stop is told so after a while."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(words[0], words, env)
    endless = words[1] == "run" or "--watch" in words or "-f" in words
    shown, told, began = b"", False, time.monotonic()
    while True:
        ready, _, _ = select.select([terminal], [], [], 0.5)
        try:
            piece = os.read(terminal, 65536) if ready else b""
        except OSError:
            break
        shown += piece
        if ready and not piece:
            break
        if ASKS.search(shown.rstrip(b" ")[-20:]) and piece:
            os.write(terminal, b"y\n")
        if endless and not told and time.monotonic() - began > 4 and not ready:
            told = True
            os.kill(pid, signal.SIGINT)
        assert time.monotonic() - began < patience, shown.decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown.decode(errors="replace")


@pytest.fixture
def scene(worker, database, tmp_path):
    """A queue with a job in each status."""
    project = database.project(database.user("ada"), name="trees", files=())
    jobs = {status: database.job(database.project(files=()), "package", status) for status in ("pending", "failed", "finished")}
    database.update("core_job", jobs["failed"]["id"], feedback={"error": "x"}, output="its log")
    jobs["queued"] = database.job(project, "package", "queued")
    worker.env["QFC_WORKER_IMAGE_BACKUP_DIR"] = str(tmp_path)
    return worker, jobs


def filled(command, jobs, image):
    """With an id for JOB, or for the documents' example of one: of a job that the command is for."""
    status = "pending" if "cancel" in command else "queued" if "requeue" in command else "failed"
    command = re.sub(r"\bJOB\b|\b[0-9a-f]{8}\b", str(jobs[status]["id"]), command)
    return command.replace("NAME", image).replace(" ID", " sha256:" + "0" * 64)


@pytest.mark.parametrize("command", OURS)
def test_command(scene, command):
    worker, jobs = scene
    words = shlex.split(filled(command, jobs, worker.env["QFIELDCLOUD_QGIS3_IMAGE_NAME"]))
    words[0] = worker.command()[0]
    code, shown = in_a_terminal(words, {**worker.env, "LOG_FORMAT": "text", "TERM": "xterm", "QFC_WORKER_STOP_GRACE_S": "1"})
    # `check` and `health` tell by their exit code how things are, and `image verify` whether there is an archive.
    allowed = (0, 1, 2) if re.search(r"worker (check|health)", command) else (0, 1) if " image " in command else (0,)
    assert code in allowed, shown
    assert shown.strip() and "Try: qfc-worker --help" not in shown, shown
    if code == 2:
        assert "failed" in shown, shown
