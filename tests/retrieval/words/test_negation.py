"""Which words of a report are denied, sentence by sentence, and which are not for all that they look so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr.retrieval.words.analysis import DENIED, terms


def denied(text):
    return {term.text[1:] for term in terms(text) if term.text.startswith(DENIED)}


def found(text):
    return {term.text for term in terms(text) if not term.text.startswith(DENIED)}


@pytest.mark.parametrize(
    ("text", "denies", "finds"),
    [
        ("No pleural effusion.", {"pleural", "effusion"}, set()),
        ("There is no evidence of pneumothorax", {"pneumothorax"}, set()),
        ("no pleural\neffusion", {"pleural", "effusion"}, set()),
        ("No effusion. Large mass.", {"effusion"}, {"large", "mass"}),
        ("No effusion; mass seen", {"effusion"}, {"mass"}),
        ("No effusion\n\nMass", {"effusion"}, {"mass"}),
        (
            "No focal consolidation, pleural effusion, or pneumothorax",
            {"consolidation", "effusion", "pneumothorax"},
            set(),
        ),
        ("no effusion but cardiomegaly", {"effusion"}, {"cardiomegaly"}),
        ("no pneumonia with stable cardiomegaly", {"pneumonia"}, {"stable", "cardiomegaly"}),
        ("No effusion is seen and the heart is large", {"effusion"}, {"heart", "large"}),
        ("cardiomegaly without effusion", {"effusion"}, {"cardiomegaly"}),
        ("Negative for fracture", {"fracture"}, set()),
        ("The patient denies chest pain", {"chest", "pain"}, {"patient"}),
        ("Effusion is not seen.", {"effusion"}, set()),
        ("Small mass, effusion ruled out", {"effusion"}, {"small", "mass"}),
        ("Pneumothorax: none. Nodule: present.", {"pneumothorax"}, {"nodule", "present"}),
        ("Mass present. Effusion absent", {"effusion"}, {"mass", "present"}),
        ("Neither effusion nor mass", {"effusion", "mass"}, set()),
        ("Lungs are clear of infiltrates", {"infiltrate"}, {"lung"}),
        ("NO EFFUSION", {"effusion"}, set()),
        ("The patient does not have an effusion", {"effusion"}, {"patient"}),
        ("CT does not show effusion", {"effusion"}, {"ct"}),
        ("This doesn't demonstrate effusion", {"effusion"}, set()),
        ("There isn't any effusion", {"effusion"}, set()),
        ("he never had effusion. Mass", {"effusion"}, {"mass"}),
        ("Effusion: no, nodule: yes", {"effusion"}, {"nodule", "yes"}),
        ("Nodule: yes\nEffusion: no", {"effusion"}, {"nodule", "yes"}),
        ("Effusion: no nodule", {"nodule"}, {"effusion"}),
        ("The effusion is not visible", {"effusion"}, set()),
        ("Effusion no longer visible", {"effusion"}, set()),
        ("Nothing to suggest effusion", {"effusion"}, set()),
        ("No pneumothorax\nEffusion on the left", {"pneumothorax"}, {"effusion", "left"}),
        ("- no pneumothorax\n- effusion", {"pneumothorax"}, {"effusion"}),
    ],
)
def test_what_a_report_denies_is_told_from_what_it_finds(text, denies, finds):
    assert denies <= denied(text)
    assert finds <= found(text)
    assert not denied(text) & finds
    assert not found(text) & denies


@pytest.mark.parametrize(
    "text",
    [
        "No change in the effusion",
        "No significant interval change of effusion",
        "Effusion cannot be excluded",
        "effusion is not ruled out",
        "not only effusion",
        "effusion, gram negative rods",
        "Free effusion",
        "Nodule no. 3, effusion",
        "nothing new: effusion",
        "not without effusion",
        "no absence of effusion",
        "The effusion is not absent",
        "not free of effusion",
        "not negative for effusion",
        "effusion can't be excluded",
        "No progression of the effusion",
        "No further increase of effusion",
    ],
)
def test_phrases_that_look_like_a_denial_deny_nothing(text):
    assert "effusion" in found(text)
    assert "effusion" not in denied(text)


@given(st.text(st.sampled_from("no effusion, but. not seen;\n É\u0301ß1_'"), max_size=60))
def test_terms_stand_in_the_text_in_order_and_outside_each_other(text):
    last = 0
    for term in terms(text):
        assert last <= term.start < term.stop <= len(text)
        last = term.stop
        assert "\n" not in term.text


def test_accents_and_case_do_not_part_a_word():
    assert [term.text for term in terms("Œdème STRASSE straße ede\u0301me")] == ["œdème", "strasse", "strasse", "edéme"]
