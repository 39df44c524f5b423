"""The hash key: made once, kept private, never replaced silently."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from retr.index.errors import UsageError
from retr.index.machine.hash_key import agreed_key, exposure, fingerprint, hash_key_path, load_hash_key


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("RETR_KEY_FILE", "RETR_HASH_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)


def test_made_on_first_use_and_kept():
    key = load_hash_key()
    assert len(key) == 64
    assert load_hash_key() == key
    assert stat.S_IMODE(hash_key_path().stat().st_mode) == 0o600
    assert [path.name for path in hash_key_path().parent.iterdir()] == ["hash.key"]


def test_starting_at_once_gives_one_key():
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: load_hash_key(), range(32)))) == 1


@pytest.mark.parametrize("variable", ["RETR_KEY_FILE", "RETR_HASH_KEY_FILE"])
def test_a_file_of_ones_own(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(tmp_path / "my.key"))
    with pytest.raises(UsageError, match=r"my\.key.*openssl rand"):
        load_hash_key()
    assert not (tmp_path / "my.key").exists(), "a file that is named is never made"
    (tmp_path / "my.key").write_bytes(b"short\n")
    with pytest.raises(UsageError, match="5 bytes"):
        load_hash_key()
    (tmp_path / "my.key").write_bytes(b"")
    with pytest.raises(UsageError, match="0 bytes"):
        load_hash_key()
    (tmp_path / "my.key").write_bytes(b"sixteen bytes or more\n")
    assert load_hash_key() == b"sixteen bytes or more"
    (tmp_path / "link").symlink_to(tmp_path / "my.key")
    monkeypatch.setenv(variable, str(tmp_path / "link"))
    assert load_hash_key() == b"sixteen bytes or more", "as secrets of a container are mounted"


def test_what_is_no_key_file_is_one_line(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    for file, message in (
        (tmp_path, "is not a file"),
        (tmp_path / "pipe", "is not a file"),
        (tmp_path / "dangling", "there is no key file"),
        (tmp_path / "absent" / "key", "there is no key file"),
        (" ", "RETR_KEY_FILE is set and names no file"),
    ):
        monkeypatch.setenv("RETR_KEY_FILE", str(file))
        with pytest.raises(UsageError, match=message):
            load_hash_key()
    monkeypatch.setenv("RETR_HASH_KEY_FILE", str(tmp_path / "other"))
    monkeypatch.setenv("RETR_KEY_FILE", str(tmp_path / "one"))
    with pytest.raises(UsageError, match="name two key files"):
        load_hash_key()


def test_a_key_in_place_of_its_file_is_not_shown(monkeypatch):
    monkeypatch.setenv("RETR_KEY_FILE", key := "0f1e2d3c4b5a69788796a5b4c3d2e1f0")
    with pytest.raises(UsageError, match="the path of a key file, not the key") as caught:
        load_hash_key()
    assert key not in str(caught.value)


def test_no_place_for_a_key_says_where_to_put_one(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"cannot be made.*RETR_KEY_FILE"):
        load_hash_key()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config/retr").mkdir(parents=True)
    hash_key_path().symlink_to(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"there is no key file '~/config/retr/hash\.key'"):
        load_hash_key()


def test_a_recorded_key_is_asked_for_and_none_is_made():
    with pytest.raises(UsageError, match=r"hashed with the key '0123456789abcdef', which is not here.*RETR_KEY_FILE"):
        agreed_key("0123456789abcdef")
    with pytest.raises(UsageError, match="there is no key file"):
        agreed_key(None)
    assert not hash_key_path().exists()
    key = agreed_key(None, make=True)
    assert agreed_key(fingerprint(key)) == key
    with pytest.raises(UsageError, match=rf"and the key in '~/config/retr/hash\.key' is '{fingerprint(key)}'"):
        agreed_key("0123456789abcdef")


def test_a_key_that_others_can_read_is_said():
    load_hash_key()
    assert exposure() is None
    hash_key_path().chmod(0o640)
    assert "chmod 600" in exposure()
