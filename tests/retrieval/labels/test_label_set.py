"""Label sets: the shipped ones, the three forms of a file, and every mistake in one."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from retr.index.errors import UsageError
from retr.retrieval.labels.label_set import load_labels, shipped

ROOT = Path(__file__).parents[3]
SIZES = {"chestxray14": 14, "chexpert-5": 5, "fundus-39": 39, "odir": 23, "retizero-14": 14}


@pytest.mark.parametrize("name", sorted(SIZES))
def test_shipped_sets_are_whole(name):
    labels = load_labels(name)
    assert labels.name == name
    assert len(labels.classes) == SIZES[name]
    assert labels.about
    assert all("{" not in prompt for one in labels.classes for prompt in one.prompts)


def test_the_published_names_are_kept_letter_for_letter():
    labels = load_labels("retizero-14")
    assert labels.names[9] == "Retinal Artery Occulusion"
    assert labels.classes[0].prompts == ("A fundus photograph of Normal",)
    assert load_labels("chestxray14").classes[12].prompts == ("pleural thicken",)


def test_a_shipped_name_list():
    assert shipped() == sorted(SIZES)


def test_a_spelling_belongs_to_one_class():
    for name in shipped():
        labels = load_labels(name)
        spellings = [s.casefold() for one in labels.classes for s in {one.name, *one.aliases}]
        twice = {s for s in spellings if spellings.count(s) > 1}
        assert twice <= {one.name.casefold() for one in labels.classes}, twice


def test_classes_are_found_by_name_and_alias():
    labels = load_labels("fundus-39")
    assert labels.names[labels.class_of("brvo")] == "branch retinal vein occlusion"
    assert labels.names[labels.class_of(" Fibrosis ")] == "fibrosis"
    assert labels.class_of("broken arm") is None
    assert labels.class_of(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "[a, b]",
        "a: a\nb: [b]",
        "classes:\n  - a\n  - name: b\n    prompts: b",
        '{"classes": [{"name": "a"}, "b"]}',
    ],
)
def test_the_forms_of_a_file(tmp_path, text):
    path = tmp_path / "set.yaml"
    path.write_text(text)
    labels = load_labels(path)
    assert labels.name == "set"
    assert [(one.name, one.prompts) for one in labels.classes] == [("a", ("a",)), ("b", ("b",))]


def test_every_prompt_goes_into_every_template(tmp_path):
    path = tmp_path / "set.yaml"
    path.write_text(
        """
templates: ["{}", "photo of {}"]
classes:
  - name: x
    prompts: [p, q]
  - name: y
    templates: ["only {}"]
"""
    )
    labels = load_labels(path)
    assert labels.classes[0].prompts == ("p", "photo of p", "q", "photo of q")
    assert labels.classes[1].prompts == ("only y",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a, b, A]", "repeats the class 'A'"),
        ("a: x\na: y", "repeats 'a'"),
        ("[{name: a, aliases: [m]}, {name: b, aliases: [M]}]", "calls 'a' and 'b' 'M'"),
        ("[a, {name: b, aliases: [A]}]", "calls 'a' and 'b' 'A'"),
        ("[no, yes]", "class name that YAML reads as false"),
        ("a: ['', x]", "empty prompt of 'a'"),
        ("a: []", "no prompt of 'a'"),
        ("[a, '  ']", "empty class name"),
        ("[]", "holds no classes"),
        ("just words", "holds no classes"),
        ("classes: [a]\ntemplate: x", "unknown key 'template'"),
        ("classes: [{name: a, prompt: x}]", "unknown key 'prompt'"),
        ("templates: ['no place']\nclasses: [a]", "has no {}"),
        ("a: [", "is not YAML at line"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "set.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)):
        load_labels(path)


def test_an_unknown_set_names_the_known_ones():
    with pytest.raises(UsageError, match="fundus-39"):
        load_labels("fundus-40")


@pytest.mark.slow
def test_the_wheel_holds_the_sets(tmp_path):
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"retr/retrieval/labels/{name}.yaml" for name in SIZES} <= set(names)


def test_a_folders_name_stands_for_the_class_it_can_only_mean():
    labels = load_labels(["macular hole", "a b", "a_b"])
    assert labels.class_of("Macular_Hole") == labels.class_of("macular__hole ") == 0
    assert (labels.class_of("a b"), labels.class_of("a_b")) == (1, 2)
    assert labels.class_of("a__b") is None, "it may mean either"
    assert load_labels(["macular_hole"]).class_of("macular hole") == 0


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("BRVO", "Retinal Vein Occlusion"),
        ("moderate non proliferative retinopathy", "Non-proliferative Diabetic Retinopathy"),
        ("retinal artery occlusion", "Retinal Artery Occulusion"),
        ("vkh", "Vogt-Koyanagi-Harada (VKH) disease"),
        ("dry_AMD", "Age-related Macular Degeneration"),
        ("normal fundus", "Normal"),
        ("diabetic retinopathy", None),
        ("suspected glaucoma", None),
    ],
)
def test_retizeros_classes_have_the_usual_names(spelling, name):
    labels = load_labels("retizero-14")
    place = labels.class_of(spelling)
    assert (None if place is None else labels.names[place]) == name


@pytest.mark.parametrize("shipped_set", shipped())
def test_no_spelling_of_a_shipped_set_means_two_classes(shipped_set):
    labels = load_labels(shipped_set)
    for place, one in enumerate(labels.classes):
        assert {labels.class_of(spelling) for spelling in (one.name, *one.aliases)} == {place}
