"""Runs the built program as a test needs it, and reads its log."""

import json
import os
import signal
import subprocess
import tempfile
import time

GENEROUS_S = 60
SANITIZER_EXIT_CODE = 99
SANITIZER_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error: ")
PASSED_ON = ("PATH", "LANG", "LC_ALL", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TERM")


class Output:
    """What a process printed: `stdout`, `stderr`, and the log's lines as dictionaries."""

    def __init__(self, returncode, stdout, stderr):
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr
        self.lines, self.other = [], []
        for line in stderr.splitlines():
            try:
                parsed = json.loads(line)
            except ValueError:
                parsed = None
            if isinstance(parsed, dict):
                self.lines.append(parsed)
            else:
                self.other.append(line)

    def messages(self, level=None, job=None):
        """The messages of the log, of one level or about one job where asked."""
        return [
            line.get("message", "")
            for line in self.lines
            if level in (None, line.get("level")) and (job is None or line.get("job") == str(job["id"]))
        ]

    def __repr__(self):
        return f"exit code {self.returncode}\n{self.stderr[-8000:]}{self.stdout[-2000:]}"


class Background:
    """A process that runs while the test goes on; its output goes to files."""

    def __init__(self, command, env, directory):
        self._files = [tempfile.TemporaryFile() for _ in range(2)]
        self.process = subprocess.Popen(
            command, env=env, cwd=directory, stdin=subprocess.DEVNULL, stdout=self._files[0], stderr=self._files[1]
        )

    @property
    def pid(self):
        return self.process.pid

    def _read(self, file):
        position, size = 0, os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), size, position).decode(errors="replace")

    def output(self):
        """What it has printed so far."""
        return Output(self.process.poll(), *(self._read(file) for file in self._files))

    def send(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=GENEROUS_S):
        """Its output, once it has ended by itself."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program did not end within {timeout} s:\n{self.output()}") from None
        return self.output()

    def stop(self, number=signal.SIGTERM, timeout=GENEROUS_S):
        """Sends a signal and waits for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(timeout)


class Worker:
    """The program with the environment of one database; `env` may be changed before a run."""

    def __init__(self, binary, database, engine, image, network, directory):
        self.binary, self.database, self.directory = binary, database, directory
        self.env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self.env.update(database.settings)
        self.env.update(
            {
                "TMPDIR": directory,
                "HOME": directory,
                "DOCKER_HOST": engine.host,
                "ENVIRONMENT": network,  # one of this run only: it labels the containers
                "COMPOSE_PROJECT_NAME": "qfieldcloud",
                "SECRET_KEY": "change_me",
                "SALT_KEY": "0123456789abcdefghijklmnopqrstuvwxyz",
                "QFIELDCLOUD_QGIS_IMAGE_NAME": image,
                "QFIELDCLOUD_QGIS3_IMAGE_NAME": image,
                "QFIELDCLOUD_DEFAULT_NETWORK": network,
                "LOG_FORMAT": "json",
            }
        )
        self._started = []

    def command(self, *args):
        return [self.binary, *(str(arg) for arg in args)]

    def start(self, *args, **env):
        """Starts it in the background; further variables may be given, None takes one away."""
        merged = {name: value for name, value in {**self.env, **env}.items() if value is not None}
        process = Background(self.command(*args), merged, self.directory)
        self._started.append(process)
        return process

    def run(self, *args, timeout=120, **env):
        """Runs it to its end."""
        return self.start(*args, **env).wait(timeout)

    def wait_for(self, predicate, what="what was waited for", limit=GENEROUS_S):
        """Asks again and again until the predicate gives something true, and returns that. Fails when all processes
        have ended before, or the limit has passed."""
        deadline = time.monotonic() + limit
        while True:
            idle = all(process.process.poll() is not None for process in self._started)
            result = predicate()
            if result:
                return result
            if (idle and self._started) or time.monotonic() > deadline:
                why = "the program has ended" if idle else f"{limit} s have passed"
                logs = "\n".join(repr(process.output()) for process in self._started)
                raise AssertionError(f"{why} without {what}:\n{logs}")
            time.sleep(0.02)

    def wait_for_status(self, job, *statuses, limit=GENEROUS_S):
        """Waits until a job's row has one of these statuses; returns the row."""

        def there():
            row = self.database.get("core_job", job["id"])
            return row if row and row["status"] in statuses else None

        return self.wait_for(there, f"job {job['id']} being {' or '.join(statuses)}", limit)

    def close(self):
        """Kills what still runs; returns complaints: of sanitizers, and of processes that a test forgot."""
        complaints = []
        for process in self._started:
            if process.process.poll() is None:
                process.process.kill()
                process.process.wait()
                complaints.append(f"the test left the program running (process {process.pid})")
            output = process.output()
            if output.returncode == SANITIZER_EXIT_CODE or any(mark in output.stderr for mark in SANITIZER_MARKS):
                complaints.append(f"a sanitizer reported something:\n{output}")
        return complaints
