"""The documentation: its links, its figures, and what is handed to a package index."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

import retr

ROOT = Path(__file__).parents[2]
PUBLISHED = re.compile(
    r"https://(?:github\.com/retr/retr/(?:blob|tree)|raw\.githubusercontent\.com/retr/retr)/main/(\S+)"
)


def links(text: str) -> list[str]:
    """Return where the links and pictures of a page lead."""
    inline = [child for token in MarkdownIt().parse(text) for child in token.children or ()]
    return [str(one.attrs.get("href") or one.attrs.get("src")) for one in inline if one.type in {"link_open", "image"}]


def site_links():
    spec = importlib.util.spec_from_file_location("site_links", ROOT / "docs/_site/links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_reads_the_same_on_a_package_index():
    found = links((ROOT / "README.md").read_text())
    ours = [hit[1].partition("#")[0] for link in found if (hit := PUBLISHED.fullmatch(link))]
    assert len(ours) == len(found) > 20
    assert [path for path in ours if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", *(ROOT / "docs").rglob("*.md")], ids=str)
def test_links_within_the_repository_lead_somewhere(page):
    path = ROOT / page
    inside = [link.partition("#")[0] for link in links(path.read_text()) if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in inside if not (path.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("link", "place", "expected"),
    [
        ("../../benchmarks/README.md", "howto/archives.md", "../reference/benchmarks.md"),
        ("../examples/search.py", "python.md", "https://host/blob/main/examples/search.py"),
        ("../../examples", "tutorials/index.md", "https://host/tree/main/examples"),
        ("docs/gpu.md", "contributing.md", "gpu.md"),
        ("howto/page.md", "gallery.md", "howto/page.md"),
        ("../gone.md", "howto/page.md", "../gone.md"),
        ("../gone.py", "gpu.md", "../gone.py"),
        ("https://elsewhere", "gpu.md", "https://elsewhere"),
    ],
)
def test_a_link_of_the_repository_is_one_of_the_site(link, place, expected):
    assert site_links().site_link(link, place, "https://host") == expected


@pytest.mark.parametrize("tag", ['<script src="{}">', "<link rel=stylesheet href={}>", "<img alt='' src='{}'>"])
@pytest.mark.parametrize("address", ["https://host/a.js", "//host/a.js", "http://host/a.js"])
def test_a_page_that_loads_from_elsewhere_is_noticed(tag, address):
    found = site_links().loaded_from_elsewhere
    assert list(found(f"<p>{tag.format(address)}</p>")) == [address]
    assert list(found(f"<a href='{address}'>{tag.format('../a.js')}</a>")) == []


def test_the_site_has_every_page():
    class Loader(yaml.SafeLoader):
        pass

    def flat(entry):
        parts = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
        return [entry] if isinstance(entry, str) else [page for part in parts for page in flat(part)]

    named = flat(yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"])
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(pages | set(site_links().OUTSIDE)) == sorted(named)


def figures(name: str) -> dict[str, object]:
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())["figures"]


def test_the_figures_of_the_model_card_are_those_recorded():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs/model-card-lite.md").read_text().splitlines()
        if line.startswith("|")
    ]
    by_file: dict[str, list[list[str]]] = {}
    for row in rows:
        if (hit := re.fullmatch(r"`(\w+)`", row[-1])) is not None:
            by_file.setdefault(hit[1], []).append(row[:-1])
    compared = 0
    for name, found in by_file.items():
        if name.startswith("neighbours_"):
            recorded = figures(name)
            keys = (
                "whitened: precision_at_1",
                "whitened: any_hit_at_5",
                "new patients, whitened on those they ask: precision_at_1",
            )
            [(pictures, classes, *shown)] = found
            assert f"({recorded['images']:,})" in pictures and classes == str(recorded["classes"])
            assert shown == [f"{recorded[key]:.3f}" for key in keys]
            compared += 1
    few, suspects = figures("few_shot_odir5k"), figures("suspects_odir5k")
    probes = [str(few[f"searched, probe, {shots} of each class"]).split()[0] for shots in (1, 4, 16)]
    assert by_file["few_shot_odir5k"][0][1] == ", ".join(probes)
    precision = [
        suspects[f"class, 5%, {way}"]["average precision"].split()[0] for way in ("retr index suspects", "vote of 5")
    ]
    assert by_file["suspects_odir5k"][0][1] == ", ".join(precision)
    other = figures("novelty")["another camera"]["camera not in the archive"]
    kinds = ("own kind", "other camera", "cxr_hannover243")
    assert [row[1] for row in by_file["novelty"]] == [f"{other[kind]['called']:.3f}" for kind in kinds]
    assert compared == 4 and set(by_file) > {"few_shot_odir5k", "suspects_odir5k", "novelty"}


def test_the_figures_of_what_is_written_by_hand_are_those_recorded():
    page = (ROOT / "docs/by-hand.md").read_text()
    speed = figures("exact_400000x512")["queries/s, times plain faiss"]["float32, without torch, 1 thread"]
    bm25 = figures("words")["rank_bm25: largest difference of a score, with Lucene's inverse frequencies"]
    differ = max(figures("metrics_agree")["largest_difference"].values())
    for shown in (
        f"{speed['batch 1']} one by one, {speed['batch 16']} in batches of 16 (`exact_400000x512`)",
        f"{figures('filters_duckdb')['answered differently']} answered differently (`filters_duckdb`)",
        f"{bm25} (`words`)",
        f"{figures('phi')['test']['recall']:.3f}, and was right in {figures('phi')['test']['precision']:.3f}",
        f"{differ:.1e} (`metrics_agree`)",
    ):
        assert shown in page


def test_every_module_that_is_said_to_be_by_hand_is_there():
    page = (ROOT / "docs/by-hand.md").read_text()
    paths = re.findall(r"`((?:index|retrieval|serve|cli|tests|docs)/[\w./]+)`", page)
    assert len(paths) > 25
    assert [path for path in paths if not ((ROOT / path).exists() or (ROOT / f"{path}.py").exists())] == []


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", retr.__version__)
    assert {"message", "title", "authors", "license"} <= set(citation)


def test_a_wheel_holds_the_page_and_no_results():
    from hatchling.builders.wheel import WheelBuilder

    names = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {"retr/index/store.py", "retr/serve/page/index.html", "retr/retrieval/labels/odir.yaml"} <= names
    assert [name for name in names if "benchmarks/results" in name or name.endswith(".md")] == []
