"""The engine that tests use: the one that answers here, or one of our own.

`OwnEngine` is also for tests that restart, kill or prune an engine, which nobody else's would survive. It has a network
namespace of its own: in the host's, a second engine would take the first one's bridge away.
"""

import ctypes
import datetime
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

from . import BedError, cleanup
from .docker import Docker

DEFAULT_SOCKET = "/var/run/docker.sock"


class Engine:
    """An engine that somebody else runs."""

    own = False

    def __init__(self, socket_path):
        self.socket_path = socket_path
        self.docker = Docker(socket_path)

    @property
    def host(self):
        """As DOCKER_HOST takes it."""
        return f"unix://{self.socket_path}"

    def inside(self, function, *args):
        """Runs a function where the engine's bridges are this machine's; sockets that it makes stay there."""
        return function(*args)

    def close(self):
        """Nothing: it goes on."""


def _processes():
    """{pid: (parent, command line)} of all processes."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found[int(name)] = parent, file.read()
        except OSError:
            continue
    return found


def belonging(directory):
    """Processes that name the directory in their command line, and all their descendants."""
    processes = _processes()
    found = {pid for pid, (_, line) in processes.items() if directory.encode() in line and pid != os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in processes.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def end(pids):
    """Kills processes by their numbers and waits until they are gone."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class OwnEngine(Engine):
    """A dockerd of our own, with directories, socket, configuration and network namespace of its own."""

    own = True
    programs = ("dockerd", "unshare", "ip")

    def __init__(self):
        for program in self.programs:
            if not shutil.which(program):
                raise BedError(f"an engine of our own needs {program}, which is not here")
        if os.geteuid() != 0:
            raise BedError("an engine of our own needs root")
        self.directory, self._remove = cleanup.directory("engine")
        super().__init__(os.path.join(self.directory, "docker.sock"))
        self.log = os.path.join(self.directory, "log")
        self._pid_file = os.path.join(self.directory, "pid")
        self._configure()
        self._process, self._deaths = None, []
        self._close = cleanup.later(self._clear)
        self.start()

    def _configure(self):
        with open(os.path.join(self.directory, "daemon.json"), "w", encoding="ascii") as file:
            file.write("{}\n")

    def _daemon(self):
        """The shell's words that become the daemon."""
        directory = self.directory
        return (
            f"exec dockerd --config-file {directory}/daemon.json --data-root {directory}/data "
            f"--exec-root {directory}/exec -p {self._pid_file} -H unix://{self.socket_path}"
        )

    def _forget_dead_containerd(self):
        """A new daemon waits in vain for the old containerd while that is a zombie which nobody has collected."""
        path = os.path.join(self.directory, "exec", "containerd", "containerd.pid")
        try:
            with open(path, encoding="ascii") as file:
                if not _alive(int(file.read())):
                    os.unlink(path)
        except FileNotFoundError:
            pass

    def start(self):
        """Starts the daemon and waits until it answers."""
        self._forget_dead_containerd()
        directory, daemon = self.directory, self._daemon()
        if self._process is None:
            command = ["unshare", "-n", "sh", "-c", f"ip link set lo up; {daemon}"]
        else:  # the containers that live on are in the first daemon's namespace, which a file keeps
            command = ["nsenter", f"--net={directory}/net", "sh", "-c", daemon]
        with open(self.log, "a", encoding="ascii") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is not meant for it: cleaning up needs it
            )
        deadline = time.monotonic() + 60
        while not self.docker.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BedError(f"our own {self.programs[0]} does not answer; its log ends:\n{self.tail()}")
            time.sleep(0.05)
        self._keep_namespace()

    def _keep_namespace(self):
        path = os.path.join(self.directory, "net")
        if os.path.exists(path):
            return
        with open(path, "w", encoding="ascii"):
            pass
        subprocess.run(["mount", "--bind", f"/proc/{self._process.pid}/ns/net", path], check=True)

    def tail(self, lines=20):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:])

    def has_lost(self, volume):
        """Did it end, by its own will or not, when it had just made the volume, and not yet written down whose it is? Then
        it knows no labels of it, and nobody can tell."""
        made = datetime.datetime.fromisoformat(volume["CreatedAt"].replace("Z", "+00:00")).timestamp()
        return not volume["Labels"] and any(begin - 5 < made <= end for begin, end in self._deaths)

    def stop(self):
        """Stops the daemon as a service manager would; its containers end with it."""
        begin = time.time()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._deaths.append((begin, time.time()))

    def kill(self):
        """Kills the daemon alone: its shims and the containers live on, as after a crash (containerd may, too)."""
        self._process.kill()
        self._deaths.append((time.time(), time.time()))
        self._process.wait(60)
        if os.path.exists(self._pid_file):
            os.unlink(self._pid_file)

    def restart(self):
        self.stop()
        self.start()

    def end_survivors(self):
        """After kill(): ends containerd, the shims and the containers, as after a power failure."""
        end(belonging(self.directory))
        self._forget_dead_containerd()

    def inside(self, function, *args):
        """The thread that enters the namespace is thrown away afterwards."""
        result, errors = [], []

        def work():
            try:
                self._enter()
                result.append(function(*args))
            except Exception as error:  # noqa: BLE001 (raised again where it was asked for)
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return result[0]

    def _enter(self):
        """Moves the calling thread, and no other, into the engine's network."""
        with open(os.path.join(self.directory, "net"), "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                raise BedError(f"entering the engine's network: {os.strerror(ctypes.get_errno())}")

    def _clear(self):
        if self._process and self._process.poll() is None:
            for container in self.docker.containers() if self.docker.answers() else []:
                self.docker.remove(container["Id"])
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                pass
        _clear_directory(self.directory)

    def close(self):
        cleanup.now(self._close)
        cleanup.now(self._remove)


def _clear_directory(directory):
    """Ends what still runs in an engine's directory, and unmounts what is mounted there."""
    end(belonging(directory))
    with open("/proc/mounts", encoding="utf-8") as file:
        mounts = [line.split()[1] for line in file]
    for path in sorted((path for path in mounts if path.startswith(directory + "/")), reverse=True):
        subprocess.run(["umount", "-l", path], check=False)


def find():
    """The engine that answers, or one of our own where that is possible; podman where QFC_TEST_ENGINE says so."""
    if os.environ.get("QFC_TEST_ENGINE") == "podman":
        from .podman import Podman  # which is made of this module

        return Podman()
    named = os.environ.get("DOCKER_HOST", "")
    path = named[len("unix://") :] if named.startswith("unix://") else "" if named else DEFAULT_SOCKET
    if path and Docker(path).answers():
        return Engine(path)
    if named and not path:
        print(f"bed: DOCKER_HOST={named} is passed over: the bed takes only unix:// sockets", file=sys.stderr)
    if os.geteuid() == 0 and shutil.which("dockerd"):
        return OwnEngine()
    raise BedError(
        f"no engine answers on {named or DEFAULT_SOCKET}, and to start one of our own needs root and dockerd"
    )


def sweep():
    """Ends engines of runs that were killed."""
    for directory in cleanup.abandoned():
        if os.path.basename(directory).startswith(f"{cleanup.PREFIX}engine-"):
            _clear_directory(directory)
            shutil.rmtree(directory, ignore_errors=True)
