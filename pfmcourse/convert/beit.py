"""BEiT of transformers and our BEiT.

The reference may drop whole layers at random in training (``drop_path_rate``); ours does not: that rate is given up.
"""

from collections.abc import Mapping
from typing import Any

from pfmcourse.base import CourseError
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
from pfmcourse.convert.vit import filters, positions, token
from pfmcourse.models.beit import BEiT, BEiTConfig

QUERIES_KEYS_VALUES = tuple(f"layers.{{}}.attention.{part}_proj.weight" for part in "qkv")
BLOCK = [
    Weight("blocks.{}.attention.project.weight", QUERIES_KEYS_VALUES),
    weight("blocks.{}.attention.query_bias", "layers.{}.attention.q_proj.bias"),
    weight("blocks.{}.attention.value_bias", "layers.{}.attention.v_proj.bias"),
    *layer("blocks.{}.attention.output", "layers.{}.attention.o_proj"),
    *layer("blocks.{}.attention_norm", "layers.{}.layernorm_before"),
    *layer("blocks.{}.feed_forward.up", "layers.{}.mlp.fc1"),
    *layer("blocks.{}.feed_forward.down", "layers.{}.mlp.fc2"),
    *layer("blocks.{}.feed_forward_norm", "layers.{}.layernorm_after"),
]
SCALES = [
    weight("blocks.{}.attention_scale", "layers.{}.lambda_1"),
    weight("blocks.{}.feed_forward_scale", "layers.{}.lambda_2"),
]
SHARED = weight("relative.table", "shared_position_bias.relative_position_bias_table")
EACH = weight("blocks.{}.relative.table", "layers.{}.relative_position_bias.relative_position_bias_table")


def _relative(theirs: Any) -> str:
    shared, each = theirs.use_shared_relative_position_bias, theirs.use_relative_position_bias
    if shared and each:
        raise CourseError("a bias of all layers and one of each layer at once have no counterpart here.")
    return "shared" if shared else "each" if each else "none"


def _sizes(theirs: Any) -> BEiTConfig:
    hidden = theirs.intermediate_size
    return BEiTConfig(
        vocab=theirs.vocab_size,
        size=square(theirs.image_size, "image_size"),
        patch=square(theirs.patch_size, "patch_size"),
        channels=theirs.num_channels,
        dim=theirs.hidden_size,
        layers=theirs.num_hidden_layers,
        heads=theirs.num_attention_heads,
        hidden=0 if hidden == 4 * theirs.hidden_size else hidden,
        layer_scale=max(0.0, theirs.layer_scale_init_value),
        relative=_relative(theirs),
        absolute=theirs.use_absolute_position_embeddings,
        activation=activation_of(theirs.hidden_act),
        epsilon=theirs.layer_norm_eps,
    )


def _settings(ours: BEiTConfig, tokens: Mapping[str, int]) -> dict[str, Any]:
    no_special_tokens(tokens)
    return {
        "vocab_size": ours.vocab,
        "image_size": ours.size,
        "patch_size": ours.patch,
        "num_channels": ours.channels,
        "hidden_size": ours.dim,
        "num_hidden_layers": ours.layers,
        "num_attention_heads": ours.heads,
        "intermediate_size": ours.hidden or 4 * ours.dim,
        "layer_scale_init_value": ours.layer_scale,
        "use_relative_position_bias": ours.relative == "each",
        "use_shared_relative_position_bias": ours.relative == "shared",
        "use_absolute_position_embeddings": ours.absolute,
        "use_mask_token": True,
        "use_mean_pooling": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "hidden_act": activation_for(ours.activation),
        "layer_norm_eps": ours.epsilon,
    }


def _table(theirs: Any) -> list[Weight]:
    body = [
        *filters(theirs),
        token("class_token", "embeddings.cls_token"),
        token("mask_token", "embeddings.mask_token"),
        *BLOCK,
        *(SCALES if theirs.layer_scale_init_value > 0 else []),
        *{"none": [], "shared": [SHARED], "each": [EACH]}[_relative(theirs)],
    ]
    if theirs.use_absolute_position_embeddings:
        body.append(positions("positions", "embeddings.position_embeddings"))
    rows = [*inside("beit", body), *layer("norm", "layernorm"), *layer("head", "lm_head")]
    return for_each_layer(rows, theirs.num_hidden_layers)


CONVERSIONS = [
    Conversion(
        reference="BeitForMaskedImageModeling",
        ours=BEiT,
        sizes=_sizes,
        settings=_settings,
        table=_table,
        tied={},
        # With use_mean_pooling=False the reference norms twice before its last layer.
        needs={"use_mask_token": True, "use_mean_pooling": True, "hidden_dropout_prob": 0.0},
    )
]
