"""The project is laid out as docs/architecture.md says: one import package over its folders, without import circles."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import retr
from retr import index

ROOT = Path(__file__).parents[1]
FOLDERS = ("retrieval", "index", "cli", "serve", "benchmarks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_checkout_links_every_folder_into_the_package(folder):
    link = ROOT / "src/retr" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_wheel_maps_every_folder_into_the_package(folder):
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert folder in wheel["only-include"]
    assert wheel["sources"][folder] == f"retr/{folder}"


def test_what_is_built_holds_every_module_beside_the_folders():
    modules = {f"src/retr/{path.name}" for path in (ROOT / "src/retr").iterdir() if path.is_file()}
    modules -= {"src/retr/conftest.py"}
    for target in ("wheel", "sdist"):
        assert modules <= set(PROJECT["tool"]["hatch"]["build"]["targets"][target]["only-include"])


def test_the_package_has_one_version():
    assert PROJECT["project"]["version"] == retr.__version__


def test_public_names_are_sorted_and_importable():
    assert retr.__all__ == sorted(retr.__all__)
    for name in retr.__all__:
        assert getattr(retr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        retr.nothing  # noqa: B018


def test_nothing_is_imported_twice():
    """A module reached through a link and through its folder would exist twice, with two sets of classes."""
    code = """
import os, sys, retr, retr.cli.main
retr.Index, retr.load_encoder
files = {}
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if file and name.split(".")[0] in {"retr", "index", "retrieval", "cli", "serve", "benchmarks"}:
        files.setdefault(os.path.realpath(file), []).append(name)
print([names for names in files.values() if len(names) > 1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_checkout_whose_links_became_files_imports_all_the_same(tmp_path):
    package = tmp_path / "src/retr"
    package.mkdir(parents=True)
    for path in (ROOT / "src/retr").iterdir():
        if path.suffix == ".py":
            (package / path.name).write_bytes(path.read_bytes())
    for folder in FOLDERS:
        (package / folder).write_text(f"../../{folder}", encoding="utf-8")
        (tmp_path / folder).symlink_to(ROOT / folder)
    code = "import retr.cli.main, retr.index.errors; print(retr.index.errors.__file__, retr.RetrError.__name__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path!r}; {code}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "index/errors.py"), "RetrError"]


def test_modules_stay_one_idea_long():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert long == {}


def imported(node: ast.AST, modules: set[str]) -> set[str]:
    """Return which of some modules are imported below a node of a syntax tree, but for annotations alone."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & modules
    if isinstance(node, ast.ImportFrom):
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        return (names | {str(node.module)} if names - modules else names) & modules
    only_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    below = node.orelse if only_types else ast.iter_child_nodes(node)
    return set().union(*(imported(child, modules) for child in below))


def circle(sources: dict[str, str]) -> list[str]:
    """Return the modules of an import circle among some sources; empty where there is none."""
    modules = set(sources)
    try:
        TopologicalSorter({name: imported(ast.parse(text), modules) for name, text in sources.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("import p.b", "import p.a", True),
        ("from p import b", "def f():\n    from p.a import x", True),
        ("def f():\n    from p import b", "class C:\n    def f(self):\n        from p import a", True),
        ("import p.b", "if TYPE_CHECKING:\n    import p.a\nelse:\n    from p import a", True),
        ("import p.b", "if typing.TYPE_CHECKING:\n    import p.a", False),
        ("import p.b", "from p import x", False),
        ("import p.b", "from q import a", False),
    ],
)
def test_a_circle_is_seen_wherever_the_import_stands(first, second, expected):
    assert bool(circle({"p": "", "p.a": first, "p.b": second})) is expected
    assert circle({"p": "from p import a", "p.a": "from p import x"}) != []


def test_no_module_imports_itself_by_way_of_others():
    sources = {}
    package = ROOT / "src/retr"
    for folder in (package, *(package / name for name in FOLDERS)):
        for path in folder.rglob("*.py"):
            name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
            sources[name.removesuffix(".__init__")] = path.read_text()
    assert {"retr", "retr.encoders", "retr.index.disk.files", "retr.cli.main"} <= set(sources)
    assert circle(sources) == []


def test_no_package_imports_its_own_modules():
    """Else two threads, of which one begins with the package and one with a module of it, get half of a module."""
    modules = {path: path.read_text() for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")}
    own = {path: ".".join(("retr", *path.relative_to(ROOT).parent.parts)) for path in modules}
    within = {f"{own[path]}.{other.stem}": path for path in modules for other in path.parent.glob("*.py")}
    found = [
        path
        for path, text in modules.items()
        for name in imported(ast.parse(text), set(within))
        if within[name] == path
    ]
    assert found == []


def test_threads_that_import_first_get_whole_modules():
    code = """
import threading
begin = threading.Barrier(4)
def use(number):
    begin.wait()
    if number % 2:
        import retr.retrieval.images.given
    else:
        import retr.retrieval.images.picture
threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_index_offers_its_public_names():
    assert index.__all__ == sorted(index.__all__)
    for name in index.__all__:
        assert getattr(index, name) is not None
    assert set(index.__all__) - {"Snapshot", "Store"} == {name for name in retr.__all__ if name.endswith("Error")}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        index.nothing  # noqa: B018
