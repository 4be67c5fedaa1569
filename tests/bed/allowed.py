"""A proxy before the engine that lets only those calls through that docs/engines.md lists."""

import pathlib
import re

from .proxy import EngineProxy, made_up

DOCUMENT = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "engines.md"


def listed(name):
    """The calls of a table: ["GET /version", ...]."""
    table = re.search(f"<!-- {name} -->\n(.*?)<!-- /{name} -->", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[1]
    return re.findall(r"^\| `([A-Z]+ /\S*)` \|", table, re.MULTILINE)


def pattern(call):
    """What a request of that call matches: an image's name may have slashes, an id may not."""
    return re.compile(re.escape(call).replace(r"\{id\}", "[^/]+").replace(r"\{name\}", ".+")
                      .replace(r"\{digits\}", "[0-9a-f]{64}"))


class AllowingProxy(EngineProxy):
    """`refused` has the requests that were not let through, `used` the calls that were."""

    def __init__(self, engine_socket, calls):
        self.calls, self.used, self.refused = {call: pattern(call) for call in calls}, set(), []
        super().__init__(engine_socket)

    def allow(self, call):
        self.calls[call] = pattern(call)

    def _pass(self, client, engine, request, message):
        path = request.partition("?")[0]
        found = next((call for call, allowed in self.calls.items() if allowed.fullmatch(path)), None)
        if found is None:
            self.refused.append(request)
            page = b"<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>\n"
            client.sendall(made_up(403, page, "text/html"))
            return True
        self.used.add(found)
        return super()._pass(client, engine, request, message)
