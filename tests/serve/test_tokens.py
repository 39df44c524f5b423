"""Tokens: made once, kept as hashes, read again when the file changes, refused when others may write it."""

from __future__ import annotations

import hashlib

import pytest

from retr import UsageError
from retr.serve.tokens import Token, Tokens, make_token


def test_a_token_is_known_by_what_it_was_made_with(tmp_path):
    path = tmp_path / "tokens"
    anna = make_token(path, "anna", frozenset({"read", "label"}))
    make_token(path, "ben", frozenset({"read"}))
    tokens = Tokens(path)
    assert tokens.of(anna) == Token("anna", frozenset({"read", "label"}))
    for wrong in ("", anna[:-1], anna + "x", anna.swapcase(), hashlib.sha256(anna.encode()).hexdigest(), "\ud800"):
        assert tokens.of(wrong) is None
    assert anna not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_token_ends_when_its_line_is_taken_out(tmp_path):
    path = tmp_path / "tokens"
    anna = make_token(path, "anna", frozenset({"read"}))
    tokens = Tokens(path)
    assert tokens.of(anna) is not None
    path.write_text("# nobody\n")
    assert tokens.of(anna) is None


def test_a_line_is_added_to_a_file_that_lacks_its_last_line_break(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"old read {'0' * 64}")
    path.chmod(0o600)
    new = make_token(path, "new", frozenset({"write"}))
    found = Tokens(path).of(new)
    assert found is not None
    assert found.name == "new"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anna read\n", "line 1"),
        ("\nanna read nonsense\n", "line 2"),
        (f"anna root {'0' * 64}\n", "'root'"),
        (f"anna,b read {'0' * 64}\n", "line 1"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused_with_its_number(tmp_path, text, message):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        Tokens(path)


def test_a_file_that_others_may_write_is_refused(tmp_path):
    path = tmp_path / "tokens"
    make_token(path, "anna", frozenset({"read"}))
    path.chmod(0o666)
    with pytest.raises(UsageError, match="others may write"):
        Tokens(path)
    with pytest.raises(UsageError, match="cannot read the token file 'none'"):
        Tokens(tmp_path / "none")


@pytest.mark.parametrize(("name", "scopes"), [("a b", {"read"}), ("", {"read"}), ("a", {"root"}), ("a", set())])
def test_names_and_scopes_are_checked_before_anything_is_written(tmp_path, name, scopes):
    with pytest.raises(UsageError):
        make_token(tmp_path / "tokens", name, frozenset(scopes))
    assert not (tmp_path / "tokens").exists()


def test_a_name_is_given_once(tmp_path):
    make_token(tmp_path / "tokens", "anna", frozenset({"read"}))
    with pytest.raises(UsageError, match="'anna'"):
        make_token(tmp_path / "tokens", "anna", frozenset({"write"}))
