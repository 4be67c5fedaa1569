"""Runs a command with a throwaway PostgreSQL: `with_postgres.py COMMAND ...`; its exit code is the command's.

The command finds QFC_TEST_DATABASE_URL (an empty database) and QFC_TEST_PG_CTL, which it may call with start, stop or
restart, e.g. `$QFC_TEST_PG_CTL restart -m immediate`.
"""

import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bed import cleanup  # noqa: E402
from bed.postgres import Server  # noqa: E402


def environment(server, env):
    """`env` and what programs need to know of a server, with an empty database made for them."""
    server.create("empty")
    return {**env, "QFC_TEST_DATABASE_URL": server.url("empty"), "QFC_TEST_PG_CTL": server.pg_ctl_path}


def main():
    cleanup.on_signals()
    server = Server()
    try:
        return subprocess.run(sys.argv[1:], env=environment(server, os.environ), check=False).returncode
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
