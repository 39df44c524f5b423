"""Encoders side by side: the same questions, from one decode, with the interval of the difference."""

from __future__ import annotations

import numpy as np
import pytest

from retr.encoders import from_callable
from retr.index.errors import UsageError
from retr.retrieval.encoders.options import split_spelled
from retr.retrieval.evaluation import compare as module
from retr.retrieval.evaluation.compare import compare


def colours(pictures):
    return np.stack([np.asarray(one.resize((4, 4)), np.float32).ravel() + 1 for one in pictures])


def constant(pictures):
    return np.ones((len(pictures), 3), np.float32)


def encoders():
    return [
        from_callable(colours, dim=48, name="colours", fingerprint="1"),
        from_callable(constant, dim=3, name="constant", fingerprint="1"),
    ]


def test_each_difference_is_that_of_the_values(archive):
    given = {"metadata": archive / "labels.csv", "label": "label", "group": "patient", "probe": True}
    found = compare(encoders(), archive, **given)
    (apart,) = found.differences
    one, other = found.encoders
    assert (apart.first, apart.second) == (one.name, other.name) == ("colours", "constant")
    assert {"precision@1", "precision@5", "any_hit@5", "macro_precision@1", "probe_accuracy"} <= apart.metrics.keys()
    for name, value in apart.metrics.items():
        assert value.value == pytest.approx(other.metrics[name].value - one.metrics[name].value)
        assert value.groups == found.data["groups"] == 4
    assert found.to_json()["differences"][0]["second_minus_first"].keys() == apart.metrics.keys()


def test_the_answers_are_those_of_an_index(archive, tmp_path, make_encoder):
    from retr import Index

    table = archive / "labels.csv"
    other = encoders()[0]
    found = compare([make_encoder(), other], archive, metadata=table, label="label", group="patient")
    index = Index.build(archive, tmp_path / "x.retr", encoder=make_encoder(), metadata=table, group="patient")
    measured = index.evaluate("retrieval", "label", k=[1, 5]).metrics
    for name in ("precision@1", "precision@5", "any_hit@5", "macro_precision@1"):
        assert found.encoders[0].metrics[name].value == pytest.approx(measured[name].value)
        assert found.encoders[0].metrics[name].low == pytest.approx(measured[name].low, abs=0.02)


def test_pictures_are_read_and_decoded_once_where_they_come_out_the_same(
    archive, monkeypatch, make_encoder, make_picture
):
    from retr.retrieval.ingest import decode

    make_picture(9, (640, 480)).save(archive / "healthy" / "large.jpg")
    fetched, decoded = [], []
    fetch, read_images = decode.Decoder.fetch, decode.read_images
    monkeypatch.setattr(decode.Decoder, "fetch", lambda self, item: (fetched.append(item.path), fetch(self, item))[1])
    monkeypatch.setattr(decode, "read_images", lambda data, **how: (decoded.append(how), read_images(data, **how))[1])
    first, second = encoders()
    assert len(compare([first, second], archive).notes) == 1
    assert len(fetched) == len(set(fetched)) == len(decoded) == 13
    fetched.clear()
    decoded.clear()
    compare([first, second, make_encoder(draft_size=64)], archive)
    assert len(fetched) == len(set(fetched)) == 13
    # the large JPEG alone is reduced for one of them
    assert len(decoded) == 14


def test_what_one_cannot_embed_is_left_out_of_all(archive, make_encoder):
    class Blind(make_encoder):
        def encode_prepared(self, batch):
            vectors = super().encode_prepared(batch)
            vectors[0] = np.nan
            return vectors

    (archive / "healthy" / "broken.png").write_bytes(b"no picture")
    found = compare([make_encoder(), Blind(name="blind", batch_size=100, draft_size=64)], archive)
    left_out = found.data["left_out"]
    assert left_out["count"] >= 2
    assert found.data["images"] == 12 - (left_out["count"] - 1)
    assert {one.metrics["precision@1"].n for one in found.encoders} == {found.data["images"]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["lite"], "at least two encoders, got 1"),
        (["lite", "lite"], "'lite' is named twice"),
        (["lite", "lite,colour=red"], "'lite' has no option 'colour'"),
    ],
)
def test_what_cannot_be_compared(archive, given, words):
    with pytest.raises(UsageError, match=words):
        compare(given, archive)


def test_options_stand_behind_the_name(archive, monkeypatch):
    assert split_spelled("hf:a,b,text-model=x=y,feature=cls") == ("hf:a,b", {"text_model": "x=y", "feature": "cls"})
    asked = []

    def load(name, **options):
        asked.append((name, options))
        return encoders()[len(asked) - 1]

    monkeypatch.setattr(module, "load_encoder", load)
    compare(["lite,resolution=320,device=cpu", "kad"], archive, device="cuda")
    assert asked == [("lite", {"resolution": 320, "device": "cpu"}), ("kad", {"device": "cuda"})]
