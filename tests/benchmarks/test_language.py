"""GPT and BERT against transformers: same machine, sizes and data, in turn, in one run; medians of paired rounds.

"as users run it" is the library's model in fp32 with AdamW, padded, with its own loss. "same precision" gives it the
autocast that ours runs in.
"""

import statistics

import torch
from measure import in_turn, matmul_flops, ratio, seconds, trainer

from pfmcourse import convert, recipes
from pfmcourse.data import subwords
from pfmcourse.models.bert import BERT, BERTConfig
from pfmcourse.models.gpt import GPT, GPTConfig
from pfmcourse.nn.masking import IGNORED
from pfmcourse.recipes import bert as bert_recipe
from pfmcourse.recipes import gpt as gpt_recipe

ROWS, TIME = 32, 128


def gpt_pair(**changes):
    config = recipes.config("gpt", "laptop")
    sizes = {"context": TIME + 1, "dim": config.dim, "layers": config.layers, "heads": config.heads} | changes
    torch.manual_seed(0)
    ours = GPT(GPTConfig(config.vocab, activation="gelu_tanh", **sizes))
    theirs = convert.to_transformers(ours)
    theirs.config.use_cache = False
    return ours, theirs


def gpt_flops(model, tokens, time_axis):
    """Of one training step: 6 a weight and token, and attention's two products, forward and twice backward."""
    config = model.config
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "positions" not in n)
    return tokens * (6 * matrices + 12 * config.layers * time_axis * config.dim)


def test_gpt_training_against_transformers(report):
    torch.set_num_threads(2)
    ours, theirs = gpt_pair()
    same = gpt_pair()[1]
    default = GPT(GPTConfig(**(vars(ours.config) | {"activation": "gelu"})))
    data = gpt_recipe.corpus("shakespeare", ours.config.vocab)
    batch = gpt_recipe.windows(data.train, TIME + 1, ROWS, 0, 0)
    times = in_turn(
        {
            "ours": trainer(ours, lambda model: model(batch)["loss"], precise=False),
            "lesson": trainer(default, lambda model: model(batch)["loss"], precise=False),
            "users": trainer(theirs, lambda model: model(input_ids=batch, labels=batch).loss, precise=True),
            "same": trainer(same, lambda model: model(input_ids=batch, labels=batch).loss, precise=False),
        }
    )
    tokens, fastest = ROWS * TIME, statistics.median(times["lesson"])
    speed = gpt_flops(default, tokens, TIME) / fastest
    peak = matmul_flops()
    report(
        "gpt_training_tokens_per_second_to_transformers",
        ratio_as_users_run_it=ratio(times, "users", "lesson"),
        ratio_as_users_run_it_same_activation=ratio(times, "users", "ours"),
        ratio_same_precision=ratio(times, "same", "lesson"),
        ratio_same_precision_same_activation=ratio(times, "same", "ours"),
        tokens_per_second=tokens / fastest,
        share_of_matrix_multiply_speed=speed / peak,
        matrix_multiply_gflops=peak / 1e9,
    )
    assert ratio(times, "users", "lesson") > 1


def test_gpt_generation_against_transformers(report):
    torch.set_num_threads(2)
    ours, theirs = gpt_pair()
    ours.eval(), theirs.eval()
    theirs.config.use_cache = True
    start, count = torch.randint(ours.config.vocab, (1, 8)), 100
    settings = {"do_sample": False, "use_cache": True, "pad_token_id": 0, "eos_token_id": None}

    def generate():
        return theirs.generate(start, max_new_tokens=count, min_new_tokens=count, **settings)

    times = in_turn(
        {
            "ours": lambda: ours.generate(start, count, temperature=0),
            "uncached": lambda: ours.generate(start, count, temperature=0, cache=False),
            "theirs": generate,
        },
        rounds=5,
    )
    assert torch.equal(generate(), ours.generate(start, count, temperature=0))
    report(
        "gpt_generation_tokens_per_second_to_transformers",
        ratio=ratio(times, "theirs", "ours"),
        ratio_to_no_cache=ratio(times, "uncached", "ours"),
        tokens_per_second=count / statistics.median(times["ours"]),
    )
    assert ratio(times, "theirs", "ours") > 1


def test_bert_masked_loss_against_transformers(report):
    """Running windows as the recipe makes them; and single speeches, which the reference pads to the longest."""
    torch.set_num_threads(2)
    config = recipes.config("bert", "laptop")
    torch.manual_seed(0)
    vocab = config.vocab + len(bert_recipe.SPECIAL)
    sizes = {"context": config.context, "dim": config.dim, "layers": config.layers, "heads": config.heads}
    ours = BERT(BERTConfig(vocab, **sizes))
    theirs, same = convert.to_transformers(ours), convert.to_transformers(ours)
    data = gpt_recipe.corpus("shakespeare", config.vocab, bert_recipe.SPECIAL)
    generator = torch.Generator().manual_seed(0)
    share = recipes.config("bert", "laptop").share
    batch = bert_recipe.examples(
        type(config)(**(vars(config) | {"share": 0.15})), data.train, torch.arange(0, 64 * 62, 62), generator
    )
    labels = torch.full_like(batch.tokens, IGNORED).scatter(1, batch.places, batch.targets)

    def reference(model):
        return model(
            input_ids=batch.tokens,
            token_type_ids=batch.segments,
            attention_mask=batch.mask.long(),
            labels=labels,
            next_sentence_label=batch.follows,
        ).loss

    assert torch.allclose(ours(batch)["loss"], reference(theirs), atol=1e-4)
    times = in_turn(
        {
            "ours": trainer(ours, lambda model: model(batch)["loss"], precise=False),
            "users": trainer(theirs, reference, precise=True),
            "same": trainer(same, reference, precise=False),
        }
    )
    report(
        "bert_training_tokens_per_second_to_transformers",
        ratio_as_users_run_it=ratio(times, "users", "ours"),
        ratio_same_precision=ratio(times, "same", "ours"),
        tokens_per_second=batch.tokens.numel() / statistics.median(times["ours"]),
        share_hidden_in_the_lesson=share,
    )
    assert ratio(times, "users", "ours") > 1


def test_cost_as_context_and_model_grow(report):
    """Seconds a step, relative to the first row, with the number of tokens in a batch kept."""
    torch.set_num_threads(2)
    rows = {"dim 192, context 128": {}}
    rows |= {f"context {context}": {"context": context} for context in (256, 512)}
    rows |= {f"dim {dim}": {"dim": dim} for dim in (384, 768)}
    rows |= {f"layers {layers}": {"layers": layers} for layers in (8, 16)}
    steps = {}
    for name, changes in rows.items():
        sizes = {"vocab": 2048, "context": 128, "dim": 192, "layers": 4, "heads": 4} | changes
        model = GPT(GPTConfig(**sizes))
        batch = torch.randint(2048, (4096 // sizes["context"], sizes["context"] + 1))
        steps[name] = trainer(model, lambda model, batch=batch: model(batch)["loss"], precise=False)
    times = in_turn(steps, rounds=3)
    first = "dim 192, context 128"
    report("gpt_cost", seconds=statistics.median(times[first]), **{name: ratio(times, name, first) for name in rows})
    assert ratio(times, "layers 16", first) > 1.5


def test_byte_pair_encoding_against_a_plain_one(report):
    """Learning 1,000 merges on the training plays: the library's, and sentencepiece's where it is installed."""
    import importlib

    text = gpt_recipe.text("shakespeare", "train")
    held_out = gpt_recipe.text("shakespeare", "test")
    times = [seconds(lambda: subwords.learn.__wrapped__(text, 1280)) for _ in range(3)]
    tokenizer = subwords.learn(text, 1280)
    count = len(tokenizer.encode(held_out).ids)
    figures = {"seconds_to_learn": statistics.median(times), "bytes_per_token": len(held_out.encode()) / count}
    try:
        sentencepiece = importlib.import_module("sentencepiece")
    except ImportError:
        figures["sentencepiece"] = "not installed"
    else:
        import io

        model = io.BytesIO()

        def train():
            model.seek(0)
            model.truncate()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(text.splitlines()),
                model_writer=model,
                vocab_size=1280,
                model_type="bpe",
                byte_fallback=True,
                minloglevel=2,
            )

        figures["ratio_to_sentencepiece"] = seconds(train) / figures["seconds_to_learn"]
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        count = sum(len(pieces.encode(line)) for line in held_out.splitlines())
        figures["sentencepiece_bytes_per_token"] = len(held_out.encode()) / count
    report("byte_pair_encoding", **figures)
    assert figures["bytes_per_token"] > 2
