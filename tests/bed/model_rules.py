"""What must hold in a run of the model test, each rule a function that yields complaints; and the report of a run.

Two jobs of one project may be active for a moment where an old loop has one of them: it sees the other, and puts its
own back. Two containers of it may run only where both are old loops', or where the row of one was taken away, or ended,
by somebody else: then its worker does not know yet, and may even be about to start it.
"""

import collections
import json
import secrets
import threading
import time

from .fast_engine import Event
from .model import GOOD, MANY, RESULTS

SHOWN = 4
UNFIT = "the engine runs no containers"
TOKENS = "SELECT count(*) AS count FROM authentication_authtoken WHERE key LIKE 'qfcworker%'"


class EngineEvents:
    """What a real engine says has happened to the containers with a label, from now on."""

    WHAT = {"create": "create", "start": "start", "die": "exit", "destroy": "remove"}

    def __init__(self, docker, label):
        self.docker, self.found, self.label = docker, [], label
        self._stream = docker.open("GET", "/events", timeout=3600)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while line := self._stream.readline():
                self.found.append(json.loads(line))
        except (OSError, ValueError, AttributeError):
            pass  # it hung up

    def all(self, image):
        """All up to now: a new name for an image is the mark up to which is read."""
        mark = f"qfc-bed-mark:{secrets.token_hex(8)}"
        self.docker.tag(image, *mark.split(":"))
        deadline = time.monotonic() + 60
        while not any(event["Actor"]["Attributes"].get("name") == mark for event in list(self.found)):
            assert time.monotonic() < deadline, "the engine's events do not come"
            time.sleep(0.02)
        self.docker.remove_image(mark)
        return [self._event(event) for event in self.found if self._counts(event)]

    def _counts(self, event):
        ours = event["Actor"]["Attributes"].get("app") == self.label
        return event.get("Type") == "container" and ours and event["Action"] in self.WHAT

    def _event(self, event):
        said = event["Actor"]["Attributes"]
        ours = said["name"].startswith("qfc-")
        at = event["timeNano"] / 1e9
        return Event(at, self.WHAT[event["Action"]], event["Actor"]["ID"], said["job_id"], said["project_id"], ours)


class Facts:
    """All that is known after a run."""

    def __init__(self, crowd, log, events):
        self.crowd, self.log, self.events, self.database = crowd, log, events, crowd.database
        self.web, self.plan, self.old_loops = crowd.web, crowd.plan, crowd.old_loops
        self.rows = {str(row["id"]): row for row in self.database.execute("SELECT * FROM core_job")}
        self.starts = [event for event in events if event.what == "start"]
        self.lost = set().union(*(old.lost for old in self.old_loops))
        self.killed = {container for old in self.old_loops for container in old.killed}

    def ended_by(self):
        """{True: how many the program ended, False: how many old loops did}."""
        return collections.Counter(self.log.enders())

    def story(self, job_id):
        """What became of a job, for a complaint."""
        lines = [(e.at, f"{e.what} {e.container[:12]}") for e in self.events if e.job == job_id]
        lines += [(r.at.timestamp(), f"{r.op} {r.old_status} > {r.new_status}") for r in self.log.changes(job_id)]
        told = [m for output in self.crowd.outputs for m in output.messages(job={"id": job_id})]
        return "\n".join([f"    {at:.3f} {text}" for at, text in sorted(lines)] + [f"    {text}" for text in told])

    def locked(self, job):
        table = self.database.project_table
        return self.database.value(f"SELECT locked_at FROM {table} WHERE id = %s", job["project_id"])

    def taken_away(self, job_id, before):
        """Had somebody else deleted or ended the job's row by then?"""
        elsewhere = job_id in self.web.deleted | self.web.cleaned
        return elsewhere and self.log.dead_since(job_id) <= before

    def overlaps(self):
        """(running, started): each start of a container beside a running one of the same project."""
        running, found = {}, []
        for event in self.events:
            beside = running.setdefault(event.project, {})
            if event.what == "start":
                found += [(other, event) for other in beside.values()]
                beside[event.container] = event
            elif event.what in ("exit", "kill", "remove"):
                beside.pop(event.container, None)
        return found


# The rules


def players_are_well(facts):
    """The test's own side, or nothing below means anything."""
    yield from facts.web.failures
    yield from (f"an old loop failed: {old.failure!r}" for old in facts.old_loops if old.failure)
    yield from ("an old loop hangs" for old in facts.old_loops if old.is_alive())
    if facts.crowd.observer.failure:
        yield f"the observer failed: {facts.crowd.observer.failure!r}"
    for output in facts.crowd.outputs:
        if output.returncode != 0:
            yield f"a process ended with {output}"
        # Faults that are played meet a worker several times in a row now and then.
        errors = (message for message in output.messages("error") if not message.startswith(UNFIT))
        yield from (f"logged as an error: {message}" for message in errors)


def never_two_of_ours(facts):
    """By the log of transitions, and by polling."""
    for project, job, other in facts.log.two_of_ours():
        yield f"job {job} was claimed beside job {other} of project {project}"
    for project, jobs in facts.crowd.observer.two:
        yield f"seen active in project {project} at the same time: {jobs}"


def never_two_containers(facts):
    for running, started in facts.overlaps():
        excused = any(facts.taken_away(job, started.at) for job in (running.job, started.job))
        if (running.ours or started.ours) and not excused:
            whose = ["an old loop's", "ours"]
            yield (
                f"container of job {started.job} ({whose[started.ours]}) began beside that of {running.job}"
                f" ({whose[running.ours]}) in project {running.project}:\n{facts.story(running.job)}\n  and\n"
                f"{facts.story(started.job)}"
            )


def no_job_runs_twice(facts):
    for job, count in collections.Counter(event.job for event in facts.starts).items():
        if count > 1:
            yield f"job {job} was started {count} times"


def saved_before_started(facts):
    """A container of ours starts with its id in a row that is `started`: else old loops would kill it, and a job that
    is gone would run."""
    for event in facts.starts:
        saved = [r for r in facts.log.changes(event.job) if r.new_container == event.container]
        if event.ours and not any(r.new_status == "started" and r.at.timestamp() <= event.at for r in saved):
            yield f"container of job {event.job} started before its id was saved"


def locks_are_honoured(facts):
    for claim in facts.log.claims:
        if claim.locked:
            yield f"job {claim.job_id} was claimed while its project {claim.project_id} was locked"


def nothing_before_its_time(facts):
    for claim in facts.log.claims:
        if claim.early:
            yield f"job {claim.job_id} was claimed before it was to be tried again"


def order(facts):
    """Of all jobs that a claim must have seen: bed/model_log.py says which."""
    for claim in facts.log.claims:
        if claim.overtaken_own:
            yield f"job {claim.job_id} was claimed before {claim.overtaken_own}, which is older in the same project"
        if claim.overtaken:
            yield f"job {claim.job_id} was claimed before {claim.overtaken}, which is older, was free and not locked"


def started_in_order(facts):
    """The program's containers of one project start by age, whatever was put back; jobs that were committed late, or
    whose row was gone by then, do not count."""
    last = {}
    for event in facts.starts:
        job = facts.web.of_id[event.job]
        if not event.ours or job.late or facts.taken_away(event.job, event.at):
            continue
        created = facts.log.changes(event.job)[0].created_at
        if last.get(event.project, created) > created:
            yield f"job {event.job} of project {event.project} was started after a younger one"
        last[event.project] = created


def many_delay_nobody(facts):
    """While the project with very many jobs has some, at least as many others are claimed."""
    many = str(facts.web.projects[MANY]["id"])
    claims = facts.log.all_claims()
    own = [index for index, claim in enumerate(claims) if claim.project_id == many]
    others = own[-1] - own[0] + 1 - len(own) if own else 0
    if others < len(own) or not own:
        yield f"while the {len(own)} jobs of one project were claimed, only {others} of all others were"


def each_ends_once(facts):
    for job_id, job in facts.web.of_id.items():
        endings, row = facts.log.endings(job_id), facts.rows.get(job_id)
        if row and not endings:
            yield f"job {job_id} is {row['status']} for ever: {row}, project locked: {facts.locked(row)}"
        if len(endings) > 1:
            yield f"job {job_id} has ended {len(endings)} times: {[r.new_status for r in endings]}"
        if (row is None) != (job_id in facts.web.deleted):
            yield f"job {job_id} is {'gone' if row is None else 'there'}, but was {'not ' * (row is None)}deleted"
        wanted = "failed" if job_id in facts.web.cleaned else job.status
        if endings and row and row["status"] != wanted and job_id not in facts.lost:
            yield f"job {job_id} ({job.outcome}) is {row['status']}: {row['feedback']}"


def deltas_are_decided(facts):
    told = {}
    for row in facts.database.execute("SELECT apply_job_id, delta_id, status, last_status FROM core_applyjobdelta a"
                                      " JOIN core_delta d ON d.id = a.delta_id"):  # fmt: skip
        told.setdefault(str(row["apply_job_id"]), {})[row["delta_id"]] = (row["status"], row["last_status"])
    for job_id in facts.rows:
        job = facts.web.of_id[job_id]
        failed = job.outcome != GOOD or job_id in facts.web.cleaned or job_id in facts.lost
        wanted = {delta: 2 * ("error" if failed else RESULTS[result],) for delta, result in job.deltas.items()}
        if told.get(job_id, {}) != wanted:
            yield f"the deltas of job {job_id} ({job.outcome}) are {told.get(job_id)}, not {wanted}"


def old_loops_kill_only_orphans(facts):
    job_of = {event.container: event.job for event in facts.events if event.ours}
    for container in facts.killed & set(job_of):
        if job_of[container] not in facts.web.deleted:
            yield f"an old loop took the container of job {job_of[container]} for an orphan"


def nothing_is_left(facts):
    marked = facts.database.value("SELECT count(*) FROM core_job WHERE container_id LIKE 'qfc-worker:%'")
    if marked:
        yield f"{marked} rows have a marker"
    if facts.database.value(TOKENS):
        yield "tokens are left"
    removed = {event.container for event in facts.events if event.what == "remove"}
    for event in facts.events:
        if event.ours and event.what == "create" and event.container not in removed:
            yield f"container {event.container} is left\n{facts.story(event.job)}"


def both_sides_go_on(facts):
    ended = facts.ended_by()
    if not ended[True]:
        yield "the program has ended no job"
    if not any(old.counts["ended"] for old in facts.old_loops):
        yield f"the old loops have ended no job: {[dict(old.counts) for old in facts.old_loops]}"


RULES = (
    players_are_well, never_two_of_ours, never_two_containers, no_job_runs_twice, saved_before_started,
    locks_are_honoured, nothing_before_its_time, order, started_in_order, many_delay_nobody, each_ends_once,
    deltas_are_decided, old_loops_kill_only_orphans, nothing_is_left, both_sides_go_on,
)  # fmt: skip


def complaints(facts):
    """The first few of each rule that is broken."""
    found = []
    for rule in RULES:
        texts = list(rule(facts))
        found += [f"{rule.__name__} ({len(texts)}): {text}" for text in texts[:SHOWN]]
    return found


def report(facts):
    """What happened, so that a run which met nothing is known from one that met much."""
    log, web, ended = facts.log, facts.web, facts.ended_by()
    counts = sum((old.counts for old in facts.old_loops), collections.Counter())
    judged = [claim for claim in log.claims if claim.judged]
    beside = [pair for pair in facts.overlaps() if pair[0].ours or pair[1].ours]
    late = sum(facts.taken_away(started.job, started.at) for _, started in beside)
    lines = (
        f"seed {facts.plan.seed}: {len(web.of_id)} jobs in {facts.crowd.took_s:.1f} s;"
        f" ended by the program {ended[True]}, by old loops {ended[False]}, by the task {len(web.cleaned)};"
        f" deleted {len(web.deleted)} ({len(web.gone_projects)} projects); {web.locks} locks of projects",
        f"  the program: {len(log.claims)} claims, {log.put_back(True)} put back;"
        f" {len(judged)} claims judged for order,"
        f" {sum(claim.excused or 0 for claim in judged)} older jobs excused, locked or just changed",
        f"  old loops: {counts['claims']} claims, {counts['yields']} yields,"
        f" {counts['serialization errors']} serialization errors, {counts['deaths by a deleted row']} deaths by a"
        f" deleted row, {counts['killed']} times killed, {len(facts.lost)} jobs lost, {len(facts.killed)} orphans killed",
        f"  containers: {len(facts.starts)} starts; {len(beside)} times two in a project, as a row had gone"
        f" ({late} times that of the later one); {facts.crowd.observer.polls} polls",
    )
    return "\n".join(lines)
