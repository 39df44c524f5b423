"""The network's thread: it runs while more is handed over, in order, a bounded number of batches at a time."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from patience import LONG

from retr.index.store import Store
from retr.retrieval.ingest.build import build
from retr.retrieval.ingest.decode import Frame
from retr.retrieval.ingest.network import BATCHES_AHEAD, EmbeddingThread


@pytest.fixture
def frames(fake_encoder, make_picture):
    def make(count, first=0):
        pictures = [make_picture(number) for number in range(first, first + count)]
        return [Frame("", 48, 40, "RGB", {}, fake_encoder.prepare(picture)) for picture in pictures]

    return make


def test_it_runs_while_more_is_handed_over(make_encoder, frames, make_picture):
    handed_over = threading.Event()

    class Waiting(make_encoder):
        def encode_prepared(self, batch):
            assert handed_over.wait(LONG)
            return super().encode_prepared(batch)

    given = frames(11)
    with EmbeddingThread(Waiting(), ()) as network:
        assert list(network.embed(given[:6])) == []
        assert list(network.embed(given[6:10])) == []
        assert all(frame.prepared is None for frame in given[:8])
        assert all(frame.vector is None for frame in given)
        handed_over.set()
        assert len(list(network.embed(given[10:], everything=True))) == 3
    expected = make_encoder().encode_images([make_picture(number) for number in range(11)])
    np.testing.assert_array_equal([frame.vector for frame in given], expected)


def test_no_more_batches_are_stacked_than_it_may_have(make_encoder, frames):
    ahead = []

    class Counting(make_encoder):
        stacked = done = 0

        def stack(self, inputs):
            self.stacked += 1
            ahead.append(self.stacked - self.done)
            return super().stack(inputs)

        def encode_prepared(self, batch):
            vectors = super().encode_prepared(batch)
            self.done += 1
            return vectors

    with EmbeddingThread(Counting(seconds=0.01), ()) as network:
        for start in range(0, 48, 3):
            list(network.embed(frames(3, start)))
        list(network.embed([], everything=True))
    assert len(ahead) == 12
    assert max(ahead) <= BATCHES_AHEAD


def test_an_error_in_it_is_the_callers_and_ends_the_thread(make_encoder, frames):
    class Failing(make_encoder):
        def encode_prepared(self, batch):
            raise ZeroDivisionError("of the network")

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="of the network"):
        with EmbeddingThread(Failing(), ()) as network:
            for start in range(0, 40, 4):
                list(network.embed(frames(4, start)))
    assert threading.active_count() == before


def test_a_picture_without_a_full_batch_does_not_hold_up_known_bytes(
    make_archive, tmp_path, fake_encoder, make_picture
):
    archive, index = make_archive(4), tmp_path / "index"
    build(archive, index, fake_encoder)
    known = (archive / "healthy" / "000.png").read_bytes()
    make_picture(100).save(archive / "healthy" / "a.png")
    for number in range(60):
        (archive / "healthy" / f"b{number:02d}.png").write_bytes(known)
    before = Store.open(index).version
    report = build(archive, index, fake_encoder, commit_rows=8)
    assert (report.embedded, report.reused) == (1, 60)
    assert Store.open(index).version - before >= 4
