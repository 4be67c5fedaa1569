"""Two witnesses of what became of jobs, each apart from the program: the engine's events, across its restarts and
deaths, and triggers in the database that write down each change of a job's status.
"""

import http.client
import json
import threading
import time

import psycopg2

from .docker import DockerError

OVER = ("finished", "failed")
TRIGGERS = """
CREATE TABLE trail (number bigserial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(), job uuid,
    old text, new text, who text DEFAULT current_setting('application_name'));
CREATE FUNCTION trail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO trail (job, old, new) VALUES (NEW.id, OLD.status, NEW.status); RETURN NULL; END $$;
CREATE TRIGGER trail AFTER UPDATE ON core_job FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION trail();
"""


class Starts:
    """Containers that the engine has started. The stream of events is opened again after each end of the engine, from
    the last event on; one that came twice counts once. A container whose death was seen was started, too."""

    def __init__(self, docker):
        self.docker, self._since, self._ended = docker, time.time() - 1, False
        self._lock, self._events = threading.Lock(), {}
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self):
        while not self._ended:
            try:
                filters = {"type": ["container"], "event": ["start", "die"]}
                since = f"{self._since:.9f}"
                stream = self.docker.open("GET", "/events", timeout=3600, since=since, filters=filters)
                while line := stream.readline():
                    self._take(json.loads(line))
            except (OSError, ValueError, AttributeError, DockerError, http.client.HTTPException):
                pass  # the engine is away, or close() was called
            time.sleep(0.02)

    def _take(self, event):
        attributes = event["Actor"]["Attributes"]
        with self._lock:
            self._since = max(self._since, event["timeNano"] / 1e9 - 0.001)
            key = (event["Actor"]["ID"], event["Action"], event["timeNano"])
            self._events[key] = attributes.get("job_id")

    def of(self, job):
        """How often containers of a job were started, as far as is known."""
        with self._lock:
            mine = [key for key, name in self._events.items() if name == str(job["id"])]
        started = [container for container, action, _ in mine if action == "start"]
        return len(started) + len({container for container, action, _ in mine if action == "die"} - set(started))

    def close(self):
        """The engine's end ends the stream."""
        self._ended = True


def lay(database):
    """From now on each change of a job's status is written down."""
    database.execute(TRIGGERS)


def outcomes(database):
    """{job: [(old, new)]} of all that had to do with an outcome."""
    found = {}
    for row in database.execute("SELECT * FROM trail WHERE old = ANY (%s) OR new = ANY (%s)", list(OVER), list(OVER)):
        found.setdefault(str(row["job"]), []).append((row["old"], row["new"]))
    return found


def patiently(database, statement, *values, limit=60):
    """A question that is asked again while the server is away."""
    deadline = time.monotonic() + limit
    while True:
        try:
            return database.execute(statement, *values)
        except psycopg2.Error:
            database.disconnect()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
