"""What a database itself says about its queue: a log that triggers write, which misses no transition, and an observer
that polls beside it.

A row of model_log is written in the transaction that it tells of, by whoever changes a job. For each claim of the
program's it says, at the moment of the claim and under its locks:
- `locked`: the project's locked_at is set, as the claim will commit.
- `early`: the job had been put back, and the time that it was to wait is not over.
- `overtaken_own`: an older job of the same project that was pending.
- `overtaken`: an older job that was first in its own project, which could have been claimed.
The last two count only what the claim must have seen, whatever ran at the same time. That is decided by transaction
ids. The observer notes all the time which transaction is the oldest that still runs: all before that one have ended. Of
those notes a claim takes the last from before its own beginning (`began`). A row that was written by a transaction
before that is as it was when the claim's first snapshot was taken, and a row whose locker (xmax) is before that was
locked by nobody since. So an older job is `overtaken` only where its row, its project's row and all jobs of its project
have been left alone, the two rows also unlocked, since before the claim began: then SKIP LOCKED has no excuse.
`excused` counts those that were older and cannot be held against the claim.

Also the log makes the database slow now and then, between a claim's snapshot, its locks and its commit, so that the
races in between are wide.
"""

import threading

import psycopg2

STATEMENTS = """
CREATE SCHEMA model;
CREATE TABLE model_beat (at timestamptz PRIMARY KEY, running bigint NOT NULL);
CREATE TABLE model_start (xid bigint NOT NULL);
CREATE TABLE model_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL, xid bigint NOT NULL, op text NOT NULL,
    job_id uuid NOT NULL, project_id uuid NOT NULL, created_at timestamptz, old_status text, new_status text,
    old_container text, new_container text, claim_of_ours boolean NOT NULL, judged boolean, locked boolean,
    early boolean, overtaken_own uuid, overtaken uuid, excused integer);
CREATE INDEX ON model_log (job_id);
CREATE INDEX ON model_log (project_id, xid);

CREATE FUNCTION model_is_ours(job uuid) RETURNS boolean LANGUAGE sql AS $$
    SELECT claim_of_ours FROM model_log WHERE job_id = job AND new_status = 'queued' AND op = 'UPDATE'
        AND old_status = 'pending' ORDER BY id DESC LIMIT 1 $$;

CREATE FUNCTION model_left_alone(changed xid, locker xid, began bigint) RETURNS boolean LANGUAGE sql AS $$
    SELECT changed::text::bigint < began AND (locker::text::bigint = 0
        OR locker::text::bigint BETWEEN (SELECT xid FROM model_start) AND began - 1) $$;

CREATE FUNCTION model_judge(claim model_log) RETURNS model_log LANGUAGE plpgsql AS $$
DECLARE
    began bigint := (SELECT running FROM model_beat WHERE at < now() ORDER BY at DESC LIMIT 1);
    job core_job := (SELECT j FROM core_job j WHERE j.id = claim.job_id);
BEGIN
    claim.claim_of_ours := true;
    claim.judged := began IS NOT NULL;
    claim.overtaken_own := (SELECT id FROM core_job WHERE project_id = job.project_id AND status = 'pending'
        AND (created_at, id) < (job.created_at, job.id) AND xmin::text::bigint < began LIMIT 1);
    SELECT min(x.id::text) FILTER (WHERE x.left_alone)::uuid, count(*) FILTER (WHERE x.left_alone IS NOT TRUE)
    INTO claim.overtaken, claim.excused
    FROM (
        SELECT o.id, model_left_alone(o.xmin, o.xmax, began) AND model_left_alone(p.xmin, p.xmax, began)
            AND NOT EXISTS (SELECT FROM model_log l WHERE l.project_id = o.project_id AND l.xid >= began) AS left_alone
        FROM (SELECT DISTINCT ON (project_id) id, project_id, created_at, feedback, xmin, xmax FROM core_job
            WHERE status = 'pending' ORDER BY project_id, created_at, id) o JOIN {project} p ON p.id = o.project_id
        WHERE o.created_at < job.created_at AND p.id <> job.project_id AND p.locked_at IS NULL
            AND coalesce((o.feedback #>> '{qfc_worker,not_before}')::numeric, 0) <= extract(epoch FROM now())
            AND NOT EXISTS (SELECT FROM core_job b WHERE b.project_id = p.id AND b.status IN ('queued', 'started'))
    ) x;
    claim.early := coalesce((job.feedback #>> '{qfc_worker,not_before}')::numeric, 0)
        > extract(epoch FROM clock_timestamp());
    claim.locked := (SELECT locked_at IS NOT NULL FROM {project} WHERE id = job.project_id);
    RETURN claim;
END $$;

CREATE FUNCTION model_note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    line model_log;
BEGIN
    line.xid := pg_current_xact_id()::text::bigint;
    line.op := TG_OP;
    line.claim_of_ours := false;
    IF TG_OP <> 'INSERT' THEN
        line.job_id := OLD.id; line.project_id := OLD.project_id; line.created_at := OLD.created_at;
        line.old_status := OLD.status; line.old_container := OLD.container_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        line.job_id := NEW.id; line.project_id := NEW.project_id; line.created_at := NEW.created_at;
        line.new_status := NEW.status; line.new_container := NEW.container_id;
    END IF;
    IF line.old_status = 'pending' AND line.new_status = 'queued' THEN
        IF random() < 0.15 THEN
            PERFORM pg_sleep(random() * 0.015);
        END IF;
        IF line.new_container LIKE 'qfc-worker:%' THEN
            line := model_judge(line);
        END IF;
    END IF;
    line.at := clock_timestamp();
    IF (line.old_status, line.old_container) IS DISTINCT FROM (line.new_status, line.new_container) THEN
        INSERT INTO model_log (at, xid, op, job_id, project_id, created_at, old_status, new_status, old_container,
            new_container, claim_of_ours, judged, locked, early, overtaken_own, overtaken, excused)
        VALUES (line.at, line.xid, line.op, line.job_id, line.project_id, line.created_at, line.old_status,
            line.new_status, line.old_container, line.new_container, line.claim_of_ours, line.judged, line.locked,
            line.early, line.overtaken_own, line.overtaken, line.excused);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER model_note AFTER INSERT OR UPDATE OR DELETE ON core_job FOR EACH ROW EXECUTE FUNCTION model_note();

-- Found before the real one: a claim asks it between its snapshot and its locks.
CREATE FUNCTION model.jsonb_typeof(value jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('model.asked', true) IS DISTINCT FROM now()::text THEN -- once in a transaction
        PERFORM set_config('model.asked', now()::text, false);
        IF random() < 0.25 THEN
            PERFORM pg_sleep(random() * 0.025);
        END IF;
    END IF;
    RETURN pg_catalog.jsonb_typeof(value);
END $$;
ALTER DATABASE {database} SET search_path = model, pg_catalog, public;

-- No row has a locker from before this: so a smaller xmax is the number of several lockers, which excuses.
UPDATE {project} SET name = name;
UPDATE core_job SET type = type;
INSERT INTO model_start SELECT pg_current_xact_id()::text::bigint;
"""

BEAT = "INSERT INTO model_beat SELECT clock_timestamp(), pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
TWO_OF_OURS = (
    "SELECT project_id, array_agg(id) FROM core_job WHERE status IN ('queued', 'started') AND model_is_ours(id)"
    " GROUP BY 1 HAVING count(*) > 1"
)


def install(database):
    """To be called when the first projects are there, before anybody works."""
    # psycopg2 sends the whole text as one transaction
    text = STATEMENTS.replace("{project}", database.project_table).replace("{database}", f'"{database.name}"')
    database.execute(text)
    database.disconnect()


class Observer(threading.Thread):
    """Polls until stop(): `two` is what it has seen of two active jobs in one project, both the program's."""

    def __init__(self, database):
        super().__init__(daemon=True)
        self.database, self.two, self.polls, self.failure, self._stopped = database, [], 0, None, threading.Event()

    def run(self):
        connection = self.database.connect()
        try:
            with connection.cursor() as cursor:
                while not self._stopped.wait(0.01):
                    cursor.execute(BEAT)
                    cursor.execute(TWO_OF_OURS)
                    self.two += cursor.fetchall()
                    self.polls += 1
        except psycopg2.Error as error:
            self.failure = error
        finally:
            connection.close()

    def stop(self):
        self._stopped.set()
        self.join(60)


class Log:
    """The log of one run, read once it is over."""

    def __init__(self, database):
        self.rows = [Line(row) for row in database.execute("SELECT * FROM model_log ORDER BY id")]
        self.claims = [row for row in self.rows if row.claim_of_ours]
        self.of_job = {}
        for row in self.rows:
            self.of_job.setdefault(row.job_id, []).append(row)

    def changes(self, job_id):
        return self.of_job.get(job_id, [])

    def endings(self, job_id):
        """The transitions to an end."""
        ends = ("finished", "failed")
        return [r for r in self.changes(job_id) if r.new_status in ends and r.old_status != r.new_status]

    def dead_since(self, job_id):
        """When its row was first deleted or ended; seconds since 1970, or infinity."""
        times = [r.at for r in self.changes(job_id) if r.op == "DELETE" or r.new_status in ("finished", "failed")]
        return min((time.timestamp() for time in times), default=float("inf"))

    def all_claims(self):
        """The program's and the old loops'."""
        return [r for r in self.rows if (r.old_status, r.new_status) == ("pending", "queued")]

    def _owners(self):
        """Each line with whose its job was until then: the program's (True), an old loop's (False), nobody's (None)."""
        owner = {}
        for row in self.rows:
            yield row, owner.get(row.job_id)
            if (row.old_status, row.new_status) == ("pending", "queued"):
                owner[row.job_id] = row.claim_of_ours
            elif row.new_status not in ("queued", "started"):
                owner.pop(row.job_id, None)

    def enders(self):
        """Of each end: True where the program's container was at it, False for old loops."""
        for row, owner in self._owners():
            if row.new_status in ("finished", "failed") and row.old_status in ("queued", "started"):
                yield owner

    def put_back(self, ours):
        """Ways back to `pending`, by the program or by old loops."""
        back = [owner for row, owner in self._owners() if row.op == "UPDATE" and row.new_status == "pending"]
        return back.count(ours)

    def two_of_ours(self):
        """Claims of the program's in a project where it had another active job. A claim may follow an end only once
        that has committed, so the log's order is enough."""
        active, found = {}, []
        for row, owner in self._owners():
            beside = active.setdefault(row.project_id, set())
            if row.claim_of_ours:
                found += [(row.project_id, row.job_id, other) for other in beside]
                beside.add(row.job_id)
            elif owner and row.new_status not in ("queued", "started"):
                beside.discard(row.job_id)
        return found


class Line:
    """A row of the log; ids are texts."""

    def __init__(self, row):
        self.__dict__.update(row)
        self.job_id, self.project_id = str(self.job_id), str(self.project_id)
