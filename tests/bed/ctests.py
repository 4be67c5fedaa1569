"""Runs the C tests of one part: `ctests.py PART COUNTS NAME:BUILD ...`, every executable tests/PART-* of each build.

A test is a line of cmocka's TAP output. A skip counts as a failure, and so does an executable that crashes, hangs,
tells fewer results than it planned, or ends badly after good results (a sanitizer's report at its end). The file
COUNTS gets a line `part-build passed failed` for each build.
"""

import glob
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bed import cleanup  # noqa: E402
from bed.postgres import Server  # noqa: E402
from bed.with_postgres import environment  # noqa: E402

TIME_LIMIT_S = 300
RESULT = re.compile(r"^(ok|not ok) \d+\b(.*)$", re.MULTILINE)
PLAN = re.compile(r"^1\.\.(\d+)", re.MULTILINE)


def judge(returncode, stdout):
    """(passed, complaints) of one executable; `returncode` is None when it was killed for taking too long."""
    results = RESULT.findall(stdout)
    bad = [f"{word}{rest}" for word, rest in results if word == "not ok" or "# SKIP" in rest]
    planned = sum(int(number) for number in PLAN.findall(stdout))
    if returncode is None:
        bad.append(f"took more than {TIME_LIMIT_S} s")
    elif returncode < 0:
        bad.append(f"killed by signal {-returncode}")
    elif not results:
        bad.append(f"gave no result (exit code {returncode})")
    elif len(results) < planned:
        bad.append(f"told {len(results)} of {planned} results (exit code {returncode})")
    elif returncode and not bad:
        bad.append(f"all tests passed, but the exit code is {returncode}")
    passed = sum(1 for word, rest in results if word == "ok" and "# SKIP" not in rest)
    return passed, bad


def run(path, env):
    """Runs one executable; says what failed; returns (passed, failed)."""
    process = subprocess.Popen(
        [path], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        outputs, returncode = process.communicate(timeout=TIME_LIMIT_S), process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        outputs, returncode = process.communicate(), None
    except KeyboardInterrupt:
        process.kill()
        process.wait()
        raise
    stdout, stderr = (output.decode(errors="replace") for output in outputs)
    passed, bad = judge(returncode, stdout)
    name = os.path.relpath(path)
    print(f"{name}: {passed} passed, {len(bad)} failed", flush=True)
    if bad:
        print("\n".join(f"    {complaint}" for complaint in bad))
        print("".join(f"    | {line}\n" for line in (stdout + stderr).splitlines()[-200:]), flush=True)
    return passed, len(bad)


def run_with_server(path, env):
    """The same with a PostgreSQL that only this executable has, so that it may stop it."""
    server = Server()
    try:
        return run(path, environment(server, env))
    finally:
        server.close()


def executables(build, part):
    found = glob.glob(os.path.join(build, "tests", f"{part}-*"))
    return sorted(path for path in found if os.path.isfile(path) and os.access(path, os.X_OK))


def main():
    part, counts, *builds = sys.argv[1:]
    cleanup.on_signals()
    env = {**os.environ, "CMOCKA_MESSAGE_OUTPUT": "tap"}
    with open(counts, "w", encoding="utf-8") as file:
        for name, build in (pair.split(":", 1) for pair in builds):
            paths = executables(build, part)
            results = [(run_with_server if part == "live" else run)(path, env) for path in paths]
            passed, failed = (sum(column) for column in zip(*results)) if results else (0, 1)
            if not results:
                print(f"no executables {build}/tests/{part}-*")
            file.write(f"{part}-{name} {passed} {failed}\n")
            file.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
