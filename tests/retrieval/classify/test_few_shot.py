"""Few-shot classifiers against their formulas, and who may speak for a picture."""

import numpy as np
import pytest
from PIL import Image

from retr import UsageError
from retr.retrieval.classify.few_shot import ByShots, few_shot, read_shots
from retr.sample import sample_index

NONE = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def index():
    return sample_index()


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def made(way, **more):
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(7, 5))).astype(np.float32)
    codes = np.array([0, 0, 0, 1, 1, 2, 2])
    rows = [np.array([i]) for i in range(7)]
    return vectors, codes, ByShots(("a", "b", "c"), vectors, codes, rows, way=way, **more)


def test_prototypes_are_means():
    vectors, codes, method = made("prototypes", scale=9.0)
    means = unit(np.stack([vectors[codes == c].mean(axis=0) for c in range(3)]))
    np.testing.assert_allclose(method.evidence(vectors, [NONE] * 7)[0], 9 * vectors @ means.T, atol=1e-5)


def test_a_blend_adds_shots_to_words_by_their_share():
    texts = unit(np.random.default_rng(1).normal(size=(3, 5))).astype(np.float32)
    vectors, codes, method = made("blend", texts=texts, scale=30.0)
    sums = np.stack([vectors[codes == c].sum(axis=0) for c in range(3)])
    classes = unit(texts + np.array([3, 2, 2])[:, None] / 7 * sums * 30)
    np.testing.assert_allclose(method.evidence(vectors, [NONE] * 7)[0], 30 * vectors @ classes.T, atol=1e-4)
    # without any shot words alone are left
    alone = method.evidence(vectors[:1], [np.arange(7)])[0]
    np.testing.assert_allclose(alone, 30 * vectors[:1] @ texts.T, atol=1e-4)


@pytest.mark.parametrize("way", ["prototypes", "probe"])
def test_excluded_shots_say_nothing(way):
    vectors, codes, method = made(way)
    keep = np.array([True, False, True, True, True, False, False])
    gone = np.flatnonzero(~keep)
    fewer = ByShots(("a", "b", "c"), vectors[keep], codes[keep], [NONE] * 4, way=way)
    found = method.evidence(vectors[:1], [gone])[0]
    np.testing.assert_allclose(found, fewer.evidence(vectors[:1], [NONE])[0], atol=1e-4)
    assert found[0].argmin() == 2, "a class that lost its shots is the least probable"
    with pytest.raises(UsageError, match="fewer than two classes"):
        method.evidence(vectors[:1], [np.arange(3, 7)])


class TestIndex:
    shots = {"healthy/P03-left.png": "fine", "healthy/P05-left.png": "fine"} | dict.fromkeys(
        ("glaucoma/P00-left.png", "glaucoma/P06-left.png"), "ill"
    )

    @pytest.mark.parametrize("way", ["prototypes", "probe"])
    def test_rows_and_files_are_the_same_examples(self, index, tmp_path, way):
        folder = index.path.parent
        images = sorted(folder.glob("*/*.png"))
        found = [one.probabilities for one in index.few_shot(images, self.shots, way=way)]
        file = tmp_path / "shots.csv"
        lines = [f"{folder / name},{label}" for name, label in self.shots.items()]
        file.write_text("\n".join(["path,label", *lines]))
        again = [one.probabilities for one in index.few_shot(images, file, way=way)]
        np.testing.assert_allclose(again, found, atol=1e-4)
        answers = list(few_shot(index, images, self.shots, way=way))
        right = [
            one.label == ("fine" if image.parent.name == "healthy" else "ill")
            for one, image in zip(answers, images, strict=True)
        ]
        assert np.mean(right) > 0.7
        assert all(not one.calibrated and "not calibrated" in one.note for one in answers)

    def test_no_shot_of_the_same_patient_speaks(self, index):
        image = index.path.parent / "healthy/P03-right.png"
        others = {name: label for name, label in self.shots.items() if "P03" not in name}
        one, other = (next(iter(index.few_shot([image], shots))) for shots in (self.shots, others))
        assert one.probabilities == other.probabilities
        named = next(iter(index.few_shot([image], self.shots, patient="P06")))
        assert named.probabilities != one.probabilities

    def test_a_shot_of_a_named_patient_says_nothing_about_that_patient(self, index, tmp_path):
        folder, image = index.path.parent, index.path.parent / "healthy/P03-right.png"
        copies = {}
        for name, label in self.shots.items():  # files that are no copies of rows
            copy = str(tmp_path / name.replace("/", "-"))
            Image.open(folder / name).point(lambda value: min(value + 1, 255)).save(copy)
            copies[copy] = label
        own = next(name for name in copies if "P03" in name)
        fewer = {name: label for name, label in copies.items() if name != own}

        def answer(shots, image=image, **more):
            return next(iter(index.few_shot([image], shots, **more))).probabilities

        expected = answer(fewer)
        assert answer(copies) != expected, "nobody knows whose these files are"
        assert answer(copies, patients={own: "P03"}) == expected
        file = tmp_path / "shots.csv"
        lines = [f"{name},{label},{'P03' if name == own else ''}" for name, label in copies.items()]
        file.write_text("\n".join(["path,label,patient", *lines]))
        assert answer(file) == expected
        # of a patient without rows, and the same file
        assert answer(copies, patients={own: "new"}, patient="new") == answer(fewer, patient="new")
        assert answer(copies, own) == answer(fewer, own)
        mixed = list(index.few_shot([own, image, tmp_path / "none.png"], copies))
        answered = [one.probabilities for one in mixed if not isinstance(one, tuple)]
        assert answered == [answer(fewer, own), answer(copies)]
        assert len(mixed) == 3, "a file that cannot be read is said"

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"shots": shots, "patients": {"x": "P03"}}, "of 'x', which is none of the shots"),
            ({"shots": {"healthy/P03-left.png": "fine"}}, "of 1 classes"),
            ({"shots": shots, "way": "svm"}, "unknown way 'svm'"),
            ({"shots": shots, "way": "blend"}, "needs the prompts"),
            ({"shots": shots, "way": "probe", "labels": ["fine", "ill"]}, "needs the prompts"),
        ],
    )
    def test_what_cannot_be_meant(self, index, asked, said):
        with pytest.raises(UsageError, match=said):
            index.few_shot([], **asked)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no columns"),
        ("", "no columns"),
        ("path,label\nx.png,\n", "line 2 of the shots has an empty cell"),
        ("id,label,patient\nx,a,1\nx,a,2\n", "line 3 of the shots gives an example another patient"),
        ("id,label\nx,a\nx,b\n", "line 3 of the shots gives an example another class"),
    ],
)
def test_files_that_are_no_shots(tmp_path, text, said):
    file = tmp_path / "shots.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_shots(file)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_shots(tmp_path / "none.csv")


def test_a_probe_does_not_blow_up_what_was_made_small():
    # two directions tell, two hundred hold little; a few shots cannot know which
    rng = np.random.default_rng(0)
    codes = np.arange(300) % 3
    centres = np.array([[1, 0], [-0.5, 0.9], [-0.5, -0.9]])
    vectors = np.hstack([centres[codes] + rng.normal(0, 0.3, (300, 2)), rng.normal(0, 0.03, (300, 200))])
    vectors = unit(vectors).astype(np.float32)
    method = ByShots(("a", "b", "c"), vectors[:12], codes[:12], [NONE] * 12, way="probe")
    assert (method.evidence(vectors[12:], [NONE] * 288)[0].argmax(axis=1) == codes[12:]).mean() > 0.9
