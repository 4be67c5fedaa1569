"""A base image for docker/Dockerfile where no registry is at hand: made by debootstrap of this machine's own release and
mirrors, and kept in the engine for later runs."""

import hashlib
import os
import re
import shutil
import subprocess

from . import BedError, cleanup

REPOSITORY = "qfc-worker-base"
LEFT_OUT = ("./var/cache/apt/archives/*.deb", "./var/lib/apt/lists/*", "./usr/share/doc/*", "./usr/share/locale/*")


def _output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _release():
    """(distribution, code name) of this machine."""
    with open("/etc/os-release", encoding="utf-8") as file:
        said = dict(line.strip().split("=", 1) for line in file if "=" in line)
    return said["ID"].strip('"'), said["VERSION_CODENAME"].strip('"')


def _sources(distribution, suite):
    """{(mirror, suite, components)} of the distribution's own that apt uses here; the first is that of the release."""
    wanted = re.compile(rf"{suite}(-updates|-security)?$")
    found = {}
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    for line in _output("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines():
        mirror, release, component, origin = (line + " ").split(" ", 3)
        name = release if wanted.match(release) else None
        if name and distribution in origin.lower():
            found.setdefault((mirror, name), set()).add(component)
    chosen = sorted((name != suite, mirror, name, components) for (mirror, name), components in found.items())
    if not chosen or chosen[0][0]:
        raise BedError(f"apt has no source for {distribution} {suite} here")
    return [(mirror, name, " ".join(sorted(components))) for _, mirror, name, components in chosen]


def _make(docker, tag, suite, sources):
    directory, remove = cleanup.directory("base")
    root = os.path.join(directory, "root")
    try:
        done = subprocess.run(["debootstrap", "--variant=minbase", suite, root, sources[0][0]], capture_output=True,
                              text=True, check=False)  # fmt: skip
        if done.returncode:
            raise BedError(f"debootstrap {suite} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        with open(os.path.join(root, "etc/apt/sources.list"), "w", encoding="utf-8") as file:
            file.writelines(f"deb {mirror} {name} {components}\n" for mirror, name, components in sources)
        for name in os.listdir("/etc/apt/apt.conf.d"):
            path = os.path.join("/etc/apt/apt.conf.d", name)
            with open(path, encoding="utf-8") as file:
                if re.search(r"^\s*Acquire\b", file.read(), re.MULTILINE):  # proxies, and how mirrors are believed
                    shutil.copy(path, os.path.join(root, "etc/apt/apt.conf.d"))
        archive = os.path.join(directory, "base.tar")
        subprocess.run(["tar", "-C", root, "-cf", archive, *(f"--exclude={name}" for name in LEFT_OUT), "."], check=True)
        with open(archive, "rb") as file:
            docker.import_image(file.read(), REPOSITORY, tag, [])
    finally:
        shutil.rmtree(root, ignore_errors=True)
        cleanup.now(remove)


def find(docker):
    """The name of a base image in this engine, which is made where there is none."""
    distribution, suite = _release()
    sources = _sources(distribution, suite)
    tag = f"{suite}-{hashlib.sha256(repr((sources, LEFT_OUT)).encode()).hexdigest()[:12]}"
    name = f"{REPOSITORY}:{tag}"
    if not docker.image(name):
        _make(docker, tag, suite, sources)
    return name
