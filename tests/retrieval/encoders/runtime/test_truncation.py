"""Texts longer than an encoder reads are said with the answer."""

from __future__ import annotations

import json

import pytest

from retr import Index, Query
from retr.retrieval.classify.classify import classify_without_index
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.runtime.truncation import unread_ends
from retr.retrieval.encoders.towers.bert import Tokenizer
from retr.retrieval.labels.label_set import load_labels

HERE = {"device": "cpu", "precision": "fp32"}
LONG = "a red disc " * 20


@pytest.fixture(scope="module", params=["hf", "clip"])
def encoder(made, request):
    if request.param == "hf":
        return load_encoder("hf:me/mine", weights=made / "hf", **HERE)
    return load_encoder("open_clip:mine", weights=made / "clip", text_model=made / "bert", **HERE)


def test_tokens_are_counted_and_so_are_those_that_are_read(encoder):
    limit = 16 if encoder.info.name.startswith("hf") else 24
    assert encoder.text_lengths(["a red disc", LONG]) == [(5, 5), (62, limit)]
    assert unread_ends(encoder, ["a red disc"]) == []
    assert unread_ends(encoder, [LONG, "a red disc", LONG]) == [
        f"of 62 tokens of the text 'a red disc a red disc a red disc a red d...' only the first {limit} were read"
    ]
    said = unread_ends(encoder, [LONG, LONG + "red"])
    assert said[0].startswith("of 63 tokens")
    assert said[0].endswith("2 texts are longer than the encoder reads, this one most")


def test_what_lies_beyond_has_no_part_in_the_vector(encoder):
    (tokens, read) = encoder.text_lengths([LONG])[0]
    assert tokens > read
    first, other = encoder.encode_texts([LONG, LONG + "disc disc disc"])
    assert (first == other).all()


def test_open_clips_own_tokenizer_is_counted(made, tmp_path):
    import torch

    from retr.retrieval.encoders.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import open_clip

    tiny = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    torch.save(open_clip.CLIP(**tiny).state_dict(), tmp_path / "tiny.pt")
    stated = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": tiny, "preprocess_cfg": stated}))
    encoder = load_encoder("open_clip:tiny", weights=tmp_path / "tiny.pt", **HERE)
    assert encoder.text_lengths(["a red disc", LONG]) == [(5, 5), (62, 20)]


def test_the_medical_encoders_tokenizer_counts_pieces_too(made):
    tokenizer = Tokenizer(made / "bert", 10)
    assert tokenizer.lengths(["a red disc", LONG, ""]) == [(5, 5), (62, 10), (2, 2)]
    assert tokenizer([LONG])[0].shape == (1, 10)


def test_search_says_it_for_each_question(encoder, made, tmp_path, pictures):
    (tmp_path / "archive").mkdir()
    for number, picture in enumerate(pictures[:3]):
        picture.save(tmp_path / "archive" / f"{number}.png")
    index = Index.build(tmp_path / "archive", tmp_path / "x.retr", encoder=encoder)
    long, short = index.search([Query.text(LONG), Query.text("a red disc")], k=1)
    assert "of 62 tokens of the text 'a red disc" in long.note
    assert short.note is None or "tokens" not in short.note


def test_prompts_say_it_beside_every_answer(encoder, pictures, tmp_path):
    file = tmp_path / "labels.yaml"
    file.write_text(json.dumps({"name": "two", "classes": [{"name": "x", "prompts": [LONG]}, {"name": "red disc"}]}))
    for answer in classify_without_index(encoder, load_labels(file), pictures[:2]):
        assert "of 62 tokens of the text" in answer.to_json(1)["note"]
    file.write_text(json.dumps({"multilabel": True} | json.loads(file.read_text())))
    for answer in classify_without_index(encoder, load_labels(file), pictures[:2]):
        assert "of 62 tokens of the text" in answer.to_json(1)["note"]


def test_a_bag_of_words_reads_to_the_end():
    assert unread_ends(object(), [LONG]) == []
