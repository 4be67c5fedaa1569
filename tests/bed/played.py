"""Runs a stand-in container to its end, for tests of the bed: what the program should make of it is another matter."""

import json

PROJECT = "b096ff14-1996-449a-ac18-c3c75c8944a7"


class Played:
    """What a container left: exit code, log, the feedback's archive member and bytes."""

    def __init__(self, ground, *args, **options):
        container = ground.create(*args, **{"network": "none", **options})
        try:
            ground.docker.start(container)
            self.code = ground.docker.wait(container)
            self.log = ground.docker.logs(container)
            self.member, self.bytes = ground.docker.member(container, "/io/feedback.json")
            self.state = ground.docker.inspect(container)["State"]
        finally:
            ground.docker.remove(container)

    @property
    def feedback(self):
        return json.loads(self.bytes)


def package(ground, scenario, **options):
    return Played(ground, "package", PROJECT, f"{scenario}.qgs", "qgiscore", **options)
