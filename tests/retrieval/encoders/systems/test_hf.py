"""Random-weight transformers models from local folders: the numbers are transformers' own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from retr.index.errors import NoTextSideError, UsageError, WeightsError
from retr.retrieval.encoders.base import unit
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
transformers = pytest.importorskip("transformers")

WORDS = ["a", "fundus", "photograph", "of", "healthy", "eye", "with", "drusen", "glaucoma"]
TEXTS = ["a fundus photograph", "healthy eye with drusen"]
HERE = {"device": "cpu", "precision": "fp32"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TOWERS = {
    "vision_config": SMALL | {"image_size": 64, "patch_size": 16},
    "text_config": SMALL | {"vocab_size": 20, "max_position_embeddings": 16},
}
VIT = {**SMALL, "image_size": 56, "patch_size": 14}
SQUASH = {"size": {"height": 64, "width": 64}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def save_tokenizer(folder):
    """A word-level tokenizer made here."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "<bos>", "<eos>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)


def save(folder, config, processor):
    torch.manual_seed(1)
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # the library's own draw is so small that all pictures look alike
            parameter.mul_(4).add_(0.01 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder and its model for every family."""
    root = tmp_path_factory.mktemp("hf")
    made = {}

    def add(name, config, processor, *, tokenizer=False):
        (root / name).mkdir()
        made[name] = (root / name, save(root / name, config, processor))
        if tokenizer:
            save_tokenizer(root / name)

    towers = {**TOWERS, "projection_dim": 24}
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    towers["text_config"] = TOWERS["text_config"] | ids
    crop = {"size": {"shortest_edge": 72}, "crop_size": {"height": 56, "width": 56}, "resample": 3}
    clip_crop = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}, "resample": 3}
    bit = {"image_processor_type": "BitImageProcessor", "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2] * 3} | crop
    clip = {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.4] * 3, "image_std": [0.3] * 3} | clip_crop
    siglip = {"image_processor_type": "SiglipImageProcessor", **SQUASH}
    naflex = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 16, "max_num_patches": 20} | {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    vit = {"image_processor_type": "ViTImageProcessor", "size": {"height": 56, "width": 56}, "resample": 3}
    add("clip", transformers.CLIPConfig(**towers), clip, tokenizer=True)
    add("siglip", transformers.SiglipConfig(**TOWERS), siglip, tokenizer=True)
    patches = TOWERS | {"vision_config": SMALL | {"num_patches": 16, "patch_size": 16}}
    add("siglip2", transformers.Siglip2Config(**patches), naflex, tokenizer=True)
    add("dinov2", transformers.Dinov2Config(**VIT), bit)
    add("registers", transformers.Dinov2WithRegistersConfig(**VIT, num_register_tokens=3), bit)
    add("dinov3", transformers.DINOv3ViTConfig(**VIT, num_register_tokens=4), vit)
    add("mae", transformers.ViTMAEConfig(**VIT), vit)
    return made


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2"])
def test_towers_give_transformers_own_numbers(folders, pictures, family):
    folder, model = folders[family]
    encoder = load_encoder(f"hf:org/{family}", weights=folder, **HERE)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        expected = [
            model.get_image_features(**processor(images=p, return_tensors="pt")).pooler_output[0] for p in pictures
        ]
        words = tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt")
        mask = {"attention_mask": words["attention_mask"]} if family == "clip" else {}
        texts = model.get_text_features(input_ids=words["input_ids"], **mask).pooler_output
    found = encoder.encode_images(pictures)
    assert found.shape == (12, encoder.info.dim)
    np.testing.assert_allclose(found, torch.stack(expected).numpy(), atol=1e-3, rtol=1e-4)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts.numpy(), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS[:1]), texts.numpy()[:1], atol=1e-4, rtol=1e-4)
    assert encoder.info.text
    assert encoder.info.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


@pytest.mark.parametrize(
    ("family", "pooling", "first"),
    [
        ("dinov2", None, "cls"),
        ("dinov2", "mean", 1),
        ("registers", "mean", 4),
        ("dinov3", "cls", "cls"),
        ("dinov3", "mean", 5),
    ],
)
def test_dino_pools_as_documented(folders, pictures, family, pooling, first):
    folder, model = folders[family]
    encoder = load_encoder(f"hf:org/{family}", weights=folder, pooling=pooling, **HERE)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        output = model(**processor(images=pictures[:4], return_tensors="pt"))
    expected = output.pooler_output if first == "cls" else output.last_hidden_state[:, first:].mean(1)
    np.testing.assert_allclose(encoder.encode_images(pictures[:4]), expected.numpy(), atol=1e-4)
    assert encoder.info.options == ({"pooling": pooling} if pooling else {})
    patches = encoder.patch_embeddings(pictures[0])
    assert patches.shape == (4, 4, 32)
    if pooling == "mean":
        np.testing.assert_allclose(patches.mean((0, 1)), expected[0].numpy(), atol=1e-4)
    with pytest.raises(NoTextSideError):
        encoder.encode_texts(TEXTS)


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "dinov2", "dinov3", "mae"])
def test_in_bf16_pictures_stay_near_or_it_is_given_up(folders, pictures, family):
    exact = load_encoder(f"hf:org/{family}", weights=folders[family][0], **HERE)
    fast = load_encoder(f"hf:org/{family}", weights=folders[family][0], device="cpu", precision="bf16")
    assert (fast.info.precision == "bf16") == (fast.notes == [])
    cosines = (unit(exact.encode_images(pictures)) * unit(fast.encode_images(pictures))).sum(-1)
    # random weights are ill-conditioned: a single picture may stray
    assert np.median(cosines) > 0.999
    if exact.info.text:
        np.testing.assert_array_equal(exact.encode_texts(TEXTS), fast.encode_texts(TEXTS))


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "dinov2", "dinov3", "mae"])
def test_every_mode_is_embedded(folders, odd_pictures, family):
    encoder = load_encoder(f"hf:org/{family}", weights=folders[family][0], **HERE)
    for kind, image in odd_pictures.items():
        assert np.isfinite(encoder.encode_images([image])).all(), kind


def test_mae_masks_nothing_and_answers_the_same_twice(folders, pictures):
    folder, model = folders["mae"]
    encoder = load_encoder("hf:org/mae", weights=folder, **HERE)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model.config.mask_ratio = 0.0
    with torch.inference_mode():
        tokens = model(**processor(images=pictures, return_tensors="pt")).last_hidden_state
    found = encoder.encode_images(pictures)
    # transformers shuffles the patches at random: equal up to the order of summation
    np.testing.assert_allclose(found, tokens[:, 1:].mean(1).numpy(), atol=1e-4)
    np.testing.assert_array_equal(found, encoder.encode_images(pictures))
    cls = load_encoder("hf:org/mae", weights=folder, pooling="cls", **HERE)
    np.testing.assert_allclose(cls.encode_images(pictures), tokens[:, 0].numpy(), atol=1e-4)


def test_a_checkpoint_trained_with_a_decoder_is_read(folders, tmp_path):
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(
        **VIT, decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2
    )
    transformers.ViTMAEForPreTraining(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_bytes((folders["mae"][0] / "preprocessor_config.json").read_bytes())
    assert load_encoder("hf:org/mae", weights=tmp_path, **HERE).info.dim == 32


@pytest.mark.parametrize("family", ["siglip", "dinov2"])
def test_a_folder_is_indexed_and_queried(folders, tmp_path, pictures, family, monkeypatch):
    from retr import Index

    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "state"))
    archive = tmp_path / "archive"
    archive.mkdir()
    for number, picture in enumerate(pictures[:6]):
        picture.save(archive / f"{number}.png")
    options = {"weights": folders[family][0], **HERE}
    index = Index.build(archive, tmp_path / "x.retr", encoder=f"hf:org/{family}", **options)
    hits = index.search(image=pictures[3], k=2)
    assert hits.ids[0] == "3.png"
    assert hits.scores[0] == pytest.approx(1, abs=1e-5)
    # the folder is found again without being named: this machine remembers it
    opened = Index.open(tmp_path / "x.retr", **HERE)
    if family == "dinov2":
        with pytest.raises(NoTextSideError):
            opened.search(text="drusen", k=2)
        return
    hits = opened.search(text="healthy eye with drusen", k=6)
    vectors = unit(opened.encoder.encode_images([archive / f"{n}.png" for n in range(6)]))
    scores = vectors @ unit(opened.encoder.encode_texts(["healthy eye with drusen"]))[0]
    np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1], atol=1e-5)
    assert hits.ids[0] == f"{scores.argmax()}.png"


def test_a_folder_may_be_the_name(folders, pictures):
    from retr.retrieval.encoders.index_encoder import load_recorded

    folder = folders["dinov2"][0]
    encoder = load_encoder(f"hf:{folder}", **HERE)
    assert encoder.info.name == "hf:dinov2"
    again = load_recorded(None, encoder.info, HERE)
    np.testing.assert_array_equal(again.encode_images(pictures[:2]), encoder.encode_images(pictures[:2]))


def test_weights_that_do_not_fit_are_refused(folders, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders["dinov2"][0], tmp_path / "cut")
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if "layernorm" not in k}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"'cut' do not fit config.json: 2 missing \(layernorm.bias, ...\)"):
        load_encoder("hf:org/x", weights=folder, **HERE)
    save_file(state | {"surprise": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 unknown \(surprise"):
        load_encoder("hf:org/x", weights=folder, **HERE)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="no weights in the folder 'cut'"):
        load_encoder("hf:org/x", weights=folder, **HERE)


def test_a_folder_that_states_no_preprocessing_is_refused(folders, tmp_path):
    import shutil

    folder = shutil.copytree(folders["dinov2"][0], tmp_path / "bare")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="nothing states how its pictures are prepared"):
        load_encoder("hf:org/x", weights=folder, **HERE)


def test_siglips_own_sentencepiece_tokenizer_is_read(folders, tmp_path):
    """Hub folders of SigLIP 1 hold a sentencepiece model, no ``tokenizer.json``."""
    import io
    import shutil

    import sentencepiece

    folder = shutil.copytree(folders["siglip"][0], tmp_path / "pieces", ignore=shutil.ignore_patterns("tokenizer*"))
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS[start:]) for start in range(len(WORDS))] * 20),
        model_writer=trained,
        vocab_size=20,
        model_type="char",
        minloglevel=2,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    )
    (folder / "spiece.model").write_bytes(trained.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
    encoder = load_encoder("hf:org/pieces", weights=folder, **HERE)
    lower, upper, other = encoder.encode_texts(["healthy eye", "Healthy, EYE!", "drusen"])
    # SigLIP's tokenizer strips punctuation; its text side is trained on lower case
    np.testing.assert_array_equal(lower, upper)
    assert np.abs(lower - other).max() > 1e-3


def test_what_cannot_be_meant_is_refused(folders, tmp_path):
    with pytest.raises(WeightsError, match="no folder at '/nowhere'"):
        load_encoder("hf:org/x", weights="/nowhere")
    with pytest.raises(WeightsError, match=r"no config.json in the folder"):
        load_encoder("hf:org/x", weights=tmp_path)
    with pytest.raises(UsageError, match=r"unknown pooling 'max'.*use cls or mean"):
        load_encoder("hf:org/x", weights=folders["dinov2"][0], pooling="max")
    with pytest.raises(UsageError, match=r"unknown pooling 'cls'.*one way only"):
        load_encoder("hf:org/x", weights=folders["clip"][0], pooling="cls")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match="of the family 'bert'; supported: clip, metaclip_2"):
        load_encoder("hf:org/x", weights=tmp_path)


def test_without_tokenizer_texts_say_what_is_missing(folders, tmp_path, monkeypatch):
    import shutil

    folder = shutil.copytree(folders["clip"][0], tmp_path / "mute")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    encoder = load_encoder("hf:nobody/mute", weights=folder, **HERE)
    with pytest.raises(WeightsError, match="the tokenizer of 'hf:nobody/mute' is not on this machine"):
        encoder.encode_texts(TEXTS)
    other = load_encoder("hf:nobody/mute", weights=folder, text_model=folders["clip"][0], **HERE)
    assert other.encode_texts(TEXTS).shape == (2, 24)
