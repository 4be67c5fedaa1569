"""The very statements that a program sends, as the server's log has them, with their values.

What is held against the program can so never fall behind it: it uses what ships, recorded at the beginning of each run.
"""

import os
import re

LINE = re.compile(r"^[0-9-]+ [0-9:.]+ \S+ \[(\d+)\] \S*@(\S+) (\w+):  (.*)", re.DOTALL)
# As the session for claims has it: see queue/lanes.c.
OPTIONS = {"PGOPTIONS": "-c plan_cache_mode=force_generic_plan"}
VALUE = re.compile(r"\$\d+ = (NULL|'(?:[^']|'')*')")


class Statement:
    """One that was executed: which session sent it, its text with $1 and so on, and their values, as text or None."""

    def __init__(self, session, sql):
        self.session, self.sql, self.values = session, sql, []


def _value(text):
    return None if text == "NULL" else text[1:-1].replace("''", "'")


def _entries(text):
    """Whole entries of the log: what follows a line's first belongs to it and begins with a tab."""
    entry = None
    for line in text.splitlines():
        if line.startswith("\t"):
            entry = f"{entry}\n{line[1:]}"
            continue
        if entry:
            yield entry
        entry = line
    if entry:
        yield entry


def parse(text, name):
    """The statements with values of their own (the extended protocol's) in a piece of the log, for database `name`."""
    found, last = [], {}
    for session, database, kind, rest in (match.groups() for match in map(LINE.match, _entries(text)) if match):
        if database != name:
            continue
        executed = re.match(r"execute \S+: (.*)", rest, re.DOTALL)
        if kind == "LOG" and executed:
            last[session] = Statement(session, executed.group(1))
            found.append(last[session])
        elif kind == "DETAIL" and rest.lower().startswith("parameters: ") and session in last:
            last[session].values = [_value(value) for value in VALUE.findall(rest)]
    return [anywhere(statement) for statement in found]


def anywhere(statement):
    """The same for any session: a claim names the one that it is meant for, in its last value."""
    number, own = len(statement.values), str(statement.session)
    named = f"pg_backend_pid() = ${number}::integer"
    if number and statement.values[-1] == own and named in statement.sql:
        statement.sql = statement.sql.replace(named, "pg_backend_pid() = pg_backend_pid()")
        statement.values.pop()
    return statement


def by_session(statements):
    """{session: its statements}, in the order in which the sessions begin."""
    sessions = {}
    for statement in statements:
        sessions.setdefault(statement.session, []).append(statement)
    return sessions


def without_setup(statements):
    """The same without what each connection of the queue begins with: which release the database belongs to is asked
    last of that."""
    found = by_session(statements)
    for session, sent in found.items():
        last = max(i for i, statement in enumerate(sent) if "pg_is_in_recovery() AS standby" in statement.sql)
        found[session] = sent[last + 1 :]
    return found


class Recording:
    """As a context: what new sessions of a database send goes to the log. sent() finds what came between begin() and
    stop(), or the beginning and now."""

    def __init__(self, database):
        self.database, self.server = database, database.server
        self._begin = self._end = None

    def _administer(self, change):
        connection = self.server.connect("postgres", superuser=True)
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{self.database.name}" {change}')
        connection.close()

    def __enter__(self):
        self._administer("SET log_statement = 'all'")
        self.begin()
        return self

    def __exit__(self, *_):
        self._administer("RESET log_statement")

    def begin(self):
        self._begin, self._end = os.path.getsize(self.server.log), None

    def stop(self):
        self._end = self._end or os.path.getsize(self.server.log)

    def sent(self):
        end = self._end or os.path.getsize(self.server.log)
        with open(self.server.log, "rb") as file:
            file.seek(self._begin)
            text = file.read(end - self._begin).decode(errors="replace")
        return parse(text, self.database.name)
