"""What stands beside a picture labels that picture and no other, or is refused whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr.retrieval.archive.siblings import MAX_KEYS, Siblings, column_value, labels_of


def beside(*names):
    siblings = Siblings(names)
    return {name: siblings.of(name) for name in names if name.endswith((".png", ".dcm", ".nii.gz", "113"))}


def test_a_label_belongs_to_the_picture_of_its_name_dots_and_all():
    names = [f"1.2.840.{number}.{suffix}" for number in (1, 11, 113) for suffix in ("png", "json")]
    assert beside(*names, "1.2.840.2.png") == {
        "1.2.840.1.png": {"1.2.840.1.json": "json"},
        "1.2.840.11.png": {"1.2.840.11.json": "json"},
        "1.2.840.113.png": {"1.2.840.113.json": "json"},
        "1.2.840.2.png": {},
    }
    # a number behind a dot is another UID, not a word behind the key
    assert beside("1.2.json", "1.2.3.png", "1.2.3.4.json") == {"1.2.3.png": {}}
    assert beside("1.2.840.113", "1.2.840.113.json") == {"1.2.840.113": {"1.2.840.113.json": "json"}}


def test_how_accents_are_composed_decides_nothing():
    nfc, nfd = "\u00e9", "e\u0301"
    for here, there in ((nfc, nfd), (nfd, nfc)):
        assert beside(f"{here}.png", f"{there}.json", f"{there}.caption.txt", f"{there}x.json", "e.json") == {
            f"{here}.png": {f"{there}.json": "json", f"{there}.caption.txt": "caption.txt"}
        }
        assert beside(f"{here}/1.png", f"{there}/1.cls") == {f"{here}/1.png": {f"{there}/1.cls": "cls"}}
        assert beside(f"{here}.seg.png", f"{there}.json") == {f"{here}.seg.png": {f"{there}.json": "json"}}
        # that of its own spelling comes last and has the last word
        assert list(beside(f"{here}.png", f"{here}.json", f"{there}.json")[f"{here}.png"])[-1] == f"{here}.json"
    # two pictures that read alike: each has what is spelled as it is
    assert beside(f"{nfc}.png", f"{nfd}.png", f"{nfd}.json", f"{nfd}.t.txt") == {
        f"{nfc}.png": {},
        f"{nfd}.png": {f"{nfd}.json": "json", f"{nfd}.t.txt": "t.txt"},
    }
    three = "\u1ea5", "\u00e2\u0301", "a\u0302\u0301"
    found = beside(f"{three[0]}.png", f"{three[1]}.png", f"{three[2]}.json")
    assert found == {f"{three[0]}.png": {}, f"{three[1]}.png": {}}


def test_webdataset_shards_keep_their_samples():
    found = beside("0001.png", "0001.cls", "0001.json", "0001.seg.png", "0001.caption.txt", "0002.png", "a/0001.png")
    assert found == {
        "0001.png": {"0001.cls": "cls", "0001.json": "json", "0001.caption.txt": "caption.txt"},
        "0001.seg.png": {"0001.cls": "cls", "0001.json": "json"},
        "0002.png": {},
        "a/0001.png": {},
    }
    assert beside("x.png", "x.left.png", "x.json", "x.left.json") == {
        "x.png": {"x.json": "json"},
        "x.left.png": {"x.left.json": "json"},
    }
    assert beside("v.nii.gz", "v.json") == {"v.nii.gz": {"v.json": "json"}}
    assert beside("a.png", "a.png.json", "A.json") == {"a.png": {"a.png.json": "json"}}


@pytest.mark.parametrize(
    ("name", "data", "labels"),
    [
        ("a.txt", b"\xef\xbb\xbfa caption\n", {"txt": "a caption"}),
        ("a.txt", b" \n", {"txt": None}),
        ("a.cls", b"7\n", {"cls": 7}),
        ("a.cls", b"007", {"cls": "007"}),
        ("a.cls", b"9" * 30, {"cls": "9" * 30}),
        ("a.json", b'{"age": NaN, "x": Infinity, "": 1, "n": null}', {"age": None, "x": float("inf"), "n": None}),
        ("a.json", b'{"n": 12345678901234567890}', {"n": "12345678901234567890"}),
        ("a.json", b'{"deep": {"b": [1]}}', {"deep": '{"b": [1]}'}),
        ("a.json", b'{"a": 1, "a": 1}', {"a": 1}),
        ("a.json", '{"e\u0301": "e\u0301"}'.encode(), {"\u00e9": "\u00e9"}),
    ],
)  # fmt: skip
def test_labels_are_read(name, data, labels):
    assert labels_of(name, name[2:], data) == labels


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": ["\\ud800"]}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": 1' + b"0" * 5000 + b"}",
        json.dumps({str(number): number for number in range(MAX_KEYS + 1)}).encode(),
        json.dumps({"k" * 201: 1}).encode(),
        b"[1, 2]",
        b"{",
        b"\xff",
        b'{"a": "' + b"x" * (1 << 20) + b'"}',
    ],
)
def test_what_is_no_label_is_refused_whole(data):
    with pytest.raises(ValueError):
        labels_of("a.json", "json", data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(min_size=1, max_size=5), JSON, max_size=4))
def test_any_object_gives_values_that_a_column_can_hold(content):
    labels = labels_of("a.json", "json", json.dumps(content).encode())
    for value in labels.values():
        assert value is None or isinstance(value, bool | int | float | str)
        assert value == value  # no NaN
        assert not isinstance(value, int) or -(2**63) <= value < 2**63
    assert all(column_value(value) == value or isinstance(value, str) for value in labels.values())
