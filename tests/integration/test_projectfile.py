"""process_projectfile jobs through the whole worker: what its job, its project and the audit log are afterwards, in old and
new releases. The container's details are given by the test (scenario `details`)."""

import datetime
import json
import os
import re
from zoneinfo import ZoneInfo

import pytest
from bed.rows import changes
from projectfile_scene import BY_RELEASE, Process, details

DATA = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data")


def sample(release):
    with open(os.path.join(DATA, f"projectfile-{release}.json"), encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture
def process(database, worker, tmp_path):
    return Process(database, worker, tmp_path)


def python_text(value):
    return json.dumps(value, sort_keys=True)


def pick(row, like):
    """The columns of a row that a sample has, as JSON has them."""
    return {name: value if isinstance(value, (dict, list, bool, int, type(None))) else str(value)
            for name, value in row.items() if name in like}  # fmt: skip


def check_rows(rows, samples, *left_out):
    """Our rows say what those of the sample say, but for ids of their own."""
    for row, like in zip(rows, samples, strict=True):
        wanted = {name: value for name, value in like.items() if name not in left_out}
        assert pick(row, wanted) == wanted


# What the old loop left


@BY_RELEASE["newest"]
def test_rows_are_those_of_the_sample(process, database):
    like = sample("v26.25")
    (wanted,) = like["rows"]["project_project"]
    person = database.user("person")
    project = process.project(
        like["feedback"], whole=True, owner=person, id=wanted["id"], name="p0", qgis_version="3.30.0")
    before = database.dump()
    row = process.run(project)
    assert row["feedback"] == {**like["feedback"], "container_exit_code": 0}
    check_rows([process.row(project)], [wanted], "owner_id", "the_qgis_file_id")
    check_rows([process.qgis_project(project)], like["rows"]["project_qgisproject"], "file_version_id")
    check_rows(process.layers(project), like["rows"]["project_qgislayer"], "id")
    check_rows(process.audit(project), like["rows"]["auditlog_logentry"])
    changed = changes(before, database.dump())
    assert set(changed["project_project", wanted["id"]]) == {"project_details"}
    assert {table for table, _ in changed} == {
        "core_job", "core_processprojectfilejob", "project_project", "project_qgisproject", "project_qgislayer",
        "auditlog_logentry"}


@BY_RELEASE["oldest"]
def test_rows_are_those_of_the_old_sample(process, database):
    like = sample("v25.30")
    (wanted,) = like["rows"]["auditlog_logentry"]
    owner = database.user("person")
    project = process.project(
        like["feedback"], whole=True, owner=owner, id=wanted["object_pk"], name="p0")
    row = process.run(project)
    del wanted["changes"]["thumbnail"]  # none was left
    assert row["feedback"] == {**like["feedback"], "container_exit_code": 0}
    expected = like["feedback"]["outputs"]["project_details"]["project_details"]
    assert process.row(project)["project_details"] == expected
    check_rows(process.audit(project), [wanted])

    database.update("core_project", project["id"], the_qgis_file_name="workflow_error.qgs")
    process.run(project, "failed")
    assert process.row(project)["project_details"] is None
    check_rows(process.audit(project)[1:], like["rows"]["auditlog_logentry_of_failure"])


# The project


@BY_RELEASE["all"]
def test_a_second_run_changes_nothing(process, database):
    project = process.project(details("a", "b", odd=[1e22, 1e-7, 0.1, -0.0, 10**30, "\u00e9\u0001"], more=1.5))
    process.run(project)
    of_jobs = ("core_job", "core_processprojectfilejob")
    tables = [table for table in database.dump() if table not in of_jobs]
    version = database.value(f"SELECT xmin::text FROM {database.project_table}")
    before = database.dump(*tables)
    process.run(project)
    changed = changes(before, database.dump(*tables))
    if database.has("project_qgisproject"):
        assert set(changed.pop(("project_qgisproject", str(project["id"])))) == {"updated_at"}
    assert changed == {}
    assert database.value(f"SELECT xmin::text FROM {database.project_table}") == version


@BY_RELEASE["all"]
def test_audit_says_what_was_and_what_is(process, database):
    first = details("a", z={"b": 0.1, "a": [1e100, None, "\u20ac\U0001f600\n"]}, **{"\u00e9": 1, "e\u0301": 2})
    second = details("b")
    project = process.project(first)
    if database.has(database.project_table, "qgis_version"):
        database.update(database.project_table, project["id"], qgis_version="3")
    process.run(project)
    process.give(project, second)
    process.run(project)
    stored = json.loads(json.dumps(first).replace("1e+100", "1" + "0" * 100))
    assert process.changes(project) == [
        {"project_details": ["null", python_text(first)]},
        {"project_details": [python_text(stored), python_text(second)]},
    ]
    for row in process.audit(project):
        assert row["action"] == 1 and row["object_id"] is None and row["changes_text"] == ""
        assert row["actor_id"] is None and row["cid"] is None and row["additional_data"] is None
        assert row["content_type"] == database.project_table.replace("_", ".")
        assert str(project["id"]) in row["object_repr"]


NUMBERS = '{"tenth": 0.10, "long": 123456789012345678901234567890, "e": 1e2, "nan": NaN, "all": [-Infinity, Infinity]}'


@BY_RELEASE["oldest"]
def test_odd_numbers(process, database):
    project = process.project(NUMBERS)
    process.run(project)
    text = database.value("SELECT project_details::text FROM core_project WHERE id = %s", project["id"])
    assert '"tenth": 0.10' in text and '"long": 123456789012345678901234567890' in text
    cleaned = {"tenth": 0.1, "long": 123456789012345678901234567890, "e": 100.0, "nan": None, "all": [None, None]}
    assert process.changes(project) == [{"project_details": ["null", python_text(cleaned)]}]
    process.run(project)
    assert len(process.audit(project)) == 1


@BY_RELEASE["oldest"]
def test_details_may_be_any_value_in_old_releases(process, database):
    values = ['"a text"', "[1]", "7", "null"]
    for given in values:
        project = process.project(project_details={"a": 1})
        process.finished(project, given)
        assert process.row(project)["project_details"] == json.loads(given)
        is_null = database.value("SELECT project_details IS NULL FROM core_project WHERE id = %s", project["id"])
        assert is_null == (given == "null")
        assert process.changes(project) == [{"project_details": ['{"a": 1}', given]}]


@BY_RELEASE["all"]
def test_feedback_without_details(process):
    lacking = [{}, {"outputs": [1]}, {"outputs": {}}, {"outputs": {"project_details": {}}}, {"outputs": {"project_details": 7}}]
    projects = [process.project(feedback, whole=True, project_details={"b": 1, "a": 0.1}) for feedback in lacking]
    jobs = [process.job(project) for project in projects]
    process.drain()
    for job, project in zip(jobs, projects):
        row = process.ended(job, "failed")
        assert row["feedback"]["error"] == "the feedback lacks outputs.project_details.project_details"
        assert row["feedback"]["error_origin"] == "worker_wrapper" and row["feedback"]["container_exit_code"] == 0
        assert process.row(project)["project_details"] is None
        assert process.changes(project) == [{"project_details": ['{"a": 0.1, "b": 1}', "null"]}]


@BY_RELEASE["all"]
def test_project_without_qgis_file(process, database):
    project = database.project(qgis_file=None)
    row = process.run(project, "failed")
    assert row["feedback"]["error"] == "the project has no QGIS file"
    assert row["feedback"]["error_origin"] == "worker_wrapper" and "container_exit_code" not in row["feedback"]
    assert row["container_id"] == ""


VERSIONS = [
    # before, given, after
    (None, "3.44.1", "3.44.1"),
    (None, "x" * 100, "x" * 100),
    ("", "3.44.1", ""),
    ("3.40", "3.44.1", "3.40"),
    ("3.40", "x" * 101, "3.40"),
    (None, "", None),
    (None, None, None),
    (None, ..., None),
]


@BY_RELEASE["version"]
def test_qgis_version(process, database):
    """It is filled where it is not known yet."""
    for before, given, after in VERSIONS:
        project = process.project(qgis_version=before, project_details=details(qgis_version=given))
        process.finished(project, details(qgis_version=given))
        assert process.row(project)["qgis_version"] == after
        expected = [] if before == after else [{"qgis_version": ["None", after]}]
        assert process.changes(project) == expected
        if database.has("project_qgisproject"):
            cut = given[:100] if isinstance(given, str) else ""
            assert process.qgis_project(project)["qgis_version"] == cut


@BY_RELEASE["version"]
def test_qgis_version_that_is_too_long(process):
    project = process.project()
    reason = "qgis_version in the project's details is longer than 100 characters"
    process.refused(project, details(qgis_version="\u20ac" * 101), reason)
    assert process.row(project)["qgis_version"] is None


# The failure


@BY_RELEASE["all"]
def test_failure(process, database):
    """The details, the QGIS project and its layers go; those of others stay."""
    project, other = process.project(details("a", "b")), process.project(details("a"))
    for one in (project, other):
        process.run(one)
    others = process.layers(other) if database.has("project_qgislayer") else None
    last = process.row(project)["project_details"]
    database.execute("UPDATE filestorage_file SET name = 'workflow_error.qgs' WHERE project_id = %s AND name LIKE %s",
                     project["id"], "%.qgs")
    if database.has(database.project_table, "the_qgis_file_name"):
        database.update(database.project_table, project["id"], the_qgis_file_name="workflow_error.qgs")
    for _ in range(2):  # the second time there is nothing left to lose
        row = process.run(project, "failed")
        assert row["feedback"]["error_type"] == "UNKNOWN"
        assert process.row(project)["project_details"] is None
        assert process.changes(project)[1:] == [{"project_details": [python_text(last), "null"]}]
    assert process.row(other)["project_details"] is not None
    if others:
        assert process.qgis_project(project) is None and process.layers(project) == []
        assert process.layers(other) == others


@BY_RELEASE["all"]
def test_failure_without_anything_known(process, database):
    """Neither feedback nor reviews: the log shows the details as the database does."""
    project = process.project(project_details={"b": 1.50, "a": 1})
    _, row = process.finish(project, failed=1, blind=1)
    assert row["status"] == "failed"
    assert process.row(project)["project_details"] is None
    assert process.changes(project) == [{"project_details": ['{"a": 1, "b": 1.5}', "null"]}]
    told, row = process.finish(project, details("a"), blind=1)
    assert (told["error"], row["status"]) == ("the project could not be read again", "failed")


# What changes meanwhile


@BY_RELEASE["all"]
@pytest.mark.parametrize("failed", [False, True])
def test_details_that_change_between_review_and_outcome(process, database, failed):
    """The log tells what was really replaced."""
    project = process.project(project_details={"old": 1})
    table = database.project_table
    between = f"UPDATE {table} SET project_details = '{{\"newer\": 0.10}}' WHERE id = '{project['id']}'"
    told, row = process.finish(project, details("a"), between=between, **({"failed": 1} if failed else {}))
    assert (told["error"], told["changed"], row["status"]) == (None, 1, "failed" if failed else "finished")
    new = "null" if failed else python_text(details("a"))
    assert process.changes(project)[0]["project_details"] == ['{"newer": 0.1}', new]


@BY_RELEASE["oldest"]
def test_old_details_that_are_nested_too_deep_to_print(process, database):
    deep = "[" * 1500 + "]" * 1500
    for failed in ({}, {"failed": 1}):
        project = process.project()
        database.execute("UPDATE core_project SET project_details = %s WHERE id = %s", deep, project["id"])
        process.finish(project, details("a"), **failed)
        new = "null" if failed else python_text(details("a"))
        assert process.changes(project) == [{"project_details": [deep, new]}]


@BY_RELEASE["oldest"]
def test_json_null_counts_as_nothing(process, database):
    project = process.project(project_details="null")
    process.finish(project, failed=1)
    process.finished(project, "null")
    assert process.changes(project) == [] and process.row(project)["project_details"] is None


# The thumbnail, which the worker stores up to v26.7


def check_key(told, project, zone):
    """A new key with the time there; `between` two looks at a clock."""
    prefix = f"projects/{project['id']}/meta/thumbnail_v"
    key = told["review"]["thumbnail_object"]
    assert key.startswith(prefix), key
    assert re.fullmatch(r"\d{14}_[0-9a-f]{8}\.png", key[len(prefix):])
    return datetime.datetime.strptime(key[len(prefix):][:14], "%Y%m%d%H%M%S").replace(tzinfo=ZoneInfo(zone))


@BY_RELEASE["oldest"]
@pytest.mark.parametrize("zone, counts", [("Asia/Kolkata", "Asia/Kolkata"), ("europe/zurich", "Europe/Zurich"),
                                          ("No/Such_Zone", "UTC"), ("'", "UTC"), ("", "UTC"), (None, "UTC")])
def test_key_of_a_thumbnail(process, zone, counts):
    """Its time is QFieldCloud's."""
    project = process.project()
    before = database_time(process)
    told = process.finished(project, details("a"), **({} if zone is None else {"zone": zone}))
    assert before <= check_key(told, project, counts) <= database_time(process)
    assert told["review"]["thumbnail_storage"] == "default"


def database_time(process):
    return process.database.value("SELECT date_trunc('second', clock_timestamp())")


@BY_RELEASE["oldest"]
@pytest.mark.parametrize("before", [None, "", "projects/x/meta/thumbnail_old.png", "the/new.png"])
def test_thumbnail(process, before):
    """One audit row for all that has changed; the object before it is to be deleted."""
    project = process.project(thumbnail=before, file_storage="other")
    told = process.finished(project, details("a"), thumbnail="the/new.png")
    assert process.row(project)["thumbnail"] == "the/new.png"
    expected = ["null", python_text(details("a"))]
    assert process.changes(project) == [
        {"project_details": expected, "thumbnail": [before or "", "dummy_thumbnail_name.png"]}]
    replaced = before not in (None, "", "the/new.png")
    assert told["objects"] == ([{"storage": "other", "object": before}] if replaced else [])


@BY_RELEASE["oldest"]
def test_no_thumbnail(process):
    """QGIS makes none for an empty extent: the one before stays."""
    project = process.project(thumbnail="the/old.png")
    told = process.finished(project, details("a"))
    assert process.row(project)["thumbnail"] == "the/old.png" and told["objects"] == []
    assert list(process.changes(project)[0]) == ["project_details"]


@BY_RELEASE["oldest"]
@pytest.mark.parametrize("before", ["", "projects/x/thumbnail.svg"])
def test_thumbnail_in_a_legacy_storage(process, before):
    project = process.project(legacy_thumbnail_uri=before, thumbnail="not/looked/at", file_storage="old")
    key = f"projects/{project['id']}/meta/thumbnail.png"
    told = process.finished(project, details("a"), thumbnail=key, legacy="old")
    assert told["review"]["thumbnail_object"] == key and told["review"]["in_legacy_storage"] == "t"
    row = process.row(project)
    assert (row["legacy_thumbnail_uri"], row["thumbnail"], told["objects"]) == (before or key, "not/looked/at", [])
    (changes_,) = process.changes(project)
    assert changes_.pop("project_details")
    assert changes_ == ({} if before else {"legacy_thumbnail_uri": ["", key]})


@BY_RELEASE["all"]
def test_thumbnails_of_later_releases_are_not_ours(process, database):
    told = process.finished(process.project(), details("a"), zone="Asia/Kolkata", legacy="default")
    of_worker = database.release == "v25.30"
    assert (told["review"]["thumbnail_object"] is not None) == of_worker
    assert told["review"]["in_legacy_storage"] == ("t" if database.release in ("v25.30", "v26.10") else "f")


@pytest.mark.parametrize("database", ["v26.20", "v26.21"], indirect=True)
@pytest.mark.parametrize("given", ["null", "[1]", '"x"', "7"])
def test_details_that_are_no_object(process, database, given):
    """Where the QGIS version is looked for in them, which is no use then, the job fails, and the old details go."""
    project = process.project(given, project_details={"old": 1})
    row = process.run(project, "failed")
    assert row["feedback"]["error"] == "the project's details are not an object"
    assert process.row(project)["project_details"] is None


@BY_RELEASE["newest"]
def test_details_too_large_for_the_audit_log(process):
    """They are written all the same; the log then has their beginning, as the database prints them."""
    project = process.project(json.dumps(details("a", project_name="ä" * 24_000_000), ensure_ascii=False))
    process.run(project)
    assert process.row(project)["project_details"]["project_name"] == "ä" * 24_000_000
    (changes,) = process.changes(project)
    assert len(changes["project_details"][1]) == 1_000_000


@BY_RELEASE["newest"]
def test_a_content_type_that_django_has_not_made_yet(process, database):
    """The audit log needs it; Django makes it when it first wants it, and so does this."""
    database.execute("DELETE FROM django_content_type")
    project = process.project(details("a"))
    process.run(project)
    assert [row["content_type"] for row in process.audit(project)] == ["project.project"]
