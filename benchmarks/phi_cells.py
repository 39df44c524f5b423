"""A planted set: cells of metadata tables, each with its column's title and what a person would be told by it.

Nothing here comes from the lists that `retr.retrieval.audit.phi` uses, nor does that see anything of here. Names,
addresses and numbers are those of the library faker in many locales; terms are DICOM's coded concepts as pydicom
carries them; drugs, devices, eponyms, terms in other languages and the forms of names stand in ``phi_cells.txt``. The
set has two halves, ``development`` and ``test``: a name, a term, a title and a written form stands in one of them alone
(where a list is so short that a half would have none, in both), so that rules fitted to the one are measured by the
other.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from faker import Faker

Half = Literal["development", "test"]
HALVES: tuple[Half, Half] = ("development", "test")


@dataclass(frozen=True)
class Cell:
    """One cell: ``kind`` is what it tells of a person, None where it tells nothing; ``group`` what it was made of."""

    title: str
    value: str
    kind: str | None
    group: str


_SCRIPTS = ("han", "japanese", "hangul", "cyrillic", "other script")
# Of faker's providers those that are asked, and those that they ask: to load all of each locale takes most of the time.
_PROVIDERS = [
    f"faker.providers.{name}"
    for name in ["address", "company", "date_time", "internet", "person", "phone_number", "ssn"]
]
_PARTS = Path(__file__).with_name("phi_cells.txt")
_STRANGER = Path(__file__).with_name("phi_stranger.tsv")


@cache
def _parts() -> Mapping[str, list[str]]:
    """Read the sections of ``phi_cells.txt``."""
    sections: dict[str, list[str]] = {}
    for line in _PARTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            entries = sections.setdefault(line[1:-1], [])
        elif line and not line.startswith("#"):
            entries.append(line)
    return sections


class _Maker:
    """Draws the cells of one half."""

    def __init__(self, half: Half, seed: int) -> None:
        from faker import Faker

        self._half = half
        self._random = random.Random(f"{seed} {half}")  # noqa: S311  it draws test cells
        self._fakers: dict[str, Faker] = {}
        self._make = Faker

    def faker(self, locale: str) -> Faker:
        if locale not in self._fakers:
            self._fakers[locale] = self._make(locale, providers=_PROVIDERS)
            self._fakers[locale].seed_instance(self._random.randrange(1 << 30))
        return self._fakers[locale]

    def mine(self, options: Sequence[str]) -> str:
        """Choose among those of the options that belong to this half."""
        return self._random.choice([option for option in options if self._belongs(option)] or list(options))

    def _belongs(self, text: str) -> bool:
        return hashlib.md5(text.encode(), usedforsecurity=False).digest()[0] % 2 == HALVES.index(self._half)

    def draw(self, make: Callable[[], str]) -> str:
        """Call until what comes belongs to this half; of few possibilities the last."""
        text = make()
        for _ in range(40):
            if self._belongs(text):
                return text
            text = make()
        return text

    def number(self, digits: int) -> str:
        return str(self._random.randrange(10 ** (digits - 1), 10**digits))

    # what tells of a person

    def latin_name(self) -> tuple[str, str]:
        """Return a value and where it stands: in a note, in a path, or alone."""
        faker = self.faker(self._random.choice(_parts()["locales latin"]))
        first, last = self.draw(faker.first_name), self.draw(faker.last_name)
        place = self._random.choice(["alone", "alone", "note", "path"])
        form = self.mine(_parts()[f"forms {place}"])
        words = {
            "first": first,
            "last": last,
            "FIRST": first.upper(),
            "LAST": last.upper(),
            "f": first.lower(),
            "l": last.lower(),
        }
        return form.format(I=self._random.choice("ABCDEGHJKLMPRST"), **words), place

    def other_name(self, script: str) -> tuple[str, str]:
        faker = self.faker(self._random.choice(_parts()[f"locales {script}"]))
        whole = self.draw(faker.name)
        form = self.mine(_parts()[f"forms {script}"])
        return form.format(w=whole), "alone" if form == "{w}" else "note"

    def name(self, script: str) -> Cell:
        value, place = self.latin_name() if script == "latin" else self.other_name(script)
        telling = place == "alone" and self._random.random() < 0.4
        title = (
            self.mine(_parts()["titles name"])
            if telling
            else {"path": "path"}.get(place) or self.mine(_parts()["titles any"])
        )
        return Cell(title, value, "name", f"name, {script}")

    def date(self) -> Cell:
        day = self.faker("en_US").date_between(start_date="-80y")
        text = day.strftime(self.mine(_parts()["forms date"]))
        wrap = self.mine(_parts()["forms around a date"])
        title = (
            self.mine(_parts()["titles date"])
            if wrap == "{d}" and self._random.random() < 0.4
            else self.mine(_parts()["titles any"])
        )
        return Cell(title, wrap.format(d=text), "date", "date")

    def ssn(self) -> Cell:
        text = self.faker("en_US").ssn()
        bare = self._random.random() < 0.25
        value = (
            text.replace("-", "")
            if bare
            else self.mine(["{s}", "{s}", "SSN {s}", "soc sec {s} on file"]).format(s=text)
        )
        return Cell("ssn" if bare else self.mine(_parts()["titles any"]), value, "ssn", "ssn")

    def phone(self) -> Cell:
        locale = self.mine(
            ["en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "ja_JP", "pt_BR", "sv_SE", "en_AU"]
        )
        text = self.faker(locale).phone_number()
        value = self.mine(["{p}", "{p}", "call {p}", "Tel. {p}", "mobile: {p}", "phone {p} (wife)"]).format(p=text)
        return Cell(self.mine(["phone", "telefon", "mobile", *_parts()["titles any"]]), value, "phone", "phone")

    def record_number(self) -> Cell:
        digits = self.number(self._random.randint(5, 9))
        if self._random.random() < 0.5:
            value = self.mine(["{n}", "{n}", "P{n}", "{n}-A", "H{n}"]).format(n=digits)
            return Cell(self.mine(_parts()["titles number"]), value, "number", "record number")
        forms = [
            "MRN: {n}",
            "MRN {n}",
            "mrn#{n}",
            "Pat.-Nr. {n}",
            "patient id {n}",
            "hospital no {n}",
            "MRN{n}_OD.png",
            "chart #{n}",
            "病历号 {n}",
        ]
        return Cell(self.mine(_parts()["titles any"]), self.mine(forms).format(n=digits), "number", "record number")

    def nhs(self) -> Cell:
        while True:
            digits = self.number(9)
            check = 11 - sum(int(d) * w for d, w in zip(digits, range(10, 1, -1), strict=True)) % 11
            if check != 10:
                break
        whole = digits + str(check % 11)
        value = self.mine(["{a} {b} {c}", "NHS {a} {b} {c}", "NHS No: {a}{b}{c}", "{a}-{b}-{c}"])
        return Cell(
            self.mine(_parts()["titles any"]),
            value.format(a=whole[:3], b=whole[3:6], c=whole[6:]),
            "number",
            "nhs number",
        )

    def email(self) -> Cell:
        value = self.mine(["{e}", "{e}", "contact {e}", "<{e}>", "mail:{e};"]).format(e=self.faker("en_US").email())
        return Cell(self.mine(_parts()["titles any"]), value, "e-mail", "e-mail")

    def uid(self) -> Cell:
        root = self.mine(["1.2.840.113619.2.55.3", "1.3.6.1.4.1.14519.5.2.1", "2.25", "1.2.276.0.7230010.3.1.2"])
        tail = self.number(38) if root == "2.25" else f"{self.number(9)}.{self.number(3)}.{self.number(10)}"
        return Cell(
            self.mine(_parts()["titles any"]),
            self.mine(["{u}", "{u}", "{u}.dcm", "study/{u}/1"]).format(u=f"{root}.{tail}"),
            "uid",
            "uid",
        )

    def address(self) -> Cell:
        locale = self.mine(
            ["en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "pt_BR", "sv_SE", "en_CA", "de_AT"]
        )
        text = self.faker(locale).address() if self._random.random() < 0.5 else self.faker(locale).street_address()
        value = self.mine(["{a}", "{a}", "lives at {a}", "Adr.: {a}"]).format(a=text.replace("\n", ", "))
        return Cell(
            self.mine(["address", "Anschrift", "domicilio", *_parts()["titles any"]]), value, "address", "address"
        )

    def folder(self) -> Cell:
        user = self.draw(self.faker("en_US").user_name)
        form = self.mine(
            [r"C:\Users\{u}\oct\a.png", "/home/{u}/data/b.png", "/Users/{u}/Desktop/c.tif", r"\\srv01\{u}\d.dcm"]
        )
        return Cell(self.mine(_parts()["titles any"]), form.format(u=user), "absolute path", "absolute path")

    # what does not

    def innocent(self, group: str) -> Cell:
        if group == "concept":
            value = self._random.choice(self._concepts)
        elif group == "hash":
            value = self._random.randbytes(self._random.choice([8, 16, 20, 32])).hex()
        elif group == "counter":
            value = self.mine(
                ["{n:04d}", "{n}", "img{n:05d}", "case-{n:03d}", "sub-{n:02d}_ses-1", "E{n:03d}", "SN{n}"]
            ).format(n=self._random.randrange(1, 9999))
        else:
            value = self.mine(_parts()[group])
        title = {"hash": "patient_id", "counter": "subject"}.get(group, "x") if self._random.random() < 0.3 else None
        if title in {None, "x"}:
            title = self.mine(_parts()["titles innocent" if title == "x" else "titles any"])
        assert title is not None
        return Cell("path" if group == "file" else title, value, None, f"innocent, {group}")

    @cached_property
    def _concepts(self) -> list[str]:
        from pydicom.sr._concepts_dict import concepts  # type: ignore[import-not-found,unused-ignore]

        names = {entry[0] for scheme in ("DCM", "SCT") for uses in concepts[scheme].values() for entry in uses.values()}
        return sorted(filter(self._belongs, names))


def cells(half: Half, count: int, seed: int = 0) -> list[Cell]:
    """Make one half of the planted set: four tenths of it tell of a person.

    Parameters
    ----------
    half
        ``"development"`` or ``"test"``.
    count
        How many cells.
    seed
        Of all that is drawn.
    """
    maker = _Maker(half, seed)
    telling: list[tuple[int, Callable[[], Cell]]] = [
        (10, lambda: maker.name("latin")),
        *((2, lambda script=script: maker.name(script)) for script in _SCRIPTS),
        (5, maker.date),
        (2, maker.ssn),
        (4, maker.phone),
        (4, maker.record_number),
        (1, maker.nhs),
        (2, maker.email),
        (2, maker.uid),
        (3, maker.address),
        (1, maker.folder),
    ]
    groups = {
        "drug": 3, "device": 4, "eponym": 5, "code": 2, "short": 4, "quantity": 4, "file": 4, "sentence": 4,
        "other language": 5, "concept": 6, "hash": 2, "counter": 3,
    }  # fmt: skip
    innocent: list[tuple[int, Callable[[], Cell]]] = [
        (weight, lambda group=group: maker.innocent(group))  # type: ignore[misc]
        for group, weight in groups.items()
    ]
    chooser = random.Random(f"{seed} {half} kinds")  # noqa: S311  it draws test cells
    made = []
    for number in range(count):
        options = telling if number % 5 < 2 else innocent
        weights, makers = zip(*options, strict=True)
        made.append(chooser.choices(makers, weights)[0]())
    return made


def stranger() -> list[Cell]:
    """Read the set that was written by hand without knowledge of the rules; no rule was fitted to it."""
    lines = [line for line in _STRANGER.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    read = [line.split("\t") for line in lines]
    return [
        Cell(title, value, None, f"innocent, {group}") if kind == "-" else Cell(title, value, kind, group)
        for kind, group, title, value in read
    ]
