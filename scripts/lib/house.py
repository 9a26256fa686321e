# SPDX-License-Identifier: GPL-2.0-only
"""The form of what no compiler looks at: licence lines, C, shell, Python, YAML, TOML. Part of scripts/test.

Linters that are not there are skipped, and that is said; scripts/setup installs them. With --fix the C is
brought into its form.
"""

import difflib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import kernels
import project

LINE = "SPDX-License-Identifier: GPL-2.0-only"
HEAD_BYTES = 600
CLANG_FORMAT = "clang-format-19"
# JSON has no comments; these files are the licence, generated, or frozen as others made them
WITHOUT_LINE = re.compile(r"\.json$|^LICENSE$|^(fuzz/)?Cargo\.lock$|^\.gitignore$|^tests/fixtures/|^fuzz/seeds/")
SHELL = re.compile(rb"#!(/bin/|/usr/bin/env )(ba)?sh\b")
FIRST_COMMENTS = re.compile(r"^(//|/\*|\*|#|<!--|Comment:|Format:|Upstream-Name:|---|\s*$)")


def files():
    """What git has, and what it would have: as a path below the root, and its text or None."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=project.ROOT, stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
    return [name for name in sorted(set(names)) if name and (project.ROOT / name).is_file()]


def head(name):
    with (project.ROOT / name).open("rb") as file:
        return file.read(HEAD_BYTES)


def without_licence_line(names):
    bad = []
    for name in names:
        if WITHOUT_LINE.search(name):
            continue
        lines = head(name).decode(errors="replace").splitlines()
        # among the first comments, not somewhere in the text
        if not any(LINE in line and FIRST_COMMENTS.match(line) for line in lines[:8]):
            bad.append(f"{name}: no line '{LINE}' at its beginning")
    return bad


def tool(command, names):
    """What a linter reports; None if it is not there."""
    if not shutil.which(command[0]):
        return None
    done = subprocess.run([*command, *names], cwd=project.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.splitlines() or ([f"{command[0]} exits with {done.returncode}"] if done.returncode else [])


def c_lines(lines):
    """Without the blanks inside: aligned comments are left as they are."""
    return [re.sub(r"\s+", " ", line).strip() for line in lines]


def formatted(name):
    """The lines of a C file, and the same with clang-format's where more than blanks differ."""
    old = (project.ROOT / name).read_text().splitlines()
    done = subprocess.run([CLANG_FORMAT, name], cwd=project.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    new = done.stdout.splitlines()
    lines = []
    for change, at, end, new_at, new_end in difflib.SequenceMatcher(None, c_lines(old), c_lines(new), autojunk=False).get_opcodes():
        lines += old[at:end] if change == "equal" else new[new_at:new_end]
    return old, lines


def c_files(names):
    """Not include/: it is tables, with comments beside them."""
    return [name for name in names if name.startswith("bpf/") and name.endswith((".c", ".h"))]


def c(names):
    if not shutil.which(CLANG_FORMAT):
        return None
    bad = []
    for name in c_files(names):
        old, new = formatted(name)
        changes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        bad.extend(f"{name}:{at + 1}: not as .clang-format has it; scripts/lib/house.py --fix" for change, at, *_ in changes if change != "equal")
    return bad


def fix(names):
    for name in c_files(names):
        old, new = formatted(name)
        if old != new:
            (project.ROOT / name).write_text("\n".join(new) + "\n")
            print(name)


def shell(names):
    scripts = [name for name in names if SHELL.match(head(name))]
    # single quotes around $ are for shells that come later
    return tool(["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", "--exclude=SC2016", "--format=gcc"], scripts)


def python(names):
    return tool(["pyflakes3"], [name for name in names if name.endswith(".py") or b"python" in head(name).split(b"\n")[0]])


def yaml(names):
    try:
        import yaml as parser
    except ImportError:
        return None
    bad = []
    for name in names:
        if name.endswith((".yml", ".yaml")):
            try:
                parser.safe_load((project.ROOT / name).read_text())
            except parser.YAMLError as error:
                bad.append(f"{name}: {error}")
    return bad


def workflows(names):
    """By the schemas of GitHub's own format, which the linter has with it."""
    linter = next(kernels.cache_dir().glob("check-jsonschema-*/bin/check-jsonschema"), None)
    if not linter:
        return None
    bad = []
    for schema, folder in (("github-workflows", ".github/workflows/"), ("github-actions", ".github/actions/")):
        chosen = [name for name in names if name.startswith(folder)]
        said = tool([str(linter), "--builtin-schema", f"vendor.{schema}"], chosen) or []
        bad += [line for line in said if not line.startswith("ok -- ")]
    return bad


def toml(names):
    bad = []
    for name in names:
        if name.endswith(".toml"):
            try:
                tomllib.loads((project.ROOT / name).read_text())
            except ValueError as error:
                bad.append(f"{name}: {error}")
    return bad


def ends(names):
    """Whole lines, no blanks at their ends: what .editorconfig asks for."""
    bad = []
    for name in names:
        path = Path(name)
        if name.startswith(("tests/fixtures/", "docs/results/", "fuzz/seeds/")) or path.name == "LICENSE":
            continue
        data = (project.ROOT / name).read_bytes()
        if data and not data.endswith(b"\n"):
            bad.append(f"{name}: the last line has no end")
        bad.extend(f"{name}:{nr}: blanks at the end" for nr, line in enumerate(data.split(b"\n"), 1) if line.endswith((b" ", b"\t", b"\r")))
    return bad


CHECKS = [
    ("C: clang-format", c),
    ("licence lines (SPDX)", without_licence_line),
    ("ends of lines", ends),
    ("shell: shellcheck", shell),
    ("Python: pyflakes3", python),
    ("YAML", yaml),
    ("workflows: check-jsonschema", workflows),
    ("TOML", toml),
]


def main():
    names = files()
    if sys.argv[1:] == ["--fix"]:
        fix(names)
        return 0
    counts = [0, 0, 0]
    for name, check in CHECKS:
        bad = check(names)
        state = 2 if bad is None else int(bool(bad))
        counts[state] += 1
        print(f"{('ok', 'FAILED', 'skipped, not installed')[state]}: {name}", flush=True)
        for line in (bad or [])[:40]:
            print(f"  | {line}")
    print("{} passed, {} failed, {} skipped".format(*counts))
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
