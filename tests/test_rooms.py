"""The arrows between the rooms: a room includes only rooms below it, and nothing goes in a circle."""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# From the ground up, each with the headers that promise what it does.
ROOMS = {
    "base": "address buffer error fernet http log pg random statements stores tar text",
    "engine": "container engine events image_archive",
    "queue": "actions job jobs queue release report setup",
    "processors": "environment feedback limits outcome processor reasons secrets steps token",
    "worker": "confine image_backup image_work monitor settings suspects worker",
    "ops": "cli",
}
ORDER = list(ROOMS)
ROOM_OF = {f"{name}.h": room for room, names in ROOMS.items() for name in names.split()}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def included(path):
    return INCLUDE.findall(path.read_text())


def check_file(room, path, root):
    """What is wrong with the includes of one file that belongs to `room`."""
    where = path.relative_to(root)
    for name in included(path):
        if name.startswith("qfc/"):
            other = ROOM_OF.get(name.removeprefix("qfc/"))
            if other is None:
                yield f"{where} includes {name}, which belongs to no room"
            elif ORDER.index(other) > ORDER.index(room):
                yield f"{where} ({room}) includes {name} ({other}): upwards"
        elif "/" in name or not (root / room / name).exists():
            yield f"{where} includes {name}: neither a promise of include/qfc nor a header of its own room"


def find_cycle(root):
    """A circle of headers that include each other, or None."""
    arrows = {
        path.name: [name.removeprefix("qfc/") for name in included(path) if name.startswith("qfc/")]
        for path in (root / "include" / "qfc").glob("*.h")
    }
    done = set()

    def walk(name, trail):
        if name in trail:
            return trail[trail.index(name) :] + [name]
        if name in done:
            return None
        for other in arrows.get(name, []):
            cycle = walk(other, trail + [name])
            if cycle:
                return cycle
        done.add(name)
        return None

    return next(filter(None, (walk(name, []) for name in sorted(arrows))), None)


def check(root):
    problems = []
    for room in ORDER:
        for path in sorted((root / room).glob("*.[ch]")):
            problems += check_file(room, path, root)
    for path in sorted((root / "include" / "qfc").glob("*.h")):
        if path.name not in ROOM_OF:
            problems.append(f"{path.name} belongs to no room")
        else:
            problems += check_file(ROOM_OF[path.name], path, root)
    cycle = find_cycle(root)
    if cycle:
        problems.append("a circle: " + " -> ".join(cycle))
    return problems


def copy_tree(tmp_path):
    for name in [*ORDER, "include"]:
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def plant(path, line):
    path.write_text(line + "\n" + path.read_text())


def test_no_room_includes_upwards_and_there_is_no_cycle():
    assert check(ROOT) == []


def test_an_upward_include_is_found(tmp_path):
    root = copy_tree(tmp_path)
    plant(root / "base" / "buffer.c", '#include "qfc/queue.h"')
    assert check(root) == ["base/buffer.c (base) includes qfc/queue.h (queue): upwards"]


def test_an_upward_include_of_a_header_is_found(tmp_path):
    root = copy_tree(tmp_path)
    plant(root / "include" / "qfc" / "job.h", '#include "qfc/worker.h"')
    assert any("job.h (queue) includes qfc/worker.h (worker): upwards" in problem for problem in check(root))


def test_a_private_header_of_another_room_is_found(tmp_path):
    root = copy_tree(tmp_path)
    plant(root / "worker" / "worker.c", '#include "../queue/queue_private.h"')
    assert any("worker/worker.c includes ../queue/queue_private.h" in problem for problem in check(root))


def test_a_cycle_within_a_room_is_found(tmp_path):
    root = copy_tree(tmp_path)
    plant(root / "include" / "qfc" / "error.h", '#include "qfc/statements.h"')
    assert any(problem.startswith("a circle: ") for problem in check(root))


def test_a_header_without_a_room_is_found(tmp_path):
    root = copy_tree(tmp_path)
    (root / "include" / "qfc" / "stray.h").write_text("#pragma once\n")
    assert "stray.h belongs to no room" in check(root)


def test_chance_comes_from_one_place():
    """qfc/random.h says what is wrong with a generator that a process seeds for itself."""
    files = [path for room in ORDER for path in (ROOT / room).rglob("*.[ch]")]
    called = re.compile(r"(?<!\w)(?:s?rand|s?random|[dlm]rand48|rand_r)\s*\(")
    assert [str(path) for path in files if called.search(path.read_text())] == []
