"""Hooks of mkdocs: pages that lie outside ``docs/``, and links that lead there.

The Markdown files are read in the repository, too, so their links are the repository's. A link to a file that is a
page of the site becomes a link to that page; one to any other file of the repository becomes its address where the
repository is published. A link to a file that is not there stays as it is, and mkdocs refuses it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
#: Files of the repository that are pages of the site, by their place there.
OUTSIDE = {
    "reference/benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside ``docs/``."""
    from mkdocs.structure.files import File

    for place, path in OUTSIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the links of a page those of the site."""
    place = page.file.src_uri
    if place in OUTSIDE:
        # long lists, found after the pages that explain
        page.meta["search"] = {"boost": 0.1}
    return _LINK.sub(lambda link: site_link(link[1], place, config.extra["repository"]) + (link[2] or ""), markdown)


def site_link(link: str, place: str, repository: str) -> str:
    """Return what a link on the page at ``place`` is on the site; ``repository`` is where the code is published.

    >>> site_link("../../benchmarks/README.md", "howto/archives.md", "https://host/retr")
    '../reference/benchmarks.md'
    >>> site_link("../examples/search.py", "python.md", "https://host/retr")
    'https://host/retr/blob/main/examples/search.py'
    >>> site_link("docs/gpu.md", "contributing.md", "https://host/retr"), site_link("nowhere.md", "gpu.md", "")
    ('gpu.md', 'nowhere.md')
    """
    if re.match(r"[a-z]+:", link):
        return link
    path = posixpath.normpath(posixpath.join(posixpath.dirname(OUTSIDE.get(place, f"docs/{place}")), link))
    inside = {outside: at for at, outside in OUTSIDE.items()}
    if path in inside or path.startswith("docs/"):
        target = inside.get(path, path.removeprefix("docs/"))
        return posixpath.relpath(target, posixpath.dirname(place) or ".")
    if not (ROOT / path).exists():
        return link
    return f"{repository}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}"


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would load anything from elsewhere.

    >>> list(loaded_from_elsewhere('<script src="https://host/a.js"></script><a href="https://host"><img src="b.png">'))
    ['https://host/a.js']
    """
    from mkdocs.exceptions import PluginError

    if found := list(loaded_from_elsewhere(output)):
        raise PluginError(f"{page.file.src_uri} loads {', '.join(found)}: a reader may be without a network")
    return output


def loaded_from_elsewhere(output: str) -> Iterator[str]:
    """Yield the addresses on other machines that a page of HTML loads by itself."""
    for tag in re.finditer(r"<(?:script|link|img|iframe|source|video|audio)\b[^>]*>", output):
        yield from re.findall(r"""(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""", tag[0])
