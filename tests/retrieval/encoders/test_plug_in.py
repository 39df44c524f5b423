"""An encoder of another package: built, installed into a fresh environment, and used there by its name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import retr

EXAMPLE = Path(__file__).parents[3] / "examples/my_encoder"


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_package_of_one_file_brings_an_encoder(tmp_path, archive):
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    fresh = tmp_path / "fresh"
    run(sys.executable, "-m", "venv", "--without-pip", fresh)
    python = fresh / "bin/python"
    # what is installed here is seen there, too, but for the package
    places = [Path(retr.__file__).parents[1], *(place for place in sys.path if place.endswith("-packages"))]
    purelib = sysconfig.get_path("purelib", "venv", vars={"base": str(fresh)})
    (Path(purelib) / "running.pth").write_text("\n".join(map(str, places)))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = ["install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(python, "-m", "pip", *install, source, env=environment)

    build = ["index", "build", archive, "--index", "x.retr", "--encoder", "my-encoder"]
    run(python, "-m", "retr", *build, env=environment, cwd=tmp_path)
    picture = str(archive / "healthy/000.png")
    code = (
        "import json, retr; from retr.retrieval.encoders.registry import specs;"
        f"found = retr.Index.open('x.retr').search(image={picture!r}, k=1, include_self=True).ids;"
        "print(json.dumps([found, specs()[0]['my-encoder'].is_available()]))"
    )
    assert json.loads(run(python, "-c", code, env=environment, cwd=tmp_path)) == [["healthy/000.png"], True]
