"""`Index`: what it refuses, what it leaves out, what it loads."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from retr import Index
from retr.index.errors import EncoderMismatchError, ImageReadError, IndexNotFoundError, NoTextSideError, UsageError
from retr.retrieval.hits import Hits
from retr.retrieval.query import Query
from retr.retrieval.text.align import Bridge


@pytest.fixture
def index(archive, tmp_path, fake_encoder) -> Index:
    return Index.build(
        archive, tmp_path / "x.retr", encoder=fake_encoder, metadata=archive / "labels.csv", group="patient"
    )


def test_build_reports_and_opens(index, archive):
    assert len(index) == 12
    assert index.report.embedded == 12
    assert repr(index) == "Index('x.retr', 12 rows, fake 56-d cosine)"
    again = Index.build(archive, index.path, encoder=index.encoder)
    assert again.report.unchanged == 12


def test_opening_loads_no_encoder(index, monkeypatch):
    monkeypatch.setattr(Index, "encoder", property(lambda self: pytest.fail("the encoder was loaded")))
    opened = Index.open(index.path)
    hits = opened.search(id="healthy/000.png", k=3)
    assert len(hits) == 3
    assert len(opened.search(vector=np.ones(56), k=3)) == 3
    assert opened.info()["rows"] == 12


def test_hits_are_arrays_a_table_and_single_hits(index):
    hits = index.search(id="healthy/000.png", k=4)
    assert isinstance(hits, Hits)
    assert hits.scores.shape == (4,)
    assert hits.scores.dtype == np.float32
    assert hits.ids == hits.table.column("id").to_pylist()
    first = next(iter(hits))
    assert (first.rank, first.id, first.path) == (1, hits.ids[0], hits.ids[0])
    assert first.score == pytest.approx(float(hits.scores[0]))
    assert first.metadata["label"] in {"healthy", "glaucoma"}
    assert first.to_json()["rank"] == 1


def test_an_image_may_come_in_any_form(index, archive):
    torch = pytest.importorskip("torch")
    path = archive / "healthy/000.png"
    with Image.open(path) as opened:
        picture = opened.copy()
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    with path.open("rb") as stream:
        forms = [path, str(path), path.read_bytes(), stream, picture, index.picture("healthy/000.png"), array]
        forms += [array / 255, tensor, tensor.float() / 255, tensor.numpy().astype(int)]
        answers = [index.search(image=image, k=3, include_self=True) for image in forms]
        stream.seek(0)
        assert Query.image(stream).describe() == "image <bytes>"
    assert all(hits.ids == answers[0].ids for hits in answers)
    assert all(hits.scores.tolist() == answers[0].scores.tolist() for hits in answers)
    assert (answers[0].ids[0], answers[0].scores[0]) == ("healthy/000.png", pytest.approx(1, abs=1e-5))
    # a file that is open is known by its bytes, as the bytes themselves are
    with path.open("rb") as stream:
        assert "healthy/000.png" not in index.search(image=stream, k=12).ids


def test_several_pictures_come_in_any_sequence(index, archive):
    pd = pytest.importorskip("pandas")
    paths = [str(archive / name) for name in ("healthy/000.png", "glaucoma/001.jpg")]
    wanted = index.encoder.encode_images(paths)
    for several in (tuple(paths), iter(paths), np.array(paths), pd.Series(paths, index=[4, 1])):
        assert np.array_equal(index.encoder.encode_images(several), wanted)
    for several in (tuple(paths), pd.Series(paths), np.array(paths)):
        assert [one.query for one in index.classify(several, by="label")] == paths
    queries = pd.Series([Query.image(path) for path in paths])
    for several in (queries, tuple(queries), queries.to_numpy()):
        assert [hits.ids for hits in index.search(several)] == [index.search(one).ids for one in queries]
    with pytest.raises(UsageError, match="several pictures are wanted, got one str"):
        index.classify(paths[0], by="label")
    with pytest.raises(UsageError, match="several pictures are wanted, got one str"):
        index.encoder.encode_images(paths[0])
    with pytest.raises(ImageReadError, match=r"given as list; ask with one picture, or give a list of queries"):
        index.search(image=paths)


def test_the_query_itself_and_its_copies_are_no_neighbours(index, archive):
    shutil.copy(archive / "healthy/000.png", archive / "healthy/zz-copy.png")
    Index.build(archive, index.path, encoder=index.encoder)
    index.refresh()
    own = {"healthy/000.png", "healthy/zz-copy.png"}
    assert own & set(index.search(id="healthy/000.png", k=13).ids) == set()
    assert own & set(index.search(image=archive / "healthy/000.png", k=13).ids) == set()
    both = index.search(id="healthy/000.png", k=13, include_self=True)
    assert both.ids[:2] == sorted(own), "equal scores are settled by id"


def test_the_same_patient_is_left_out(index, archive):
    row = index.row("healthy/000.png")
    for question in ({"id": row["id"]}, {"image": archive / row["path"]}):
        hits = index.search(**question, k=12, exclude_same="patient")
        assert row["patient"] not in hits.table.column("patient").to_pylist()
        assert len(hits) == 9
    given = index.search(vector=np.ones(56), k=12, exclude_same={"patient": "P01"})
    assert "P01" not in given.table.column("patient").to_pylist()


def test_a_patient_that_is_not_known_is_an_error(index):
    with pytest.raises(UsageError, match="has no known 'patient'"):
        index.search(vector=np.ones(56), exclude_same="patient")
    with pytest.raises(UsageError, match="'patent'"):
        index.search(id="healthy/000.png", exclude_same="patent")
    mixed = Query.id("healthy/000.png") + Query.image(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="image <ndarray> has no known 'patient'"):
        index.search(mixed, exclude_same="patient")


def test_all_patients_of_a_mixed_query_are_left_out(index):
    mixed = Query.id("healthy/000.png") + Query.id("glaucoma/011.jpg")
    hits = index.search(mixed, k=12, exclude_same="patient")
    assert set(hits.table.column("patient").to_pylist()) == {"P01", "P02"}
    same = index.search([mixed, Query.id("healthy/000.png")], k=12, exclude_same=[{"patient": ["P00", "P02"]}, None])
    assert set(same[0].table.column("patient").to_pylist()) == {"P01", "P03"}
    assert len(same[1]) == 11


def test_a_patient_that_no_row_has_is_said(index):
    hits = index.search(id="healthy/000.png", k=12, exclude_same={"patient": "P99"})
    assert hits.note == "no row has the patient 'P99': nothing was left out for it"
    assert len(hits) == 11
    with pytest.raises(UsageError, match="no row has the patient 'P99'"):
        index.search(id="healthy/000.png", exclude_same={"patient": "P99"}, strict_exclude=True)
    with pytest.raises(UsageError, match="is empty"):
        index.search(id="healthy/000.png", exclude_same={"patient": " "})
    index.set_group("patient")
    assert "no row has the patient 'P98'" in index.search(id="healthy/000.png", where="patient != 'P98'").note


def test_a_value_to_leave_out_is_read_as_the_columns_type(index):
    hits = index.search(vector=np.ones(56), k=12, exclude_same={"age": "41"})
    assert 41 not in hits.table.column("age").to_pylist()
    assert len(hits) == 11
    with pytest.raises(UsageError, match="'old' is no value of the column 'age', which is int64"):
        index.search(vector=np.ones(56), exclude_same={"age": "old"})


def test_one_per_patient(index):
    hits = index.search(id="healthy/000.png", k=12, one_per="patient")
    patients = hits.table.column("patient").to_pylist()
    assert len(patients) == len(set(patients)) == 4


def test_several_questions_give_several_answers(index):
    vectors = index.store.vectors(np.arange(3))
    answers = index.search(vector=vectors, k=2)
    assert [hits.ids for hits in answers] == [index.search(vector=v, k=2).ids for v in vectors]
    queries = [Query.id("healthy/000.png"), Query.id("healthy/000.png") - Query.id("glaucoma/001.jpg")]
    assert len(index.search(queries, k=2)) == 2


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_k_must_be_a_whole_number_of_at_least_one(index, k):
    with pytest.raises(UsageError, match=f"k must be .*got: {k}"):
        index.search(id="healthy/000.png", k=k)


def test_one_question_at_a_time(index):
    with pytest.raises(UsageError, match="got: nothing"):
        index.search()
    with pytest.raises(UsageError, match="got: image and text"):
        index.search(image="x.png", text="drusen")


def test_words_for_an_encoder_without_a_text_side(index):
    with pytest.raises(NoTextSideError, match="'fake'"):
        index.search(text="drusen")


def test_the_prompts_of_a_label_set_are_embedded_once(index, archive, monkeypatch):
    embedded = []

    def class_embedding(self, prompts):
        embedded.append(prompts)
        return embed(self, prompts)

    embed = Bridge.class_embedding
    monkeypatch.setattr(Bridge, "class_embedding", class_embedding)
    for times in (1, 2):
        index.align("label")
        for _ in range(3):
            (answer,) = index.classify([archive / "healthy/000.png"], labels=["healthy", "glaucoma"])
            assert set(answer.classes) == {"healthy", "glaucoma"}
        # another bridge embeds otherwise
        assert len(embedded) == 2 * times


def test_another_encoder_is_refused_with_both_names(index, make_encoder):
    with pytest.raises(EncoderMismatchError, match=r"built with 'fake', got: 'lite'"):
        Index.open(index.path, encoder="lite")
    with pytest.raises(EncoderMismatchError, match=r"built with 'fake', got: 'other'"):
        Index.open(index.path, encoder=make_encoder(name="other"))


def test_other_weights_under_the_same_name_are_refused(index, archive, make_encoder):
    with pytest.raises(EncoderMismatchError, match=r"weights of 'fake' changed.*000000000000.*111111111111"):
        Index.open(index.path, encoder=make_encoder(weights="1" * 64))
    with pytest.raises(EncoderMismatchError):
        Index.build(archive, index.path, encoder=make_encoder(weights="1" * 64))


def test_other_preprocessing_is_refused(index, make_encoder):
    other = make_encoder()
    other.info = dataclasses.replace(other.info, preprocessing="centre crop")
    with pytest.raises(EncoderMismatchError, match="centre crop"):
        Index.open(index.path, encoder=other)


def test_delete_by_id_and_condition(index):
    assert index.count(where="label = 'healthy'") == 6
    assert index.delete(ids=["healthy/000.png"], where="patient = 'P03'") == 4
    assert len(index) == 8
    with pytest.raises(UsageError, match="no row has the id 'nobody'"):
        index.delete(ids=["glaucoma/001.jpg", "nobody"])
    with pytest.raises(UsageError, match="neither"):
        index.delete()
    assert len(index) == 8
    index.compact()
    assert index.check() == []
    assert index.store.n_total == 8


def test_an_index_stays_at_its_version_until_told(index):
    reader = Index.open(index.path)
    index.delete(where="label = 'healthy'")
    assert len(reader) == 12
    reader.refresh()
    assert len(reader) == 6


def test_where_there_is_no_index(tmp_path):
    with pytest.raises(IndexNotFoundError):
        Index.open(tmp_path / "nowhere.retr")
