"""Whole jobs on podman's Docker socket: what differs there, and a selection of the tests that run on Docker elsewhere.

`QFC_TEST_ENGINE=podman tests/run PART` runs any part on podman.
"""

import os
import subprocess
import sys

import pytest
from bed.podman import Podman

# pylint: disable=unused-import
from test_deletion import test_deleted_while_the_container_runs  # noqa: F401
from test_deltas import test_mixed_results  # noqa: F401
from test_engine_faults import (  # noqa: F401
    test_engine_hangs_up_once,
    test_image_that_appears_later,
    test_network_that_appears_later,
)
from test_package import (  # noqa: F401
    run_one,
    test_crash,
    test_deadline,
    test_dirty_log,
    test_no_feedback,
    test_success,
    test_usage_error,
    test_what_the_container_is_given,
)
from test_recovery import test_a_job_that_ended_while_its_worker_was_dead, test_a_running_job_is_taken_over  # noqa: F401
from test_signals import (  # noqa: F401
    test_kill_from_outside,
    test_leaves_what_outlasts_the_grace,
    test_pruned_before_the_start,
    test_removed_from_outside,
)

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture(scope="module")
def engine():
    made = Podman()
    yield made
    made.close()


@pytest.fixture
def own_podman():
    """One that only this test has, to be killed."""
    made = Podman()
    yield made
    made.close()
