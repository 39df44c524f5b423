"""`Index` as Python's collections, context managers, notebooks and pickles see it."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import retr
from retr import Index, IndexNotFoundError, RetrError, UnknownIdError, UsageError
from retr.encoders import compare, from_callable
from retr.index import errors
from retr.index.encoder import EncoderInfo
from retr.index.store import Store


@pytest.fixture
def index(archive, tmp_path, fake_encoder) -> Index:
    return Index.build(archive, tmp_path / "x.retr", encoder=fake_encoder, metadata=archive / "labels.csv")


def made(path, ids) -> Index:
    info = EncoderInfo(
        name="none", dim=2, similarity="cosine", modality="", text=False, weights_sha256="0", preprocessing=""
    )
    store = Store.create(path, encoder=info)
    with store.writer() as writer:
        writer.append(pa.table({"id": ids}), np.ones((len(ids), 2)))
        writer.commit()
    return Index.open(path)


class TestCollection:
    def test_rows_by_id(self, index):
        row = index["healthy/000.png"]
        assert row == index.row("healthy/000.png")
        assert (row["id"], row["label"], row["age"]) == ("healthy/000.png", "healthy", 40)
        assert "healthy/000.png" in index
        assert "healthy/000.PNG" not in index
        assert 0 not in index
        assert None not in index
        with pytest.raises(UsageError, match="which are text, got: 0"):
            index[0]

    def test_deleted_rows_are_gone(self, index):
        before = list(index)
        index.delete(ids=[before[3], before[0]])
        assert before[3] not in index
        assert list(index) == [*before[1:3], *before[4:]]
        assert len(list(index)) == len(index) == 10
        with pytest.raises(UnknownIdError):
            index[before[3]]

    def test_iteration_keeps_to_the_snapshot_it_began_with(self, index):
        ids = iter(index)
        first = next(ids)
        index.delete(where="label = 'healthy'")
        assert [first, *ids] != list(index)
        assert len(list(index)) == 6

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ("healthy/00.png", "'healthy/000.png'"),
            ("000.png", "did you mean 'healthy/000.png'"),
            ("HEALTHY/000.PNG", "did you mean 'healthy/000.png'"),
            ("elsewhere/quite/another/000.png", "did you mean 'healthy/000.png'"),
            ("zzzzzzzz", "`retr index ls` lists the ids"),
            ("\ud800", "`retr index ls` lists the ids"),
            ("", "`retr index ls` lists the ids"),
            ("a" * 100_000, f"no row has the id '{'a' * 300}...'"),
            ("000.*", "no row has the id '000.*'"),
        ],
    )
    def test_an_unknown_id_names_the_nearest(self, index, asked, said):
        assert asked not in index
        for ask in (index.__getitem__, index.row, index.picture, lambda asked: index.search(id=asked)):
            with pytest.raises(UnknownIdError) as caught:
                ask(asked)
            assert isinstance(caught.value, KeyError)
            assert isinstance(caught.value, UsageError)
            assert said in str(caught.value)
            assert "\n" not in str(caught.value)

    def test_an_id_reads_alike_however_its_accents_are_composed(self, tmp_path):
        index = made(tmp_path / "i", [unicodedata.normalize("NFD", "é/1"), "b", "ë"])
        assert unicodedata.normalize("NFC", "é/1") in index
        assert index["é/1"]["id"] == unicodedata.normalize("NFD", "é/1")

    def test_iterating_holds_a_piece_at_a_time(self, tmp_path):
        index = made(
            tmp_path / "i", [f"a rather long folder for the id/of row {number:09d}" for number in range(80_000)]
        )
        next(iter(index))
        tracemalloc.start()
        count = sum(1 for _ in index)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 80_000
        assert peak < 4e6, "ten thousand texts of 120 bytes, not all of them"

    def test_an_empty_index(self, index):
        index.delete(where="age > 0")
        assert list(index) == []
        assert "healthy/000.png" not in index
        with pytest.raises(UnknownIdError):
            index["healthy/000.png"]


class TestClosing:
    def test_a_closed_index_says_so(self, index):
        with index as opened:
            assert opened is index
            hits = opened.search(id="healthy/000.png", k=2)
        for ask in (
            len,
            list,
            Index.info,
            Index.refresh,
            pickle.dumps,
            lambda index: index.search(id="healthy/000.png"),
        ):
            with pytest.raises(UsageError, match=r"the index 'x\.retr' is closed; open it again"):
                ask(index)
        assert repr(index) == "Index('x.retr', closed)"
        assert "closed" in index._repr_html_()
        assert index.path.name == "x.retr"
        index.close()
        assert len(hits) == 2
        assert "<img " in hits._repr_html_()

    def test_it_closes_after_an_error_too(self, index):
        with pytest.raises(ZeroDivisionError), index:
            1 / 0  # noqa: B018
        with pytest.raises(UsageError, match="is closed"):
            len(index)


def test_a_notebook_shows_what_an_index_holds(index, tmp_path):
    page = index._repr_html_()
    assert "x.retr" in page
    assert "12" in page
    assert str(tmp_path) not in page
    named = made(tmp_path / "<b>i", ["a"])
    assert "<b>i" not in named._repr_html_().replace("<b>&lt;b&gt;i", "")


class TestPickling:
    @pytest.fixture
    def opened(self, index) -> Index:
        return Index.open(index.path, device="cpu")

    @pytest.mark.parametrize("again", [lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy])
    def test_the_same_version_with_the_same_options(self, opened, again):
        other = again(opened)
        assert type(other) is Index
        assert (other.store.version, other.store.uuid) == (opened.store.version, opened.store.uuid)
        assert other._options == opened._options
        assert other.store.placement.device == "cpu"
        assert other.search(id="healthy/000.png") == opened.search(id="healthy/000.png")
        store = again(opened.store)
        assert store.version == opened.store.version
        assert np.array_equal(store.vectors(), opened.store.vectors())

    def test_another_process_in_another_folder(self, opened, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "p").write_bytes(pickle.dumps(Index.open("x.retr")))
        code = "import pickle, sys; print(len(pickle.load(open(sys.argv[1], 'rb'))))"
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "p")], cwd="/", capture_output=True, text=True, check=True
        )
        assert done.stdout == "12\n"

    def test_a_version_that_is_gone_is_named_with_the_newest(self, opened, tmp_path):
        sent = pickle.dumps(opened)
        before, name = opened.store.version, opened.path.name
        opened.delete(ids=["healthy/000.png"])
        with pytest.raises(RetrError) as caught:
            pickle.loads(sent)
        assert str(caught.value).startswith(
            f"version {before} of the index {name!r} is gone: the newest is {before + 1};"
        )
        assert len(pickle.loads(pickle.dumps(opened))) == 11
        opened.delete(where="age > 0", purge=True)
        with pytest.raises(RetrError, match="is gone: the newest is"):
            pickle.loads(sent)
        shutil.rmtree(opened.path)
        with pytest.raises(RetrError, match="no index at"):
            pickle.loads(sent)
        made(opened.path, ["a"])
        with pytest.raises(RetrError, match="another index lies at"):
            pickle.loads(sent)

    def test_an_encoder_without_a_name_is_refused(self, index):
        for send in (pickle.dumps, copy.deepcopy):
            with pytest.raises(UsageError, match=r"'fake' cannot be sent.*give the encoder there"):
                send(index)
        sent = pickle.loads(pickle.dumps(Index.open(index.path)))
        with pytest.raises(RetrError, match="no encoder that can be loaded here"):
            sent.search(image=np.zeros((8, 8, 3), np.uint8))

    def test_every_error_reaches_whoever_waits(self):
        given = {"expression": "a = ", "position": 3, "reason": "not a file"}
        for name in dir(errors):
            kind = getattr(errors, name)
            if not (isinstance(kind, type) and issubclass(kind, RetrError)):
                continue
            wanted = {"FilterError": ("expression", "position"), "ImageReadError": ("reason",)}.get(name, ())
            hint = {} if name == "MissingExtraError" else {"hint": "do this"}
            error = kind("a message", **{key: given[key] for key in wanted}, **hint)
            again = pickle.loads(pickle.dumps(error))
            assert type(again) is kind
            assert str(again) == str(error)
            assert vars(again) == vars(error)
        assert retr.UnknownIdError("x", hint="y").exit_code == 2


class TestWrongTypes:
    @pytest.mark.parametrize("wrong", [b"a", 1, None, ("a",), ["a"], float("nan"), Path("a.png")])
    def test_an_id_is_a_text(self, index, wrong):
        for ask in (index.row, index.picture):
            with pytest.raises(UsageError, match="ids, which are text"):
                ask(wrong)
        assert wrong not in index

    @pytest.mark.parametrize("wrong", [b"label = 'x'", 1, True, ["label = 'x'"]])
    def test_a_condition_is_a_text(self, index, wrong):
        for ask in (index.count, index.delete, index.table):
            with pytest.raises(UsageError, match="a condition is a text"):
                ask(where=wrong)

    @pytest.mark.parametrize("wrong", [3, None, "a\0b", "\ud800"])
    def test_a_path_is_one(self, wrong):
        with pytest.raises(UsageError, match="path"):
            Index.open(wrong)

    def test_a_path_may_be_bytes(self, index):
        assert len(Index.open(os.fsencode(index.path))) == len(index)

    def test_a_name_longer_than_any_file_has(self):
        with pytest.raises(IndexNotFoundError):
            Index.open("x" * 5000)

    def test_encoder_and_device(self, index):
        with pytest.raises(UsageError, match="an encoder is a name or a loaded encoder, got int"):
            Index.open(index.path, encoder=3)
        with pytest.raises(UsageError, match="an encoder is named by a text, got int"):
            retr.load_encoder(3)
        with pytest.raises(UsageError, match="a function or a torch module, got int"):
            from_callable(3, dim=3, name="mine", fingerprint="1")
        with pytest.raises(UsageError, match="a device is a text, got: 3"):
            Index.open(index.path, device=3)

    @pytest.mark.parametrize("wrong", [lambda pictures: pictures, 3, b"lite"])
    def test_a_bare_function_is_no_encoder_wherever_one_is_taken(self, index, archive, tmp_path, wrong):
        asked = (
            lambda: Index.build(archive, tmp_path / "new.retr", encoder=wrong),
            lambda: Index.build(archive, index.path, encoder=wrong),
            lambda: Index.build_several(archive, {tmp_path / "new.retr": wrong}),
            lambda: Index.open(index.path, encoder=wrong),
            lambda: Index.from_vectors(np.ones((1, 2)), {"id": ["a"]}, tmp_path / "new.retr", encoder=wrong),
            lambda: index.reembed(encoder=wrong),
            lambda: index.keep_encoder(wrong, {}),
            lambda: compare([wrong, "lite"], archive),
        )
        for ask in asked:
            with pytest.raises(UsageError, match=r"an encoder is a name.*from_callable"):
                ask()
        assert not (tmp_path / "new.retr").exists()

    @pytest.mark.parametrize("wrong", [[None], [1], np.array(3, object), b"a"])
    def test_a_question_is_a_query(self, index, wrong):
        with pytest.raises(UsageError, match=r"a question is a retr\.Query"):
            index.search(wrong)

    def test_a_misspelt_option_beside_a_loaded_encoder(self, archive, tmp_path, fake_encoder):
        with pytest.raises(TypeError, match="has no option 'grup': is 'group' meant"):
            Index.build(archive, tmp_path / "new", encoder=fake_encoder, grup="patient")
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("wrong", [3, "\ud800", "a\0b"])
    def test_a_name_is_a_text(self, index, archive, wrong):
        with pytest.raises(UsageError, match="name"):
            index.add(archive, name=wrong)

    @pytest.mark.parametrize("wrong", [b"x", [1], "drusen"])
    def test_scores_are_a_list_of_texts(self, archive, tmp_path, fake_encoder, wrong):
        with pytest.raises(UsageError, match="scores are a list of texts"):
            Index.build(archive, tmp_path / "new", encoder=fake_encoder, scores=wrong)

    def test_frames_are_recorded_as_a_whole_number(self, archive, tmp_path, fake_encoder):
        with pytest.raises(UsageError, match="frames must be a whole number, got:"):
            Index.build(archive, tmp_path / "new", encoder=fake_encoder, frames=1.0)

    def test_an_option_that_the_encoder_does_not_take_is_refused_before_it_is_loaded(self, index):
        with pytest.raises(UsageError, match="has no option 'divice'; it takes device, precision"):
            Index.open(index.path, divice="cpu")
        assert len(Index.open(index.path, device="cpu", precision="fp32", weights=None)) == len(index)

    @pytest.mark.parametrize("wrong", ["no", 1, None])
    def test_progress_is_true_false_or_what_shows_it(self, archive, tmp_path, fake_encoder, wrong):
        with pytest.raises(UsageError, match="progress must be true or false"):
            Index.build(archive, tmp_path / "new", encoder=fake_encoder, progress=wrong)


def test_an_index_opened_by_a_relative_path_is_found_from_another_folder(index, monkeypatch, tmp_path):
    monkeypatch.chdir(index.path.parent)
    opened = Index.open(index.path.name)
    monkeypatch.chdir(tmp_path)
    index.delete(ids=[next(iter(index))])
    assert opened.refresh()
    assert len(opened) == len(index)
