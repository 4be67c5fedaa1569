"""Comparing a whole database with how it must be: as it was before, but for what is said.

`Expected` starts as the dump from before; effects change, remove and add rows in it. What then differs from the dump
afterwards is a difference, missing or superfluous. Where a value cannot be known beforehand it is one of the classes
below, each of which equals what it describes.
"""

import datetime
import re

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class Text:
    """A text that has, as a whole, a form."""

    def __init__(self, form):
        self.form = form

    def __eq__(self, other):
        return isinstance(other, str) and re.fullmatch(self.form, other, re.DOTALL) is not None

    def __repr__(self):
        return f"<text like {self.form}>"


class Uuid(Text):
    """Any UUID."""

    def __init__(self):
        super().__init__(UUID)


class NewId:
    """A number that an identity column gave."""

    def __eq__(self, other):
        return isinstance(other, int)

    def __repr__(self):
        return "<a new id>"


class Between:
    """A time from `low` to `high`, all as texts of a dump."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def __eq__(self, other):
        if not all(isinstance(text, str) for text in (self.low, other, self.high)):
            return False
        low, time, high = (datetime.datetime.fromisoformat(text) for text in (self.low, other, self.high))
        return low <= time <= high

    def __repr__(self):
        return f"<from {self.low} to {self.high}>"


class Either:
    """One of several."""

    def __init__(self, *values):
        self.values = values

    def __eq__(self, other):
        return any(value == other for value in self.values)

    def __repr__(self):
        return " or ".join(repr(value) for value in self.values)


class Expected:
    """How the database must be; `columns` are the names of each table's columns."""

    def __init__(self, before, columns):
        self.rows = {table: dict(rows) for table, rows in before.items()}
        self.before, self.columns, self.added = before, columns, []

    def change(self, table, key, **columns):
        """The row has these values afterwards, and in all other columns what it had."""
        unknown = columns.keys() - self.rows[table][str(key)].keys()
        assert not unknown, f"{table} has no column {unknown}"
        self.rows[table][str(key)] = {**self.rows[table][str(key)], **columns}

    def remove(self, table, key):
        """The row is gone afterwards."""
        del self.rows[table][str(key)]

    def add(self, table, **columns):
        """Afterwards there is a new row; all of its columns are given."""
        differing = self.columns[table] ^ columns.keys()
        assert not differing, f"a row of {table} differs from the table in its columns: {differing}"
        self.added.append((table, columns))

    def differences(self, after):
        """Each way in which `after` is not as it must be, as a line."""
        return list(self._differences(after))

    def _differences(self, after):
        for table in self.rows:
            old, new = self.rows[table], after[table]
            for key in old.keys() - new.keys():
                yield f"{table} {key}: is gone, and must not be"
            for key in old.keys() & new.keys():
                yield from differing_columns(f"{table} {key}", old[key], new[key])
            for key in (self.before[table].keys() - old.keys()) & new.keys():
                yield f"{table} {key}: is still there, and must not be"
            yield from self._new_rows(table, [new[key] for key in new.keys() - self.before[table].keys()])

    def _new_rows(self, table, found):
        wanted = []
        for row in [row for name, row in self.added if name == table]:
            if row in found:
                found.remove(row)
            else:
                wanted.append(row)
        for row in wanted:
            nearest = next((other for other in found if len(columns_differing(row, other)) == 1), None)
            if nearest is None:
                yield f"{table}: a new row is missing: {row}"
            else:  # what it was meant to be
                found.remove(nearest)
                yield from differing_columns(f"{table}, a new row", row, nearest)
        for row in found:
            yield f"{table}: there is a new row, and must not be: {row}"


def columns_differing(expected, found):
    return [column for column in expected if not expected[column] == found[column]]


def differing_columns(name, expected, found):
    for column in sorted(expected):
        yield from differing_values(f"{name}: {column}", expected[column], found[column])


def differing_values(name, expected, found):
    """Goes into JSON as far as both sides are built alike."""
    if expected == found:
        return
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        for key in expected:
            yield from differing_values(f"{name}.{key}", expected[key], found[key])
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, pair in enumerate(zip(expected, found)):
            yield from differing_values(f"{name}[{index}]", *pair)
    else:
        yield f"{name} is {found!r}, and must be {expected!r}"
