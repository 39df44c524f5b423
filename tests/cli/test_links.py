"""``--link`` prints where a hit's study is to be seen."""

from __future__ import annotations

import json

import pytest
from dicom_file import dicom
from fake_encoder import FakeEncoder

from retr import Index

TEMPLATE = "https://viewer.example/?StudyInstanceUIDs={study}"


@pytest.fixture
def index(tmp_path):
    (tmp_path / "archive").mkdir()
    for number in range(4):
        (tmp_path / f"archive/{number}.dcm").write_bytes(dicom(f"P{number} & son", number))
    labels = {"path": ["0.dcm", "1.dcm"], "link": ["a", "b"]}
    return Index.build(
        tmp_path / "archive", tmp_path / "x", encoder=FakeEncoder(), metadata=labels, keep_identifiers=True
    )


def test_hits_and_rows_are_linked(retr, index):
    query = ("query", "--id", "0.dcm", "-k", 2, "--index", index.path, "--link", TEMPLATE)
    answer = json.loads(retr(*query, "--json").out)
    # a column of that name keeps it
    assert [hit["link_"] for hit in answer["hits"]] == index.links([hit["id"] for hit in answer["hits"]], TEMPLATE)
    assert all(hit["link_"].startswith("https://viewer.example/?StudyInstanceUIDs=1.2.") for hit in answer["hits"])
    assert "link" in answer["hits"][0]
    head, first, *_ = retr(*query, "--csv", "--columns", "patient").out.splitlines()
    assert head.split(",")[-1] == "link" and first.split(",")[-1] == answer["hits"][0]["link_"]
    shown = retr(*query).out.splitlines()
    assert f"1  {answer['hits'][0]['link_']}" in [line.strip() for line in shown]
    row = json.loads(retr("show", "1.dcm", "--index", index.path, "--link", "x:{patient}", "--json").out)
    assert row["link_"] == "x:P1%20%26%20son"


def test_what_cannot_be_linked_is_said(retr, index):
    query = ("query", "--id", "0.dcm", "-k", 2, "--index", index.path, "--json")
    for template, said in (("https://x/{name}", "names {name}, which no row has"), ("https://x", "names no study")):
        done = retr(*query, "--link", template)
        assert (done.code, said in done.err, done.out) == (2, True, "")
    (index.path.parent / "archive/9.dcm").write_bytes(dicom(None, 9))
    Index.build(index.path.parent / "archive", index.path, encoder=FakeEncoder(), keep_identifiers=False)
    done = retr(*query, "--link", TEMPLATE)
    assert [hit["link_"] for hit in json.loads(done.out)["hits"]] == [None, None]
    assert "2 of 2 have no link: build with --keep-identifiers" in done.err
