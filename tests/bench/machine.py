"""What the numbers were measured on."""

import os
import re

from bed.docker import DockerError


def _processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"^model name\s*: (.*)$", file.read(), re.MULTILINE)
    return found.group(1) if found else os.uname().machine


def _engine(docker):
    try:
        version = docker.get("/version", plain=True)
    except (OSError, DockerError) as error:
        return str(error)
    return f"{version.get('Version')}, API {version.get('ApiVersion')}"


def describe(docker, server, binary_version):
    """Lines for the head of the output."""
    connection = server.connect("postgres", superuser=True)
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        postgresql = cursor.fetchone()[0]
    connection.close()
    return [
        f"program     {binary_version}, built for release",
        f"processor   {_processor()}, {len(os.sched_getaffinity(0))} cores",
        f"kernel      {os.uname().sysname} {os.uname().release}",
        f"engine      {_engine(docker)}",
        f"PostgreSQL  {postgresql}, without fsync",
        "load        {:.1f} {:.1f} {:.1f} at first; work of others makes times noisy".format(*os.getloadavg()),
    ]
