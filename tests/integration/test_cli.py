"""The command line: help, version, wrong calls and settings, and that the documents say what the program says."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def program(built):
    def call(*args, **env):
        known = {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS") or name == "PATH"}
        return subprocess.run([built, *args], env={**known, **env}, capture_output=True, text=True, timeout=60)

    return call


def test_help_names_every_setting_and_exit_code(program):
    result = program("--help")
    assert result.returncode == 0 and result.stderr == ""
    listed = [line.split("`")[1] for line in program("settings").stdout.splitlines()[2:]]
    assert len(listed) > 20
    for name in listed:
        assert f"\n  {name}\n" in result.stdout
    for code in "0123":
        assert f"\n  {code}  " in result.stdout


def test_version(program):
    result = program("--version")
    assert result.returncode == 0 and result.stdout.startswith("qfc-worker ")


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "no command given"),
        (["fly"], "no such command: fly"),
        (["run", "--fly"], "no such option of run: --fly"),
        (["run", "now"], "run takes no such argument: now"),
        (["run", "--drain", "--single-shot"], "--single-shot and --drain exclude each other"),
        (["run", "--concurrency"], "this option needs a value: --concurrency"),
        (["run", "--concurrency", "0"], "--concurrency: expected a whole number from 1 to 256: 0"),
        (["run", "--concurrency=many"], "--concurrency: expected a whole number from 1 to 256: many"),
    ],
)
def test_wrong_calls(program, args, message):
    result = program(*args)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == f"qfc-worker: {message}\nTry: qfc-worker --help\n"


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("QFIELDCLOUD_WORKER_TIMEOUT_S", "abc", "expected a whole number from 1 to 604800"),
        ("LOGLEVEL", "chatty", "expected one of debug, info, warning, error, warn, critical"),
        ("QFIELDCLOUD_WORKER_QFIELDCLOUD_URL", "app", "expected a URL that begins with http:// or https://"),
    ],
)
def test_wrong_settings(program, name, value, message):
    result = program("run", **{name: value})
    assert result.returncode == 2
    assert result.stderr == f"qfc-worker: {name}={value}: {message}\n"


def test_wrong_docker_host(program):
    result = program("run", "--drain", DOCKER_HOST="ssh://elsewhere")
    assert result.returncode == 2
    assert "DOCKER_HOST" in result.stderr and "ssh://elsewhere" in result.stderr


def test_wrong_docker_host_keeps_the_password(program):
    for host in ("tcp://u:geheim@engine:2375", "http://u:geheim@engine"):
        result = program("run", "--drain", DOCKER_HOST=host)
        assert result.returncode == 2
        assert "DOCKER_HOST: @engine" in result.stderr and "geheim" not in result.stderr


def test_wrong_database_url_keeps_the_password(program):
    result = program("run", "--drain", DATABASE_URL="postgresql://u:geheim@host:port/db")
    assert result.returncode == 2
    assert "DATABASE_URL" in result.stderr and "geheim" not in result.stderr


def test_documents_say_what_the_program_says(built):
    result = subprocess.run([ROOT / "tests" / "documents", built, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
