"""Several names or ids come in any sequence; one text is not several."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retr import UsageError
from retr.index.listed import listed
from retr.sample import sample_index

NAMES = ["healthy/P01-left.png", "healthy/P03-left.png"]


def ways(names):
    pd = pytest.importorskip("pandas")
    yield from (tuple(names), iter(names), np.array(names), np.array(names, object), pa.array(names))
    yield from (pd.Series(names, index=range(7, 7 + len(names))), pd.Index(names), dict.fromkeys(names))


def test_any_sequence_is_a_list():
    assert [listed(way, "ids") for way in ways(NAMES)] == [NAMES] * 8
    assert all(type(name) is str for way in ways(NAMES) for name in listed(way, "ids"))
    assert listed([], "ids") == []


@pytest.mark.parametrize("other", ["a", b"a", 5, ["a", None], [1], [float("nan")], [b"a"], [["a"]]])
def test_whatever_else_is_refused(other):
    with pytest.raises(UsageError, match="ids are a list of texts, got"):
        listed(other, "ids")


def test_an_index_takes_them_wherever_it_takes_several():
    index = sample_index()
    assert [index.count(ids=way) for way in ways(NAMES)] == [2] * 8
    for way in ways(["label", "age"]):
        assert index.table(way).column_names == ["label", "age"]
    for way in ways(["label", "age"]):
        assert index.search(id=NAMES[0], columns=way).metadata.column_names == ["id", "label", "age"]
    wanted = index.search(id=NAMES[0], k=24, exclude_same={"patient": ["P03", "P05"]}).ids
    assert len(wanted) == 19
    for way in (("P03", "P05"), np.array(["P03", "P05"]), {"P03", "P05"}):
        assert index.search(id=NAMES[0], k=24, exclude_same={"patient": way}).ids == wanted
    for call in (index.count, index.delete):
        with pytest.raises(UsageError, match=r"ids are a list of texts, got: 'healthy/P01-left\.png'"):
            call(ids=NAMES[0])
    with pytest.raises(UsageError, match="columns are a list of texts, got: 'label'"):
        index.table("label")
    assert index.delete(ids=np.array(NAMES)) == 2
