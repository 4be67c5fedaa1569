"""What must not be there after a test: containers, volumes, tokens and files that were not there before.

Others may use the same engine: containers count as ours by the network or the labels of this run, and a volume only
when one of them has had it and it stays, used by nobody. What is just going is given time.
"""

import json
import os
import secrets
import threading
import time

PATIENCE_S = 10


class Mounted:
    """The volumes that our containers have had since this was made, as the engine tells."""

    def __init__(self, docker, is_ours):
        self._docker, self._is_ours = docker, is_ours
        self._containers, self._volumes, self._marks = set(), set(), set()
        kinds = {"type": ["container", "volume"], "event": ["create", "mount"]}
        self._stream = docker.open("GET", "/events", timeout=3600, filters=kinds)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while line := self._stream.readline():
                self._take(json.loads(line))
        except (OSError, ValueError, AttributeError):
            pass  # the engine was stopped

    def _take(self, event):
        name, said = event["Actor"]["ID"], event["Actor"]["Attributes"]
        if event["Type"] == "container" and self._is_ours(said):
            self._containers.add(name)
        elif event["Type"] == "volume" and event["Action"] == "create":
            self._marks.add(name)
        elif event["Type"] == "volume" and said.get("container") in self._containers:
            self._volumes.add(name)

    def volumes(self):
        """All up to now: a volume of its own is the mark up to which is read."""
        mark = f"qfc-bed-mark-{secrets.token_hex(8)}"
        self._docker.post("/volumes/create", {"Name": mark})
        deadline = time.monotonic() + 20
        while mark not in self._marks:
            assert time.monotonic() < deadline, "the engine's events do not come"
            time.sleep(0.01)
        self._docker.delete(f"/volumes/{mark}", missing_ok=True)
        return set(self._volumes)


class Leftovers:
    """Made before a test; `found()` afterwards says what is left over. On its `own` engine all is the test's, but for
    volumes of which that itself does not know whose they are."""

    def __init__(self, docker, image, network, label, directory, own=None):
        self.docker, self.image, self.network, self.label, self.directory = docker, image, network, label, directory
        self.databases, self._expected = [], set()
        self._own, self._mounted = own, None if own else Mounted(docker, self._is_ours)
        self._before = self._all()

    def _is_ours(self, labels):
        ours = f"{self.label}-{labels.get(self.label)}" == self.network
        return ours or labels.get("app") == f"{self.network}_worker"

    def _containers(self):
        found = set()
        for container in self.docker.containers():
            networks = container["NetworkSettings"]["Networks"]
            if self._is_ours(container["Labels"]) or self.network in networks:
                found.add(f"container {container['Id'][:12]} {container['Names'][0]} ({container['State']})")
        return found

    def _volumes(self):
        found = {volume["Name"]: volume for volume in self.docker.volumes(dangling=["true"])}
        if self._own:
            found = {name: volume for name, volume in found.items() if not self._own.has_lost(volume)}
        ours = self._mounted.volumes() if found and not self._own else set(found)
        return {f"volume {name} of {found[name]['CreatedAt']}, {found[name]['Labels']}" for name in ours & set(found)}

    def _files(self):
        found = set()
        for directory, names, files in os.walk(self.directory):
            found |= {f"file {os.path.join(directory, name)}" for name in names + files}
        return found

    def _tokens(self):
        found = set()
        for database in self.databases:
            rows = database.execute("SELECT id, user_id FROM authentication_authtoken WHERE client_type = 'worker'")
            found |= {f"token row {r['id']} in {database.name}" for r in rows if r["id"] not in database.planted_tokens}
        return found

    def _all(self):
        return self._containers() | self._volumes() | self._files() | self._tokens()

    def found(self, patience_s=PATIENCE_S):
        """A sorted list of what is new and stays."""
        deadline = time.monotonic() + patience_s
        while True:
            left = self._all() - self._before
            if not left or time.monotonic() > deadline:
                return sorted(left)
            time.sleep(0.1)

    def remove(self, found):
        """Takes away what was found, so that the next test starts clean."""
        for line in found:
            kind, name = line.split()[:2]
            if kind == "container":
                self.docker.remove(name)
            elif kind == "volume":
                self.docker.delete(f"/volumes/{name}", missing_ok=True)
