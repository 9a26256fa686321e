# SPDX-License-Identifier: GPL-2.0-only
"""The crates that are linked into the programs, on stdout: as CycloneDX JSON, from what cargo says about
them; with --texts the texts of their licences, which have to go with the programs.

Crates of build scripts and of tests are left out: nothing of them ships.
"""

import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

TARGET = "x86_64-unknown-linux-gnu"


def metadata():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def linked(data):
    """Ids of the packages of which something is linked, by cargo's own choice of features."""
    command = ["cargo", "tree", "--locked", "--edges", "normal", "--target", TARGET, "--prefix", "none", "--format", "{p}"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    names = {tuple(line.split()[:2]) for line in lines if line}
    return {p["id"] for p in data["packages"] if (p["name"], f"v{p['version']}") in names}


def component(package, kind):
    purl = f"pkg:cargo/{package['name']}@{package['version']}"
    # some crates still write "/" where SPDX has OR
    licence = (package["license"] or "NOASSERTION").replace("/", " OR ")
    return {
        "type": kind,
        "bom-ref": purl,
        "name": package["name"],
        "version": package["version"],
        "licenses": [{"expression": licence}],
        "purl": purl,
    }


def texts(packages):
    """Each text once, below the crates that have it."""
    owners = {}
    for package in packages:
        folder = Path(package["manifest_path"]).parent
        files = (f for f in sorted(folder.iterdir()) if f.is_file() and re.match("licen[cs]e|copying|notice", f.name, re.I))
        for file in files:
            text = file.read_text(errors="replace").strip()
            owners.setdefault(text, []).append(f"{package['name']} {package['version']}")
    for text, names in owners.items():
        print(f"{'=' * 72}\n{', '.join(names)}\n\n{text}\n")


def main():
    data = metadata()
    ids = linked(data)
    root = data["resolve"]["root"]
    packages = sorted((p for p in data["packages"] if p["id"] in ids), key=lambda p: (p["name"], p["version"]))
    if sys.argv[1:] == ["--texts"]:
        return texts([p for p in packages if p["id"] != root])
    made = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), timezone.utc)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": next(component(p, "application") for p in packages if p["id"] == root),
        },
        "components": [component(p, "library") for p in packages if p["id"] != root],
    }
    json.dump(bom, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
