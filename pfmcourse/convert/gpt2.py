"""GPT-2 of transformers and our GPT: the same network under other names.

Its linear layers (``Conv1D``) keep their matrices as (inputs, outputs), and it lists the table of tokens a second time,
as the output layer.
"""

from collections.abc import Mapping
from typing import Any

from pfmcourse.base import CourseError
from pfmcourse.convert import Conversion
from pfmcourse.convert.names import activation_for, activation_of, for_each_layer, inside, layer, special_tokens, weight
from pfmcourse.models.gpt import GPT, GPTConfig

TABLE = [
    weight("tokens.weight", "wte.weight"),
    weight("positions.weight", "wpe.weight"),
    *layer("blocks.{}.attention_norm", "h.{}.ln_1"),
    *layer("blocks.{}.attention.project", "h.{}.attn.c_attn", transposed=True),
    *layer("blocks.{}.attention.output", "h.{}.attn.c_proj", transposed=True),
    *layer("blocks.{}.feed_forward_norm", "h.{}.ln_2"),
    *layer("blocks.{}.feed_forward.up", "h.{}.mlp.c_fc", transposed=True),
    *layer("blocks.{}.feed_forward.down", "h.{}.mlp.c_proj", transposed=True),
    *layer("norm", "ln_f"),
]
NEEDS = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


def _sizes(theirs: Any) -> GPTConfig:
    if theirs.n_inner not in (None, 4 * theirs.n_embd):
        raise CourseError(f"n_inner={theirs.n_inner}: our GPT has 4 x n_embd = {4 * theirs.n_embd} hidden units.")
    return GPTConfig(
        vocab=theirs.vocab_size,
        context=theirs.n_positions,
        dim=theirs.n_embd,
        layers=theirs.n_layer,
        heads=theirs.n_head,
        dropout=theirs.resid_pdrop,
        activation=activation_of(theirs.activation_function),
        epsilon=theirs.layer_norm_epsilon,
    )


def _settings(ours: GPTConfig, tokens: Mapping[str, int]) -> dict[str, Any]:
    return {
        "vocab_size": ours.vocab,
        "n_positions": ours.context,
        "n_embd": ours.dim,
        "n_layer": ours.layers,
        "n_head": ours.heads,
        "resid_pdrop": ours.dropout,
        "embd_pdrop": ours.dropout,
        "attn_pdrop": 0.0,
        "activation_function": activation_for(ours.activation),
        "layer_norm_epsilon": ours.epsilon,
        **special_tokens(tokens, ours.vocab),
    }


CONVERSIONS = [
    Conversion(
        reference="GPT2LMHeadModel",
        ours=GPT,
        sizes=_sizes,
        settings=_settings,
        table=lambda theirs: for_each_layer(inside("transformer", TABLE), theirs.n_layer),
        tied={"lm_head.weight": "transformer.wte.weight"},
        needs=NEEDS,
    ),
    Conversion(  # without the output layer, which ours shares with the tokens anyway
        reference="GPT2Model",
        ours=GPT,
        sizes=_sizes,
        settings=_settings,
        table=lambda theirs: for_each_layer(TABLE, theirs.n_layer),
        tied={},
        needs=NEEDS,
    ),
]
