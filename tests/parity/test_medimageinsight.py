"""MedImageInsight's folder in small against its authors' code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import medimageinsight_folder
import narrow
import numpy as np
import pytest
import torch

from retr.index.errors import WeightsError
from retr.retrieval.encoders.registry import load_encoder

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return medimageinsight_folder.write(tmp_path_factory.mktemp("mii") / "2024.09.27", narrow.state("medimageinsight"))


def test_pictures_and_texts(folder: Path) -> None:
    encoder = load_encoder("medimageinsight", weights=folder, **HERE)
    narrow.check("medimageinsight", encoder.encode_images(narrow.pictures()), normalised=False)
    narrow.check("medimageinsight", encoder.encode_texts(medimageinsight_folder.TEXTS), "texts", normalised=False)
    # as transformers counts them; of a longer one the beginning is read
    assert encoder.text_lengths(["no"]) == [(3, 3)]
    assert encoder.text_lengths(["lesion " * 90])[0][1] == 77
    assert encoder.info.logit_scale == pytest.approx(1 / 0.07)


def test_the_folder_around_it_and_names_of_before(folder: Path, tmp_path: Path) -> None:
    old = {"image_encoder.": "visual.", "lang_encoder.": "text."}
    whole = {"image_projection": "vision_projection", "lang_projection": "text_projection"}
    state = {}
    for key, value in narrow.state("medimageinsight").items():
        opening = next((name for name in old if key.startswith(name)), "")
        state[whole.get(key, old.get(opening, "") + key.removeprefix(opening))] = value
    medimageinsight_folder.write(tmp_path / "2024.09.27", state)
    encoder = load_encoder("medimageinsight", weights=tmp_path, **HERE)
    narrow.check("medimageinsight", encoder.encode_images(narrow.pictures()))


def test_a_long_picture_is_squashed_whole(folder: Path) -> None:
    from PIL import Image

    encoder = load_encoder("medimageinsight", weights=folder, **HERE)
    long = narrow.pictures()[0].resize((2000, 40))
    want = np.asarray(long.resize((64, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(encoder.to_bytes(long), want)


def test_odd_pictures(folder: Path, check_odd_pictures: Any) -> None:
    check_odd_pictures(load_encoder("medimageinsight", weights=folder, **HERE))


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        ("IMAGE_ENCODER", {"NAME": "coswin"}, "IMAGE_ENCODER.NAME 'coswin'"),
        ("LANG_ENCODER", {"TOKENIZER": "zcode"}, "LANG_ENCODER.TOKENIZER 'zcode'"),
        ("UNICL_MODEL", {"STANDPARAM": False}, "UNICL_MODEL.STANDPARAM False"),
        ("LANG_ENCODER", {"LAYERS": 10**9}, "states layers 1000000000"),
        ("LANG_ENCODER", {"WIDTH": 64}, "does not fit"),
        ("UNICL_MODEL", {"DIM_PROJECTION": 10**9}, "larger"),
        ("AUG", {"INTERPOLATION": "lanczos5"}, "does not load"),
    ],
)
def test_other_configurations_are_refused(section: str, change: dict[str, Any], says: str, tmp_path: Path) -> None:
    own = medimageinsight_folder.config()[section] | change
    folder = medimageinsight_folder.write(tmp_path / "x", narrow.state("medimageinsight"), **{section: own})
    with pytest.raises(WeightsError, match=says) as refused:
        load_encoder("medimageinsight", weights=folder, **HERE)
    assert "\n" not in str(refused.value)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = narrow.state("medimageinsight")
    folder = medimageinsight_folder.write(tmp_path / "x", state | {"surprise": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"1 unknown \(surprise"):
        load_encoder("medimageinsight", weights=folder, **HERE)
    (folder / "vision_model" / "other.pt").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"the weights and nothing else, it holds medimageinsigt-v1.0.0.pt, other"):
        load_encoder("medimageinsight", weights=folder, **HERE)
    (folder / "config.yaml").unlink()
    with pytest.raises(WeightsError, match=r"no config.yaml in 'x'"):
        load_encoder("medimageinsight", weights=folder, **HERE)
