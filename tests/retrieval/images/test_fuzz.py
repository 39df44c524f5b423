"""A short run of the fuzzer; the long one is `python -m retr.benchmarks.fuzz_readers`."""

import subprocess
import sys

import pytest

from retr.benchmarks import fuzz_readers

pytest.importorskip("pydicom")


def test_mutated_files_do_no_harm():
    report = fuzz_readers.run(600, seed=4, chunk=600)
    assert report.failures == []
    assert sum(sum(counts.values()) for counts in report.outcomes.values()) == 600
    assert {"dicom", "jpeg", "nifti", "png", "tiff"} <= set(report.outcomes)
    assert report.outcomes["jpeg"]["read"] > 0


def test_a_file_is_repeatable_by_its_number():
    sources = fuzz_readers.seeds()
    assert fuzz_readers.mutated(17, 3, sources) == fuzz_readers.mutated(17, 3, sources)
    assert fuzz_readers.mutated(17, 3, sources) != fuzz_readers.mutated(18, 3, sources)


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ({"outcome": "wrong exception KeyError", "seconds": 0.1, "mb": 50.0}, "wrong exception KeyError"),
        ({"outcome": "read", "seconds": 11.0, "mb": 50.0}, "hang"),
        ({"outcome": "read", "seconds": 0.1, "mb": 1100.0}, "too much memory"),
    ],
)
def test_harm_is_reported(told, outcome):
    report = fuzz_readers.Report(1, 0)
    report.add({"number": 0, "name": "png/rgb", **told})
    assert [failure["outcome"] for failure in report.failures] == [outcome]


@pytest.mark.parametrize(
    ("harm", "ended"),
    [("import os; os.abort()", "crash"), ("import time; time.sleep(60)", "hang")],
)
def test_a_child_that_crashes_or_hangs_is_survived(monkeypatch, harm, ended):
    real = subprocess.Popen
    monkeypatch.setattr(fuzz_readers, "HANG_SECONDS", 0.2)

    def broken(command: list[str], **options: object) -> subprocess.Popen:
        line = '{"at": 0}'
        return real([sys.executable, "-c", f"print('{line}', flush=True); {harm}"], **options)

    monkeypatch.setattr(fuzz_readers.subprocess, "Popen", broken)
    report = fuzz_readers.run(1, seed=0)
    assert [failure["outcome"].split()[0] for failure in report.failures] == [ended]
