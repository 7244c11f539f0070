"""ViT, DeiT, MAE and BEiT of the library transformers against ours: same numbers, same gradients, there and back."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import transformers
from compare import difference, gradients

from pfmcourse import convert
from pfmcourse.base import CourseError, UnknownName
from pfmcourse.convert import beit, mae, vit
from pfmcourse.models.beit import BEiT, BEiTConfig, MaskedPictures
from pfmcourse.models.convnet import Pictures
from pfmcourse.models.mae import MAE, MAEConfig
from pfmcourse.models.vit import TaughtPictures, ViT, ViTConfig

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SIZE, PATCH, CHANNELS, CLASSES, VOCAB = 12, 3, 2, 5, 7
PATCHES = (SIZE // PATCH) ** 2
SIZES = {"image_size": SIZE, "patch_size": PATCH, "num_channels": CHANNELS, "hidden_size": 12, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 3, "intermediate_size": 20, "layer_norm_eps": 1e-3}
HEADS = {"num_labels": CLASSES}
DECODER = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 3, "decoder_num_attention_heads": 2}
DECODER |= {"decoder_intermediate_size": 10, "mask_ratio": 0.7, "norm_pix_loss": True}
CODES = {"vocab_size": VOCAB, "use_mask_token": True, "use_absolute_position_embeddings": True}
CODES |= {"use_relative_position_bias": True, "layer_scale_init_value": 0.3}
KINDS = {  # class of the reference -> class of its configuration, settings
    "ViTForImageClassification": ("ViTConfig", SIZES | HEADS),
    "ViTModel": ("ViTConfig", SIZES),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", SIZES | HEADS),
    "DeiTModel": ("DeiTConfig", SIZES),
    "ViTMAEForPreTraining": ("ViTMAEConfig", SIZES | DECODER),
    "BeitForMaskedImageModeling": ("BeitConfig", SIZES | CODES),
}
WITH_WAY_BACK = [kind for kind in KINDS if not kind.endswith("Model")]
EXACT = [(torch.float64, 1e-9), (torch.float32, 1e-5)]


def build(kind, dtype=torch.float64, *, pooler=False, **changes):
    """A reference of which every weight is random, biases and norms too, so that none can be mistaken for another."""
    family, sizes = KINDS[kind]
    config = getattr(transformers, family)(**(sizes | changes))
    options = {"add_pooling_layer": pooler} if kind.endswith("Model") else {}
    reference = getattr(transformers, kind)(config, **options).to(dtype).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(std=0.4)
    return reference


@pytest.fixture
def images():
    return torch.rand(3, CHANNELS, SIZE, SIZE, dtype=torch.float64)


# The same numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_vit(images, dtype, tolerance, activation):
    reference = build("ViTForImageClassification", dtype, hidden_act=activation)
    ours, images, labels = convert.from_transformers(reference), images.to(dtype), torch.tensor([1, 4, 0])
    output = reference(images, labels=labels, output_hidden_states=True)
    assert output.logits.dtype == dtype and difference(ours.logits(images), output.logits) < tolerance
    loss = ours(Pictures(images, labels))["loss"]
    assert abs(loss.item() - output.loss.item()) < tolerance
    loss.backward()
    output.loss.backward()
    assert gradients(ours, reference) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_deit(images, dtype, tolerance):
    reference = build("DeiTForImageClassificationWithTeacher", dtype)
    ours, images = convert.from_transformers(reference), images.to(dtype)
    labels, teacher = torch.tensor([1, 4, 0]), torch.tensor([1, 2, 3])
    output = reference(images)
    by_label, by_teacher = ours.both_logits(images)
    assert difference(by_label, output.cls_logits) < tolerance
    assert difference(by_teacher, output.distillation_logits) < tolerance
    assert difference(ours.logits(images), output.logits) < tolerance
    expected = (F.cross_entropy(output.cls_logits, labels) + F.cross_entropy(output.distillation_logits, teacher)) / 2
    loss = ours(TaughtPictures(images, labels, teacher))["loss"]
    assert abs(loss.item() - expected.item()) < tolerance
    loss.backward()
    expected.backward()
    assert gradients(ours, reference) < tolerance


@pytest.mark.parametrize("kind", ["ViTModel", "DeiTModel"])
def test_encoders_without_heads(images, kind):
    reference = build(kind)
    ours = convert.from_transformers(reference)
    assert ours.config.classes == 0 and ours.config.distillation == kind.startswith("DeiT")
    states = reference(images).last_hidden_state
    assert difference(ours.tokens(images), states) < 1e-9
    assert difference(ours.encode(images), states[:, 0]) < 1e-9


@pytest.mark.parametrize("kind", ["ViTModel", "DeiTModel"])
@pytest.mark.parametrize(("height", "width"), [(18, 18), (6, 6), (15, 9), (6, 24)])
def test_positions_are_stretched_to_another_size(kind, height, width):
    reference = build(kind)
    images = torch.rand(2, CHANNELS, height, width, dtype=torch.float64)
    expected = reference(images, interpolate_pos_encoding=True).last_hidden_state
    assert difference(convert.from_transformers(reference).tokens(images), expected) < 1e-9


def test_attention_maps_are_the_references(images):
    reference = build("ViTModel", attn_implementation="eager")
    expected = torch.stack(reference(images, output_attentions=True).attentions)
    # the library computes this softmax in float32
    assert difference(convert.from_transformers(reference).attention_maps(images), expected) < 1e-6


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("share", [0.7, 0.75])
def test_mae(images, dtype, tolerance, normalise, share):
    reference = build("ViTMAEForPreTraining", dtype, norm_pix_loss=normalise, mask_ratio=share)
    ours, images, noise = convert.from_transformers(reference), images.to(dtype), torch.rand(3, PATCHES, dtype=dtype)
    output = reference(images, noise=noise)
    loss = ours(images, noise)["loss"]
    assert abs(loss.item() - output.loss.item()) < tolerance
    found, mask = ours.reconstruct(images, noise)
    assert torch.equal(mask.to(output.mask), output.mask) and mask.sum() == 3 * (PATCHES - ours.config.kept)
    painted, target = output.logits, reference.patchify(images)
    if normalise:
        painted = painted * (target.var(-1, keepdim=True) + 1e-6).sqrt() + target.mean(-1, keepdim=True)
    assert difference(found, reference.unpatchify(painted.where(mask[..., None], target))) < tolerance
    loss.backward()
    output.loss.backward()
    assert gradients(ours, reference) < tolerance


def test_the_fixed_positions_of_mae_are_the_references():
    config = transformers.ViTMAEConfig(**(SIZES | DECODER))
    ours = MAE(mae._sizes(config))
    # Made by hand, since the whole reference with fresh weights has zeros here: it starts them and then clears them.
    decoder = transformers.models.vit_mae.modeling_vit_mae.ViTMAEDecoder(config, PATCHES)
    config.decoder_hidden_size = config.hidden_size
    wider = transformers.models.vit_mae.modeling_vit_mae.ViTMAEDecoder(config, PATCHES)
    for found, expected in ((ours, decoder), (ours.encoder, wider)):
        assert expected.decoder_pos_embed.abs().max() > 0.9
        assert difference(found.positions, expected.decoder_pos_embed[0]) < 1e-6


BIASES = {
    "none": {"use_relative_position_bias": False},
    "shared": {"use_relative_position_bias": False, "use_shared_relative_position_bias": True},
    "each": {},
}


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
@pytest.mark.parametrize("relative", BIASES)
@pytest.mark.parametrize(
    "changes", [{}, {"use_absolute_position_embeddings": False, "layer_scale_init_value": 0.0, "hidden_act": "relu"}]
)
def test_beit(images, dtype, tolerance, relative, changes):
    reference = build("BeitForMaskedImageModeling", dtype, **(BIASES[relative] | changes))
    ours, images = convert.from_transformers(reference), images.to(dtype)
    assert ours.config.relative == relative and ours.config.absolute == (not changes)
    mask, tokens = torch.rand(3, PATCHES) < 0.4, torch.randint(VOCAB, (3, PATCHES))
    output = reference(images, mask, labels=tokens[mask])
    assert difference(ours.logits(images, mask), output.logits) < tolerance
    loss = ours(MaskedPictures(images, mask, tokens))["loss"]
    assert abs(loss.item() - output.loss.item()) < tolerance
    whole = reference.layernorm(reference.beit(images).last_hidden_state)[:, 1:].mean(1)
    assert difference(ours.encode(images), whole) < tolerance
    loss.backward()
    output.loss.backward()
    assert gradients(ours, reference) < tolerance


# There and back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", WITH_WAY_BACK)
def test_there_and_back_nothing_has_changed(kind, dtype):
    reference = build(kind, dtype)
    back = convert.to_transformers(convert.from_transformers(reference))
    assert type(back) is type(reference)
    expected, found = reference.state_dict(), back.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype == dtype and torch.equal(found[name], weight), name
    for name in KINDS[kind][1]:
        assert getattr(back.config, name) == getattr(reference.config, name), name


ENCODER = ViTConfig(0, SIZE, PATCH, CHANNELS, dim=12, layers=2, heads=3, positions="sincos", pooling="mean")
LEARNED = dataclasses.replace(ENCODER, positions="learned", pooling="class", dropout=0.1, activation="gelu_tanh")
OURS = {
    "vit": (ViT(dataclasses.replace(LEARNED, classes=CLASSES)), "ViTForImageClassification"),
    "vit without head": (ViT(LEARNED), "ViTForImageClassification"),
    "deit": (
        ViT(dataclasses.replace(LEARNED, classes=CLASSES, distillation=True)),
        "DeiTForImageClassificationWithTeacher",
    ),
    "deit without head": (
        ViT(dataclasses.replace(LEARNED, distillation=True)),
        "DeiTForImageClassificationWithTeacher",
    ),
    "mae": (MAE(MAEConfig(ENCODER, 8, 1, 2, share=0.6, normalise=False)), "ViTMAEForPreTraining"),
    "mae with sizes": (
        MAE(MAEConfig(dataclasses.replace(ENCODER, hidden=20), 8, 1, 2, decoder_hidden=12)),
        "ViTMAEForPreTraining",
    ),
    "beit": (BEiT(BEiTConfig(VOCAB, SIZE, PATCH, CHANNELS, 12, 2, 3)), "BeitForMaskedImageModeling"),
    "beit with scales": (
        BEiT(BEiTConfig(VOCAB, SIZE, PATCH, CHANNELS, 12, 2, 3, 20, 0.1, "each", False)),
        "BeitForMaskedImageModeling",
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_ours_is_saved_by_the_library_and_loaded_again(name, images, tmp_path):
    ours, kind = OURS[name]
    ours = ours.double().eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.4)
    handed = convert.to_transformers(ours)
    assert type(handed).__name__ == kind, "the first that fits"
    handed.save_pretrained(tmp_path)
    loaded = type(handed).from_pretrained(tmp_path, dtype=torch.float64, local_files_only=True)
    again = convert.from_transformers(loaded)
    assert again.config == ours.config
    assert again.state_dict().keys() == ours.state_dict().keys()
    for name, weight in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    if isinstance(ours, ViT):
        assert difference(loaded(images).logits, ours.logits(images)) < 1e-9
    elif isinstance(ours, MAE):
        noise = torch.rand(3, PATCHES)
        assert abs(loaded(images, noise=noise).loss.item() - ours(images, noise)["loss"].item()) < 1e-9
    else:
        mask = torch.rand(3, PATCHES) < 0.4
        assert difference(loaded(images, mask).logits, ours.logits(images, mask)) < 1e-9


def test_mode_and_dropout_come_along_and_no_random_number_is_used_up():
    reference = build("ViTForImageClassification", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.1).train()
    before = torch.get_rng_state()
    ours = convert.from_transformers(reference)
    back = convert.to_transformers(ours)
    assert torch.equal(torch.get_rng_state(), before)
    assert ours.training and back.training and ours.config.dropout == ours.dropout.p == 0.3
    assert (back.config.hidden_dropout_prob, back.config.attention_probs_dropout_prob) == (0.3, 0)


def test_weights_are_copies():
    reference = build("ViTForImageClassification")
    ours = convert.from_transformers(reference)
    back = convert.to_transformers(ours)
    before = ours.patch_embedding.weight.detach().clone()
    with torch.no_grad():
        for model in (reference, back):
            for parameter in model.parameters():
                parameter += 1
    assert torch.equal(ours.patch_embedding.weight, before)


def test_a_reference_may_state_its_sides_as_pairs(images):
    reference = build("ViTForImageClassification", image_size=(SIZE, SIZE))
    assert convert.from_transformers(reference).config.size == SIZE


# What cannot be converted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("ViTForImageClassification", {"hidden_act": "silu"}, "unknown activation 'silu'"),
        ("ViTForImageClassification", {"qkv_bias": False}, "qkv_bias=False"),
        ("ViTForImageClassification", {"image_size": (12, 15)}, r"image_size=.*12, 15.*only squares"),
        ("ViTForImageClassification", {"patch_size": (3, 4)}, r"patch_size=.*3, 4.*only squares"),
        ("DeiTForImageClassificationWithTeacher", {"qkv_bias": False}, "qkv_bias=False"),
        ("ViTMAEForPreTraining", {"qkv_bias": False}, "qkv_bias=False"),
        ("ViTMAEForPreTraining", {"hidden_dropout_prob": 0.1}, "hidden_dropout_prob=0.1"),
        ("BeitForMaskedImageModeling", {"use_mask_token": False}, "use_mask_token=False"),
        ("BeitForMaskedImageModeling", {"use_mean_pooling": False}, "use_mean_pooling=False"),
        ("BeitForMaskedImageModeling", {"use_shared_relative_position_bias": True}, "at once have no counterpart"),
    ],
)
def test_a_setting_without_counterpart_is_named(kind, changes, words):
    with pytest.raises(CourseError, match=words):
        convert.from_transformers(build(kind, **changes))


@pytest.mark.parametrize("kind", ["ViTModel", "DeiTModel"])
def test_a_layer_behind_the_class_token_is_an_error(kind):
    with pytest.raises(CourseError, match=r"also has pooler\.dense\.bias, pooler\.dense\.weight"):
        convert.from_transformers(build(kind, pooler=True))


def test_weights_too_many_and_too_few_are_named():
    reference = build("ViTMAEForPreTraining")
    reference.decoder.adapter = torch.nn.Linear(2, 2, bias=False)
    reference.decoder.decoder_norm = torch.nn.Identity()
    with pytest.raises(CourseError, match=r"lacks decoder\.decoder_norm\.bias.*also has decoder\.adapter\.weight"):
        convert.from_transformers(reference)
    ours = ViT(ENCODER)
    ours.adapter = torch.nn.Linear(2, 2, bias=False)
    with pytest.raises(CourseError, match=r"our model also has adapter\.weight"):
        convert.to_transformers(ours)


def test_a_weight_of_another_shape_is_named():
    reference = build("ViTForImageClassification")
    reference.config.image_size = 9
    with pytest.raises(CourseError, match=r"positions has shape \(17, 12\), expected \(10, 12\)"):
        convert.from_transformers(reference)


@pytest.mark.parametrize(
    ("ours", "wanted", "tokens", "words"),
    [
        (ViT(ENCODER), None, {"pad_token_id": 0}, "pad_token_id: a model that reads pictures has no special tokens"),
        (ViT(dataclasses.replace(ENCODER, classes=2)), None, {}, "unknown counterpart of ViT 'None'"),
        (ViT(LEARNED), "ViTModel", {}, "a ViTModel cannot hold.*What can: ViTForImageClassification"),
        (ViT(LEARNED), "DeiTForImageClassificationWithTeacher", {}, "cannot hold"),
        (ViT(LEARNED), "BeitModel", {}, "unknown counterpart of ViT 'BeitModel'"),
        (MAE(MAEConfig(dataclasses.replace(ENCODER, dropout=0.1))), "ViTMAEForPreTraining", {}, "cannot hold this MAE"),
        (MAE(MAEConfig(dataclasses.replace(ENCODER, classes=2))), "ViTMAEForPreTraining", {}, "cannot hold this MAE"),
    ],
)
def test_ours_that_cannot_be_handed_over(ours, wanted, tokens, words):
    with pytest.raises(CourseError, match=words) as caught:
        convert.to_transformers(ours, wanted, **tokens)
    assert isinstance(caught.value, UnknownName) == ("unknown" in words)


def test_each_conversion_listed_here_is_tested_above_and_found():
    listed = [found.reference for found in (*vit.CONVERSIONS, *mae.CONVERSIONS, *beit.CONVERSIONS)]
    assert sorted(listed) == sorted(KINDS)
    assert set(listed) <= set(convert._registry())
