"""Obsolete packages: whose are kept when a new one is there, what is left of the others, and what the audit log says.

What is expected is worked out here once more, in Python, from who may do what and from the rows as they were.
"""

import datetime
import json
import os
import random
import subprocess
import threading
import uuid

import pytest
from bed.rows import PACKAGE_FILE, changes, now
from bed.schema import number

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "data")
EVERY_KIND = pytest.mark.parametrize(
    "database", ["v25.27", "v25.30", "v26.10", "v26.21", "v26.22", "v26.25"], indirect=True
)
SAMPLED = pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
STATUSES = ["finished", "failed", "pending", "queued", "started", "stopped"]
ENDED = ["finished", "failed"]
NEWEST = STATUSES + ENDED * 3  # what a user's newest job may be: most of them have ended
EVERYONE = None
UTC = datetime.timezone.utc


# Rows


def ago(minutes):
    return now() - datetime.timedelta(minutes=minutes)


def package(database, project, user, status="finished", minutes=60, names=("data.gpkg", "project.qgz"), **values):
    """A package job of a user and the files of its package."""
    job = database.job(project, "package", status, user=user, created_at=ago(minutes), **values)
    for name in names:
        database.file(project, name, file_type=PACKAGE_FILE, package_job=job)
    return job


def people(database, count):
    return [database.user() for _ in range(count)]


def persons_project(database, is_public=False):
    """Of 20 users, those who collaborate and some who do not; the project and the ids of those who count."""
    owner, *others = people(database, 20)
    project = database.project(owner, qgis_file="gate.qgs", is_public=is_public)
    collaborators, incognito, team, strangers = others[:8], others[8:11], others[11:14], others[14:]
    for index, person in enumerate(collaborators):
        database.collaborator(project, person, ["reader", "admin"][index % 2])
    for person in incognito:
        database.collaborator(project, person, is_incognito=True)
    organization = database.organization(database.user())
    database.collaborator(project, database.team(organization, members=team))
    assert strangers
    counts = {person["id"] for person in [owner, *collaborators]}
    return project, EVERYONE if is_public else counts, [owner, *others]


def public_project(database):
    return persons_project(database, is_public=True)


def organizations_project(database):
    everyone = people(database, 18)
    owner, admins, members, collaborators = everyone[0], everyone[1:3], everyone[3:7], everyone[7:10]
    incognito, team, other_members, strangers = everyone[10:12], everyone[12:14], everyone[14:16], everyone[16:]
    organization = database.organization(owner, members=members, admins=admins)
    database.organization(strangers[0], members=other_members)
    project = database.project(organization, qgis_file="gate.qgs")
    for person in collaborators:
        database.collaborator(project, person)
    for person in [*incognito, members[0]]:
        database.collaborator(project, person, is_incognito=True)
    database.collaborator(project, database.team(organization, members=[*team, members[1]]))
    counts = {person["id"] for person in [owner, *admins, *members, *collaborators]}
    return project, counts, everyone


def fill(database, chance, project, users):
    """One to four packages of each user, their jobs in each status, and what must not be taken for one of them."""
    for user in users:
        minutes = chance.sample(range(-300, 3000), chance.randint(1, 4))
        for place, minute in enumerate(sorted(minutes)):
            status = chance.choice(ENDED if place else NEWEST)
            package(database, project, user, status, minute, names=chance.sample(["a.gpkg", "b.qgz", "c.zip"], 2))
        # A newer job of another type, and one of another project.
        database.job(project, "process_projectfile", "finished", user=user, created_at=ago(-500))
    other = database.project(users[0], qgis_file="offline.qgs")
    for user in users[1:]:
        database.collaborator(other, user)
    for user in users[:3]:
        package(database, other, user, minutes=50)
        package(database, other, user, minutes=40)
    active_elsewhere = database.job(other, "package", "started", created_at=ago(1))
    other_type = database.job(project, "process_projectfile", "started", created_at=ago(1))
    for job in (active_elsewhere, other_type):
        database.file(project, "data.gpkg", file_type=PACKAGE_FILE, package_job=job)
    database.file(project, "of no job.gpkg", file_type=PACKAGE_FILE)


# What is expected


def kept_jobs(database, project, counts, own):
    """The jobs whose packages stay."""
    rows = database.execute("SELECT id, project_id, triggered_by_id, created_at, status FROM core_job "
                            "WHERE type = 'package' ORDER BY created_at")
    newest = {
        row["triggered_by_id"]: row["id"]
        for row in rows
        if row["project_id"] == project["id"] and (counts is EVERYONE or row["triggered_by_id"] in counts)
    }
    active = {row["id"] for row in rows if row["status"] not in ENDED}
    return {*newest.values(), *active, own["id"]}


def obsolete_files(dump, project, kept):
    """The ids of the files that go."""
    kept = {str(pk) for pk in kept}
    return {row["id"] for row in dump["filestorage_file"].values() if row["project_id"] == str(project["id"])
            and row["file_type"] == PACKAGE_FILE and row["package_job_id"] not in kept}


FILE_FIELDS = {
    "id": "id", "name": "name", "project": "project_id", "file_type": "file_type", "created_at": "created_at",
    "package_job": "package_job_id", "uploaded_at": "uploaded_at", "uploaded_by": "uploaded_by_id",
    "latest_version": "latest_version_id",
}
VERSION_FIELDS = {
    "id": "id", "etag": "etag", "file": "file_id", "size": "size", "content": "content", "created_at": "created_at",
    "uploaded_at": "uploaded_at", "uploaded_by": "uploaded_by_id", "file_storage": "file_storage",
    "legacy_id": "legacy_id",
}


def naive(value):
    return datetime.datetime.fromisoformat(value).astimezone(UTC).replace(tzinfo=None)


def deleted(row, fields):
    """`changes` of a deleted row as Django's audit log has it."""
    texts = {
        field: str(naive(row[column])) if field.endswith("_at") else str(row[column])
        for field, column in fields.items()
        if row[column] is not None
    }
    return {field: [text, "None"] for field, text in texts.items()}


def entry(action, model, row, number, called, changed):
    nothing = dict.fromkeys(["actor_id", "actor_email", "remote_addr", "remote_port", "cid", "serialized_data",
                             "additional_data"])
    return {"action": action, "content_type": f"filestorage.{model}", "object_pk": str(row["id"]),
            "object_id": number, "object_repr": called, "changes": changed, "changes_text": "", **nothing}


def entries_of(release, file, versions):
    """The audit rows of one file that goes with its versions."""
    new = number(release) >= number("v26.22")
    project, name, pk = file["project_id"], file["name"], file["id"]
    called = f"{project}/{name} [id={pk}]" if new else f'File({pk}) in "{project}" "{name}"'
    if file["latest_version_id"]:
        yield entry(1, "file", file, pk, called, {"latest_version": [file["latest_version_id"], "None"]})
    for row in versions:
        display = naive(row["uploaded_at"]).strftime("v%Y%m%d%H%M%S")
        yield entry(2, "fileversion", row, None,
                    f"{project}/{name}/{display} [id={row['id']}]" if new
                    else f'FileVersion({row["id"]}) in "{project}" "{name}" "{display}"',
                    deleted(row, VERSION_FIELDS))
    versions_field = {"versions": ["filestorage.FileVersion.None", "None"]}
    yield entry(2, "file", file, pk, called, deleted(file, FILE_FIELDS) | versions_field)


def versions_of(dump, file_id):
    return [row for row in dump["filestorage_fileversion"].values() if row["file_id"] == file_id]


def in_order(entries):
    return sorted(json.dumps(entry, sort_keys=True) for entry in entries)


def logged(database):
    """The audit log, as it is compared."""
    rows = database.execute(
        "SELECT to_jsonb(l) - 'id' - 'timestamp' - 'content_type_id' || "
        "jsonb_build_object('content_type', t.app_label || '.' || t.model) AS entry "
        "FROM auditlog_logentry l JOIN django_content_type t ON t.id = l.content_type_id ORDER BY l.id")
    return [row["entry"] for row in rows]


def check_all_that_changed(database, before, job, gone):
    """The files `gone` and their versions are deleted and logged; of the rest only the job's own rows are new."""
    after = database.dump()
    expected = {("core_job", str(job["id"])), (database.project_table, str(job["project_id"]))}
    expected |= {("filestorage_file", str(pk)) for pk in gone}
    expected |= {("filestorage_fileversion", row["id"]) for pk in gone for row in versions_of(before, pk)}
    own = {key for key, row in after["filestorage_file"].items() if row["package_job_id"] == str(job["id"])}
    expected |= {("filestorage_file", key) for key in own}
    expected |= {("filestorage_fileversion", row["id"]) for key in own for row in versions_of(after, int(key))}
    found = changes(before, after)
    # The token ends with the job; what the audit log says is compared below.
    assert {key for key in found if key[0] not in ("auditlog_logentry", "authentication_authtoken")} <= expected
    assert {int(key) for table, key in found if table == "filestorage_file"} - {int(key) for key in own} == gone
    assert all(after["filestorage_fileversion"].get(key) is None or row["file_id"] not in gone
               for key, row in before["filestorage_fileversion"].items())
    assert set(found[database.project_table, str(job["project_id"])]) == {"data_last_packaged_at"}
    entries = [entry for pk in gone for entry in
               entries_of(database.release, before["filestorage_file"][str(pk)], versions_of(before, pk))]
    assert in_order(logged(database)) == in_order(entries)
    row = database.get("core_job", job["id"])
    assert database.get(database.project_table, job["project_id"])["data_last_packaged_at"] == row["docker_started_at"]
    assert all(row["started_at"] < entry["timestamp"] <= now()
               for entry in database.execute("SELECT timestamp FROM auditlog_logentry"))


# Through the program


@pytest.fixture
def packaging(database, worker, ground):
    """Runs a package job of a project that plays `gate`; `meanwhile` is called while its container runs, and what it
    returns comes back with the job and a dump of that time."""

    def run(project, user=None, meanwhile=lambda: None):
        job = database.job(project, "package", user=user)
        process = worker.start("run", "--single-shot")
        row = worker.wait_for_status(job, "started")
        result = meanwhile()
        before = database.dump()
        ground.docker.put(row["container_id"], "/io", {"go": b""})
        output = process.wait()
        assert database.get("core_job", job["id"])["status"] == "finished", output
        return job, before, result

    return run


@pytest.mark.parametrize("database", ["v25.27", "v25.30", "v26.21", "v26.25"], indirect=True)
@pytest.mark.parametrize("kind", [persons_project, public_project, organizations_project])
def test_whose_packages_are_kept(database, packaging, kind):
    """Triggered by somebody who does not count: his package is there all the same."""
    project, counts, users = kind(database)
    stranger = users[-1]
    job, before, _ = packaging(project, stranger, lambda: fill(database, random.Random(7), project, users))
    kept = kept_jobs(database, project, counts, job)
    gone = obsolete_files(before, project, kept)
    assert len(gone) > 20 and len(kept) > 12
    assert counts is EVERYONE or stranger["id"] not in counts
    check_all_that_changed(database, before, job, gone)
    assert database.value("SELECT count(*) FROM filestorage_file WHERE package_job_id = %s", job["id"]) == 2


@SAMPLED
def test_audit_rows_are_those_of_the_web_application(database, packaging):
    """Rows as they were when QFieldCloud's own worker deleted them; what it logged is in tests/data."""
    with open(os.path.join(DATA, "package_audit.json"), encoding="utf-8") as file:
        sample = json.load(file)[database.release]
    rows = [(e["content_type"].split(".")[1], {name: old for name, (old, _) in e["changes"].items()})
            for e in sample if e["action"] == 2]
    files = [row for model, row in rows if model == "file"]
    owner = database.user()
    assert str(owner["id"]) == files[0]["uploaded_by"]
    project = database.project(owner, "gate.qgs", files=(), id=files[0]["project"])
    for pk in {row["package_job"] for row in files}:
        database.job(project, "package", "finished", id=pk, created_at=ago(9))
    for row in files:
        columns = {FILE_FIELDS[name]: text for name, text in row.items() if name not in ("versions", "latest_version")}
        database.insert("filestorage_file", **columns)
    for row in (row for model, row in rows if model == "fileversion"):
        database.insert("filestorage_fileversion", **{VERSION_FIELDS[name]: text for name, text in row.items()})
    for row in files:
        database.update("filestorage_file", row["id"], latest_version_id=row["latest_version"])
    packaging(project)
    assert in_order(logged(database)) == in_order(sample)


@EVERY_KIND
def test_audit_rows_of_odd_files(database, packaging):
    """No version, no latest version, several, nulls, full seconds, and names that must be quoted somewhere."""
    database.execute(f"ALTER DATABASE {database.name} SET timezone TO 'Asia/Kathmandu'")
    project = database.project(qgis_file="gate.qgs", name="a 'project' \"of\" ours")
    old = package(database, project, None, names=())

    def add(name, versions, **values):
        file = database.insert("filestorage_file", project_id=project["id"], package_job_id=old["id"], name=name,
                               file_type=PACKAGE_FILE, **values)
        for version in versions:
            key = f"projects/{project['id']}/packages/{old['id']}/{name}"
            row = database.insert("filestorage_fileversion", file_id=file["id"], file_storage="other",
                                  content=key, **version)
            file = database.update("filestorage_file", file["id"], latest_version_id=row["id"], latest_version_count=1)
        return file

    def meanwhile():
        second = datetime.datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)
        add("without", [])
        lost = add("no latest", [{}, {}])
        database.update("filestorage_file", lost["id"], latest_version_id=None)
        add("several", [{"uploaded_at": second}, {"uploaded_at": now(), "uploaded_by_id": project["owner_id"]}, {}])
        add("full seconds", [{"created_at": second, "uploaded_at": second}], created_at=second, uploaded_at=second,
            uploaded_by_id=project["owner_id"])
        add("a milli", [{"uploaded_at": second.replace(microsecond=120)}])
        add("ümläut \"x\" 'y' \\z {project} $1 %s 🐘.gpkg", [{"size": 2**40, "etag": "a \"b\"\nc\\"}])
        add("legacy_id", [{"legacy_id": "null", "md5sum": b"\x00\xff"}, {"legacy_id": ""}])

    job, before, _ = packaging(project, None, meanwhile)
    # Its owner has a newer package: this very job's.
    gone = {row["id"] for row in before["filestorage_file"].values() if row["package_job_id"] == str(old["id"])}
    assert len(gone) == 7
    check_all_that_changed(database, before, job, gone)
    steps = [(e["action"], e["content_type"]) for e in logged(database)]
    assert steps == sorted(steps, key=[(1, "filestorage.file"), (2, "filestorage.fileversion"),
                                       (2, "filestorage.file")].index)


def test_a_failed_job_deletes_nothing(database, worker):
    project = database.project(qgis_file="workflow_error.qgs")
    package(database, project, None)
    package(database, project, None, minutes=30)
    job = database.job(project, "package")
    before = database.dump()
    worker.run("run", "--single-shot")
    assert database.get("core_job", job["id"])["status"] == "failed"
    assert {table for table, _ in changes(before, database.dump())} == {"core_job"}


# The statements alone


class Shipped:
    """The program's own statements on one database, as tests/package-sql of the build prints them."""

    def __init__(self, built, database):
        names = {
            "project": database.project_table, "project_app": database.project_table.partition("_")[0],
            "file_repr": "f.name", "version_repr": "v.id::text",
        }
        command = [os.path.join(os.path.dirname(built), "tests", "package-sql")]
        command += [f"{name}={text}" for name, text in names.items()]
        *_, self.delete, self.leftovers = json.loads(subprocess.check_output(command))
        self.database = database

    def rows(self, sql, *values, prefix=""):
        connection = self.database.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"PREPARE shipped AS {sql}")
                places = ", ".join(["%s"] * len(values))
                cursor.execute(f"{prefix} EXECUTE shipped ({places})", values)
                return cursor.fetchall()
        finally:
            connection.close()

    def deleted(self, job):
        """Deletes; the objects that are to be deleted then, sorted."""
        return sorted(self.rows(self.delete, job["id"], job["project_id"]))

    def left_over(self, job, keys):
        return {key for key, in self.rows(self.leftovers, job["id"], job["project_id"], list(keys))}


@pytest.fixture
def shipped(built, database):
    return Shipped(built, database)


@pytest.mark.parametrize("kind", [persons_project, public_project, organizations_project])
@pytest.mark.parametrize("seed", range(4))
def test_objects_of_deleted_versions_are_named(database, shipped, kind, seed):
    project, counts, users = kind(database)
    fill(database, random.Random(seed), project, users)
    job = package(database, project, random.Random(seed).choice(users), minutes=1)
    before = database.dump("filestorage_file")
    gone = obsolete_files(before, project, kept_jobs(database, project, counts, job))
    expected = database.execute("SELECT file_storage, content FROM filestorage_fileversion WHERE file_id = ANY(%s)",
                                list(gone))
    assert shipped.deleted(job) == sorted((row["file_storage"], row["content"]) for row in expected) != []
    found = changes(before, database.dump("filestorage_file"))
    assert {int(key) for _, key in found} == gone and all(list(what) == [""] for what in found.values())
    assert shipped.deleted(job) == []


def test_one_object_of_several_versions_is_named_once(database, shipped):
    """A package job that ran again has uploaded each file twice, to the same place."""
    project = database.project()
    old = package(database, project, None, names=["data.gpkg"])
    file = database.one("SELECT * FROM filestorage_file WHERE package_job_id = %s", old["id"])
    key = f"projects/{project['id']}/packages/{old['id']}/data.gpkg"
    database.version(file, key, b"again")
    assert shipped.deleted(package(database, project, None, minutes=1)) == [("default", key)]


def test_what_somebody_else_deletes_meanwhile_is_logged_by_him(database, shipped):
    project = database.project()
    old = package(database, project, None, names=["a", "b"])
    job = package(database, project, None, minutes=1)
    first, second = database.execute(
        "SELECT id FROM filestorage_file WHERE package_job_id = %s ORDER BY name", old["id"]
    )
    other = database.connect()
    other.autocommit = False
    with other.cursor() as cursor:
        cursor.execute("DELETE FROM filestorage_fileversion WHERE file_id = %s", [first["id"]])
        cursor.execute("DELETE FROM filestorage_file WHERE id = %s", [first["id"]])
    found = []
    thread = threading.Thread(target=lambda: found.extend(shipped.deleted(job)))
    thread.start()
    try:
        while thread.is_alive() and not database.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%EXECUTE shipped%%'"
        ):
            thread.join(0.02)
        other.commit()
    finally:
        other.close()
        thread.join()
    assert [key.rpartition("/")[2] for _, key in found] == ["b"]
    assert {e["object_pk"] for e in logged(database) if e["content_type"] == "filestorage.file"} == {str(second["id"])}
    assert len(logged(database)) == 3


@EVERY_KIND
def test_leftovers(database, shipped):
    """Objects without rows of packages that nobody needs; never one of another project or in another place."""
    project, counts, users = persons_project(database)
    other = database.project(users[0])
    chance = random.Random(11)
    jobs = [package(database, project, user, status, chance.randrange(1000), names=["named"])
            for user in users for status in STATUSES]
    elsewhere = [package(database, other, users[0], status, names=()) for status in STATUSES]
    own = package(database, project, users[-1], minutes=0, names=["named"])
    kept = kept_jobs(database, project, counts, own)
    at = f"projects/{project['id']}/packages"
    ids = [*(job["id"] for job in [*jobs, *elsewhere, own]), *(uuid.uuid4() for _ in range(5))]
    good = {f"{at}/{pk}/{rest}" for pk in ids for rest in ("data.gpkg", "a/b ü'\"\\%_.jpg", "..a", "line\nbreak")}
    named = {f"{at}/{job['id']}/named" for job in jobs}
    gone = next(job["id"] for job in jobs if job["id"] not in kept)
    odd = {
        *(f"projects/{other['id']}/packages/{pk}/data.gpkg" for pk in ids),
        *(f"{at}/{pk}" for pk in ids), *(f"{at}/{pk}/" for pk in ids),
        f"{at}/{str(gone).upper()}x/data.gpkg", f"{at}/{gone.hex}/data.gpkg", f"{at}/{{{gone}}}/data.gpkg",
        f"{at}/None/data.gpkg", f"{at}//data.gpkg", f"{at}/{gone}x/data.gpkg", f"{at}/ {gone}/data.gpkg",
        f"/{at}/{gone}/x", f"x{at}/{gone}/x", f"projects/{project['id']}/files/{gone}/x",
        f"{at}/{gone}/../../files/x", f"{at}/{gone}/..", f"{at}/{gone}/./x", f"{at}/{gone}/a/../x",
        f"projects/{project['id']}/packagesx/{gone}/x", "", "/", "projects", f"{at}/", f"{at.upper()}/{gone}/x",
    }
    expected = {key for key in good if uuid.UUID(key.split("/")[3]) not in kept}
    assert 100 < len(expected) < len(good) - 100
    before = database.dump()
    assert shipped.left_over(own, good | named | odd) == expected
    assert shipped.left_over(own, []) == set()
    assert changes(before, database.dump()) == {}
    database.execute("UPDATE filestorage_fileversion SET file_storage = 'other' WHERE content = ANY(%s)", list(named))
    assert shipped.left_over(own, named) == set()


def test_no_leftovers_of_a_project_that_is_gone(shipped):
    project = uuid.uuid4()
    key = f"projects/{project}/packages/{uuid.uuid4()}/data.gpkg"
    assert shipped.left_over({"id": uuid.uuid4(), "project_id": project}, [key]) == set()


MANY = """
INSERT INTO core_job
    (id, created_at, updated_at, project_id, type, status, created_by_id, container_id, triggered_by_id)
SELECT gen_random_uuid(), now() - n * interval '1 minute', now(), p.id, 'package',
    CASE WHEN mod(n, 3) = 0 THEN 'failed' ELSE 'finished' END, p.owner_id, '',
    users.ids[1 + mod(n, cardinality(users.ids))]
FROM generate_series(1, 2000) n, {project} p, (SELECT array_agg(id) AS ids FROM core_user WHERE type = 1) users;
INSERT INTO filestorage_file
    (name, file_type, package_job_id, latest_version_count, uploaded_at, created_at, project_id)
SELECT n::text, 2, id, 1, now(), now(), project_id FROM core_job, generate_series(1, 2) n;
INSERT INTO filestorage_fileversion
    (id, content, etag, md5sum, sha256sum, size, uploaded_at, created_at, file_id, file_storage)
SELECT gen_random_uuid(), 'key/' || id, '', '', '', 1, now(), now(), id, 'default' FROM filestorage_file;
ANALYZE
"""


def scanned(plan):
    """The tables that a plan reads from end to end."""
    found = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return found.union(*(scanned(part) for part in plan.get("Plans", [])))


def test_no_walk_over_the_history_of_others(database, shipped):
    """With many jobs and files of other projects, all that is asked of them is by key or by project."""
    projects = [database.project(files=()) for _ in range(20)]
    users = people(database, 30)
    database.execute(MANY.format(project=database.project_table))
    job = package(database, projects[3], users[0], minutes=-1)
    explain = "EXPLAIN (FORMAT json)"
    for sql, values in ((shipped.delete, []), (shipped.leftovers, [["key"]])):
        ((plan,),) = shipped.rows(sql, job["id"], job["project_id"], *values, prefix=explain)
        big = {"core_job", "core_packagejob", "filestorage_file", "filestorage_fileversion"}
        assert not scanned(plan[0]["Plan"]) & big, json.dumps(plan, indent=1)
