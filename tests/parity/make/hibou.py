"""Reference arrays of Hibou-B: ``python tests/parity/make/hibou.py CLONE``.

CLONE is HistAI/hibou at c453bbe4dab0fec6f7df343b09ea87048629c58d; hibou/models/vision_transformer.py is run, built as
hibou/models/__init__.py builds it but narrow, with the transform of example.ipynb for pictures of 56 pixels.
"""

from __future__ import annotations

import importlib
import sys
import types
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import narrow
import torch

from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
from torchvision import transforms as T  # noqa: E402

# the package's own __init__ imports a segmentation network as well, which is not needed
package = types.ModuleType("hibou_models")
package.__path__ = [str(Path(sys.argv[1]) / "hibou" / "models")]
sys.modules["hibou_models"] = package
theirs = importlib.import_module("hibou_models.vision_transformer")
attention = importlib.import_module("hibou_models.layers").MemEffAttention

model = theirs.DinoVisionTransformer(
    img_size=56,
    patch_size=14,
    embed_dim=48,
    depth=2,
    num_heads=3,
    mlp_ratio=4,
    init_values=1e-5,
    ffn_layer="swiglufused",
    block_chunks=0,
    num_register_tokens=4,
    interpolate_offset=0,
    interpolate_antialias=True,
    block_fn=partial(theirs.Block, attn_class=attention),
)
model.load_state_dict(narrow.record_keys("hibou", model.state_dict()), strict=True)
model.eval()
transform = T.Compose(
    [
        T.Resize((56, 56), interpolation=T.InterpolationMode.BICUBIC),
        T.ToTensor(),
        T.Normalize((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)),
    ]
)
with torch.no_grad():
    vectors = model(torch.stack([transform(picture) for picture in narrow.pictures()]))
narrow.record("hibou", "HistAI/hibou c453bbe hibou/models/vision_transformer.py", images=vectors)
