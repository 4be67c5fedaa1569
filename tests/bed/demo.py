"""The demo: queues a dozen jobs, runs the program on them, and shows what came of it. `demo.py BINARY [arguments]`."""

import os
import subprocess
import sys

import psycopg2

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bed import BedError, cleanup, engine as engines, postgres  # noqa: E402
from bed.api import Api  # noqa: E402
from bed.docker import DockerError  # noqa: E402
from bed.ground import Ground  # noqa: E402
from bed.worker import Worker  # noqa: E402

# Each project plays the scenario that its QGIS file names, once for each of its jobs.
PROJECTS = [
    ("trees", "success.qgs", "process_projectfile package delta_apply package"),
    ("wells", "sleep@1.qgs", "delta_apply package"),
    ("pipes", "success.qgs", "process_projectfile delta_apply"),
    ("parks", "success.qgs", "create_project"),
    ("broken data", "workflow_error.qgs", "delta_apply"),
    ("crashing", "crash@139.qgs", "package"),
    ("paths", "sleep@2.qgs", "package"),
]
USAGE = 2  # the exit code for arguments that the program refuses: it has not begun
WIDEST = 60
REPORT = """
SELECT p.name AS project, j.type, j.status,
    round(extract(epoch FROM j.docker_started_at - j.created_at)::numeric, 2) AS "wait s",
    round(extract(epoch FROM j.docker_finished_at - j.docker_started_at)::numeric, 2) AS "run s",
    j.feedback ->> 'container_exit_code' AS "exit code",
    j.feedback ->> 'error' AS error
FROM core_job j JOIN {project} p ON p.id = j.project_id ORDER BY j.created_at
"""


def queue(database):
    """The jobs, as three users would have asked for them."""
    owners = [database.user(name) for name in ("alice", "bob", "carol")]
    for place, (name, qgis_file, jobs) in enumerate(PROJECTS):
        project = database.project(owners[place % 3], qgis_file, name)
        for type_ in jobs.split():
            if type_ == "delta_apply":
                database.apply_job(project, [database.delta(project) for _ in range(3)])
            else:
                database.job(project, type_)


def cut(text):
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def show(rows):
    """A table; long texts are cut, and end with an ellipsis."""
    cells = [list(rows[0])] + [["-" if value is None else str(value) for value in row.values()] for row in rows]
    cells = [[cut(cell.replace("\n", " ")) for cell in line] for line in cells]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def end(process):
    process.kill()
    process.wait()


def run(worker, arguments):
    """The program, its log on this screen; returns its exit code."""
    command = worker.command("run", "--drain", *arguments)
    print(f"\n$ {' '.join(command)}", flush=True)
    process = subprocess.Popen(command, env={**worker.env, "LOG_FORMAT": "text"}, stdin=subprocess.DEVNULL)
    ending = cleanup.later(end, process)
    code = process.wait()
    cleanup.never(ending)
    return code


def demo(binary, arguments):
    print("starting PostgreSQL, making the stand-in image and a network", flush=True)
    postgres.sweep()
    engines.sweep()
    cleanup.sweep()
    engine = engines.find()
    server = postgres.Server()
    directory, _ = cleanup.directory("worker")
    ground = Ground(engine)
    database = server.database("v26.25")
    api = Api(database, engine, ground.gateway)
    queue(database)
    jobs = database.value("SELECT count(*) FROM core_job")
    print(f"queued {jobs} jobs of {len(PROJECTS)} projects", flush=True)
    worker = Worker(binary, database, engine, ground.image, ground.network, directory)
    worker.env["QFIELDCLOUD_WORKER_QFIELDCLOUD_URL"] = api.url
    code = run(worker, arguments)
    print(f"\nthe program ended with exit code {code}")
    if code != USAGE:
        print()
        show(database.execute(REPORT.format(project=database.project_table)))
    api.close()
    database.close()
    ground.close()
    server.close()
    engine.close()
    return code


def main():
    cleanup.on_signals()
    try:
        return demo(sys.argv[1], sys.argv[2:])
    except KeyboardInterrupt:
        print("\nstopped: clearing everything away", flush=True)
        return 130
    except DockerError as error:
        print(f"docker/demo: the engine refused: {error}", file=sys.stderr)
        return 1
    except (BedError, OSError, psycopg2.Error) as error:
        print(f"docker/demo: {error}", file=sys.stderr)
        return 1
    finally:
        cleanup.everything()


if __name__ == "__main__":
    sys.exit(main())
