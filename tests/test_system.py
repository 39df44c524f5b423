"""Where a system lacks what Linux has, an index is built, asked, locked and purged all the same."""

from __future__ import annotations

import ast
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from retr import system

ROOT = Path(__file__).parents[1]
# On Windows: no such names, folders that cannot be opened, and locks of bytes by another module.
LESS = """
import fcntl as real, os, stat, sys, types

def locking(descriptor, mode, count):
    assert mode == 2 and count == 1 and os.lseek(descriptor, 0, os.SEEK_CUR) > 1000
    try:
        real.flock(descriptor, real.LOCK_EX | real.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied") from None

import subprocess, threading, tempfile, shutil, random, logging, multiprocessing  # bound before the names go
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None
for name in (
    "sched_getaffinity", "pread", "pwrite", "register_at_fork", "geteuid", "getuid", "fchmod", "O_DIRECTORY",
    "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "fork", "mkfifo", "sysconf", "getloadavg",
):
    delattr(os, name)
whole_open, whole_fsync = os.open, os.fsync

def open_(path, flags, *rest, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return whole_open(path, flags, *rest, **options)

def fsync(descriptor):
    assert stat.S_ISREG(os.fstat(descriptor).st_mode)
    whole_fsync(descriptor)

os.open, os.fsync = open_, fsync
"""
RUN = """
import json, tarfile
from pathlib import Path
from fake_encoder import FakeEncoder
from retr import Index, IndexLockedError, system

assert system.fcntl is None
archive, folder = Path(sys.argv[1]), Path(sys.argv[2])
index = Index.build(archive, folder / "x.retr", encoder=FakeEncoder(), metadata=archive / "labels.csv")
rows = list(index)
said = {"rows": len(index)}
said["ids"] = index.search(image=archive / rows[0], k=3).ids
with index.store.writer():
    try:
        index.delete(ids=rows[:1])
    except IndexLockedError as error:
        said["locked"] = str(error)
index.sets.save("looked at", rows[:2])
said["set"] = len(index.sets)
index.delete(ids=rows[:1], purge=True)
said["left"] = len(Index.open(folder / "x.retr"))
with tarfile.open(folder / "y.tar", "w") as tar:
    tar.add(archive, arcname="")
said["tar"] = len(Index.build(folder / "y.tar", folder / "y.retr", encoder=FakeEncoder()))
said["check"] = index.check()
print(json.dumps(said, default=str))
"""


def test_an_index_lives_without_what_only_some_systems_have(archive, tmp_path):
    code = LESS + f"sys.path.insert(0, {str(ROOT / 'tests')!r})" + RUN
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(archive), str(tmp_path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["rows"], said["left"], said["tar"], said["set"]) == (12, 11, 12, 1)
    assert len(said["ids"]) == 3 and all("\\" not in one for one in said["ids"])
    assert "another process is writing to this index (pid " in said["locked"]


# what a system may lack, and by which of its names it is asked for in `retr.system` alone
PARTIAL = {
    *(
        "fcntl",
        "msvcrt",
        "sched_getaffinity",
        "pread",
        "pwrite",
        "preadv",
        "register_at_fork",
        "fork",
        "geteuid",
        "getuid",
    ),
    *(
        "O_DIRECTORY",
        "O_NOFOLLOW",
        "O_NONBLOCK",
        "O_CLOEXEC",
        "O_NOCTTY",
        "O_BINARY",
        "fchmod",
        "chown",
        "mkfifo",
        "getuid",
    ),
    *("sysconf", "getloadavg", "uname", "SIGKILL", "SIGHUP", "SIGUSR1", "SIGALRM", "alarm", "setitimer", "wait4"),
    *("posix_fallocate", "posix_fadvise", "sendfile", "statvfs", "killpg", "setsid", "nice", "umask", "pwd", "grp"),
}


def names(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.name, node.lineno) for alias in node.names if node.module in {"os", "signal"})


def test_what_systems_lack_is_asked_for_in_one_place():
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for folder in ("index", "retrieval", "cli", "serve")
        for path in (ROOT / folder).rglob("*.py")
        for name, line in names(ast.parse(path.read_text(encoding="utf-8")))
        if name in PARTIAL
    ]
    assert found == []


def writes(tree: ast.AST):
    """Yield each call that writes text into a file, and whether it says how lines end."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        texts = {one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)}
        opened = called in {"open", "fdopen"} and texts & {"w", "a", "x", "wt", "at", "xt"}
        # of an archive, not of text
        if (opened and "tarfile" not in ast.unparse(node.func)) or called == "write_text":
            yield node.lineno, any(word.arg == "newline" for word in node.keywords)


def test_what_is_written_has_the_same_bytes_on_every_system():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("index", "retrieval", "cli", "serve")
        for path in (ROOT / folder).rglob("*.py")
        for line, said in writes(ast.parse(path.read_text(encoding="utf-8")))
        if not said
    ]
    assert found == []


def test_processors_are_those_that_the_process_may_use(monkeypatch):
    assert system.processors() == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else True
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert system.processors() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert system.processors() == 1


@pytest.mark.parametrize("lacking", [(), ("pread", "pwrite")])
def test_reading_and_writing_at_a_place(lacking, tmp_path, monkeypatch):
    for name in lacking:
        monkeypatch.delattr(os, name)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    descriptor = os.open(path, os.O_RDWR | system.OWN)
    try:
        assert system.read_at(descriptor, 3, 4) == b"456"
        assert system.write_at(descriptor, b"xy", 1) == 2
        assert system.read_at(descriptor, 99, 0) == b"0xy3456789"
    finally:
        os.close(descriptor)


def test_a_file_that_is_open_for_moments_is_replaced(tmp_path, monkeypatch):
    draft, path = tmp_path / "draft", tmp_path / "file"
    draft.write_bytes(b"new")
    path.write_bytes(b"old")
    refusals, whole = [PermissionError(13, "in use")] * 2, Path.replace

    def refused(self, target):
        if refusals:
            raise refusals.pop()
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    monkeypatch.setattr(system, "IN_USE", ())
    with pytest.raises(PermissionError):
        system.replace(draft, path)
    monkeypatch.setattr(system, "IN_USE", (PermissionError,))
    system.replace(draft, path)
    assert path.read_bytes() == b"new" and not draft.exists()


def test_a_terminal_says_how_wide_it_is(tmp_path, monkeypatch):
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    inner, outer = pty.openpty()
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    assert system.terminal_pixels(outer) is None
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 800, 480))
    assert system.terminal_pixels(outer) == 800
    with (tmp_path / "no terminal").open("w") as file, pytest.raises(OSError, match="ioctl"):
        system.terminal_pixels(file.fileno())
    monkeypatch.setattr(system, "fcntl", None)
    assert system.terminal_pixels(outer) is None
    os.close(inner)
    os.close(outer)


def test_other_peoples_files(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"")
    path.chmod(0o622)
    assert system.others_write(path.stat()) is (os.name == "posix")
    path.chmod(0o600)
    assert not system.others_write(path.stat()) and not system.others_own(path.stat())
    if hasattr(os, "geteuid"):
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        assert system.others_own(path.stat()) is (path.stat().st_uid != 0)
        monkeypatch.delattr(os, "geteuid")
    assert not system.others_own(path.stat())


@pytest.mark.parametrize(
    ("encoding", "name", "read_as", "found"),
    [
        ("iso8859-1", "gr\u00fcn", "utf-8", True),
        ("cp1252", "\u65e5\u672c.png", "utf-8", True),
        ("ascii", "gr\u00fcn", "utf-8", True),
        ("iso8859-1", "gr\u00fcn", "iso8859-1", False),  # typed and stored as the locale says
        ("iso8859-1", "green", "utf-8", False),
        ("utf-8", "gr\u00fcn", "utf-8", False),
        ("utf-8", "gr\u00fcn", "iso8859-1", False),
    ],
)
def test_a_name_that_the_locale_misreads(encoding, name, read_as, found, monkeypatch):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode(encoding, "surrogateescape"))
    assert system.misread(name.encode(read_as).decode(encoding, "surrogateescape")) is found


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
def test_a_locale_that_misreads_names_is_refused(tmp_path):
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.mkdir()
    other.mkdir()
    (other / "gr\u00fcn.png").write_bytes(b"")
    listing = "import sys; from retr.retrieval.archive.folders import FolderSource as S; list(S(sys.argv[1]).entries())"
    command = "from retr.cli.main import main; main()"
    where = ["index", "ls", "--where", "label != 'gr\u00fcn'"]
    ascii_ = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for code, given, said in (
        (listing, [plain], ""),
        (listing, [other], "names of files here are UTF-8, and the locale reads them as 'ascii'; set LC_ALL=C.UTF-8"),
        (command, where, "error: what was typed is UTF-8, and the locale reads it as 'ascii'; set LC_ALL=C.UTF-8"),
    ):
        done = subprocess.run([sys.executable, "-c", code, *given], env=ascii_, capture_output=True, text=True)
        assert said in done.stderr and bool(done.returncode) == bool(said)
