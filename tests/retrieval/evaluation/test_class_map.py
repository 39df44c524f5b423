"""Tables of class names: what they hold, and how a name is matched or refused."""

import json

import pytest

from retr.index.errors import UsageError
from retr.retrieval.evaluation.protocols.class_map import load_map, plain, shipped_maps


def test_every_table_that_ships_is_read_and_maps_to_names_of_its_label_set():
    for name in shipped_maps():
        table = load_map(name)
        assert table.sets
        for one in table.sets.values():
            assert {*one.classes.values()} <= {*table.labels.names}
            assert not {*map(plain, one.classes)} & {*map(plain, one.unmapped)}
            assert all(one.unmapped.values())


def test_the_39_classes_are_all_named():
    jsiec = load_map("retizero-14").sets["jsiec"]
    assert len(jsiec.classes) + len(jsiec.unmapped) == 39


def test_a_name_means_what_it_means_in_its_own_set():
    table = load_map("retizero-14")
    mapped, left = table.translate("rfmid", {"MH": 3, "MHL": 2, "Macular_hole": 1})
    assert mapped == {"MHL": "Macular Hole", "Macular_hole": "Macular Hole"}
    assert [(one["name"], one["images"]) for one in left] == [("MH", 3)]
    assert table.translate("jsiec", {"8.MH": 1})[0] == {"8.MH": "Macular Hole"}


@pytest.mark.parametrize("name", ["0.3.DR1", "0.3.dr1", "DR1", "03. DR1", " dr1 "])
def test_case_blanks_and_a_leading_number_are_no_other_name(name):
    assert load_map("retizero-14").translate("jsiec", {name: 1})[0] == {name: "Non-proliferative Diabetic Retinopathy"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("5.1.VKH diseases", "'5.1.VKH disease'"),
        ("Glaucom", "'10.0.Possible glaucoma'"),
        ("zebra", r"zebra' \(7 images\)"),
    ],
)
def test_any_other_spelling_is_refused_with_the_near_ones(name, words):
    with pytest.raises(UsageError, match=words) as caught:
        load_map("retizero-14").translate("jsiec", {"0.0.Normal": 2, name: 7, "Possible_glaucoma": 1})
    assert "'Possible_glaucoma'" not in str(caught.value)


def test_a_set_that_the_table_does_not_have_is_refused():
    with pytest.raises(UsageError, match="no set 'nowhere'"):
        load_map("retizero-14").names_of("nowhere")


GOOD = {"labels": "retizero-14", "sets": {"mine": {"classes": {"a": "Glaucoma"}, "unmapped": {"b": "why"}}}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "does not name its labels"),
        (json.dumps(GOOD | {"labels": 3}), "does not name its labels"),
        (json.dumps(GOOD).replace("Glaucoma", "Glaucomas"), "maps to 'Glaucomas'"),
        (json.dumps(GOOD).replace('"b"', '"A "'), "two meanings"),
        (json.dumps(GOOD).replace('"why"', "3"), "not readable"),
        (json.dumps(GOOD).replace('{"b": "why"}', '{"b": "why", "b": "else"}'), "'b' stands twice"),
        (json.dumps(GOOD).replace("mine", "my/set"), "one word"),
        (json.dumps(GOOD | {"sets": {"mine": []}}), "not readable"),
    ],
)
def test_a_table_of_ones_own_is_checked(tmp_path, text, words):
    file = tmp_path / "own.json"
    file.write_text(json.dumps(GOOD))
    assert load_map(str(file)).translate("mine", {"A": 1, "b": 2}) == (
        {"A": "Glaucoma"},
        [{"name": "b", "images": 2, "reason": "why"}],
    )
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_map(str(file))


def test_a_table_that_is_not_there():
    with pytest.raises(UsageError, match="cannot be read"):
        load_map("nowhere.json")
