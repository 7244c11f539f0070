"""ViT-MAE of transformers and our MAE.

The reference's decoder paints a patch pixel by pixel, with the channels of a pixel side by side; ours paints channel by
channel, so that the rows of the last matrix stand in another order.
"""

from collections.abc import Mapping
from typing import Any

from pfmcourse.convert import Conversion
from pfmcourse.convert.names import Weight, inside, layer, square, weight, within
from pfmcourse.convert.vit import NEEDS, blocks, encoder, positions, settings, sizes, token
from pfmcourse.models.mae import MAE, MAEConfig


def _sizes(theirs: Any) -> MAEConfig:
    hidden = theirs.decoder_intermediate_size
    return MAEConfig(
        encoder=sizes(theirs, positions="sincos", pooling="mean"),
        decoder_dim=theirs.decoder_hidden_size,
        decoder_layers=theirs.decoder_num_hidden_layers,
        decoder_heads=theirs.decoder_num_attention_heads,
        decoder_hidden=0 if hidden == 4 * theirs.decoder_hidden_size else hidden,
        share=theirs.mask_ratio,
        normalise=theirs.norm_pix_loss,
    )


def _settings(ours: MAEConfig, tokens: Mapping[str, int]) -> dict[str, Any]:
    return settings(ours.encoder, tokens) | {
        "decoder_hidden_size": ours.decoder_dim,
        "decoder_num_hidden_layers": ours.decoder_layers,
        "decoder_num_attention_heads": ours.decoder_heads,
        "decoder_intermediate_size": ours.decoder_hidden or 4 * ours.decoder_dim,
        "mask_ratio": ours.share,
        "norm_pix_loss": ours.normalise,
    }


def _table(theirs: Any) -> list[Weight]:
    patch = square(theirs.patch_size, "patch_size")
    axes = {"channels": theirs.num_channels, "p": patch, "q": patch}
    decoder = [
        *layer("bridge", "decoder_embed"),
        token("mask_token", "mask_token"),
        positions("positions", "decoder_pos_embed"),
        *blocks("decoder_layers", theirs.decoder_num_hidden_layers),
        *layer("norm", "decoder_norm"),
        weight("pixels.weight", "decoder_pred.weight", order="(p q channels) dim -> (channels p q) dim", **axes),
        weight("pixels.bias", "decoder_pred.bias", order="(p q channels) -> (channels p q)", **axes),
    ]
    return [*within("encoder", inside("vit", encoder(theirs))), *inside("decoder", decoder)]


CONVERSIONS = [
    Conversion(
        reference="ViTMAEForPreTraining",
        ours=MAE,
        sizes=_sizes,
        settings=_settings,
        table=_table,
        tied={},
        needs=NEEDS | {"hidden_dropout_prob": 0.0},  # our decoder has none
        suits=lambda ours: (
            ours.encoder.positions == "sincos"
            and not (ours.encoder.classes or ours.encoder.distillation or ours.encoder.dropout)
        ),
    ),
]
