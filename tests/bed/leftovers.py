"""What must not be there after a test: containers, volumes, tokens and files that were not there before.

Others may use the same engine: containers count as ours by the network or the labels of this run, and a volume only
when it stays, used by nobody. What is just going is given time.
"""

import os
import time

PATIENCE_S = 10


class Leftovers:
    """Made before a test; `found()` afterwards says what is left over."""

    def __init__(self, docker, image, network, label, directory):
        self.docker, self.image, self.network, self.label, self.directory = docker, image, network, label, directory
        self.databases, self._expected = [], set()
        self._before = self._all()

    def _containers(self):
        found = set()
        for container in self.docker.containers():
            networks = container["NetworkSettings"]["Networks"]
            labels = container["Labels"]
            ours = labels.get("app") == f"{self.network}_worker" or self.label in labels
            if ours or self.network in networks:
                found.add(f"container {container['Id'][:12]} {container['Names'][0]} ({container['State']})")
        return found

    def _volumes(self):
        return {f"volume {volume['Name']}" for volume in self.docker.volumes(dangling=["true"])}

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
