"""What `status` and `check` cost behind a long history: the program itself, from its start to its end, against the same on a
database without jobs.

Databases: empty; five million ended jobs spread over 1000 days (with --pairs below 10: 200,000); and a million (50,000)
that were all made in the last two days, which may be more than are looked at. Each is asked with 20 and with 20,000 pending jobs, a
tenth of them amid the history, of projects that are locked or busy. The tables are analysed first; then once more with
20,000 that came after that, so that PostgreSQL expects few. The databases are asked in turns, so that others' work on the
machine meets them alike; what counts is the difference of the medians.
"""

import statistics
import subprocess
import time

import history

LIMIT_MS = 200
FEWEST_ROUNDS = 10
SIZES = ((5_000_000, 1_000_000), (200_000, 50_000))
# All of `check` that asks the database; the rest does not know of jobs, and takes as long as its container does.
CHECK = "release,privileges,triggers,indexes,secrets,clock,workers,queue,jobs,queued,projects"
COMMANDS = (("status",), ("status", "--json"), ("check", "--only", CHECK))
PENDING = ((20, 0), (20_000, 0), (20, 19_980))


class Behind(history.Case):
    """A database with so many ended jobs made within so many days."""

    def __init__(self, bed, name, ended, days):  # pylint: disable=super-init-not-called
        self.bed, self.name, self.ended, self.days = bed, name, ended, days
        self.database = bed.server.database(history.RELEASE)
        self.user = history.make_projects(self.database, history.PROJECTS)
        self.database.execute("ALTER TABLE core_job SET (autovacuum_enabled = off)")
        table = self.database.project_table
        locked = f"SELECT id FROM {table} ORDER BY name LIMIT {history.LOCKED}"
        self.database.execute(f"UPDATE {table} SET locked_at = now() WHERE id IN ({locked})")
        self._fill()

    def _insert(self, cursor, text, **values):
        super()._insert(cursor, text.replace("interval '1000 days'", f"interval '{self.days} days'"), **values)

    def ms(self, command):
        began = time.perf_counter()
        subprocess.run(
            [self.bed.binary, *command],
            env={**self.bed.worker.env, **self.database.settings},
            stdout=subprocess.DEVNULL,
            check=command[0] != "check",  # it has something to complain about
        )
        return 1000 * (time.perf_counter() - began)

    def close(self):
        self.database.close()


def measure(cases, command, rounds):
    """The cases' medians in ms; who is first changes from round to round."""
    times = {case: [] for case in cases}
    for case in cases:
        case.ms(command)
    for number in range(rounds):
        turn = number % len(cases)
        for case in cases[turn:] + cases[:turn]:
            times[case].append(case.ms(command))
    return [statistics.median(times[case]) for case in cases]


def run(bed, pairs):
    began = time.monotonic()
    spread, dense = SIZES[pairs < FEWEST_ROUNDS]
    cases = [
        Behind(bed, "empty", 0, 1000),
        Behind(bed, f"{spread:,} ended", spread, 1000),
        Behind(bed, f"{dense:,} in 2 days", dense, 2),
    ]
    print(f"\nA look at the queue's state, medians in ms of {pairs} runs of the program, and what they cost more than"
          f" without history (databases made in {time.monotonic() - began:.0f} s):")
    titles = "".join(f"{case.name:>20}{'more':>8}" for case in cases[1:])
    print(f"    pending  {'':<18}{'empty':>9}{titles}        (*: few when the tables were analysed)")
    for pending in PENDING:
        for case in cases:
            case.set_pending(*pending)
        for command in COMMANDS:
            base, *longer = measure(cases, command, pairs)
            figures = "".join(f"{ms:>20.0f}{ms - base:>8.0f}" for ms in longer)
            verdict = "within" if max(longer) - base <= LIMIT_MS else "over"
            print(f"    {history.name_of(pending):>7}  {' '.join(command)[:18]:<18}{base:>9.0f}{figures}  {verdict} {LIMIT_MS}",
                  flush=True)
    for case in cases:
        case.close()
