"""A job type's own SQL, as the program ships it, run on rows without a container: what is printed by the build's
tests/statements-of, which says more in its source."""

import json
import os
import re
import subprocess

PLACE = re.compile(r"\$(\d+)")


def adapted(sql, database):
    """The same statement as psycopg2 takes it. {project} is the only name that differs by release here."""
    text = sql.replace("{project}", database.project_table).replace("%", "%%")
    return PLACE.sub(r"%(p\1)s", text)


class Shipped:
    """The statements of a job type: `reads`, and those of each hook in the order in which they are sent."""

    def __init__(self, built, type_):
        program = os.path.join(os.path.dirname(built), "tests", "statements-of")
        words = [program, type_, "the job", "the project"]
        printed = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
        self.reads = [[sql, ["the job", "the project"]] for sql in printed.pop("reads")]
        self.hooks = printed

    @staticmethod
    def run(cursor, statements, job, database):
        """Runs them for a job, one after the other; returns the rows of each."""
        ids = {"the job": str(job["id"]), "the project": str(job["project_id"])}
        rows = []
        for sql, values in statements:
            given = {f"p{number}": ids.get(value, value) for number, value in enumerate(values, 1)}
            cursor.execute(adapted(sql, database), given)
            rows.append([dict(row) for row in cursor.fetchall()] if cursor.description else [])
        return rows
