"""Models of the library transformers against ours: same numbers, same gradients, there and back, nothing lost."""

import ast
import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from compare import difference, gradients

from pfmcourse import convert
from pfmcourse.base import CourseError, UnknownName
from pfmcourse.convert import bert, gpt2
from pfmcourse.models.bert import BERT, BERTConfig, MaskedText
from pfmcourse.models.convnet import ConvNet, ConvNetConfig
from pfmcourse.models.gpt import GPT, GPTConfig

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

VOCAB, CONTEXT, PAD = 23, 9, 3
GPT2_SIZES = {"vocab_size": VOCAB, "n_positions": CONTEXT, "n_embd": 12, "n_layer": 2, "n_head": 3}
GPT2_SIZES |= {"bos_token_id": 1, "eos_token_id": 2, "layer_norm_epsilon": 1e-3}
BERT_SIZES = {"vocab_size": VOCAB, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
BERT_SIZES |= {"intermediate_size": 48, "pad_token_id": PAD, "layer_norm_eps": 1e-3}
POSITIONS = {"Bert": CONTEXT, "Roberta": CONTEXT + PAD + 1}
KINDS = ["GPT2LMHeadModel", "GPT2Model", "BertForPreTraining", "BertForMaskedLM", "RobertaForMaskedLM"]
EXACT = [(torch.float64, 1e-9), (torch.float32, 1e-5)]


def build(kind, dtype=torch.float64, **changes):
    """A reference of which every weight is random, biases and norms too, so that none can be mistaken for another."""
    family = "GPT2" if kind.startswith("GPT2") else kind[: kind.index("For")]
    sizes = GPT2_SIZES if family == "GPT2" else BERT_SIZES | {"max_position_embeddings": POSITIONS[family]}
    config = getattr(transformers, f"{family}Config")(**(sizes | changes))
    reference = getattr(transformers, kind)(config).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            parameter.normal_(std=0.4)
            if family == "Roberta" and name.endswith("position_embeddings.weight"):
                parameter[: PAD + 1] = 0  # never read
    return reference


@pytest.fixture
def text():
    """Four texts without the padding token, padded at the end, with segments and holes."""
    lengths = torch.tensor([CONTEXT, 5, 7, 2])
    mask = torch.arange(CONTEXT) < lengths[:, None]
    tokens = torch.randint(PAD + 1, VOCAB, mask.shape).where(mask, PAD)
    segments = ((torch.arange(CONTEXT) >= lengths[:, None] // 2) & mask).long()
    places = torch.tensor([[0, 3, 8], [4, 1, 0], [2, 6, 5], [1, 0, 5]])
    targets = torch.randint(VOCAB, places.shape)
    targets[1, 2] = targets[3, 2] = -100
    return MaskedText(tokens, segments, mask, places, targets, torch.tensor([0, 1, 1, 0]))


def labels(text):
    """The targets where the reference wants them: one for each place, -100 where nothing is asked."""
    return torch.full_like(text.tokens, -100).scatter(1, text.places, text.targets)


# The same numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "gelu", "relu"])
def test_gpt2(text, dtype, tolerance, activation):
    reference = build("GPT2LMHeadModel", dtype, activation_function=activation)
    ours = convert.from_transformers(reference)
    output = reference(text.tokens, labels=text.tokens)
    assert output.logits.dtype == dtype
    assert difference(ours.logits(text.tokens), output.logits) < tolerance
    loss = ours(text.tokens)["loss"]
    assert abs(loss.item() - output.loss.item()) < 1e-5  # the library computes it in float32
    exact = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), text.tokens[:, 1:].flatten())
    assert abs(loss.item() - exact.item()) < tolerance
    loss.backward()
    exact.backward()
    assert gradients(ours, reference) < tolerance


def test_gpt2_without_the_output_layer(text):
    reference = build("GPT2Model")
    ours = convert.from_transformers(reference)
    assert difference(ours.encode(text.tokens), reference(text.tokens).last_hidden_state) < 1e-9


def test_gpt2_writes_the_same():
    reference = build("GPT2LMHeadModel", eos_token_id=None)
    with torch.no_grad():
        reference.transformer.ln_f.bias.zero_()
        reference.transformer.wpe.weight.mul_(5)  # or the same token would be the likeliest everywhere
    begin = torch.randint(VOCAB, (3, 2))
    theirs = reference.generate(
        begin, attention_mask=torch.ones_like(begin), max_new_tokens=CONTEXT - 2, do_sample=False, pad_token_id=0
    )
    assert torch.equal(convert.from_transformers(reference).generate(begin, CONTEXT - 2, temperature=0.0), theirs)
    assert len(theirs[:, 2:].unique()) > 3


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_bert(text, dtype, tolerance):
    reference = build("BertForPreTraining", dtype)
    ours = convert.from_transformers(reference)
    output = reference(
        text.tokens,
        attention_mask=text.mask,
        token_type_ids=text.segments,
        labels=labels(text),
        next_sentence_label=text.follows,
        output_hidden_states=True,
    )
    layers = ours.layers(text.tokens, text.segments, text.mask)
    assert len(layers) == len(output.hidden_states) == 3
    assert max(map(difference, layers, output.hidden_states)) < tolerance
    logits = ours.logits(text.tokens, text.segments, text.mask)
    assert logits.dtype == dtype and difference(logits, output.prediction_logits) < tolerance
    assert difference(ours.follows_logits(layers[-1]), output.seq_relationship_logits) < tolerance
    loss = ours(text)["loss"]
    assert abs(loss.item() - output.loss.item()) < tolerance
    loss.backward()
    output.loss.backward()
    assert gradients(ours, reference) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
@pytest.mark.parametrize("kind", ["BertForMaskedLM", "RobertaForMaskedLM"])
def test_models_that_only_guess_hidden_tokens(text, kind, dtype, tolerance):
    reference = build(kind, dtype)
    ours = convert.from_transformers(reference)
    output = reference(text.tokens, attention_mask=text.mask, token_type_ids=text.segments, labels=labels(text))
    logits = ours.logits(text.tokens, text.segments, text.mask)
    assert difference(logits[text.mask], output.logits[text.mask]) < tolerance
    loss = ours(text)["loss"]
    assert abs(loss.item() - output.loss.item()) < tolerance
    loss.backward()
    output.loss.backward()
    assert gradients(ours, reference) < tolerance


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("BertForMaskedLM", {"type_vocab_size": 1}),
        ("RobertaForMaskedLM", {"type_vocab_size": 1}),
        ("RobertaForMaskedLM", {"hidden_act": "relu"}),  # its output layer has gelu all the same
        ("BertForMaskedLM", {"num_attention_heads": 4}),  # an odd size of each head
        ("RobertaForMaskedLM", {"pad_token_id": 0, "max_position_embeddings": CONTEXT + 1}),
    ],
)
def test_other_settings_without_padding_and_segments(text, kind, changes):
    reference = build(kind, **changes)
    tokens = torch.randint(PAD + 1, VOCAB, (3, CONTEXT))
    ours = convert.from_transformers(reference)
    assert ours.config.context == CONTEXT
    assert difference(ours.logits(tokens), reference(tokens).logits) < 1e-9


def outputs(model, text):
    """All that a model of ours can say about a text."""
    if isinstance(model, GPT):
        return model.logits(text.tokens).flatten()
    states = model.encode(text.tokens, text.segments, text.mask)
    guesses = model.logits(text.tokens, text.segments, text.mask)[text.mask]
    follows = model.follows_logits(states) if model.config.next_sentence else states.new_empty(0)
    return torch.cat([states[text.mask].flatten(), guesses.flatten(), follows.flatten()])


@pytest.mark.parametrize("kind", KINDS)
def test_two_names_in_disorder_would_show(kind, text, monkeypatch):
    """What is compared above depends on every row of the tables: swap two that have the same shape, and it changes."""
    reference, conversion = build(kind), convert._registry()[kind]
    rows, right = conversion.table(reference.config), convert.from_transformers(reference)
    expected, shapes = outputs(right, text), {name: weight.shape for name, weight in right.state_dict().items()}
    swapped = 0
    for i, one in enumerate(rows):
        j = next((j for j in range(i + 1, len(rows)) if shapes[rows[j].ours] == shapes[one.ours]), None)
        if j is None:
            continue
        disorder = [*rows]
        disorder[i], disorder[j] = (
            dataclasses.replace(one, ours=rows[j].ours),
            dataclasses.replace(rows[j], ours=one.ours),
        )
        changed = dataclasses.replace(conversion, table=lambda theirs, disorder=disorder: disorder)
        monkeypatch.setattr(convert, "_registry", lambda changed=changed: {kind: changed})
        wrong = outputs(convert.from_transformers(reference), text)
        assert difference(wrong, expected) > 1e-4, f"{one.ours} and {rows[j].ours} could change places unnoticed"
        swapped += 1
    assert swapped > len(rows) // 2


# There and back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_nothing_has_changed(kind, dtype):
    reference = build(kind, dtype)
    tokens = {} if kind.startswith("GPT2") else {"pad_token_id": PAD}
    back = convert.to_transformers(convert.from_transformers(reference), kind, **tokens)
    assert type(back) is type(reference)
    expected, found = reference.state_dict(), back.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype == dtype and torch.equal(found[name], weight), name
    sizes = BERT_SIZES if "Bert" in kind or "bert" in kind else GPT2_SIZES
    for name in set(sizes) - {"bos_token_id", "eos_token_id"}:
        assert getattr(back.config, name) == getattr(reference.config, name), name


def bert_config(**changes):
    return BERTConfig(VOCAB, CONTEXT, dim=12, layers=2, heads=3, neighbours=False, **changes)


OURS = {
    "GPT2LMHeadModel": (GPTConfig(VOCAB, CONTEXT, dim=12, layers=2, heads=3, dropout=0.1), {"eos_token_id": 4}),
    "BertForPreTraining": (bert_config(dropout=0.1), {"pad_token_id": PAD}),
    "BertForMaskedLM": (bert_config(next_sentence=False), {}),
    "RobertaForMaskedLM": (
        bert_config(next_sentence=False, segments=1, activation="relu"),
        {"pad_token_id": PAD},
    ),
}


def made(kind):
    """A model of ours, in float64 and with random weights."""
    config, tokens = OURS[kind]
    ours = (GPT if isinstance(config, GPTConfig) else BERT)(config).double().eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return ours, tokens


@pytest.mark.parametrize("kind", OURS)
def test_ours_is_saved_by_the_library_and_loaded_again(kind, text, tmp_path):
    ours, tokens = made(kind)
    handed = convert.to_transformers(ours, **tokens)
    assert type(handed).__name__ == kind, "the first that fits"
    handed.save_pretrained(tmp_path)
    loaded = type(handed).from_pretrained(tmp_path, dtype=torch.float64, local_files_only=True)
    again = convert.from_transformers(loaded)
    assert again.config == ours.config
    assert again.state_dict().keys() == ours.state_dict().keys()
    for name, weight in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    if kind == "RobertaForMaskedLM":
        text = dataclasses.replace(text, segments=torch.zeros_like(text.segments))
        assert not loaded.roberta.embeddings.position_embeddings.weight[: PAD + 1].any()
    if kind == "GPT2LMHeadModel":
        assert difference(loaded(text.tokens).logits, ours.logits(text.tokens)) < 1e-9
    else:
        logits = loaded(text.tokens, attention_mask=text.mask, token_type_ids=text.segments)[0]
        assert difference(logits[text.mask], ours.logits(text.tokens, text.segments, text.mask)[text.mask]) < 1e-9
    special = {name: getattr(loaded.config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    assert special == {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None} | tokens


def test_kinds_can_be_asked_for_by_name():
    assert type(convert.to_transformers(made("GPT2LMHeadModel")[0], "GPT2Model")) is transformers.GPT2Model
    plain = made("BertForMaskedLM")[0]
    found = convert.to_transformers(plain, "RobertaForMaskedLM", pad_token_id=0)
    assert found.config.max_position_embeddings == CONTEXT + 1 and found.config.type_vocab_size == 2


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_dropout_come_along_and_no_random_number_is_used_up(training):
    reference = build("GPT2LMHeadModel", resid_pdrop=0.3, embd_pdrop=0.2, attn_pdrop=0.1).train(training)
    before = torch.get_rng_state()
    ours = convert.from_transformers(reference)
    back = convert.to_transformers(ours)
    assert torch.equal(torch.get_rng_state(), before)
    assert ours.training == back.training == training
    assert ours.config.dropout == ours.blocks[0].dropout.p == 0.3
    assert (back.config.resid_pdrop, back.config.embd_pdrop, back.config.attn_pdrop) == (0.3, 0.3, 0)


def test_weights_are_copies():
    reference = build("GPT2LMHeadModel")
    ours = convert.from_transformers(reference)
    with torch.no_grad():
        reference.transformer.ln_f.bias += 1
        back = convert.to_transformers(ours)
        ours.norm.bias -= 1
    assert difference(reference.transformer.ln_f.bias, ours.norm.bias) == pytest.approx(2)
    assert difference(back.transformer.ln_f.bias, ours.norm.bias) == pytest.approx(1)


# What cannot be converted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("GPT2LMHeadModel", {"activation_function": "silu"}, "unknown activation 'silu'"),
        ("GPT2LMHeadModel", {"n_inner": 20}, "n_inner=20.*48"),
        ("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ("GPT2LMHeadModel", {"scale_attn_weights": False}, "scale_attn_weights=False"),
        ("GPT2LMHeadModel", {"add_cross_attention": True}, "add_cross_attention=True"),
        ("GPT2LMHeadModel", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ("BertForPreTraining", {"hidden_act": "relu"}, "hidden_act='relu'"),
        ("BertForMaskedLM", {"hidden_act": "gelu_new"}, "hidden_act='gelu_new'"),
        ("BertForMaskedLM", {"is_decoder": True}, "is_decoder=True"),
        ("BertForMaskedLM", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ("BertForMaskedLM", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ("BertForMaskedLM", {"intermediate_size": 36}, "intermediate_size=36.*48"),
        ("RobertaForMaskedLM", {"hidden_act": "silu"}, "unknown activation 'silu'"),
        ("RobertaForMaskedLM", {"is_decoder": True, "add_cross_attention": True}, "is_decoder=True"),
        ("RobertaForMaskedLM", {"pad_token_id": None}, "counts positions from its padding token"),
    ],
)
def test_a_setting_without_counterpart_is_named(kind, changes, words):
    with pytest.raises(CourseError, match=words):
        convert.from_transformers(build(kind, **changes))


def test_another_class_of_the_library_is_named():
    config = build("BertForMaskedLM").config
    with pytest.raises(UnknownName, match=r"'BertModel'.*Known: .*BertForPreTraining"):
        convert.from_transformers(transformers.BertModel(config))


def test_an_output_layer_of_its_own_is_an_error():
    reference = build("GPT2LMHeadModel")
    reference.lm_head.weight = torch.nn.Parameter(reference.lm_head.weight + 1)
    with pytest.raises(CourseError, match=r"transformer\.wte\.weight serves for lm_head\.weight"):
        convert.from_transformers(reference)


def test_weights_too_many_and_too_few_are_named():
    reference = build("BertForPreTraining")
    reference.bert.adapter = torch.nn.Linear(2, 2, bias=False)
    reference.bert.pooler = None
    with pytest.raises(CourseError, match=r"lacks bert\.pooler\.dense\.bias.*also has bert\.adapter\.weight"):
        convert.from_transformers(reference)
    ours, _ = made("GPT2LMHeadModel")
    ours.adapter = torch.nn.Linear(2, 2, bias=False)
    with pytest.raises(CourseError, match=r"our model also has adapter\.weight"):
        convert.to_transformers(ours)


def test_a_weight_of_another_shape_is_named():
    reference = build("GPT2LMHeadModel")
    reference.config.n_positions = 4
    with pytest.raises(CourseError, match=r"positions\.weight has shape \(9, 12\), expected \(4, 12\)"):
        convert.from_transformers(reference)


def test_a_table_that_forgets_a_weight_of_ours_is_an_error(monkeypatch):
    full = convert._registry()["GPT2Model"]
    short = dataclasses.replace(full, table=lambda theirs: full.table(theirs)[1:], tied={"wte.weight": "wpe.weight"})
    monkeypatch.setattr(convert, "_registry", lambda: {"GPT2Model": short})
    reference = build("GPT2Model")
    reference.wpe.weight = reference.wte.weight
    with pytest.raises(CourseError, match=r"lacks tokens\.weight"):
        convert.from_transformers(reference)


@pytest.mark.parametrize(
    ("kind", "wanted", "tokens", "words"),
    [
        ("GPT2LMHeadModel", None, {"eos_token_id": VOCAB}, "eos_token_id=23 is not in the vocabulary.*0 to 22"),
        ("GPT2LMHeadModel", None, {"pad_token_id": -1}, "pad_token_id=-1"),
        ("GPT2LMHeadModel", None, {"end_token": 3}, "unknown special token 'end_token'.*eos_token_id"),
        ("GPT2LMHeadModel", "BertForMaskedLM", {}, "unknown counterpart of GPT 'BertForMaskedLM'"),
        ("BertForPreTraining", "RobertaForMaskedLM", {"pad_token_id": 0}, "What can: BertForPreTraining"),
        ("BertForMaskedLM", "BertForPreTraining", {}, "What can: BertForMaskedLM, RobertaForMaskedLM"),
        ("RobertaForMaskedLM", None, {}, "counts positions from its padding token"),
    ],
)
def test_what_ours_cannot_become(kind, wanted, tokens, words):
    with pytest.raises(CourseError, match=words):
        convert.to_transformers(made(kind)[0], wanted, **tokens)


def test_a_model_without_counterpart_is_named():
    with pytest.raises(UnknownName, match=r"'ConvNet'.*Known: BERT, BEiT, CLIP, GPT"):
        convert.to_transformers(ConvNet(ConvNetConfig(classes=2)))


# The list of conversions ---------------------------------------------------------------------------------------------


def test_each_conversion_listed_here_is_tested_above_and_found():
    listed = [conversion.reference for conversion in (*gpt2.CONVERSIONS, *bert.CONVERSIONS)]
    assert sorted(listed) == sorted(KINDS)
    assert set(listed) <= set(convert._registry())


def test_nothing_imports_transformers_before_it_is_needed():
    for path in Path(convert.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("transformers") for name in names), path.name
