"""Several sets as one pool: names, patients and sets kept apart, and nothing dropped in silence."""

import json

import numpy as np
import pytest

from retr.index.errors import UsageError
from retr.retrieval.evaluation.protocols import retizero
from retr.retrieval.evaluation.protocols.class_map import load_map
from retr.retrieval.evaluation.protocols.folder import read_folder
from retr.retrieval.evaluation.protocols.united import unite


@pytest.fixture
def sets(tmp_path, make_picture):
    """Two folders of classes as two public sets name them."""
    trees = {
        "jsiec": {"0.0.Normal": 3, "2.0.BRVO": 2, "2.1.CRVO": 2, "27.Laser Spots": 2},
        "odir": {"normal_fundus": 3, "glaucoma": 2, "cataract": 1},
    }
    number = 0
    for name, tree in trees.items():
        rows = ["path,patient"]
        for label, count in tree.items():
            folder = tmp_path / name / label
            folder.mkdir(parents=True)
            for i in range(count):
                number += 1
                make_picture(number, (48, 40)).save(folder / f"{i}.png")
                rows.append(f"{label}/{i}.png,P{i}")
        (tmp_path / name / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def _read(sets, group="patient"):
    table = {"metadata": sets / "odir/labels.csv", "group": group} if group else {}
    return {
        "jsiec": read_folder(sets / "jsiec", fewest=1),
        "odir": read_folder(sets / "odir", fewest=1, **table),
    }


def test_the_pool_has_the_tables_names_and_the_sets_own_patients(sets):
    pool = unite(_read(sets), load_map("retizero-14"))
    assert pool.counts() == {"Glaucoma": 2, "Normal": 6, "Retinal Vein Occlusion": 4}
    assert list(pool.paths) == [path for _, path in sorted(zip(pool.labels.tolist(), pool.paths, strict=True))]
    of = dict(zip(pool.paths, pool.groups.tolist(), strict=True))
    assert of["odir/glaucoma/0.png"] == of["odir/normal_fundus/0.png"]
    assert len({*of.values()}) == 7 + 3  # no table says whose JSIEC's are, and ODIR's patient 0 is not JSIEC's first
    assert pool.alone.sum() == 7
    assert pool.sets().tolist() == [path.startswith("odir") for path in pool.paths]


def test_what_is_not_mapped_is_counted_and_named(sets):
    described = unite(_read(sets), load_map("retizero-14")).describe()
    assert [(one["name"], one["images"]) for one in described["sets"]["jsiec"]["unmapped"]] == [("27.Laser Spots", 2)]
    assert [(one["name"], one["images"]) for one in described["sets"]["odir"]["unmapped"]] == [("cataract", 1)]
    assert described["sets"]["jsiec"]["pool"] == {"Normal": 3, "Retinal Vein Occlusion": 4}
    assert "Pathologic Maculopathy" in described["map"]["notes"][0]


def test_limits_are_of_the_tables_classes(sets):
    parts, table = _read(sets), load_map("retizero-14")
    assert unite(parts, table, most=1).counts() == {"Glaucoma": 1, "Normal": 2, "Retinal Vein Occlusion": 1}
    assert unite(parts, table, least=3).counts() == {"Normal": 6, "Retinal Vein Occlusion": 4}
    assert unite(parts, table, without=["Glaucoma", "2.1.CRVO"]).counts() == {"Normal": 6, "Retinal Vein Occlusion": 2}
    with pytest.raises(UsageError, match="no class 'glaukoma'"):
        unite(parts, table, without=["glaukoma"])
    with pytest.raises(UsageError, match="hold 1 classes"):
        unite({"odir": parts["odir"]}, table, without=["Glaucoma"])


def test_a_run_says_both_figures(sets, fake_encoder):
    result = retizero.run(unite(_read(sets), load_map("retizero-14")), fake_encoder, clustered=False)
    json.dumps(result)
    across = result["other_sets"]
    assert (across["images"], across["of_images"], across["classes"]) == (6, 12, ["Normal"])
    assert across["intervals"]["any_hit"]["5"]["n"] == 6
    assert len({*result["strict"]["precision"]}) == 3


def test_an_unreadable_picture_is_left_out_by_its_set_and_reason(sets, fake_encoder):
    (sets / "jsiec/2.0.BRVO/0.png").write_bytes(b"no picture")
    result = retizero.run(unite(_read(sets), load_map("retizero-14")), fake_encoder, clustered=False)
    assert result["data"]["left_out"]["images"] == [{"path": "jsiec/2.0.BRVO/0.png", "reason": "not an image"}]


def test_one_set_has_no_other(sets, fake_encoder):
    pool = unite({"odir": _read(sets)["odir"], "jsiec": _read(sets)["jsiec"]}, load_map("retizero-14"))
    some = unite({"jsiec": _read(sets)["jsiec"]}, load_map("retizero-14"))
    assert retizero.run(some, fake_encoder, clustered=False)["other_sets"]["reason"] == "there is one set"
    assert pool.place() != some.place()


def test_across_sets_neither_the_set_nor_the_patient_answers():
    """Within a set vectors tell the class; across sets they point the wrong way."""
    vectors = np.repeat(np.eye(4, dtype=np.float32), 6, axis=0)
    labels, sets = np.repeat([0, 1, 1, 0], 6), np.repeat([0, 0, 1, 1], 6)
    vectors[sets == 1] += 0.1 * np.roll(vectors[sets == 0], 6, axis=0)
    pool = retizero.Pool(vectors, labels, np.arange(24))
    assert retizero.retrieve(pool)["strict"].summary()["precision"]["1"] == 1
    hits, asked = retizero.across_sets(pool, sets)
    assert asked.all()
    near = vectors @ vectors.T
    for row in range(24):
        other = np.flatnonzero(sets != sets[row])
        best = other[np.argsort(-near[row, other], kind="stable")[:5]]
        assert hits[row].tolist() == (labels[best] == labels[row]).tolist()
    pool = retizero.Pool(vectors, labels, np.tile(np.arange(12), 2))
    apart, asked = retizero.across_sets(pool, np.where(np.arange(24) < 12, 0, 1))
    assert asked.all() and not np.array_equal(apart, np.zeros_like(apart))
