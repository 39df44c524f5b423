"""Reference arrays of CheXzero and EyeCLIP: ``python tests/parity/make/openai_clip.py CHEXZERO EYECLIP``.

CHEXZERO is rajpurkarlab/CheXzero at 5c341db0fe0db2f663a2c136c7120a8b303f1d11 (model.py; the pixels of data_process.py
and of make in zero_shot.py, whose torchvision 0.11.3 does not smooth when it resizes tensors; the tokens of clip.py).
EYECLIP is Michi-3000/EyeCLIP at 7b3f2bc3eda674c4aa8740f4e074e3343032b7cc (eyeclip/model.py, eyeclip/clip.py).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import narrow
import numpy as np
import torch
from PIL import Image

from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
from torchvision import transforms as T  # noqa: E402

SIZES = {
    "embed_dim": 48,
    "image_resolution": 224,
    "vision_layers": 2,
    "vision_width": 128,
    "vision_patch_size": 32,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 64,
    "transformer_heads": 1,
    "transformer_layers": 1,
}


def module(name: str, path: Path, package: str | None = None) -> Any:
    """Load one of their files."""
    full = f"{package}.{name}" if package else name
    spec = importlib.util.spec_from_file_location(full, path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[full] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def cxr_pixels(picture: Image.Image) -> torch.Tensor:
    """data_process.preprocess (Image.ANTIALIAS is LANCZOS today), img_to_hdf5, and the transform of zero_shot.make."""
    ratio = 320.0 / max(picture.size)
    size = tuple(int(side * ratio) for side in picture.size)
    canvas = Image.new("L", (320, 320))
    canvas.paste(picture.resize(size, Image.LANCZOS), ((320 - size[0]) // 2, (320 - size[1]) // 2))
    img = np.repeat(np.expand_dims(np.asarray(canvas, dtype=np.float32), axis=0), 3, axis=0)
    steps = [
        T.Normalize((101.48761,) * 3, (83.43944,) * 3),
        T.Resize(224, interpolation=T.InterpolationMode.BICUBIC, antialias=False),
    ]
    return T.Compose(steps)(torch.from_numpy(img))


chexzero, eyeclip = Path(sys.argv[1]), Path(sys.argv[2])
texts = ["no pleural effusion", "Retinal photograph showing drusen, left eye."]

sys.path.insert(0, str(chexzero))
theirs = module("model", chexzero / "model.py")
model = theirs.CLIP(**SIZES)
model.load_state_dict(narrow.record_keys("chexzero", model.state_dict()), strict=True)
model.eval()
tokenizer = module("simple_tokenizer", chexzero / "simple_tokenizer.py").SimpleTokenizer()


def tokens(texts: list[str]) -> torch.Tensor:
    """Make the tokens as clip.tokenize does."""
    out = torch.zeros(len(texts), 77, dtype=torch.long)
    for row, text in enumerate(texts):
        ids = [tokenizer.encoder["<|startoftext|>"], *tokenizer.encode(text), tokenizer.encoder["<|endoftext|>"]]
        out[row, : len(ids)] = torch.tensor(ids)
    return out


with torch.no_grad():
    images = model.encode_image(torch.stack([cxr_pixels(picture) for picture in narrow.pictures()]))
    narrow.record(
        "chexzero", "rajpurkarlab/CheXzero 5c341db model.py", images=images, texts=model.encode_text(tokens(texts))
    )

package = type(sys)("eyeclip")
package.__path__ = [str(eyeclip / "eyeclip")]
sys.modules["eyeclip"] = package
theirs = importlib.import_module("eyeclip.model")
model = theirs.CLIP(**SIZES)
# what their training saves; the decoder is dropped by name, so its sizes do not matter
keys = {k: v for k, v in model.state_dict().items() if not k.startswith("visual.decoder.decoder_blocks.")}
small = {k: torch.empty(4) if k.startswith("visual.decoder.") else v for k, v in keys.items()}
state = narrow.record_keys("eyeclip", small)
model.load_state_dict({k: v for k, v in state.items() if not k.startswith("visual.decoder.")}, strict=False)
model.eval()
mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
transform = T.Compose(
    [
        T.Resize(224, interpolation=T.InterpolationMode.BICUBIC),
        T.CenterCrop(224),
        T.ToTensor(),
        T.Normalize(mean, std),
    ]
)
with torch.no_grad():
    images = model.encode_image(torch.stack([transform(picture) for picture in narrow.pictures()]))
    narrow.record(
        "eyeclip",
        "Michi-3000/EyeCLIP 7b3f2bc eyeclip/model.py, eyeclip/clip.py",
        images=images,
        texts=model.encode_text(tokens(texts)),
    )
