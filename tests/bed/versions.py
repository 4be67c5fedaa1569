"""Engines of versions that cannot run here, played: which API versions they take, what they refuse, and what else their
answers hold or lack. From "Engine API version history" (moby/moby, api/docs/CHANGELOG.md) up to 1.56.
"""

import json

from .fast_engine import FastEngine, Refused

# Docker's version: the newest and the oldest version of the API that it speaks.
DOCKER = {
    "20.10": ("1.41", "1.12"),
    "24.0": ("1.43", "1.12"),
    "25.0": ("1.44", "1.24"),
    "27.5": ("1.47", "1.24"),
    "28.5": ("1.51", "1.24"),
    "29.0": ("1.52", "1.44"),
    "29.3": ("1.54", "1.40"),
}

# Each call of a job's life, and the query that it may have.
CALLS = {
    ("GET", "version"): set(),
    ("GET", "info"): set(),
    ("GET", "events"): {"filters", "since", "until"},
    ("POST", "containers/create"): {"name"},
    ("GET", "containers/json"): {"all", "filters"},
    ("GET", "containers/*/json"): set(),
    ("POST", "containers/*/wait"): {"condition"},
    ("POST", "containers/*/start"): set(),
    ("POST", "containers/*/kill"): {"signal"},
    ("GET", "containers/*/logs"): {"stdout", "stderr", "follow", "since", "timestamps", "tail"},
    ("GET", "containers/*/archive"): {"path"},
    ("PUT", "containers/*/archive"): {"path"},
    ("GET", "containers/*/stats"): {"stream", "one-shot"},
    ("DELETE", "containers/*"): {"force", "v"},
    ("GET", "images/*/json"): set(),
    ("GET", "networks/*"): set(),
    ("GET", "volumes"): {"filters"},
    ("GET", "volumes/*"): set(),
    ("DELETE", "volumes/*"): {"force"},
}
BODY = {"Image", "Cmd", "Env", "Labels", "HostConfig", "ExposedPorts"}
HOST_CONFIG = {
    "Binds", "CapDrop", "CpuPeriod", "CpuQuota", "CpuShares", "LogConfig", "Memory", "Mounts", "NetworkMode", "PidsLimit",
    "PortBindings", "ReadonlyRootfs", "SecurityOpt",
}  # fmt: skip


def number(version):
    """"1.41" as (1, 41)."""
    return tuple(int(part) for part in version.split("."))


def call_of(method, path):
    """The row of CALLS that a path is of: what stands between the first and the last part is a name."""
    parts = path.strip("/").split("/")
    if (method, "/".join(parts)) in CALLS:
        return method, "/".join(parts)
    middle = parts[1:-1] if len(parts) > 2 else parts[1:]
    return method, "/".join([parts[0]] + (["*"] if middle else []) + (parts[-1:] if len(parts) > 2 else []))


class VersionedEngine(FastEngine):
    """One that speaks from `oldest` to `api`; become() puts another one in its place. `spoken` has the versions that
    were spoken to it."""

    def __init__(self, directory, api, oldest):
        self.spoken, self.calls_seen = set(), set()
        self.become(api, oldest)
        super().__init__(directory)

    def become(self, api, oldest):
        self.api, self.oldest = api, oldest
        plain = number(api) < (1, 42)
        self.log_type = f"application/vnd.docker.{'raw' if plain else 'multiplexed'}-stream"

    def check(self, version, method, path, query, body):
        call = call_of(method, path)
        self.calls_seen.add(call)
        if call == ("GET", "version"):
            return
        if version is None:
            raise Refused(400, "a call without a version in its path")
        self.spoken.add(version)
        if number(version) < number(self.oldest):
            raise Refused(400, f"client version {version} is too old. Minimum supported API version is {self.oldest}, "
                               "please upgrade your client to a newer version")  # fmt: skip
        if number(version) > number(self.api):
            raise Refused(400, f"client version {version} is too new. Maximum supported API version is {self.api}")
        unknown = set(query) - CALLS.get(call, set())
        if call not in CALLS or unknown:
            raise Refused(400, f"this call is not known: {method} {path} {sorted(unknown)}")
        if call == ("POST", "containers/*/wait") and query["condition"] not in ("next-exit", "not-running", "removed"):
            raise Refused(400, "invalid condition")
        if call == ("POST", "containers/create"):
            self._check_create(json.loads(body))

    def _check_create(self, body):
        config = body["HostConfig"]
        unknown = (set(body) - BODY) | (set(config) - HOST_CONFIG)
        if unknown:
            raise Refused(400, f"not known to all versions: {sorted(unknown)}")
        for mount in config.get("Mounts", []):
            # From 1.42 on options of another type than the mount's are refused.
            others = {"BindOptions", "VolumeOptions", "TmpfsOptions"} - {f"{mount['Type'].title()}Options"}
            if others & set(mount):
                raise Refused(400, "must not specify options of another type")
