"""What is left in storage after a job: obsolete packages' objects go after their rows, whatever the storage does
meanwhile, and the project's picture is stored where the worker has to do it."""

import datetime
import json
import re
import signal
import urllib.parse
import uuid

import pytest
from bed.rows import PACKAGE_FILE, now

KINDS = pytest.mark.parametrize("kind", ["s3", "s3-versioned", "s3-location", "webdav"])
BOTH = pytest.mark.parametrize("kind", ["s3-location", "webdav"])
NEWEST = pytest.mark.parametrize("database", ["v26.25"], indirect=True)
FILES = ("data.gpkg", "a photo+1 ä.jpg")


class Store:
    """One storage, called `default`, and the objects in it."""

    def __init__(self, kind, request):
        self.location = "media/" if kind == "s3-location" else ""
        self.server = request.getfixturevalue("webdav" if kind == "webdav" else "s3")
        if kind == "webdav":
            self._bucket, self.storages = (), self.server.storages()
        else:
            bucket = self.server.create_bucket(versioned=kind == "s3-versioned")
            options = {"location": self.location.rstrip("/")} if self.location else {}
            self._bucket, self.storages = (bucket,), self.server.storages(bucket, **options)

    def put(self, *keys):
        self.server.put(*self._bucket, *(self.location + key for key in keys))

    def objects(self):
        found = self.server.objects(*self._bucket)
        assert all(key.startswith(self.location) for key in found)
        return {key.removeprefix(self.location) for key in found}

    def versions(self, key):
        """Has the bucket a version of it, and a delete marker?"""
        return {marker for name, marker in self.server.versions(*self._bucket) if name == key}


class Packages:
    """A project with packages of its past, their rows and their objects."""

    def __init__(self, database, store, **values):
        self.database, self.store = database, store
        self.project = database.project(qgis_file="offline.qgs", files=("survey.gpkg",), **values)
        store.put(*self.keys("file_type = 1"))
        self._age = 1000

    def keys(self, condition="true"):
        """The objects that the project's rows name."""
        rows = self.database.execute(
            "SELECT v.content FROM filestorage_fileversion v JOIN filestorage_file f ON f.id = v.file_id "
            f"WHERE f.project_id = %s AND {condition}", self.project["id"])
        return {row["content"] for row in rows}

    def past(self, status="finished", user=None, rows=True):
        """An earlier package; returns its objects' keys."""
        self._age -= 10
        created = now() - datetime.timedelta(minutes=self._age)
        job = self.database.job(self.project, "package", status, user=user, created_at=created)
        keys = {f"projects/{self.project['id']}/packages/{job['id']}/{name}" for name in FILES}
        for name in FILES if rows else ():
            self.database.file(self.project, name, file_type=PACKAGE_FILE, package_job=job)
        self.store.put(*keys)
        return keys

    def next(self):
        return self.database.job(self.project, "package")


@pytest.fixture
def store(request, kind):
    return Store(kind, request)


@pytest.fixture
def packages(database, store, worker):
    worker.env.update(STORAGES=store.storages, RETRY_BASE_DELAY_SECONDS="0")
    return Packages(database, store)


def run(worker, job):
    output = worker.run("run", "--drain")
    row = worker.database.get("core_job", job["id"])
    assert output.returncode == 0 and row["status"] == "finished", output
    return output


# Obsolete packages


@KINDS
@NEWEST
def test_exactly_the_obsolete_objects_go(database, worker, store, packages):
    """Of the project's packages, of leftovers without rows, and of what is nobody's business here."""
    packages.past()
    packages.past()
    friend = database.user()
    database.collaborator(packages.project, friend)
    kept = packages.past(user=friend)
    leftover = packages.past("failed", rows=False)
    active = packages.past("stopped", rows=False)
    other = Packages(database, store)
    others = other.past() | other.past()
    foreign = {
        f"projects/{packages.project['id']}/packages/readme.txt",
        f"projects/{packages.project['id']}/packages/{uuid.uuid4()}x/data.gpkg",
        f"projects/{packages.project['id']}/meta/thumbnail.png",
        f"projects/{packages.project['id']}/packagesx/{uuid.uuid4()}/data.gpkg",
    }
    store.put(*foreign)
    before = store.objects()
    assert leftover <= before
    run(worker, packages.next())
    deletions = [request for request in store.server.requests if request.startswith("DELETE")]
    assert len(deletions) == len(set(deletions)) == 3 * len(FILES), "each once"
    assert packages.keys("file_type = 2") == kept
    assert store.objects() == packages.keys() | active | others | foreign | other.keys()


@pytest.mark.parametrize("kind", ["s3-versioned"])
@NEWEST
def test_a_bucket_with_versions_keeps_them(worker, store, packages):
    """A plain DELETE, as QFieldCloud's own worker sends it: a marker, with the version below it."""
    gone = packages.past()
    run(worker, packages.next())
    for key in gone:
        assert store.versions(key) == {True, False}


@BOTH
@NEWEST
def test_without_list_rights_the_rows_objects_go_all_the_same(worker, store, packages):
    """Leftovers then stay; it is said, with what the storage says."""
    gone, leftover = packages.past(), packages.past("failed", rows=False)
    store.server.fail(403, "list-type|PROPFIND", code="AccessDenied")
    output = run(worker, packages.next())
    assert store.objects() == packages.keys() | leftover
    assert not gone & store.objects()
    assert any("403" in message or "AccessDenied" in message for message in output.messages("warning")), output


def down(store, worker):
    store.server.down()
    return store.server.up


def fails(status):
    def begin(store, worker):
        store.server.fail(status, "DELETE")
        return store.server.behave

    return begin


@BOTH
@NEWEST
@pytest.mark.parametrize("begin", [down, fails(500), fails(503), fails(403)], ids=["down", "500", "503", "403"])
def test_what_could_not_be_erased_goes_with_the_next_package(worker, store, packages, begin):
    """The job is finished, its rows are gone, the objects stay, and it is said. Never the other way round."""
    gone = packages.past()
    end = begin(store, worker)
    output = run(worker, packages.next())
    assert not gone & packages.keys()
    end()
    assert gone <= store.objects()
    assert any("objects" in message for message in output.messages("warning")), output
    run(worker, packages.next())
    assert store.objects() == packages.keys()


@BOTH
@NEWEST
def test_a_storage_that_is_back_soon_is_asked_again(worker, store, packages):
    gone = packages.past()
    store.server.fail(500, "DELETE", times=3)
    run(worker, packages.next())
    assert gone and store.objects() == packages.keys()


@BOTH
@NEWEST
def test_a_storage_that_breaks_off(worker, store, packages):
    """It has deleted, but its answer is lost: what is gone already is no error."""
    packages.past()
    store.server.cut("DELETE", times=2)
    run(worker, packages.next())
    assert store.objects() == packages.keys()


@BOTH
@NEWEST
def test_a_slow_storage_holds_up_no_other_job(database, worker, store, packages):
    """The row is finished at once, and the only slot is free for another job meanwhile."""
    gone = packages.past()
    hold = store.server.pause("DELETE")
    job = packages.next()
    process = worker.start("run", "--concurrency", 1)
    worker.wait_for_status(job, "finished")
    hold.reached()
    assert gone & store.objects(), "an object went while its deletion was held back"
    other = database.job(database.project(qgis_file="offline.qgs", files=()), "package")
    assert worker.wait_for_status(other, "finished", "failed")["status"] == "finished"
    hold.release()
    worker.wait_for(lambda: store.objects() == packages.keys() | set(), "the objects' end")
    assert process.stop().returncode == 0


@BOTH
@NEWEST
def test_leaving_while_a_storage_is_slow(worker, store, packages):
    """The outcome is written: there is nothing to wait for, and nothing was left behind but objects."""
    gone = packages.past()
    hold = store.server.pause("DELETE")
    job = packages.next()
    process = worker.start("run")
    worker.wait_for_status(job, "finished")
    hold.reached()
    process.send(signal.SIGTERM)
    output = process.stop()
    hold.release()
    assert output.returncode == 0 and not output.messages("error"), output
    assert not gone & packages.keys()


@BOTH
@NEWEST
def test_no_object_goes_before_its_row(database, worker, store, packages):
    """The transaction that deletes the rows waits for a lock: nothing has been erased by then."""
    gone = packages.past()
    other = database.connect()
    other.autocommit = False
    cursor = other.cursor()
    cursor.execute("SELECT * FROM filestorage_file WHERE project_id = %s FOR UPDATE", (packages.project["id"],))
    job = packages.next()
    process = worker.start("run", "--single-shot")
    worker.wait_for(
        lambda: database.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"), "the lock")
    assert gone <= store.objects()
    other.rollback()
    other.close()
    worker.wait_for_status(job, "finished")
    process.wait()
    assert store.objects() == packages.keys()


@BOTH
@NEWEST
def test_a_worker_that_dies_between_rows_and_objects(worker, store, packages):
    """The project's next package takes them along."""
    gone = packages.past()
    hold = store.server.pause("list-type|PROPFIND")  # which comes right before
    job = packages.next()
    process = worker.start("run")
    worker.wait_for_status(job, "finished")
    hold.reached()
    process.process.kill()
    process.process.wait()
    hold.release()
    store.server.behave()
    assert gone <= store.objects() and not gone & packages.keys()
    run(worker, packages.next())
    assert store.objects() == packages.keys()


@pytest.mark.parametrize("storages", [
    '{"default": {"BACKEND": "qfieldcloud.filestorage.backend.QfcAzureStorage", "OPTIONS": {}}}',
    '{"other": {"BACKEND": "qfieldcloud.filestorage.backend.QfcS3Boto3Storage", "OPTIONS": {}}}',
    None,
])
@pytest.mark.parametrize("kind", ["s3"])
@NEWEST
def test_a_storage_that_cannot_be_used_is_said_once(worker, store, packages, storages):
    packages.past()
    before = store.objects()
    worker.env["STORAGES"] = storages
    first, second = packages.next(), packages.next()
    output = worker.run("run", "--drain")
    assert {worker.database.get("core_job", job["id"])["status"] for job in (first, second)} == {"finished"}
    assert store.objects() == before
    assert sum('"default"' in message for message in output.messages("warning")) == 1, output


@pytest.mark.parametrize("storages", ["{", "[]", '{"default": 5}'])
@pytest.mark.parametrize("kind", ["s3"])
@NEWEST
def test_storages_that_are_none_end_the_program(worker, packages, storages):
    worker.env["STORAGES"] = storages
    output = worker.run("run", "--drain")
    if storages == '{"default": 5}':
        assert output.returncode == 0
    else:
        assert output.returncode == 2 and "STORAGES" in output.stderr


@BOTH
@NEWEST
def test_no_key_or_password_is_in_the_log(worker, store, packages):
    packages.past()
    store.server.fail(403, ".", code="AccessDenied")
    output = worker.run("run", "--drain", LOGLEVEL="debug")
    packages.next()
    output = worker.run("run", "--drain", LOGLEVEL="debug")
    options = json.loads(store.storages)["default"]["OPTIONS"]
    secrets = [options[name] for name in ("secret_key",) if name in options]
    if "webdav_url" in options:
        secrets += [store.server.password, urllib.parse.urlsplit(options["webdav_url"]).password]
    assert secrets and not any(secret in output.stderr for secret in secrets)


# Legacy storage


@pytest.mark.parametrize("kind", ["s3-versioned"])
@pytest.mark.parametrize("database", ["v25.27", "v26.10"], indirect=True)
def test_legacy_storage_loses_all_versions(database, worker, store):
    """There are no rows: what obsolete jobs have left below the project's prefix goes, version by version."""
    name = "legacy"
    worker.env["STORAGES"] = store.server.storages(store._bucket[0], name=name, legacy=True)
    packages = Packages(database, store, file_storage=name)
    gone, friend = packages.past(rows=False), database.user()
    store.put(*gone)  # a second version of each
    database.collaborator(packages.project, friend)
    kept = packages.past(user=friend, rows=False)
    run(worker, packages.next())
    assert store.objects() == packages.keys() | kept
    for key in gone:
        assert store.versions(key) == set()


@pytest.mark.parametrize("kind", ["s3-versioned"])
@pytest.mark.parametrize("database", ["v25.30"], indirect=True)
def test_legacy_storage_of_the_storage_variables(database, worker, store):
    options = store.server.options(store._bucket[0])
    worker.env.update(
        STORAGE_ACCESS_KEY_ID=options["access_key"], STORAGE_SECRET_ACCESS_KEY=options["secret_key"],
        STORAGE_BUCKET_NAME=options["bucket_name"], STORAGE_ENDPOINT_URL=options["endpoint_url"],
    )
    packages = Packages(database, store)
    gone = packages.past(rows=False)
    run(worker, packages.next())
    assert store.objects() == packages.keys()
    assert gone and all(store.versions(key) == set() for key in gone)


# The project's picture


def picture_of(database, project):
    return database.get(database.project_table, project["id"])["thumbnail"]


@pytest.fixture
def mapped(database, store, worker):
    """A project file whose job leaves a picture."""
    worker.env.update(STORAGES=store.storages, QFIELDCLOUD_DEFAULT_TIME_ZONE="Asia/Kathmandu")
    return database.project(qgis_file="thumbnail.qgs", files=())


@BOTH
@pytest.mark.parametrize("database", ["v25.27", "v26.3"], indirect=True)
def test_the_picture_is_stored_and_the_previous_one_erased(database, worker, store, mapped):
    old = f"projects/{mapped['id']}/meta/thumbnail_v20250101000000_01234567.png"
    store.put(old)
    database.update(database.project_table, mapped["id"], thumbnail=old)
    before = now()
    run(worker, database.job(mapped, "process_projectfile"))
    key = picture_of(database, mapped)
    match = re.fullmatch(rf"projects/{mapped['id']}/meta/thumbnail_v(\d{{14}})_[0-9a-f]{{8}}\.png", key)
    assert match and store.objects() == {key}
    kathmandu = datetime.timezone(datetime.timedelta(hours=5, minutes=45))
    stamp = datetime.datetime.strptime(match[1], "%Y%m%d%H%M%S").replace(tzinfo=kathmandu)
    assert abs(stamp - before) < datetime.timedelta(minutes=5), "not the time there"


@pytest.mark.parametrize("kind", ["s3"])
@pytest.mark.parametrize("database", ["v25.30"], indirect=True)
def test_the_stored_picture_is_what_the_container_left(database, worker, store, mapped):
    run(worker, database.job(mapped, "process_projectfile"))
    stored = store.server.get(store._bucket[0], picture_of(database, mapped))
    assert stored == {"text": "a picture", "content_type": "image/png"}


@BOTH
@pytest.mark.parametrize("database", ["v25.30"], indirect=True)
def test_no_picture_no_harm(database, worker, store):
    """An empty extent makes none: the job is fine, and the project keeps what it had."""
    worker.env["STORAGES"] = store.storages
    project = database.project(qgis_file="no_thumbnail.qgs", files=(), thumbnail="projects/x/meta/old.png")
    run(worker, database.job(project, "process_projectfile"))
    assert picture_of(database, project) == "projects/x/meta/old.png"
    assert store.objects() == set()


@BOTH
@pytest.mark.parametrize("database", ["v25.30"], indirect=True)
@pytest.mark.parametrize("begin", [down, lambda store, worker: store.server.fail(403)], ids=["down", "403"])
def test_a_picture_that_cannot_be_stored(database, worker, store, mapped, begin):
    begin(store, worker)
    output = run(worker, database.job(mapped, "process_projectfile"))
    assert not picture_of(database, mapped)
    assert database.get(database.project_table, mapped["id"])["project_details"]
    assert any("store" in message for message in output.messages("warning")), output


@pytest.mark.parametrize("kind", ["s3"])
@pytest.mark.parametrize("database", ["v25.30"], indirect=True)
def test_the_picture_of_a_job_that_fails_after_all_is_erased(database, worker, store, mapped):
    """The outcome cannot be written (a constraint of somebody else's): neither is the picture."""
    database.execute(
        f"ALTER TABLE {database.project_table} ADD CHECK (project_details IS NULL OR id <> '{mapped['id']}')")
    job = database.job(mapped, "process_projectfile")
    output = worker.run("run", "--drain")
    assert database.get("core_job", job["id"])["status"] == "failed", output
    assert store.objects() == set() and not picture_of(database, mapped)


@pytest.mark.parametrize("kind", ["s3"])
@pytest.mark.parametrize("database", ["v26.10", "v26.25"], indirect=True)
def test_later_containers_store_it_themselves(database, worker, store, mapped):
    run(worker, database.job(mapped, "process_projectfile"))
    assert store.objects() == set()


@pytest.mark.parametrize("kind", ["s3-versioned"])
@pytest.mark.parametrize("database", ["v25.30"], indirect=True)
def test_the_picture_of_a_project_in_legacy_storage(database, worker, store):
    name = "legacy"
    worker.env["STORAGES"] = store.server.storages(store._bucket[0], name=name, legacy=True)
    project = database.project(qgis_file="thumbnail.qgs", files=(), file_storage=name)
    run(worker, database.job(project, "process_projectfile"))
    key = f"projects/{project['id']}/meta/thumbnail.png"
    assert store.objects() == {key}
    row = database.get(database.project_table, project["id"])
    assert row["legacy_thumbnail_uri"] == key and not row["thumbnail"]
