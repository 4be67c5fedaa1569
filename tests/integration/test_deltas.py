"""Jobs of the type delta_apply, end to end: what the container is given, and what becomes of the deltas."""

import base64
import json
import re
import uuid
from pathlib import Path

import pytest
from bed.rows import changes

DATA = Path(__file__).resolve().parent.parent / "data" / "delta_apply"
RELEASES = ["v25.27", "v25.30", "v26.10", "v26.25"]
START = r"^POST /containers/\w+/start"
NEVER = {"DEBUG": "1", "DEBUG_QGIS_WORKER_HOST_PATH": "no/such:volume"}  # which no engine mounts

every_release = pytest.mark.parametrize("database", RELEASES, indirect=True)


class Scene:
    """A project with deltas, and a job for them that plays a scenario."""

    def __init__(self, database, plays, count=0, files=(), **job):
        self.database = database
        self.project = database.project(qgis_file=plays, files=files)
        self.deltas = [database.delta(self.project) for _ in range(count)]
        self.job = database.apply_job(self.project, self.deltas, **job)

    def rows(self):
        """The job's deltas, in its order: (row of core_delta, row of core_applyjobdelta)."""
        ours = self.database.execute(
            "SELECT * FROM core_applyjobdelta WHERE apply_job_id = %s ORDER BY id", self.job["id"]
        )
        return [(self.database.get("core_delta", row["delta_id"]), row) for row in ours]

    def statuses(self):
        """Of the deltas; both tables must tell the same."""
        rows = self.rows()
        for delta, ours in rows:
            told = (ours["status"], ours["feedback"], ours["modified_pk"])
            assert told == (delta["last_status"], delta["last_feedback"], delta["last_modified_pk"])
        return [delta["last_status"] for delta, _ in rows]

    def row(self):
        return self.database.get("core_job", self.job["id"])

    def check_attempt(self):
        """Each delta says when it was tried, and for whom; what nobody may touch is as it was."""
        job, project = self.row(), self.database.get(self.database.project_table, self.project["id"])
        assert job["started_at"] is not None
        assert project["updated_at"] == self.project["updated_at"]
        for delta, _ in self.rows():
            assert delta["last_apply_attempt_at"] == job["started_at"]
            assert delta["last_apply_attempt_by_id"] == job["created_by_id"]
        before = {delta["id"]: delta for delta in self.deltas}
        for delta, _ in self.rows():
            for name in ("content", "updated_at", "created_at", "client_id", "project_id", "created_by_id"):
                assert delta[name] == before[delta["id"]][name], name

    def check_all_in_error(self, output):
        assert self.row()["status"] == "failed", output
        assert set(self.statuses()) == {"error"}
        assert all(delta["last_feedback"] is None and delta["last_modified_pk"] is None for delta, _ in self.rows())
        self.check_attempt()
        assert self.updated() == self.project["data_last_updated_at"]

    def updated(self):
        return self.database.get(self.database.project_table, self.project["id"])["data_last_updated_at"]


def told(delta, status="status_applied", modified_pk=1, **more):
    """What a container says of one delta."""
    return {"delta_id": str(delta["id"]), "status": status, "modified_pk": modified_pk, **more}


def feedback_of(results):
    return {"feedback_version": "2.0", "steps": [], "outputs": {"apply_deltas": {"delta_feedback": results}}}


@pytest.fixture
def run_given(database, worker):
    """Runs a job whose container leaves the feedback that make(deltas) returns; returns scene and output."""

    def run(make, count=3):
        scene = Scene(database, "given_feedback.qgs", count)
        content = json.dumps(make(scene.deltas)).encode()
        database.file(scene.project, "feedback.json", content)
        output = worker.run("run", "--drain")
        assert output.returncode == 0, output
        return scene, output

    return run


# Results


@every_release
def test_mixed_results(database, worker):
    """Each result in its own status, and exactly the columns that such a job writes have changed."""
    statuses = "status_applied,status_conflict,status_apply_failed,status_unknown"
    scene = Scene(database, f"deltas@{statuses}.qgs", 4)
    bystander = Scene(database, "offline.qgs", 2, status="finished")
    before = database.dump()
    output = worker.run("run", "--drain")
    assert scene.row()["status"] == "finished", output
    assert scene.statuses() == ["applied", "conflict", "not_applied", "error"]
    results = scene.row()["feedback"]["outputs"]["apply_deltas"]["delta_feedback"]
    assert [delta["last_feedback"] for delta, _ in scene.rows()] == results
    assert [delta["last_modified_pk"] for delta, _ in scene.rows()] == ["1", None, None, None]
    scene.check_attempt()
    assert set(bystander.statuses()) == {"pending"}

    changed = changes(before, database.dump())
    assert {table for table, _ in changed} == {
        "core_job", "core_delta", "core_applyjobdelta", database.project_table
    }
    assert {key for table, key in changed if table == "core_delta"} == {str(delta["id"]) for delta in scene.deltas}
    assert set(changed["core_delta", str(scene.deltas[0]["id"])]) == {
        "last_status", "last_feedback", "last_modified_pk", "last_apply_attempt_at", "last_apply_attempt_by_id"
    }
    assert set(changed["core_applyjobdelta", str(scene.rows()[0][1]["id"])]) == {"status", "feedback", "modified_pk"}
    assert set(changed[database.project_table, str(scene.project["id"])]) == {"data_last_updated_at"}
    assert scene.updated() >= scene.row()["docker_started_at"]


@pytest.mark.parametrize("statuses, modified", [
    ("status_applied", True), ("status_conflict,status_apply_failed", False), ("status_conflict,odd", True),
])
def test_when_the_project_counts_as_changed(database, worker, statuses, modified):
    scene = Scene(database, f"deltas@{statuses}.qgs", 2)
    output = worker.run("run", "--drain")
    assert scene.row()["status"] == "finished", output
    assert (scene.updated() != scene.project["data_last_updated_at"]) == modified


def plant(database, sample):
    """The rows of a sample, as they were before its job ran."""
    job, links, deltas = sample["core_job"], sample["core_applyjobdelta"], sample["core_delta"]
    project = database.project(qgis_file="given_feedback.qgs", files=(), id=job["project_id"])
    assert project["owner_id"] == job["created_by_id"], "the sample's person"
    for delta in deltas:
        attempt = {name: None for name in delta if name.startswith("last_")}
        database.insert("core_delta", **{**delta, **attempt, "last_status": "pending"})
    made = database.job(project, "delta_apply", id=job["id"], child={"overwrite_conflicts": True})
    for link in links:
        database.insert("core_applyjobdelta", **{**link, "status": "pending", "feedback": None, "modified_pk": None})
    return project, made


@pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
def test_rows_are_those_of_a_real_job(database, worker):
    """QFieldCloud's own worker and a real container left these rows; ours leaves the same."""
    sample = json.loads((DATA / f"{database.release}.json").read_text())
    project, job = plant(database, sample)
    feedback = {**sample["core_job"]["feedback"]}
    del feedback["container_exit_code"]
    database.file(project, "feedback.json", json.dumps(feedback).encode())
    output = worker.run("run", "--drain")
    row = database.get("core_job", job["id"])
    assert row["status"] == "finished", output
    assert row["feedback"] == sample["core_job"]["feedback"]
    started = database.value("SELECT to_jsonb(started_at) FROM core_job WHERE id = %s", job["id"])
    after = database.dump("core_delta", "core_applyjobdelta")
    for delta in sample["core_delta"]:
        assert after["core_delta"][delta["id"]] == {**delta, "last_apply_attempt_at": started}
    for link in sample["core_applyjobdelta"]:
        assert after["core_applyjobdelta"][str(link["id"])] == link
    assert output.messages("warning") == []


def test_a_delta_that_the_feedback_does_not_mention(database, worker):
    scene = Scene(database, "deltas@status_conflict,-,status_apply_failed.qgs", 3)
    output = worker.run("run", "--drain")
    assert scene.row()["status"] == "finished", output
    assert scene.statuses() == ["conflict", "error", "not_applied"]
    delta = scene.rows()[1][0]
    assert delta["last_feedback"] is None and delta["last_modified_pk"] is None
    scene.check_attempt()
    assert scene.updated() != scene.project["data_last_updated_at"], "nobody knows what became of it"
    assert output.messages("warning", scene.job) == [
        f"the feedback does not mention delta {delta['id']}: its status is error"
    ]


def test_deltas_that_are_not_of_the_job(database, run_given):
    """A container may name whatever it likes: of another project, of this one, of nobody, and what is no id."""
    elsewhere = Scene(database, "offline.qgs", 1, status="failed")
    beside = []

    def make(deltas):
        beside.append(database.delta(database.get(database.project_table, deltas[0]["project_id"])))
        names = [elsewhere.deltas[0]["id"], beside[0]["id"], uuid.uuid4(), "no id\n", 5, None, {"a": 1}]
        others = [{**told(deltas[0]), "delta_id": name if isinstance(name, (int, dict, type(None))) else str(name)}
                  for name in names]
        return feedback_of([told(delta, "status_conflict") for delta in deltas] + others)

    before = database.dump("core_delta", "core_applyjobdelta")
    scene, output = run_given(make)
    assert scene.row()["status"] == "finished", output
    assert scene.statuses() == ["conflict"] * 3
    assert scene.updated() == scene.project["data_last_updated_at"]
    after = database.dump("core_delta", "core_applyjobdelta")
    assert all(after[table][key] == row for table, rows in before.items() for key, row in rows.items())
    assert after["core_delta"][str(beside[0]["id"])]["last_status"] == "pending"
    remarks = output.messages("warning", scene.job)
    assert len(remarks) == 7 and all(remark.endswith("which is not of this job: left alone") for remark in remarks)
    assert str(elsewhere.deltas[0]["id"]) in remarks[0] and '"no id' in remarks[3] and "delta null" in remarks[5]


def test_many_strange_and_missing_deltas_are_told_in_few_lines(run_given):
    strangers = [{"id": uuid.uuid4()} for _ in range(1000)]
    scene, output = run_given(lambda deltas: feedback_of([told(delta) for delta in strangers]), 30)
    assert scene.row()["status"] == "finished", output
    assert scene.statuses() == ["error"] * 30
    remarks = output.messages("warning", scene.job)
    assert len(remarks) == 42
    assert remarks[20] == "the feedback names 980 more deltas that are not of this job"
    assert remarks[41] == "the feedback does not mention 10 more deltas"
    named = [re.findall("[0-9a-f-]{36}", remark)[0] for remark in remarks[:20]]
    assert named == [str(delta["id"]) for delta in strangers[:20]]


def test_of_a_delta_named_twice_the_last_counts(run_given):
    def make(deltas):
        return feedback_of([
            told(deltas[0], "status_applied", 5), told(deltas[1], "status_conflict", None),
            told(deltas[0], "status_conflict", None), told(deltas[1], "status_apply_failed", "x", note="last"),
        ])

    scene, output = run_given(make, 2)
    assert scene.row()["status"] == "finished", output
    assert scene.statuses() == ["conflict", "not_applied"]
    assert scene.rows()[0][0]["last_modified_pk"] is None
    assert scene.rows()[1][0]["last_feedback"]["note"] == "last"
    assert scene.updated() != scene.project["data_last_updated_at"], "once it was applied"
    assert output.messages("warning", scene.job) == []


def test_values_of_other_types(database, run_given):
    """Odd statuses are errors; keys are text, as the JSON has them."""
    keys = [1, "1", 12345678901234567890, "Grüße \"\\\n", True, [1], {"a": 1.50}, None, 1.50]
    statuses = ["status_applied", 7, None, ["status_applied"], {}, "", "STATUS_APPLIED", "status_applied ", True]

    def make(deltas):
        return feedback_of([told(*values) for values in zip(deltas, statuses, keys)])

    scene, output = run_given(make, len(keys))
    assert scene.row()["status"] == "finished", output
    assert scene.statuses() == ["applied"] + ["error"] * 8
    assert [delta["last_modified_pk"] for delta, _ in scene.rows()] == [
        "1", "1", "12345678901234567890", "Grüße \"\\\n", "true", "[1]", '{"a": 1.5}', None, "1.5"
    ]
    assert [delta["last_feedback"]["status"] for delta, _ in scene.rows()] == statuses


def test_an_id_may_be_written_otherwise(run_given):
    def make(deltas):
        texts = [str(deltas[0]["id"]).upper(), deltas[1]["id"].hex, "{%s}" % deltas[2]["id"]]
        return feedback_of([{**told(deltas[0]), "delta_id": text} for text in texts])

    scene, output = run_given(make)
    assert scene.statuses() == ["applied"] * 3, output


LIST = "the feedback's outputs.apply_deltas.delta_feedback"


def spoilt(change):
    """Good feedback of all deltas but for what `change` does to the list of results."""
    def make(deltas):
        results = [told(delta) for delta in deltas]
        change(results)
        return feedback_of(results)

    return make


LACKING = [
    (lambda deltas: {"outputs": {}}, "the feedback lacks outputs.apply_deltas.delta_feedback"),
    (lambda deltas: {"outputs": []}, "the feedback lacks outputs.apply_deltas.delta_feedback"),
    (lambda deltas: {}, "the feedback lacks outputs.apply_deltas.delta_feedback"),
    (lambda deltas: feedback_of(None), f"{LIST} is no array but null"),
    (lambda deltas: feedback_of({}), f"{LIST} is no array but object"),
    (spoilt(lambda results: results.insert(1, 5)), f"{LIST}[1] is no object but number"),
    (spoilt(lambda results: results.append(["delta_id", "status", "modified_pk"])), f"{LIST}[3] is no object but array"),
    (spoilt(lambda results: results[0].pop("delta_id")), f"{LIST}[0] lacks delta_id"),
    (spoilt(lambda results: results[2].pop("status")), f"{LIST}[2] lacks status"),
    (spoilt(lambda results: results[1].pop("modified_pk")), f"{LIST}[1] lacks modified_pk"),
]


def test_feedback_that_lacks_something(database, worker):
    """The job fails with a reason that names it, and keeps its output and feedback; no result counts."""
    scenes = [Scene(database, "given_feedback.qgs", 3) for _ in LACKING]
    for scene, (make, _) in zip(scenes, LACKING):
        database.file(scene.project, "feedback.json", json.dumps(make(scene.deltas)).encode())
    output = worker.run("run", "--drain")
    for scene, (make, reason) in zip(scenes, LACKING):
        scene.check_all_in_error(output)
        row = scene.row()
        assert row["feedback"]["error"].endswith(reason), row["feedback"]
        assert row["feedback"]["error_origin"] == "worker_wrapper"
        assert row["feedback"]["container_exit_code"] == 0
        assert row["feedback"].get("outputs") == make(scene.deltas).get("outputs")
        assert row["output"].startswith("::<<<::")


# What the container is given


def shown(row):
    """The arguments and the delta file that the scenario show_deltafile has printed."""
    arguments = re.findall("^ARGUMENT (.*)$", row["output"], re.M)
    encoded = re.search("^DELTAFILE\n(.*)^END$", row["output"], re.M | re.S)[1]
    return arguments[arguments.index("apply_deltas"):], json.loads(base64.b64decode(encoded))


def check_deltafile(found, scene, client_pks):
    assert found == {
        "deltas": [delta["content"] for delta in scene.deltas],
        "files": [],
        "id": str(uuid.UUID(found["id"])),
        "project": str(scene.project["id"]),
        "version": "1.0",
        "clientPks": client_pks,
    }
    assert uuid.UUID(found["id"]).version == 4


@every_release
def test_arguments_and_deltafile(database, worker):
    scenes = [Scene(database, "show_deltafile.qgs", 3, overwrite_conflicts=overwrite) for overwrite in (False, True)]
    output = worker.run("run", "--drain")
    for scene, flag in zip(scenes, ([], ["--overwrite-conflicts"])):
        arguments, deltafile = shown(scene.row())
        assert arguments == ["apply_deltas", str(scene.project["id"]), "show_deltafile.qgs", *flag], output
        check_deltafile(deltafile, scene, {})
        assert scene.statuses() == ["applied"] * 3


def test_deltafile_is_that_of_a_real_job(database, worker):
    sample = json.loads((DATA / "deltafile.json").read_text())
    project = database.project(qgis_file="show_deltafile.qgs", files=(), id=sample["project"])
    deltas = [
        database.insert("core_delta", project_id=project["id"], content=content, client_id=content["clientId"],
                        id=content["uuid"], last_status="pending", created_by_id=project["owner_id"])
        for content in sample["deltas"]
    ]
    job = database.apply_job(project, deltas)
    output = worker.run("run", "--drain")
    assert database.get("core_job", job["id"])["status"] == "finished", output
    found = shown(database.get("core_job", job["id"]))[1]
    assert {**found, "id": sample["id"]} == sample


def test_order_is_that_of_the_job(database, worker):
    scene = Scene(database, "show_deltafile.qgs")
    scene.deltas = sorted((database.delta(scene.project) for _ in range(9)), key=lambda delta: delta["id"].hex[::-1])
    scene.job = database.apply_job(scene.project, scene.deltas)
    worker.run("run", "--drain")
    check_deltafile(shown(scene.row())[1], scene, {})


ODD_KEYS = [
    ("points_1", "1"), ('a "layer"', "back\\slash"), ("two\nlines", "Grüße \U0001f600"), ("'; DROP TABLE x", "{project}"),
    (None, "7"), ("points_1", None), (None, None), (..., "8"), ("points_1", ...), (..., ...), ("", ""), ("a__b", "c__d"),
]


def name_of(client, layer, pk):
    return "__".join([str(client), *("None" if part in (None, ...) else part for part in (layer, pk))])


@every_release
def test_client_pks(database, worker):
    """Of all deltas whose client is one of this job's, whatever job and project they were in, the newest attempt's key."""
    scene, elsewhere = Scene(database, "show_deltafile.qgs"), database.project(qgis_file=None)
    mine, mine_too, stranger = (uuid.uuid4() for _ in range(3))
    scene.deltas = [database.delta(scene.project, client_id=client) for client in (mine, mine_too, mine)]
    scene.job = database.apply_job(scene.project, scene.deltas)
    known = []

    def earlier(project, client, layer, pk, modified_pk, at=None):
        delta = database.delta(project, client_id=client, status="applied", last_modified_pk=modified_pk,
                               last_apply_attempt_at=at)
        content = {**delta["content"], "localLayerId": layer, "localPk": pk}
        database.update("core_delta", delta["id"], content={k: v for k, v in content.items() if v is not ...})
        known.append((at or "", delta["id"], name_of(client, layer, pk), modified_pk))

    for number, (layer, pk) in enumerate(ODD_KEYS):
        earlier(elsewhere if number % 2 else scene.project, mine, layer, pk, f'"{number}"\\')
    for at in ("2026-01-02T10:00Z", "2026-01-03T10:00Z", None, "2025-01-02T10:00Z"):
        earlier(elsewhere, mine_too, "points_1", "1", f"of {at}", at)
    expected = {name: modified_pk for *_, name, modified_pk in sorted(known)}
    database.delta(scene.project, client_id=stranger, last_modified_pk="no", status="applied")
    database.delta(scene.project, client_id=mine, last_modified_pk=None, content={"localPk": "none"}, status="conflict")
    output = worker.run("run", "--drain")
    assert scene.row()["status"] == "finished", output
    assert expected[name_of(mine_too, "points_1", "1")] == "of 2026-01-03T10:00Z"
    check_deltafile(shown(scene.row())[1], scene, expected)


def test_the_content_names_the_client(database, worker):
    """Which clients are looked for is said by the contents; whose key it is, by the rows. What is no uuid is nobody."""
    column, named = uuid.uuid4(), uuid.uuid4()
    scene = Scene(database, "show_deltafile.qgs")
    odd = ["no uuid", None, 5, [str(column)], {}, "", "x" * 32, str(column)[:-1]]
    contents = [{"clientId": value} for value in odd] + [{"clientId": "{%s}" % str(named).upper()}]
    scene.deltas = [database.delta(scene.project, client_id=column, content=content) for content in contents]
    scene.deltas.append(database.insert("core_delta", project_id=scene.project["id"], client_id=column, content="[]",
                                        last_status="pending", created_by_id=scene.project["owner_id"]))
    scene.job = database.apply_job(scene.project, scene.deltas)
    database.delta(scene.project, client_id=column, last_modified_pk="not asked for", status="applied")
    database.delta(scene.project, client_id=named, last_modified_pk="7", status="applied")
    output = worker.run("run", "--drain")
    assert scene.row()["status"] == "finished", output
    check_deltafile(shown(scene.row())[1], scene, {name_of(named, "points_1", "1"): "7"})


def test_contents_pass_as_they_are_stored(database, worker):
    """Numbers too long for a double, and texts that JSON and SQL have to quote."""
    scene = Scene(database, "show_deltafile.qgs")
    odd = '{"long": 123456789012345678901234567890, "exact": 1.10, "text": "Grüße \\"\\\\\\n\\u0001 {project} $1 %s"}'
    delta = database.delta(scene.project)
    database.execute("UPDATE core_delta SET content = content || %s::jsonb", json.dumps({"new": {"attributes": {}}}))
    database.execute("UPDATE core_delta SET content = jsonb_set(content, '{new,attributes}', %s)", odd)
    scene.job = database.apply_job(scene.project, [delta])
    worker.run("run", "--drain")
    encoded = re.search("^DELTAFILE\n(.*)^END$", scene.row()["output"], re.M | re.S)[1]
    text = base64.b64decode(encoded).decode()
    assert '"long": 123456789012345678901234567890' in text and '"exact": 1.10' in text
    assert json.loads(text)["deltas"][0]["new"]["attributes"]["text"] == 'Grüße "\\\n\x01 {project} $1 %s'


def test_a_job_without_deltas(database, worker):
    scene = Scene(database, "show_deltafile.qgs")
    output = worker.run("run", "--drain")
    assert scene.row()["status"] == "finished", output
    check_deltafile(shown(scene.row())[1], scene, {})
    assert scene.updated() == scene.project["data_last_updated_at"]


def test_a_job_without_its_child_row_fails_with_a_reason(database, worker):
    job = database.insert("core_job", project_id=database.project(qgis_file="offline.qgs")["id"], type="delta_apply",
                          status="pending", container_id="", created_by_id=1, triggered_by_id=1)
    output = worker.run("run", "--drain")
    row = database.get("core_job", job["id"])
    assert row["status"] == "failed" and "core_applyjob" in row["feedback"]["error"], output


def test_project_without_qgis_file(database, worker):
    """The text of Python's None is passed, as QFieldCloud's own worker does; the stand-in plays success for it."""
    scene = Scene(database, None, 1)
    output = worker.run("run", "--drain")
    assert scene.statuses() == ["applied"], output


def test_ten_thousand_deltas(database, worker):
    scene = Scene(database, "show_deltafile.qgs")
    client = uuid.uuid4()
    database.execute(
        "INSERT INTO core_delta (id, deltafile_id, client_id, project_id, content, last_status, last_modified_pk,"
        " created_by_id, created_at, updated_at) SELECT id, id, %s, %s, jsonb_build_object('uuid', id, 'clientId', %s,"
        " 'method', 'patch', 'localPk', n::text, 'sourcePk', n::text, 'localLayerId', 'a', 'sourceLayerId', 'a'),"
        " 'pending', CASE WHEN n > 10000 THEN 'pk' || n END, %s, now(), now()"
        " FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, 20000) AS n) AS made",
        client, scene.project["id"], str(client), scene.project["owner_id"],
    )
    database.execute(
        "INSERT INTO core_applyjobdelta (apply_job_id, delta_id, status) SELECT %s, id, 'pending' FROM core_delta"
        " WHERE last_modified_pk IS NULL ORDER BY (content ->> 'localPk')::integer", scene.job["id"])
    output = worker.run("run", "--drain", timeout=300)
    assert scene.row()["status"] == "finished", output
    found = shown(scene.row())[1]
    assert [delta["localPk"] for delta in found["deltas"]] == [str(n) for n in range(1, 10001)]
    assert found["clientPks"] == {f"{client}__a__{n}": f"pk{n}" for n in range(10001, 20001)}
    counted = database.execute(
        "SELECT a.status, d.last_status, count(*) AS n, count(d.last_feedback) AS told, count(*) FILTER"
        " (WHERE d.last_modified_pk = d.content ->> 'localPk') AS pks FROM core_applyjobdelta a"
        " JOIN core_delta d ON d.id = a.delta_id GROUP BY 1, 2")
    assert counted == [{"status": "applied", "last_status": "applied", "n": 10000, "told": 10000, "pks": 10000}]


# Failures, and the way back


@every_release
def test_failure_before_the_container(database, worker):
    scene = Scene(database, "offline.qgs", 3)
    output = worker.run("run", "--drain", RETRY_MAX_ATTEMPTS="1", **NEVER)
    scene.check_all_in_error(output)


def tried_before(database, plays):
    """A job whose deltas have been tried before."""
    scene = Scene(database, plays, 3)
    for number, delta in enumerate(scene.deltas):
        values = {"last_status": "applied", "last_modified_pk": "5", "last_feedback": {"old": True}}
        scene.deltas[number] = database.update("core_delta", delta["id"], **values)
    return scene


@every_release
def test_failure_of_the_container(database, worker):
    """Also where the deltas' results are there: a later step may have failed to upload them."""
    plays = ["workflow_error.qgs", "workflow_error@5.qgs", "crash@139.qgs", "no_feedback.qgs", "usage_error.qgs"]
    scenes = [tried_before(database, name) for name in plays]
    output = worker.run("run", "--drain")
    for scene in scenes:
        scene.check_all_in_error(output)


@pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
def test_deadline(database, worker):
    scene = tried_before(database, "sleep@60.qgs")
    output = worker.run("run", "--drain", QFIELDCLOUD_WORKER_TIMEOUT_S="2")
    assert scene.row()["feedback"]["error_type"] == "TIMEOUT"
    scene.check_all_in_error(output)


def test_deltas_are_started_while_the_container_runs(database, worker, ground):
    scene = Scene(database, "gate.qgs", 2)
    process = worker.start("run", "--single-shot")
    row = worker.wait_for_status(scene.job, "started")
    assert scene.statuses() == ["started"] * 2
    worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container's start")
    ground.docker.put(row["container_id"], "/io", {"go": b""})
    assert process.wait().returncode == 0
    assert scene.statuses() == ["applied"] * 2


def test_a_delta_deleted_meanwhile(database, worker, ground):
    """Nobody misses it: the others get their results."""
    scene = Scene(database, "gate.qgs", 3)
    process = worker.start("run", "--single-shot")
    row = worker.wait_for_status(scene.job, "started")
    worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container's start")
    gone = scene.deltas.pop(1)
    database.execute("DELETE FROM core_applyjobdelta WHERE delta_id = %s", gone["id"])
    database.execute("DELETE FROM core_delta WHERE id = %s", gone["id"])
    ground.docker.put(row["container_id"], "/io", {"go": b""})
    output = process.wait()
    assert scene.row()["status"] == "finished", output
    assert scene.statuses() == ["applied"] * 2
    assert len(output.messages("warning", scene.job)) == 1


@every_release
def test_put_back_leaves_nothing_started(make_worker, database, ground, proxy):
    """The engine refuses to start the container: the job goes back, and its deltas with it."""
    worker = make_worker(database, ground)
    worker.env.update(DOCKER_HOST=proxy.host, QFIELDCLOUD_DEFAULT_NETWORK="none", QFC_WORKER_POLL_MS="100")
    proxy.answer(START, 500)
    scene = Scene(database, "offline.qgs", 3)
    other = Scene(database, "offline.qgs", 1, status="finished")
    process = worker.start("run", RETRY_BASE_DELAY_SECONDS="3600")
    row = worker.wait_for(
        lambda: (r := scene.row())["status"] == "pending" and r["feedback"] and r, "the job's return"
    )
    assert "qfc_worker" in row["feedback"]
    assert scene.statuses() == ["pending"] * 3 and other.statuses() == ["pending"]
    assert process.stop().returncode == 0
    database.update("core_job", scene.job["id"], feedback=None)
    output = worker.run("run", "--drain")
    assert scene.statuses() == ["applied"] * 3, output


def test_put_back_changes_only_what_was_begun(make_worker, database, ground, proxy):
    """What the web application has decided meanwhile stays."""
    worker = make_worker(database, ground)
    worker.env.update(DOCKER_HOST=proxy.host, QFIELDCLOUD_DEFAULT_NETWORK="none", QFC_WORKER_POLL_MS="100")
    hold = proxy.hold(START)
    proxy.answer(START, 500)
    scene = Scene(database, "offline.qgs", 3)
    process = worker.start("run", RETRY_BASE_DELAY_SECONDS="3600")
    hold.reached()
    assert scene.statuses() == ["started"] * 3
    database.update("core_delta", scene.deltas[1]["id"], last_status="ignored")
    hold.release()
    worker.wait_for(lambda: scene.row()["status"] == "pending", "the job's return")
    assert [delta["last_status"] for delta, _ in scene.rows()] == ["pending", "ignored", "pending"]
    assert [ours["status"] for _, ours in scene.rows()] == ["pending"] * 3
    process.stop()
