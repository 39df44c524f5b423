"""What the tests catch: code changed in all the small ways that mutmut knows, each against the tests that reach it.

    python tests/mutants.py index.scan.exact index.store --sample 60
    python tests/mutants.py index.accelerators.approximate --tests tests/index/accelerators/test_approximate.py

mutmut writes all changes of a module into a copy of the package, where an environment variable switches one on. Its own
runner forks for each, which the threads of faiss and scikit-learn do not survive; here one process goes from change to
change. A first round without any notes which tests reach which function and how long they take. A failure counts if
the same test then passes without the change; what ends the process, or hangs, counts too, and another process goes on.
"""

from __future__ import annotations

import argparse
import difflib
import faulthandler
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORK = ROOT / "out/mutants"
TODO, REACH, RESULTS, LOG = (WORK / name for name in ("todo.json", "reach.json", "results.jsonl", "pytest.log"))
SWITCH = "MUTANT_UNDER_TEST"
ENDED, AGAIN = "the process ended", "again"
BROKEN = 2
# The modules that decide what is stored and what is answered. What numba compiles cannot be switched at run time.
MODULES = (
    *("index.accelerators.approximate", "index.accelerators.rabitq", "index.accelerators.rotation"),
    *("index.disk.compaction", "index.disk.files", "index.disk.lock", "index.disk.manifest", "index.disk.schema"),
    *("index.disk.segment_writer", "index.disk.segments", "index.disk.side_data", "index.disk.sidetable"),
    *("index.rows.carrying", "index.rows.check", "index.rows.columns", "index.rows.purge", "index.rows.snapshot"),
    *("index.rows.writer", "index.scan.exact", "index.scan.ranking", "index.where.evaluate", "index.where.parse"),
    *("index.plan", "index.store", "index.types", "index.vectors", "retrieval.stats.metrics"),
)
TESTS = ["tests/index", "tests/retrieval/stats/test_metrics.py"]
# Tests of how much memory is taken notice no change.
IGNORED = "--ignore=tests/index/test_memory.py"
# Tests that take longer are left out, tests under a change may take so long, and a process may wait so long for one.
LONGEST, PATIENCE, HANG = 4.0, 30, 100
FIRST = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"by default all: {', '.join(MODULES)}")
    parser.add_argument("--sample", type=int, help="so many changes a module, drawn at random (seed 0)")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="only these files of tests, which takes minutes")
    given = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(ROOT / "src", WORK / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shown: dict[str, str] = {}
    for module in given.modules or MODULES:
        changes = mutate(module)
        for name in random.Random(0).sample(sorted(changes), min(given.sample or len(changes), len(changes))):
            shown[name] = changes[name]
    TODO.write_text(json.dumps([given.tests, list(shown)]))
    environment = {**os.environ, "PYTHONPATH": str(WORK / "src"), "OMP_NUM_THREADS": "1", SWITCH: ""}
    while code := subprocess.run([sys.executable, __file__, "--go-on"], cwd=ROOT, env=environment).returncode:
        if code == BROKEN or not REACH.exists():
            sys.exit(f"the tests cannot be collected, or end the process without a change: see {LOG}")
    report(shown)


def mutate(module: str) -> dict[str, str]:
    """Put the changed module in its place; give each change's name and what it changes."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    file = WORK / "src/retr" / f"{module.replace('.', '/')}.py"
    made = mutate_file_contents(str(file), file.read_text())
    file.write_text(made.code)
    lines, spans = made.code.splitlines(), made.line_span_by_function_name

    def text(function: str) -> list[str]:
        span = spans[function]
        return [line.strip().replace(function, "") for line in lines[span.start : span.end]]

    shown = {}
    for name in made.mutant_names:
        pair = text(name.rpartition("__mutmut_")[0] + "__mutmut_orig"), text(name)
        changed = [line for line in difflib.unified_diff(*pair, n=0, lineterm="") if line[:2] not in {"--", "++", "@@"}]
        shown[f"retr.{module}.{name}"] = "\n      ".join(changed)
    return shown


def done() -> dict[str, str]:
    """Give what is known of each change: the test that noticed it, or nothing; one begun and not ended was noticed."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {name: noticed for name, noticed in dict(map(json.loads, lines)).items() if noticed != AGAIN}


def report(shown: dict[str, str]) -> None:
    noticed = done()
    survivors = [name for name in shown if not noticed[name]]
    for name in survivors:
        print(f"\n{name}\n      {shown[name]}")
    print()
    total, left = (Counter(name.rpartition(".")[0] for name in names) for names in (shown, survivors))
    for module, count in total.items():
        killed = count - left[module]
        print(f"{module.removeprefix('retr.')}: {killed} of {count} noticed ({killed / count:.0%})")


class Rounds:
    """The tests as a plug-in of pytest runs them: one round without a change, one for each change."""

    def __init__(self) -> None:
        self.failed = False
        self.fresh = True
        self.kills: Counter[str] = Counter()

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings

        # a failure is enough: no smaller example is looked for
        settings.register_profile("mutants", database=None, phases=[Phase.explicit, Phase.generate])
        settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    def passes(self, item: pytest.Item, change: str, after: pytest.Item | None = None) -> bool:
        os.environ[SWITCH], self.failed = change, False
        faulthandler.dump_traceback_later(HANG, exit=True)
        item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
        faulthandler.cancel_dump_traceback_later()
        os.environ[SWITCH] = ""
        return not self.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            os._exit(BROKEN)
        items = {item.nodeid: item for item in session.items}
        if not REACH.exists():
            REACH.write_text(json.dumps(self.reach(items)))
        seconds, reach = json.loads(REACH.read_text())
        known = done()
        for change in json.loads(TODO.read_text())[1]:
            if change not in known:
                note(change, ENDED)
                names = [name for name in reach.get(change.rpartition("__mutmut_")[0], []) if name in items]
                # first what is short or has noticed much, then file by file, which share what they set up
                first = sorted(names, key=lambda name: seconds[name] / (1 + self.kills[name]))[:FIRST]
                names = [*first, *(name for name in names if name not in first)]
                note(change, self.noticed(session, [items[name] for name in names], change))
                self.fresh = False
        return True

    def reach(self, items: dict[str, pytest.Item]) -> tuple[dict[str, float], dict[str, list[str]]]:
        """Run every test by itself; give its seconds of CPU, and the tests that reach each function."""
        from mutmut.mutation import trampoline

        seconds: dict[str, float] = {}
        reached: dict[str, set[str]] = {}
        for name, item in items.items():
            # loops that are compiled at the first call are fast at the second
            for _ in range(2):
                hits: set[str] = set()
                trampoline.record_trampoline_hit = lambda function, caller=None, hits=hits: hits.add(function)
                start = sum(os.times()[:4])
                passed = self.passes(item, "stats")
                seconds[name] = sum(os.times()[:4]) - start
                if seconds[name] < LONGEST:
                    break
            if not passed or seconds[name] > LONGEST:
                why = f"{seconds[name]:.1f} s" if passed else "fails without a change"
                os.write(2, f"left out: {name} ({why})\n".encode())
                continue
            for function in hits:
                reached.setdefault(function, set()).add(name)
        return seconds, {function: sorted(names) for function, names in reached.items()}

    def noticed(self, session: pytest.Session, items: list[pytest.Item], change: str) -> str:
        """Give the test that notices a change, or nothing."""
        for item, after in zip(items, [*items[1:], None], strict=False):
            if not self.passes(item, change, after):
                session._setupstate.teardown_exact(None)
                if not self.passes(item, ""):
                    # Something was left behind: by this change, if it is the first.
                    note(change, item.nodeid if self.fresh else AGAIN)
                    os._exit(1)
                self.kills[item.nodeid] += 1
                return item.nodeid
        return ""


def note(change: str, noticed: str) -> None:
    with RESULTS.open("a") as file:
        file.write(json.dumps([change, noticed]) + "\n")


def go_on() -> None:
    """Run what is left, until something ends the process."""
    os.dup2(os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    sys.setrecursionlimit(10_000)
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    quiet = ["-p", "no:cacheprovider", "-p", "no:faulthandler", "--tb=line"]
    options = ["-m", "not slow and not gpu", "-o", f"timeout={PATIENCE}", "-o", "tmp_path_retention_policy=none"]
    code = pytest.main([*quiet, *options, IGNORED, *json.loads(TODO.read_text())[0]], plugins=[Rounds()])
    # not by way of what a change may have broken
    os._exit(0 if code in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} else BROKEN)


if __name__ == "__main__":
    go_on() if sys.argv[1:] == ["--go-on"] else main()
