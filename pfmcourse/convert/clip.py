"""CLIPModel of transformers and our CLIP with a ViT and a TextTransformer.

``convert.from_transformers(CLIPModel.from_pretrained(...))`` therefore also loads CLIP's public weights, where a reader
has them on disk: OpenAI's, and those of open_clip that were saved for transformers.

The reference cuts pictures with a convolution whose filters are our matrix's rows, and keeps queries, keys and values
as three layers. It does not hold the scale of the logits below 100, as the paper's training does and ours always.
Where its end token has number 2, which it had by mistake in old configurations, it reads a text's vector at the token
with the highest number, as CLIP's own code does; this is our ``end=None``. With another end token it reads a text that
lacks it at its first token, without a word; ours raises CourseError.
"""

from collections.abc import Mapping
from typing import Any

from pfmcourse.base import CourseError
from pfmcourse.convert import Conversion
from pfmcourse.convert.names import (
    SPECIAL,
    Weight,
    activation_for,
    activation_of,
    for_each_layer,
    inside,
    layer,
    special_tokens,
    square,
    weight,
    within,
)
from pfmcourse.models.clip import CLIP, CLIPConfig, TextTransformer, TextTransformerConfig
from pfmcourse.models.vit import ViT, ViTConfig

HIGHEST = 2  # the number of the end token that makes the reference look for the highest instead

BLOCKS = [
    *layer("blocks.{}.attention.project", *(f"encoder.layers.{{}}.self_attn.{part}_proj" for part in "qkv")),
    *layer("blocks.{}.attention.output", "encoder.layers.{}.self_attn.out_proj"),
    *layer("blocks.{}.attention_norm", "encoder.layers.{}.layer_norm1"),
    *layer("blocks.{}.feed_forward.up", "encoder.layers.{}.mlp.fc1"),
    *layer("blocks.{}.feed_forward.down", "encoder.layers.{}.mlp.fc2"),
    *layer("blocks.{}.feed_forward_norm", "encoder.layers.{}.layer_norm2"),
]


def _table(theirs: Any) -> list[Weight]:
    vision, text = theirs.vision_config, theirs.text_config
    patches = weight(
        "patch_embedding.weight",
        "embeddings.patch_embedding.weight",
        order="dim channels p q -> dim (channels p q)",
        channels=vision.num_channels,
        p=square(vision.patch_size, "patch_size"),
    )
    images = [
        patches,
        weight("class_token", "embeddings.class_embedding"),
        weight("positions", "embeddings.position_embedding.weight"),
        *layer("first_norm", "pre_layrnorm"),
        *for_each_layer(BLOCKS, vision.num_hidden_layers),
        *layer("norm", "post_layernorm"),
    ]
    texts = [
        weight("tokens.weight", "embeddings.token_embedding.weight"),
        weight("positions.weight", "embeddings.position_embedding.weight"),
        *for_each_layer(BLOCKS, text.num_hidden_layers),
        *layer("norm", "final_layer_norm"),
    ]
    return [
        *within("image_tower", inside("vision_model", images)),
        *within("text_tower", inside("text_model", texts)),
        weight("image_projection.weight", "visual_projection.weight"),
        weight("text_projection.weight", "text_projection.weight"),
        weight("log_scale", "logit_scale"),
    ]


def _hidden(theirs: Any) -> int:
    return 0 if theirs.intermediate_size == 4 * theirs.hidden_size else theirs.intermediate_size


def _sizes(theirs: Any) -> CLIPConfig:
    vision, text = theirs.vision_config, theirs.text_config
    end = text.eos_token_id
    if not isinstance(end, int):
        raise CourseError(f"eos_token_id={end!r} has no counterpart here: only one number has.")
    image = ViTConfig(
        size=square(vision.image_size, "image_size"),
        patch=square(vision.patch_size, "patch_size"),
        channels=vision.num_channels,
        dim=vision.hidden_size,
        layers=vision.num_hidden_layers,
        heads=vision.num_attention_heads,
        hidden=_hidden(vision),
        activation=activation_of(vision.hidden_act),
        epsilon=vision.layer_norm_eps,
        patch_bias=False,
        norm_before=True,
    )
    words = TextTransformerConfig(
        vocab=text.vocab_size,
        context=text.max_position_embeddings,
        dim=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        hidden=_hidden(text),
        end=None if end == HIGHEST else end,
        activation=activation_of(text.hidden_act),
        epsilon=text.layer_norm_eps,
    )
    return CLIPConfig(image, words, theirs.projection_dim)


def _build(ours: CLIPConfig) -> CLIP:
    return CLIP(ViT(ours.image), TextTransformer(ours.text), ours.joint, ours.temperature, ours.largest_scale)


def _suits(ours: CLIPConfig) -> bool:
    image, text = ours.image, ours.text
    if not (isinstance(image, ViTConfig) and isinstance(text, TextTransformerConfig)):
        return False
    plain = image.norm_before and not image.patch_bias and not image.classes and not image.distillation
    fitting = image.pooling == "class" and text.end != HIGHEST and not image.dropout and not text.dropout
    return plain and fitting


def _settings(ours: CLIPConfig, tokens: Mapping[str, int]) -> dict[str, Any]:
    image, text = ours.image, ours.text
    end = HIGHEST if text.end is None else text.end
    if tokens.get("eos_token_id", end) != end:
        raise CourseError(f"eos_token_id={tokens['eos_token_id']}: this CLIP's texts end with token {text.end}.")
    special = special_tokens({**tokens}, text.vocab) | {"eos_token_id": end}

    def sizes(part: Any) -> dict[str, Any]:
        return {
            "hidden_size": part.dim,
            "num_hidden_layers": part.layers,
            "num_attention_heads": part.heads,
            "intermediate_size": part.hidden or 4 * part.dim,
            "hidden_act": activation_for(part.activation),
            "layer_norm_eps": part.epsilon,
            "attention_dropout": 0.0,
            "projection_dim": ours.joint,
        }

    vision = sizes(image) | {"image_size": image.size, "patch_size": image.patch, "num_channels": image.channels}
    words = sizes(text) | {"vocab_size": text.vocab, "max_position_embeddings": text.context} | special
    return {"vision_config": vision, "text_config": words, "projection_dim": ours.joint} | dict.fromkeys(SPECIAL)


CONVERSIONS = [
    Conversion(
        reference="CLIPModel",
        ours=CLIP,
        sizes=_sizes,
        settings=_settings,
        table=_table,
        tied={},
        suits=_suits,
        build=_build,
    ),
]
