"""pyarrow learns of pandas when the program imports it, and not before."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("pandas")


def run(code):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_index_is_opened_and_asked_without_pandas(tmp_path):
    run(f"""
        import sys
        from retr import Index
        index = Index.from_vectors([[1.0, 0.0], [0.0, 1.0]], {{"id": ["a", "b"]}}, {str(tmp_path / "x")!r},
                                   encoder="mine", fingerprint="1")
        assert index.search(vector=[1.0, 0.0], where="id != 'c'").ids == ["a", "b"]
        assert "pandas" not in sys.modules
    """)


@pytest.mark.parametrize(
    "use",
    [
        "import pandas; assert pa.array(pandas.Series([1.0, float('nan')])).null_count == 1",
        "assert list(pa.table({'a': [1]}).to_pandas().columns) == ['a']; import pandas; test()",
        "import importlib; importlib.import_module('pandas.core.api'); test()",
    ],
)
def test_pyarrow_converts_as_ever_once_pandas_is_imported(use):
    run(f"""
        import retr.index.disk
        import sys, pyarrow as pa
        assert "pandas" not in sys.modules
        def test():
            import pandas
            assert pa.array(pandas.Series([1.0, float("nan")])).null_count == 1
            assert pa.Table.from_pandas(pandas.DataFrame({{"a": [1, 2]}})).num_rows == 2
        {use}
    """)


def test_pandas_that_was_imported_before_is_known():
    run("""
        import pandas, sys
        before = list(sys.meta_path)
        import retr.index.disk, pyarrow as pa
        assert sys.meta_path == before
        assert pa.array(pandas.Series([1.0, float("nan")])).null_count == 1
    """)


def test_other_threads_can_import_pandas_at_the_same_moment():
    run("""
        import threading
        import pyarrow as pa
        failed = []
        def other():
            try:
                import pandas
            except BaseException as error:
                failed.append(error)
        threads = [threading.Thread(target=other) for _ in range(3)]
        for thread in threads: thread.start()
        import retr.index.where
        for thread in threads: thread.join()
        assert not failed
        import pandas
        assert pa.array(pandas.Series([1.0, float("nan")])).null_count == 1
    """)
