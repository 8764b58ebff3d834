"""Checks Grafana dashboards against Grafana's own schema: what its SDK does not know, or reads otherwise, is told."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def differences(written, read, path):
    """Where what was read is not what was written. The SDK adds its defaults, which is no difference."""
    if isinstance(written, dict):
        for name, value in written.items():
            if not isinstance(read, dict) or name not in read:
                yield f"{path}/{name} is not known"
            else:
                yield from differences(value, read[name], f"{path}/{name}")
    elif isinstance(written, list):
        if not isinstance(read, list) or len(written) != len(read):
            yield f"{path} is not a list, or a shorter one"
        else:
            for at, (one, other) in enumerate(zip(written, read)):
                yield from differences(one, other, f"{path}/{at}")
    elif written != read:
        yield f"{path} is {written!r}, read as {read!r}"


def panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def faults(dashboard):
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    yield from differences(dashboard, read, "")
    ids = [panel["id"] for panel in panels(dashboard)]
    if len(ids) != len(set(ids)):
        yield "two panels have the same id"
    taken = {}
    for panel in panels(dashboard):
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"{panel['title']} is wider than the dashboard"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                if other != panel["title"]:
                    yield f"{panel['title']} lies over {other}"
                    return


def main():
    register_default_plugins()
    failed = False
    for path in sys.argv[1:]:
        for fault in faults(json.loads(Path(path).read_text())):
            print(f"{path}: {fault}")
            failed = True
    sys.exit(failed)


main()
