"""The hash key: made once, kept private, never replaced silently."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from retr.index.errors import UsageError
from retr.index.hash_key import hash_key_path, load_hash_key


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RETR_HASH_KEY_FILE", raising=False)


def test_made_on_first_use_and_kept():
    key = load_hash_key()
    assert len(key) == 64
    assert load_hash_key() == key
    assert stat.S_IMODE(hash_key_path().stat().st_mode) == 0o600
    assert [path.name for path in hash_key_path().parent.iterdir()] == ["hash.key"]


def test_starting_at_once_gives_one_key():
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: load_hash_key(), range(32)))) == 1


def test_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_HASH_KEY_FILE", str(tmp_path / "my.key"))
    with pytest.raises(UsageError, match=r"my\.key.*openssl rand"):
        load_hash_key()
    (tmp_path / "my.key").write_bytes(b"short\n")
    with pytest.raises(UsageError, match="5 bytes"):
        load_hash_key()
    (tmp_path / "my.key").write_bytes(b"sixteen bytes or more\n")
    assert load_hash_key() == b"sixteen bytes or more"
