from __future__ import annotations

import os
import pickle

import pytest
import torch

from retr.index.errors import WeightsError
from retr.retrieval.encoders.weights import checkpoints
from retr.retrieval.encoders.weights.checkpoints import WeightFile, digest, find, load_state_dict, load_strictly

FILE = WeightFile("sub/model.pth", where="https://example.org/model", option="weights")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("RETR_WEIGHTS", raising=False)


def test_a_given_path_comes_first(tmp_path, monkeypatch):
    mine = tmp_path / "mine.pth"
    mine.write_bytes(b"x")
    monkeypatch.setenv("RETR_WEIGHTS", str(tmp_path))
    (tmp_path / "model.pth").write_bytes(b"y")
    assert find(FILE, mine, encoder="toy") == mine
    assert find(FILE, tmp_path, encoder="toy") == tmp_path / "model.pth"


@pytest.mark.parametrize("place", ["sub/model.pth", "toy/sub/model.pth", "model.pth"])
def test_the_weights_folder_comes_second(tmp_path, monkeypatch, place):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    monkeypatch.setenv("RETR_WEIGHTS", str(tmp_path))
    assert find(FILE, encoder="toy") == path


def test_a_given_path_that_is_not_there_is_named():
    with pytest.raises(WeightsError, match=r"no file at '/nowhere/x.pth', weights of 'toy'; 'model.pth' is published"):
        find(FILE, "/nowhere/x.pth", encoder="toy")


def test_a_missing_file_says_where_to_get_it_and_where_to_put_it():
    with pytest.raises(WeightsError) as caught:
        find(FILE, encoder="toy")
    for part in ("'toy' needs 'sub/model.pth'", "https://example.org/model", "--weights PATH", "RETR_WEIGHTS"):
        assert part in str(caught.value)


def test_without_network_the_hub_is_not_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = WeightFile("model.safetensors", where="https://hf.co/a/b", hub="nobody/no-such-model")
    with pytest.raises(WeightsError, match="not on this machine"):
        find(hub, encoder="toy", network=False)


def test_a_digest_follows_the_file(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"abc")
    assert digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"abd")
    os.utime(path, ns=(1, 1))
    assert digest(path) == "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9"


def test_several_files_have_one_digest_whatever_their_order(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"a")
    b.write_bytes(b"b")
    assert digest(a, b) == digest(b, a) != digest(a)


def test_a_second_digest_does_not_read_the_file(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    path.write_bytes(b"abc")
    first = digest(path)
    monkeypatch.setattr(checkpoints, "_CHUNK", "nothing that can be read by")
    assert digest(path) == first


@pytest.mark.parametrize("how", ["written over", "exchanged"])
def test_a_checkpoint_swapped_at_its_size_and_date_is_hashed_again(tmp_path, how):
    path, other = tmp_path / "model.pth", tmp_path / "other.pth"
    path.write_bytes(b"abc")
    first = digest(path)
    status = path.stat()
    if how == "written over":
        path.write_bytes(b"xyz")
    else:
        other.write_bytes(b"xyz")
        other.replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert digest(path) != first


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"weight": Evil()}))
    with pytest.raises(WeightsError, match="holds more than tensors"):
        load_state_dict(path)
    torch.save({"weight": Evil()}, path)
    with pytest.raises(WeightsError, match="holds more than tensors"):
        load_state_dict(path)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(WeightsError, match=name):
        load_state_dict(path)


def test_a_checkpoint_that_is_no_state_dict_is_refused(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        load_state_dict(tmp_path / "list.pth")


def test_loading_is_strict_but_for_what_is_documented():
    module = torch.nn.Linear(2, 3)
    state = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    ids = {"bert.embeddings.position_ids": torch.arange(4)}
    load_strictly(module, state | ids, file="x.pth", dropped=["*.position_ids"])
    assert torch.equal(module.weight, torch.ones(3, 2))
    with pytest.raises(WeightsError, match=r"'x.pth' does not fit the network: 1 unknown \(bert.embeddings.pos"):
        load_strictly(module, state | ids, file="x.pth")
    with pytest.raises(WeightsError, match=r"1 missing \(bias\)"):
        load_strictly(module, {"weight": torch.ones(3, 2)}, file="x.pth")
    with pytest.raises(WeightsError, match=r"1 of another shape \(weight\)"):
        load_strictly(module, state | {"weight": torch.ones(2, 2)}, file="x.pth")


def test_a_pattern_never_drops_a_key_the_network_has():
    module = torch.nn.Linear(2, 3)
    state = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}
    load_strictly(module, state, file="x.pth", dropped=["*"])
    assert torch.equal(module.bias, torch.ones(3))


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize(
    ("held", "says"),
    [
        (b"", "'x.*' is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a pointer of Git LFS.*git lfs pull"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
    ],
)
def test_what_a_failed_download_leaves_is_told(tmp_path, name, held, says):
    (tmp_path / name).write_bytes(held)
    with pytest.raises(WeightsError, match=says):
        load_state_dict(tmp_path / name)


@pytest.mark.parametrize("held", [b"not weights at all", b"\x80\x05."])
def test_a_text_is_damaged_weights(tmp_path, held):
    (tmp_path / "x.pth").write_bytes(held)
    with pytest.raises(WeightsError, match=r"'x\.pth' is damaged or holds more than tensors"):
        load_state_dict(tmp_path / "x.pth")
