"""The stand-in image with a real Python in the place of the script: this machine's own, with the modules that a request
over HTTP needs."""

import io
import os
import re
import subprocess
import tarfile

from . import cleanup
from .image import CHANGES, root_file_system

REPOSITORY = "qfc-worker-python"
PYTHON = os.path.realpath("/usr/bin/python3")
LOADED = """
import encodings.idna, http.client, json, os, socket, ssl, sys, urllib.error, urllib.request
for module in list(sys.modules.values()):
    print(getattr(module, "__file__", None) or "")
"""


def _libraries(path):
    said = subprocess.run(["ldd", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return re.findall(r"(/\S+) \(0x", said.stdout)


def _files():
    """All that this Python needs, and the libraries that these need."""
    said = subprocess.run([PYTHON, "-c", LOADED], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {path for path in said.split("\n") if path} | {PYTHON}
    for path in list(found):
        if path == PYTHON or path.endswith(".so"):
            found.update(_libraries(path))
    return sorted(found)


def file_system():
    """The image's files as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(root_file_system())) as standin, tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in standin:
            if entry.name != "usr/bin/python3":
                tar.addfile(entry, standin.extractfile(entry) if entry.isfile() else None)
        for path in _files():
            tar.add(os.path.realpath(path), arcname=path.lstrip("/"), recursive=False)
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, PYTHON
        tar.addfile(link)
    return buffer.getvalue()


class PythonImage:
    """In an engine, until close(); `name` is this run's own."""

    def __init__(self, docker, session):
        docker.import_image(file_system(), REPOSITORY, session, CHANGES)
        self.name = f"{REPOSITORY}:{session}"
        self._remove = cleanup.later(docker.remove_image, self.name)

    def close(self):
        cleanup.now(self._remove)
