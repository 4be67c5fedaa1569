"""Where containers run in a test: an engine with the stand-in image and a network of this run."""

import os
import secrets
import sys

from . import cleanup
from .docker import DockerError
from .image import REPOSITORY, Image

LABEL = "qfc-bed"
OWNER = "qfc-bed.owner"


def _owner():
    """This process, told from others that have or had its number."""
    namespace, pid, started = os.readlink("/proc/self/ns/pid"), os.getpid(), cleanup.start_time(os.getpid())
    return f"{namespace}/{pid}/{started}"


def _is_gone(owner):
    namespace, pid, started = owner.split("/")
    return namespace == os.readlink("/proc/self/ns/pid") and cleanup.start_time(int(pid)) != started


class Ground:
    """`image` and `network` are names; `gateway` is the address where a container finds the test's own servers."""

    def __init__(self, engine):
        self.engine, self.docker = engine, engine.docker
        self._sweep()
        self.session = f"run-{secrets.token_hex(4)}"
        self.network = f"qfc-bed-{self.session}"
        self._network_id = self.docker.create_network(self.network, {LABEL: self.session, OWNER: _owner()})
        self._remove = cleanup.later(self._remove_all, self.session, self.network)
        self.gateway = self.docker.gateway(self._network_id)
        self._image = Image(self.docker, self.session)
        self.image = self._image.name

    def _remove_all(self, session, network):
        image = f"{REPOSITORY}:{session}"
        for container in self.docker.containers():
            if container["Image"] == image or network in container["NetworkSettings"]["Networks"]:
                self.docker.remove(container["Id"])
        self._remove_network(network)
        self.docker.remove_image(image)

    def _remove_network(self, network):
        """An engine can lose track of a container's endpoint when the container is removed while it starts: then the
        network stays, with no container in it, until the engine is restarted. The next run tries again."""
        try:
            self.docker.remove_network(network)
        except DockerError as error:
            if "active endpoints" not in str(error) or self.docker.get(f"/networks/{network}")["Containers"]:
                raise
            print(f"the engine keeps the empty network {network}: {error}", file=sys.stderr)

    def _sweep(self):
        """Removes what runs that were killed have left in this engine, as far as it lets go: one that was disturbed can
        hold a network for a container that is no more, until it is started again."""
        for network in self.docker.networks(label=[OWNER]):
            if _is_gone(network["Labels"][OWNER]):
                try:
                    self._remove_all(network["Labels"][LABEL], network["Name"])
                except DockerError as error:
                    print(f"bed: left over by an earlier run: {error}", file=sys.stderr)

    def create(self, *args, name=None, files=None, network=None, env=None, **host):
        """A container as the worker would create it, for a test of its own: `args` are those of entrypoint.py, `files`
        go to /io, `host` into HostConfig. Returns its id."""
        container = self.docker.create(
            self.image,
            ["python3", "entrypoint.py", *args],
            name=name,
            Labels={LABEL: self.session},
            Env=[f"{key}={value}" for key, value in (env or {}).items()],
            HostConfig={"NetworkMode": network or self.network, **host},
        )
        if files:
            self.docker.put(container, "/io", files)
        return container

    def close(self):
        """Removes the run's containers, its network and its image's name."""
        cleanup.now(self._remove)
        self._image.close()
