# SPDX-License-Identifier: GPL-2.0-only
"""Owns the drawing of what scripts/bench measured: for each metric the schedulers side by side, relative to the default.

Left is better, also of rates. A dot is the median, its line reaches from the best run to the worst.
drawsvg writes the SVG; it is installed into the cache, by pip of the environment that scripts/setup makes for virtme-ng.
"""

import importlib
import math
import statistics
import subprocess
import sys

import kernels
import project
from bench_table import DEFAULT, metrics, values
from bench_works import LOWER, WORKS, better

DRAWSVG = "2.4.2"

NAMES_WIDTH, PLOT_WIDTH, MARGIN = 320, 620, 20
LANE = 7  # of one scheduler
HEAD = 64
COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf"]
TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10]
SIDE_MAX = 12  # what is further off is drawn at the edge


def library():
    folder = kernels.cache_dir() / f"drawsvg-{DRAWSVG}"
    if not (folder / "drawsvg").is_dir():
        pip = next(iter(kernels.cache_dir().glob("vng-*/bin/pip")), None)
        command = [str(pip), "install", "--quiet", "--no-deps", "--target", str(folder), f"drawsvg=={DRAWSVG}"]
        if not pip or subprocess.run(command).returncode:
            raise project.Failure(f"drawsvg {DRAWSVG} cannot be installed into {folder}; without --plot it is not needed")
    sys.path.insert(0, str(folder))
    return importlib.import_module("drawsvg")


def relative(found, reference, metric):
    """How much worse than the reference: best, median and worst run; None if that cannot be said."""
    if not found or not reference or not min(found) > 0 or not reference > 0:
        return None
    costs = sorted(value / reference if better(metric) == LOWER else reference / value for value in found)
    return costs[0], statistics.median(costs), costs[-1]


def across(cost):
    """The place of a ratio, on a logarithmic axis."""
    bounded = min(max(cost, 1 / SIDE_MAX), SIDE_MAX)
    return NAMES_WIDTH + PLOT_WIDTH * (math.log(bounded) / math.log(SIDE_MAX) + 1) / 2


def lines(runs, names):
    """(work, metric, {scheduler: (best, median, worst)}) of each that can be drawn."""
    for work in [work for work in WORKS if work in runs]:
        for metric in metrics(runs[work]):
            by = {name: values(runs[work].get(name, []), metric) for name in names}
            reference = statistics.median(by[DEFAULT]) if by.get(DEFAULT) else 0
            costs = {name: relative(found, reference, metric) for name, found in by.items()}
            if any(costs.values()):
                yield work, metric, costs


def picture(svg, title, drawn, names):
    row = LANE * len(names) + 6
    width, height = NAMES_WIDTH + PLOT_WIDTH + 2 * MARGIN, HEAD + row * len(drawn) + 40
    image = svg.Drawing(width, height, font_family="sans-serif")
    image.append(svg.Rectangle(0, 0, width, height, fill="white"))
    image.append(svg.Text(title, 11, MARGIN, 16))
    image.append(svg.Text("left is better; 1 is the median of the kernel default; lines reach from the best run to the worst", 10, MARGIN, 32, fill="#555"))
    colours = dict(zip(names, COLOURS * (len(names) // len(COLOURS) + 1)))
    for nr, (name, colour) in enumerate(colours.items()):
        image.append(svg.Circle(MARGIN + 4 + 150 * nr, 46, 3.5, fill=colour))
        image.append(svg.Text(name, 10, MARGIN + 12 + 150 * nr, 49))
    bottom = HEAD + row * len(drawn)
    for tick in TICKS:
        image.append(svg.Line(across(tick), HEAD, across(tick), bottom, stroke="#999" if tick == 1 else "#e5e5e5"))
        image.append(svg.Text(f"{tick:g}", 10, across(tick), bottom + 14, text_anchor="middle"))
    for nr, (work, metric, costs) in enumerate(drawn):
        top = HEAD + row * nr
        image.append(svg.Text(f"{work}: {metric}", 10, NAMES_WIDTH - 10, top + row / 2 + 3, text_anchor="end"))
        image.append(svg.Line(MARGIN, top, width - MARGIN, top, stroke="#f0f0f0"))
        for lane, name in enumerate(names):
            if costs.get(name):
                least, median, most = map(across, costs[name])
                y = top + 3 + LANE * (lane + 0.5)
                image.append(svg.Line(least, y, most, y, stroke=colours[name], stroke_width=1.5))
                image.append(svg.Circle(median, y, 2.8, fill=colours[name]))
    return image


def write(path, runs, names, title):
    svg = library()
    drawn = list(lines(runs, names))
    if not drawn:
        raise project.Failure("nothing can be drawn: no run of the default scheduler is there to compare with")
    text = picture(svg, title, drawn, names).as_svg()
    path.write_text(text.replace("?>\n", "?>\n<!-- SPDX-License-Identifier: GPL-2.0-only -->\n", 1))
