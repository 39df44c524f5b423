"""A short run of the fuzzer over containers; the long one is `python -m retr.benchmarks.fuzz_containers`."""

from __future__ import annotations

from retr.benchmarks import fuzz_containers, fuzz_readers


def test_mutated_containers_do_no_harm():
    report = fuzz_readers.run(400, seed=4, chunk=400, module=fuzz_containers.MODULE, sources=fuzz_containers.seeds())
    assert report.failures == []
    assert sum(sum(counts.values()) for counts in report.outcomes.values()) == 400
    assert set(report.outcomes) == {"arrow", "parquet", "tar", "tar.bz2", "tar.gz", "tar.xz", "zip"}
    assert all(counts.get("read", 0) > 0 for counts in report.outcomes.values())
