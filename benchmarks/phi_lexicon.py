"""Write the lists that the search for names reads.

Run: ``python -m retr.benchmarks.phi_lexicon CENSUS BIRTHS NAMES JAPANESE ICD WORDS``

CENSUS is the folder of the US Census of 1990 (``dist.all.last``, ``dist.male.first``, ``dist.female.first``; public
domain; the package ``names`` carries it). BIRTHS is the folder of ``yob1880.txt`` and so on of the US Social Security
Administration (public domain; hackerb9/ssa-baby-names carries it under ``raw-data``). NAMES is the folder of
``common-forenames-by-country.csv`` and ``common-surnames-by-country.csv`` (CC0;
sigpwned/popular-names-by-country-dataset). JAPANESE is the folder ``dataset`` of the package
``japanese-personal-name-dataset`` (MIT). ICD is the tabular list of ICD-10-CM in XML (public domain; the package
``simple-icd-10-cm`` carries it), WORDS a word list made from SCOWL (free; Debian's ``wamerican``).

``lexicon.txt`` holds names, and those ordinary words that look like names. ``letters.txt`` says how they look: a
logistic regression over pieces of 2 to 4 letters, fitted to tell names from words, so that a name in no list is known
by its form.
"""

from __future__ import annotations

import argparse
import csv
import re
import textwrap
from collections import Counter
from pathlib import Path

from retr.retrieval.audit.phi import lexicon
from retr.retrieval.audit.phi.lexicon import FOLDER, fold

SURNAMES = 25_000
# A given name counts from so many births in one year, and is a common one from so many.
BIRTHS, COMMON = 20, 300
JAPANESE_SURNAMES = 1000


def latin(texts: list[str]) -> list[str]:
    """Keep words of three or more plain letters, folded, in order, each once."""
    return [text for text in dict.fromkeys(map(fold, texts)) if re.fullmatch("[a-z]{3,}", text)]


def census(folder: Path, file: str) -> list[str]:
    """Read one list, the most frequent names first."""
    return [line.split()[0] for line in (folder / file).read_text(encoding="ascii").splitlines()]


def born(folder: Path) -> Counter[str]:
    """Count for each given name the births of its best year."""
    best: Counter[str] = Counter()
    for file in sorted(folder.glob("yob*.txt")):
        for line in file.read_text(encoding="ascii").split():
            name, _, births = line.split(",")
            best[name] = max(best[name], int(births))
    return best


def by_country(file: Path) -> list[str]:
    """Read the names of one file in their own script and in Latin letters."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [row[key] for row in rows for key in ("Localized Name", "Romanized Name") if row[key]]
    return [part for name in names for part in re.split(r"[\s/,()]+", name) if part]


def words(icd: Path, dictionary: Path) -> set[str]:
    """Read ordinary and medical words: what is written without a capital."""
    text = re.sub("<[^>]+>", " ", icd.read_text(encoding="utf-8"))
    medical = re.findall(r"(?<![A-Za-z'-])[a-z]{4,}(?![A-Za-z'-])", text)
    ordinary = re.findall(r"(?m)^[a-z]{3,}$", dictionary.read_text(encoding="utf-8"))
    return set(medical) | set(ordinary)


def fit(names: list[str], frequent: set[str], ordinary: set[str]) -> dict[str, int]:
    """Fit the weights of pieces of words, in hundredths; the constant under the empty piece."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    negative = sorted(ordinary)
    texts = [f"^{word}$" for word in [*names, *negative]]
    weights = [4.0 if name in frequent else 1.0 for name in names] + [1.0] * len(negative)
    pieces = CountVectorizer(analyzer="char", ngram_range=(2, 4), min_df=40, binary=True)
    model = LogisticRegression(C=0.2, solver="liblinear", l1_ratio=1, tol=1e-3)
    is_name = np.arange(len(texts)) < len(names)
    model.fit(pieces.fit_transform(texts), is_name, sample_weight=np.array(weights))
    found = zip(pieces.get_feature_names_out(), model.coef_[0], strict=True)
    rounded = {"": round(100 * float(model.intercept_[0])), **{piece: round(100 * float(w)) for piece, w in found}}
    return {piece: weight for piece, weight in rounded.items() if weight}


def main() -> None:
    """Read the sources and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("census", "births", "names", "japanese", "icd", "words"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--keep-letters", action="store_true", help="write the lists alone: the fit takes minutes")
    options = parser.parse_args()
    everyday = words(options.icd, options.words) - lexicon.lists()["rather names"]
    foreign_given = by_country(options.names / "common-forenames-by-country.csv")
    foreign_last = by_country(options.names / "common-surnames-by-country.csv")
    births = born(options.births)
    listed = [*census(options.census, "dist.male.first"), *census(options.census, "dist.female.first"), *foreign_given]
    given = latin([*listed, *(name for name, count in births.items() if count >= COMMON)])
    rare = [name for name in latin([name for name, count in births.items() if count >= BIRTHS]) if name not in {*given}]
    surnames = latin(census(options.census, "dist.all.last"))
    last = list(dict.fromkeys([*latin(foreign_last), *surnames[:SURNAMES]]))
    if options.keep_letters:
        letters = lexicon.letters()
    else:
        every = dict.fromkeys([*given, *rare, *last, *surnames, *latin(list(births))])
        letters = fit(
            [name for name in every if name not in everyday], {*given, *rare, *last[:5000]} - everyday, everyday
        )
    named = {*given, *rare, *last}
    alike = [word for word in everyday if lexicon.looks(word, letters) > lexicon.WORD or word in named]
    japanese = [
        line.split(",")[0] for line in (options.japanese / "last_name_org.csv").read_text(encoding="utf-8").splitlines()
    ]
    written = Counter(
        sign
        for file in ("first_name_man_opti.csv", "first_name_woman_opti.csv")
        for line in (options.japanese / file).read_text(encoding="utf-8").splitlines()
        for name in line.split(",")[2:]
        for sign in name
    )
    sections = {
        "given": sorted(given),
        "rare given": sorted(rare),
        "surnames": sorted(last),
        "words": sorted(alike),
        "other given": sorted(
            {fold(name) for name in foreign_given if not re.search("[A-Za-z]", name) and len(name) > 1}
        ),
        "other surnames": sorted({fold(name) for name in foreign_last if not re.search("[A-Za-z]", name)}),
        "japanese surnames": sorted(japanese[:JAPANESE_SURNAMES]),
        "japanese given": sorted(sign for sign, count in written.items() if count >= 12),
    }
    text = "\n".join(
        f"[{name}]\n" + textwrap.fill(" ".join(entries), 119, break_on_hyphens=False, break_long_words=False)
        for name, entries in sections.items()
    )
    head = "# Written by benchmarks/phi_lexicon.py, which names the sources and their licences.\n"
    (FOLDER / "lexicon.txt").write_text(f"{head}{text}\n", encoding="utf-8")
    shown = " ".join(f"{piece}:{weight}" for piece, weight in sorted(letters.items()))
    (FOLDER / "letters.txt").write_text(
        f"{head}{textwrap.fill(shown, 119, break_on_hyphens=False)}\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
