"""Reference arrays of MedImageInsight: ``python tests/parity/make/medimageinsight.py CLONE [--published]``.

CLONE is visual-layer/MedImageInsight at e31cae3a7e38b577eeb0a439b228d65b1ba613f9, a copy of the code of
lion-ai/MedImageInsights on the hub: UniCLModel.py, ImageEncoder/davit_v1.py, LangEncoder/, ImageDataLoader/transforms.
It imports mup, which is only needed for another parametrisation than the published one's, and einops for two
rearrangements; both are stood in for here. With ``--published`` nothing is recorded but the largest difference between
their code and the encoder in the published sizes, in ``expected/narrow/published_size.json``.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import medimageinsight_folder
import narrow
import torch
from safetensors.torch import save_file

from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import timm.layers  # noqa: E402


def stand_in(name: str, **held: object) -> None:
    """Make a module of that name with these in it."""
    module = types.ModuleType(name)
    module.__dict__.update(held)
    sys.modules[name] = module


def rearrange(x: torch.Tensor, pattern: str, **sizes: int) -> torch.Tensor:
    """Do the two rearrangements of davit_v1.py."""
    if pattern == "b (h w) c -> b c h w":
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], sizes["h"], sizes["w"])
    assert pattern == "b c h w -> b (h w) c"
    return x.flatten(2).transpose(1, 2)


stand_in("mup.init")
stand_in("mup", init=sys.modules["mup.init"], MuReadout=type("MuReadout", (), {}), set_base_shapes=None)
stand_in("einops", rearrange=rearrange)
sys.modules["timm.models.layers"] = timm.layers
clone = Path(sys.argv[1])
sys.path.insert(0, str(clone))
# the packages' own __init__ import readers of training data as well
for name in ("MedImageInsight", "MedImageInsight.ImageEncoder", "MedImageInsight.LangEncoder"):
    stand_in(name, __path__=[str(clone / name.replace(".", "/"))])
stand_in("MedImageInsight.Distributed", __path__=[])
stand_in("MedImageInsight.Distributed.Utils", is_valid_url=lambda path: False, download_file=None)
stand_in("MedImageInsight.Utils", is_main_process=lambda: False, register_norm_module=lambda kind: kind)
logging.disable()
import importlib  # noqa: E402

davit = importlib.import_module("MedImageInsight.ImageEncoder.davit_v1")
stand_in("MedImageInsight.ImageEncoder", build_image_encoder=davit.image_encoder, __path__=[])
language = importlib.import_module("MedImageInsight.LangEncoder.transformer")
tokenizers = importlib.import_module("MedImageInsight.LangEncoder.build")
stand_in(
    "MedImageInsight.LangEncoder",
    build_lang_encoder=language.lang_encoder,
    build_tokenizer=tokenizers.build_tokenizer,
    __path__=[],
)
unicl = importlib.import_module("MedImageInsight.UniCLModel")

published = sys.argv[2:] == ["--published"]
with tempfile.TemporaryDirectory() as scratch:
    config = medimageinsight_folder.published() if published else medimageinsight_folder.config()
    folder = medimageinsight_folder.write(Path(scratch) / "2024.09.27", {}, **config)
    config["VERBOSE"] = False
    config["LANG_ENCODER"]["PRETRAINED_TOKENIZER"] = str(folder / "language_model" / "clip_tokenizer_4.16.2")
    config["UNICL_MODEL"]["PRETRAINED"] = str(folder / "vision_model" / "x.pt")
    keys = unicl.UniCLModel(config).state_dict()
    if published:
        state = narrow.fill({key: tuple(value.shape) for key, value in keys.items()}, "medimageinsight")
    else:
        state = narrow.record_keys("medimageinsight", keys)
    parameters = sum(value.numel() for value in state.values())
    save_file(state, config["UNICL_MODEL"]["PRETRAINED"])
    del state, keys
    model = unicl.build_unicl_model(config)
    model.eval()
    # as ImageDataLoader/transforms/build.py makes them without training
    from torchvision import transforms as T

    image = config["IMAGE_ENCODER"]
    transform = T.Compose(
        [
            T.Resize((image["IMAGE_SIZE"][1], image["IMAGE_SIZE"][0]), interpolation=T.InterpolationMode.BICUBIC),
            T.ToTensor(),
            T.Normalize(mean=image["IMAGE_MEAN"], std=image["IMAGE_STD"]),
        ]
    )
    tokenize = tokenizers.build_tokenizer(config["LANG_ENCODER"])
    tokens = tokenize(
        medimageinsight_folder.TEXTS,
        padding="max_length",
        max_length=config["LANG_ENCODER"]["CONTEXT_LENGTH"],
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        images = model.encode_image(torch.stack([transform(picture) for picture in narrow.pictures()]))
        texts = model.encode_text({name: tokens[name] for name in ("input_ids", "attention_mask")})
    if published:
        del model
        encoder = load_encoder("medimageinsight", weights=folder, device="cpu", precision="fp32")
        pairs = (
            (encoder.encode_images(narrow.pictures()), images),
            (encoder.encode_texts(medimageinsight_folder.TEXTS), texts),
        )
        path = narrow.HERE / "expected" / "narrow" / "published_size.json"
        found = json.loads(path.read_text())
        found["encoders"]["medimageinsight"] = {
            "parameters": parameters,
            "largest_difference": max(float(abs(got - want.numpy()).max()) for got, want in pairs),
            "pictures_apart": float(abs(images[0] - images[1]).max()),
        }
        path.write_text(json.dumps(found, indent=2) + "\n")
        sys.exit()
narrow.record("medimageinsight", "visual-layer/MedImageInsight e31cae3", images=images, texts=texts)
