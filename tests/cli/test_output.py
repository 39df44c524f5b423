"""What is printed: exact for programs in any locale, harmless on a terminal, one line when it cannot be written."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retr.cli import _errors
from retr.cli._output import Output, to_json
from retr.index.errors import UsageError
from retr.retrieval.hits import Hit
from retr.retrieval.visible_text import visible

EVIL = "a\x1b[2Jb\r\u202egnp\u200b\x9b\u2028\x07.png"
ROW = {"path": "a.png", "age [years]": 3, "[/bold]": "[link=x]y[/link]", EVIL: EVIL, "名前": "日本", "e": "e\u0301"}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """An index whose names and columns are as odd as a file system allows."""
    from retr import Index

    folder = tmp_path_factory.mktemp("odd")
    names = ["a\nb.png", "Ménière/日本.png", "x\u202egnp.png", "tab\there.png", "=1+1.png"]
    for number, name in enumerate(names):
        file = folder / "archive" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
    numbers = range(len(names))
    columns = {"path": names, "score": numbers, "rank": [9 - n for n in numbers], "query": ["q"] * 5}
    columns |= {"tags": [["a"]] * 5, "raw": [b"\xff"] * 5}
    columns |= {"note": ["=cmd()"] * 5, "age [years]": [-1.5] * 5, "[/bold]": ["[red]"] * 5}
    pq.write_table(pa.table(columns), folder / "labels.parquet")
    Index.build(folder / "archive", folder / "odd.retr", metadata=folder / "labels.parquet")
    return folder / "odd.retr"


def run(*arguments: object, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "retr", *map(str, arguments)]
    wrapped = ["bash", "-o", "pipefail", "-c", f'"$@" {shell}', "bash", *command]
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONUTF8", "PYTHONIOENCODING"}}
    return subprocess.run(wrapped, capture_output=True, env=kept | environment, check=False)


def test_nothing_of_the_data_acts_on_a_terminal(capsys):
    out = Output()
    out.rows([ROW], title=EVIL)
    out.record(ROW)
    out.line(EVIL)
    out.note(EVIL)
    printed = "".join(capsys.readouterr())
    assert not set("\x1b\r\t\x9b\u202e\u200b\u2028\x07") & set(printed)
    assert printed.count("\\x1b[2Jb\\r\\u202egnp\\u200b\\x9b\\u2028\\x07.png") >= 6
    for markup in ("age [years]", "[/bold]", "[link=x]y[/link]"):
        assert printed.count(markup) == 2


def test_columns_stand_below_each_other(capsys):
    out = Output()
    out.rows([{"a": "日本", "b": "x"}, {"a": "e\u0301", "b": "y"}, {"a": "abcd", "b": "z"}])
    out.record({"日本": 1, "abcd": 2})
    assert capsys.readouterr().out.splitlines() == [
        "a     b",
        "日本  x",
        "e\u0301     y",
        "abcd  z",
        "日本  1",
        "abcd  2",
    ]


def test_a_table_that_is_redirected_is_not_wrapped(capsys):
    path = "folder/" * 100 + "a.png"
    Output().rows([{"id": path, "label": "x"}, {"id": "b.png", "label": "y"}], title="q" * 300)
    assert capsys.readouterr().out.splitlines()[2] == f"{path}  x"


def test_programs_get_the_data_exactly(capsys):
    for form in ("json", "csv"):
        Output(**{f"{form}_": True}).rows([ROW])
    first, rest = capsys.readouterr().out.split("\n", 1)
    assert json.loads(first) == ROW
    assert next(csv.DictReader(io.StringIO(rest, newline=""))) == {key: str(value) for key, value in ROW.items()}


def test_every_value_becomes_json():
    moment = dt.datetime(2024, 5, 31, 14, 30, tzinfo=dt.UTC)
    values = [moment, moment.date(), Decimal("1.50"), b"\x00\xff", [moment.date(), None], float("nan"), float("-inf")]
    text = to_json({"v": [*values, np.float32("nan"), np.int64(2**62), {"a": np.array([1.0, np.nan])}], "s": "\udcff"})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "v": [
            *("2024-05-31T14:30:00+00:00", "2024-05-31", "1.50", "00ff", ["2024-05-31", None], None, None),
            *(None, 2**62, {"a": [1.0, None]}),
        ],
        "s": "\udcff",
    }
    assert "\\udcff" in text


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1 234", "'+1 234"),
        ("-cmd", "'-cmd"),
        ("@sum(a)", "'@sum(a)"),
        ("\t=x", "'\t=x"),
        ("\rx", "'\rx"),
        ("＝1", "'＝1"),
        ("﹣1", "'﹣1"),
        ("％x", "'％x"),
        ("\u202e\u00ad=1", "'\u202e\u00ad=1"),
        ("'=1", "''=1"),
        (" =1", "' =1"),
        ('"=1', "'\"=1"),
        ("-1.5", "-1.5"),
        ("+1e-3", "+1e-3"),
        (-1.5, "-1.5"),
        ("a=1", "a=1"),
        ("", ""),
        (None, ""),
        (dt.date(2024, 1, 2), "2024-01-02"),
    ],
)
def test_formulas_are_text_for_a_spreadsheet(capsys, value, cell):
    Output(safe_csv=True).rows([{"=a": "x", "v": value}])
    header, row = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert header == ["'=a", "v"]
    assert row == ["x", cell]
    Output(csv_=True).rows([{"v": "=1+1"}])
    assert capsys.readouterr().out == "v\n=1+1\n"


def test_paths_of_any_name(capsysbinary):
    for switches in ({"paths0": True}, {"paths": True, "paths0": True}):
        Output(**switches).rows([{"path": "a\nb"}, {"path": "c\udcff"}])
        assert capsysbinary.readouterr().out == b"a\nb\0c\xff\0"
    Output(ids=True, paths0=True).rows([{"path": "a", "id": "1\n2"}])
    assert capsysbinary.readouterr().out == b"1\n2\0"
    with pytest.raises(UsageError, match=r"'a\\nb' holds a line break; -0 ends each path"):
        Output(paths=True).rows([{"path": "x"}, {"path": "a\nb"}])
    assert capsysbinary.readouterr().out == b""
    with pytest.raises(UsageError, match="--paths and --ids exclude each other"):
        Output(paths=True, ids=True)
    with pytest.raises(UsageError, match="--json and --paths exclude each other"):
        Output(json_=True, paths0=True)
    assert Output(csv_=True, safe_csv=True).form == "csv"


def test_a_column_never_takes_the_place_of_a_hits_own(retr, odd):
    asked = ("query", "--id", "=1+1.png", "-k", 2, "--index", odd)
    hits = retr(*asked, "--json").json[0]["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2]
    assert all(-1 <= hit["score"] <= 1 for hit in hits)
    assert {hit["score_meta"] + hit["rank_meta"] for hit in hits} == {9}
    header, *rows = csv.reader(io.StringIO(retr(*asked, "--csv").out, newline=""))
    assert header[:4] == ["rank", "score", "id", "path"]
    assert len(set(header)) == len(header)
    assert [row[0] for row in rows] == ["1", "2"]
    both = retr(*asked, "--id", "x\u202egnp.png", "--csv").out.splitlines()[0].split(",")
    assert both[:4] == ["query", "rank", "score", "id"]
    assert len(set(both)) == len(both)
    table = retr(*asked, "--columns", "score_meta,score_meta,age [years],[/bold]").out.splitlines()[0].split()
    assert table == ["rank", "score", "id", "score_meta", "age", "[years]", "[/bold]"]
    assert retr("index", "ls", "--where", "score_meta = 3", "--ids", "--index", odd).out == "tab\there.png\n"
    assert "did you mean 'score_meta'" in retr("index", "ls", "--where", "score = 3", "--index", odd).error(2)


def test_a_hit_is_ready_for_json():
    metadata = {"day": dt.date(2024, 1, 2), "score": float("nan"), "tags": [dt.date(2024, 1, 2)], "raw": b"\xff"}
    text = json.dumps(Hit(rank=1, id="a", score=0.5, metadata=metadata, path="a").to_json(), allow_nan=False)
    columns = {"day": "2024-01-02", "score_meta": None, "tags": ["2024-01-02"], "raw": "ff"}
    assert json.loads(text) == {"rank": 1, "id": "a", "score": 0.5, "path": "a", **columns}


def test_an_index_that_stores_such_columns_already(retr, hrf_copy):
    """As older versions did."""
    from retr import Index

    index = Index.open(hrf_copy)
    n = len(index)
    with index.store.writer() as writer:
        ids = index.store.table(["id"])["id"]
        writer.replace_columns(
            pa.table({"id": ids, "score": [7] * n, "rank": [8, 9] * (n // 2) + [8], "score_meta": ["x"] * n})
        )
        writer.commit()
    (hit,) = Index.open(hrf_copy).search(id="healthy/01_h.jpg", k=1)
    assert (hit.rank, hit.metadata["score"], hit.metadata["rank"] in {8, 9}) == (1, 7, True)
    shown = retr("query", "--id", "healthy/01_h.jpg", "-k", 1, "--json", "--index", hrf_copy).json[0]["hits"][0]
    assert (shown["rank"], shown["score"], shown["rank_meta"]) == (1, hit.score, hit.metadata["rank"])
    assert (shown["score_meta"], shown["score_meta_"]) == ("x", 7)
    line = retr("query", "--id", "healthy/01_h.jpg", "-k", 1, "--columns", "rank,label", "--index", hrf_copy).out
    assert line.split("\n")[0].split() == ["rank", "score", "id", "rank_meta", "label"]
    asked = ("classify", "--image", "examples/hrf45/healthy/01_h.jpg", "--by", "rank", "-k", 1, "--index", hrf_copy)
    assert "rank_meta" in retr(*asked).out


@pytest.mark.parametrize("k", [10**9, 2**70])
def test_k_of_a_billion_is_the_rows_there_are(retr, odd, k):
    assert len(retr("query", "--id", "=1+1.png", "-k", k, "--json", "--index", odd).json[0]["hits"]) == 4
    assert len(retr("query", "--id", "=1+1.png", "-k", k, "--one-per", "folder", "--csv", "--index", odd).out) > 0
    assert retr("index", "ls", "--limit", k, "--ids", "-0", "--index", odd).out.count("\0") == 5


@pytest.mark.parametrize("column", ["tags", "raw"])
def test_a_column_that_cannot_tell_rows_apart_is_refused(retr, odd, column):
    for asked in (["--exclude-same", column], ["--exclude-same", f"{column}=a"], ["--one-per", column]):
        line = retr("query", "--id", "=1+1.png", *asked, "--index", odd).error(2)
        assert f"the column '{column}' is " in line
        assert "cannot tell rows apart" in line


@pytest.mark.parametrize("k", [0, -1, 1.5, float("nan"), float("inf"), True, "5", None])
def test_k_that_cannot_be_meant(odd, k):
    from retr import Index

    with pytest.raises(UsageError, match="k must be"):
        Index.open(odd).search(id="=1+1.png", k=k)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_any_encoding(retr, odd, monkeypatch, encoding):
    def printed(*arguments: object) -> bytes:
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, newline=""))
        assert retr(*arguments, "--index", odd).code == 0
        return raw.getvalue()

    lines = printed("index", "ls", "--json").decode().splitlines()
    assert "Ménière/日本.png" in [json.loads(line)["id"] for line in lines]
    assert "Ménière/日本.png".encode() in printed("index", "ls", "--csv")
    assert "Ménière/日本.png".encode() in printed("index", "ls", "--ids", "-0").split(b"\0")
    table = printed("index", "ls", "--columns", "id,note").decode(encoding).splitlines()
    assert len({line.rstrip().rindex("=cmd()") for line in table[1:] if "\u65e5" not in line}) == 1
    assert any(word in "".join(table) for word in ("Ménière/日本", "M\\xe9ni\\xe8re/\\u65e5", "Ménière/\\u65e5"))


def test_programs_get_the_same_bytes_where_a_system_ends_lines_otherwise(monkeypatch):
    written = {}
    for newline in ("\n", "\r\n"):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "cp1252", newline=newline))
        for form in ({"json_": True}, {"csv_": True}):
            Output(**form).rows([{"id": "a\nb.png", "label": "日本"}])
        sys.stdout.flush()
        written[newline] = raw.getvalue()
    assert written["\n"] == written["\r\n"]
    assert b"\r" not in written["\r\n"] and '"a\nb.png",日本\n'.encode() in written["\r\n"]


def test_streams_that_are_closed_or_full():
    # what loads least says as much of the streams
    for shell in (">&-", "<&- >&- 2>&-"):
        done = run("--version", shell=shell)
        assert (done.returncode, done.stderr) == (0, b""), shell
    done = run("encoders", "ls", shell=">/dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: standard output cannot be written: no space left on device; ")
    assert done.stderr.count(b"\n") == 1
    for shell in ("2>&-", "2>/dev/full"):
        assert run("nobody", shell=shell).returncode == 2
    done = run("\udcff", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.stderr.startswith(b"error: no such command ")
    assert done.stderr.count(b"\n") == 1


def test_a_reader_that_is_gone():
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run([sys.executable, "-m", "retr", "--help"], stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_name_that_is_not_unicode(retr, odd, tmp_path):
    line = retr("query", "--image", os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"), "--index", odd).error(1)
    assert "\\udcff.png': No such file" in line
    for command in (["show"], ["query", "--id"], ["index", "ls", "--where"], ["index", "delete", "-y"]):
        assert "internal" not in retr(*command, "\udcff", "--index", odd).error(2)


@pytest.mark.parametrize(
    "phase",
    [
        "retr.retrieval.encoders.registry.load_encoder",
        "retr.retrieval.ingest.network.EmbeddingThread.embed",
        "retr.index.rows.writer.Writer.commit",
        "retr.retrieval.ingest.build.open_source",
    ],
)
def test_ctrl_c_says_its_line_wherever_it_comes(retr, tmp_path, monkeypatch, phase):
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    monkeypatch.setattr(phase, interrupted)
    done = retr("index", "build", tmp_path, "--index", tmp_path / "x.retr")
    assert done.code == 130
    assert done.err.endswith("error: interrupted; what was committed is kept\n")


def test_interrupted_while_the_command_line_is_imported_and_terminated():
    code = """
import os, signal, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.{signal})
sys.meta_path.insert(0, Stop())
sys.argv = ["retr", "info", "x"]
from retr.__main__ import main
main()
"""
    for name, number, words, status in (
        ("retr.cli.main", "SIGINT", b"error: interrupted; what was committed is kept\n", 130),
        ("retr.retrieval.encoders.registry", "SIGTERM", b"error: terminated; what was committed is kept\n", 143),
    ):
        command = code.format(name=name, signal=number).replace('"retr", "info"', '"retr", "encoders", "info"')
        done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (status, words)


def test_ctrl_c_at_a_question(capsys):
    import typer

    def asked() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise typer.Abort from None

    assert _errors.run(asked) == 130
    assert capsys.readouterr().err == "error: interrupted; what was committed is kept\n"


def test_visible_keeps_what_only_shows():
    assert visible("Ménière 日本 \U0001f441 [a] \u00a0 עברית") == "Ménière 日本 \U0001f441 [a] \u00a0 עברית"
    assert visible("\u200f\u2066\ufeff\U000e0041\udcff") == "\\u200f\\u2066\\ufeff\\U000e0041\\udcff"
