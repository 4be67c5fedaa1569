"""Many jobs at once, by one process and by several, under the leak checker when the program is built with it."""


def test_200_jobs_leave_no_leak(database, worker):
    """A tenth of them fails; LeakSanitizer makes the exit code when anything leaked."""
    projects = [
        database.project(qgis_file="crash.qgs" if i % 10 == 0 else "offline.qgs", files=()) for i in range(50)
    ]
    jobs = [database.job(projects[i % 50], "package") for i in range(200)]
    output = worker.run("run", "--drain", "--concurrency", 8, timeout=400)
    assert output.returncode == 0, output
    statuses = [database.get("core_job", job["id"])["status"] for job in jobs]
    assert statuses == ["failed" if i % 10 == 0 else "finished" for i in range(200)]


def test_several_workers_share_a_queue(database, worker):
    """Each job runs once, and no two of one project at the same time."""
    projects = [database.project(qgis_file="offline.qgs", files=()) for _ in range(10)]
    jobs = [database.job(projects[i % 10], "package") for i in range(40)]
    processes = [worker.start("run", "--drain", "--concurrency", 2) for _ in range(4)]
    outputs = [process.wait(200) for process in processes]
    rows = [database.get("core_job", job["id"]) for job in jobs]
    assert [row["status"] for row in rows] == ["finished"] * 40
    claims = [message for output in outputs for message in output.messages("info") if message.startswith("claimed")]
    assert len(claims) == 40
    for project in projects:
        own = sorted((row for row in rows if row["project_id"] == project["id"]), key=lambda row: row["started_at"])
        assert [row["id"] for row in own] == [job["id"] for job in jobs if job["project_id"] == project["id"]]
        for earlier, later in zip(own, own[1:]):
            assert earlier["finished_at"] <= later["started_at"]
