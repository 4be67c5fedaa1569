"""What a job's container is made of, beyond what test_package.py looks at: the image, secrets, a certificate authority
of the deployment's own, and the aids for developing the QGIS image."""

import json
import os

import pytest
from bed import cleanup
from cryptography.fernet import Fernet
from bed.fernet import fernet_of

NEWEST = pytest.mark.parametrize("database", ["v26.25"], indirect=True)
CA_DIRECTORY = "/etc/ssl/custom_certs"
WRITABLE = ("/io", "/tmp", "/root")  # volumes that every container has


class Created:
    """What the engine knew of a job's container while it ran, and what the program has said."""

    def __init__(self, database, worker, ground, project, **env):
        job = database.job(project, "package")
        process = worker.start("run", "--single-shot", **env)
        row = worker.wait_for_status(job, "started", "failed")
        assert row["status"] == "started", process.output()
        worker.wait_for(lambda: ground.docker.inspect(row["container_id"])["State"]["Running"], "the container's start")
        container = ground.docker.inspect(row["container_id"])
        ground.docker.put(row["container_id"], "/io", {"go": b""})
        self.output = process.wait()
        self.config, self.host_config = (container[n] for n in ("Config", "HostConfig"))
        self.mounts = [m for m in container["Mounts"] if m["Destination"] not in WRITABLE]
        self.variables = dict(variable.split("=", 1) for variable in self.config["Env"])
        self.warnings = "\n".join(self.output.messages("warning", job))


# The image


@pytest.mark.parametrize("database", ["v26.20", "v26.25"], indirect=True)
@pytest.mark.parametrize(
    "version, expected",
    [(None, "three"), ("", "three"), ("3.40.6-Bratislava", "three"), ("4.0.1", "four"), ("4", "four")],
)
def test_the_image_follows_the_projects_qgis_version(database, worker, image, version, expected):
    """Only one of the two images is there, so the wrong choice fails."""
    names = {"three": "QFIELDCLOUD_QGIS3_IMAGE_NAME", "four": "QFIELDCLOUD_QGIS4_IMAGE_NAME"}
    worker.env.update({name: "qfc-bed-no-such-image" for name in names.values()})
    worker.env[names[expected]] = image
    job = database.job(database.project(qgis_file="offline.qgs", qgis_version=version), "package")
    output = worker.run("run", "--drain", RETRY_MAX_ATTEMPTS="1")
    assert database.get("core_job", job["id"])["status"] == "finished", output


@pytest.mark.parametrize("database", ["v26.20", "v26.25"], indirect=True)
@pytest.mark.parametrize("version", ["2.18", "5.0", "40", "four", "3rc.1", "-3", "master"])
def test_a_qgis_version_without_an_image_fails_the_job(database, worker, version):
    job = database.job(database.project(qgis_file="offline.qgs", qgis_version=version), "package")
    output = worker.run("run", "--drain")
    row = database.get("core_job", job["id"])
    assert row["status"] == "failed" and row["container_id"] == "", output
    assert row["feedback"]["error"] == f'no QGIS image for a project of QGIS version "{version}"'
    assert row["output"] == row["feedback"]["error"] + "\n"


@pytest.mark.parametrize("database", ["v25.27", "v26.17"], indirect=True)
def test_one_image_before(database, worker, image):
    worker.env.update(QFIELDCLOUD_QGIS3_IMAGE_NAME="no-such", QFIELDCLOUD_QGIS4_IMAGE_NAME="no-such")
    job = database.job(database.project(qgis_file="offline.qgs"), "package")
    output = worker.run("run", "--drain", QFIELDCLOUD_QGIS_IMAGE_NAME=image)
    assert database.get("core_job", job["id"])["status"] == "finished", output


# Secrets


@NEWEST
def test_secrets_arrive_and_stay_secret(database, worker, ground):
    """Decrypted in the container, with the most particular one of a name; nowhere in the log, not even in debug."""
    seal = fernet_of(worker.env["SECRET_KEY"], worker.env["SALT_KEY"]).encrypt
    owner = database.user()
    project = database.project(owner=owner, qgis_file="gate.qgs")
    for name, value, values in [
        ("PASSWORD", "not this one", {"project": project}),
        ("PASSWORD", "päss=wörd 'x' $y", {"project": project, "user": owner}),
        ("QT_QPA_PLATFORM", "hacked", {"project": project}),
        ("A=B", "unusable", {"project": project}),
    ]:
        database.secret(name, seal(value.encode()).decode(), **values)
    database.secret("plain", "never-encrypted", project=project)
    database.secret("db", seal(b"[db]\nhost=db.example\n").decode(), type="pgservice", project=project)
    job = Created(database, worker, ground, project, LOGLEVEL="debug")
    assert job.variables["PASSWORD"] == "päss=wörd 'x' $y"
    assert job.variables["QT_QPA_PLATFORM"] == "offscreen"
    assert job.variables["plain"] == "never-encrypted"
    assert json.loads(job.variables["QFIELDCLOUD_EXTRA_ENVVARS"]) == ["PASSWORD", "plain"]
    assert job.variables["PGSERVICE_FILE_CONTENTS"] == "\n[db]\nhost=db.example\n"
    for name in ["QT_QPA_PLATFORM", "A=B", "plain"]:
        assert f'"{name}"' in job.warnings
    for secret in ["päss", "hacked", "unusable", "never-encrypted", "db.example", worker.env["SECRET_KEY"]]:
        assert secret not in job.output.stderr, f"{secret} is in the log"


@NEWEST
def test_secrets_of_another_key(database, worker, ground):
    """They are used as they are, as QFieldCloud's own worker does, and it is said."""
    value = Fernet(Fernet.generate_key()).encrypt(b"lost").decode()
    project = database.project(qgis_file="gate.qgs")
    database.secret("TOKEN", value, project=project)
    job = Created(database, worker, ground, project)
    assert job.variables["TOKEN"] == value
    assert '"TOKEN"' in job.warnings
    assert value not in job.output.stderr


@NEWEST
def test_the_largest_secret_that_fits(database, worker, ground):
    """One byte more would keep the container from starting: it is left out, and said."""
    project = database.project(qgis_file="gate.qgs")
    fits = "x" * (128 * 1024 - len("FITS=") - 1)
    database.secret("FITS", fits, project=project)
    database.secret("MORE", fits + "x", project=project)
    job = Created(database, worker, ground, project)
    assert job.variables["FITS"] == fits
    assert "MORE" not in job.variables and '"MORE"' in job.warnings


@NEWEST
def test_a_job_that_no_person_has_triggered_fails(database, worker):
    owner = database.user()
    organization = database.organization(owner)
    project = database.project(owner=organization, qgis_file="environment.qgs")
    job = database.job(project, "package")
    output = worker.run("run", "--drain")
    row = database.get("core_job", job["id"])
    assert row["status"] == "failed", output
    assert "person" in row["feedback"]["error"]


# A certificate authority of the deployment's own


@pytest.fixture
def with_custom_ca(worker, tmp_path):
    """The program sees a file that the machine does not have: it runs in a mount namespace of its own."""
    certificate = tmp_path / "custom_ca.crt"
    certificate.write_text("a certificate")
    script = (
        f"mkdir -p {tmp_path}/ssl && cp -r /etc/ssl/. {tmp_path}/ssl && mount --bind {tmp_path}/ssl /etc/ssl && "
        f'mkdir -p {CA_DIRECTORY} && cp {certificate} {CA_DIRECTORY} && exec "$0" "$@"'
    )
    plain = worker.command
    worker.command = lambda *args: ["unshare", "-m", "sh", "-c", script, *plain(*args)]
    return worker


@NEWEST
def test_a_custom_certificate_authority(database, with_custom_ca, ground):
    worker = with_custom_ca
    worker.env["COMPOSE_PROJECT_NAME"] = ground.network
    volume = f"{ground.network}_custom_ca_certificates"
    ground.docker.create_volume(volume)
    remove = cleanup.later(ground.docker.remove_volume, volume)
    container = Created(database, worker, ground, database.project(qgis_file="gate.qgs"))
    mounts = [(m.get("Name"), m["Destination"], m["RW"]) for m in container.mounts]
    assert (volume, CA_DIRECTORY, False) in mounts
    assert container.variables["REQUESTS_CA_BUNDLE"] == f"{CA_DIRECTORY}/custom_ca.crt"
    assert container.variables["QFIELDCLOUD_EXTRA_ENVVARS"] == '["REQUESTS_CA_BUNDLE"]'
    cleanup.now(remove)


@NEWEST
def test_none_without_that_file(database, worker, ground):
    assert not os.path.exists(CA_DIRECTORY), "this machine has one"
    container = Created(database, worker, ground, database.project(qgis_file="gate.qgs"))
    assert container.mounts == []
    assert "REQUESTS_CA_BUNDLE" not in container.variables


# Developing the QGIS image


@pytest.fixture
def sources(tmp_path):
    """A developer's checkout of the QGIS image, as far as it is mounted."""
    (tmp_path / "entrypoint.py").write_text("# mine\n")
    for directory in ("qfc_worker", "libqfieldsync", "qfieldcloud-sdk-python"):
        (tmp_path / directory).mkdir()
    return tmp_path


@NEWEST
def test_debugpy_and_the_developers_own_files(database, worker, ground, sources):
    worker.env.update(DEBUG="1", DEBUG_QGIS_DEBUGPY_PORT="45678", DEBUG_QGIS_WORKER_HOST_PATH=str(sources))
    container = Created(database, worker, ground, database.project(qgis_file="gate.qgs"))
    assert container.config["Cmd"][:8] == [
        "python3", "-m", "debugpy", "--listen", "0.0.0.0:45678", "--wait-for-client", "entrypoint.py", "package"
    ]
    bindings = container.host_config["PortBindings"]
    assert {port: [b["HostPort"] for b in to] for port, to in bindings.items()} == {"45678/tcp": ["45678"]}
    assert {(m["Source"], m["Destination"], m["RW"]) for m in container.mounts} == {
        (f"{sources}/qfc_worker", "/usr/src/app/qfc_worker", False),
        (f"{sources}/entrypoint.py", "/usr/src/app/entrypoint.py", False),
        (f"{sources}/libqfieldsync", "/libqfieldsync", False),
        (f"{sources}/qfieldcloud-sdk-python", "/qfieldcloud-sdk-python", False),
    }


@NEWEST
def test_no_aids_without_debug(database, worker, ground, sources):
    worker.env.update(DEBUG="0", DEBUG_QGIS_DEBUGPY_PORT="45678", DEBUG_QGIS_WORKER_HOST_PATH=str(sources))
    container = Created(database, worker, ground, database.project(qgis_file="gate.qgs"))
    assert container.config["Cmd"][:3] == ["python3", "entrypoint.py", "package"]
    assert container.mounts == [] and not container.host_config["PortBindings"]
