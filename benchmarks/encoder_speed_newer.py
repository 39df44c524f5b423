"""How many pictures a CPU-second the newer encoders embed, and whether a compiled network would be faster.

``OMP_NUM_THREADS=1 python -m retr.benchmarks.encoder_speed_newer`` needs no weights: networks of the published sizes
are made with random values, on which speed does not depend, one at a time. ``images_per_cpu_second`` is of the network
alone, a few pictures through one thread, the better of two rounds. For three of them ``torch.compile`` and ONNX Runtime
run the same pixels: their rate by CPU time against the plain network's, the smallest cosine to it, and the seconds that
compiling takes.
"""

from __future__ import annotations

import gc
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retr.benchmarks.encoder_speed import best_seconds
from retr.benchmarks.record import record
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURES = 2
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


@torch.inference_mode()
def measure(name: str) -> dict[str, Any]:
    """Measure one network, and for a few what compiling gains."""
    architecture, side, arguments = NETWORKS[name]
    network = build(architecture, side, arguments)
    pixels = torch.randn(PICTURES, 3, side, side, generator=torch.Generator().manual_seed(0))
    plain = network(pixels).flatten(1)
    seconds = best_seconds(partial(network, pixels), time.process_time)
    figures: dict[str, Any] = {
        "parameters": sum(one.numel() for one in network.parameters()),
        "images_per_cpu_second": round(PICTURES / seconds, 3),
    }
    if name in COMPILED:
        for how, prepare in (("torch.compile", _compiled), ("onnxruntime", _onnx)):
            figures[how] = _gained(prepare, network, pixels, plain, seconds)
    return figures


def _gained(
    prepare: Callable[[torch.nn.Module, torch.Tensor], Callable[[], torch.Tensor]],
    network: torch.nn.Module,
    pixels: torch.Tensor,
    plain: torch.Tensor,
    seconds: float,
) -> dict[str, Any] | str:
    start = time.perf_counter()
    try:
        run = prepare(network, pixels)
        found = run().flatten(1)
    except Exception as error:  # noqa: BLE001 - whatever a compiler raises is the finding
        return f"not measured: {type(error).__name__}"
    compiling = time.perf_counter() - start
    cosine = torch.nn.functional.cosine_similarity(found.double(), plain.double()).min()
    return {
        "rate_against_plain": round(seconds / best_seconds(run, time.process_time), 2),
        "smallest_cosine": round(float(cosine), 7),
        "seconds_to_compile": round(compiling, 1),
    }


def _compiled(network: torch.nn.Module, pixels: torch.Tensor) -> Callable[[], torch.Tensor]:
    return partial(torch.compile(network), pixels)


def _onnx(network: torch.nn.Module, pixels: torch.Tensor) -> Callable[[], torch.Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        torch.onnx.export(network, (pixels,), str(path), input_names=["pixels"], dynamo=False)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {"pixels": np.asarray(pixels)}
    return lambda: torch.from_numpy(session.run(None, given)[0])


def main() -> None:
    """Measure one network after the other, print and write the result file."""
    ensure_torchvision()
    torch.set_num_threads(1)
    figures = {}
    for name in NETWORKS:
        figures[name] = measure(name)
        gc.collect()
    record(
        "encoder_speed_newer",
        figures,
        command="OMP_NUM_THREADS=1 python -m retr.benchmarks.encoder_speed_newer",
        note="one run beside other work; random weights of the published sizes, network only, one thread",
    )


if __name__ == "__main__":
    main()
