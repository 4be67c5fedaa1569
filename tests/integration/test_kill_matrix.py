"""Workers die, or hang, at each step of a job's life, before and after what the step does: each job ends once, with the
truth, and nothing is left of it.

The steps are those of the program's own table, and a step that no road here leads to fails a test. Each of them is
played in three ways: the worker is killed, and another one is started then; it is killed while another one is there; it
hangs for so long that another one takes its job over, and then wakes up and writes nothing. Most steps are played with
a delta_apply job, which must never be started twice; those about storage with a picture (thumbnail, review, store) and
with the objects of packages (list, leftovers, erase), revoke with a job that somebody deletes, kill with one whose time
is over, discard and put back with an engine that does not start the container.

All of it is played at once, before the first test: what is waited for (20 s until a silent worker counts as gone, 45 s
and more until a container counts as nobody's) is the same for all.
"""

import pytest
from bed import cleanup, killing
from bed.killing import CELLS, LATER, ROADS, RUNNING, STOPPED
from conftest import Events

WAYS = [LATER, RUNNING, STOPPED]


def play(worlds):
    """Returns when all is over, but for the rescuers of worlds whose workers wait to be woken."""
    killed = [world for world in worlds if LATER in world.ways]
    hung = [world for world in worlds if STOPPED in world.ways]
    for group in (killed, hung):
        for world in group:
            world.begin()
        for world in group:
            world.stopped()
            world.kill(LATER)
            world.rescue()
        for world in group:
            world.wait_for(world.rescuer_is_there, "the rescuer")
            world.kill(RUNNING)
    for world in worlds:
        world.settle()
    for world in hung:
        world.wake()
    for world in worlds:
        world.close()


@pytest.fixture(scope="module")
def worlds(postgres, ground, s3_server, built):
    """{(road, way): its world}, when all has been played."""
    assert killing.can_stop(built), f"{built} was built without -Dtest_stops=true"
    directory, remove = cleanup.directory("matrix")
    events = Events(ground)
    made = []
    try:
        for ways in ((LATER, RUNNING), (STOPPED,)):
            made += [killing.World(built, road, ways, postgres, ground, s3_server, directory, events) for road in ROADS]
        play(made)
        yield {(type(world.road), way): world for world in made for way in world.ways}
    finally:
        for world in made:
            world.forget()
        cleanup.now(remove)


def test_each_step_is_played(built):
    assert {step for _, step, _ in CELLS} == set(killing.steps_of(built))


def name(value):
    return value if isinstance(value, str) else value.__name__.lower()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("road, step, when", CELLS, ids=name)
def test_one_outcome(worlds, road, step, when, way):
    """The right one, with all deltas decided, of a container that was started once."""
    world = worlds[road, way]
    victim = world.victim(way, step, when)
    row, told = world.row(victim), world.told(victim)
    assert (row and row["status"]) == road.status, f"{row}\n{told}"
    assert world.starts_of(victim) == 1, told
    if row:
        assert row["finished_at"] and len(row["container_id"]) == 64 and "qfc_worker" not in row["feedback"], row
        assert world.deltas(victim) == ({road.deltas} if row["type"] == "delta_apply" else set()), told
    world.road.check(world, victim)


@pytest.mark.parametrize("road", ROADS, ids=name)
@pytest.mark.parametrize("way", [LATER, STOPPED])
def test_nothing_is_left(worlds, road, way):
    world = worlds[road, way]
    assert world.complaints == []
    assert world.containers() == [] and world.tokens() == [] and world.locks() == 0
    assert world.database.value("SELECT count(*) FROM core_job WHERE status NOT IN ('finished', 'failed')") == 0
    undecided = "SELECT count(*) FROM core_delta WHERE last_status IN ('pending', 'busy', 'started')"
    assert world.database.value(undecided) == 0


@pytest.mark.parametrize("road", ROADS, ids=name)
def test_who_wakes_up_writes_nothing(worlds, road):
    world = worlds[road, STOPPED]
    assert world.changed == {}
    assert world.started_again == []
