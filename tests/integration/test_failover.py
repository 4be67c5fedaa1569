"""The primary dies and its standby is promoted while a job runs: the worker finds the new primary by itself."""

import os

import pytest
from bed import postgres
from bed.rows import Database


class Standby(postgres.Server):
    """A streaming standby of another server of the bed."""

    def __init__(self, primary):
        self.primary = primary
        super().__init__()
        self.password = primary.password

    def _initialise(self):
        if self.account:
            os.chown(self.directory, self.account.pw_uid, self.account.pw_gid)
        source = ["-h", self.primary.directory, "-p", str(self.primary.port), "-U", "postgres"]
        self._run(f"{self.bin}/pg_basebackup", "-D", self.data, *source, "-R", "-X", "stream", "-c", "fast", "--no-sync")

    def _administer(self, statement, values=None):
        """The role came with the copy."""
        if not statement.startswith("CREATE ROLE"):
            super()._administer(statement, values)


def replicating():
    """A primary that a standby may follow."""
    primary = postgres.Server()
    for setting in ("wal_level = replica", "max_wal_senders = 4"):
        connection = primary.connect("postgres", superuser=True)
        connection.cursor().execute(f"ALTER SYSTEM SET {setting}")
        connection.close()
    with open(os.path.join(primary.data, "pg_hba.conf"), "a", encoding="utf-8") as file:
        file.write("local replication all trust\n")
    primary.restart()
    return primary


@pytest.fixture
def servers():
    primary = replicating()
    standby = None
    try:
        database = primary.database("v26.25")
        standby = Standby(primary)
        yield primary, standby, database
    finally:
        for server in (primary, standby):
            if server:
                server.close()


def both(servers):
    """A connection string that names both, the standby first."""
    primary, standby, database = servers
    return (
        f"host=127.0.0.1,127.0.0.1 port={standby.port},{primary.port} dbname={database.name} user={postgres.ROLE}"
        f" password='{primary.password}' target_session_attrs=read-write"
    )


def test_failover(servers, make_worker, ground):
    primary, standby, database = servers
    worker = make_worker(database, ground)
    worker.env |= {"DATABASE_URL": both(servers), "QFIELDCLOUD_DEFAULT_NETWORK": "none"}
    later = database.project(qgis_file="offline.qgs", files=())
    job = database.job(database.project(qgis_file="gate.qgs", files=()), "package")
    process = worker.start("run")
    container = worker.wait_for_status(job, "started")["container_id"]
    worker.wait_for(lambda: ground.docker.inspect(container)["State"]["Running"], "the container")

    copy = Database(standby, database.name, database.schema)
    worker.wait_for(lambda: copy.get("core_job", job["id"])["status"] == "started", "the copy")
    database.disconnect()
    primary.stop("immediate")
    standby.pg_ctl("promote")
    ground.docker.put(container, "/io", {"go": b""})

    worker.database = copy
    row = worker.wait_for_status(job, "finished", "failed")
    assert row["status"] == "finished" and row["container_id"] == container, row
    another = copy.job(later, "package")
    assert worker.wait_for_status(another, "finished", "failed")["status"] == "finished"
    assert copy.value("SELECT count(*) FROM authentication_authtoken") == 0
    assert process.stop().returncode == 0
    copy.disconnect()
