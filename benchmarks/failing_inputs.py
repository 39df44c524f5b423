"""Inputs that once failed, each beside its right answer: ``python -m retr.benchmarks.failing_inputs FOLDER``.

The folder holds ``ingest/NAME/repro.py`` (run in a copy of its own folder) and ``ask/NAME/run.sh`` (run from the
checkout); what is right for each stands here, in `INGEST` and `ASK`, as a check of what it prints. Prints a table: the
case, what is expected, what came; exits with 1 when one differs. Cases named by ``--skip`` are left out of the table.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from retr.benchmarks.record import RESULTS, record

Check = Callable[[str], bool]
ROOT = RESULTS.parents[1]
# the progress of a build, which no check looks at
_PROGRESS = re.compile(r"images/s|^embedding with|^loading the encoder|^exporting its network|rows \(.*\) in ")


def near(most: float) -> tuple[str, Check]:
    """Return the check of ``max difference X``: at most so many grey levels."""

    def check(out: str) -> bool:
        found = re.search(r"max difference ([\d.]+)", out)
        return found is not None and float(found[1]) <= most

    return f"max difference <= {most:g}", check


def has(*patterns: str, no: str | None = None) -> tuple[str, Check]:
    """Return the check that all patterns are found in what is printed, and ``no`` is not."""

    def check(out: str) -> bool:
        return all(re.search(p, out, re.MULTILINE) for p in patterns) and not (no and re.search(no, out))

    return " & ".join(patterns) + (f", no {no}" if no else ""), check


def lines(*wanted: str) -> tuple[str, Check]:
    """Return the check that these lines are printed, one after another, with nothing between them."""
    text = "\n".join(wanted)
    return " | ".join(wanted), lambda out: text in out


THREE_PATIENTS = r"'patient': '(\d{20})'.*'patient': '(?!\1)(\d{20})'.*'patient': '(?!\1|\2)\d{20}'"

INGEST: dict[str, tuple[str, Check]] = {
    "01": near(0),
    "03a": near(2),
    "03c": near(0),
    "04": near(1),
    "05": has(r"\[\('#1', \(7, 5\), .*\('#2', .*\('#3', "),
    "06": near(1),
    "08": near(1),
    "09": near(1),
    "10": near(1),
    "11a": near(1),
    "12": near(1),
    "15b": near(1),
    "16-missing-photometricinterpretation": near(1),
    "16-missing-planarconfiguration": near(0),
    "17": has("holds no picture|no pixel", no="cut short"),
    "18": has("kind that cannot be read", no="cut short|damaged"),
    "19a": near(1),
    "19c": near(1),
    "20-jpegls": has(r"not read|unsupported|^\[\(", no="damaged|cut short"),
    "20-tiff": has(r"not read|unsupported|^\[\(", no="damaged|cut short"),
    "21": near(1),
    "23": has("not read|unsupported", no=r"\(16, 12\)"),
    "24": has(r"\('#1', .*\('#8', ", no="#9"),
    "30": has(*(rf"{n}\.png', 'label': 'L{n}', 'patient': 'P{n}'" for n in "012")),
    "31": has(r"'a\.png', 'label': 'x'", r"'sub/b\.png', 'label': 'y'"),
    "32": has(r"'cases/a\.png'", r"'cases/b\.png'"),
    "33": has(r"'ok\.png'", r"'s\.tar\.gz::a\.png'", no="twice"),
    "40a": has(THREE_PATIENTS),
    "40c": has("'patient': '1.1'", "'patient': '1.10'", "'patient': '1.2'"),
    "41": has("UsageError.*line 2", no="'label': 'abc"),
    "44": has(r"'0\.png', .*'Sex': 'F'"),
    "46": has("UsageError.*different"),
    "50": has("UsageError.*image.*mask|UsageError.*mask.*image", "image-column", no="PNG"),
    "52": has(r"^\[\{'id': '[^']+'\}, \{'id': '[^']+'\}\]$"),
    "53": has(r"datetime\.date\(2020, 1, 1\)", r"'dose': (1\.1|Decimal)"),
    "60": has("IM0001", r"img\.acr", "bmp_noext", r"vol#1'"),
    "61": has(r"^\[.*'a\.tif#1'.*\]$", no="twice"),
    "62": has(r"'a\.png'", r"'b\.png'"),
}

ASK: dict[str, tuple[str, Check]] = {
    "01": has(
        r"^\[\(1, 0\.969\d+\), \(2, 0\.946\d+\)\]$",
        r"^ +1 +0\.9693",
        "score_meta",
        r"true \[\(1, 0\.9693\)",
        no=r"rank,score,.*,(rank|score)(,|$)",
    ),
    "02": has(
        *(rf"1234567890123456789{n}$" for n in range(5)),
        r"one per patient:\n(?:.*png\n){4}without",
        r"patient:\n(?:.*png\n){4}rc=0",
    ),
    "04": lines(
        "sphere = 0: a/1.png a/2.png b/5.png ",
        "sphere in (0): a/1.png a/2.png b/5.png ",
        "sphere not in (0): b/3.png b/4.png ",
        "sphere in (0, 1.25): a/1.png a/2.png b/3.png b/5.png ",
    ),
    "05": has(
        r"^src = .*: a/1\.png $",
        r"^src like 'C:.*: a/1\.png a/2\.png $",
        r"^src like '%.*: a/2\.png $",
        r"^src like 'a.*: $",
        r"^src not like .*: b/3\.png b/4\.png $",
    ),
    "06": has(
        r"^acc > 1\.5: a/1\.png a/2\.png $",
        r"^acc in .*: a/2\.png $",
        r"^acc < .*: a/1\.png a/2\.png $",
        r"^acc = 92.*: (no row matches )?$",
        r"^acc > dose: a/1\.png a/2\.png $",
        r"^dose < .*: a/1\.png a/2\.png $",
        r"^dose in .*: a/1\.png $",
        r"^acc >= .*: a/1\.png $",
        no="internal",
    ),
    "08": has(r"^ +1 +1\.0000 +a\.bmp"),
    "10": has("peft False base", no=r"peft \w+ lora3 "),
    "11": has(r"rows|^$|embedding", no="error"),
    "13": has(r"rc=0", r"^\./home/idx/CURRENT$", no=r"\./~|error"),
    "14": has(r"rc=0 lines=7", r"rc=0 lines=8 of 8", r"M\\xe9ni", no="internal"),
    "15": has(r"^.*tude/1\.png\nrc=0\n", no="has no image|no row has"),
    "16": has(r"\{\"query\": \"id '12:34\.png'\".*\n\{\"query\": \"id '12:34\.png'\""),
    "17": has(r"^a/2\.png +y( +)?$|no column 'age'", no="30"),
    "18": has(r"## t\n.*\n?## u|## t", "## v", r"## s\nerror: ", no="internal|rows        0"),
    "22": has(r"error: interrupted; what was committed is kept.* 130$|' 0$"),  # 0: done before the signal came
    "24": has("^error: .*line 2"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run every case of a folder and print the table; return 1 where one differs, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder that holds ingest/ and ask/")
    parser.add_argument("--skip", action="append", default=[], help="a case to leave out, ask/20; may be repeated")
    parser.add_argument("--peft", default="", help="a folder with peft installed, for the case that asks for one")
    given = parser.parse_args(arguments)
    rows = []
    for kind, checks in (("ingest", INGEST), ("ask", ASK)):
        for folder in sorted(path for path in (given.folder / kind).iterdir() if path.name[0].isdigit()):
            case = f"{kind}/{folder.name}"
            if any(case.startswith(skipped) for skipped in given.skip):
                continue
            name = next((key for key in checks if folder.name == key or folder.name.startswith(f"{key}-")), None)
            name = name or next((key for key in checks if folder.name.startswith(key)), None)
            out = _run_copy(folder) if kind == "ingest" else _run_script(folder, given.peft)
            expected, check = checks[name] if name else ("no check is known", lambda _: False)
            rows.append((case, expected, check(out), out))
            sys.stdout.write(
                f"{'equal ' if rows[-1][2] else 'DIFFERS'} {case}: expected {expected}; got {_short(out)}\n"
            )
    failed = [case for case, _, equal, _ in rows if not equal]
    record(
        "failing_inputs",
        {"cases": len(rows), "as expected": len(rows) - len(failed), "that differ": ", ".join(failed) or "none"},
        command="python -m retr.benchmarks.failing_inputs FOLDER" + "".join(f" --skip {s}" for s in given.skip),
        note="small inputs made after public bug reports of people who do this job, each with its right answer",
    )
    return 1 if failed else 0


def _run_copy(folder: Path) -> str:
    """Run ``repro.py`` in a copy of its folder, which may be read-only, and return what it prints."""
    with tempfile.TemporaryDirectory() as place:
        copy = shutil.copytree(folder, Path(place) / "case")
        return _output([sys.executable, "repro.py"], copy, {})


def _run_script(folder: Path, peft: str) -> str:
    """Run ``run.sh`` from the checkout and return what it prints."""
    programs = {"RETR": str(Path(sys.executable).with_name("retr")), "PYTHON": sys.executable, "PEFT": peft}
    return _output(["bash", str(folder / "run.sh")], ROOT, programs)


def _output(command: list[str], folder: Path, more: dict[str, str]) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "300"} | more
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=300
    )
    text = done.stdout.decode("utf-8", "backslashreplace")
    return "\n".join(line for line in text.split("\n") if not _PROGRESS.search(line))


def _short(out: str) -> str:
    last = [line for line in out.splitlines() if line.strip()]
    return (" | ".join(last[-6:]))[-300:]


if __name__ == "__main__":
    sys.exit(main())
