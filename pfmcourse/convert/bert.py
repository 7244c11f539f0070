"""BERT and RoBERTa of transformers and our BERT.

The reference keeps queries, keys and values as three layers, which are the rows of our one. It lists the table of
tokens a second time, as the output layer, and that layer's bias twice as well.

RoBERTa counts positions from ``pad_token_id + 1`` and skips padding: its table of positions begins with rows that no
text uses, and a text must be padded at its end, as ours are, for both to agree. That number must belong to a token that
no text contains.
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
    special_tokens,
    weight,
)
from pfmcourse.models.bert import BERT, BERTConfig

BODY = [  # but for the positions
    weight("tokens.weight", "embeddings.word_embeddings.weight"),
    weight("segments.weight", "embeddings.token_type_embeddings.weight"),
    *layer("embedding_norm", "embeddings.LayerNorm"),
    *layer(
        "blocks.{}.attention.project",
        "encoder.layer.{}.attention.self.query",
        "encoder.layer.{}.attention.self.key",
        "encoder.layer.{}.attention.self.value",
    ),
    *layer("blocks.{}.attention.output", "encoder.layer.{}.attention.output.dense"),
    *layer("blocks.{}.attention_norm", "encoder.layer.{}.attention.output.LayerNorm"),
    *layer("blocks.{}.feed_forward.up", "encoder.layer.{}.intermediate.dense"),
    *layer("blocks.{}.feed_forward.down", "encoder.layer.{}.output.dense"),
    *layer("blocks.{}.feed_forward_norm", "encoder.layer.{}.output.LayerNorm"),
]
POSITIONS = "embeddings.position_embeddings.weight"
NEEDS = {
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "position_embedding_type": "absolute",
}


def _sizes(theirs: Any, *, next_sentence: bool = False, unused_positions: int = 0) -> BERTConfig:
    if theirs.intermediate_size != 4 * theirs.hidden_size:
        raise CourseError(
            f"intermediate_size={theirs.intermediate_size}: our BERT has 4 x hidden_size = {4 * theirs.hidden_size}."
        )
    return BERTConfig(
        vocab=theirs.vocab_size,
        context=theirs.max_position_embeddings - unused_positions,
        dim=theirs.hidden_size,
        layers=theirs.num_hidden_layers,
        heads=theirs.num_attention_heads,
        segments=theirs.type_vocab_size,
        next_sentence=next_sentence,
        neighbours=False,  # how the weights began is of no concern here
        dropout=theirs.hidden_dropout_prob,
        activation=activation_of(theirs.hidden_act),
        epsilon=theirs.layer_norm_eps,
    )


def _settings(ours: BERTConfig, tokens: Mapping[str, int], unused_positions: int = 0) -> dict[str, Any]:
    return {
        "vocab_size": ours.vocab,
        "max_position_embeddings": ours.context + unused_positions,
        "hidden_size": ours.dim,
        "intermediate_size": 4 * ours.dim,
        "num_hidden_layers": ours.layers,
        "num_attention_heads": ours.heads,
        "type_vocab_size": ours.segments,
        "hidden_dropout_prob": ours.dropout,
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": activation_for(ours.activation),
        "layer_norm_eps": ours.epsilon,
        **special_tokens(tokens, ours.vocab),
    }


# BERT ----------------------------------------------------------------------------------------------------------------

# The layer in front of BERT's output has the blocks' activation; RoBERTa's, and ours, always has gelu.
BERT_NEEDS = NEEDS | {"hidden_act": "gelu"}
BERT_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
MASKED = [
    *inside("bert", [*BODY, weight("positions.weight", POSITIONS)]),
    *layer("transform", "cls.predictions.transform.dense"),
    *layer("transform_norm", "cls.predictions.transform.LayerNorm"),
    weight("token_bias", "cls.predictions.bias"),
]
PRETRAINING = [
    *MASKED,
    *layer("pooler", "bert.pooler.dense"),
    *layer("follows_head", "cls.seq_relationship"),
]

# RoBERTa -------------------------------------------------------------------------------------------------------------


def _unused_positions(pad: int | None) -> int:
    if pad is None:
        raise CourseError(
            "RoBERTa counts positions from its padding token: give its number, as in pad_token_id=1. "
            "No text may contain that token."
        )
    return pad + 1


def _roberta_sizes(theirs: Any) -> BERTConfig:
    return _sizes(theirs, unused_positions=_unused_positions(theirs.pad_token_id))


def _roberta_settings(ours: BERTConfig, tokens: Mapping[str, int]) -> dict[str, Any]:
    return _settings(ours, tokens, _unused_positions(tokens.get("pad_token_id")))


def _roberta_table(theirs: Any) -> list[Weight]:
    positions = weight("positions.weight", POSITIONS, extra=_unused_positions(theirs.pad_token_id))
    rows = [
        *inside("roberta", [*BODY, positions]),
        *layer("transform", "lm_head.dense"),
        *layer("transform_norm", "lm_head.layer_norm"),
        weight("token_bias", "lm_head.bias"),
    ]
    return for_each_layer(rows, theirs.num_hidden_layers)


CONVERSIONS = [
    Conversion(
        reference="BertForPreTraining",
        ours=BERT,
        sizes=lambda theirs: _sizes(theirs, next_sentence=True),
        settings=_settings,
        table=lambda theirs: for_each_layer(PRETRAINING, theirs.num_hidden_layers),
        tied=BERT_TIED,
        needs=BERT_NEEDS,
        suits=lambda ours: ours.next_sentence and ours.activation == "gelu",
    ),
    Conversion(
        reference="BertForMaskedLM",
        ours=BERT,
        sizes=_sizes,
        settings=_settings,
        table=lambda theirs: for_each_layer(MASKED, theirs.num_hidden_layers),
        tied=BERT_TIED,
        needs=BERT_NEEDS,
        suits=lambda ours: not ours.next_sentence and ours.activation == "gelu",
    ),
    Conversion(
        reference="RobertaForMaskedLM",
        ours=BERT,
        sizes=_roberta_sizes,
        settings=_roberta_settings,
        table=_roberta_table,
        tied={
            "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        },
        needs=NEEDS,
        suits=lambda ours: not ours.next_sentence,
    ),
]
