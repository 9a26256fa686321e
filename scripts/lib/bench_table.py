# SPDX-License-Identifier: GPL-2.0-only
"""Owns what scripts/bench says of its measurements: medians, spread, and which differences are none.

Pure: no I/O. `runs` is {work: {scheduler: [{metric: value} or {"failed": why}]}}.
"""

import statistics

from bench_works import LOWER, WORKS, better

DEFAULT = "default"
OWN = "scx_proxy"

# fewer runs have no spread to speak of
RUNS_MIN = 3
NONE = "no difference"


def values(runs, metric):
    return [run[metric] for run in runs if metric in run]


def metrics(by):
    """In the order in which the works report them."""
    names = [name for runs in by.values() for run in runs for name in run if name != "failed"]
    return list(dict.fromkeys(names))


def differ(ours, theirs):
    """Only if not even the worst run of one reaches the best of the other."""
    if min(len(ours), len(theirs)) < RUNS_MIN:
        return False
    return max(ours) < min(theirs) or max(theirs) < min(ours)


def best(candidates, metric):
    """Of {scheduler: values}: the name with the best median."""
    medians = {name: statistics.median(found) for name, found in candidates.items() if found}
    if not medians:
        return None
    return (min if better(metric) == LOWER else max)(medians, key=medians.get)


def ratio(ours, theirs):
    """Of the medians; None if there is none."""
    if not ours or not theirs or not statistics.median(theirs):
        return None
    return statistics.median(ours) / statistics.median(theirs)


def verdict(ours, theirs, metric):
    if not ours or not theirs:
        return "-"
    if not differ(ours, theirs):
        return NONE
    less = statistics.median(ours) < statistics.median(theirs)
    word = "better" if less == (better(metric) == LOWER) else "worse"
    times = ratio(ours, theirs)
    return word if times is None else f"{times:.2f}, {word}"


def number(value):
    """Three digits, and no more than three behind the point."""
    behind = next((digits for digits, below in ((3, 1), (2, 10), (1, 100)) if abs(value) < below), 0)
    return f"{value:.{behind}f}"


def shown(found):
    if not found:
        return "-"
    spread = f" ({number(min(found))}-{number(max(found))})" if len(found) > 1 else ""
    return number(statistics.median(found)) + spread


def rows(runs, names):
    """Cells of the table, its head first."""
    others = [name for name in names if name != OWN]
    compared = OWN in names and others
    head = ["work", "metric", *names]
    if compared:
        head += [f"{OWN} to {others[0]}"] + (["to the best other"] if len(others) > 1 else [])
    table = [head]
    for work in [work for work in WORKS if work in runs]:
        for metric in metrics(runs[work]):
            by = {name: values(runs[work].get(name, []), metric) for name in names}
            row = [work, metric, *map(shown, by.values())]
            if compared:
                row.append(verdict(by[OWN], by[others[0]], metric))
            if compared and len(others) > 1:
                rival = best({name: by[name] for name in others}, metric)
                row.append(f"{rival}: {verdict(by[OWN], by[rival], metric)}" if rival else "-")
            table.append(row)
    return table


def markdown(table):
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def failures(runs):
    """A line for each work and scheduler that failed."""
    for work, by in runs.items():
        for name, each in by.items():
            why = [run["failed"] for run in each if "failed" in run]
            if why:
                yield f"{name}, {work}: {len(why)} of {len(each)} runs failed: {why[0]}"
