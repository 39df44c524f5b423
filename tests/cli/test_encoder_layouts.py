"""Each layout of the newer encoders, built and asked through the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
import medimageinsight_folder
import narrow
import test_pathology as pathology

from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import transformers  # noqa: E402

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "disc"]


def timm_folder(place):
    return f"timm:{pathology.write('virchow2', place)}", place


def retfound_mae(place):
    torch.save({"model": narrow.state("retfound-mae"), "epoch": 799}, place / "RETFound_mae_natureCFP.pth")
    return "retfound", place


def retfound_dinov2(place):
    torch.save({"teacher": narrow.state("retfound-dinov2")}, place / "x.pth")
    return "retfound", place / "x.pth"


def siglip_folder(place):
    torch.manual_seed(6)
    vision, text = (
        SMALL | {"image_size": 32, "patch_size": 16},
        SMALL | {"vocab_size": 8, "max_position_embeddings": 16},
    )
    config = transformers.SiglipConfig(vision_config=vision, text_config=text)
    transformers.SiglipModel(config).save_pretrained(place)
    processor = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (place / "preprocessor_config.json").write_text(json.dumps(processor))
    (place / "vocab.txt").write_text("\n".join(WORDS))
    (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return "hf:google/medsiglip-448", place


def medimageinsight(place):
    medimageinsight_folder.write(place / "2024.09.27", narrow.state("medimageinsight"))
    return "medimageinsight", place


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (timm_folder, None),
        (retfound_mae, None),
        (retfound_dinov2, None),
        (siglip_folder, "a red disc"),
        (medimageinsight, "a red disc"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_built_and_asked(retr, tmp_path, make, text):
    (tmp_path / "archive").mkdir()
    (tmp_path / "weights").mkdir()
    for number, picture in enumerate(narrow.pictures()):
        picture.resize((120, 100)).save(tmp_path / "archive" / f"{number}.png")
    name, weights = make(tmp_path / "weights")
    where = ["--index", tmp_path / "x.retr", "--device", "cpu", "--precision", "fp32"]
    built = retr("index", "build", tmp_path / "archive", *where, "--encoder", name, "--weights", weights)
    assert built.code == 0, built.err
    # the weights are found again without being named
    found = retr("query", *where, "--image", tmp_path / "archive" / "1.png", "-k", 1, "--include-self", "--json")
    assert found.code == 0, found.err
    assert "1.png" in found.out
    asked = retr("query", *where, "--text", "a red disc", "-k", 3, "--json")
    if text is None:
        assert "embeds images only" in asked.error(asked.code)
    else:
        assert asked.code == 0, asked.err
        assert all(f"{number}.png" in asked.out for number in range(3))
