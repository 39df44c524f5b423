"""A real PACS for tests: Debian's Orthanc with its DICOMweb plug-in, on the loopback, over a temporary folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from patience import LONG, free_port, until

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
LOGIN = ("hanna.weber", "p4ss:wörd")


def program() -> str:
    """The program; without it a test is skipped, and fails where CI is set."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if found is None or not PLUGIN.exists():
        reason = "needs Orthanc with its DICOMweb plug-in (Debian: orthanc, orthanc-dicomweb)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Orthanc:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.http = f"http://127.0.0.1:{port}"
        self.url = f"dicomweb://127.0.0.1:{port}/dicom-web"
        self.session = requests.Session()
        self.session.trust_env = False

    def store(self, *files: bytes) -> list[str]:
        """Store instances; gives Orthanc's own names of them."""
        answers = [self.session.post(f"{self.http}/instances", data=data, timeout=LONG) for data in files]
        assert all(answer.status_code == 200 for answer in answers)
        return [answer.json()["ID"] for answer in answers]

    def remove(self, name: str) -> None:
        """Remove an instance by Orthanc's own name."""
        assert self.session.delete(f"{self.http}/instances/{name}", timeout=LONG).status_code == 200

    def empty(self) -> None:
        """Remove everything."""
        for name in self.session.get(f"{self.http}/patients", timeout=LONG).json():
            self.session.delete(f"{self.http}/patients/{name}", timeout=LONG)


@contextlib.contextmanager
def orthanc(folder: Path, *, login: bool = False) -> Iterator[Orthanc]:
    """Start a server and stop it again; with a login, `LOGIN` alone may ask it."""
    port = free_port()
    settings = {
        "Name": "tests",
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "OverwriteInstances": True,
        "AuthenticationEnabled": login,
        "RegisteredUsers": {LOGIN[0]: LOGIN[1]},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program(), str(folder / "orthanc.json")], stdout=log, stderr=log)
    server = Orthanc(port)
    if login:
        server.session.auth = (LOGIN[0].encode(), LOGIN[1].encode())
    try:

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(requests.RequestException):
                return server.session.get(f"{server.http}/system", timeout=LONG).status_code == 200
            return False

        until(answers, every=0.05)
        yield server
    finally:
        server.session.close()
        process.kill()
        process.wait()
