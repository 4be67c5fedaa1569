"""JSON as the worker prints it for the audit log, held against Python's own json module on random documents."""

import json
import math
import os
import random
import struct
import subprocess

import pytest

COUNT = 4000
ALPHABET = ['"', "\\", "/", "\n", "\t", "\x01", "\x7f", "a", "B", "_", "\u00e9", "\u20ac", "\ufffd", "\U0001f600"]


@pytest.fixture(scope="session")
def printed(built, tmp_path_factory):
    """Prints JSON texts with the program's own code."""
    program = os.path.join(os.path.dirname(built), "tests", "unit-python_json")

    def run(texts):
        path = tmp_path_factory.mktemp("json") / "lines"
        path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
        done = subprocess.run([program, path], stdout=subprocess.PIPE, check=True, encoding="ascii")
        return done.stdout.split("\n")[:-1]

    return run


def check(printed, texts):
    expected = [json.dumps(json.loads(text), sort_keys=True) for text in texts]
    for text, got, wanted in zip(texts, printed(texts), expected, strict=True):
        assert got == wanted, text


def any_float(random_):
    """Any bits that are a number."""
    while True:
        value = struct.unpack("<d", random_.randbytes(8))[0]
        if math.isfinite(value):
            return value


def number(random_):
    """A number as somebody may write it."""
    kind = random_.randrange(7)
    if kind == 0:
        return str(random_.randint(-(10**30), 10**30))
    if kind == 1:
        return repr(any_float(random_))
    if kind == 2:
        return f"{any_float(random_):.{random_.randint(0, 30)}e}"
    if kind == 3:
        return f"{random_.uniform(-1e6, 1e6):.{random_.randint(1, 25)}f}"
    if kind == 4:
        return repr(random_.choice([-1.0, 1.0]) * math.ldexp(1.0, random_.randint(-1074, 1023)))
    if kind == 5:
        return repr(round(random_.uniform(-180, 180), random_.randint(0, 17)))
    return random_.choice(["0", "-0", "0.0", "-0.0", "0e5", "1E+5", "1e-7", "5e-324", "1e400", "-1e400"])


def text(random_):
    return "".join(random_.choices(ALPHABET, k=random_.randint(0, 6)))


def string(random_):
    return json.dumps(text(random_), ensure_ascii=random_.random() < 0.5)


def document(random_, level=0):
    kind = random_.randrange(8 if level < 5 else 4)
    space = random_.choice(["", " ", "\t "])
    if kind == 0:
        return random_.choice(["true", "false", "null"])
    if kind in (1, 2):
        return number(random_)
    if kind == 3:
        return string(random_)
    parts = [document(random_, level + 1) for _ in range(random_.randint(0, 6))]
    if kind in (4, 5):
        return f"[{space}" + f"{space},".join(parts) + f"{space}]"
    return f"{{{space}" + f",{space}".join(f"{string(random_)}{space}:{space}{part}" for part in parts) + f"{space}}}"


def test_random_documents(printed):
    random_ = random.Random(25)
    check(printed, [document(random_) for _ in range(COUNT)])


def test_random_floats(printed):
    random_ = random.Random(26)
    check(printed, [number(random_) for _ in range(10 * COUNT)])


def test_each_power_of_two_and_its_neighbours(printed):
    powers = [math.ldexp(1.0, exponent) for exponent in range(-1074, 1024)]
    check(printed, [repr(f(power)) for power in powers for f in (float, lambda v: math.nextafter(v, 0))])
