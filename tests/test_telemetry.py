"""Nothing is told to anybody: build and query under ``strace``, as the kernel sees them.

Children get an environment of their own: libraries that report to their makers stay quiet where ``CI`` is set.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retr import telemetry

CALLS = (
    "network,open,openat,openat2,creat,truncate,mkdir,mkdirat,rmdir,rename,renameat,renameat2,link,linkat,symlink,"
    "symlinkat,mknod,mknodat,unlink,unlinkat,chmod,fchmodat,utimensat"
)
# "123 openat(AT_FDCWD</home>, "x", O_RDONLY) = 3</home/x>"; calls that another thread interrupts come in two lines
LINE = re.compile(r"^\d+\s+(\w+)\((.*)$")
PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')


HARMLESS = {Path("/dev/null"), Path("/dev/tty")}


class Trace:
    """What a process and its children did: internet sockets, and what was written or made outside of folders."""

    def __init__(self, lines: list[str], cwd: Path, allowed: list[Path]) -> None:
        self.calls, self.sockets, self.written = 0, [], []
        pending: dict[str, str] = {}
        for line in lines:
            process = line.split(maxsplit=1)[0]
            if line.endswith("<unfinished ...>"):
                pending[process] = line.removesuffix("<unfinished ...>")
                continue
            whole = pending.pop(process, "") + line.partition("resumed>")[2] if "resumed>" in line else line
            if (found := LINE.match(whole)) is None:
                continue
            self.calls += 1
            self._look(*found.groups(), cwd, allowed)

    def _look(self, call: str, rest: str, cwd: Path, allowed: list[Path]) -> None:
        done = not re.search(r"= -1 E\w+ ", rest)
        if call in {"socket", "connect", "sendto", "sendmsg", "sendmmsg"} and (
            re.search(r"AF_(INET|INET6|NETLINK|PACKET)\b", rest) or (call == "connect" and done)
        ):
            self.sockets.append(f"{call}({rest}")
        if not done or (call.startswith("open") and not re.search(r"O_(CREAT|WRONLY|RDWR|TRUNC)", rest)):
            return
        for folder, name in PLACE.findall(rest) if "AF_" not in rest else ():
            place = Path(os.path.normpath(Path(folder or cwd) / name))
            if place not in HARMLESS and not any(place.is_relative_to(one) for one in allowed):
                self.written.append(f"{call} {place}")


@pytest.fixture
def traced(tmp_path):
    """``traced(command, ...)``: run a command in a folder of its own and give its `Trace`."""
    if shutil.which("strace") is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed: what is sent and written cannot be seen")
        pytest.skip("strace is not installed")
    folders = {name: tmp_path / name for name in ("home", "tmp", "cache", "state", "work")}
    for folder in folders.values():
        folder.mkdir()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folders["home"]),
        "USER": "somebody",
        "TMPDIR": str(folders["tmp"]),
        "RETR_CACHE_DIR": str(folders["cache"]),
        "RETR_STATE_DIR": str(folders["state"]),
        # byte code beside the sources is Python's own affair
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(*command: str) -> Trace:
        log = tmp_path / "trace"
        watched = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-s", "512", "-o", str(log), "-e", f"trace={CALLS}"]
        done = subprocess.run([*watched, *command], cwd=folders["work"], env=env, capture_output=True, text=True)
        if "ptrace" in done.stderr and done.returncode and not os.environ.get("CI"):
            pytest.skip("strace may not trace here")
        assert done.returncode == 0, done.stderr
        places = [*(folders[name] for name in ("tmp", "cache", "state")), folders["work"] / "x.retr", Path("/dev/shm")]
        return Trace(log.read_text(errors="replace").splitlines(), folders["work"], places)

    rng = np.random.default_rng(5)
    (folders["work"] / "archive").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(
            folders["work"] / "archive" / f"{number}.png"
        )
    return run


RETR = f"{sys.executable} -m retr"


def test_build_and_query_tell_nobody_and_write_nowhere_else(traced):
    """The default encoder from a cold start, its export by torch and onnx included."""
    build, query = f"{RETR} index build archive --index x.retr", f"{RETR} query --image archive/1.png --index x.retr"
    trace = traced("sh", "-c", f"{build} && {query}")
    assert trace.calls > 500
    assert trace.sockets == []
    assert trace.written == []


LOCAL = """
import json
from pathlib import Path
from retr import Index, load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
ensure_torchvision()
import open_clip, torch, transformers
folder = Path("{made}")
small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
transformers.Dinov2Model(transformers.Dinov2Config(**small, image_size=28, patch_size=14)).save_pretrained(folder)
processor = dict(image_processor_type="BitImageProcessor", size=dict(shortest_edge=28))
(folder / "preprocessor_config.json").write_text(json.dumps(processor))
tiny = dict(
    embed_dim=32,
    vision_cfg=dict(image_size=64, layers=1, width=64, head_width=32, patch_size=16),
    text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=1),
)
torch.save(open_clip.CLIP(**tiny).state_dict(), folder / "tiny.pt")
stated = dict(mean=[0.5] * 3, std=[0.5] * 3)
(folder / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=tiny, preprocess_cfg=stated)))
here = dict(device="cpu", precision="fp32")
for number, name in enumerate(["hf:org/dino", "open_clip:tiny"]):
    weights = folder / "tiny.pt" if number else folder
    index = Index.build("archive", f"x.retr/{{number}}", encoder=name, weights=weights, **here)
    assert len(index.search(image="archive/1.png", k=2)) == 2
index.search(text="an eye", k=1)
"""


def test_encoders_from_local_files_tell_nobody(traced, tmp_path):
    made = tmp_path / "tmp" / "model"
    made.mkdir()
    script = tmp_path / "local.py"
    script.write_text(LOCAL.format(made=made))
    trace = traced(sys.executable, str(script))
    assert trace.calls > 500
    assert trace.sockets == []
    assert trace.written == []


def test_a_connection_and_a_stray_file_would_be_seen(traced, tmp_path):
    asked = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 53))"
    trace = traced(sys.executable, "-c", f"{asked}; open('stray', 'w'); import os; os.mkdir('folder')")
    assert len(trace.sockets) == 2
    assert trace.written == [f"openat {tmp_path}/work/stray", f"mkdir {tmp_path}/work/folder"]
    threads = f"import threading; [threading.Thread(target=lambda: exec({asked!r})).start() for _ in range(4)]"
    assert len(traced(sys.executable, "-c", threads).sockets) == 8


@pytest.mark.parametrize("first", ["retr", "retr.cli.main", "retr.index.store", "retr.retrieval.encoders.systems.lite"])
def test_switches_are_set_before_anything_else_is_imported(first):
    wanted = {name: value for name, (value, _) in telemetry.SWITCHES.items()}
    code = f"""
import os, sys
class Seen:
    def find_spec(self, name, path=None, target=None):
        if name in {{"onnxruntime", "huggingface_hub", "transformers", "torch", "numpy"}}:
            assert {{name: os.environ[name] for name in {wanted!r}}} == {wanted!r}
sys.meta_path.insert(0, Seen())
import {first}
assert {{name: os.environ[name] for name in {wanted!r}}} == {wanted!r}
"""
    env = {**os.environ, **dict.fromkeys(wanted, "no")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def test_compiled_loops_are_kept_in_the_cache_folder(tmp_path, monkeypatch):
    from retr.index.machine.home import cache_folder
    from retr.index.scan import kernels

    monkeypatch.setenv("RETR_CACHE_DIR", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    assert cache_folder().is_dir()
    kept = kernels.compiled(kernels.machine_code)._cache.cache_path
    assert Path(kept).is_relative_to(tmp_path / "cache/kernels")


def test_the_switches_stand_in_the_documentation():
    page = (Path(__file__).parents[1] / "docs/privacy.md").read_text()
    for name, (value, _) in telemetry.SWITCHES.items():
        assert f"| `{name}` | {value} |" in page


def test_libraries_imported_before_are_told(monkeypatch):
    told = []

    class Runtime:
        @staticmethod
        def disable_telemetry_events():
            told.append(True)

    monkeypatch.setitem(sys.modules, "onnxruntime", Runtime)
    telemetry.switch_off()
    assert told == [True]
