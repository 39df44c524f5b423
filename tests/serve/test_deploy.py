"""The steps of the container, taken on this machine: installed from wheels alone, begun, asked, looked at, ended."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml
from patience import LONG, free_port, until

from retr import Index
from retr.serve.audit import verify
from retr.serve.tokens import make_token

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "serve/deploy"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> Path:
    """Where the container's own step installed this checkout's wheel, other packages being those that run here."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "wheels"], cwd=ROOT, check=True
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "retr"], check=True)
    held = Path(importlib.util.find_spec("numpy").origin).parents[1]
    # all but the checkout's own package, which would count as installed
    others = folder / "others"
    others.mkdir()
    for entry in held.iterdir():
        if not entry.name.startswith(("retr", "_editable", "__editable")) and entry.suffix != ".pth":
            (others / entry.name).symlink_to(entry)
    (site,) = (folder / "retr").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{others}\n")
    subprocess.run(
        ["sh", DEPLOY / "container.sh", "install", folder / "wheels", folder / "retr"], check=True, env=plain()
    )
    return folder / "retr"


def plain(**further: object) -> dict[str, str]:
    """The environment of a container: no home, nothing that names this checkout."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"}}
    return kept | {name: str(value) for name, value in further.items()}


def confined(command: list[object], writable: Path) -> list[str]:
    """A command without capabilities, and with one folder that it may write to, where that can be had."""
    script = f'mount --bind "{writable}" "{writable}" && mount -o remount,ro,bind / && exec "$@"'
    tried = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if shutil.which("setpriv"):
        tried += ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    works = subprocess.run([*tried, "true"], capture_output=True).returncode == 0 if shutil.which("unshare") else False
    return [str(word) for word in ([*tried, *command] if works else command)]


def asked(url: str, token: str | None = None, body: object = None) -> object:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=LONG) as answer:
        return json.load(answer)


def begun(url: str, token: str, body: object) -> tuple[http.client.HTTPConnection, bytes]:
    """Return a connection whose request the server has begun to answer, and the body that it waits for."""
    parts, data = urllib.parse.urlsplit(url), json.dumps(body).encode()
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=LONG)
    connection.putrequest("POST", parts.path)
    told = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Content-Length": str(len(data))}
    for name, value in {**told, "Expect": "100-continue"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    # what is left there is passed over where the answer is read
    assert connection.sock.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 100"
    return connection, data


def test_a_server_installed_from_wheels_alone_answers_to_its_end(prefix, make_archive, png, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    Index.build(make_archive(12), home / "archive.retr", encoder="lite", metadata=tmp_path / "archive/labels.csv")
    token = make_token(home / "tokens", "anna", frozenset({"read"}))
    url = f"http://127.0.0.1:{free_port()}"
    steps = ["sh", DEPLOY / "container.sh"]
    settings = plain(RETR_PREFIX=prefix, RETR_HOME=home, RETR_URL=url, http_proxy="http://127.0.0.1:9")
    command = [*steps, "start", "--port", url.rpartition(":")[2], "--index", home / "archive.retr"]
    assert subprocess.run([*steps, "health"], env=settings, capture_output=True).returncode != 0
    server = subprocess.Popen(confined(command, home), env=settings, cwd="/")
    try:

        def healthy() -> bool:
            assert server.poll() is None
            return subprocess.run([*steps, "health"], env=settings, capture_output=True).returncode == 0

        until(healthy)
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            asked(f"{url}/v1/indexes")
        refused.value.close()
        assert asked(f"{url}/v1/indexes", token)[0]["rows"] == 12
        question = {"questions": [{"parts": [{"data": base64.b64encode(png(3)).decode()}]}], "k": 3}
        several = [begun(f"{url}/v1/indexes/archive/search", token, question) for _ in range(4)]
        server.send_signal(signal.SIGTERM)
        for one, body in several:
            one.send(body)
        assert [len(json.load(one.getresponse())["answers"][0]["hits"]) for one, _ in several] == [3] * 4
        assert server.wait(LONG) == 0
        for one, _ in several:
            one.close()
    finally:
        server.kill()
        server.wait()
    assert verify(home / "audit.jsonl").problem is None


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_is_one_and_is_hardened(tmp_path):
    unit = tmp_path / "retr.service"
    # a program that is there, since one that is not is an error
    unit.write_text((DEPLOY / "retr.service").read_text().replace("/opt/retr/bin/retr", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit], check=True, capture_output=True
    )


def test_what_begins_a_server_names_options_and_steps_that_there_are():
    helped = subprocess.run(
        [sys.executable, "-m", "retr", "serve", "--help"], capture_output=True, text=True, check=True
    )
    script, image, unit = ((DEPLOY / name).read_text() for name in ("container.sh", "Containerfile", "retr.service"))
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["retr"]
    options = {
        word for text in (script, image, unit, " ".join(service["command"])) for word in re.findall(r"serve .*", text)
    }
    given = set(re.findall(r"(?<=[ \"])--[a-z-]+", " ".join([*options, *service["command"]])))
    assert {"--index", "--token-file", "--audit", "--allow-host"} <= given
    assert all(option in helped.stdout for option in given - {"--help"})
    user = re.search(r"^USER (.+)$", image, re.MULTILINE)[1]
    assert (service["user"], service["read_only"], service["cap_drop"]) == (user, True, ["ALL"])
    steps = {
        service["command"][0],
        service["healthcheck"]["test"][-1],
        *re.findall(r"sh /opt/container.sh (\w+)", image),
    }
    assert all(f"    {step}) " in script for step in steps)
