from __future__ import annotations


def test_ls_shows_every_encoder(retr):
    done = retr("encoders", "ls", "--json")
    assert done.code == 0
    rows = {row["name"]: row for row in done.json}
    assert rows["lite"]["here"] is True
    assert {"flair", "retizero", "lvm-med", "rad-dino", "kad", "open_clip:MODEL/TAG", "hf:ORG/NAME"} <= rows.keys()
    assert all("non-commercial" in rows[name]["licence"] for name in ("lvm-med", "retizero"))


def test_ls_is_a_table_for_people(retr):
    done = retr("encoders", "ls")
    assert done.code == 0
    assert done.out.split()[:2] == ["name", "modality"]


def test_info_tells_options_and_where_the_weights_are(retr):
    (info,) = retr("encoders", "info", "lite", "--json").json
    assert {"weights", "device", "precision"} <= set(info["options"])
    assert info["files"][0]["name"] == "efficientnet-lite0-57934424.pth"
    shown = retr("encoders", "info", "kad").out
    assert "KAD_512/best_valid.pt\n  needed, with --weights; from https://" in shown
    assert "may be given, with --set knowledge_encoder=PATH; from https://" in shown


def test_info_tells_what_an_encoder_costs_before_it_is_loaded(retr, archive, tmp_path):
    (info,) = retr("encoders", "info", "lite", "--json").json
    assert info["weight_bytes"] == 4 * info["parameters"] > 1e7
    assert info["last_used"] is None
    assert "never on this machine" in retr("encoders", "info", "lite").out
    assert retr("index", "build", archive, "--index", tmp_path / "x.retr").code == 0
    (info,) = retr("encoders", "info", "lite", "--json").json
    assert info["last_used"]["images_per_second"] > 0
    assert str(tmp_path) not in str(info)
    assert "images a second (read, prepared and embedded by a build)" in retr("encoders", "info", "lite").out


def test_info_tells_the_size_of_an_encoder_that_was_never_here(retr):
    for name, parameters in {
        "flair": 24_556_608,
        "timm:MahmoodLab/UNI2-h": 681_394_176,
        "hf:vinid/plip": 87_849_216,
    }.items():
        (info,) = retr("encoders", "info", name, "--json").json
        assert (info["parameters"], info["weight_bytes"]) == (parameters, 4 * parameters)


def test_compare_prints_paired_differences_and_the_cost(retr, archive, tmp_path, monkeypatch):
    monkeypatch.setattr("retr.retrieval.evaluation.protocols.vectors._kept", lambda *_: None)
    table = ["--data", archive, "--metadata", archive / "labels.csv", "--label", "label", "--group", "patient"]
    names = ["lite", "lite,view=mirrored"]
    done = retr("encoders", "compare", *names, *table)
    assert done.code == 0, done.err
    assert "lite,view=mirrored - lite" in done.out
    assert "CPU seconds an image" in done.out
    (found,) = retr("encoders", "compare", *names, *table, "--json").json
    assert [one["name"] for one in found["encoders"]] == names
    assert found["data"]["groups"] == found["differences"][0]["second_minus_first"]["precision@1"]["groups"] == 4
    assert "at least two encoders" in retr("encoders", "compare", "lite", *table).error(2)
    assert "no folder" in retr("encoders", "compare", *names, "--data", tmp_path / "none").error(2)


def test_verify_compares_with_the_record(retr):
    (found,) = retr("encoders", "verify", "lite", "--json").json
    assert found["outcome"] == "matches"


def test_verify_ends_with_1_when_the_vectors_differ(retr, monkeypatch):
    from retr.retrieval.encoders.systems.lite import LiteEncoder

    exact = LiteEncoder.encode_prepared
    monkeypatch.setattr(LiteEncoder, "encode_prepared", lambda self, batch: exact(self, batch)[:, ::-1])
    done = retr("encoders", "verify", "lite")
    assert done.code == 1
    assert "is not what it was" in done.err


def test_an_unknown_name_is_one_line(retr):
    assert "did you mean 'lite'" in retr("encoders", "info", "lit").error(1)
    assert "no option 'colour'" in retr("encoders", "verify", "lite", "-o", "colour=x").error(2)
