"""A podman of our own that serves Docker's API: `podman system service` with directories and a network namespace of its
own, so that it neither sees nor touches what a podman of this machine has.
"""

import os
import shutil

from . import BedError
from .engine import OwnEngine

# crun refuses a machine with both versions of cgroups, and the default limits are not permitted everywhere.
CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""


class Podman(OwnEngine):
    """Its containers live on when the service is killed, and when it is stopped, too: each has a conmon of its own."""

    programs = ("podman", "runc", "conmon", "unshare", "ip")

    def _configure(self):
        with open(os.path.join(self.directory, "containers.conf"), "w", encoding="ascii") as file:
            file.write(CONFIGURATION)

    def _daemon(self):
        directory = self.directory
        return (
            f"cd {directory}; rm -f {self.socket_path}; export CONTAINERS_CONF={directory}/containers.conf; "
            f"exec podman --root {directory}/data --runroot {directory}/run --tmpdir {directory}/tmp "
            f"--network-config-dir {directory}/networks system service --time=0 unix://{self.socket_path}"
        )

    def forget_boot(self):
        """Makes the next start take itself for the first one after a boot of the machine; the service must be down and
        its containers ended. What podman keeps of containers' states lies in directories that a boot empties."""
        if self._process.poll() is None:
            raise BedError("podman still runs")
        for name in ("run", "tmp"):
            shutil.rmtree(os.path.join(self.directory, name), ignore_errors=True)
