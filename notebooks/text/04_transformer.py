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
# # The Transformer
#
# Nearly everything that comes later in this course is a Transformer: GPT, BERT, ViT, CLIP. It was
# made for translation, so that is where we meet it: it learns to put the names of emoji into
# Chinese and Spanish.
#
# After it you can
#
# - write **scaled dot-product** and **multi-head attention** from a blank cell, with masks and
#   positions;
# - say what the **residual stream** is, and measure what a norm before or after each part does;
# - train a translator, judge it on phrases it has never seen, and read its **alignment**;
# - write with **greedy** and **beam search** from a key-value cache, and prove that your stack is
#   torch's.
#
# You need: lesson 02, and what a recurrent network is. How long reading and running take is
# printed below.
#
# <!-- slide
# Nearly everything that comes later is a Transformer: GPT, BERT, ViT, CLIP. It was made for
# translation, and so we meet it there.
#
# After this lesson you can
#
# - write **attention** from a blank cell: heads, masks, positions;
# - say what the **residual stream** is, and measure where its norm belongs;
# - train a **translator**, test it on phrases it has never seen, and read its **alignment**;
# - write with **greedy** and **beam search** from a cache.
# -->
# <!-- notes
# Ask the room: who has used a translator today? What must it have done with the words? Run the
# first cells while you talk: they say how long the whole notebook takes on this machine.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# **Papers.** Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin: *Attention Is
# All You Need* (2017) · Sutskever, Vinyals, Le: *Sequence to Sequence Learning with Neural
# Networks* (2014) · Cho and others: *Learning Phrase Representations using RNN Encoder-Decoder for
# Statistical Machine Translation* (2014) · Bahdanau, Cho, Bengio: *Neural Machine Translation by
# Jointly Learning to Align and Translate* (2015) · Xiong and others: *On Layer Normalization in the
# Transformer Architecture* (2020) · Popović: *chrF: character n-gram F-score for automatic MT
# evaluation* (2015)

# %% tags=["parameters"] slideshow={"slide_type": "skip"}
preset = None  # None: $PFMCOURSE_PRESET, else "laptop"
seed = 0
steps = None  # of both models; None: as the preset says
norm_first = None  # False: the norms of 2017, after each addition; None: as the preset says

# %% slideshow={"slide_type": "skip"}
import copy
import dataclasses
import math
import random
import time
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import display
from torch import nn

from pfmcourse import evaluate, plots
from pfmcourse.checks import transformer as check
from pfmcourse.convert import torch_transformer as convert
from pfmcourse.evaluate import Table
from pfmcourse.lesson import Lesson
from pfmcourse.models.transformer import Transformer, TransformerConfig
from pfmcourse.nn.attention import MultiHeadAttention, attention
from pfmcourse.nn.transformer import Block, sinusoids
from pfmcourse.recipes import transformer as recipe
from pfmcourse.train import fit

warnings.filterwarnings("ignore", message="enable_nested_tensor")  # torch, about a faster path
lesson = Lesson("transformer", preset=preset, seed=seed, steps=steps, norm_first=norm_first)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The idea
#
# Before 2017 a translator had two recurrent networks. The **encoder** reads the phrase word by word
# and ends in *one vector*. The **decoder** writes the translation from that vector:
#
# ```
# woman  pilot  dark  skin  tone  ──►  [ one vector ]  ──►  女  飞  行  员  较  深  肤  色
# ```
#
# Whatever the phrase says must pass through the bottleneck, and a word must survive every step from
# where it was read to where it is needed.
#
# **Attention** takes the bottleneck away. The decoder keeps *all* the encoder's vectors, and
# whenever it writes a token it looks: which of them do I need now? The Transformer goes one step
# further: it has nothing else. No recurrence; places of a phrase talk to each other through
# attention alone.
#
# <!-- slide
# **2014.** One network reads, another writes. *One vector* stands between them: a bottleneck.
#
# ```text
# woman  pilot  dark  skin  tone  ──►  [ one vector ]  ──►  piloto  mujer  tono  de  piel  oscuro
# ```
#
# **Attention** keeps *all* the vectors. Whoever writes a word looks: which do I need now?
#
# ```text
# woman  pilot  dark  skin  tone       one vector for each word
#   │      │     │     │     │
#   └──────┴─────┴──┬──┴─────┘         all of them, weighted anew for every word
#                   ▼
#           piloto  mujer  tono  de  piel  oscuro
# ```
#
# **2017.** The Transformer has nothing else: no recurrence, attention alone.
# -->
# <!-- notes
# Ask: how long may a phrase be before one vector is too small? A common misunderstanding:
# attention was not new in 2017. New was to leave everything else out.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Looking something up, softly
#
# A Python dictionary compares a query with its keys and returns the value of the one that fits.
# Attention does the same with vectors, and softly: **every** key fits a little.
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{d}}\Big) V$$
#
# - $q_i \cdot k_j$ says how well key $j$ fits query $i$;
# - the softmax makes weights of row $i$ that sum to 1;
# - the result is the mean of the values, with these weights.
#
# Why $\sqrt{d}$? The dot product of two random vectors of $d$ numbers has the variance $d$. Without
# the root the softmax of long vectors would put all weight on one key from the start, and where it
# is that sure its gradient vanishes.
#
# <!-- slide
# A dictionary returns the value of the key that fits. Attention does it softly: **every** key fits
# a little.
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{d}}\Big) V$$
#
# - $q_i \cdot k_j$: how well key $j$ fits query $i$;
# - softmax: the weights of row $i$ sum to 1;
# - the result: the mean of the values, with these weights.
#
# Why $\sqrt{d}$? The dot product of two random vectors of $d$ numbers has the variance $d$.
# Without the root the softmax is too sure from the start, and its gradient vanishes.
# -->
# <!-- notes
# Write the shapes on the board: queries by keys, then queries by numbers of a value. Ask: what
# does attention return when all keys are equal? (The plain mean of the values.)
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## By hand
#
# ### Attention from a blank cell
#
# First as the sentences above say it, with loops. Then as the formula says it. Then the packaged
# one.
#
# <!-- slide
# As the sentences say it, with loops:
#
# ```python
# for query in queries:
#     fit_of = [math.exp(query @ key / math.sqrt(len(query))) for key in keys]
#     weights = [one / sum(fit_of) for one in fit_of]
#     rows.append(sum(weight * value for weight, value in zip(weights, values)))
# ```
#
# As the formula says it, all queries at once:
#
# ```python
# weights = (queries @ keys.T / queries.shape[1] ** 0.5).softmax(dim=1)
# return weights @ values
# ```
#
# And the function that the course uses from here on. Do the three agree?
# -->
# <!-- notes
# Let the room write it first: five minutes, three lines. The usual mistake is the softmax over the
# wrong axis: then the columns sum to 1 and not the rows.
# -->


# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
def attention_with_loops(queries, keys, values):
    """One query after the other."""
    rows = []
    for query in queries:
        fit_of = [math.exp(query @ key / math.sqrt(len(query))) for key in keys]
        weights = [one / sum(fit_of) for one in fit_of]
        rows.append(sum(weight * value for weight, value in zip(weights, values, strict=True)))
    return torch.stack(rows)


def attention_as_matrices(queries, keys, values):
    """All queries at once: three operations."""
    weights = (queries @ keys.T / queries.shape[1] ** 0.5).softmax(dim=1)
    return weights @ values


torch.manual_seed(0)
queries, keys, values = torch.randn(3, 8), torch.randn(5, 8), torch.randn(5, 6)
slow = attention_with_loops(queries, keys, values)
fast = attention_as_matrices(queries, keys, values)
print("loops and matrices agree:", torch.allclose(slow, fast, atol=1e-6))
packaged = attention(queries, keys, values)
print("the packaged attention agrees:", torch.allclose(fast, packaged, atol=1e-6))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Several heads
#
# One softmax gives one mean. But a word may need its noun *and* its verb. So attention is done
# several times side by side, each **head** in a smaller space of its own with its own projections,
# and the results are put next to each other and mixed.
#
# <!-- slide
# One softmax gives one mean. But a word may need its noun *and* its verb.
#
# Several **heads** work side by side, each with projections of its own to a smaller space. The
# results are put next to each other and mixed:
#
# $$\mathrm{head}_h = \mathrm{Attention}(X W^q_h,\; Y W^k_h,\; Y W^v_h), \qquad
# \mathrm{out} = [\mathrm{head}_1 \ldots \mathrm{head}_H]\, W^o$$
# -->
# <!-- notes
# Three heads of a third of the width cost what one of the full width costs: the width is shared
# out. A misunderstanding: the heads are no layers, they do not see each other.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(0)
dim, heads = 12, 3
packaged = MultiHeadAttention(
    dim, heads
)  # rows of `project`: first queries, then keys, then values
x = torch.randn(1, 5, dim)

to_q, to_k, to_v = packaged.project.weight.chunk(3)
q_bias, k_bias, v_bias = packaged.project.bias.chunk(3)
q, k, v = x[0] @ to_q.T + q_bias, x[0] @ to_k.T + k_bias, x[0] @ to_v.T + v_bias
width = dim // heads
each = []
for head in range(heads):
    own = slice(head * width, (head + 1) * width)
    each.append(attention_as_matrices(q[:, own], k[:, own], v[:, own]))
by_hand = torch.cat(each, dim=1) @ packaged.output.weight.T + packaged.output.bias
print("multi-head attention agrees:", torch.allclose(by_hand, packaged(x)[0], atol=1e-6))

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Self-attention** takes queries, keys and values from the same phrase. **Cross-attention** takes
# the queries from the translation so far, and keys and values from the source: this is the look
# back that replaces the bottleneck.
#
# <!-- slide
# | | queries from $X$ | keys and values from $Y$ |
# |---|---|---|
# | **self-attention**, encoder | the source | the source |
# | **self-attention**, decoder | what is written so far | what is written so far |
# | **cross-attention** | what is written so far | the source: no bottleneck |
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Masks: who may look where
#
# The decoder learns to predict every token from those before it, all places at once. So a place
# must not see its own future, or it would copy the answer. And nobody should look at padding. A
# mask says where looking is allowed; elsewhere the score becomes minus infinity before the softmax.
#
# <!-- slide
# The decoder learns all places at once. So a place must not see its own future, or it copies the
# answer. And nobody looks at padding.
#
# $$\mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{d}} + M\Big) V, \qquad
# M = \begin{pmatrix} 0 & -\infty & -\infty & -\infty \\ 0 & 0 & -\infty & -\infty \\
# 0 & 0 & 0 & -\infty \\ 0 & 0 & 0 & 0 \end{pmatrix}$$
#
# The test: change the token at place 4, counted from 0. Which predictions may change?
# -->
# <!-- notes
# Let the room answer before you show what was printed. Ask also: why minus infinity before the
# softmax, and not zero after it? (The rows would no longer sum to 1.)
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(0)
tiny = Transformer(TransformerConfig(vocab=20, dim=16, heads=2, hidden=32)).eval()
source, target = torch.randint(3, 20, (1, 6)), torch.randint(3, 20, (1, 7))
before = tiny.logits(source, target)

changed = target.clone()
changed[0, 4] = (changed[0, 4] - 2) % 17 + 3  # another token at place 4
after = tiny.logits(source, changed)
same = [torch.allclose(before[0, place], after[0, place], atol=1e-6) for place in range(7)]
print("unchanged places after a change at place 4:", same)

padded = F.pad(source, (0, 3), value=0)
print("padding changes nothing:", torch.allclose(before, tiny.logits(padded, target), atol=1e-6))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Positions
#
# Attention is a mean, and a mean does not know order: to it *dog bites man* and *man bites dog* are
# the same set of words. So each place adds a vector to its word that says where it stands, made of
# sines and cosines of many wavelengths, like the hands of many clocks.
#
# <!-- slide
# To a mean *dog bites man* and *man bites dog* are the same. So each word gets a vector added that
# says where it stands: sines and cosines, like the hands of many clocks.
# -->
# <!-- notes
# Ask: what if we simply added the number of the place? (It grows without end, and a network that
# saw 40 places has never met a 41.) Later lessons use learned and rotary positions.
# -->

# %% slideshow={"slide_type": "fragment"}
table = sinusoids(40, 64)
figure, (left, right) = plots.panels(1, 2, width=760, height=300)
with plots.style():
    left.imshow(table, cmap="cividis", aspect="auto", interpolation="nearest")
    left.set(title="The table", xlabel="number (32 sines, 32 cosines)", ylabel="place")
    for number, place in enumerate((5, 20)):
        colour, dash = plots.PALETTE[number], plots.DASHES[number]
        right.plot(table @ table[place], color=colour, linestyle=dash, label=f"place {place}")
    right.set(title="Dot product with place 5 and place 20", xlabel="place")
    right.legend()
plots.show(
    figure,
    "Left: 40 places by 64 numbers; the first columns change from place to place, the last ones "
    "hardly. Right: dot products of places 5 and 20 with all places; each is largest at the place "
    "itself and falls to both sides alike.",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The right panel shows why this works: the dot product of two places depends only on how far apart
# they are. *Two words back* looks the same everywhere in the phrase.
#
# <!-- slide
# The dot product of two places depends only on how far apart they are.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
gaps = [[float(table[p] @ table[p + gap]) for p in (0, 9, 25)] for gap in (1, 2, 7)]
print("the same gap, the same product:", all(np.ptp(row) < 1e-3 for row in gaps))

positionless = copy.deepcopy(tiny)
positionless.positions.zero_()
shuffled = source[:, torch.tensor([3, 0, 5, 1, 4, 2])]
one, other = (positionless.logits(some, target) for some in (source, shuffled))
print("without positions word order is invisible:", torch.allclose(one, other, atol=1e-5))
one, other = (tiny.logits(some, target) for some in (source, shuffled))
print("with them it is seen:", not torch.allclose(one, other, atol=1e-5))

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The residual stream
#
# A block never replaces a vector. It **adds** to it: first what attention found elsewhere, then
# what a small network makes of that. So a stream of vectors runs from the first layer to the last,
# and every part reads from it and writes into it.
#
# Sums grow, so a **layer norm** is needed. Where? In 2017 it stood *after* each addition, in the
# stream. Today it stands *before* each part and leaves the stream alone:
#
# $$\text{after: } x \leftarrow \mathrm{norm}(x + f(x)) \qquad
# \text{before: } x \leftarrow x + f(\mathrm{norm}(x))$$
#
# <!-- slide
# A block never replaces a vector. It **adds** to it: every part reads from the stream and writes into
# it.
#
# ```text
# x ──┬─────────────────────────────► (+) ──┬─────────────────────────────────► (+) ──►  the next block
#     │                                ▲    │                                    ▲
#     └─► attention: other places ─────┘    └─► a small network: this place ─────┘
# ```
#
# Sums grow, so a **layer norm** is needed. In 2017 it stood in the stream. Today the stream is left
# alone, and each part reads a normed copy:
#
# $$\text{after: } x \leftarrow \mathrm{norm}(x + f(x)) \qquad
# \text{before: } x \leftarrow x + f(\mathrm{norm}(x))$$
#
# Does it matter? **Guess**: 24 layers, fresh weights. Which layer gets the largest gradient?
# -->
# <!-- notes
# Draw the stream as a river: every part takes a cup of water and pours something back. Collect the
# guesses for the last line; the next slide measures it in a second.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# It looks like a detail. Let us measure: 24 layers, fresh weights, one backward pass. How large is
# the gradient at each layer?
#
# <!-- slide
# 24 layers, fresh weights, one backward pass.
# -->

# %% slideshow={"slide_type": "fragment"}
depth = 24


def gradient_by_layer(norm_first):
    """The gradient's norm at each layer's second feed-forward matrix, when training starts."""
    torch.manual_seed(0)
    layers = nn.ModuleList(
        Block(64, 4, 256, norm_first=norm_first, activation="relu") for _ in range(depth)
    )
    for parameter in layers.parameters():
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
    x = torch.randn(16, 12, 64)
    for layer in layers:
        x = layer(x)
    logits = F.layer_norm(x, (64,)) @ (torch.randn(64, 100) / 8)
    F.cross_entropy(logits.flatten(0, 1), torch.randint(100, (16 * 12,))).backward()
    return [float(layer.feed_forward.down.weight.grad.norm()) for layer in layers]


gradients = {"norm after": gradient_by_layer(False), "norm before": gradient_by_layer(True)}
plots.lines(
    {
        name: {
            layer + 1: value for layer, value in enumerate(values) if layer % 3 == 2 or not layer
        }
        for name, values in gradients.items()
    },
    log=False,
    xlabel="layer",
    ylabel="norm of the gradient",
    title="At the start, 24 layers deep",
)
last_layer = gradients["norm after"][-1] / gradients["norm before"][-1]
lesson.record("gradient_last_layer", last_layer, "times larger with the norm after")
print(f"at the last layer: {last_layer:.1f} times larger with the norm after the addition")

# %% [markdown] slideshow={"slide_type": "fragment"}
# With the norm **after** each addition, the layers near the output get the largest gradients: a
# first step with a normal learning rate can throw the network off, and the paper had to start with
# tiny steps (*warm-up*). With the norm **before**, the stream grows with depth, each layer's share
# of it shrinks, and the gradients fall gently towards the output. Xiong and others (2020) proved
# this pattern; it is why nearly all large models since GPT-2 have the norm before.
#
# <!-- slide
# - Norm **after**: the last layers get the most. Training has to start with tiny steps
#   (*warm-up*).
# - Norm **before**: gentle everywhere. Nearly all large models since GPT-2 have it so.
# -->
# <!-- notes
# A misunderstanding: the norm after is not wrong. Trained with care it is as good; it is only
# harder to start. Try it: set norm_first to False in the parameters and raise the learning rate.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# Unicode gives every emoji a name, and the package *emoji* (BSD licence) carries it in 14
# languages: a small parallel corpus. We translate from English into two of them with **one** model;
# the decoder's start token says which.
#
# - **Chinese** has no inflection and another word order. A meaning is a character or two, so one
#   can see where each piece came from.
# - **Spanish** puts adjectives behind their nouns and has genders.
#
# <!-- slide
# The names of all emoji (Unicode, package *emoji*): a small parallel corpus. English into
# **Chinese** and **Spanish**, **one** model. The decoder's start token says which language.
# -->
# <!-- notes
# Ask: which words change places? Who reads Chinese may say where each character comes from.
# Byte-pair encoding cuts the text into tokens; lesson 05 derives it.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
data = recipe.corpus(
    *(getattr(lesson.config("transformer"), name) for name in ("languages", "vocab"))
)
names = {(phrase.english, phrase.language): phrase.text for phrase in (*data.train, *data.test)}
for english in (
    "woman pilot medium-dark skin tone",
    "orange circle",
    "man with white cane facing right",
    "kiss woman man light skin tone dark skin tone",
):
    print(f"{english}\n    {names[english, 'zh']}\n    {names[english, 'es']}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What is held out decides what is measured
#
# A random split would put *woman pilot, dark skin tone* into training and *woman pilot, light skin
# tone* into the test: copying would look like translating. And a word that training never showed
# cannot be translated by anybody.
#
# <!-- slide
# **Ask first**: we split all phrases at random. *Woman pilot, dark skin tone* is trained, *woman
# pilot, light skin tone* is tested. What do we measure?
# -->

# %% [markdown] slideshow={"slide_type": "fragment"}
# So three kinds of held-out phrases are told apart:
#
# | Kind | the phrase | its words |
# |---|---|---|
# | **new combinations** | never seen, in no skin tone | all seen, in other combinations |
# | **known words** | about a concept never seen | all seen, elsewhere |
# | **new words** | about a concept never seen | at least one never seen |
#
# The first is what a translator can be asked to do: *woman pilot*, after *man pilot* and *woman
# singer*. We choose and claim by it, and show the others beside it.
#
# <!-- slide
# Copying would look like translating. So three kinds are told apart:
#
# | held out | the phrase | its words | example |
# |---|---|---|---|
# | **new combinations** | in no skin tone seen | all seen, elsewhere | *man factory worker* |
# | **known words** | its concept never seen | all seen, elsewhere | *fountain pen* |
# | **new words** | its concept never seen | one never seen | *kimono* |
#
# - The first is what a translator can be asked to do. We choose and claim by it.
# - The others are shown beside it: what nobody told the model, nobody can expect of it.
# -->
# <!-- notes
# More examples of each kind, and how many phrases there are, are printed in the notebook. This is
# the slide to remember for your own data: what counts as new has to be decided before the split.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
for part in ("train", "validation", "test"):
    phrases = [phrase for phrase in getattr(data, part) if phrase.language == "zh"]
    for kind in dict.fromkeys(sorted(phrase.kind for phrase in phrases)):
        some = [phrase for phrase in phrases if phrase.kind == kind]
        plain = sorted({phrase.plain for phrase in some})
        shown = ", ".join(random.Random(4).sample(plain, 3))
        print(f"{part:<10} {kind:<16} {len(some):>5} phrases, such as {shown}")

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Tokens
#
# Byte-pair encoding (the next lesson derives it) keeps frequent words whole and cuts rare ones into
# pieces. Chinese characters stand alone. ▁ is a blank.

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
for text in ("woman pilot medium-dark skin tone", "女飞行员 中等深肤色", "piloto mujer"):
    print(" ".join(data.pieces(data.encode(text))))
print("vocabulary:", data.tokenizer.get_vocab_size())
everything = [phrase.text for phrase in data.train]
print("all come back:", all(data.text(data.encode(text)) == text for text in everything))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predict, then pretrain
#
# Two models of about the same number of weights read the same phrases with the same optimizer:
#
# - **Seq2Seq** (2014): a GRU that reads, one vector, a GRU that writes;
# - **Transformer** (2017): two layers of encoder, two of decoder.
#
# Write down your guesses:
#
# 1. A step of which of the two takes longer on this machine?
# 2. Which will translate more new combinations to the letter? By how much?
# 3. For short phrases or for long ones will the difference be larger?
# 4. What will they make of words they have never seen?
#
# <!-- slide
# About as many weights, the same phrases and optimizer:
#
# - **Seq2Seq** (2014): a GRU reads, *one vector*, a GRU writes;
# - **Transformer** (2017): two layers of encoder, two of decoder.
#
# **Write down your guesses:**
#
# 1. A step of which of the two takes longer on this machine?
# 2. Which will translate more new combinations to the letter? By how much?
# 3. For short phrases or for long ones will the difference be larger?
# 4. What will they make of words they have never seen?
# -->
# <!-- notes
# Start both trainings now: together they take about a minute and a half on a laptop, which is the
# time that the guesses need. Take a show of hands for each, and write the numbers on the board.
# -->

# %% slideshow={"slide_type": "skip"}
seq2seq = lesson.pretrain("seq2seq")

# %% slideshow={"slide_type": "subslide"}
transformer = lesson.pretrain("transformer")

# %% [markdown] slideshow={"slide_type": "fragment"}
# ### What it cost
#
# <!-- notes
# Guess 1: divide the seconds by the steps. Per step the two are close on a CPU; the Transformer
# got half the steps. Mind the last column: Seq2Seq has the *lower* training loss. Ask what that
# will mean for phrases that it has never seen. Why is the curve so ragged? Each point is one
# batch.
# -->

# %% slideshow={"slide_type": "fragment"}
runs = {"Transformer": transformer, "Seq2Seq": seq2seq}
display(
    Table(
        ("model", "weights", "steps", "seconds", "phrases a second", "loss of the last batch"),
        [
            (
                name,
                f"{sum(p.numel() for p in run.model.parameters()):,}",
                f"{run.history.steps:,}",
                f"{run.history.seconds:.0f}",
                f"{run.history.units_per_second:,.0f}",
                f"{run.history.rows[-1]['loss']:.3f}",
            )
            for name, run in runs.items()
        ],
    )
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What did it learn?
#
# ### Held-out phrases
#
# **Exact** counts the translations that are right to the last letter. **chrF** compares runs of up
# to six characters, so that nearly right is not nothing. The intervals come from drawing *concepts*
# anew: the six skin tones of one name are not six independent phrases.
#
# <!-- slide
# **Exact**: right to the last letter. **chrF**: runs of up to six characters, so nearly right
# counts.
# -->

# %% slideshow={"slide_type": "skip"}
most = lesson.at(None, smoke=40)
held_out = {
    kind: [phrase for phrase in data.test if phrase.kind == kind][:most] for kind in recipe.KINDS
}
written = {
    (name, kind): recipe.translations(data, run.model, phrases)
    for name, run in runs.items()
    for kind, phrases in held_out.items()
}


def judged(texts, phrases):
    """chrF of the set; whether each is exact and its own chrF."""
    wanted = [phrase.text for phrase in phrases]
    right = [100.0 * (a == b) for a, b in zip(texts, wanted, strict=True)]
    return recipe.chrf(texts, wanted), right, recipe.phrase_chrf(texts, wanted)


scores = {key: judged(texts, held_out[key[1]]) for key, texts in written.items()}

# %% slideshow={"slide_type": "fragment"}
rows = []
for kind, phrases in held_out.items():
    for name in runs:
        pooled, right, _ = scores[name, kind]
        exact = recipe.by_concept(right, phrases)
        rows.append((kind, name, str(len(phrases)), f"{pooled:.1f}", f"{exact:.1f}"))
        key = f"{name.lower()}_{kind.replace(' ', '_')}"
        lesson.record(f"{key}_chrf", pooled, "chrF, held-out phrases")
        lesson.record(f"{key}_exact", exact.mean, "% exact, held-out phrases")
display(Table(("held out", "model", "phrases", "chrF", "exact, %"), rows))

combinations = held_out["new combinations"]
gain = {
    measure: recipe.by_concept(
        np.subtract(*(scores[name, "new combinations"][place] for name in runs)), combinations
    )
    for measure, place in (("exact", 1), ("chrF", 2))
}
print(f"new combinations, Transformer minus Seq2Seq: exact {gain['exact']:.1f} points,")
print(f"chrF phrase by phrase {gain['chrF']:.1f} points (95 % interval over concepts)")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Three things to read off. With attention more of the new combinations come out right,
# after half as many steps; the intervals say how sure that is.
# *Known words* are hopeless for both: a name is often not the sum of its words (a *hot dog* is no
# dog), and such a name has to be learned by heart. And with *new words* neither has a chance: the
# data do not say what they mean. A random split would have mixed all three into one number.
#
# <!-- slide
# - *New combinations*: more come out right with attention, after half as many steps.
# - *Known words*: a *hot dog* is no dog. Such names are learned by heart or not at all.
# - *New words*: nobody can know them.
# -->
# <!-- notes
# Guesses 2 and 4. Read the interval of the difference aloud: how far from zero is its end? One
# training each; another seed would give other numbers.
# -->

# %% slideshow={"slide_type": "skip"}
by_language = {}
for language in data.languages:
    chosen = [row for row, phrase in enumerate(combinations) if phrase.language == language]
    by_language[language] = {
        name: recipe.by_concept(
            [scores[name, "new combinations"][1][row] for row in chosen],
            [combinations[row] for row in chosen],
        )
        for name in runs
    }
plots.bars(
    {{"zh": "Chinese", "es": "Spanish"}.get(key, key): value for key, value in by_language.items()},
    digits=0,
    xlabel="% of new combinations exact (bars: 95 % interval over concepts)",
    title="Into which language?",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### By length
#
# The bottleneck should hurt most where much has to pass through it. Each phrase's own chrF, by the
# number of English words:
#
# <!-- slide
# The bottleneck should hurt most where much must pass through it. Does it?
# -->

# %% slideshow={"slide_type": "fragment"}
lengths = [min(8, 2 * math.ceil(len(phrase.english.split()) / 2)) for phrase in combinations]
by_length = {name: {} for name in runs}
for length in sorted(set(lengths)):
    chosen = [row for row, one in enumerate(lengths) if one == length]
    for name in runs:
        by_length[name][length] = recipe.by_concept(
            [scores[name, "new combinations"][2][row] for row in chosen],
            [combinations[row] for row in chosen],
        )
plots.lines(
    by_length,
    log=False,
    xlabel="English words, up to (8: 7 and more)",
    ylabel="chrF",
    title="New combinations, by length",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The idea promised a gap that grows with length. Mind the bands: nothing of the kind is certain
# here. The long phrases of our data are the *easy* ones, because they end in skin tones, as most
# phrases do; the short ones are hearts, arrows and faces, each with a way of its own. So length
# alone is not what makes attention better *here*. What is?
#
# <!-- slide
# - No gap that grows with length: mind the bands.
# - Long phrases are the *easy* ones here. They end in skin tones, as most phrases do.
# -->
# <!-- notes
# Guess 3. Let somebody describe the picture before you interpret it. An idea may be right and
# still not be what a measurement shows; so ask what else differs between short and long phrases.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What kind of mistakes?
#
# Look at a wrong translation. Is it a *new* text, put together badly? Or is it a text that the
# model learned in training, the name of something else?
#
# <!-- slide
# A wrong translation: put together badly? Or learned by heart, the name of something else?
# -->

# %% slideshow={"slide_type": "fragment"}
trained = {(phrase.language, phrase.text) for phrase in data.train}
remembered, families = {}, {}
for name in runs:
    texts, right = written[name, "new combinations"], scores[name, "new combinations"][1]
    pairs = list(zip(combinations, texts, right, strict=True))
    wrong = [(phrase.language, text) in trained for phrase, text, hit in pairs if not hit]
    remembered[name] = float(np.mean(wrong))
    hits_of = [hit for phrase, _, hit in pairs if phrase.plain.startswith("family")]
    families[name] = float(np.mean(hits_of or [0]))
    lesson.record(f"{name.lower()}_remembered", 100 * remembered[name], "% of its mistakes")
plots.bars(
    remembered,
    percent=True,
    title="Mistakes that are some other emoji's name, learned by heart",
    xlabel="share of the wrong translations of new combinations",
)
print("families (man, woman, boy, girl in a row), exact:", end=" ")
print(", ".join(f"{name} {value:.0f} %" for name, value in families.items()))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Here is the difference. One vector that stands for a whole phrase lies near the vector of some
# phrase that was learned, and the decoder writes *that* one: a known phrase instead of the new one.
# With attention each word is fetched by itself, so a known word can stand in new company.
#
# Attention has weak spots of its own. In *family man man boy boy* the same word comes twice; both
# give the same key but for the position, and it is easy to lose count. Compare the families above:
# they are few, but look who copes better.
#
# <!-- slide
# - **One vector** for a phrase lies near that of some known phrase. The decoder writes *that* one.
# - **Attention** fetches each word by itself, so a known word can stand in new company.
# - Its weak spot: *family man man boy boy*. The same word twice, the same key: it loses count.
# -->
# <!-- notes
# This is the slide that explains the result. The notebook's next cell shows ten translations
# beside each other: open it, and look for the answers of Seq2Seq that name another emoji.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Read some

# %% slideshow={"slide_type": "skip"}
order = list(range(len(combinations)))
random.Random(seed).shuffle(order)
wrong = [row for row in order if not scores["Seq2Seq", "new combinations"][1][row]]
shown = list(dict.fromkeys([*order[:4], *wrong[:6]]))  # each once
display(
    Table(
        ("English", "wanted", "Transformer", "Seq2Seq"),
        [
            (
                combinations[row].english,
                combinations[row].text,
                *(written[name, "new combinations"][row] for name in runs),
            )
            for row in shown
        ],
    )
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What cross-attention looks at
#
# Nobody told the model which Spanish word belongs to which English one. But to write a word it has
# to look at something. Each row is a token that is about to be written, each column a token of the
# source.
#
# <!-- slide
# Nobody told the model which Spanish word belongs to which English one. But to write a word it has
# to look somewhere.
#
# - a row: a token about to be written;
# - a column: a token of the source.
# -->

# %% slideshow={"slide_type": "skip"}
# Chinese characters and English words that mean the same, to test the alignment with
ENGLISH = (
    "woman man dark light right orange blue red green yellow black white heart cat face circle"
)
DICTIONARY = dict(zip("女男深浅右橙蓝红绿黄黑白心猫脸圆", ENGLISH.split(), strict=True))


def alignment(phrase):
    """Weights [layers, written, source] of the true translation, mean of the heads; tokens."""
    pairs = data.pairs([phrase])
    source, target = data.source(phrase), data.target(phrase)
    place = next(transformer.model.parameters()).device
    weights = transformer.model.alignment(pairs.source.to(place), pairs.target.to(place))
    weights = weights[:, 0, :, : len(target) - 1, : len(source)].mean(dim=1).cpu()
    pieces = [data.pieces(source), data.pieces(target[1:])]
    return weights, *([piece.strip("▁") or "▁" for piece in some] for some in pieces)


def hits(phrases):
    """For each layer: how often a character looks most at its English word. And the diagonal."""
    found, diagonal = [], []
    for phrase in phrases:
        weights, english, chinese = alignment(phrase)
        for row, character in enumerate(chinese):
            word = DICTIONARY.get(character)
            if word in english:
                looks = weights[:, row].argmax(dim=1).tolist()
                found.append([english[one] == word for one in looks])
                straight = round(row * (len(english) - 1) / max(1, len(chinese) - 1))
                diagonal.append(english[straight] == word)
    return np.mean(found, axis=0), float(np.mean(diagonal))


def in_chinese(part):
    """The new combinations of a part, in Chinese."""
    kept = [one for one in part if one.kind == "new combinations" and one.language == "zh"]
    return kept[:most]


layer = int(hits(in_chinese(data.validation))[0].argmax())  # validation chooses, test reports
by_layer, straight = hits(in_chinese(data.test))
aligned = float(by_layer[layer])
lesson.record("alignment_hits", 100 * aligned, "% of characters", "layer chosen on validation")
lesson.record("diagonal_hits", 100 * straight, "% of characters")


# %% slideshow={"slide_type": "fragment"}
def named(english, language):
    """The phrase of this English name."""
    everything = (*data.train, *data.validation, *data.test)
    return next(p for p in everything if (p.english, p.language) == (english, language))


phrase = named("woman pilot medium-dark skin tone", "es")
weights, english, spanish = alignment(phrase)
plots.attention_map(
    weights[layer],
    spanish,
    english,
    numbers=False,
    title=f"Layer {layer + 1}, mean of the heads",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Read it row by row. The order is another one than in English, and the dark cells follow the
# meaning, not the diagonal. Not every row is sure: *de* and *piel* follow from what was written
# before, so there is nothing to look up, and the weight goes anywhere.
#
# <!-- slide
# The order changes, and the dark cells follow the **meaning**, not the diagonal.
#
# *de* and *piel* follow from what was written before: nothing to look up.
# -->
# <!-- notes
# Take one row and let the room say where it should look before you point at it. A
# misunderstanding: each row sums to 1 because of the softmax. A pale row is not a weak one, but an
# undecided one.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The same in Chinese, and counted

# %% slideshow={"slide_type": "fragment"}
phrase = named("woman pilot medium-dark skin tone", "zh")
weights, english, chinese = alignment(phrase)
looks = weights[layer].argmax(dim=1).tolist()
display(Table(("written", *chinese), [("looks most at", *(english[one] for one in looks))]))
print(f"{aligned:.0%} of the {len(DICTIONARY)} dictionary characters in unseen combinations look")
print(
    f"most at the English word that means the same; a straight diagonal would hit {straight:.0%}."
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Where a word takes several characters, the later ones mostly follow from the first. They need not
# look at their own English word again, and in the row above some do not.
#
# One caution, which lesson 29 will take up: a weight says where the model *looked*. It does not
# prove that what it saw there decided the answer.
#
# <!-- slide
# - One picture proves nothing: so every new combination in Chinese was counted.
# - The layer was chosen on validation phrases, the share measured on test phrases.
# - Later characters of a word follow from the first. They need not look at their word again.
# - **Caution**: a weight says where the model *looked*. It does not prove that what it saw there
#   decided the answer.
# -->
# <!-- notes
# Ask: why compare with a straight diagonal? (Because a model that reads both phrases from left to
# right would hit something too.) Lesson 29 asks what decides an answer.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Writing: greedy, beams, and a cache
#
# **Greedy search** takes the likeliest token each time. That can lead into a corner: the likeliest
# first word need not begin the likeliest text. **Beam search** follows the best few beginnings at
# once.
#
# Either way a new token changes nothing about the earlier ones, since they cannot look ahead. So
# their keys and values are kept in a **cache**, and a step computes one place instead of all.
#
# <!-- slide
# - **Greedy**: the likeliest token each time. The likeliest first word need not begin the
#   likeliest text.
# - **Beam search**: follow the best few beginnings at once.
# - **Cache**: earlier places cannot look ahead, so their keys and values stay the same. Keep them:
#   a step computes one place instead of all.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
some = combinations[: lesson.at(256, smoke=16)]
device = next(transformer.model.parameters()).device
pairs = data.pairs(some)
source, start = pairs.source.to(device), pairs.target[:, 0].to(device)
longest = 24


def timed(function):
    """What a function returns, and its seconds."""
    began = time.perf_counter()
    return function(), time.perf_counter() - began


def log_p(texts):
    """The mean log-probability of texts without their start tokens."""
    whole = torch.cat([start[:, None], texts], dim=1)
    return float(transformer.model.log_probability(source, whole).mean())


with torch.no_grad():
    model, target = transformer.model, pairs.target.to(device)
    state = model.begin(source, longest=target.shape[1])
    one_by_one = torch.stack([model.step(tokens, state) for tokens in target.T], dim=1)
    at_once = model.logits(source, target)
print("with the cache, the same logits:", torch.allclose(one_by_one, at_once, atol=1e-3))

greedy, fast_seconds = timed(lambda: model.translate(source, start, longest))
uncached, slow_seconds = timed(lambda: model.translate(source, start, longest, cached=False))
beam_one, _ = model.beam_search(source, start, longest, beams=1)
print("without it, the same texts:", abs(log_p(uncached) - log_p(greedy)) < 1e-3)
print("one beam is greedy search:", abs(log_p(beam_one) - log_p(greedy)) < 1e-3)

# %% slideshow={"slide_type": "fragment"}
tried = {"greedy, no cache": (uncached, slow_seconds), "greedy, cache": (greedy, fast_seconds)}
for beams in (2, 5):
    (texts, _), seconds = timed(
        lambda beams=beams: model.beam_search(source, start, longest, beams=beams)
    )
    tried[f"{beams} beams, cache"] = texts, seconds
wanted, found, rows = [phrase.text for phrase in some], {}, []
for name, (texts, seconds) in tried.items():
    right = recipe.exact([data.text(row) for row in texts.tolist()], wanted)
    found[name] = log_p(texts), right
    rows.append((name, f"{seconds:.2f}", f"{found[name][0]:.3f}", f"{right:.1f}"))
display(Table(("search", "seconds", "log p of the text", "exact, %"), rows))
lesson.record("cache_speed", slow_seconds / fast_seconds, "times as fast as without")
lesson.record("beam_exact", found["5 beams, cache"][1], "% exact", "five beams")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Beams find texts that the model holds for likelier, but hardly any better translations, at several
# times the cost: with names this short greedy search has little occasion to go wrong. The cache
# pays off whatever the search.
#
# <!-- slide
# Likelier texts, but hardly better translations: on names this short greedy search seldom goes
# wrong.
# -->
# <!-- notes
# Ask: the beams found likelier texts, so why no better ones? (The model is judged by the wanted
# text, and its own probability is only a guess at that.) The cache pays off whatever the search.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Adapt it
#
# ### A third language from few phrases
#
# Italian was never seen. Does a model that reads English and writes Chinese and Spanish learn it
# from a few phrases better than a fresh one? It sounds as if it must: Italian is close to Spanish.
# Write down your guess. Both get the same few phrases, steps and learning rates. Italian's start
# token and letters have been in the vocabulary all along; nothing has trained them.
#
# <!-- slide
# Italian was never trained. It is close to Spanish: does a model that writes Chinese and Spanish
# learn it faster than a fresh one? **Guess** the difference in chrF.
# -->

# %% slideshow={"slide_type": "skip"}
italian = recipe.phrases(("it",))
italian_test = [p for p in italian["test"] if p.kind == "new combinations"][:most]
labels, repeats = lesson.at(200, smoke=32), lesson.at(3, smoke=2)
adapt_steps = lesson.at(50, smoke=2)


def taught(pretrained, draw):
    """chrF in Italian after training on a few phrases, from the pretrained weights or afresh."""
    few = random.Random(draw).sample(italian["train"], labels)
    small = dataclasses.replace(data, train=tuple(few))
    config = dataclasses.replace(transformer.config, steps=adapt_steps, batch=min(labels, 50))
    torch.manual_seed(draw)
    fresh = transformer.recipe.model(config, small)
    model = copy.deepcopy(transformer.model) if pretrained else fresh
    schedule = dataclasses.replace(transformer.recipe.training(config, small), seed=draw)
    fit(model, transformer.recipe.batches(config, small, draw), schedule)
    texts = recipe.translations(data, model, italian_test)
    return recipe.chrf(texts, [phrase.text for phrase in italian_test])


untaught = recipe.translations(data, transformer.model, italian_test)
untaught = recipe.chrf(untaught, [phrase.text for phrase in italian_test])
adapted = evaluate.over_seeds(lambda draw: taught(True, draw), repeats)
fresh = evaluate.over_seeds(lambda draw: taught(False, draw), repeats)
advantage = evaluate.paired_difference(adapted, fresh)

# %% slideshow={"slide_type": "fragment"}
lesson.record("italian_adapted_chrf", adapted.mean, "chrF", f"{labels} phrases")
lesson.record("italian_fresh_chrf", fresh.mean, "chrF", f"{labels} phrases")
display(
    Table(
        (f"Italian from {labels} phrases", "steps", "chrF on new combinations"),
        [
            ("asked for Italian before any training in it", "0", f"{untaught:.1f}"),
            ("fresh weights", str(adapt_steps), f"{fresh:.1f}"),
            ("pretrained on Chinese and Spanish", str(adapt_steps), f"{adapted:.1f}"),
            ("difference, the same phrases drawn", "", f"{advantage:.1f}"),
        ],
    )
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# What was learned before is a head start: after these few steps the pretrained model is well ahead.
# But do not read more into it than it says. With half as many steps again most of the lead is gone
# (change `adapt_steps` and see), because the few phrases show a fresh model all that it needs. What
# pretraining bought here is **time**. It buys more where the pretrained model knows something that
# the few examples do not show; later lessons look for such tasks.
#
# <!-- slide
# - A head start: after these few steps the pretrained model is well ahead.
# - But with half as many steps again most of the lead is gone.
# - Here pretraining bought **time**. It buys more where the few examples do not show what is
#   needed.
# -->
# <!-- notes
# The intervals come from drawing the few phrases anew. The cell trains several small models and
# takes some seconds. A misunderstanding: a head start after few steps is not a better model in the
# end.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In the library
#
# ### torch.nn.Transformer
#
# torch has the two stacks, without tokens and positions. We build one at random, put its weights
# into our `EncoderDecoder`, and compare: outputs, loss, and the gradient of every weight. In 64-bit
# numbers, so that a difference could only be a mistake. Mind the masks: torch's say where one may
# **not** look.
#
# <!-- slide
# Its random weights go into our `EncoderDecoder`. In 64-bit numbers a difference could only be a
# mistake.
#
# - torch has the two stacks. Tokens, positions and the last layer are yours.
# - Its masks say where one may **not** look: the other way round than ours.
# -->
# <!-- notes
# Why compare gradients too? Two networks can give the same outputs and still learn differently,
# for example when one of them forgot to train a weight. The notebook also goes back: our trained
# translator becomes a torch.nn.Transformer, and it says how to fetch a public one.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
for first in (False, True):
    torch.manual_seed(0)
    reference = nn.Transformer(
        32, 4, 2, 2, 64, dropout=0.0, batch_first=True, norm_first=first, dtype=torch.float64
    )
    ours = convert.from_torch(reference)
    x, y, wanted = (torch.randn(3, length, 32, dtype=torch.float64) for length in (7, 5, 5))
    stands = torch.arange(7) < torch.tensor([7, 4, 2])[:, None]
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    theirs = reference(
        x, y, tgt_mask=future, src_key_padding_mask=~stands, memory_key_padding_mask=~stands
    )
    output = ours(x, y, stands[:, None, None, :])
    losses = [((one - wanted) ** 2).mean() for one in (theirs, output)]
    for loss in losses:
        loss.backward()
    their, our = dict(reference.named_parameters()), dict(ours.named_parameters())
    largest = max(float((our[a].grad - their[b].grad).abs().max()) for a, b in convert.names(ours))
    print(f"norm {'before' if first else 'after'}:")
    print("  outputs equal:", bool((theirs - output).abs().max() < 1e-9))
    print("  losses equal:", bool((losses[0] - losses[1]).abs() < 1e-9))
    print(f"  gradients of all {len(our)} weights equal:", largest < 1e-9)

# %% [markdown] slideshow={"slide_type": "skip"}
# And back: the translator that we just trained, as a `torch.nn.Transformer`.

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
handed_over = convert.to_torch(transformer.model.stacks).eval()
x, y = torch.randn(2, 6, 1, device=device), torch.randn(2, 4, 1, device=device)
width = transformer.config.dim
x, y = x.expand(-1, -1, width).cumsum(2) / width, y.expand(-1, -1, width).cumsum(2) / width
future = torch.ones(4, 4, dtype=torch.bool, device=device).triu(1)
with torch.no_grad():
    one, other = handed_over(x, y, tgt_mask=future), transformer.model.stacks(x, y)
print("our trained weights in torch.nn.Transformer:", torch.allclose(one, other, atol=1e-4))

# %% [markdown] slideshow={"slide_type": "skip"}
# **Real public weights.** With a network, transformers fetches translators that were trained on
# millions of sentences:
#
# ```python
# from transformers import MarianMTModel, MarianTokenizer
# name = "Helsinki-NLP/opus-mt-en-zh"  # 312 MB
# tokenizer, model = MarianTokenizer.from_pretrained(name), MarianMTModel.from_pretrained(name)
# words = tokenizer(["woman pilot"], return_tensors="pt")
# tokenizer.batch_decode(model.generate(**words, num_beams=4), skip_special_tokens=True)
# ```
#
# The lesson does not run this: nothing here needs the network.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Scale it
#
# Part of the difference that we measured is patience. The recurrent model had twice the steps, and
# its loss was still falling when its minute was over: what a minute shows is how fast each learns.
# How close does it come with four times the steps? `pfmcourse pretrain seq2seq -p steps=3600` tells.
#
# <!-- slide
# - Part of the difference is patience: Seq2Seq was still learning when its minute was over. Give
#   it four times the steps.
# - Recurrence takes its steps **one after the other**. A Transformer trains all places **at
#   once**: a few large products, made for a GPU.
# - The price comes with length: **twice the length, four times the scores**.
#
# ```text
# pfmcourse pretrain seq2seq -p steps=3600
# pfmcourse pretrain transformer --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain transformer --preset gpu
# ```
# -->
# <!-- notes
# Ask: on which machine and for which lengths would a recurrent network win? On phrases as short as
# ours both leave a GPU mostly idle.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# The same recipes run on a GPU, and on several processes, without a change:
#
# ```
# pfmcourse pretrain transformer --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain transformer --preset gpu
# ```
#
# Every process takes its share of each batch. The loss is a mean over the tokens of the share, so
# with phrases of different lengths the curve is that of one process only nearly.
#
# What to expect: the recurrent model must take its steps one after the other, at the length of the
# phrase, however many cores there are. The Transformer trains all places of all phrases at once in
# a few large products, which is what a GPU is made for. On phrases as short as ours both leave a
# GPU mostly idle. The price comes at length: attention compares every place with every other, so
# twice the length is four times the scores.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Each has a checker. It tries your answer on small cases, and when it fails it says what the
# mistake looks like.
#
# <!-- slide
# 1. **No peeking** (easy, 5 minutes): write the causal mask.
# 2. **Attention with a mask** (medium, 10 minutes): without the formula, if you can.
# 3. **Norm before or after** (easy, 5 minutes): the stream after one part.
# 4. **Beam search** (hard, 25 minutes): over any model that gives log-probabilities.
#
# Each has a checker. When your answer is wrong, it says what the mistake looks like.
# -->
# <!-- notes
# 1 to 3 fit into a lesson of 20 minutes, in pairs. 4 is homework: there the texts that have
# already ended are what most people forget.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 1: No peeking
#
# **Difficulty: easy · 5 minutes**
#
# Return the causal mask for `places` places: a tensor of True and False, query by key, true where a
# query may look.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def causal_mask(places):
    """[places, places], true where a place may look."""
    ### BEGIN SOLUTION
    return torch.arange(places)[:, None] >= torch.arange(places)
    ### END SOLUTION


check.causal_mask(causal_mask)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 2: Attention with a mask
#
# **Difficulty: medium · 10 minutes**
#
# Write scaled dot-product attention for one phrase. `mask` [query, key] is true where a query may
# look. Without the formula above, if you can.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def masked_attention(queries, keys, values, mask):
    """queries [query, dim], keys [key, dim], values [key, any] -> [query, any]."""
    ### BEGIN SOLUTION
    scores = queries @ keys.T / math.sqrt(queries.shape[1])
    return scores.masked_fill(~mask, -math.inf).softmax(dim=1) @ values
    ### END SOLUTION


check.masked_attention(masked_attention)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 3: Norm before or after
#
# **Difficulty: easy · 5 minutes**
#
# `part` is attention or a feed-forward network, `norm` a layer norm; both are functions. Return the
# stream `x` after this part, with the norm where `norm_first` says.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def sublayer(x, part, norm, norm_first):
    """x [time, dim] -> x after the part."""
    ### BEGIN SOLUTION
    return x + part(norm(x)) if norm_first else norm(x + part(x))
    ### END SOLUTION


check.sublayer(sublayer)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 4: Beam search
#
# **Difficulty: hard · 25 minutes**
#
# `log_probabilities(text)` returns a list: for each token, the logarithm of its probability to
# follow the tuple `text`. Begin with `()`. Keep the `beams` likeliest texts after each step; one
# that ends with `end` stays as it is. After at most `longest` tokens return the best text and its
# log-probability.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def beam_search(log_probabilities, beams, longest, end):
    """-> (text, score): the tokens, and the sum of their log-probabilities."""
    ### BEGIN SOLUTION
    kept = [((), 0.0)]
    for _ in range(longest):
        grown = []
        for text, score in kept:
            if end in text:
                grown.append((text, score))
            else:
                for token, gain in enumerate(log_probabilities(text)):
                    grown.append(((*text, token), score + gain))
        kept = sorted(grown, key=lambda one: one[1], reverse=True)[:beams]
    return kept[0]
    ### END SOLUTION


check.beam_search(beam_search)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Claims and summary
#
# Every sentence above that could be false, executed. Changed a parameter? Then some of these may
# fail: find out why.
#
# <!-- slide
# **What to remember**
# -->
# <!-- notes
# The notebook ends with a list of claims, each checked when it runs. Close by going back to the
# guesses on the board: who was right, and what surprised most?
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
lesson.claim(
    "at the start, norms after the additions give the last layer much larger gradients",
    last_layer > 2,
    f"{last_layer:.1f} times",
)
lesson.claim(
    "on new combinations the Transformer is better than Seq2Seq after half the steps",
    gain["chrF"].low > 0 and gain["exact"].mean > 0,
    f"chrF by {gain['chrF']:.1f}, exact by {gain['exact']:.1f} points",
)
lesson.claim(
    "Seq2Seq answers with some other emoji's name more often",
    remembered["Seq2Seq"] > remembered["Transformer"] + 0.05,
    f"{remembered['Seq2Seq']:.0%} against {remembered['Transformer']:.0%} of the mistakes",
)
unseen = max(np.mean(scores[name, "new words"][1]) for name in runs)
lesson.claim(
    "neither can translate words it has never seen",
    unseen < np.mean(scores["Seq2Seq", "new combinations"][1]) / 4,
    f"{unseen:.1f} % exact at best",
)
lesson.claim(
    "cross-attention finds the word that means the same more often than a straight diagonal",
    aligned > straight + 0.2,
    f"{aligned:.0%} against {straight:.0%}",
)
lesson.claim(
    "with a cache greedy search is faster",
    fast_seconds < slow_seconds,
    f"{slow_seconds / fast_seconds:.1f} times",
)
lesson.claim(
    "five beams find likelier texts than greedy search",
    found["5 beams, cache"][0] >= found["greedy, cache"][0],
    f"log p {found['5 beams, cache'][0]:.3f} against {found['greedy, cache'][0]:.3f}",
)
lesson.claim(
    "a few steps of Italian are worth more to a model that knows Chinese and Spanish",
    advantage.mean > 0,
    f"chrF higher by {advantage:.1f}",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Remember.** Attention looks things up softly, and every place of a phrase can reach every other
# in one step. A Transformer is a stream of vectors to which attention and small networks add. The
# norm's place decides how deep it can be trained. What is held out decides what is measured.
#
# **Left open.** A translator needs pairs, and pairs are rare. But half of this network, the decoder
# without its source, can learn from any text at all. **Next:** in lesson 05 it does. It is called
# GPT.
#
# <!-- slide
# - **Attention** looks things up softly: every place of a phrase reaches every other in one step.
# - A Transformer is a **stream** of vectors to which attention and small networks add.
# - Where the **norm** stands decides how deep it can be trained.
# - What is **held out** decides what is measured.
# - One vector remembers known phrases; attention puts known words into **new company**.
#
# **Left open.** Pairs are rare. The decoder alone can learn from any text: lesson 05, GPT.
# -->

# %% slideshow={"slide_type": "skip"}
lesson.finish()
