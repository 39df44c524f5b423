"""One open index, many threads: what is loaded and made once, and answers that each come of one version."""

from __future__ import annotations

import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from patience import LONG

from retr import Index, IndexNotFoundError, RetrError, UsageError
from retr.index.disk import segments
from retr.retrieval.encoders import registry
from retr.retrieval.encoders.base import BaseEncoder, alone
from retr.retrieval.encoders.spec import Card, Spec


def from_threads(count, ask):
    """Ask from several threads at the same time; what each was answered."""
    start = threading.Barrier(count)

    def one(number):
        start.wait()
        return ask(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.fixture
def built(archive, tmp_path, fake_encoder):
    return Index.build(archive, tmp_path / "x.retr", encoder=fake_encoder, metadata=archive / "labels.csv")


@pytest.fixture
def loads(monkeypatch, make_encoder):
    """How often the encoder ``fake`` was loaded, which takes a moment."""
    found = []

    def load(*, device="auto", precision="auto"):
        time.sleep(0.05)
        found.append(make_encoder())
        return found[-1]

    card = Card(name="fake", summary="", modality="", dim=None, text=False, licence="", source="")
    spec = Spec(card=card, load=load)
    known = registry.get_spec
    monkeypatch.setattr(registry, "get_spec", lambda name: spec if name == "fake" else known(name))
    return found


class TestMadeOnce:
    def test_eight_threads_load_an_encoder_once(self, built, loads, make_picture):
        index = Index.open(built.path)
        pictures = [np.asarray(make_picture(number)) for number in range(8)]
        found = from_threads(8, lambda number: index.search(image=pictures[number], k=3).ids)
        assert len(loads) == 1
        assert found == [index.search(image=picture, k=3).ids for picture in pictures]
        assert index.snapshot().encoder is index.encoder is loads[0]

    def test_two_encoders_are_loaded_one_after_the_other(self, loads, monkeypatch):
        inside, most = [], []
        spec = registry.get_spec("fake")

        def load(**options):
            inside.append(1)
            most.append(len(inside))
            encoder = spec.load(**options)
            inside.pop()
            return encoder

        monkeypatch.setattr(registry, "get_spec", lambda _: Spec(card=spec.card, load=load))
        monkeypatch.setattr(Spec, "options", ("device", "precision"))
        found = from_threads(3, lambda _: registry.load_encoder("fake"))
        assert len({id(one) for one in found}) == 3
        assert most == [1, 1, 1]

    def test_a_network_runs_in_one_thread_at_a_time(self, make_encoder, make_picture):
        inside, most = [], []

        class Counted(make_encoder):
            def encode_prepared(self, batch):
                inside.append(1)
                most.append(len(inside))
                found = super().encode_prepared(batch)
                inside.pop()
                return found

            def text_lengths(self, texts):
                return [(self.encode_prepared(np.zeros((1, 3, 32, 32))).shape[0], 1) for _ in texts]

            @alone
            def score(self):
                return self.text_lengths(["a"])

        encoder = Counted(seconds=0.002, batch_size=1)
        pictures = [np.asarray(make_picture(number)) for number in range(4)]

        def ask(number):
            return encoder.score() if number % 2 else encoder.encode_images(pictures)

        found = from_threads(6, ask)
        assert set(most) == {1}
        assert found[1] == [(1, 1)]
        assert np.array_equal(found[0], encoder.encode_images(pictures))

    def test_an_encoder_can_be_sent_and_may_be_a_frozen_dataclass(self, fake_encoder, make_picture):
        from dataclasses import dataclass

        picture = np.asarray(make_picture(1))
        sent = pickle.loads(pickle.dumps(fake_encoder))
        assert np.array_equal(sent.encode_images([picture]), fake_encoder.encode_images([picture]))

        @dataclass(frozen=True)
        class Frozen(BaseEncoder):
            def prepare(self, image):
                return np.asarray(image)

            def encode_prepared(self, batch):
                return np.ones((len(batch), 2), np.float32)

        assert Frozen().encode_prepared(np.zeros((3, 1))).shape == (3, 2)
        with pytest.raises(TypeError, match="abstract"):
            type("Unfinished", (BaseEncoder,), {})()


# what Python 3.12 says of forks beside threads
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
class TestForking:
    def test_an_encoder_that_would_hang_in_a_child_says_so(self, make_encoder, make_picture):
        class Threaded(make_encoder):
            threads = 2

            def survives_fork(self):
                return self.threads == 1

        encoder, picture = Threaded(), np.asarray(make_picture(1))
        unused = Threaded()
        encoder.encode_images([picture])
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            said = []
            try:
                unused.encode_images([picture])
                encoder.encode_images([picture])
            except RetrError as error:
                said.append(str(error))
            encoder.threads = 1
            encoder.encode_images([picture])
            os.write(write, "".join(said).encode())
            os._exit(0)
        os.waitpid(child, 0)
        said = os.read(read, 1000).decode()
        os.close(read)
        os.close(write)
        assert "'fake' ran before this process was forked" in said
        assert "spawn" in said

    def test_an_index_that_was_open_is_searched_in_the_child(self, built):
        index = Index.open(built.path)
        asked = np.asarray(index.store.vectors(np.array([3]))[0])
        expected = index.search(vector=asked, where="label = 'glaucoma'", k=3)
        child = os.fork()
        if child == 0:
            same = index.search(vector=asked, where="label = 'glaucoma'", k=3) == expected
            os._exit(0 if same and index.refresh() is False else 1)
        assert os.waitpid(child, 0)[1] == 0


class TestMovingOn:
    def test_refresh_says_whether_there_was_a_newer_version(self, built):
        index = Index.open(built.path)
        before = index.store
        assert index.refresh() is False
        assert index.store is before
        built.delete(ids=[next(iter(built))])
        assert index.refresh() is True
        assert (len(index), index.store.version) == (11, built.store.version)
        assert index.refresh() is False

    def test_what_did_not_change_is_not_opened_anew(self, built, monkeypatch, archive, make_picture):
        index = Index.open(built.path)
        index.search(where="label = 'glaucoma'", id="healthy/000.png")
        first = index.store.segments[0]
        first.table(["id"], index.store.schema, np.array([0]))
        more = archive.parent / "more"
        more.mkdir()
        make_picture(99).save(more / "new.png")
        monkeypatch.setattr("retr.index.rows.writer.last_run", lambda *_, **__: [])
        built.add(more)
        built.delete(ids=["healthy/000.png"])
        assert index.refresh()
        monkeypatch.setattr(segments.pq, "read_metadata", lambda _: pytest.fail("read again"))
        again = index.store.segments[0]
        assert again is not first
        assert again.vectors is first.vectors
        assert again.table(["id"], index.store.schema, np.array([1]))["id"][0].as_py()
        assert "healthy/000.png" not in index

    def test_another_index_in_the_same_place_is_refused(self, tmp_path, built):
        import shutil

        index = Index.open(built.path)
        shutil.rmtree(built.path)
        with pytest.raises(IndexNotFoundError):
            index.refresh()
        Index.from_vectors(np.eye(3), {"id": ["a", "b", "c"]}, built.path, encoder="mine", fingerprint="1")
        with pytest.raises(IndexNotFoundError, match="another index lies at"):
            index.refresh()
        assert len(index) == 12, "it goes on with what it has"

    def test_a_snapshot_stays(self, built):
        now = built.snapshot()
        built.delete(where="label = 'healthy'")
        assert (len(now), len(built)) == (12, 6)
        assert now["healthy/000.png"]["label"] == "healthy"
        with now:
            pass
        assert len(built) == 6, "only the snapshot is closed"
        with pytest.raises(UsageError, match="closed"):
            now.snapshot()
        assert built.snapshot().refresh() is False


class TestClosing:
    def test_a_search_that_has_begun_ends(self, built, make_encoder, make_picture):
        begun, go_on = threading.Event(), threading.Event()

        class Slow(make_encoder):
            def encode_prepared(self, batch):
                begun.set()
                go_on.wait(LONG)
                return super().encode_prepared(batch)

        index = Index.open(built.path, encoder=Slow())
        picture = np.asarray(make_picture(3))
        expected = built.search(image=picture).ids
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(index.search, image=picture)
            assert begun.wait(LONG)
            index.close()
            go_on.set()
            assert found.result().ids == expected
        with pytest.raises(UsageError, match="closed"):
            index.search(image=picture)
