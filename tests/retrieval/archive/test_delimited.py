"""CSV and TSV as text: what Python's reader reads is read, and what is torn is refused with its line."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.errors import UsageError
from retr.retrieval.archive import delimited
from retr.retrieval.archive.delimited import read_delimited


def read(folder, text, name="t.csv"):
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_delimited(file, lambda names: names[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path,label\na.png,"abc\nb.png,c\nc.png,d\n', r"a quote is never closed in the row that begins in line 2"),
        ('path,label\na.png,"drusen\nb.png,x\nc.png,"normal"\n', r"text behind a closing quote .* line 2 .*line 4\)"),
        ('path,label\na.png,x\nb.png,"y" z\n', r"text behind a closing quote in the row that begins in line 3"),
        ('path,a,b\na.png,"x,1,2\nb.png,y",3\n', r"a quoted cell holds a whole row in the row that begins in line 2"),
        ('path,a\n"a.png,x\nb.png",y\n', r"a quoted cell holds a whole row in the row that begins in line 2"),
        ("path,label\n\n\na.png\n", r"the row of line 4 has 1 cell, the header 2"),
        ('path,label\na.png,"x\ny"\nb.png,1,2\n', r"the row of line 4 has 3 cells, the header 2"),
        (b"path,label\na.png,\xe9\n", r"not UTF-8"),
        ('path,label\na.png,"' + "x" * 200_000 + "\n", r"a cell is too long: its quote may never be closed"),
        ("\n,\n", "there is no header"),
    ],
)
def test_a_torn_table_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('path,label\na.png,"left,\nright"\n\nb.png,"say ""x"""\n', [("a.png", "left,\nright"), ("b.png", 'say "x"')]),
        ('\ufeffpath ,label\r\na.png,5" lens\r\n', [("a.png", '5" lens')]),
        ("path;label\ra.png;x\r", [("a.png", "x")]),
        ("path\tlabel\na.png\tx,y\n", [("a.png", "x,y")]),
        ("path,label,\na.png,x,\n", [("a.png", "x")]),
        ("path,,label\na.png,7,x\n", [("a.png", "7", "x")]),
    ],
)
def test_whatever_is_whole_is_read_to_the_letter(tmp_path, text, rows):
    table = read(tmp_path, text)
    assert list(zip(*table.to_pydict().values(), strict=True)) == rows
    assert table.column_names == (["path", "column_2", "label"] if len(rows[0]) == 3 else ["path", "label"])


CELLS = st.text(st.sampled_from('ab ,;"\n\r\t\u00e9.'), max_size=6)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(st.sampled_from("abc"), CELLS, CELLS), min_size=1, max_size=4))
def test_what_python_writes_is_read_back(tmp_path_factory, rows):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("path", "x", "y"), *rows])
    table = read(tmp_path_factory.mktemp("t"), text.getvalue())
    assert list(zip(*table.to_pydict().values(), strict=True)) == rows


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from('ab,"\n'), max_size=30))
def test_a_table_is_read_as_python_reads_it_or_refused(tmp_path_factory, text):
    text = "path,x\n" + text
    try:
        rows = [tuple(row) for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        rows = [()]
    folder = tmp_path_factory.mktemp("t")
    if any(len(row) != 2 for row in rows):
        with pytest.raises(UsageError):
            read(folder, text)
        return
    try:
        table = read(folder, text)
    except UsageError as error:
        assert "holds a whole row" in error.message
        return
    assert list(zip(*table.to_pydict().values(), strict=True)) == rows[1:]


ODD = st.sampled_from(["", "a", "\u00e9", " ", "\0", "\u2028", "\x0b", "\x0c", "\x85", "NULL", "NA", "1.0", "\\", "'"])


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(ODD, min_size=1, max_size=3), max_size=5),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r", "\n\n", ""]), min_size=7, max_size=7),
    tail=st.sampled_from([b"", b"\xff"]),
)
def test_a_table_without_a_quote_is_read_alike_by_both_readers(tmp_path_factory, rows, ends, tail):
    lines = ["", "p,x", *map(",".join, rows)]
    data = "".join(line + end for line, end in zip(lines, ends, strict=False)).encode() + tail
    folder = tmp_path_factory.mktemp("t")
    found = []
    for reader in (delimited._without_quotes, lambda *_: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delimited, "_without_quotes", reader)
            try:
                found.append(read(folder, data).to_pydict())
            except UsageError as error:
                found.append(error.message)
    assert found[0] == found[1]


def test_a_large_table_without_a_quote_is_not_read_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited._Rows, "pieces", lambda self: pytest.fail("read by rows"))
    table = read(tmp_path, "\r\npath,x,\r\n" + "a.png, 007 ,\r\n\r\n" * 3)
    assert table.to_pydict() == {"path": ["a.png"] * 3, "x": [" 007 "] * 3}
