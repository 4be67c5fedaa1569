"""Counts tests for tests/run: hooks that conftest.py takes over.

A test has passed when each of its phases has; a skipped one has failed, since nothing was tested. The file named by
QFC_TEST_COUNTS gets one line per test file: its path, how many passed, how many failed; none of both where all its
tests were left out.
"""

import os

import pytest

_outcomes = {}
_left_out = set()


def pytest_deselected(items):
    _left_out.update(item.nodeid.partition("::")[0] for item in items)


def pytest_collectreport(report):
    if report.failed and report.nodeid:
        _outcomes[f"{report.nodeid}::"] = False


def pytest_runtest_logreport(report):
    _outcomes[report.nodeid] = _outcomes.get(report.nodeid, True) and report.passed


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {report.longrepr}"


def pytest_sessionfinish(session, exitstatus):
    path = os.environ.get("QFC_TEST_COUNTS")
    if not path:
        return
    counts = {name: [0, 0] for name in _left_out}
    for test, passed in _outcomes.items():
        count = counts.setdefault(test.partition("::")[0], [0, 0])
        count[0 if passed else 1] += 1
    with open(path, "w", encoding="utf-8") as file:
        for name, (passed, failed) in sorted(counts.items()):
            file.write(f"{name}\t{passed}\t{failed}\n")
