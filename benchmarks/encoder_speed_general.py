"""How many pictures a second `lite`, an open_clip and three transformers models embed on this machine.

``python -m retr.benchmarks.encoder_speed_general`` needs no weights: models of the published sizes are made with random
values, on which speed does not depend. What is measured is what `encoder_speed` says.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from retr.benchmarks.encoder_speed import measure
from retr.benchmarks.record import record
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
PROCESSORS: dict[str, dict[str, Any]] = {
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": 224, **HALF},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 224, "width": 224}, **HALF},
    "vit_mae": {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}, **HALF},
}
STATED = {"mean": "0.5", "std": "0.5", "interpolation": "bicubic", "resize_mode": "shortest"}


def transformers_folder(folder: Path, family: str) -> Path:
    """Save a base-size model of a family, with its preprocessing, in a folder."""
    import transformers

    place = folder / family
    transformers.utils.logging.disable_progress_bar()
    config = transformers.AutoConfig.for_model(family)
    transformers.AutoModel.from_config(config).save_pretrained(place)
    (place / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[family]))
    return place


def open_clip_file(folder: Path) -> Path:
    """Save an open_clip ViT-B-32 in a file."""
    import open_clip

    path = folder / "vit_b_32.pt"
    torch.save(open_clip.CLIP(**open_clip.get_model_config("ViT-B-32")).state_dict(), path)
    return path


def main() -> None:
    """Measure, print and write the result file."""
    ensure_torchvision()
    figures: dict[str, Any] = {"lite": measure("lite", {})}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        weights = str(open_clip_file(folder))
        figures["open_clip ViT-B-32"] = measure("open_clip:ViT-B-32", {"weights": weights, **STATED})
        for family in PROCESSORS:
            figures[f"hf {family} base"] = measure(f"hf:{transformers_folder(folder, family)}", {})
    record("encoder_speed_general", figures, note="random weights of the published sizes")


if __name__ == "__main__":
    main()
