"""Whatever may be missing is imported where its absence is told, with the command that installs it."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from retr.index.errors import MissingExtraError
from retr.index.machine.extras import PACKAGES, missing, needed

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=;! ]", requirement)[0].lower().replace("-", "_")


@pytest.mark.parametrize("module", PACKAGES)
def test_the_command_installs_what_is_missing(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught, needed():
        importlib.import_module(f"{module}.part")
    assert str(caught.value) == str(missing(module))
    package, extras = PACKAGES[module]
    assert str(caught.value).startswith(f"{package} is not installed; install it with `pip install")
    for extra in extras:
        assert f'`pip install "retr[{extra}]"`' in str(caught.value)
        brought = {name_of(one) for one in EXTRAS[extra]}
        if "retr" in brought:
            brought |= {name_of(one) for one in EXTRAS["encoders"]}
        # named there, or what one of those is made of
        made_of = {
            "huggingface_hub": "transformers",
            "tokenizers": "transformers",
            "faiss": f"faiss_{extra}",
        }
        assert made_of.get(module, name_of(package)) in brought


def test_another_import_error_is_passed_on(monkeypatch):
    with pytest.raises(ModuleNotFoundError), needed():
        importlib.import_module("torch_that_nobody_wrote")
    with pytest.raises(ImportError), needed():
        from retr.index.machine.extras import nothing  # noqa: F401


def imports(tree: ast.AST, told: bool = False):
    """Yield each package that is imported, whether in a block of `needed`, a `try` or for types alone, and the line."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], told, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], told, node.lineno
        held = (
            (isinstance(node, ast.With) and any("needed()" in ast.unparse(item) for item in node.items))
            or isinstance(node, ast.Try)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        )
        yield from imports(node, told or held)


# Behind a look of another module: `load_encoder`, `retr.interop`, a GPU that was found, a reader that is
# chosen, a client that was made, a notebook that runs.
BEHIND = (
    "index/accelerators/rabitq.py",
    "index/gpu/",
    "retrieval/archive/dicomweb_http.py",
    "retrieval/audit/keypoints.py",
    "retrieval/encoders/networks/",
    "retrieval/encoders/runtime/onnx_graph.py",
    "retrieval/encoders/runtime/torch_encoder.py",
    "retrieval/encoders/torchvision_import.py",
    "retrieval/encoders/towers/",
    "retrieval/encoders/weights/",
    "retrieval/exporting.py",
    "retrieval/images/",
    "retrieval/interop/",
    "retrieval/mcp/",
    "retrieval/progress.py",
)


def test_every_import_of_what_may_be_missing_is_told():
    base = {name_of(one) for one in PROJECT["dependencies"]} | {
        "PIL",
        "yaml",
        "markupsafe",
        "pydantic",
        "pydantic_core",
        "starlette",
    }
    untold, seen = [], set()
    for folder in ("index", "retrieval", "cli", "serve", "src/retr"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if path.name == "conftest.py" or (name.startswith("src/retr/") and name.count("/") > 2):
                continue
            for module, told, line in imports(ast.parse(path.read_text(encoding="utf-8"))):
                if module == "retr" or module in sys.stdlib_module_names or module in base:
                    continue
                seen.add(module)
                if not told and not name.startswith(BEHIND):
                    untold.append(f"{name}:{line} {module}")
    assert untold == []
    # what comes with another, or writes what is shipped
    assert seen - set(PACKAGES) <= {"IPython", "triton", "urllib3"}


def test_every_package_of_the_base_is_told_with_its_reason():
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    named = {name_of(name) for name in re.findall(r"`([a-zA-Z0-9_-]+)`", page)}
    assert {name_of(one) for one in PROJECT["dependencies"]} <= named
    assert {extra for _, extras in PACKAGES.values() for extra in extras} <= named
