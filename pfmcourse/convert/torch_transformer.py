"""The encoder-decoder stacks to and from torch.nn.Transformer, every weight by name.

torch's masks say where one may not look; ours, where one may.
"""

import warnings
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from pfmcourse.base import CourseError
from pfmcourse.models.transformer import EncoderDecoder

# ours -> torch's, within a layer; queries, keys and values are the rows of one matrix on both sides
_SELF = {
    "attention.project.weight": "self_attn.in_proj_weight",
    "attention.project.bias": "self_attn.in_proj_bias",
    "attention.output.weight": "self_attn.out_proj.weight",
    "attention.output.bias": "self_attn.out_proj.bias",
    "attention_norm.weight": "norm1.weight",
    "attention_norm.bias": "norm1.bias",
    "feed_forward.up.weight": "linear1.weight",
    "feed_forward.up.bias": "linear1.bias",
    "feed_forward.down.weight": "linear2.weight",
    "feed_forward.down.bias": "linear2.bias",
}
_ENCODER = _SELF | {"feed_forward_norm.weight": "norm2.weight", "feed_forward_norm.bias": "norm2.bias"}
_DECODER = _SELF | {
    "cross.project.weight": "multihead_attn.in_proj_weight",
    "cross.project.bias": "multihead_attn.in_proj_bias",
    "cross.output.weight": "multihead_attn.out_proj.weight",
    "cross.output.bias": "multihead_attn.out_proj.bias",
    "cross_norm.weight": "norm2.weight",
    "cross_norm.bias": "norm2.bias",
    "feed_forward_norm.weight": "norm3.weight",
    "feed_forward_norm.bias": "norm3.bias",
}


def names(ours: EncoderDecoder) -> Iterator[tuple[str, str]]:
    """Every weight's name in our stacks, with its name in torch.nn.Transformer."""
    for stack, table in (("encoder", _ENCODER), ("decoder", _DECODER)):
        for layer in range(len(getattr(ours, stack))):
            for name, theirs in table.items():
                yield f"{stack}.{layer}.{name}", f"{stack}.layers.{layer}.{theirs}"
        for part in ("weight", "bias"):
            yield f"{stack}_norm.{part}", f"{stack}.norm.{part}"


def _one(values: set, what: str) -> object:
    if len(values) != 1:
        raise CourseError(f"all layers need the same {what}, but this nn.Transformer has {sorted(map(str, values))}.")
    return values.pop()


def _check(missing: set[str], unexpected: set[str], what: str) -> None:
    if missing or unexpected:
        said = [
            f"{word} {', '.join(sorted(some)[:3])}{' ...' if len(some) > 3 else ''}"
            for word, some in (("missing:", missing), ("unexpected:", unexpected))
            if some
        ]
        raise CourseError(f"the weights of this {what} are not those of a plain nn.Transformer; {'; '.join(said)}.")


def from_torch(reference: nn.Transformer) -> EncoderDecoder:
    """Our stacks with the weights of an ``nn.Transformer``, in its number type, and in its mode.

    Raises CourseError for a weight that is missing or unexpected (``bias=False``, for instance), and for layers that
    differ in more than their weights.
    """
    layers = [*reference.encoder.layers, *reference.decoder.layers]
    activation = _one({layer.activation for layer in layers}, "activation")
    known = {F.relu: "relu", F.gelu: "gelu"}
    if activation not in known:
        raise CourseError(f"the activation should be relu or gelu, but is {activation}.")
    with torch.random.fork_rng(devices=[]):  # an initialisation that is overwritten should not use up random numbers
        ours = EncoderDecoder(
            reference.d_model,
            reference.nhead,
            _one({layer.linear1.out_features for layer in layers}, "width of the feed-forward network"),
            len(reference.encoder.layers),
            len(reference.decoder.layers),
            activation=known[activation],
            norm_first=_one({layer.norm_first for layer in layers}, "norm_first"),
            dropout=_one({layer.dropout1.p for layer in layers}, "dropout"),
            epsilon=_one({layer.norm1.eps for layer in layers}, "epsilon of the norms"),
        )
    state, table = reference.state_dict(), dict(names(ours))
    _check(set(table.values()) - set(state), set(state) - set(table.values()), "model")
    first = next(iter(state.values()))
    ours.to(first.device, first.dtype).load_state_dict({name: state[theirs] for name, theirs in table.items()})
    return ours.train(reference.training)


def to_torch(ours: EncoderDecoder) -> nn.Transformer:
    """An ``nn.Transformer`` (``batch_first``) with our stacks' weights, in their number type, and in their mode."""
    block = ours.encoder[0] if len(ours.encoder) else ours.decoder[0]
    weight = block.feed_forward.up.weight
    activations = {F.relu: "relu", F.gelu: "gelu"}
    if block.feed_forward.activation not in activations:
        raise CourseError("nn.Transformer knows relu and gelu, but these stacks use another activation.")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="enable_nested_tensor")  # a faster path that needs the norms behind
        reference = nn.Transformer(
            weight.shape[1],
            block.attention.heads,
            len(ours.encoder),
            len(ours.decoder),
            weight.shape[0],
            dropout=block.dropout.p,
            activation=activations[block.feed_forward.activation],
            layer_norm_eps=block.attention_norm.eps,
            batch_first=True,
            norm_first=block.norm_first,
            device=weight.device,
            dtype=weight.dtype,
        )
    state, table = ours.state_dict(), dict(names(ours))
    _check(set(table) - set(state), set(state) - set(table), "EncoderDecoder")
    reference.load_state_dict({theirs: state[name] for name, theirs in table.items()})
    return reference.train(ours.training)
