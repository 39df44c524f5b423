"""The public names: all of them, at no cost until they are used, and with the types they say they have."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import retr
import retr.encoders
from retr import Index, Query, UsageError
from retr.index import errors


def test_every_error_is_public():
    trees = {name: one for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, Exception)}
    assert set(trees) <= set(retr.__all__)
    assert all(getattr(retr, name) is one for name, one in trees.items())


def test_names_can_be_completed_before_they_are_loaded():
    code = (
        "import sys, retr; names = dir(retr);"
        "assert set(retr.__all__) <= set(names); assert not {'numpy', 'pyarrow'} & set(sys.modules);"
        "from retr import RetrError; assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_question_gives_hits_and_several_a_list(archive, tmp_path, fake_encoder):
    index = Index.build(archive, tmp_path / "x.retr", encoder=fake_encoder)
    vectors = index.store.vectors(np.arange(3))
    assert isinstance(index.search(vector=vectors[0], k=2), retr.Hits)
    assert isinstance(index.search(vector=vectors[0].tolist(), k=2), retr.Hits)
    for several in (index.search(vectors=vectors[:1]), index.search([Query.vector(vectors[0])])):
        assert [type(one) for one in several] == [retr.Hits]
    assert len(index.search(vectors=vectors.tolist())) == 3
    with pytest.raises(UsageError, match=r"vectors must have the shape \(n, dim\), got \(56,\); one vector is vector="):
        index.search(vectors=vectors[0])
    with pytest.raises(UsageError, match=r"a question is a retr\.Query or a list of them, got str"):
        index.search("healthy/000.png")
    with pytest.raises(UsageError, match=r"a question is a retr\.Query or a list of them, got ndarray"):
        index.search(vectors[0])
    with pytest.raises(UsageError, match=r"got: image and vectors"):
        index.search(image="x.png", vectors=vectors)


def test_tensors_are_vectors(archive, tmp_path, fake_encoder):
    torch = pytest.importorskip("torch")
    index = Index.build(archive, tmp_path / "x.retr", encoder=fake_encoder)
    vectors = torch.from_numpy(index.store.vectors(np.arange(2)).copy()).requires_grad_()
    plain = index.search(vectors=vectors.detach().numpy(), k=3)
    assert [hits.ids for hits in index.search(vectors=vectors, k=3)] == [hits.ids for hits in plain]
    half = index.search(vector=vectors[0].to(torch.bfloat16), k=1, include_self=True)
    assert half.scores[0] == pytest.approx(1, abs=1e-2)


class TestFromCallable:
    def colours(self, pictures):
        return np.stack([np.asarray(picture.resize((2, 2)), np.float64).ravel() for picture in pictures])

    def make(self, **changed):
        given = {"dim": 12, "name": "colours", "fingerprint": "1", **changed}
        return retr.encoders.from_callable(self.colours, **given)

    def test_an_index_is_built_with_it_and_opened_with_it(self, archive, tmp_path):
        index = Index.build(archive, tmp_path / "x.retr", encoder=self.make())
        assert index.search(image=archive / "healthy/000.png", k=1, include_self=True).ids == ["healthy/000.png"]
        opened = Index.open(index.path)
        assert opened.search(id="healthy/000.png", k=2).ids == index.search(id="healthy/000.png", k=2).ids
        with pytest.raises(retr.EncoderNotFoundError, match="ask by id or by vector, give the encoder itself"):
            opened.search(image=archive / "healthy/000.png")
        again = Index.open(index.path, encoder=self.make())
        assert again.search(image=archive / "healthy/000.png", k=3).ids == opened.search(id="healthy/000.png", k=3).ids
        with pytest.raises(retr.EncoderMismatchError, match="the weights of 'colours' changed"):
            Index.open(index.path, encoder=self.make(fingerprint="2"))

    def test_a_module_is_evaluated_without_gradients(self):
        torch = pytest.importorskip("torch")
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Linear(12, 3))

        def prepare(image):
            return torch.from_numpy(np.array(image.resize((2, 2)), np.float32)) / 255

        with pytest.raises(UsageError, match="a torch module needs prepare="):
            retr.encoders.from_callable(network, dim=3, name="mine")
        encoder = retr.encoders.from_callable(network, dim=3, name="mine", prepare=prepare)
        picture = np.asarray(Image.new("RGB", (9, 8), "teal"))
        one, two = encoder.encode_images([picture, picture])
        assert one.tolist() == two.tolist()
        before = encoder.info.weights_sha256
        with torch.no_grad():
            network[2].bias += 1
        assert retr.encoders.from_callable(network, dim=3, name="mine", prepare=prepare).info.weights_sha256 != before

    def test_what_cannot_be_meant_is_refused(self):
        for changed, said in (
            ({"name": "lite"}, "'lite' is an encoder of `retr encoders ls`"),
            ({"name": "a\nb"}, "a name that can be printed"),
            ({"fingerprint": None}, "needs a fingerprint"),
            ({"dim": 0}, "at least one dimension"),
            ({"similarity": "l2"}, "'cosine' or 'dot'"),
        ):
            with pytest.raises(UsageError, match=said):
                self.make(**changed)
        with pytest.raises(UsageError, match=r"1 pictures and must return numbers of the shape \(1, 7\)"):
            self.make(dim=7).encode_images([np.zeros((8, 8, 3), np.uint8)])
