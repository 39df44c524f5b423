"""docs/howto/pacs.md, executed as it is written: Orthanc started, filled, built from, and a hit's link opened."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pydicom
from dicom_file import dicom
from orthanc_server import program
from patience import LONG, free_port

PAGE = Path(__file__).parents[1] / "docs/howto/pacs.md"


def commands() -> str:
    """The indented lines of the page, without the installation."""
    lines = [line[4:] for line in PAGE.read_text().splitlines() if line.startswith("    ")]
    return "\n".join(line for line in lines if not line.startswith("pip install"))


def test_the_page_is_executed_as_it_is_written(tmp_path):
    program()
    (tmp_path / "dicom").mkdir()
    files = [dicom(f"P{number // 2}", number) for number in range(6)]
    for number, data in enumerate(files):
        dataset = pydicom.dcmread(io.BytesIO(data))
        dataset.StudyDate = "20240115"
        dataset.save_as(tmp_path / f"dicom/{number}.dcm")
    (tmp_path / "labels.csv").write_text("path,finding\n1.2.1/1.2.3.1,nodule\n1.2.2/1.2.2.1/1.2.3.2,none\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/retr").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m retr "$@"\n')
    (tmp_path / "bin/retr").chmod(0o755)
    port = free_port()
    script = commands().replace("PORT=8042", f"PORT={port}")
    assert script.count("retr index build") == 3
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", f"{script}\ntouch done; wait"],
            cwd=tmp_path,
            env=environment,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        while shell.poll() is None and not (tmp_path / "done").exists():
            try:
                shell.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        said, printed = (tmp_path / "err").read_text(), (tmp_path / "out").read_text()
        assert (tmp_path / "done").exists(), said
        assert "Traceback" not in said
        assert "6 rows (6 embedded)" in printed, printed
        (first, second) = re.findall(rf"http://127\.0\.0\.1:{port}/dicom-web/studies/1\.2\.\d+/series", printed)
        with urllib.request.urlopen(first, timeout=LONG) as opened:
            assert opened.status == 200 and first != second
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
