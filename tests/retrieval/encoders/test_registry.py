from __future__ import annotations

import pytest

from retr.index.encoder import EncoderInfo
from retr.index.errors import EncoderNotFoundError, NoTextSideError, UsageError
from retr.retrieval.encoders import registry
from retr.retrieval.encoders.index_encoder import no_text_side
from retr.retrieval.encoders.registry import load_encoder, text_option
from retr.retrieval.encoders.spec import Spec


class _Point:
    value = "nowhere:SPEC"

    def load(self):
        raise ModuleNotFoundError("No module named 'nowhere'")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(EncoderNotFoundError, match="no encoder named 'flare'; did you mean 'flair'"):
        load_encoder("flare")


def test_a_name_like_none_is_answered_with_all():
    with pytest.raises(EncoderNotFoundError, match=r"known: .*lite"):
        load_encoder("qqqqqqq")


def test_an_unknown_option_is_answered_with_the_accepted_ones():
    with pytest.raises(UsageError, match=r"'lite' has no option 'colour'; it takes weights, .*device, precision"):
        load_encoder("lite", colour="grey")


def test_options_that_are_none_are_defaults(lite):
    assert load_encoder("lite", weights=None, text_model=None).info == lite.info


def test_a_colon_is_for_families_only():
    with pytest.raises(EncoderNotFoundError, match="'lite:x'; did you mean 'lite'"):
        load_encoder("lite:x")


def test_specs_are_complete(lite):
    found, broken = registry.specs()
    assert broken == []
    assert {"lite", "flair", "retizero", "lvm-med", "rad-dino", "kad", "open_clip", "hf"} <= found.keys()
    for name, spec in found.items():
        assert isinstance(spec, Spec)
        assert spec.card.name.partition(":")[0] == name
        assert {"device", "precision"} <= set(spec.options)
        assert spec.card.licence
        assert spec.card.source.startswith("https://")
        assert all(file.where and file.option in spec.options for file in spec.card.files)
        assert spec.family == (":" in spec.card.name)
    assert found["lite"].is_available()


def test_a_package_that_does_not_import_is_named(monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group, name=None: [_Point()])
    with pytest.raises(EncoderNotFoundError, match=r"'nowhere:SPEC', which does not import: No module named 'nowhere'"):
        registry.get_spec("theirs")


def test_info_survives_json(lite):
    import json

    assert EncoderInfo.from_json(json.loads(json.dumps(lite.info.to_json()))) == lite.info


@pytest.mark.parametrize(
    ("name", "options", "text", "option"),
    [
        ("retizero", {"feature": "retrieval", "normalisation": "0.5"}, False, "feature=zero-shot"),
        ("flair", {"feature": "backbone"}, False, "feature=projected"),
        ("retizero", {"feature": "zero-shot"}, True, None),
        ("lite", {"feature": "layers"}, False, None),
        ("no such encoder", {"feature": "retrieval"}, False, None),
    ],
)
def test_a_feature_of_images_alone_names_the_one_that_has_words(name, options, text, option):
    info = EncoderInfo(
        name=name,
        dim=4,
        similarity="cosine",
        modality="fundus",
        text=text,
        weights_sha256="0" * 64,
        preprocessing="none",
        options=options,
    )
    assert text_option(info) == option
    if option is not None:
        with pytest.raises(NoTextSideError, match=f"feature={options['feature']}") as refused:
            no_text_side(info)
        assert option in refused.value.hint
