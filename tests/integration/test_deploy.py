"""The image and the compose files: built as the documents say, and run with docker-compose in this engine.

The QFieldCloud stack here is tests/data/stack, in which a played old worker, database and web application stand in for
the real ones; docker/compose.qfieldcloud.yml is laid over it as over the real one's files.

What builds images takes minutes, most of them for Debian's packages: but for the replacement of the old worker that is
long.
"""

import json
import os
import secrets
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from bed import base_image, cleanup
from conftest import Events

ROOT = Path(__file__).resolve().parent.parent.parent
STACK = ROOT / "tests" / "data" / "stack" / "docker-compose.yml"
OVERLAY = ROOT / "docker" / "compose.qfieldcloud.yml"
PATIENCE_S = 300


class Cli:
    """docker and docker-compose for the engine that answers here."""

    def __init__(self, ground):
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{ground.engine.socket_path}", "DOCKER_BUILDKIT": "0",
                    "COMPOSE_HTTP_TIMEOUT": "300", "PYTHONWARNINGS": "ignore"}  # fmt: skip
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)

    def __call__(self, *words, code=0, cwd=None, **env):
        done = subprocess.run([str(word) for word in words], cwd=cwd, env={**self.env, **env}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
        assert done.returncode == code, f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout

    def build(self, name, file, *arguments):
        return self("docker", "build", "-q", "-t", name, "-f", ROOT / "docker" / file, *arguments, ROOT)


@pytest.fixture(scope="module")
def cli(ground):
    return Cli(ground)


@pytest.fixture(scope="module")
def session():
    return secrets.token_hex(3)


@pytest.fixture(scope="module")
def base(ground):
    """The base image."""
    return base_image.find(ground.docker)


IMAGE, STACK_IMAGE, PROXY_IMAGE = "qfc-worker-test", "qfc-worker-test-stack", "qfc-worker-test-proxy"


def image_fixture(file, name, *arguments):
    @pytest.fixture(scope="module")
    def built_image(cli, ground, base, session):
        tag = f"{name}:{session}"
        remove = cleanup.later(ground.docker.remove_image, tag)
        cli.build(tag, file, "--build-arg", f"BASE_IMAGE={base}", *arguments)
        yield tag
        cleanup.now(remove)

    return built_image


image = image_fixture("Dockerfile", IMAGE)
stack_image = image_fixture("Dockerfile.dev", STACK_IMAGE, "--target", "database")
proxy_image = image_fixture("Dockerfile.socket-proxy", PROXY_IMAGE)


@pytest.fixture(scope="module")
def gid(ground):
    return os.stat(ground.engine.socket_path).st_gid


# The image


@pytest.mark.long
def test_image(ground, cli, image, capsys):
    """What it is: a few packages and the program, run by nobody in particular, as process 1."""
    about = ground.docker.image(image)
    config = about["Config"]
    assert config["User"] == "10001:10001" and config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/usr/bin/qfc-worker"] and config["Cmd"] == ["run"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/qfc-worker", "health"]
    archive = cli("docker", "create", image).strip()
    changed = [line for line in cli("docker", "diff", archive).splitlines() if line]
    cli("docker", "rm", archive)
    assert changed == []
    layers = cli("docker", "history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", image).splitlines()
    top = next(line for line in layers if not line.startswith("0B"))
    assert "COPY" in top and "/usr/bin/qfc-worker" in top
    with capsys.disabled():
        size = about["Size"] / 1e6
        print(f"\nimage: {size:.0f} MB, user {config['User']}; top layer: /usr/bin/qfc-worker, {top.split()[0]}", flush=True)
    version = json.loads(cli("meson", "introspect", "--projectinfo", ROOT / "meson.build"))["version"]
    assert cli("docker", "run", "--rm", "--network", "none", image, "--version").strip() == f"qfc-worker {version}"
    stray = cli("docker", "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-c",
                "command -v gcc python3 meson; ls -A /src /build /packages 2>/dev/null; true")  # fmt: skip
    assert stray == ""


def run_confined(cli, ground, database, image, gid, *arguments, user="4711:4711"):
    """The image's program with nothing that it could do without; it reaches PostgreSQL by its socket directory."""
    env = {"POSTGRES_HOST": "/pg", "POSTGRES_PORT": str(database.server.port), "POSTGRES_DB": database.name,
           "POSTGRES_USER": database.settings["POSTGRES_USER"], "COMPOSE_PROJECT_NAME": "maps",
           "ENVIRONMENT": ground.network, "QFIELDCLOUD_QGIS_IMAGE_NAME": ground.image,
           "QFIELDCLOUD_QGIS3_IMAGE_NAME": ground.image, "QFIELDCLOUD_DEFAULT_NETWORK": "none"}  # fmt: skip
    given = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
    name = f"qfc-confined-{secrets.token_hex(4)}"
    cleanup.later(ground.docker.remove, name)
    confined = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]
    mounts = ["-v", f"{ground.engine.socket_path}:/var/run/docker.sock", "-v", f"{database.server.directory}:/pg"]
    return name, cli("docker", "run", "--name", name, "--user", user, "--group-add", gid, *confined, *mounts, *given,
                     image, *arguments)  # fmt: skip


@pytest.mark.long
def test_confined(cli, ground, database, image, gid):
    """Read-only root, no capabilities, a random user: a job is run all the same."""
    os.chmod(database.server.directory, 0o755)
    job = database.job(database.project(files=()), "package")
    name, said = run_confined(cli, ground, database, image, gid, "run", "--drain")
    assert database.get("core_job", job["id"])["status"] == "finished", said
    changed = {line.split()[1] for line in cli("docker", "diff", name).splitlines()}
    assert changed <= {"/run", "/run/docker.sock", "/var", "/var/run", "/pg"}, changed  # the places of mounts
    cli("docker", "rm", name)


@pytest.mark.long
def test_process_1_ends_on_sigterm_and_leaves_no_zombies(cli, ground, database, image, gid):
    os.chmod(database.server.directory, 0o755)
    env = ["-e", "POSTGRES_HOST=/pg", "-e", f"POSTGRES_PORT={database.server.port}", "-e", f"POSTGRES_DB={database.name}",
           "-e", f"QFIELDCLOUD_QGIS3_IMAGE_NAME={ground.image}"]  # fmt: skip
    name = f"qfc-first-{secrets.token_hex(4)}"
    remove = cleanup.later(ground.docker.remove, name)
    cli("docker", "run", "-d", "--name", name, "--network", "none", "--group-add", gid, "-v",
        f"{ground.engine.socket_path}:/var/run/docker.sock", "-v", f"{database.server.directory}:/pg", *env, image)  # fmt: skip
    # A process that outlives its parent is handed to process 1.
    cli("docker", "exec", name, "/bin/sh", "-c", "sh -c 'sleep 0.2' & exit 0")
    time.sleep(1)
    states = cli("docker", "exec", name, "/bin/sh", "-c", "cat /proc/[0-9]*/stat")
    assert " Z " not in states
    wait_for(lambda: ground.docker.inspect(name)["State"]["Health"]["Status"] == "healthy", "a healthy worker", 60)
    cli("docker", "stop", "-t", "30", name)
    assert ground.docker.inspect(name)["State"]["ExitCode"] == 0
    cleanup.now(remove)


def wait_for(predicate, what, limit=PATIENCE_S):
    deadline = time.monotonic() + limit
    while not predicate():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.3)


# Stacks


class Stack:
    """A compose project of this run, in a directory with an .env."""

    def __init__(self, cli, ground, name, files, env):
        self.cli, self.ground, self.name, self.files = cli, ground, name, files
        self.directory, self._remove = cleanup.directory(name)
        self.project_directory = self.directory  # what paths in the files are relative to
        self.env = {"COMPOSE_PROJECT_NAME": name, **env}
        self._down = cleanup.later(self._end)

    def compose(self, *words, files=None, **env):
        with open(os.path.join(self.directory, ".env"), "w", encoding="utf-8") as file:
            file.writelines(f"{key}={value}\n" for key, value in self.env.items())
        named = [word for path in files or self.files for word in ("-f", path)]
        return self.cli("docker-compose", "--project-directory", self.project_directory, "--env-file",
                        os.path.join(self.directory, ".env"), *named, *words, **env)  # fmt: skip

    def sql(self, statement):
        return self.compose("exec", "-T", "db", "psql", "-U", "postgres", "-Atqc", statement, "qfieldcloud_db").strip()

    def queue(self, count):
        self.compose("exec", "-T", "db", "env", "-u", "POSTGRES_HOST", "python3", "-m", "bed.dev_stack", "jobs", count)

    def unfinished(self):
        return int(self.sql("SELECT count(*) FROM core_job WHERE status <> 'finished'"))

    def health(self, service):
        container = self.compose("ps", "-q", service).strip()
        return self.ground.docker.inspect(container)["State"]["Health"]["Status"]

    def workers(self):
        label = f"com.docker.compose.project={self.name}"
        found = self.ground.docker.containers(label=[label, "com.docker.compose.service=worker_wrapper"])
        return [container for container in found if container["State"] == "running"]

    def told(self):
        """For a complaint."""
        return self.compose("logs", "--no-color", "--tail", "40")[-6000:]

    def _end(self):
        for container in self.ground.docker.containers(label=[f"app={self.name}_worker"]):
            self.ground.docker.remove(container["Id"])
        self.compose("down", "--volumes", "--timeout", "5", "--remove-orphans")
        shutil.rmtree(self.directory, ignore_errors=True)

    def close(self):
        cleanup.now(self._down)
        cleanup.now(self._remove)


def starts_by_job(events, label):
    events.count("start", {"id": ""})
    found = [event["Actor"]["Attributes"] for event in list(events.found)
             if event.get("Type") == "container" and event.get("Action") == "start"]  # fmt: skip
    jobs = [attributes["job_id"] for attributes in found if attributes.get("app") == label]
    return {job: jobs.count(job) for job in jobs}


@pytest.fixture
def stack(cli, ground, session, gid):
    """Who starts something in it asks for the images, too."""
    name = f"qfcstack{session}{secrets.token_hex(2)}"
    directory, remove = cleanup.directory("tmp")
    os.chmod(directory, 0o1777)
    env = {
        "STACK_IMAGE": f"{STACK_IMAGE}:{session}", "ENVIRONMENT": name, "SECRET_KEY": "change_me", "SALT_KEY": "0" * 36, "DEBUG": "0",
        "POSTGRES_DB": "qfieldcloud_db", "POSTGRES_USER": "qfieldcloud_db_admin", "POSTGRES_PASSWORD": "geheim",
        "POSTGRES_HOST": "db", "POSTGRES_PORT": "5432", "POSTGRES_SSLMODE": "prefer", "STORAGES": "",
        "QFIELDCLOUD_WORKER_QFIELDCLOUD_URL": "http://app:8000/api/v1/", "TMP_DIRECTORY": directory,
        "QFIELDCLOUD_QGIS3_IMAGE_NAME": ground.image, "QFIELDCLOUD_WORKER_REPLICAS": "2",
        "DOCKER_SOCKET": ground.engine.socket_path, "DOCKER_GID": gid, "QFC_WORKER_IMAGE": f"{IMAGE}:{session}",
        "QFC_WORKER_SOURCE": ROOT, "QFIELDCLOUD_DEFAULT_NETWORK": f"{name}_default",
    }  # fmt: skip
    made = Stack(cli, ground, name, [STACK], env)
    yield made
    made.close()
    cleanup.now(remove)


def test_the_overlay_touches_nothing_else(stack):
    """Of the stack's own configuration only what the overlay names differs."""
    import yaml

    before = yaml.safe_load(stack.compose("config"))
    after = yaml.safe_load(stack.compose("config", files=[STACK, OVERLAY]))
    old, new = before["services"].pop("worker_wrapper"), after["services"].pop("worker_wrapper")
    assert before == after
    assert sorted(new["volumes"]) == sorted(old["volumes"])  # compose merges them in an order of its own
    for key in ("networks", "labels", "logging", "restart", "scale"):
        assert new.get(key) == old.get(key), key
    kept = {name: value for name, value in new["environment"].items() if name in old["environment"]}
    assert kept == {**old["environment"], "TMP_DIRECTORY": ""}
    assert new["build"]["context"] == str(ROOT) and new["build"]["target"] == "runtime"
    assert new["command"] == ["run"] and new["user"] == "10001:10001"


def old_and_new(stack):
    """How many of the running workers are which."""
    images = [container["Image"] for container in stack.workers()]
    new = sum(stack.env["QFC_WORKER_IMAGE"] in image or image.startswith("sha256") for image in images)
    return len(images) - new, new


FLEETS = [pytest.param(40, (3, 1, 4), id="40 jobs"), pytest.param(100, (8, 2, 12), id="100 jobs", marks=pytest.mark.long)]


@pytest.mark.usefixtures("image", "stack_image")
@pytest.mark.parametrize("jobs, replicas", FLEETS)
def test_replacing_the_old_worker_scaling_upgrading_and_going_back(stack, ground, cli, base, jobs, replicas):
    """Jobs while the fleet is replaced, scaled, upgraded: none is lost, none is run twice; then the old one again."""
    first, fewer, more = replicas
    events, label = Events(ground), f"{stack.name}_worker"
    stack.compose("up", "-d", "db", "app")
    wait_for(lambda: stack.health("db") == "healthy", "the database")
    stack.sql("DELETE FROM core_applyjobdelta; DELETE FROM core_applyjob; DELETE FROM core_packagejob;"
              " DELETE FROM core_processprojectfilejob; DELETE FROM core_job")  # fmt: skip
    stack.compose("up", "-d", "worker_wrapper")
    stack.queue(jobs // 5)
    wait_for(lambda: stack.unfinished() < jobs // 5, "the old workers' first job")

    stack.files = [STACK, OVERLAY]
    stack.env["QFIELDCLOUD_WORKER_REPLICAS"] = str(first)
    stack.queue(jobs - jobs // 5)
    stack.compose("up", "-d", "--no-deps", "--no-build", "worker_wrapper")
    assert old_and_new(stack) == (0, first)
    for count in (fewer, more):
        stack.compose("up", "-d", "--no-deps", "--no-build", "--scale", f"worker_wrapper={count}", "worker_wrapper")
        assert old_and_new(stack) == (0, count)
    before = {container["Id"] for container in stack.workers()}
    cli.build(stack.env["QFC_WORKER_IMAGE"], "Dockerfile", "--build-arg", f"BASE_IMAGE={base}", "--label", f"upgrade={stack.name}")
    stack.env["QFIELDCLOUD_WORKER_REPLICAS"] = str(first)
    stack.compose("up", "-d", "--no-deps", "--no-build", "worker_wrapper")
    assert not before & {container["Id"] for container in stack.workers()} and len(stack.workers()) == first
    wait_for(lambda: stack.unfinished() == 0, "the end of all jobs")
    assert stack.sql("SELECT count(*) FROM core_job") == str(jobs), stack.told()
    starts = starts_by_job(events, label)
    assert len(starts) == jobs and set(starts.values()) == {1}, starts

    stack.env["QFC_WORKER_STOP"] = "drain"
    stack.queue(4)
    stack.compose("up", "-d", "--no-deps", "--no-build", "worker_wrapper")
    stack.compose("stop", "-t", "120", "worker_wrapper")
    assert stack.sql("SELECT count(*) FROM core_job WHERE status IN ('queued', 'started')") == "0"
    stack.files = [STACK]
    stack.env["QFIELDCLOUD_WORKER_REPLICAS"] = "1"
    stack.queue(4)
    stack.compose("up", "-d", "--no-deps", "--no-build", "worker_wrapper")
    wait_for(lambda: stack.unfinished() == 0, "the old worker's jobs")
    assert ground.docker.containers(label=[f"app={label}"]) == []
    # Each of the 20 jobs of the old loop that yielded to another was started once, too.
    assert set(starts_by_job(events, label).values()) == {1}


@pytest.mark.long
@pytest.mark.usefixtures("stack_image")
def test_secrets_as_files(cli, ground, session, image, stack, gid):
    """compose.prod.yml beside a stack: its passwords are in files, and no environment shows them."""
    stack.compose("up", "-d", "db", "app")
    wait_for(lambda: stack.health("db") == "healthy", "the database")
    stack.sql("UPDATE core_job SET status = 'failed' WHERE status = 'pending'")
    stack.queue(3)
    made = Stack(cli, ground, f"qfcprod{session}", [], {})
    docker = os.path.join(made.directory, "docker")
    os.makedirs(os.path.join(docker, "secrets"))
    shutil.copy(ROOT / "docker" / "compose.prod.yml", docker)
    made.files = [os.path.join(docker, "compose.prod.yml")]
    for name, value in {"postgres_password": "geheim\n", "secret_key": "change_me", "salt_key": "0" * 36,
                        "storages": "{}"}.items():  # fmt: skip
        path = os.path.join(docker, "secrets", name)
        Path(path).write_text(value)
        os.chown(path, 10001, 10001)
        os.chmod(path, stat.S_IRUSR)
    made.env.update({"DOCKER_GID": gid, "QFC_WORKER_IMAGE": f"{IMAGE}:{session}", "QFIELDCLOUD_WORKER_REPLICAS": "1"})
    with open(os.path.join(docker, ".env"), "w", encoding="utf-8") as file:
        file.write(f"POSTGRES_HOST=db\nENVIRONMENT={stack.name}\nCOMPOSE_PROJECT_NAME={stack.name}\n"
                   f"QFIELDCLOUD_QGIS3_IMAGE_NAME={ground.image}\nQFIELDCLOUD_DEFAULT_NETWORK={stack.name}_default\n")
    made.env["QFIELDCLOUD_DEFAULT_NETWORK"] = f"{stack.name}_default"
    made.project_directory = docker
    made.compose("up", "-d", "--no-build")
    try:
        wait_for(lambda: stack.sql("SELECT count(*) FROM core_job WHERE status = 'pending' OR status = 'started'") == "0",
                 "the end of all jobs")  # fmt: skip
        assert stack.sql("SELECT count(*) FROM core_job WHERE status = 'finished'") == "3", made.told()
        (worker,) = made.workers()
        about = json.dumps(ground.docker.inspect(worker["Id"]))
        assert "geheim" not in about and "change_me" not in about
    finally:
        made.close()


@pytest.fixture
def calls_of_the_proxy(stack):
    return lambda: stack.compose("logs", "--no-color", "socket_proxy")


@pytest.mark.long
@pytest.mark.usefixtures("image", "stack_image")
def test_through_the_socket_proxy(stack, proxy_image, calls_of_the_proxy):
    """The worker has no socket, and its calls all pass."""
    stack.files = [STACK, OVERLAY, ROOT / "docker" / "compose.socket-proxy.yml"]
    stack.env.update({"QFC_WORKER_PROXY_IMAGE": proxy_image, "QFIELDCLOUD_WORKER_REPLICAS": "1"})
    stack.compose("up", "-d", "db", "app")
    wait_for(lambda: stack.health("db") == "healthy", "the database")
    stack.compose("up", "-d", "--no-build", "worker_wrapper")
    wait_for(lambda: stack.unfinished() == 0, "the end of all jobs")
    refused = [line for line in calls_of_the_proxy().splitlines() if "| 403 " in line]
    assert refused == []
    (worker,) = stack.workers()
    assert "srw" not in stack.cli("docker", "exec", worker["Id"], "ls", "-l", "/var/run/docker.sock")


@pytest.mark.long
def test_the_development_stack(cli, ground, session, base, gid):
    """docker/compose.yml as it is printed: builds everything, and the first jobs end."""
    env = {"BASE_IMAGE": base, "DOCKER_GID": gid, "POSTGRES_HOST_PORT": "0"}
    made = Stack(cli, ground, f"qfcdev{session}", [ROOT / "docker" / "compose.yml"], env)
    made.project_directory = ROOT / "docker"
    try:
        made.compose("up", "-d", "--build")
        made.compose("exec", "-T", "db", "python3", "-m", "bed.dev_stack", "jobs", "2")
        wait_for(lambda: made.unfinished() == 0, "the end of all jobs")
        assert made.sql("SELECT count(*) FROM core_job") == "14", made.told()
    finally:
        made.compose("down", "--rmi", "local", "--volumes")
        made.close()


# systemd, and the installed files


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """What `meson install` puts below a directory."""
    target = tmp_path_factory.mktemp("installed")
    build = Path(built).parent
    subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet"], env={**os.environ, "DESTDIR": str(target)},
                   check=True, stdin=subprocess.DEVNULL)  # fmt: skip
    return target


def test_what_is_installed(installed):
    names = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    for end in ("bin/qfc-worker", "man/man1/qfc-worker.1", "man/man5/qfc-worker.5", "completions/qfc-worker.bash",
                "site-functions/_qfc-worker", "vendor_completions.d/qfc-worker.fish", "system/qfc-worker.service",
                "qfc-worker/CHANGELOG.md", "examples/.env.example", "examples/compose.qfieldcloud.yml"):  # fmt: skip
        assert any(name.endswith(end) for name in names), end


def test_the_unit(installed, built, tmp_path, capsys):
    (unit,) = installed.rglob("qfc-worker.service")
    text = unit.read_text().replace("/usr/local/bin/qfc-worker", built)
    place = tmp_path / "qfc-worker.service"
    place.write_text(text)
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", place], capture_output=True, text=True, check=False)
    ours = [line for line in (verified.stdout + verified.stderr).splitlines() if "qfc-worker" in line]
    assert ours == [], ours
    judged = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", place], capture_output=True,
                            text=True, check=False)  # fmt: skip
    last = judged.stdout.strip().splitlines()[-1]
    with capsys.disabled():
        print(f"\nsystemd-analyze security: {last.strip()}", flush=True)
    exposure = float(last.split(":")[1].split()[0])
    assert exposure < 3, judged.stdout


def test_the_manual_and_the_completions_can_be_read(installed):
    for page in (*installed.rglob("qfc-worker.1"), *installed.rglob("qfc-worker.5")):
        read = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", page], capture_output=True, text=True, check=True,
                              env={**os.environ, "MANROFFSEQ": "", "MANWIDTH": "100"})  # fmt: skip
        assert read.stderr == "" and "qfc-worker" in read.stdout
    (bash,) = installed.rglob("qfc-worker.bash")
    script = (f"source {bash}; COMP_WORDS=(qfc-worker ru); COMP_CWORD=1; _qfc_worker; echo ${{COMPREPLY[@]}};"
              "COMP_WORDS=(qfc-worker run --si); COMP_CWORD=2; _qfc_worker; echo ${COMPREPLY[@]}")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "run\n--single-shot\n" and done.stderr == ""


@pytest.mark.long
def test_dist(tmp_path):
    """`meson dist` makes a tarball, builds from it, and runs its unit tests."""
    clone, build = tmp_path / "clone", tmp_path / "build"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    subprocess.run(["meson", "setup", build, clone], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(["meson", "dist", "-C", build], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert list((build / "meson-dist").glob("qfc-worker-*.tar.xz"))
