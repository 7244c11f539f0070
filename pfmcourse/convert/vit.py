"""ViT and DeiT of transformers and our ViT.

The reference cuts pictures with a convolution whose filters are our matrix's rows, keeps queries, keys and values as
three layers, and has axes of length 1 around its tables of tokens and positions.

A ``ViTModel`` or ``DeiTModel`` is read where it was made with ``add_pooling_layer=False``: ours has no layer behind the
class token. The way back leads to the class with heads, which without classes is the same network.
"""

from collections.abc import Mapping
from typing import Any

from pfmcourse.convert import Conversion
from pfmcourse.convert.names import (
    Weight,
    activation_for,
    activation_of,
    for_each_layer,
    inside,
    layer,
    no_special_tokens,
    square,
    weight,
)
from pfmcourse.models.vit import ViT, ViTConfig

NEEDS = {"qkv_bias": True}


def blocks(theirs: str, layers: int) -> list[Weight]:
    """The rows of a stack of blocks that is called ``theirs`` over there."""
    rows = [
        *layer("blocks.{}.attention.project", *(f"{theirs}.{{}}.attention.{part}_proj" for part in "qkv")),
        *layer("blocks.{}.attention.output", f"{theirs}.{{}}.attention.o_proj"),
        *layer("blocks.{}.attention_norm", f"{theirs}.{{}}.layernorm_before"),
        *layer("blocks.{}.feed_forward.up", f"{theirs}.{{}}.mlp.fc1"),
        *layer("blocks.{}.feed_forward.down", f"{theirs}.{{}}.mlp.fc2"),
        *layer("blocks.{}.feed_forward_norm", f"{theirs}.{{}}.layernorm_after"),
    ]
    return for_each_layer(rows, layers)


def filters(theirs: Any) -> list[Weight]:
    """The rows of what makes a vector of a patch: filters of a convolution over there, a matrix here."""
    return [
        weight(
            "patch_embedding.weight",
            "embeddings.patch_embeddings.projection.weight",
            order="dim channels p q -> dim (channels p q)",
            channels=theirs.num_channels,
            p=square(theirs.patch_size, "patch_size"),
        ),
        weight("patch_embedding.bias", "embeddings.patch_embeddings.projection.bias"),
    ]


def token(ours: str, theirs: str) -> Weight:
    """The row of a vector that stands as a token."""
    return weight(ours, theirs, order="1 1 dim -> dim")


def positions(ours: str, theirs: str) -> Weight:
    """The row of a table of positions."""
    return weight(ours, theirs, order="1 tokens dim -> tokens dim")


def encoder(theirs: Any) -> list[Weight]:
    """The rows of everything but the heads, for a reference with one special token."""
    return [
        *filters(theirs),
        token("class_token", "embeddings.cls_token"),
        positions("positions", "embeddings.position_embeddings"),
        *blocks("layers", theirs.num_hidden_layers),
        *layer("norm", "layernorm"),
    ]


def sizes(theirs: Any, **others: Any) -> ViTConfig:
    """Our configuration of the reference's encoder; ``others`` are fields of ours."""
    size = square(theirs.image_size, "image_size")
    hidden = theirs.intermediate_size
    return ViTConfig(
        size=size,
        patch=square(theirs.patch_size, "patch_size"),
        channels=theirs.num_channels,
        dim=theirs.hidden_size,
        layers=theirs.num_hidden_layers,
        heads=theirs.num_attention_heads,
        hidden=0 if hidden == 4 * theirs.hidden_size else hidden,
        dropout=theirs.hidden_dropout_prob,
        activation=activation_of(theirs.hidden_act),
        epsilon=theirs.layer_norm_eps,
        **others,
    )


def settings(ours: ViTConfig, tokens: Mapping[str, int]) -> dict[str, Any]:
    """The reference's configuration of our encoder."""
    no_special_tokens(tokens)
    return {
        "image_size": ours.size,
        "patch_size": ours.patch,
        "num_channels": ours.channels,
        "hidden_size": ours.dim,
        "num_hidden_layers": ours.layers,
        "num_attention_heads": ours.heads,
        "intermediate_size": ours.hidden or 4 * ours.dim,
        "hidden_dropout_prob": ours.dropout,
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": activation_for(ours.activation),
        "layer_norm_eps": ours.epsilon,
    }


def _with_classes(ours: ViTConfig, tokens: Mapping[str, int]) -> dict[str, Any]:
    return settings(ours, tokens) | {"num_labels": ours.classes}


def _vit(theirs: Any) -> list[Weight]:
    return [*inside("vit", encoder(theirs)), *(layer("head", "classifier") if theirs.num_labels else [])]


def _deit_encoder(theirs: Any) -> list[Weight]:
    return [*encoder(theirs), token("distillation_token", "embeddings.distillation_token")]


def _deit(theirs: Any) -> list[Weight]:
    heads = [*layer("head", "cls_classifier"), *layer("distillation_head", "distillation_classifier")]
    return [*inside("deit", _deit_encoder(theirs)), *(heads if theirs.num_labels else [])]


CONVERSIONS = [
    Conversion(
        reference="ViTForImageClassification",
        ours=ViT,
        sizes=lambda theirs: sizes(theirs, classes=theirs.num_labels),
        settings=_with_classes,
        table=_vit,
        tied={},
        needs=NEEDS,
        suits=lambda ours: not ours.distillation and (ours.pooling == "class" or not ours.classes),
    ),
    Conversion(
        reference="DeiTForImageClassificationWithTeacher",
        ours=ViT,
        sizes=lambda theirs: sizes(theirs, classes=theirs.num_labels, distillation=True),
        settings=_with_classes,
        table=_deit,
        tied={},
        needs=NEEDS,
        suits=lambda ours: ours.distillation,
    ),
    Conversion(
        reference="ViTModel",
        ours=ViT,
        sizes=sizes,
        settings=settings,
        table=encoder,
        tied={},
        needs=NEEDS,
        suits=lambda ours: False,  # by default it has a layer that ours lacks
    ),
    Conversion(
        reference="DeiTModel",
        ours=ViT,
        sizes=lambda theirs: sizes(theirs, distillation=True),
        settings=settings,
        table=_deit_encoder,
        tied={},
        needs=NEEDS,
        suits=lambda ours: False,
    ),
]
