from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError, UsageError, WeightsError
from retr.retrieval.encoders.runtime import preprocess, torch_encoder
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder, choose_device, choose_precision

INFO = EncoderInfo("toy", 8, "cosine", "anything", False, "0" * 64, "none")


class Toy(TorchEncoder):
    """A convolution and a mean; `scale` beyond 1 makes it ill-conditioned, so that bf16 gives another vector."""

    def __init__(self, scale: float = 1, **options):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, bias=False), torch.nn.Flatten(2))
        self.offset = scale
        super().__init__(INFO, network, **options)

    def prepare(self, image):
        return np.asarray(image.resize((32, 32)), dtype=np.float32).transpose(2, 0, 1) / 255

    def forward(self, pixels):
        return (self.network(pixels) + self.offset - self.offset).mean(-1)


def test_bf16_is_kept_where_it_changes_nothing():
    encoder = Toy(1, device="cpu", precision="bf16")
    assert encoder.info.precision == "bf16"
    assert encoder.network[0].weight.dtype == torch.bfloat16
    assert encoder.notes == []


def test_bf16_is_given_up_where_it_changes_the_picture():
    encoder = Toy(1000, device="cpu", precision="bf16")
    assert encoder.info.precision == "fp32"
    assert encoder.network[0].weight.dtype == torch.float32
    (note,) = encoder.notes
    assert "bf16 was asked for" in note
    assert "running in fp32" in note


def test_vectors_are_float32_and_need_no_gradient(pictures):
    encoder = Toy(device="cpu", precision="bf16")
    vectors = encoder.encode_images(pictures)
    assert vectors.dtype == np.float32
    assert vectors.shape == (12, 8)
    assert not any(p.requires_grad for p in encoder.network.parameters())
    assert not encoder.network.training


def test_auto_takes_bf16_only_with_fast_bf16(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert choose_precision("auto", cpu) == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_precision("auto", cpu) == "fp32"


def test_inputs_of_several_shapes_keep_their_order(pictures):
    class Aspect(Toy):
        def prepare(self, image):
            side = image.resize((image.width // 10, 32))
            return np.asarray(side, dtype=np.float32).transpose(2, 0, 1) / 255

    encoder = Aspect(device="cpu", precision="fp32")
    together = encoder.encode_images(pictures)
    alone = np.concatenate([encoder.encode_images([p]) for p in pictures])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:"])
def test_an_unknown_device_is_refused(device):
    if device == "cpu:":
        assert choose_device("cpu").type == "cpu"
        return
    with pytest.raises(UsageError, match=repr(device)):
        choose_device(device)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="no device 'cuda:99'"):
        choose_device("cuda:99")


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_precision_that_cannot_be_is_refused(precision):
    with pytest.raises(UsageError, match=repr(precision)):
        choose_precision(precision, torch.device("cpu"))


def test_the_threshold_is_the_documented_one():
    assert torch_encoder._CLOSE_ENOUGH == 0.999


def test_a_batch_that_does_not_fit_is_halved(pictures):
    seen = []

    class Small(Toy):
        def forward(self, pixels):
            seen.append(len(pixels))
            if len(pixels) > 3:
                raise torch.OutOfMemoryError
            return super().forward(pixels)

    small, large = Small(device="cpu", precision="fp32"), Toy(device="cpu", precision="fp32")
    batch = np.stack([large.prepare(p) for p in pictures])
    np.testing.assert_allclose(small.encode_prepared(batch), large.encode_prepared(batch), atol=1e-6)
    assert seen == [12, 6, 3, 3, 6, 3, 3]


def test_a_picture_that_does_not_fit_alone_is_one_line(pictures):
    class Full(Toy):
        def forward(self, pixels):
            raise torch.OutOfMemoryError

    with pytest.raises(RetrError, match="one picture does not fit into the memory of cpu; free some"):
        Full(device="cpu", precision="fp32").encode_images(pictures[:2])


@pytest.mark.parametrize("older", [False, True])
def test_full_precision_is_held_whatever_a_program_chose(older):
    """Settings only, which a build for CPUs keeps too; each restored as it was."""
    kinds = torch.backends.cudnn.conv, torch.backends.cuda.matmul

    def chosen():
        return [kind.fp32_precision for kind in kinds]

    try:
        if older:
            torch.set_float32_matmul_precision("high")
        else:
            kinds[1].fp32_precision = "tf32"
        with pytest.raises(ZeroDivisionError), torch_encoder._no_tf32():
            assert chosen() == ["ieee", "ieee"]
            raise ZeroDivisionError
        assert chosen() == ["tf32", "tf32"]
    finally:
        torch.set_float32_matmul_precision("highest")
    assert chosen()[1] != "tf32"


def test_a_stack_is_the_pictures_whatever_memory_it_lies_in(pictures):
    encoder = Toy(device="cpu", precision="fp32")
    prepared = [encoder.prepare(p) for p in pictures]
    stacked = encoder.stack(prepared)
    np.testing.assert_array_equal(stacked, prepared)
    # a GPU that is not there: memory cannot be locked either, and plain memory serves
    encoder.device = torch.device("cuda")
    np.testing.assert_array_equal(encoder.stack(prepared), stacked)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_batch_follows_from_memory(pictures):
    on_gpu = Toy(device="cuda", precision="fp32")
    assert on_gpu.batch_size == 512
    stacked = on_gpu.stack([on_gpu.prepare(p) for p in pictures])
    assert torch.from_numpy(stacked).is_pinned()
    np.testing.assert_allclose(
        on_gpu.encode_images(pictures), Toy(device="cpu", precision="fp32").encode_images(pictures), atol=1e-4
    )


def test_pictures_that_travel_in_bytes_become_the_very_pixels(monkeypatch):
    class Bytes(TorchEncoder):
        table = preprocess.table(preprocess.IMAGENET_MEAN, preprocess.IMAGENET_STD)

        def to_bytes(self, image):
            return preprocess.to_bytes(image.resize((8, 6)))

        def forward(self, pixels):
            return pixels.flatten(1)

    monkeypatch.setattr("retr.retrieval.encoders.runtime.torch_encoder._LOOKED_UP", 100)
    info = EncoderInfo("bytes", 144, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    encoder = Bytes(info, torch.nn.Identity(), device="cpu", precision="fp32")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)) for _ in range(5)]
    prepared = np.stack([encoder.prepare(one) for one in pictures])
    small = np.stack([encoder.compact(one) for one in pictures])
    assert (prepared.dtype, small.dtype) == (np.float32, np.uint8)
    # as torchvision's ToTensor and Normalize have it
    mean, std = (np.float32(part)[:, None, None] for part in (preprocess.IMAGENET_MEAN, preprocess.IMAGENET_STD))
    np.testing.assert_array_equal(prepared, (small.astype(np.float32) / np.float32(255) - mean) / std)
    np.testing.assert_array_equal(encoder.encode_prepared(small), encoder.encode_prepared(prepared))
    np.testing.assert_array_equal(encoder.encode_images(pictures), encoder.encode_prepared(prepared))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(value):
    class Broken(Toy):
        def __init__(self):
            network = torch.nn.BatchNorm2d(3)
            network.running_var[1] = value
            TorchEncoder.__init__(self, INFO, network, device="cpu", precision="fp32")

    with pytest.raises(WeightsError, match="the weights of 'toy' hold what is no number"):
        Broken()


def test_weights_whose_sum_is_too_large_are_numbers():
    network = torch.nn.Linear(2, 2, bias=False)
    network.weight.data.fill_(3e38)
    assert not network.weight.sum().isfinite()
    assert torch_encoder._finite(network)


def test_pictures_that_come_out_as_no_numbers_are_refused():
    class Divided(Toy):
        def prepare(self, image):
            with np.errstate(all="ignore"):
                return super().prepare(image) / np.float32(0)

    with pytest.raises(WeightsError, match="the pictures of 'toy' are prepared to what is no number"):
        Divided(device="cpu", precision="fp32")
