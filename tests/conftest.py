"""Fixtures for all tests in Python; tests/bed has what they are made of.

`database` is one of the newest release, or of those named with
    @pytest.mark.parametrize("database", ["v25.30", "v26.25"], indirect=True)
and `worker` is the program with that database, the API player and the engine that answers here. Tests that would harm
an engine take `own_ground`, and run the program on it with `make_worker(database, own_ground)`.
"""

import contextlib
import os
import signal
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from bed import BedError, cleanup  # noqa: E402
from bed import engine as engines  # noqa: E402
from bed import postgres as servers  # noqa: E402
from bed.api import Api  # noqa: E402
from bed.counting import (  # noqa: E402, F401
    pytest_collectreport,
    pytest_deselected,
    pytest_runtest_logreport,
    pytest_runtest_makereport,
    pytest_sessionfinish,
)
from bed.ground import LABEL, Ground  # noqa: E402
from bed.leftovers import Leftovers  # noqa: E402
from bed.worker import Worker  # noqa: E402

NEWEST = "v26.25"


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the tests marked `long`, too")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes; only with --long")
    cleanup.on_signals()
    servers.sweep()
    engines.sweep()
    cleanup.sweep()


def pytest_keyboard_interrupt():
    """What follows is cleaning up, which a second Ctrl-C must not cut short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def pytest_collection_modifyitems(config, items):
    """Long tests are left out, not skipped: a skip counts as a failure."""
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def postgres():
    """The run's PostgreSQL server."""
    server = servers.Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def engine(pytestconfig):
    """The engine that answers here, or one of our own; what is said about the choice is not captured."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        found = engines.find()
    yield found
    found.close()


@pytest.fixture(scope="module")
def ground(engine):
    """The engine with the stand-in image and the run's network."""
    made = Ground(engine)
    yield made
    made.close()


@pytest.fixture(scope="module")
def image(ground):
    return ground.image


@pytest.fixture(scope="module")
def network(ground):
    return ground.network


@pytest.fixture
def own_ground():
    """The same on an engine that only this test has, to be restarted, killed and pruned."""
    own = engines.OwnEngine()
    try:
        made = Ground(own)
        yield made
        if own.docker.answers():
            made.close()
    finally:
        own.close()


class _Databases:
    def __init__(self, server):
        self.server, self.made = server, []

    def __call__(self, release=NEWEST):
        self.made.append(self.server.database(release))
        return self.made[-1]


@pytest.fixture
def databases(postgres):
    """Makes further databases: databases("v25.30")."""
    factory = _Databases(postgres)
    yield factory
    if not postgres.running():
        postgres.start()
    for database in factory.made:
        database.close()


@pytest.fixture
def database(request, databases):
    return databases(getattr(request, "param", NEWEST))


@pytest.fixture
def api(database, ground):
    """The API player for `database` on the run's network."""
    player = Api(database, ground.engine, ground.gateway)
    yield player
    player.close()


@pytest.fixture
def directory():
    """The program's TMPDIR, which must be empty when it has ended."""
    parent, remove = cleanup.directory("test")
    path = os.path.join(parent, "tmp")
    os.mkdir(path)
    yield path
    cleanup.now(remove)


@pytest.fixture
def leftovers(ground, databases, directory):
    """Fails the test when it has left something over."""
    watch = Leftovers(ground.docker, ground.image, ground.network, LABEL, directory)
    watch.databases = databases.made
    yield watch
    found = watch.found()
    watch.remove(found)
    assert not found, "left over:\n" + "\n".join(found)


def binary():
    """The built program."""
    root = os.path.dirname(HERE)
    named = os.environ.get("QFC_WORKER_BINARY")
    places = ("build-asan/qfc-worker", "build-asan/ops/qfc-worker", "build/qfc-worker", "build/ops/qfc-worker")
    candidates = [named] if named else [os.path.join(root, place) for place in places]
    for path in candidates:
        if os.access(path, os.X_OK):
            return os.path.abspath(path)
    raise BedError(f"the program is not built: {' or '.join(candidates)}")


@pytest.fixture(scope="session")
def built():
    """The path of the built program."""
    return binary()


@pytest.fixture
def make_worker(leftovers, directory):
    """Makes the program with any database and ground: make_worker(database, ground, api=None)."""
    made = []

    def make(database, ground, api=None):
        worker = Worker(binary(), database, ground.engine, ground.image, ground.network, directory)
        if api:
            worker.env["QFIELDCLOUD_WORKER_QFIELDCLOUD_URL"] = api.url
        made.append(worker)
        return worker

    yield make
    complaints = [complaint for worker in made for complaint in worker.close()]
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def worker(make_worker, database, ground, api):
    """The program with `database`, `api` and the engine that answers here."""
    return make_worker(database, ground, api)
