"""The stand-in for a QGIS image: busybox and the scripts of tests/standin, imported into the engine without a registry.

Its tag is a hash of what is in it, so it is made again only when that changes. Each run has a tag of its own besides,
by which its containers are told from those of others on the same engine.
"""

import hashlib
import io
import json
import os
import re
import struct
import subprocess
import tarfile

from . import BedError, cleanup

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "standin")
REPOSITORY = "qfc-worker-standin"
PODMANS = "docker.io/library/"  # what podman puts before such a name
BUSYBOX = "/bin/busybox"
ENTRYPOINT = ["/bin/sh", "-c", '/usr/bin/xvfb-run -a "$@"', ""]
CHANGES = [f"ENTRYPOINT {json.dumps(ENTRYPOINT)}", "WORKDIR /usr/src/app", "ENV PATH=/usr/bin:/bin LANG=C.UTF-8"]
PROGRAMS = {"python3", "xvfb-run"}
DIRECTORIES = ["bin", "usr", "usr/bin", "usr/src", "usr/src/app", "etc", "io", "root", "proc", "sys", "dev", "tmp"]


def _has_interpreter(program):
    """Does a 64 bit ELF program name a dynamic linker (a program header of type 3)?"""
    (table,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    return any(struct.unpack_from("<I", program, table + i * size) == (3,) for i in range(count))


def _busybox():
    with open(BUSYBOX, "rb") as file:
        content = file.read()
    if _has_interpreter(content):
        raise BedError(f"{BUSYBOX} is linked dynamically: the stand-in image needs the package busybox-static")
    return content


def _scripts():
    """{path in the image: path here} of everything in tests/standin."""
    found = {}
    for directory, _, names in sorted(os.walk(SOURCE)):
        for name in sorted(names):
            here = os.path.join(directory, name)
            relative = os.path.relpath(here, SOURCE)
            found[("usr/bin/" if relative in PROGRAMS else "usr/src/app/") + relative] = here
    return found


def _add(tar, name, content=b"", mode=0o644, type_=tarfile.REGTYPE, link=""):
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.linkname, entry.size = mode, type_, link, len(content)
    tar.addfile(entry, io.BytesIO(content))


def root_file_system():
    """The image's files as a tar archive, the same bytes for the same sources."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in DIRECTORIES:
            _add(tar, name, mode=0o1777 if name == "tmp" else 0o755, type_=tarfile.DIRTYPE)
        _add(tar, "bin/busybox", _busybox(), 0o755)
        for name in subprocess.run([BUSYBOX, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split():
            if name != "busybox":
                _add(tar, f"bin/{name}", mode=0o777, type_=tarfile.SYMTYPE, link="busybox")
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        for name, here in _scripts().items():
            with open(here, "rb") as file:
                _add(tar, name, file.read(), 0o755 if name.startswith("usr/bin/") else 0o644)
    return buffer.getvalue()


class Image:
    """The stand-in image in an engine; `name` is this run's own."""

    def __init__(self, docker, session):
        self.docker = docker
        content = root_file_system()
        digest = hashlib.sha256(content + json.dumps(CHANGES).encode()).hexdigest()[:16]
        shared = f"{REPOSITORY}:{digest}"
        if not docker.image(shared):
            docker.import_image(content, REPOSITORY, digest, CHANGES)
            self._forget_older(shared)
        self.name = f"{REPOSITORY}:{session}"
        docker.tag(shared, REPOSITORY, session)
        self._remove = cleanup.later(docker.remove_image, self.name)

    def _forget_older(self, newest):
        """Removes the tags of earlier contents; a run that still uses one has its own tag."""
        for image in self.docker.get("/images/json", filters={"reference": [f"{REPOSITORY}:*"]}):
            for name in (tag.removeprefix(PODMANS) for tag in image["RepoTags"] or []):
                if name != newest and re.fullmatch(r"[0-9a-f]{16}", name.partition(":")[2]):
                    self.docker.remove_image(name)

    def close(self):
        cleanup.now(self._remove)
