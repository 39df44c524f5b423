"""The reader agrees with pydicom's own pipeline over a sample of the generated family; the whole of it is
`python -m retr.benchmarks.dicom_family`."""

import sys

import pytest

pytest.importorskip("pydicom")
pytest.importorskip("gdcm")

from retr.benchmarks import dicom_family
from retr.benchmarks.dicom_kinds import KINDS
from retr.benchmarks.dicom_syntaxes import SYNTAXES
from retr.benchmarks.dicom_variants import DISPLAYS, FAULTS

STEP = 41


def test_every_sampled_member_agrees_in_every_pixel(capfd):
    figures = dicom_family.run(STEP)
    capfd.readouterr()  # GDCM writes to the terminal
    sys.stdout.write(f"{figures['combinations']} combinations, {figures['equal']} equal\n")
    assert figures["not equal"] == []
    assert figures["equal"] == figures["combinations"] >= 700


def test_the_family_names_every_part():
    parts = list(zip(*dicom_family.members(), strict=True))
    for named, table in zip(parts, (KINDS, DISPLAYS, FAULTS, SYNTAXES), strict=True):
        assert set(named) == set(table)


@pytest.mark.parametrize(
    "member",
    [
        ("grey 12 in 16 signed, monochrome1", "padding range", "padding written unsigned", "big endian"),
        ("grey 12 in 16, monochrome2", "window linear", "overlay above the stored bits", "jpeg-ls"),
        ("rgb", "none", "planar on a codestream", "jpeg baseline, ybr"),
        ("palette 8 signed", "none", "palette written unsigned", "implicit"),
    ],
)
def test_a_fault_that_is_not_mended_is_noticed(member, monkeypatch):
    assert dicom_family.compare(*member) == "equal"
    other = dicom_family.shown

    def wrong(*arguments: object) -> object:
        return [(low + 1, high + 1) for low, high in other(*arguments)]

    monkeypatch.setattr(dicom_family, "shown", wrong)
    assert dicom_family.compare(*member).startswith("differs by")
