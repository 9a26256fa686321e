# SPDX-License-Identifier: GPL-2.0-only
"""Traces of `scx_proxy replay --perfetto` in Perfetto's own parser, asked in SQL.

Without arguments: replays the recording that the tests keep, and checks what the
parser finds in it. With a trace: prints its tracks, slices and arrows. The parser
is fetched by scripts/setup; perfetto_sql.mjs runs it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import project

LIB = Path(__file__).resolve().parent
FIXTURE = project.ROOT / "tests" / "fixtures" / "recordings" / "version-1.rec"


def parser_dir():
    """Where scripts/setup puts the parser: the newest, if there are several."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME") or "/root", ".cache")
    cache = Path(os.environ.get("SCX_PROXY_CACHE") or os.path.join(base, "scx_proxy"))
    found = sorted(folder for folder in cache.glob("perfetto-*") if folder.suffix != ".tmp")
    if not found:
        raise project.Failure("Perfetto's parser is not there: run scripts/setup")
    return found[-1]


def ask(trace, *queries):
    """The rows of each query."""
    command = ["node", str(LIB / "perfetto_sql.mjs"), str(parser_dir()), str(trace)]
    done = subprocess.run(command, input=json.dumps(queries), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise project.Failure(f"the parser refuses {trace}: {done.stderr.strip()}")
    return json.loads(done.stdout)


SLICES = """
    select s.ts, s.dur, s.name as slice, coalesce(t.name, k.name) as track, p.name as process, s.arg_set_id as args
    from slice s join track k on s.track_id = k.id left join thread_track h on h.id = k.id
    left join thread t using (utid) left join process p using (upid) order by s.ts, s.id"""
FLOWS = """
    select o.name as from_slice, i.name as to_slice, i.ts - o.ts as after
    from flow f join slice o on f.slice_out = o.id join slice i on f.slice_in = i.id"""
ARGS = "select key, coalesce(string_value, int_value) as value from args where arg_set_id = {}"
TROUBLE = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"
MS = 1_000_000
BEGAN = 1000 * MS


def expected():
    """What tests/record/fake.rs recorded: begin and length in ms, slice, track, process."""
    mutex = "mutex fdget_pos 0xffff888000001000"
    return {
        (0, 20, "waits for rwsem fdget_pos", "make", "make"),
        (0, 20, "held by tar (102)", "uts_sem", None),
        (10, 20, "waits for mutex fdget_pos", "firefox", "firefox"),
        (10, 20, "held by tar (102)", mutex, None),
        (12, 0, "donates to tar (102)", "firefox", "firefox"),
        (12, 18, "runs for firefox (101)", "tar", "tar"),
        (13, 0, "migrates to tar (102)", "firefox", "firefox"),
        (14, 0, "parks on tar (102)", "firefox", "firefox"),
        # it does not end: it is closed at the end of the trace
        (25, 15, "waits for mutex fdget_pos", "make", "make"),
        (30, 10, "held by firefox (101)", mutex, None),
        (31, 0, "returns: home", "firefox", "firefox"),
    }


class Check:
    def __init__(self):
        self.counts = [0, 0]

    def same(self, what, found, right):
        ok = found == right
        self.counts[not ok] += 1
        print(f"{'ok' if ok else 'FAILED'}: {what}", flush=True)
        if not ok:
            print(f"  found: {found}\n  right: {right}")


def selftest():
    check = Check()
    with tempfile.TemporaryDirectory() as tmp:
        trace = Path(tmp) / "trace"
        replay = [str(project.RELEASE / "scx_proxy"), "replay", str(FIXTURE), "--perfetto", str(trace)]
        if subprocess.run(replay).returncode:
            raise project.Failure("the recording could not be replayed")
        slices, flows, trouble, clocks, parents = ask(
            trace,
            SLICES,
            FLOWS,
            TROUBLE,
            "select clock_name, clock_value from clock_snapshot order by clock_name",
            "select k.name as track, p.name as parent from track k join track p on k.parent_id = p.id order by k.name",
        )
        found = {((row["ts"] - BEGAN) / MS, row["dur"] / MS, row["slice"], row["track"], row["process"]) for row in slices}
        check.same("slices, their times and tracks", sorted(found, key=str), sorted(((float(t), float(d), *r) for t, d, *r in expected()), key=str))
        check.same("arrows", flows, [{"from_slice": "donates to tar (102)", "to_slice": "runs for firefox (101)", "after": 0}])
        check.same("no error of the parser", trouble, [])
        check.same("clocks", {row["clock_name"]: row["clock_value"] for row in clocks}, {"BOOTTIME": 2000 * MS, "MONOTONIC": BEGAN, "REALTIME": 1_800_000_000 * 1000 * MS})
        locks = [{"track": "mutex fdget_pos 0xffff888000001000", "parent": "Locks"}, {"track": "uts_sem", "parent": "Locks"}]
        check.same("tracks of locks", [row for row in parents if row["parent"] == "Locks"], locks)
        waits = next(row for row in slices if row["slice"] == "waits for mutex fdget_pos")
        (args,) = ask(trace, ARGS.format(waits["args"]))
        args = {re.sub(r"^debug\.", "", row["key"]): row["value"] for row in args}
        right = {
            "lock": "mutex fdget_pos 0xffff888000001000",
            "class": "mutex fdget_pos",
            "address": "0xffff888000001000",
            "owner": "tar (102)",
            "cgroup": "/user.slice",
            "cpu": 1,
            "donations": 1,
            "waited_ns": 20 * MS,
            "inverted_ns": 4 * MS,
        }
        check.same("what is said of a wait", {key: args.get(key) for key in right}, right)
        broken = Path(tmp) / "broken"
        broken.write_bytes(b"\xff" * 100)
        try:
            ask(broken, "select 1")
            refused = False
        except project.Failure:
            refused = True
        check.same("what is no trace is refused", refused, True)
    print(f"{check.counts[0]} passed, {check.counts[1]} failed")
    return 1 if check.counts[1] else 0


def show(trace):
    slices, flows, trouble = ask(trace, SLICES, FLOWS, TROUBLE)
    print(f"{len(slices)} slices on {len({row['track'] for row in slices})} tracks, {len(flows)} arrows")
    for row in trouble:
        print(f"error of the parser: {row['name']} {row['value']}")
    return 1 if trouble else 0


def main(argv):
    parser = argparse.ArgumentParser(prog="scripts/check-trace", description=__doc__.splitlines()[0])
    parser.add_argument("trace", nargs="?", help="a trace; without, one is made of the recording that the tests keep")
    parser.add_argument("--built", action="store_true", help="build nothing: target/release is up to date")
    args = parser.parse_args(argv)
    if args.trace:
        return show(args.trace)
    if not args.built:
        project.build()
    return selftest()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (project.Failure, OSError, subprocess.SubprocessError) as error:
        print(f"check-trace: error: {error}", file=sys.stderr)
        sys.exit(1)
