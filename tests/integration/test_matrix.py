"""What a job leaves behind in QFieldCloud's tables: each job type, each release's schema, each way to end.

OUTCOMES is the table. A cell names the job, what its project is like, and all that is different afterwards: the job's
own row first, then each further effect (matrix_effects.py says what those are, row by row and column by column).
Everything else in the whole database must be as it was, in the job's own project, which has all that other jobs would
change, and in another one, whose job runs elsewhere.

Containers have no network, or QFieldCloud refuses what they upload: so all changes are the worker's own. No object
store is configured: rows are what this is about.
"""

import pytest
from bed.schema import number
from matrix_compare import Expected, Text
from matrix_effects import (
    Run,
    all_deltas_in_error,
    data_updated_now,
    deltas_have_their_results,
    details_null,
    details_taken,
    failed_before_its_container,
    failed_by_its_hook,
    failed_by_its_step,
    finished,
    layers_brought_in_line,
    obsolete_packages_gone,
    packaged_at_its_start,
    qgis_project_and_layers_gone,
    qgis_project_written,
)
from matrix_feedback import NAMELESS_DETAILS
from matrix_scene import APPLIED, CONFLICTS, DELTAS, Place

RELEASES = ["v25.27", "v25.30", "v26.3", "v26.10", "v26.17", "v26.20", "v26.21", "v26.22", "v26.25"]

NO_VOLUME = "no/such:volume"  # which no engine mounts


class Cell:
    """A job, its effects, and what its project is like; in all releases, or only `since` or `until` one."""

    def __init__(self, type, *effects, deltas=(), broken=False, since=None, until=None, **project):
        self.type, self.effects, self.deltas, self.broken, self.project = type, effects, deltas, broken, project
        self.since, self.until = since or RELEASES[0], until or RELEASES[-1]

    def counts_in(self, release):
        return number(self.since) <= number(release) <= number(self.until)

    def place(self, database):
        """Writes the rows."""
        place = Place(database, **self.project)
        if self.broken:
            place.break_a_package()
        return place.queue(self.type, self.deltas)


STATUSES = "deltas@" + ",".join(said for _, said, _, _ in DELTAS)

STEP_FAILS = 'The step "{}" failed, as it was told to\\.'

OUTCOMES = {
    # The container does well, and what it says is taken over.
    "success": [
        Cell("package", finished, packaged_at_its_start, obsolete_packages_gone),
        Cell("delta_apply", finished, deltas_have_their_results, data_updated_now, plays=STATUSES, deltas=DELTAS),
        # Nothing was applied: the project's data are as old as they were.
        Cell("delta_apply", finished, deltas_have_their_results, plays="deltas@status_conflict", deltas=CONFLICTS),
        Cell("process_projectfile", finished, details_taken, qgis_project_written, layers_brought_in_line),
        Cell("process_projectfile", finished, details_taken, qgis_project_written, layers_brought_in_line, fresh=True),
        # The container has uploaded the project's first files itself: nothing is left to do.
        Cell("create_project", finished),
    ],
    # A step of the workflow fails: the exit code is 0, and the error is in the feedback.
    "workflow error": [
        Cell(
            "package",
            failed_by_its_step(3, STEP_FAILS.format("QGIS Layers Data"), "QfcWorkerException"),
            plays="workflow_error@3",
        ),
        Cell(
            "delta_apply",
            failed_by_its_step(3, STEP_FAILS.format("Apply Deltas"), "QfcWorkerException"),
            all_deltas_in_error,
            plays="workflow_error@3",
            deltas=DELTAS,
        ),
        Cell(
            "process_projectfile",
            failed_by_its_step(4, STEP_FAILS.format("Opening Check"), "QfcWorkerException"),
            details_null,
            qgis_project_and_layers_gone,
            plays="workflow_error@4",
        ),
        # There was nothing before: no audit row.
        Cell(
            "process_projectfile",
            failed_by_its_step(4, STEP_FAILS.format("Opening Check"), "QfcWorkerException"),
            plays="workflow_error@4",
            fresh=True,
        ),
        # QFieldCloud refuses the project's first file.
        Cell("create_project", failed_by_its_step(4, 'Requested ".*" and got "403 [^"]*"', "QfcRequestException")),
    ],
    # No container: the engine will not make it; or no image is known; or there is nothing to run.
    "failure before the container": [
        Cell("package", failed_before_its_container(NO_VOLUME)),
        Cell("delta_apply", failed_before_its_container(NO_VOLUME), all_deltas_in_error, deltas=DELTAS),
        Cell(
            "process_projectfile",
            failed_before_its_container(NO_VOLUME),
            details_null,
            qgis_project_and_layers_gone,
        ),
        Cell("create_project", failed_before_its_container(NO_VOLUME)),
        Cell("package", failed_before_its_container('QGIS version "5.0"'), qgis_version="5.0", since="v26.20"),
        Cell("process_projectfile", failed_before_its_container("QGIS file"), plays=None, fresh=True),
    ],
    # The container does well, but what is to be done then cannot be done. create_project is not among these: it has
    # nothing to be done.
    "success hook that cannot be done": [
        # A file of the project is in the way: a foreign key. No package is deleted, no time is set.
        Cell("package", failed_by_its_hook("foreign key"), broken=True),
        Cell(
            "delta_apply",
            failed_by_its_hook("apply_deltas|delta_feedback", outputs=False),
            all_deltas_in_error,
            plays="missing_output",
            deltas=APPLIED,
        ),
        Cell(
            "process_projectfile",
            failed_by_its_hook("project_details", outputs=False),
            details_null,
            qgis_project_and_layers_gone,
            plays="missing_output",
        ),
        # From v26.22 on a project needs a name; before, nobody asks for it.
        Cell(
            "process_projectfile",
            failed_by_its_hook("project_name"),
            details_null,
            qgis_project_and_layers_gone,
            plays="null_name",
            details=NAMELESS_DETAILS,
            since="v26.22",
        ),
        Cell(
            "process_projectfile",
            finished,
            details_taken,
            plays="null_name",
            details=NAMELESS_DETAILS,
            until="v26.21",
        ),
    ],
}


@pytest.fixture
def play(database, worker, api):
    """Runs the program once over a database, as an outcome needs it; it must end well."""

    def run(outcome):
        env = {"RETRY_MAX_ATTEMPTS": "1", "QFIELDCLOUD_DEFAULT_NETWORK": "none"}
        if outcome == "workflow error":
            env["QFIELDCLOUD_DEFAULT_NETWORK"] = worker.env["QFIELDCLOUD_DEFAULT_NETWORK"]
            api.answer(403, "^POST")
        if outcome == "failure before the container":
            env |= {"DEBUG": "1", "DEBUG_QGIS_WORKER_HOST_PATH": NO_VOLUME}
        output = worker.run("run", "--drain", "--concurrency", 4, **env)
        assert output.returncode == 0, output
        return output

    return run


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("database", RELEASES, indirect=True)
def test_what_a_job_leaves(database, outcome, play):
    Place(database).run_elsewhere()
    cells = [cell for cell in OUTCOMES[outcome] if cell.counts_in(database.release)]
    places = [cell.place(database) for cell in cells]
    columns = {name: set(table.columns) for name, table in database.schema.tables.items()}
    expected, began = Expected(database.dump(), columns), clock(database)
    output = play(outcome)
    after, ended = database.dump(), clock(database)
    for cell, place in zip(cells, places):
        for effect in cell.effects:
            effect(Run(database, expected, after, place, began, ended))
    differences = expected.differences(after)
    told = [f"{cell.type}: job {place.job['id']} of {place.project['id']}" for cell, place in zip(cells, places)]
    assert not differences, "\n".join([*differences, *told, str(output)])


def clock(database):
    return database.value("SELECT to_jsonb(clock_timestamp())")


# The comparison itself


BEFORE = {"t": {"1": {"id": 1, "a": "x", "b": None}, "2": {"id": 2, "a": "y", "b": None}}}
ROW = {"id": 3, "a": "new", "b": 1}


def differences(say, **after):
    """What is said to change, and what is found."""
    expected = Expected(BEFORE, {"t": {"id", "a", "b"}})
    say(expected)
    return expected.differences({"t": {**BEFORE["t"], **{key[1:]: row for key, row in after.items()}}})


def test_what_is_as_it_was_is_no_difference():
    assert differences(lambda expected: None) == []


def test_a_superfluous_change_is_found():
    assert differences(lambda expected: None, r1={"id": 1, "a": "z", "b": None}) == [
        "t 1: a is 'z', and must be 'x'"
    ]
    assert len(differences(lambda expected: None, r3=ROW)) == 1


def test_a_missing_change_is_found():
    assert len(differences(lambda expected: expected.change("t", 1, a="z"))) == 1
    assert len(differences(lambda expected: expected.add("t", **ROW))) == 1
    assert len(differences(lambda expected: expected.remove("t", 1))) == 1


def test_a_change_as_it_was_said_is_no_difference():
    assert differences(lambda expected: expected.change("t", 1, a=Text("z+")), r1={"id": 1, "a": "zz", "b": None}) == []
    assert differences(lambda expected: expected.add("t", **ROW), r3=ROW) == []


def test_a_row_too_many_is_found():
    assert len(differences(lambda expected: expected.add("t", **ROW), r3=ROW, r4={**ROW, "id": 4})) == 1
    wrong = differences(lambda expected: expected.add("t", **ROW), r3={**ROW, "a": "old"})
    assert wrong == ["t, a new row: a is 'old', and must be 'new'"]


def test_a_row_that_is_gone_is_found():
    assert Expected(BEFORE, {"t": set()}).differences({"t": {"1": BEFORE["t"]["1"]}}) == [
        "t 2: is gone, and must not be"
    ]
