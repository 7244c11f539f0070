"""CLIP of the library transformers against ours: same vectors, logits, loss and gradients, there and back."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import transformers
from compare import difference, gradients

from pfmcourse import convert
from pfmcourse.base import CourseError, UnknownName
from pfmcourse.convert import clip
from pfmcourse.models.clip import CLIP, FrozenText, ImagesWithTexts, TextTransformer, TextTransformerConfig, zero_shot
from pfmcourse.models.convnet import ConvNet, ConvNetConfig
from pfmcourse.models.vit import ViT, ViTConfig

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SIZE, CHANNELS, VOCAB, CONTEXT = 12, 2, 11, 7
END = {"by its number": 8, "by the highest number": 2}  # the reference's setting -> how it finds the end of a text
EXACT = [(torch.float64, 1e-9), (torch.float32, 1e-5)]
BOTH = {"num_hidden_layers": 2, "layer_norm_eps": 1e-3}
VISION = {"image_size": SIZE, "patch_size": 3, "num_channels": CHANNELS, "hidden_size": 12, "intermediate_size": 20}
VISION |= {"num_attention_heads": 3} | BOTH
TEXT = {"vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "hidden_size": 8, "intermediate_size": 32}
TEXT |= {"num_attention_heads": 2, "pad_token_id": 0, "bos_token_id": 1} | BOTH


def build(dtype=torch.float64, end=8, vision=None, text=None):
    """A reference of which every weight is random, biases and norms too, so that none can be mistaken for another."""
    parts = {"vision_config": VISION | (vision or {}), "text_config": TEXT | {"eos_token_id": end} | (text or {})}
    reference = transformers.CLIPModel(transformers.CLIPConfig(projection_dim=10, **parts)).to(dtype).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(std=0.4)
        reference.logit_scale.fill_(1.3)
    return reference


@pytest.fixture
def images():
    return torch.rand(4, CHANNELS, SIZE, SIZE, dtype=torch.float64)


@pytest.fixture
def tokens():
    """The end token is 8, which is also the highest; texts are padded with zeros, one with the end token itself."""
    return torch.tensor([[1, 5, 3, 8, 0, 0], [1, 3, 8, 8, 8, 8], [1, 6, 5, 4, 7, 8], [1, 8, 0, 0, 0, 0]])


@pytest.fixture
def mask():
    return torch.arange(6) < torch.tensor([[4], [3], [6], [2]])


# The same numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_vectors_logits_loss_and_gradients(images, tokens, mask, dtype, tolerance, end, masked, activation):
    reference = build(dtype, END[end], {"hidden_act": activation}, {"hidden_act": activation})
    ours, images = convert.from_transformers(reference), images.to(dtype)
    assert (ours.config.text.end is None) == (end == "by the highest number")
    mask = mask if masked else None
    theirs = reference(tokens, images, None if mask is None else mask.long(), return_loss=True)
    assert theirs.logits_per_image.dtype == dtype
    seen, said = ours.encode_image(images), ours.encode_text(tokens, mask)
    assert difference(seen, theirs.image_embeds) < tolerance
    assert difference(said, theirs.text_embeds) < tolerance
    assert difference(zero_shot(seen, said, ours.scale()), theirs.logits_per_image) < tolerance
    loss = ours(ImagesWithTexts(images, tokens, mask))["loss"]
    assert abs(loss.item() - theirs.loss.item()) < tolerance
    loss.backward()
    theirs.loss.backward()
    assert gradients(ours, reference) < tolerance


def test_padding_may_stand_in_front_or_between(tokens, mask):
    reference, holes = build(), mask.clone()
    ours, holes[0, 1] = convert.from_transformers(reference), False
    for turned, seen in ((tokens, holes), (tokens.roll(2, 1)[[0, 3]], mask.roll(2, 1)[[0, 3]])):
        expected = reference.get_text_features(turned, seen.long()).pooler_output
        assert difference(ours.encode_text(turned, seen), F.normalize(expected, dim=1)) < 1e-9
        assert difference(ours.encode_text(turned), F.normalize(expected, dim=1)) > 1e-3, "the mask matters"


@pytest.mark.parametrize(("height", "width"), [(18, 18), (6, 15)])
def test_pictures_of_another_size(height, width):
    reference, images = build(), torch.rand(2, CHANNELS, height, width, dtype=torch.float64)
    expected = reference.get_image_features(images, interpolate_pos_encoding=True).pooler_output
    expected = F.normalize(expected, dim=1)
    assert difference(convert.from_transformers(reference).encode_image(images), expected) < 1e-9


def test_the_publics_sizes_are_the_defaults_of_the_reference():
    """A ViT-B/32 and its text Transformer, as OpenAI published them: 151,277,313 weights."""
    with torch.device("meta"):
        ours = clip._build(clip._sizes(transformers.CLIPConfig()))
        reference = transformers.CLIPModel(transformers.CLIPConfig())
    assert sum(weight.numel() for weight in ours.parameters()) == 151_277_313
    assert sum(weight.numel() for weight in reference.parameters()) == 151_277_313
    assert ours.config.text.activation == ours.config.image.activation == "gelu_quick"


# There and back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("end", END.values())
def test_there_and_back_nothing_has_changed(dtype, end):
    reference = build(dtype, end)
    back = convert.to_transformers(convert.from_transformers(reference), pad_token_id=0, bos_token_id=1)
    assert type(back) is type(reference) and back.config.projection_dim == 10
    expected, found = reference.state_dict(), back.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype == dtype and torch.equal(found[name], weight), name
    for name in VISION:
        assert getattr(back.config.vision_config, name) == getattr(reference.config.vision_config, name), name
    for name in (*TEXT, "eos_token_id"):
        assert getattr(back.config.text_config, name) == getattr(reference.config.text_config, name), name


IMAGE = ViTConfig(0, SIZE, 3, CHANNELS, dim=12, layers=1, heads=3, patch_bias=False, norm_before=True)
WORDS = TextTransformerConfig(VOCAB, CONTEXT, dim=8, layers=1, heads=2, hidden=20, activation="gelu_tanh")


def clip_of(image=IMAGE, words=WORDS):
    return CLIP(ViT(image), TextTransformer(words), joint=6)


@pytest.mark.parametrize("end", [8, None])
def test_ours_is_saved_by_the_library_and_loaded_again(images, tokens, end, tmp_path):
    ours = clip_of(words=dataclasses.replace(WORDS, end=end)).double().eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.4)
    convert.to_transformers(ours).save_pretrained(tmp_path)
    loaded = transformers.CLIPModel.from_pretrained(tmp_path, dtype=torch.float64, local_files_only=True)
    again = convert.from_transformers(loaded)
    assert again.config == ours.config
    assert again.state_dict().keys() == ours.state_dict().keys()
    for name, weight in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    expected = zero_shot(ours.encode_image(images), ours.encode_text(tokens), ours.scale())
    assert difference(loaded(tokens, images).logits_per_image, expected) < 1e-9


def test_mode_comes_along_and_no_random_number_is_used_up():
    reference = build().train()
    before = torch.get_rng_state()
    ours = convert.from_transformers(reference)
    back = convert.to_transformers(ours)
    assert torch.equal(torch.get_rng_state(), before)
    assert ours.training and back.training


# What cannot be converted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision": {"hidden_act": "silu"}}, "unknown activation 'silu'"),
        ({"text": {"hidden_act": "mish"}}, "unknown activation 'mish'"),
        ({"end": [8, 9]}, r"eos_token_id=\[8, 9\] has no counterpart"),
        ({"end": None}, "eos_token_id=None has no counterpart"),
    ],
)
def test_a_setting_without_counterpart_is_named(changes, words):
    with pytest.raises(CourseError, match=words):
        convert.from_transformers(build(**changes))


def test_a_text_without_the_end_token_is_an_error_here_alone(tokens):
    reference, tokens = build(), tokens[:1].masked_fill(tokens[:1] == 8, 3)
    states = reference.text_model(tokens)
    assert torch.equal(states.pooler_output, states.last_hidden_state[:, 0]), "taken for the first token"
    with pytest.raises(CourseError, match="text 0 of the batch lacks the end token, number 8"):
        convert.from_transformers(reference).encode_text(tokens)


def test_the_scale_is_held_below_100_here_alone(images, tokens):
    reference = build()
    with torch.no_grad():
        reference.logit_scale.fill_(5.0)
    ours = convert.from_transformers(reference)
    assert reference.logit_scale.exp() > 148 and ours.scale().item() == pytest.approx(100)


@pytest.mark.parametrize(
    ("ours", "tokens", "words"),
    [
        (clip_of(ViTConfig(0, SIZE, 3, CHANNELS, dim=12, layers=1, heads=3)), {}, "unknown counterpart of CLIP 'None'"),
        (clip_of(dataclasses.replace(IMAGE, classes=2)), {}, "unknown counterpart"),
        (clip_of(dataclasses.replace(IMAGE, pooling="mean")), {}, "unknown counterpart"),
        (clip_of(dataclasses.replace(IMAGE, dropout=0.1)), {}, "unknown counterpart"),
        (clip_of(words=dataclasses.replace(WORDS, dropout=0.1)), {}, "unknown counterpart"),
        (clip_of(words=dataclasses.replace(WORDS, end=2)), {}, "unknown counterpart"),
        (CLIP(ViT(IMAGE), FrozenText(torch.rand(3, 8))), {}, "unknown counterpart"),
        (CLIP(ConvNet(ConvNetConfig(1, 4, 2, 16)), TextTransformer(WORDS)), {}, "unknown counterpart"),
        (clip_of(), {"eos_token_id": 8}, "eos_token_id=8: this CLIP's texts end with token None"),
        (clip_of(), {"pad_token_id": VOCAB}, f"pad_token_id={VOCAB} is not in the vocabulary"),
        (clip_of(), {"sep_token_id": 1}, "unknown special token 'sep_token_id'"),
    ],
)
def test_ours_that_cannot_be_handed_over(ours, tokens, words):
    with pytest.raises(CourseError, match=words) as caught:
        convert.to_transformers(ours, **tokens)
    assert isinstance(caught.value, UnknownName) == ("unknown" in words)


def test_the_conversion_is_found():
    assert [found.reference for found in clip.CONVERSIONS] == ["CLIPModel"]
    assert "CLIPModel" in convert._registry()
