"""CLIP against its peers: same machine, sizes, pictures and tokens, in turn, in one run; medians of paired rounds.

"as users run it" is the library's model in fp32 with AdamW. "same precision" gives it the autocast that ours runs in.
open_clip is no requirement of the course: where it is not installed, its figures are left out.
"""

import importlib
import statistics
import sys
import types

import torch
from measure import in_turn, matmul_flops, ratio, trainer

from pfmcourse import convert
from pfmcourse.data import emoji, subwords
from pfmcourse.models.clip import CLIP, ImagesWithTexts, TextTransformer, TextTransformerConfig
from pfmcourse.models.vit import ViT, ViTConfig
from pfmcourse.recipes.simclr import fractions

PAIRS, VOCAB, CONTEXT, JOINT = 128, 500, 16, 128
BEGIN, END, PAD = VOCAB, VOCAB + 1, VOCAB + 2
SIZES = {"dim": 128, "layers": 4, "heads": 4}


def pairs(count=PAIRS):
    """Emoji with their English names, cut to the context and padded to it."""
    data = emoji.load(size=32)
    names = list(data.names["en"])
    tokenizer = subwords.learn("\n".join(names), VOCAB, ("[BEGIN]", "[END]", "[PAD]"))
    tokens = torch.full((count, CONTEXT), PAD)
    for row, text in enumerate(subwords.encode_each(tokenizer, names[:count])):
        text = [BEGIN, *text[: CONTEXT - 2], END]
        tokens[row, : len(text)] = torch.tensor(text)
    return ImagesWithTexts(fractions(data.pictures[:count]), tokens, tokens != PAD)


def clip(activation="gelu", dim=SIZES["dim"]):
    torch.manual_seed(0)
    sizes = SIZES | {"dim": dim, "activation": activation}
    image = ViT(ViTConfig(size=32, patch=4, epsilon=1e-5, patch_bias=False, norm_before=True, **sizes))
    return CLIP(image, TextTransformer(TextTransformerConfig(VOCAB + 3, CONTEXT, end=END, **sizes)), JOINT)


def flops(model, batch):
    """Of one training step: 6 a weight and token, and attention's two products, forward and twice backward."""
    image, text, total = model.config.image, model.config.text, 0
    for part, tokens in ((image, 1 + image.patches), (text, batch.tokens.shape[1])):
        total += tokens * part.layers * (6 * 12 * part.dim**2 + 12 * tokens * part.dim)
    return len(batch.images) * (total + 6 * image.patches * image.channels * image.patch**2 * image.dim)


def open_clip_step(monkeypatch):
    """One step of open_clip's model of the same sizes with its own loss, or None where it is not installed."""
    # Its tokenizer, which nothing here uses, imports ftfy, and that cannot be read beside the course's future_typing.
    monkeypatch.setitem(sys.modules, "ftfy", types.ModuleType("ftfy"))
    try:
        library = importlib.import_module("open_clip")
        parts = importlib.import_module("open_clip.model")
    except ImportError:
        return None
    dim, layers, heads = SIZES.values()
    vision = parts.CLIPVisionCfg(layers, dim, head_width=dim // heads, patch_size=4, image_size=32)
    text = parts.CLIPTextCfg(CONTEXT, VOCAB + 3, width=dim, heads=heads, layers=layers)
    text.pool_type, text.eos_id = "eos", END
    model, loss = library.CLIP(JOINT, vision, text, quick_gelu=True), library.ClipLoss()
    batch = pairs()
    return trainer(model, lambda model: loss(*model(batch.images, batch.tokens)), precise=True)


def test_clip_training_against_transformers_and_open_clip(report, monkeypatch):
    torch.set_num_threads(2)
    ours, lesson, batch = clip("gelu_quick"), clip(), pairs()
    theirs, same = (convert.to_transformers(ours, pad_token_id=PAD) for _ in range(2))

    def reference(model):
        return model(batch.tokens, batch.images, batch.mask.long(), return_loss=True).loss

    assert torch.allclose(ours(batch)["loss"], reference(theirs), atol=1e-4)
    steps = {
        "ours": trainer(ours, lambda model: model(batch)["loss"], precise=False),
        "lesson": trainer(lesson, lambda model: model(batch)["loss"], precise=False),
        "users": trainer(theirs.train(), reference, precise=True),
        "same": trainer(same.train(), reference, precise=False),
    }
    if other := open_clip_step(monkeypatch):
        steps["open_clip"] = other
    times = in_turn(steps)
    fastest, peak = statistics.median(times["lesson"]), matmul_flops()
    report(
        "clip_training_pairs_per_second_to_transformers",
        ratio_as_users_run_it=ratio(times, "users", "lesson"),
        ratio_as_users_run_it_same_activation=ratio(times, "users", "ours"),
        ratio_same_precision=ratio(times, "same", "lesson"),
        ratio_same_precision_same_activation=ratio(times, "same", "ours"),
        **({"ratio_to_open_clip": ratio(times, "open_clip", "lesson")} if other else {}),
        pairs_per_second=PAIRS / fastest,
        share_of_matrix_multiply_speed=flops(lesson, batch) / fastest / peak,
        matrix_multiply_gflops=peak / 1e9,
    )
    assert ratio(times, "users", "lesson") > 1


def test_cost_as_batch_and_width_grow(report):
    """Seconds a step, relative to the first row."""
    torch.set_num_threads(2)
    rows = {"64 pairs, dim 128": (64, 128), "128 pairs": (128, 128), "256 pairs": (256, 128)}
    rows |= {"dim 256": (64, 256), "dim 512": (64, 512)}
    batches = {count: pairs(count) for count, _ in rows.values()}
    steps = {
        name: trainer(clip(dim=dim), lambda model, batch=batches[count]: model(batch)["loss"], precise=False)
        for name, (count, dim) in rows.items()
    }
    times = in_turn(steps, rounds=3)
    first = next(iter(rows))
    report("clip_cost", seconds=statistics.median(times[first]), **{name: ratio(times, name, first) for name in rows})
    assert ratio(times, "256 pairs", first) > 1.5 and ratio(times, "dim 512", first) > 1.5
