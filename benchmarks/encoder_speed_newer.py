"""How many pictures a CPU-second the newer encoders embed, and whether ONNX Runtime or a compiled network is faster.

``OMP_NUM_THREADS=1 python -m retr.benchmarks.encoder_speed_newer`` needs no weights: networks of the published sizes
are made with random values, on which speed does not depend, one at a time. ``images_per_cpu_second`` is of the network
alone, in torch, a few pictures through one thread. For three of them ``torch.compile`` is measured beside it.

``RETR_WEIGHTS=FOLDER OMP_NUM_THREADS=1 python -m retr.benchmarks.encoder_speed_newer --onnx`` measures what
``load_encoder(..., runtime="onnx")`` gains: for the published medical encoders whose weights are in the folder
(``python tests/parity/standin.py FOLDER`` fills it) and some of the networks. Both run the same pictures in turns: the
rate by CPU time against torch's (the better of each one's rounds), the smallest cosine and the largest difference of
unit vectors, and the seconds that tracing and checking take; or why it is refused.
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import PIL.Image
import torch

from retr.benchmarks.encoder_speed import VARIANTS, best_seconds
from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError, WeightsError
from retr.index.vectors import unit
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.runtime.onnx_graph import run_on_onnx
from retr.retrieval.encoders.runtime.preprocess import to_unit
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.sample_picture import picture
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retr.retrieval.encoders.runtime.onnx_graph import Graph

PICTURES, ROUNDS = 2, 2
# name: architecture of timm, side of the picture, what the card hands to timm
NETWORKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "chexzero, eyeclip, PLIP, PubMedCLIP (ViT-B/32)": ("vit_base_patch32_clip_224", 224, {}),
    "ret-clip, unimed-clip, Phikon, Kaiko ViT-B/16, BiomedCLIP (ViT-B/16)": ("vit_base_patch16_224", 224, {}),
    "H0-mini, Hibou-B (ViT-B/14, SwiGLU, 4 registers)": (
        "vit_base_patch14_reg4_dinov2",
        224,
        {"mlp_ratio": 5.33334, "mlp_layer": "SwiGLUPacked", "act_layer": "silu"},
    ),
    "Lunit, Kaiko ViT-S/16": ("vit_small_patch16_224", 224, {}),
    "Lunit, Kaiko ViT-S/8": ("vit_small_patch8_224", 224, {}),
    "Lunit ResNet-50": ("resnet50", 224, {}),
    "retfound (MAE), UNI, Phikon-v2 (ViT-L/16)": ("vit_large_patch16_224", 224, {}),
    "retfound (DINOv2), GPFM, MONET (ViT-L/14)": ("vit_large_patch14_dinov2", 224, {}),
    "UNI2-h (681 million parameters)": (
        "vit_giant_patch14_224",
        224,
        {
            "depth": 24,
            "num_heads": 24,
            "embed_dim": 1536,
            "mlp_ratio": 5.33334,
            "reg_tokens": 8,
            "no_embed_class": True,
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "silu",
        },
    ),
    "Virchow, Virchow2 (ViT-H/14, SwiGLU)": (
        "vit_huge_patch14_224",
        224,
        {"mlp_ratio": 5.3375, "reg_tokens": 4, "mlp_layer": "SwiGLUPacked", "act_layer": "silu"},
    ),
    "H-optimus, GigaPath, Midnight (ViT-g/14)": ("vit_giant_patch14_reg4_dinov2", 224, {}),
    "Kaiko ViT-B/8": ("vit_base_patch8_224", 224, {}),
    "medimageinsight (DaViT, 480)": ("davit", 480, {}),
    "MedSigLIP-448 (SO400M/14)": ("vit_so400m_patch14_siglip_gap_448", 448, {}),
}
ON_ONNX = (
    "Lunit, Kaiko ViT-S/16",
    "Lunit ResNet-50",
    "chexzero, eyeclip, PLIP, PubMedCLIP (ViT-B/32)",
    "ret-clip, unimed-clip, Phikon, Kaiko ViT-B/16, BiomedCLIP (ViT-B/16)",
    "retfound (MAE), UNI, Phikon-v2 (ViT-L/16)",
)
COMPILED = ("Lunit, Kaiko ViT-S/16", "Lunit ResNet-50", "chexzero, eyeclip, PLIP, PubMedCLIP (ViT-B/32)")


def build(architecture: str, side: int, arguments: dict[str, Any]) -> torch.nn.Module:
    """Make a network with random values."""
    if architecture == "davit":  # MedImageInsight's is none of timm's
        return _davit().eval().requires_grad_(requires_grad=False)
    import timm

    chosen = dict(arguments)
    if "mlp_layer" in chosen:
        chosen |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
    if architecture != "resnet50":  # it has no size of its own
        chosen["img_size"] = side
    network: torch.nn.Module = timm.create_model(architecture, num_classes=0, **chosen)
    return network.eval().requires_grad_(requires_grad=False)


def _davit() -> torch.nn.Module:
    from retr.retrieval.encoders.towers.davit import DaViT

    widths, heads = (256, 512, 1024, 2048), (8, 16, 32, 64)
    shapes = ((7, 3, 3, 3), (4, 2, 2, 2), (3, 1, 1, 1), (False, True, True, True))
    return DaViT(
        widths, (1, 1, 9, 1), heads, heads, *shapes, window=12, at_attention=True, at_perceptron=True, dynamic=True
    )


class Bare(TorchEncoder):
    """A network as an encoder; pictures are squashed to its size."""

    def __init__(self, name: str, network: torch.nn.Module, side: int) -> None:
        self.side = side
        made = hashlib.sha256(name.encode()).hexdigest()  # of the name: every network of it has the same values
        info = EncoderInfo(name, 1, "cosine", "anything", text=False, weights_sha256=made, preprocessing="squashed")
        super().__init__(info, network, device="cpu", precision="fp32")

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Squash a picture: float32 ``(3, side, side)``, 0..1."""
        return to_unit(image.resize((self.side, self.side)))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels ``(n, 3, side, side)``."""
        return cast("torch.Tensor", self.network(pixels)).flatten(1)


def prepared(encoder: TorchEncoder) -> NDArray[np.float32]:
    """Prepare two pictures, or one where an encoder keeps their shapes apart."""
    whole = picture()
    made = [encoder.prepare(one) for one in (whole, whole.transpose(PIL.Image.Transpose.ROTATE_90))]
    return np.stack(made[: PICTURES if made[0].shape == made[1].shape else 1])


def measure(encoder: TorchEncoder, *, compiled: bool = False) -> dict[str, Any]:
    """Measure one network, and compiled where that is asked."""
    batch = prepared(encoder)
    seconds = best_seconds(partial(encoder.encode_prepared, batch), time.process_time)
    parameters, _ = encoder.size()
    figures: dict[str, Any] = {"parameters": parameters, "images_per_cpu_second": round(len(batch) / seconds, 3)}
    return figures | ({"torch.compile": _compiled(encoder, batch)} if compiled else {})


def measure_onnx(encoder: TorchEncoder) -> dict[str, Any] | str:
    """Measure one encoder in torch and on ONNX Runtime, in turns; or say why it is refused."""
    batch = prepared(encoder)
    start = time.perf_counter()
    try:
        run_on_onnx(encoder)
    except RetrError as error:
        return f"refused: {error.message}"
    seconds, graph = time.perf_counter() - start, encoder.graph

    def run(on: Graph | None) -> NDArray[np.float32]:
        encoder.graph = on
        return encoder.encode_prepared(batch)

    return _against(partial(run, None), partial(run, graph), seconds)


def _compiled(encoder: TorchEncoder, batch: NDArray[np.float32]) -> dict[str, Any] | str:
    network = torch.compile(encoder.network)
    start = time.perf_counter()

    def run() -> NDArray[np.float32]:
        with torch.inference_mode():
            return cast("NDArray[np.float32]", network(torch.from_numpy(batch)).flatten(1).numpy())

    try:
        run()
    except Exception as error:  # noqa: BLE001 - whatever a compiler raises is the finding
        return f"not measured: {type(error).__name__}"
    return _against(partial(encoder.encode_prepared, batch), run, time.perf_counter() - start)


def _against(
    plain: Callable[[], NDArray[np.float32]], other: Callable[[], NDArray[np.float32]], seconds: float
) -> dict[str, Any]:
    """Compare two ways to the same vectors, which take turns: CPU time, and how far the vectors are apart."""
    expected, found = (unit(one()).astype(np.float64) for one in (plain, other))
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for times, one in zip(taken, (plain, other), strict=True):
            start = time.process_time()
            one()
            times.append(time.process_time() - start)
    return {
        "rate_against_torch": round(min(taken[0]) / min(taken[1]), 2),
        "smallest_cosine": round(float((expected * found).sum(axis=1).min()), 7),
        "largest_difference": float(f"{np.abs(expected - found).max():.1e}"),
        "seconds_to_make": round(seconds, 1),
    }


def _bare(name: str) -> Bare:
    architecture, side, arguments = NETWORKS[name]
    return Bare(name, build(architecture, side, arguments), side)


def _all_on_onnx() -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for label, (name, options) in VARIANTS.items():
        try:
            encoder = load_encoder(name, device="cpu", precision="fp32", **options)
        except WeightsError as error:
            figures[label] = f"not measured: {error.message}"
            continue
        figures[label] = measure_onnx(cast("TorchEncoder", encoder))
        del encoder
        gc.collect()
    for name in ON_ONNX:
        figures[name] = measure_onnx(_bare(name))
        gc.collect()
    return figures


def main() -> None:
    """Measure one network after the other, print and write the result file."""
    ensure_torchvision()
    torch.set_num_threads(1)
    note = "one run beside other work; network only, one thread; {} of the published sizes"
    if sys.argv[1:] == ["--onnx"]:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["RETR_CACHE_DIR"] = cache  # what was traced before would be no measurement
            figures = _all_on_onnx()
        record(
            "encoder_speed_onnx",
            figures,
            command="RETR_WEIGHTS=FOLDER OMP_NUM_THREADS=1 python -m retr.benchmarks.encoder_speed_newer --onnx",
            note=note.format("stand-ins and random weights"),
        )
        return
    figures = {}
    for name in NETWORKS:
        figures[name] = measure(_bare(name), compiled=name in COMPILED)
        gc.collect()
    record(
        "encoder_speed_newer",
        figures,
        command="OMP_NUM_THREADS=1 python -m retr.benchmarks.encoder_speed_newer",
        note=note.format("random weights"),
    )


if __name__ == "__main__":
    main()
