"""Reference arrays of a fine-tuned RetiZero: ``python tests/parity/make/retizero_finetuned.py CLONE``.

CLONE is LooKing9218/RetiZero at c216ceeac464852801222522806d331b813399fd. What its Finetuning.py saves is the image
encoder of iden_modules/modeling (here narrow) and a classifier; x_features of Model_Finetuing.forward is the
"backbone" vector. The "retrieval" vector is what ImageRetrieval.py takes, the mean of the patch tokens after the last
block, of pixels in -1..1. The transform is that of utils/dataset_finetuning.py without the flip.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, sys.argv[1])
sys.path.insert(0, str(Path(__file__).parents[1]))
import narrow
import torch
from torch import nn

from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
from iden_modules.modeling.LORA.lora_image_encoder import LoRA_ViT  # noqa: E402
from iden_modules.modeling.models_vit import VisionTransformer  # noqa: E402
from torchvision import transforms as T  # noqa: E402

sizes = {"patch_size": 16, "embed_dim": 128, "depth": 2, "num_heads": 2, "mlp_ratio": 4, "qkv_bias": True}
vit = VisionTransformer(norm_layer=partial(nn.LayerNorm, eps=1e-6), **sizes)
vit.head = nn.Identity()
model = nn.Module()
model.img_encoder = LoRA_ViT(vit, r=8)
model.classifier = nn.Linear(128, 5)
model.load_state_dict(narrow.record_keys("retizero-finetuned", model.state_dict()), strict=True)
model.eval()


def pixels(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Prepare the pictures."""
    transform = T.Compose([T.Resize((224, 224)), T.ToTensor(), T.Normalize(mean, std)])
    return torch.stack([transform(picture) for picture in narrow.pictures()])


after: dict[str, torch.Tensor] = {}
vit.blocks[-1].register_forward_hook(lambda _, __, output: after.update(tokens=output))
with torch.no_grad():
    vit(pixels((0.5,) * 3, (0.5,) * 3))
    retrieval = after["tokens"][:, 1:].mean(1)
    backbone = vit(pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
narrow.record(
    "retizero-finetuned", "LooKing9218/RetiZero c216cee iden_modules/modeling", backbone=backbone, retrieval=retrieval
)
