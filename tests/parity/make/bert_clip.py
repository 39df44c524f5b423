"""Reference arrays of RET-CLIP and UniMed-CLIP: ``python tests/parity/make/bert_clip.py RETCLIP UNIMED``.

RETCLIP is sStonemason/RET-CLIP at 1ddb9a1d331eba9e0a2675f3273e7cbcea0914bd (RET_CLIP/clip/model.py, utils.py,
bert_tokenizer.py); UNIMED is mbzuai-oryx/UniMed-CLIP at 6f091778ce2f76b38fcafcc244ba13d99569330f (src/open_clip).
Vocabulary and sizes are small; whatever they import for training only is stood in for.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import bert_clip_folder
import narrow
import torch

from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import transformers  # noqa: E402
from torchvision import transforms as T  # noqa: E402

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BICUBIC = T.InterpolationMode.BICUBIC


def package(name: str, path: Path) -> None:
    """Make a package of theirs without running its __init__."""
    made = types.ModuleType(name)
    made.__path__ = [str(path)]
    sys.modules[name] = made


def pixels(*resize: object) -> torch.Tensor:
    """Prepare the pictures."""
    transform = T.Compose([*resize, T.ToTensor(), T.Normalize(MEAN, STD)])
    return torch.stack([transform(picture) for picture in narrow.pictures()])


scratch = Path(tempfile.mkdtemp())

# RET-CLIP
clip = scratch / "RET_CLIP" / "clip"
shutil.copytree(Path(sys.argv[1]) / "RET_CLIP" / "clip", clip)
roberta = bert_clip_folder.write_text_model(scratch / "roberta", chinese=True)
shutil.copy(roberta / "vocab.txt", clip / "vocab.txt")
package("RET_CLIP", scratch / "RET_CLIP")
package("RET_CLIP.clip", clip)
sys.path.insert(0, str(scratch))
sys.modules["RET_CLIP.clip"]._tokenizer = importlib.import_module("RET_CLIP.clip.bert_tokenizer").FullTokenizer()
theirs = importlib.import_module("RET_CLIP.clip.model")
utils = importlib.import_module("RET_CLIP.clip.utils")
sizes = bert_clip_folder.BERT
model = theirs.CLIP(
    embed_dim=24,
    image_resolution=224,
    vision_layers=2,
    vision_width=128,
    vision_patch_size=32,
    vocab_size=len((roberta / "vocab.txt").read_text().split()),
    text_attention_probs_dropout_prob=0.1,
    text_hidden_act="gelu",
    text_hidden_dropout_prob=0.1,
    text_hidden_size=sizes["hidden_size"],
    text_initializer_range=0.02,
    text_intermediate_size=sizes["intermediate_size"],
    text_max_position_embeddings=sizes["max_position_embeddings"],
    text_num_attention_heads=sizes["num_attention_heads"],
    text_num_hidden_layers=sizes["num_hidden_layers"],
    text_type_vocab_size=2,
)
keys = {key: value for key, value in model.state_dict().items() if "bert.pooler" not in key}
model.load_state_dict(narrow.record_keys("ret-clip", keys), strict=False)
model.float().eval()
arrays = {}
with torch.no_grad():
    batch = pixels(T.Resize((224, 224), interpolation=BICUBIC))
    arrays["image"] = model.encode_image(batch, None)
    _, arrays["left"], arrays["right"] = model.encode_image(batch, batch)
    _, arrays["left_texts"], arrays["right_texts"] = model.encode_text(utils.tokenize(bert_clip_folder.CHINESE))
narrow.record("ret-clip", "sStonemason/RET-CLIP 1ddb9a1 RET_CLIP/clip", **arrays)

# UniMed-CLIP
package("unimed", Path(sys.argv[2]) / "src" / "open_clip")
theirs = importlib.import_module("unimed.model")
tokenizers = importlib.import_module("unimed.tokenizer")
bert = bert_clip_folder.write_text_model(scratch / "bert", chinese=False)
transformers.BertModel(transformers.BertConfig.from_pretrained(bert), add_pooling_layer=False).save_pretrained(bert)
model = theirs.CLIP(
    24,
    {"image_size": 224, "layers": 2, "width": 128, "patch_size": 32},
    {},
    quick_gelu=True,
    text_encoder_name=str(bert),
)
model.load_state_dict(narrow.record_keys("unimed-clip", model.state_dict()), strict=True)
model.eval()
with torch.no_grad():
    tokens = tokenizers.HFTokenizer(str(bert), context_length=256)(bert_clip_folder.ENGLISH)
    narrow.record(
        "unimed-clip",
        "mbzuai-oryx/UniMed-CLIP 6f09177 src/open_clip",
        images=model.encode_image(pixels(T.Resize(224, interpolation=BICUBIC), T.CenterCrop(224))),
        texts=model.encode_text(tokens),
    )
