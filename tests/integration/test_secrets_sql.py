"""Which secrets are for a job: the program's own query on each kind of database, its values decrypted.

A value tells where its secret was set. Each is encrypted as the web application does it, by Python's `cryptography`.
"""

import itertools
import json
import os
import subprocess
import uuid

import pytest

from bed.fernet import fernet_of

SECRET_KEY, SALT_KEY = "a secret key: ünïcödé", "salt"
RELEASES = pytest.mark.parametrize("database", ["v25.27", "v25.30", "v26.20", "v26.21", "v26.25"], indirect=True)
FIXED = {
    "PGSERVICE_FILE_CONTENTS",
    "QFIELDCLOUD_EXTRA_ENVVARS",
    "QFIELDCLOUD_TOKEN",
    "QFIELDCLOUD_URL",
    "JOB_ID",
    "PROJ_DOWNLOAD_DIR",
    "QT_QPA_PLATFORM",
}


FERNET = fernet_of(SECRET_KEY, SALT_KEY)


def encrypted(value):
    return FERNET.encrypt(value.encode()).decode()


class Environment:
    """What the program would give the job's container, the fixed variables apart."""

    def __init__(self, printed):
        pairs = [text.split("=", 1) for text in printed["variables"]]
        everything = dict(pairs)
        assert len(pairs) == len(everything), "a variable is there twice"
        assert FIXED <= everything.keys()
        self.variables = {name: value for name, value in pairs if name not in FIXED}
        self.services = everything["PGSERVICE_FILE_CONTENTS"]
        self.names = everything["QFIELDCLOUD_EXTRA_ENVVARS"]
        self.warnings = printed["warnings"]


@pytest.fixture
def run(built, database):
    """The C program around the shipped query; the result of running it."""

    def call(job, **env):
        path = os.path.join(os.path.dirname(built), "tests", "secrets-of-job")
        command = [path, str(job["id"]), database.project_table]
        kept = {name: value for name, value in os.environ.items() if name not in ("SECRET_KEY", "SALT_KEY")}
        kept["QFC_TEST_DATABASE_URL"] = database.url
        return subprocess.run(command, env={**kept, **env}, capture_output=True, text=True, timeout=60)

    return call


@pytest.fixture
def environment_of(run):
    def call(job, secret_key=SECRET_KEY):
        result = run(job, **({"SECRET_KEY": secret_key, "SALT_KEY": SALT_KEY} if secret_key else {}))
        assert result.returncode == 0, result.stdout + result.stderr
        return Environment(json.loads(result.stdout))

    return call


class Scene:
    """An organization's project, a member whose job it is, and others who have secrets of their own."""

    def __init__(self, database):
        self.database = database
        self.owner, self.user, self.other = database.user(), database.user(), database.user()
        self.organization = database.organization(self.owner, members=[self.user, self.other])
        self.project = database.project(self.organization)
        self.elsewhere = database.organization(self.user, members=[self.user])
        self.neighbour = database.project(self.organization)
        self.job = database.job(self.project, user=self.user, created_by_id=self.other["id"])

    # The levels at which a secret is found, the winning one first.
    @property
    def levels(self):
        return {
            "project+user": {"project": self.project, "user": self.user},
            "project": {"project": self.project},
            "organization+user": {"organization": self.organization, "user": self.user},
            "organization": {"organization": self.organization},
        }

    @property
    def decoys(self):
        """Where no secret of the job is found."""
        return [
            {"project": self.project, "user": self.other},
            {"organization": self.organization, "user": self.other},
            {"project": self.neighbour},
            {"project": self.neighbour, "user": self.user},
            {"organization": self.elsewhere},
            {"organization": self.elsewhere, "user": self.user},
        ]

    def set(self, name, value, type="envvar", **where):
        return self.database.secret(name, encrypted(value), type=type, **where)

    def set_decoys(self, name):
        for where, type in itertools.product(self.decoys, ("envvar", "pgservice")):
            self.set(name, "of somebody else", type, **where)


@RELEASES
def test_the_most_particular_secret_of_a_name_wins(database, environment_of):
    """Every way in which one name can be set at the four levels, as either type."""
    scene = Scene(database)
    variables, services = {}, []
    kinds = itertools.product((None, "envvar", "pgservice"), repeat=len(scene.levels))
    for number, types in enumerate(kinds):
        name = f"N{number:03}"
        found = [(level, type) for level, type in zip(scene.levels, types) if type]
        # The loser is set first for one half of the names and last for the other: the order of rows is no matter.
        for level, type in found if number % 2 else reversed(found):
            scene.set(name, f"{name} {level} {type}", type, **scene.levels[level])
        if number % 9 == 0:
            scene.set_decoys(name)
        if found:
            level, type = found[0]
            value = f"{name} {level} {type}"
            services += [value] if type == "pgservice" else []
            variables |= {name: value} if type == "envvar" else {}
    assert len(variables) == len(services) == 40  # 81 - 1 names, half of each type
    environment = environment_of(scene.job)
    assert environment.variables == variables
    assert environment.services == "".join(f"\n{service}" for service in services)
    assert environment.names == json.dumps(sorted(variables))
    assert environment.warnings == []


@RELEASES
def test_others_secrets_are_not_found(database, environment_of):
    scene = Scene(database)
    scene.set_decoys("NAME")
    environment = environment_of(scene.job)
    assert (environment.variables, environment.services, environment.names) == ({}, "", "[]")


@RELEASES
def test_a_persons_project_has_secrets_of_no_organization(database, environment_of):
    scene = Scene(database)
    project = database.project(scene.user)
    scene.set("MINE", "mine", project=project, user=scene.user)
    scene.set("ALL", "all", project=project)
    scene.set("ORGANIZATION", "organization", organization=scene.organization)
    scene.set("ELSEWHERE", "elsewhere", organization=scene.elsewhere, user=scene.user)
    assert environment_of(database.job(project)).variables == {"MINE": "mine", "ALL": "all"}


def test_it_is_the_one_who_triggered_the_job_who_counts(database, environment_of):
    scene = Scene(database)
    scene.set("NAME", "user's", project=scene.project, user=scene.user)
    scene.set("NAME", "other's", project=scene.project, user=scene.other)
    job = database.job(scene.project, created_by_id=scene.user["id"], triggered_by_id=scene.other["id"])
    assert environment_of(job).variables == {"NAME": "other's"}


@RELEASES
def test_of_equals_the_older_wins(database, environment_of):
    scene = Scene(database)
    for level, where in scene.levels.items():
        scene.set(f"{level} A", "older", "envvar", **where)
        scene.set(f"{level} A", "younger", "pgservice", **where)
        scene.set(f"{level} B", "older", "pgservice", **where)
        scene.set(f"{level} B", "younger", "envvar", **where)
    scene.set("SAME TYPE", "older", project=scene.project)
    scene.set("SAME TYPE", "younger", project=scene.project)
    environment = environment_of(scene.job)
    assert environment.variables == {f"{level} A": "older" for level in scene.levels} | {"SAME TYPE": "older"}
    assert environment.services == "\nolder" * 4


@RELEASES
@pytest.mark.parametrize("kind", ["organization", "team"])
def test_a_job_that_no_person_has_triggered_fails(database, run, kind):
    scene = Scene(database)
    user = scene.organization if kind == "organization" else database.team(scene.organization)
    scene.set("NAME", "value", project=scene.project)
    result = run(database.job(scene.project, triggered_by_id=user["id"], created_by_id=scene.owner["id"]))
    assert result.returncode == 1
    reason = f"secrets are for persons, and user {user['id']}, who has triggered the job, is none"
    assert result.stdout == f"invalid: {reason}\n"


def test_so_it_does_without_any_secret(database, run):
    scene = Scene(database)
    job = database.job(scene.project, triggered_by_id=scene.organization["id"], created_by_id=scene.owner["id"])
    assert run(job).stdout.startswith("invalid: secrets are for persons")


def test_a_job_that_is_gone_is_lost(run):
    assert run({"id": uuid.uuid4()}).stdout == "lost: there is no such job to have secrets\n"


def test_an_unknown_type_fails_only_where_it_wins(database, run):
    scene = Scene(database)
    scene.set("NAME", "value", project=scene.project)
    scene.set("NAME", "value", "file", organization=scene.organization)
    assert run(scene.job).returncode == 0
    scene.set("NAME", "value", "file", project=scene.project, user=scene.user)
    assert run(scene.job).stdout == 'invalid: secret "NAME" is of the unknown type "file"\n'


def test_values_are_what_was_encrypted(database, environment_of):
    scene = Scene(database)
    values = {"UMLAUT": "Zürich 🐘", "LINES": "\na=b\n\n", "LONG": "x" * 100000, "BLOCK": "y" * 16, "QUOTES": "'\""}
    for name, value in values.items():
        scene.set(name, value, project=scene.project)
    environment = environment_of(scene.job)
    assert environment.variables == values
    assert environment.warnings == []


def test_values_in_plain_are_used_as_they_are(database, environment_of):
    scene = Scene(database)
    token = encrypted("value")
    database.secret("PLAIN", "hunter2", project=scene.project)
    database.secret("CUT", token[:-8], project=scene.project)
    database.secret("FOREIGN", fernet_of("another key", SALT_KEY).encrypt(b"value").decode(), project=scene.project)
    database.secret("TOKEN", token, project=scene.project)
    environment = environment_of(scene.job)
    assert environment.variables["PLAIN"] == "hunter2"
    assert environment.variables["CUT"] == token[:-8]
    assert environment.variables["FOREIGN"].startswith("gAAAA")
    assert environment.variables["TOKEN"] == "value"
    assert [warning.split('"')[1] for warning in environment.warnings] == ["CUT", "FOREIGN", "PLAIN"]
    assert not any("hunter2" in warning or "gAAAA" in warning for warning in environment.warnings)


def test_without_a_key_all_are(database, environment_of):
    scene = Scene(database)
    row = scene.set("NAME", "value", project=scene.project)
    environment = environment_of(scene.job, secret_key=None)
    assert environment.variables == {"NAME": row["value"]}
    assert len(environment.warnings) == 1 and '"NAME"' in environment.warnings[0]


def test_what_python_can_decrypt_is_decrypted(database, environment_of):
    """As base64.urlsafe_b64decode takes it, with what does not belong there."""
    scene = Scene(database)
    token = encrypted("123456")
    spoiled = [f"{token}\n", f" {token}", token.replace("_", "/").replace("-", "+"), f"={token}", f"{token}AAAA",
               f"{token[:9]}*\n{token[9:]}", f"{token}é"]
    for number, text in enumerate(spoiled):
        assert FERNET.decrypt(text.encode()) == b"123456"
        database.secret(f"N{number}", text, project=scene.project)
    environment = environment_of(scene.job)
    assert environment.variables == {f"N{number}": "123456" for number in range(len(spoiled))}
