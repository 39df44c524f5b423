"""``retr mcp``, asked by the protocol's own client over standard input and output."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import shutil
import sys

import pytest
from dicom_file import dicom
from fake_encoder import FakeEncoder, picture
from mcp import Client, StdioServerParameters

from retr import Index
from retr.index.errors import UsageError
from retr.retrieval.mcp.agents import REMARKS, Shown
from retr.retrieval.mcp.server import make_server

NAMES = ("Okonkwo", "MRN-4711", "1.2.3.", "secret-folder", "smith_john")
CLEAR = "clear"


def make_index(tmp_path, doctor="Okonkwo"):
    """Pictures whose paths, identifiers and notes name persons."""
    folder = tmp_path / "secret-folder" / "Okonkwo_Ada"
    folder.mkdir(parents=True)
    table = {"path": [], "label": [], "note": [], "mrn": []}
    for number in range(6):
        name = f"smith_john_{number}.dcm"
        (folder / name).write_bytes(dicom(f"MRN-4711-{number // 2}", number, frames=1 + number % 2))
        picture(number).save(folder / f"{number}.png")
        table["path"] += [f"Okonkwo_Ada/{name}", f"Okonkwo_Ada/{number}.png"]
        table["label"] += ["glaucoma", "healthy"]
        table["note"] += [f"seen by Dr. {doctor}", CLEAR]
        table["mrn"] += ["MRN-4711", "MRN-4712"]
    return Index.build(
        tmp_path / "secret-folder", tmp_path / "x", encoder=FakeEncoder(), metadata=table, group="patient"
    )


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same with another name in the notes."""
    return make_index(tmp_path_factory.mktemp("other"), "Adeyemi")


def asked(target, *calls, raising=()):
    """The answers of some calls, as text and as data."""

    async def ask():
        async with Client(target) as client:
            tools = await client.list_tools()
            answers = [await client.call_tool(name, arguments) for name, arguments in calls]
            return tools, answers

    tools, answers = asyncio.run(ask())
    return tools, [(one.is_error, one.structured_content, one.content[0].text) for one in answers]


def png(number: int) -> str:
    file = io.BytesIO()
    picture(number).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_an_agent_searches_and_nobody_is_named(index, tmp_path):
    shown = Shown(index, ["label", "note"])
    # what is asked comes back in no answer either
    (tools, answers) = asked(
        make_server(shown, "1"),
        ("info", {}),
        ("search", {"picture": png(3), "k": 12}),
        ("search", {"picture": png(3), "where": "label = 'healthy'", "k": 2}),
        ("classify", {"picture": png(3), "by": "label"}),
    )
    assert [tool.name for tool in tools.tools] == ["search", "classify", "info"]
    assert all(tool.annotations.read_only_hint for tool in tools.tools)
    assert not [said for error, _, said in answers if error]
    for _, data, text in answers:
        assert set(REMARKS) <= set(data["remarks"])
        assert not [name for name in NAMES if name in text or name in json.dumps(data)]
    _, found, narrowed, named = (data for _, data, _ in answers)
    assert found["hits"][0]["id"] and len(found["hits"]) == 12
    assert {hit["label"] for hit in narrowed["hits"]} == {"healthy"}
    assert {hit["note"] for hit in found["hits"]} == {None, "clear"}
    assert named["classes"] and "neighbours" not in named
    assert any("not calibrated" in remark for remark in named["remarks"])
    # a patient is a hash, which tells which hits are one's
    assert all(len(hit["patient"]) == 64 for hit in found["hits"] if hit.get("patient"))


def test_ids_lead_from_one_question_to_the_next(index):
    server = make_server(Shown(index, ["label"]), "1")
    _, [(_, found, _)] = asked(server, ("search", {"picture": png(3), "k": 15}))
    ids = [hit["id"] for hit in found["hits"]]
    assert len(ids) == len(set(ids)) == 14  # the picture itself is left out
    framed = next(id_ for id_ in ids if id_.endswith("#2"))
    _, [(_, like, _), (_, others, _)] = asked(
        server,
        ("search", {"like": framed, "k": 3}),
        ("search", {"like": framed, "k": 9, "other_patients": True}),
    )
    whose = next(hit["patient"] for hit in found["hits"] if hit["id"] == framed)
    assert framed not in [hit["id"] for hit in like["hits"]]
    assert whose not in [hit.get("patient") for hit in others["hits"]]


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("search", {"text": "x", "like": "y"}, "give exactly one"),
        ("search", {}, "give exactly one"),
        ("search", {"picture": "@@"}, "a picture is the base64"),
        ("search", {"picture": "/etc/passwd"}, "a picture is the base64|is not an image"),
        ("search", {"picture": base64.b64encode(b"no picture").decode()}, "is not an image"),
        ("search", {"like": "0" * 16}, "no row has the id"),
        ("search", {"like": "Okonkwo_Ada/1.png"}, "an id is 16 digits"),
        ("search", {"picture": png(1), "where": "mrn = 'MRN-4711'"}, "agents do not see a column 'mrn'"),
        ("search", {"picture": png(1), "where": "label = 'x' or not (path like 'Ok%')"}, "do not see a column 'path'"),
        ("search", {"picture": png(1), "where": "label in ('x', mrn)"}, "do not see|cannot|expected"),
        ("search", {"picture": png(1), "where": "label = mrn"}, "do not see|cannot|expected"),
        ("search", {"picture": png(1), "where": "label ="}, "."),
        ("search", {"text": "Okonkwo", "words_in": ["mrn"]}, "agents do not see a column 'mrn'"),
        ("search", {"text": "x", "words_in": ["label"], "picture": png(1), "like": "0" * 16}, "give exactly one"),
        ("search", {"picture": png(1), "words_in": ["label"]}, "there are no words to look for"),
        ("search", {"picture": png(1), "item": "mrn"}, "agents do not see cases by 'mrn'"),
        ("search", {"picture": png(1), "item": "eye-pair:mrn"}, "agents do not see cases by"),
        ("search", {"picture": png(1), "item": "declared"}, "does not say what a case is"),
        ("classify", {"picture": png(1), "by": "mrn"}, "agents do not see a column 'mrn'"),
        ("classify", {"picture": png(1)}, "give one of them"),
        ("classify", {"picture": png(1), "labels": ["a", "b"]}, "."),
    ],
)
def test_what_may_not_be_asked_is_refused_in_a_line(index, tool, arguments, said):
    _, [(error, _, text)] = asked(make_server(Shown(index, ["label"]), "1"), (tool, arguments))
    assert error and re.search(said, text), text
    assert "\n" not in text.strip() and "Traceback" not in text
    hidden = json.dumps(arguments)
    assert not [name for name in NAMES if name in text and name not in hidden]


def test_an_agent_asks_by_words_of_columns_and_for_cases(index):
    server = make_server(Shown(index, ["label", "note"]), "1")
    _, answers = asked(
        server,
        ("search", {"text": "clear or Okonkwo", "words_in": ["note"], "k": 20}),
        ("search", {"text": "clear", "picture": png(3), "words_in": ["note"], "fuse": 0.25, "k": 3}),
        ("search", {"picture": png(3), "item": "patient", "k": 3}),
        ("search", {"picture": png(3), "item": "label", "k": 3}),
    )
    assert not [said for error, _, said in answers if error]
    assert not [name for name in NAMES for _, data, text in answers if name in text or name in json.dumps(data)]
    words, fused, cases, _ = (data for _, data, _ in answers)
    # of a text that is withheld nobody is told where a word stands
    for hit, spans in zip(words["hits"], words["highlights"], strict=True):
        assert spans == ({"note": [[0, 5]]} if hit["note"] == "clear" else {})
    assert fused["weights"] == {"words": 0.75, "vectors": 0.25}
    # a case is its rank, and no patient's number
    assert cases["cases"] == ["case 1", "case 2", "case 3"]
    assert cases["parts"][0][0]["id"] == cases["hits"][0]["id"]
    assert all(re.fullmatch(r"[0-9a-f]{16}(#\d+)?", part["id"]) for parts in cases["parts"] for part in parts)


def test_an_agent_asks_with_a_region_and_is_told_where_hits_match(tmp_path):
    folder = tmp_path / "Okonkwo"
    folder.mkdir()
    for number in range(9):
        picture(number, (96, 80)).save(folder / f"smith_john_{number}.png")
    made = Index.build(folder, tmp_path / "x", encoder=FakeEncoder(), regions="grid", transform="none")
    shown = Shown(made)
    file = base64.b64encode((folder / "smith_john_3.png").read_bytes()).decode()
    part = {"region": [0.5, 0.5, 0.5, 0.5], "in_regions": True, "k": 8}
    _, [(_, found, _), (_, whole, _)] = asked(
        make_server(shown, "1"), ("search", {"picture": file, **part}), ("search", {"picture": file, "k": 8})
    )
    assert "region" not in whole["hits"][0]
    left, top, width, height = found["hits"][0]["region"]
    assert (width, height) == (48, 40) and 0 <= left <= 48 and 0 <= top <= 40
    assert found["hits"][0]["size"] == [96, 80]
    like = {"like": found["hits"][0]["id"], **part}
    _, answers = asked(
        make_server(shown, "1"),
        ("search", like),
        ("search", like | {"region": [48, 40, 48, 40]}),
        ("search", like | {"region": [90, 70, 48, 40]}),
        ("search", like | {"region": [1, 2, 3]}),
        ("search", {"text": "x", "region": [0, 0, 1, 1]}),
        ("search", {"picture": file, "region": [90, 70, 48, 40]}),
    )
    shares, pixels, *wrong = answers
    assert not shares[0] and shares[1]["hits"] == pixels[1]["hits"]
    shutil.rmtree(folder)
    _, gone = asked(make_server(shown, "1"), ("search", like))
    for error, _, text in [*wrong, *gone]:
        assert error and "\n" not in text.strip()
        assert not [name for name in NAMES if name in text]
    plain = Shown(make_index(tmp_path / "plain"))
    _, [(error, _, text)] = asked(make_server(plain, "1"), ("search", {"picture": png(1), "in_regions": True}))
    assert error and "no regions" in text


@pytest.mark.parametrize(
    "question",
    [
        {"text": "seen", "words_in": ["note"]},
        {"text": "Okonkwo", "words_in": ["note"]},
        {"text": "clear Okonkwo", "words_in": ["note"]},
        {"text": "no Okonkwo", "words_in": ["note"]},
        {"text": "Okonkwo", "words_in": ["label", "note"], "picture": png(3), "fuse": 0.5},
        {"picture": png(3), "where": "note like '%Okonkwo%'"},
        {"picture": png(3), "where": "note = 'seen by Dr. Okonkwo'"},
        {"picture": png(3), "where": "note in ('clear', 'seen by Dr. Okonkwo')"},
        {"picture": png(3), "where": "not (note like '%Okonkwo%')"},
        {"picture": png(3), "where": "note > 'clear'"},
        {"picture": png(3), "where": "label = 'glaucoma' or note between 's' and 't'"},
        {"picture": png(3), "where": "note = label"},
        {"picture": png(3), "where": "note is not null"},
        {"picture": png(3), "where": "note like '%Okonkwo%'", "item": "label"},
        {"text": "seen", "words_in": ["note"], "where": "label = 'glaucoma'"},
    ],
)
def test_whether_a_withheld_text_holds_a_word_is_not_found_out(index, other, question):
    answers = []
    for one in (index, other):
        server = make_server(Shown(one, ["label", "note"]), "1")
        _, [(error, data, text)] = asked(server, ("search", {"k": 20} | question))
        assert not error, text
        # the keys of two indexes differ
        answers.append([{**hit, "patient": None} for hit in data["hits"]] + [data["remarks"]])
    assert answers[0] == answers[1]
    assert all(hit["note"] == CLEAR for hit in answers[0][:-1])


def test_an_identifier_that_is_guessed_is_not_confirmed(index):
    server = make_server(Shown(index, ["label"]), "1")
    _, [(_, found, _)] = asked(server, ("search", {"picture": png(3), "k": 15}))
    whose = next(hit["patient"] for hit in found["hits"] if hit.get("patient"))
    conditions = ["patient = 'MRN-4711-1'", "patient in ('{}', 'MRN-4711-1')", "not (patient != 'nobody')"]
    _, answers = asked(
        server,
        *(("search", {"picture": png(3), "where": one.format(whose)}) for one in conditions),
        ("search", {"picture": png(3), "where": f"patient = '{whose}'"}),
    )
    *guessed, (error, mine, _) = answers
    assert all(refused and "hashes alone" in said for refused, _, said in guessed)
    assert not error
    assert {hit["patient"] for hit in mine["hits"]} == {whose}


def test_columns_that_identify_are_refused(index):
    for column in ("mrn", "path", "id", "folder", "sha256"):
        with pytest.raises(UsageError, match="identifies: no agent sees it"):
            Shown(index, [column])
    with pytest.raises(UsageError, match="no column 'nothing'"):
        Shown(index, ["nothing"])


def test_raw_identifiers_beside_hashes_are_left_out(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.dcm").write_bytes(dicom("P1", 1))
    picture(2).save(tmp_path / "a/2.png")
    labels = {"path": ["2.png"], "patient": ["Okonkwo"]}
    index = Index.build(tmp_path / "a", tmp_path / "x", encoder=FakeEncoder(), metadata=labels)
    assert "Okonkwo" in index.store.table(["patient"])["patient"].to_pylist()
    _, [(_, data, text)] = asked(make_server(Shown(index), "1"), ("search", {"picture": png(5)}))
    assert len(data["hits"]) == 2 and "Okonkwo" not in text


def test_pictures_of_a_shared_folder_and_no_others(index, tmp_path):
    (tmp_path / "shared").mkdir()
    picture(3).save(tmp_path / "shared/a.png")
    picture(3).save(tmp_path / "outside.png")
    (tmp_path / "shared/link.png").symlink_to(tmp_path / "outside.png")
    server = make_server(Shown(index, [], tmp_path / "shared"), "1")
    given = ("a.png", "../outside.png", "link.png", str(tmp_path / "outside.png"))
    _, answers = asked(server, *(("search", {"picture": name}) for name in given))
    assert [error for error, *_ in answers] == [False, True, True, True]


def test_the_command_answers_over_standard_input_and_output(index, tmp_path):
    strace = shutil.which("strace")
    command = [sys.executable, "-m", "retr", "mcp", "--index", str(index.path), "--columns", "label"]
    traced = [strace, "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(tmp_path / "trace"), *command]
    first, *rest = traced if strace else command
    target = StdioServerParameters(command=first, args=rest, env={"RETR_STATE_DIR": str(tmp_path / "state")})
    id_ = index.store.table(["sha256"])["sha256"][0].as_py()[:16]
    _, [(_, info, _), (error, found, text)] = asked(target, ("info", {}), ("search", {"like": id_, "k": 2}))
    assert (info["rows"], error, len(found["hits"])) == (15, False, 2)
    assert not [name for name in NAMES if name in text]
    if strace:
        assert "AF_INET" not in (tmp_path / "trace").read_text()
