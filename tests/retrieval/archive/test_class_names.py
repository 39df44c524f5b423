"""Names of classes beside a schema, whatever stands there."""

from __future__ import annotations

import json

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from retr.retrieval.archive.class_names import class_names, named


def schema(note: bytes) -> pa.Schema:
    return pa.schema([("label", pa.int64())], metadata={b"huggingface": note})


def test_older_and_newer_notes_are_read():
    label = {"_type": "ClassLabel", "names": ["a", "b"]}
    for feature in (label, [label], {"_type": "Sequence", "feature": label}, {"_type": "List", "feature": label}):
        note = json.dumps({"info": {"features": {"label": feature, "age": {"_type": "Value"}}}}).encode()
        assert class_names(schema(note)) == {"label": ("a", "b")}
    assert class_names(pa.schema([("label", pa.int64())])) == {}


@given(
    st.binary(max_size=40)
    | st.recursive(
        st.none() | st.text(max_size=4) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["info", "features", "label", "_type", "names", "feature"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_note_gives_names_or_none(note):
    found = class_names(schema(note))
    assert all(isinstance(name, str) for names in found.values() for name in names)
    for names in found.values():
        assert set(named([-1, 0, 5, None, "x", [0]], names)) <= {None, *names}
