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
# # SimCLR
#
# Pictures are everywhere; people who label them are not. In this lesson a network learns to see
# from pictures that nobody has named. Its only exercise: **recognise a picture again after it was
# changed.**
#
# After this lesson you can
#
# - write the contrastive loss of **SimCLR** and the queue of **MoCo**, and say what older pretext
#   tasks (rotation, jigsaw) ask instead;
# - choose the changes that tell the network what to care about, and measure what each is worth;
# - compare pretraining with training from scratch so that the answer can be trusted, and spot the
#   comparison that flatters.
#
# You need: what a convolutional network is, and lesson 00. How long reading and running take is
# printed below.
#
# <!-- slide
# A network learns to see from pictures that nobody has named. Its only exercise: **recognise a
# picture again after it was changed.**
#
# After this lesson you can
#
# - write the contrastive loss of **SimCLR** and the queue of **MoCo**
# - choose the changes that tell a network what to care about, and measure what each is worth
# - compare pretraining with training from scratch so that the answer can be trusted
# -->
#
# <!-- notes
# Ask what one would do with a hundred thousand pictures and money for twenty labels. Start running
# the notebook now: nearly all of its time goes into the many networks to compare with, and it is
# done before you reach them. A common expectation is that this must fail: what is there to learn
# without names?
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# **Papers.** Noroozi, Favaro: *Unsupervised Learning of Visual Representations by Solving Jigsaw
# Puzzles* (2016) · Gidaris, Singh, Komodakis: *Unsupervised Representation Learning by Predicting
# Image Rotations* (2018) · van den Oord, Li, Vinyals: *Representation Learning with Contrastive
# Predictive Coding* (2018) · He, Fan, Wu, Xie, Girshick: *Momentum Contrast for Unsupervised Visual
# Representation Learning* (2019) · Chen, Kornblith, Norouzi, Hinton: *A Simple Framework for
# Contrastive Learning of Visual Representations* (2020) · Wang, Isola: *Understanding Contrastive
# Representation Learning through Alignment and Uniformity on the Hypersphere* (2020)

# %% tags=["parameters"] slideshow={"slide_type": "skip"}
preset = None  # None: $PFMCOURSE_PRESET, else "laptop"
seed = 0
steps = None  # updates of the live pretraining; None: as the preset says
batch = None  # pictures a step, each seen twice; None: as the preset says
temperature = None  # of the loss; None: as the preset says

# %% slideshow={"slide_type": "skip"}
import dataclasses
import math
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import torchvision
from IPython.display import display
from torch import nn
from torchvision.transforms import v2

from pfmcourse import evaluate, offline, plots, recipes
from pfmcourse.checks import simclr as check
from pfmcourse.data import glyphs, source
from pfmcourse.evaluate import Table
from pfmcourse.lesson import Lesson
from pfmcourse.models.convnet import ConvNet, ConvNetConfig, Pictures
from pfmcourse.models.pretext import shuffled, turned
from pfmcourse.models.simclr import MoCo, SimCLR, TwoViews
from pfmcourse.nn.contrastive import info_nce, nt_xent
from pfmcourse.nn.views import NOTHING, view
from pfmcourse.recipes import simclr as recipe
from pfmcourse.train import TrainConfig, device, fit

lesson = Lesson(
    "simclr", preset=preset, seed=seed, steps=steps, batch=batch, temperature=temperature
)
where = device()

# %% [markdown] slideshow={"slide_type": "skip"}
# Besides the pretraining, the lesson trains many small networks to compare with. How long each of
# them takes is set here. Turn these numbers if you have more patience.

# %% slideshow={"slide_type": "skip"}
ablation = lesson.at(
    {"steps": 40, "width": 16, "batch": 128}, smoke={"steps": 2, "width": 4, "batch": 16}
)
short, enough, patient = lesson.at((60, 150, 250), smoke=(1, 2, 3))  # steps from scratch
tuning_steps = lesson.at(100, smoke=2)  # of fine-tuning
letter_steps = lesson.at(150, smoke=2)  # from scratch, one picture a letter
emoji_steps = lesson.at(150, smoke=2)  # from scratch, emoji
rows_a_step = lesson.at(64, smoke=16)  # labelled pictures, drawn with replacement
draws = lesson.at({10: 4, 20: 3, 100: 1}, smoke={10: 1, 20: 1, 100: 1})  # labels -> draws of them
short_draws = lesson.at({20: 3}, smoke={20: 1})
patient_draws = {20: 1}
letter_draws = lesson.at(5, smoke=2)  # of one picture a letter, for what needs no training
letter_scratch_draws = 1
all_emoji = len(recipe.emoji_task().labels)
emoji_draws = lesson.at({50: 5, 200: 5, all_emoji: 1}, smoke={50: 1})
emoji_scratch_draws = lesson.at({200: 1}, smoke={50: 1})
copies = lesson.at(15, smoke=2)  # warped copies of each labelled picture, for the probes

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The idea
#
# A label is somebody's time. How can a picture be its own teacher? The first answers were
# **pretext tasks**: puzzles whose solution costs nothing, and that nobody needs solved.
#
# <!-- slide
# A label is somebody's time. How can a picture be its own teacher? First answer: **pretext tasks**,
# puzzles whose solution costs nothing.
# -->
#
# <!-- notes
# Let the class solve a column. Which of the letters look the same after half a turn? For those the
# question has no answer, and nobody checks that.
# -->

# %% slideshow={"slide_type": "-"}
unlabelled = recipe.unlabelled("letters")
generator = torch.Generator().manual_seed(4)
drawn = torch.randint(len(unlabelled.pictures), (9,), generator=generator)
some = recipe.fractions(unlabelled.pictures[drawn])
plots.image_grid(
    [*some, *turned(some, generator).images, *shuffled(some, recipe.PUZZLES, generator).images],
    row_titles=["picture", "turned", "shuffled"],
    columns=9,
    size=56,
    title="By how much was it turned? In which order are the quarters?",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# To say which way up a letter is, one has to know a little about letters. But only what the puzzle
# needs: a network that looks for the heavy end of a stroke can do well, and knows no shapes. Can
# the task be closer to what we want, namely that **pictures of one thing get similar vectors**?
#
# <!-- slide
# The network learns only what the puzzle needs. Can the task be closer to what we want: **pictures
# of one thing get similar vectors**?
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Two views of one picture
#
# Take a picture and change it twice at random. Whatever it shows, both views show it. So the
# network should give both of them nearly the same vector, and other pictures other vectors.
#
# <!-- slide
# Change a picture twice at random. Whatever it shows, **both views show it**: give both nearly the
# same vector, and other pictures other vectors.
# -->
#
# <!-- notes
# Go down a column: it is the same letter in every row. Ask what stays: which letter it is. What
# changes: place, size, slant, thickness, and how much of it is seen. Nothing here was labelled; we
# know that two views belong together because we made them.
# -->

# %% slideshow={"slide_type": "-"}
change = recipe.CHANGES["letters"]
plots.image_grid(
    [*some, *(one for _ in range(4) for one in change(some, generator))],
    row_titles=["picture", "view", "view", "view", "view"],
    columns=9,
    size=56,
    title="Letters and digits: warped and cropped",
)

# %% slideshow={"slide_type": "subslide"}
drawings = recipe.emoji_task("validation").test_images
drawings = drawings[torch.linspace(3, len(drawings) - 1, 9).long()]
coloured = recipe.CHANGES["emoji"]
plots.image_grid(
    [*drawings, *(one for _ in range(3) for one in coloured(drawings, generator))],
    row_titles=["picture", "view", "view", "view"],
    columns=9,
    size=56,
    title="Emoji: cropped, mirrored, recoloured",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **What two views have in common is what gets learned.** Colours change, so the network cannot
# rely on them. Letters are never mirrored here, so it may tell *b* from *d*. The changes are where
# our knowledge goes in: they say what does not matter. Choose them for your data.
#
# (All emojis designed by [OpenMoji](https://openmoji.org/), the open-source emoji and icon project.
# License: CC BY-SA 4.0. The views are changed versions of them.)
#
# <!-- slide
# **What two views have in common is what gets learned.** The changes are where our knowledge goes
# in: they say what does not matter.
#
# Emoji: OpenMoji, CC BY-SA 4.0; the views are changed versions of them.
# -->
#
# <!-- notes
# Ask before you show the words: colour changes from view to view, so what can the network not use?
# Which changes would be wrong for letters (mirroring: *b* and *d*), for digits (half turns: 6 and
# 9), for X-rays?
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## By hand
#
# ### NT-Xent
#
# Why not simply ask for equal vectors? Because a network that gives *every* picture the same vector
# would have a perfect score. The other pictures of the batch must push.
#
# So it is a question with many answers: a batch of $N$ pictures gives $2N$ views; which of the
# other $2N - 1$ is the partner of view $i$? With $s_{ij}$ the cosine of two vectors, $p(i)$ the
# partner and $\tau$ the **temperature**, the loss is
#
# $$\ell = -\frac{1}{2N} \sum_{i} \log \frac{e^{s_{i\,p(i)} / \tau}}{\sum_{j \ne i} e^{s_{ij} /
# \tau}}$$
#
# the cross-entropy of a softmax: *normalised, temperature-scaled*, hence NT-Xent. Guessing costs
# $\ln(2N - 1)$.
#
# <!-- slide
# Equal vectors for *every* picture would be perfect, and useless. So the others of the batch push:
# **which of the other $2N - 1$ views is the partner $p(i)$ of view $i$?**
#
# $$\ell = -\frac{1}{2N} \sum_{i} \log \frac{e^{s_{i\,p(i)} / \tau}}{\sum_{j \ne i} e^{s_{ij} /
# \tau}}$$
#
# - $s_{ij}$: the cosine of two vectors; $\tau$: the **temperature**
# - a softmax with cross-entropy; guessing costs $\ln(2N - 1)$
# -->
#
# <!-- notes
# Write the formula next to a row of cosines, and cross out the view itself: that is the one index
# that is easily forgotten. What is printed: the sum written out view by view agrees with the
# packaged loss, and a network that says the same of everything pays the price of guessing. A common
# misunderstanding: nobody tells the network that the others are *different things*; they are only
# other pictures of the batch.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(0)
first, second = torch.randn(2, 5, 8)  # two views of five pictures


def nt_xent_by_hand(first, second, temperature):
    """The formula, one view after the other."""
    views, pictures = [*first, *second], len(first)
    losses = []
    for i, view_i in enumerate(views):
        scores = {
            j: F.cosine_similarity(view_i, view_j, dim=0) / temperature
            for j, view_j in enumerate(views)
            if j != i
        }
        partner = (i + pictures) % (2 * pictures)
        everything = torch.logsumexp(torch.stack(list(scores.values())), 0)
        losses.append(everything - scores[partner])
    return torch.stack(losses).mean()


for tau in (0.05, 0.2, 1.0):
    by_hand, packaged = nt_xent_by_hand(first, second, tau), nt_xent(first, second, tau)[0]
    print(f"temperature {tau}: the packaged loss agrees:", torch.allclose(by_hand, packaged))
same = torch.ones(6, 8)  # every picture the same vector: no better than guessing
print(
    "a collapsed network pays for it:",
    torch.isclose(nt_xent(same, same, 0.2)[0], torch.tensor(math.log(11))).item(),
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What the temperature does
#
# Five candidates, the partner first, with fixed cosines. A low temperature looks only at the
# nearest rivals; a high one pushes all of them about equally.
#
# <!-- slide
# Five candidates with fixed cosines; the partner comes first, at 0.8.
#
# - **low** $\tau$: only the nearest rivals count
# - **high** $\tau$: all are pushed about equally
#
# In which row do the far candidates still count?
# -->
#
# <!-- notes
# The push on a rival is its share, divided by the temperature. Let the class
# say what happens at a temperature of nearly zero (only the nearest rival is left) and at a very
# high one (all count alike, and the partner hardly stands out).
# -->

# %% slideshow={"slide_type": "-"}
cosines = torch.tensor([0.8, 0.7, 0.4, 0.0, -0.4])
candidates = ["partner", "0.7", "0.4", "0.0", "−0.4"]
shares = torch.stack([(cosines / tau).softmax(0) for tau in (0.05, 0.2, 1.0)])
plots.attention_map(
    shares,
    ["τ=0.05", "τ=0.2", "τ=1"],
    candidates,
    title="Softmax over five candidates",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### MoCo: others from a queue
#
# The more others, the harder the question, so SimCLR wants large batches, and memory ends them.
# **MoCo** keeps the vectors of earlier batches in a queue and lets the views be compared with
# those. Old vectors came from an older network, though. So a second, **slow** encoder makes them,
# whose weights follow at a distance:
#
# $$\theta_\mathrm{slow} \leftarrow m\, \theta_\mathrm{slow} + (1 - m)\, \theta$$
#
# The gradient goes through the fast one alone.
#
# <!-- slide
# More others make a harder question; large batches cost memory. So keep the vectors of **earlier
# batches** in a queue, and compare with those.
#
# They came from an older network? Let a **slow** encoder make them:
#
# $$\theta_\mathrm{slow} \leftarrow m\, \theta_\mathrm{slow} + (1 - m)\, \theta$$
#
# The gradient goes through the fast one alone.
# -->
#
# <!-- notes
# Draw it: two encoders, a queue between them, the oldest vectors fall out. Ask what goes wrong with
# a single encoder: the keys of ten steps ago were made by another network, and the comparison would
# find out how old a key is. What is printed compares the package with the same thing written out.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(1)
small = MoCo(ConvNet(ConvNetConfig(1, width=4, dim=16)), projected=8, queue=6, momentum=0.9)
views = TwoViews(torch.rand(4, 1, 28, 28), torch.rand(4, 1, 28, 28))
with torch.no_grad():
    for weight in small.encoder.parameters():
        weight += 0.05 * torch.randn_like(weight)  # as if an optimizer had moved it
fast = [*small.encoder.parameters(), *small.projection.parameters()]
wanted = [0.9 * old + 0.1 * new for old, new in zip(small.slow.parameters(), fast, strict=True)]
queue = small.queue.clone()

packaged = small(views)["loss"]
followed = zip(small.slow.parameters(), wanted, strict=True)
print("the slow encoder follows:", all(torch.allclose(*pair, atol=1e-6) for pair in followed))
keys = small.queue[:4]  # the four oldest places now hold the new keys
print("the two youngest keys stay:", torch.equal(small.queue[4:], queue[4:]))

queries = F.normalize(small.projection(small.encode(views.first)), dim=1)
losses = []
for query, key in zip(queries, keys, strict=True):
    scores = torch.stack([query @ key, *(query @ other for other in queue)]) / small.temperature
    losses.append(-scores.log_softmax(0)[0])
by_hand = torch.stack(losses).mean()
print("the packaged MoCo agrees:", torch.allclose(by_hand, packaged, atol=1e-5))
print(
    "and so does info_nce:",
    torch.allclose(by_hand, info_nce(queries, keys, queue, 0.2)[0], atol=1e-5),
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# **To pretrain on, without labels:** printed letters of five scripts in sixteen fonts, and
# handwritten digits. **To be tested on, with few labels:** digits that no pretraining has
# seen, and the letters of a script that none has seen, **Georgian**. Armenian, unseen as well, is
# for choosing.
#
# <!-- slide
# - **to pretrain on**, no labels: printed letters of five scripts in sixteen fonts, and digits
# - **to choose by**: letters of a sixth script, Armenian, and other digits
# - **to report on**, few labels: **Georgian**, a script that no pretraining saw, and other digits
# -->
#
# <!-- notes
# How many pictures there are of each is printed in the notebook. Ask why there is one set to choose
# by and another to report on. The training digits appear twice: all without labels in pretraining, a
# few with labels later. That is how one would do it. The test fonts do occur in pretraining, on
# other scripts' letters; what is new is every shape.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
georgian, armenian = recipe.letters_task(recipe.TEST), recipe.letters_task(recipe.VALIDATION)
digits, validation_digits = recipe.digits_task("test"), recipe.digits_task("validation")
print(f"to pretrain on: {len(unlabelled.pictures):,} pictures; scripts:", ", ".join(recipe.SEEN))
for role, task in (
    ("to choose by", armenian),
    ("to choose by", validation_digits),
    ("to report on", georgian),
    ("to report on", digits),
):
    sizes = f"{task.classes} classes, {len(task.images):,} pictures to learn from"
    print(f"{role}: {task.name}: {sizes}, {len(task.test_images):,} to be tested on")
print("fonts of the letters that are tested on:", ", ".join(recipe.TEST_FONTS))

# %% slideshow={"slide_type": "-"}
printed = glyphs.load()
of_georgian = printed.written_in(recipe.TEST).labels.unique().tolist()
georgian_names = [printed.letters[number] for number in of_georgian]
one_of_each = [int(torch.nonzero(georgian.labels == letter)[3]) for letter in range(10)]
tested = [int(torch.nonzero(georgian.test_labels == letter)[1]) for letter in range(10)]
ten_digits = [int(torch.nonzero(digits.test_labels == digit)[2]) for digit in range(10)]
plots.image_grid(
    [*georgian.images[one_of_each], *georgian.test_images[tested], *digits.test_images[ten_digits]],
    row_titles=["to learn from", "other fonts", "digits"],
    columns=10,
    size=52,
    title="Georgian letters, to learn from and to be tested on, and digits",
)

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
for name in lesson.card.data:
    card = source.source(name)
    print(f"{card.title}: {card.licence}\n  {card.attribution}")

# %% [markdown] slideshow={"slide_type": "skip"}
# The training digits appear twice: all of them without labels in pretraining, a few of them with
# labels later. That is how one would do it: unlabelled pictures of the kind that matters are at
# hand. The test digits are seen by nobody. The test fonts of Georgian do occur in pretraining, on
# other scripts' letters; what is new there is every shape.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predict, then pretrain
#
# Write down your guesses:
#
# 1. Each view has to find its partner among all other views of the batch (the number is printed
#    below). How often will it succeed after a minute of training?
# 2. Which is worse: to do without the crops, or without the warps?
# 3. Ten labelled digits, one of each. A fresh network gets them with all the warps of above, and
#    all the steps it likes. Will the pretrained one be better, and by how much? And with a hundred?
#
# <!-- slide
# Write down your guesses:
#
# 1. Each view has to find its partner among all other views of the batch. How often will it succeed
#    after a minute of training?
# 2. Which is worse: to do without the crops, or without the warps?
# 3. Ten labelled digits. A fresh network gets them with all the warps, and all the steps it likes.
#    Will the pretrained one be better, and by how much? And with a hundred?
# -->
#
# <!-- notes
# Two minutes, in pairs, numbers on paper. Collect a few for each question and leave them on the
# board: 1 is answered on the next slide, 2 and 3 in later sections. Most people guess too low in 1
# and too high in 3.
# -->

# %% slideshow={"slide_type": "fragment"}
sizes = lesson.config("simclr")
others = 2 * sizes.batch - 1
print(f"candidates for each view: {others}; by guessing {1 / others:.2%} are found")
print(f"loss of guessing: {math.log(others):.2f} nats")

# %% slideshow={"slide_type": "skip"}
live = lesson.pretrain("simclr")

# %% [markdown] slideshow={"slide_type": "subslide"}
# <!-- slide
# ### Live: finding the partner
# -->
#
# <!-- notes
# About half a minute of training on a laptop with two cores. The loss falls with it; its curve is
# in the notebook. Compare with the guesses to question 1, and with the line at the bottom. Ask why
# it will never reach 100 %: some crops of two letters look the same, and an *o* in two fonts is
# hardly two pictures.
# -->

# %% slideshow={"slide_type": "-"}
plots.loss_curve(
    live.history,
    metric="found",
    references={"guessing": 1 / others},
    title="Share of views whose partner is the nearest of all",
)

# %% slideshow={"slide_type": "-"}
found = live.history.rows[-1]["found"]
lesson.record("found", found, "share of views", f"partner among {others}, last steps")
print(f"{live.history.steps} steps, {live.history.units_per_second:,.0f} pictures a second")
print(f"found at last: {found:.1%}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What did it learn?
#
# ### Nearest neighbours in an unseen script
#
# The network has never met a Georgian letter. We show it one in a test font, and ask for the three
# nearest among the letters of **one** other font, DejaVu Sans: by pixels, by an encoder with random
# weights, and by SimCLR's. One of them is the same letter; a cross marks the others.
#
# <!-- slide
# The network has never met a Georgian letter. Which letters of **one** other font are nearest? A
# cross: it is another letter.
#
# - first column: the letter asked for
# - then three by **pixels**
# - three by an encoder with **random** weights
# - three by **SimCLR**
# -->
#
# <!-- notes
# Take one row and read it from left to right: the letter asked for, three by pixels, three by random
# weights, three by SimCLR. Only one letter of the font is right, so a row can have one without a
# cross in each three, at most. Let the class count crosses before you show the numbers.
# -->

# %% slideshow={"slide_type": "skip"}


class RawPixels(nn.Module):
    """The encoder that does nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()), requires_grad=False)

    def encode(self, images):
        """The pixels in a row."""
        return self.weight * images.flatten(1)


encoder = live.model.encoder
torch.manual_seed(seed)
untrained = ConvNet(encoder.config).to(where)
with torch.no_grad():  # no weight moves, but batch norm learns what mean and spread it gets
    for rows in torch.randperm(len(unlabelled.pictures))[: 20 * 64].split(64):
        untrained.encode(recipe.fractions(unlabelled.pictures[rows]).to(where))
untrained.eval()
encoders = {"raw pixels": RawPixels().to(where), "random encoder": untrained, "SimCLR": encoder}


def in_one_font(task, script, font="DejaVuSans"):
    """The task with one picture of each letter to learn from."""
    letters = printed.written_in(script)
    rows = torch.nonzero(letters.font == printed.fonts.index(font)).flatten()
    labels = letters.labels.unique(return_inverse=True)[1][rows]
    images = recipe.fractions(letters.images[rows, None])
    return dataclasses.replace(task, images=images, labels=labels)


one_font = in_one_font(georgian, recipe.TEST)
hundred = dataclasses.replace(  # ten of each digit
    digits, images=digits.images[::35], labels=digits.labels[::35]
)


def centred(encode_with, task):
    """Unit vectors of a task's two parts, their common mean taken off."""
    train, test = (recipe.features(encode_with, x) for x in (task.images, task.test_images))
    return (F.normalize(part - train.mean(0), dim=1) for part in (train, test))


# %% slideshow={"slide_type": "-"}
queries = torch.arange(len(georgian.test_labels))[5::26]
pictures, titles = [], []
nearest = {}
for name, one in encoders.items():
    train, test = centred(one, one_font)
    nearest[name] = (test[queries] @ train.T).topk(3).indices
for number, query in enumerate(queries.tolist()):
    truth = int(georgian.test_labels[query])
    pictures.append(georgian.test_images[query])
    titles.append(georgian_names[truth])
    for rows in nearest.values():
        for row in rows[number].tolist():
            right = int(one_font.labels[row]) == truth
            pictures.append(one_font.images[row])
            titles.append(georgian_names[int(one_font.labels[row])] + ("" if right else " ✗"))
plots.image_grid(
    pictures,
    titles=titles,
    columns=10,
    size=52,
    title="A letter; its neighbours by pixels (3), random encoder (3), SimCLR (3)",
)

# %% slideshow={"slide_type": "subslide"}
neighbours = {}
for name, task, key in (
    ("Georgian, one font", one_font, "georgian_one_font"),
    ("Georgian, eight fonts", georgian, "georgian"),
    ("digits, ten of each", hundred, "digits"),
):
    neighbours[name] = {kind: recipe.neighbours_found(one, task) for kind, one in encoders.items()}
    for kind, score in neighbours[name].items():
        suffix = {"raw pixels": "_pixels", "random encoder": "_random", "SimCLR": ""}[kind]
        lesson.record(f"{key}_neighbours{suffix}", score, "nearest neighbour of the same class")
plots.bars(
    neighbours,
    percent=True,
    xlabel="test pictures whose nearest neighbour is of the same class",
    title="No label was used for the vectors",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Look at raw pixels with eight fonts: some of the eight has nearly the same pixels, so that knowing
# nothing is good enough. With **one** font the vectors have to say what makes the letter. A measure
# must be hard enough to show a difference; the next ones are of this kind.
#
# <!-- slide
# With eight fonts one has nearly the same pixels: a measure must be **hard enough** to show a
# difference.
# -->
#
# <!-- notes
# Before you show the words, ask why raw pixels do so well with eight fonts.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What the loss sees
#
# Six pictures, two views each: all the cosines between the twelve vectors. Training brings partners
# together and drives strangers apart.
#
# <!-- slide
# Six pictures, two views each: the cosines of twelve vectors. Partners come together, strangers go
# apart.
# -->
#
# <!-- notes
# Ask what a perfect picture would be: six dark squares of two by two, all else white. Then ask which
# strangers are still close, and look at what letters they are. A common misunderstanding: the
# diagonal is each view with itself, and says nothing.
# -->

# %% slideshow={"slide_type": "skip"}
six = georgian.images[[8 * letter for letter in (0, 3, 7, 12, 20, 30)]]
twelve = torch.stack([change(six, generator), change(six, generator)], 1).flatten(0, 1)
names = [f"{letter}{view_number}" for letter in "abcdef" for view_number in "12"]
torch.manual_seed(seed)
fresh = recipe.network(sizes, unlabelled).to(where)
matrices = {}
for name, model in (("untrained", fresh), ("trained", live.model)):
    with torch.no_grad():
        model.train(name == "untrained")  # without training, batch norm knows this batch alone
        vectors = F.normalize(model.projection(model.encode(twelve.to(where))), dim=1)
    model.eval()
    matrices[name] = (vectors @ vectors.T).cpu()

# %% slideshow={"slide_type": "-"}
plots.attention_map(
    matrices["untrained"].clamp(min=0), names, numbers=False, title="Cosines above 0, untrained"
)

# %% slideshow={"slide_type": "-"}
plots.attention_map(
    matrices["trained"].clamp(min=0), names, numbers=False, title="Cosines above 0, trained"
)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### A map of the digits
#
# Test digits in the plane. Colours and shapes are the true labels, which nothing here has used.

# %% slideshow={"slide_type": "skip"}
on_map = torch.arange(len(digits.test_labels))[:: lesson.at(3, smoke=25)]
for name in ("raw pixels", "SimCLR"):
    plots.embedding_map(
        recipe.features(encoders[name], digits.test_images[on_map]).numpy(),
        groups=digits.test_labels[on_map].tolist(),
        method="tsne",
        title=f"Test digits, by {name}",
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Which part does the work?
#
# One change at a time, with a smaller network and few steps, the same for all. The measure, nearest
# neighbours, is taken on what we choose by: Armenian letters, known from one font, and validation
# digits, known from ten of each.
#
# <!-- slide
# ### Which part does the work? One change at a time; nearest neighbour right
# -->
#
# <!-- notes
# Question 2 of the guesses is answered here: compare *no crop* and *no warp* with the first line.
# Smaller batches do worse at as many steps, and better at as many pictures, for they then have four
# times the steps. Raw pixels are hard to beat in a run this short, and rotation and jigsaw stay
# below an encoder with random weights on Armenian: a pretext task can teach the wrong thing.
# -->

# %% slideshow={"slide_type": "skip"}
base = recipe.PicturesRun(**ablation)
quarter = {"batch": base.batch // 4, "steps": 4 * base.steps}  # as many pictures, smaller batches
to_choose_by = [
    in_one_font(armenian, recipe.VALIDATION),
    dataclasses.replace(
        validation_digits,
        images=validation_digits.images[::35],
        labels=validation_digits.labels[::35],
    ),
]
variants = {  # name -> (what differs from `base`, changes of the pictures)
    f"SimCLR: batch {base.batch}, temperature {base.temperature}": ({}, change),
    "temperature 0.05": ({"temperature": 0.05}, change),
    "temperature 1": ({"temperature": 1.0}, change),
    f"batch {quarter['batch']}, as many steps": ({"batch": quarter["batch"]}, change),
    f"batch {quarter['batch']}, as many pictures": (quarter, change),
    "no crop": ({}, dataclasses.replace(change, views=NOTHING)),
    "no warp": ({}, dataclasses.replace(change, warp=None)),
    "MoCo": ({"method": "moco"}, change),
    f"MoCo: batch {quarter['batch']}, as many pictures": ({"method": "moco"} | quarter, change),
    "rotation": ({"method": "rotation"}, None),
    "jigsaw": ({"method": "jigsaw"}, None),
}


def two_views(pictures, changes, count):
    """What `recipe.batches` draws, with other changes."""
    pictures = pictures.to(where)

    def draw(step, generator):
        rows = torch.randint(len(pictures), (count,), generator=generator).to(where)
        images = recipe.fractions(pictures[rows])
        return TwoViews(*changes(torch.cat([images, images]), generator).chunk(2))

    return draw


def briefly(differs, changes):
    """Train one variant, and return the network."""
    config = dataclasses.replace(base, **differs)
    torch.manual_seed(seed)
    model = recipe.network(config, unlabelled)
    if changes is None:  # rotation and jigsaw, as in their recipes
        drawn = recipe.batches(config, unlabelled, seed)
    else:
        drawn = two_views(unlabelled.pictures, changes, config.batch)
    schedule = dataclasses.replace(recipe.training(config, unlabelled), seed=seed)
    return model, fit(model, drawn, schedule).seconds


def measured(model):
    """Nearest neighbours of the same class: Armenian letters, validation digits."""
    return [recipe.neighbours_found(model, task) for task in to_choose_by]


ablated, ablated_seconds = {}, {}
for name, variant in variants.items():
    model, ablated_seconds[name] = briefly(*variant)
    ablated[name] = measured(model)
for name in ("random encoder", "raw pixels"):
    ablated[name] = measured(encoders[name])

# %% slideshow={"slide_type": "-"}
display(
    Table(
        (f"one run each, {base.steps} steps", "Armenian letters", "digits", "seconds"),
        [
            (
                name,
                *(f"{score:.1%}" for score in scores),
                f"{ablated_seconds[name]:.1f}" if name in ablated_seconds else "–",
            )
            for name, scores in ablated.items()
        ],
    )
)
simclr_here = next(iter(ablated.values()))
for name, key in (("rotation", "rotation"), ("jigsaw", "jigsaw"), ("MoCo", "moco")):
    lesson.record(f"armenian_{key}", ablated[name][0], "nearest neighbour right", "short run")
lesson.record("armenian_simclr", simclr_here[0], "nearest neighbour right", "short run")
best_pretext = max(ablated[name][0] for name in ("rotation", "jigsaw"))
print(f"SimCLR minus the better pretext task, Armenian: {simclr_here[0] - best_pretext:+.1%}")

# %% [markdown] slideshow={"slide_type": "notes"}
# Each line is a single short run: differences of a point or two may be luck. Read the large ones.
# Start at the bottom, with what costs no training. Then the lines without crop and without warp:
# whatever is taken from the views, the network need no longer overlook. Then the pretext tasks,
# which saw the same pictures, as often, with the same changes.

# %% [markdown] slideshow={"slide_type": "notes"}
# Ask which changes would be wrong for digits: mirroring, half turns (6 and 9). And for emoji: does
# colour matter for the category? The network is told that it does not. Let the class try a change
# of their own in `variants`.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Adapt it
#
# ### A comparison that flatters
#
# Is pretraining worth it? Look at this comparison, of a kind that one finds in reports. Twenty
# labelled digits. The **frozen** encoder with a linear probe, against the same network **from
# scratch**, trained until its loss on the twenty is near zero.
#
# <!-- slide
# Twenty labelled digits. The **frozen** encoder with a linear probe, against the same network **from
# scratch**, until its loss on the twenty is near zero. What is wrong with this comparison?
# -->
#
# <!-- notes
# Leave the picture there and let the class attack it for two minutes. Wanted: the rival never saw a
# warped picture, it was stopped early, and a loss near zero on twenty pictures says nothing about
# others. Someone will say that SimCLR has seen more pictures: that is the point of pretraining, and
# fair.
# -->

# %% slideshow={"slide_type": "skip"}
long = lesson.load("simclr")
emoji_run = lesson.load("simclr_emoji")


def over_draws(task, method, counts, inputs=None):
    """A FewLabel over a task; `counts` says how many draws at each number of labels."""
    train, test = inputs or (task.images, task.test_images)
    found = {}
    for count, seeds in counts.items():
        found |= evaluate.few_label(
            train,
            task.labels,
            test,
            task.test_labels,
            counts=(count,),
            seeds=seeds,
            method=method,
            metric=task.metric,
        )
    return evaluate.FewLabel(found, task.metric)


def trained(begin, steps, changes, rate=3e-3):
    """A method for `few_label`: train the network that begin(classes) gives."""

    def method(images, labels, unseen, unseen_labels, *, metric, seed):
        torch.manual_seed(seed)
        network = begin(int(unseen_labels.max()) + 1).to(where)
        images, labels = images.to(where), labels.to(where)

        def draw(step, generator):
            rows = torch.randint(len(labels), (rows_a_step,), generator=generator).to(where)
            seen = images[rows]
            return Pictures(seen if changes is None else changes(seen, generator), labels[rows])

        plan = TrainConfig(steps=steps, learning_rate=rate, weight_decay=0.05, seed=seed)
        fit(network, draw, plan)
        with torch.no_grad():
            parts = [network.logits(part.to(where)).argmax(1).cpu() for part in unseen.split(500)]
        return getattr(evaluate, metric)(torch.cat(parts), unseen_labels)

    return method


def from_scratch(classes):
    """A network like the pretrained one, with nothing learned."""
    return ConvNet(dataclasses.replace(encoder.config, classes=classes))


def warped_too(encode_with, images, labels, seed):
    """Features of pictures and of warped copies of them: the same care as for other methods."""
    random = torch.Generator().manual_seed(seed)
    images = torch.cat([images, *(change(images, random) for _ in range(copies))])
    return recipe.features(encode_with, images), labels.repeat(copies + 1)


def probe(encode_with, task, strength):
    """A method for `few_label`: logistic regression on frozen features of warped pictures."""
    unseen = recipe.features(encode_with, task.test_images)  # once for all draws

    def method(images, labels, _, unseen_labels, *, metric, seed):
        known = warped_too(encode_with, images, labels, seed)
        return evaluate.linear_probe(
            *known, unseen, unseen_labels, strengths=(strength,), metric=metric
        )

    return method


# %% [markdown] slideshow={"slide_type": "skip"}
# The probe has one number to set, how strongly it is regularised. Ten labels are too few to choose
# it by, so it is chosen on the validation digits, for each kind of features on its own, and then
# kept for all numbers of labels.

# %% slideshow={"slide_type": "skip"}
candidates = lesson.at((1e-4, 1e-3, 1e-2, 1e-1), smoke=(1e-3,))
encoders["SimCLR, long"] = long.model.encoder
strength = {}
for name, one in encoders.items():
    unseen, scores = (
        recipe.features(one, validation_digits.test_images),
        dict.fromkeys(candidates, 0),
    )
    for draw in (100, 101):  # draws that the test does not use
        rows = evaluate.draw_labels(validation_digits.labels, 20, draw)
        known = warped_too(
            one, validation_digits.images[rows], validation_digits.labels[rows], draw
        )
        for candidate in candidates:
            scores[candidate] += evaluate.linear_probe(
                *known, unseen, validation_digits.test_labels, strengths=(candidate,)
            )
    strength[name] = max(candidates, key=scores.get)
print("C of logistic regression:", strength)

# %% slideshow={"slide_type": "skip"}
results, seconds = {}, {}


def run(name, method, counts=draws, task=digits):
    """Keep a method's scores, and the mean seconds of one of its runs."""
    began = time.perf_counter()
    results[name] = over_draws(task, method, counts)
    seconds[name] = (time.perf_counter() - began) / sum(counts.values())


short_name, scratch_name = f"scratch, {short} steps, no warps", f"scratch, {enough} steps, warps"
probe_name = "SimCLR frozen, probe"
run(probe_name, probe(encoder, digits, strength["SimCLR"]))
run(short_name, trained(from_scratch, short, None), short_draws)

# %% slideshow={"slide_type": "-"}
flattering = {name: results[name] for name in (probe_name, short_name)}
plots.bars(
    {name: result[20] for name, result in flattering.items()},
    percent=True,
    baseline={"chance": 0.1},
    xlabel="test digits right, 20 labels",
    title="A triumph?",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The same care for both
#
# What is wrong with it? SimCLR has seen every picture warped in many ways; the rival has seen each
# one as it is. It has had few steps, and its loss near zero says that it knows its pictures by
# heart, not that it would stop improving on others. So give it **the same warps**, and **more steps
# until more steps do not help**.
#
# <!-- slide
# Give the rival **the same warps**, and **more steps until more steps do not help**.
# -->
#
# <!-- notes
# Let them guess each bar before it appears: first the warps, then the steps. The lines at the ends of
# the bars are 95 % intervals over draws of the labels; where there is none, there was one draw.
# -->

# %% slideshow={"slide_type": "skip"}
run(f"scratch, {short} steps, warps", trained(from_scratch, short, change), short_draws)
run(scratch_name, trained(from_scratch, enough, change))
patient_name = f"scratch, {patient} steps, warps"
run(patient_name, trained(from_scratch, patient, change), patient_draws)

# %% slideshow={"slide_type": "-"}
ladder = [short_name, f"scratch, {short} steps, warps", scratch_name, patient_name, probe_name]
plots.bars(
    {name: results[name][20] for name in ladder},
    percent=True,
    highlight=[probe_name],
    xlabel="test digits right, 20 labels",
    title="The rival, step by step",
)

# %% slideshow={"slide_type": "skip"}
advantage = {
    name: evaluate.paired_difference(results[probe_name][20], results[name][20])
    for name in (short_name, scratch_name)
}
for name, difference in advantage.items():
    print(f"SimCLR's probe minus {name}: {difference:+.1%} with 20 labels")
first_draws = evaluate.interval(results[scratch_name][20].values[: patient_draws[20]])
more = evaluate.paired_difference(results[patient_name][20], first_draws)
print(f"what {patient - enough} more steps from scratch bring: {more:+.1%}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Most of the triumph was the weakness of the rival. From here on, *from scratch* means the one with
# warps and enough steps.
#
# <!-- slide
# Most of the triumph was the **weakness of the rival**.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What pretraining is worth
#
# Everybody gets the warps. *Frozen*: a linear probe on what the encoder says. *Fine-tuned*: a new
# last layer, and all weights learn on, gently. *Long*: the checkpoint of the same recipe that the
# repository ships, trained for longer. Two baselines know nothing: raw pixels, and an encoder with
# random weights.
#
# <!-- slide
# Everybody gets the warps. *Frozen*: a linear probe. *Fine-tuned*: all weights learn on. *Long*: the
# shipped checkpoint, trained for longer.
# -->
#
# <!-- notes
# Read it by columns: what wins with ten labels, what with a hundred? Then the last column. Where a
# field is empty, the method was not run with so many labels, to save time.
# -->

# %% slideshow={"slide_type": "skip"}
run("SimCLR fine-tuned", trained(encoder.with_new_head, tuning_steps, change, rate=1e-3))
run("SimCLR long, probe", probe(long.model.encoder, digits, strength["SimCLR, long"]))
run("random encoder, probe", probe(untrained, digits, strength["random encoder"]))
run("raw pixels, probe", probe(encoders["raw pixels"], digits, strength["raw pixels"]))

# %% slideshow={"slide_type": "-"}
counts = list(draws)
display(
    Table(
        ("test digits right", *(f"{count} labels" for count in counts), "seconds a run"),
        [
            (
                name,
                *(f"{result[count]:.1%}" if count in result else "" for count in counts),
                f"{seconds[name]:.1f}",
            )
            for name, result in results.items()
        ],
    )
)

# %% slideshow={"slide_type": "subslide"}
shown = [scratch_name, probe_name, "raw pixels, probe"]
plots.lines(
    {name: results[name] for name in shown},
    xlabel="labels in all",
    ylabel="test digits right",
    percent=True,
    references={"chance": 0.1},
    title="The fewer labels, the more pretraining helps",
)

# %% slideshow={"slide_type": "skip"}
keys = {
    probe_name: "probe",
    scratch_name: "scratch",
    short_name: "scratch_short",
    "SimCLR fine-tuned": "fine_tuned",
    "SimCLR long, probe": "long_probe",
    "raw pixels, probe": "pixels",
    "random encoder, probe": "random",
}
for name, key in keys.items():
    for count, score in results[name].items():
        lesson.record(f"digits{count}_{key}", score.mean, "accuracy", f"{count} labels")
gain = results[probe_name].minus(results[scratch_name])
for count, difference in gain.items():
    print(f"{count} labels: probe minus from scratch, draw by draw: {difference:+.1%}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# - With **ten labels** the frozen encoder is ahead of the fresh network, although that one had the
#   same warps and all the steps it could use. It has seen thousands of digits; the fresh network
#   has seen ten.
# - With **a hundred** there is little or nothing left to gain. Ten digits of each kind, warped in a
#   thousand ways, say what the unlabelled ones say.
# - Pixels and random features are far behind: the gain is **learned**.
# - *Long* against *frozen*: what more patience in pretraining, paid once, brings to every task.
# - The last column is a second result. A fresh network is trained anew for each task; a probe on an
#   encoder that is there already takes a moment.
#
# <!-- slide
# - **Ten labels:** the frozen encoder is ahead on average; draws of ten differ much.
# - **A hundred:** little or nothing is left to gain.
# - Pixels are far behind: the gain is **learned**.
# -->
#
# <!-- notes
# The band is a 95 % interval over draws of the labels. The notebook also prints the difference draw
# by draw: read it out, interval included, and let the class say whether ten labels are proof. Ask
# in which projects of theirs labels
# are this few.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### One picture of each letter
#
# Georgian again, now with a single labelled picture a letter, in one font; the test is in four
# other fonts. No probe this time: each test letter gets the name of its **nearest** labelled
# picture.
#
# <!-- slide
# Georgian, with **one** labelled picture of each letter, tested in four other fonts. No training:
# each letter gets the name of its **nearest** labelled picture.
# -->
#
# <!-- notes
# Compare SimCLR with the fresh network, then look at the seconds. The fresh one had a single draw.
# Raw pixels need no time either; look at what they reach.
# -->

# %% slideshow={"slide_type": "skip"}


def by_nearest(known, labels, unseen, unseen_labels, *, metric, seed):
    """A method for `few_label`: the name of the nearest labelled picture."""
    known, unseen = (F.normalize(part - known.mean(0), dim=1) for part in (known, unseen))
    return evaluate.accuracy(labels[(unseen @ known.T).argmax(1)], unseen_labels)


one_each = georgian.classes
one_shot, one_shot_seconds = {}, {}
for name, one in encoders.items():
    began = time.perf_counter()
    inputs = [recipe.features(one, x) for x in (georgian.images, georgian.test_images)]
    scores = over_draws(georgian, by_nearest, {one_each: letter_draws}, inputs)
    one_shot[f"{name}, nearest"] = scores[one_each]
    one_shot_seconds[f"{name}, nearest"] = (time.perf_counter() - began) / letter_draws
began = time.perf_counter()
method = trained(from_scratch, letter_steps, change)
fresh_letters = over_draws(georgian, method, {one_each: letter_scratch_draws})[one_each]
name = f"scratch, {letter_steps} steps, warps"
one_shot[name] = fresh_letters
one_shot_seconds[name] = (time.perf_counter() - began) / letter_scratch_draws

# %% slideshow={"slide_type": "-"}
display(
    Table(
        (f"{one_each} letters, one picture each", "test letters right", "seconds a run"),
        [(name, f"{one:.1%}", f"{one_shot_seconds[name]:.2f}") for name, one in one_shot.items()],
    )
)
for name, key in (
    ("SimCLR, nearest", "simclr"),
    ("raw pixels, nearest", "pixels"),
    (f"scratch, {letter_steps} steps, warps", "scratch"),
):
    lesson.record(f"georgian_one_shot_{key}", one_shot[name].mean, "accuracy", "one a letter")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Compare SimCLR with the fresh network, and then look at the column of seconds. One of them was
# trained for this task, on warps of its labelled letters. The other has never been told that it
# would have to read Georgian: a table of vectors is all that it needs, and a new letter is one row
# more.
#
# <!-- slide
# - The fresh network was trained **for this task**, on warps of its labelled letters.
# - SimCLR was never told that it would have to read Georgian: it needs a table of vectors, and a new
#   letter is **one row more**.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Emoji: ahead of pixels, not of training
#
# A second set, where it is not so easy. Name the category (food, animals, travel and so on) of an
# emoji whose **concept** is new: no variant of it was in the training part. The encoder is the
# shipped one, pretrained on the training emoji with crops and colours; the score is balanced over
# the categories.
#
# <!-- slide
# Name the category (food, animals, travel …) of emoji whose **concept** is new. The encoder was
# pretrained on the training emoji, with crops and colours.
# -->

# %% slideshow={"slide_type": "skip"}
task = recipe.emoji_task("test")


def emoji_probe(known, labels, unseen, unseen_labels, *, metric, seed):
    """A linear probe; the strength is chosen on the labelled part."""
    parts = known, labels, unseen, unseen_labels
    return evaluate.linear_probe(*parts, strengths=(1e-3, 1e-2, 1e-1), metric=metric, seed=seed)


emoji_inputs = {
    "SimCLR long, probe": [
        recipe.features(emoji_run.model.encoder, x) for x in (task.images, task.test_images)
    ],
    "pixels (16 x 16), probe": [
        F.avg_pool2d(x, 2).flatten(1) for x in (task.images, task.test_images)
    ],
}
emoji_results = {
    name: over_draws(task, emoji_probe, emoji_draws, inputs)
    for name, inputs in emoji_inputs.items()
}


def emoji_from_scratch(classes):
    """The emoji encoder's network, with nothing learned."""
    return ConvNet(dataclasses.replace(emoji_run.model.encoder.config, classes=classes))


method = trained(emoji_from_scratch, emoji_steps, coloured)
emoji_results[f"scratch, {emoji_steps} steps, same changes"] = over_draws(
    task, method, emoji_scratch_draws
)

# %% slideshow={"slide_type": "-"}
display(evaluate.few_label_table(emoji_results))
print(f"{task.classes} categories: chance is {1 / task.classes:.1%}")
for count, score in emoji_results["SimCLR long, probe"].items():
    part = "all" if count == all_emoji else count
    lesson.record(f"emoji_{part}_probe", score.mean, "balanced accuracy", f"{count} labels")
    pixels_score = emoji_results["pixels (16 x 16), probe"][count].mean
    lesson.record(f"emoji_{part}_pixels", pixels_score, "balanced accuracy", f"{count} labels")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Compare the probe with pixels first: it is ahead at every number of labels. Then with the network
# from scratch, which had the same changes and 200 labels (one draw): there the probe has no lead.
# Why is there no more to gain? A thousand drawings are few to pretrain on, and the labelled ones
# are among them. And what makes a thing *food* is not in its outline: two views of an apple teach
# that it is this apple again, not what it has in common with a loaf of bread.
#
# <!-- slide
# - The probe is ahead of pixels, but not of training from scratch with the same changes.
# - Two views of an apple teach that it is this apple again, not what it shares with a loaf of bread.
# -->
#
# Language knows. Lesson 22 (CLIP) lets names be the second view of a picture.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In the library
#
# ### torchvision's transforms
#
# torchvision has these changes as classes, made for one picture at a time in the worker processes
# of a data loader. Ours draw random numbers for the whole batch and resample it in one operation,
# where the batch lies. First, are they the same operations?
#
# <!-- slide
# torchvision: one picture at a time, in the worker processes of a data loader. Ours: one operation
# for the whole batch. The operations are **the same**.
# -->
#
# <!-- notes
# The notebook compares mirroring, grey and crops pixel by pixel. What is printed is the time on this
# machine, in one process; a data loader with several workers makes up for part of it, and on a GPU
# the batch is there already. The encoder of SimCLR is anything with `encode(images)` and
# `config.dim`; the notebook trains torchvision's ResNet-18 for a step.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
pictures = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
random = torch.Generator().manual_seed(3)
mirrored = view(pictures, dataclasses.replace(NOTHING, mirror=1.0), random)
theirs = v2.functional.horizontal_flip(pictures)
print("mirrored, same pixels:", torch.allclose(mirrored, theirs, atol=1e-4))
grey = view(pictures, dataclasses.replace(NOTHING, grey=1.0), random)
theirs = v2.functional.rgb_to_grayscale(pictures, num_output_channels=3)
print("grey, same pixels:", torch.allclose(grey, theirs, atol=1e-3))
box = torch.tensor([[[0.5, 0, -0.25], [0, 0.5, 0.125]]]).expand(5, -1, -1)  # 16 x 16 pixels
grid = F.affine_grid(box, [5, 3, 32, 32], align_corners=False)
ours = F.grid_sample(pictures, grid, align_corners=False)
theirs = v2.functional.resized_crop(pictures, 10, 4, 16, 16, [32, 32], antialias=False)
inside = (..., slice(1, -1), slice(1, -1))  # at its rim, ours looks at the pixels beyond the crop
print("cropped, same pixels inside:", torch.allclose(ours[inside], theirs[inside], atol=1e-4))

# %% [markdown] slideshow={"slide_type": "skip"}
# Now the time, on this machine and in this process: letters, with about the same warp and crop.

# %% slideshow={"slide_type": "-"}
one_by_one = v2.Compose(
    [
        v2.RandomAffine(15, translate=(0.05, 0.05), scale=(0.8, 1.2), shear=(-17, 17)),
        v2.ElasticTransform(alpha=20.0, sigma=4.0),
        v2.RandomResizedCrop(28, scale=(0.7, 1.0), ratio=(3 / 4, 4 / 3)),
    ]
)
letters = recipe.fractions(unlabelled.pictures[: lesson.at(256, smoke=32)])
change(letters, generator)  # once before the clock starts
began = time.perf_counter()
in_one = change(letters, generator)
ours_seconds = time.perf_counter() - began
began = time.perf_counter()
singly = torch.stack([one_by_one(letter) for letter in letters])
theirs_seconds = time.perf_counter() - began
print(f"{len(letters)} pictures one by one take {theirs_seconds / ours_seconds:.0f} times as long")
plots.image_grid(
    [*letters[3::4][:8], *in_one[3::4][:8], *singly[3::4][:8]],
    row_titles=["picture", "in one go", "torchvision"],
    columns=8,
    size=52,
    title="About the same changes",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Any encoder
#
# SimCLR is not a network but a way to train one. It asks for two things: `encode(images)`, and
# `config.dim`. Here is torchvision's ResNet-18, with the beginning that the SimCLR paper uses for
# small pictures, in a few lines, and one step of training.

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]


class ResNet(nn.Module):
    """torchvision's ResNet-18 as an encoder of small pictures."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(dim=512)
        self.body = torchvision.models.resnet18(weights=None)
        self.body.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)  # no stride
        self.body.maxpool, self.body.fc = nn.Identity(), nn.Identity()

    def encode(self, images):
        """Pictures, grey or in colour, to 512 numbers each."""
        return self.body(images.expand(-1, 3, -1, -1))


torch.manual_seed(0)
resnet = SimCLR(ResNet())
before = resnet.encoder.body.conv1.weight.clone()
fit(resnet, two_views(unlabelled.pictures, change, 8), TrainConfig(steps=1, warmup=0.0))
print("features of a picture:", resnet.encode(letters[:1].to(where)).shape[1])
print(
    "the first layer has learned:", not torch.equal(before, resnet.encoder.body.conv1.weight.cpu())
)

# %% [markdown] slideshow={"slide_type": "skip"}
# **Real public weights.** With a network, torchvision fetches a ResNet that was trained on a
# million labelled photographs. Nothing here needs the network, so this is off.

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
fetch = False  # True: some 45 MB from pytorch.org
if fetch and not offline.active():
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    real = torchvision.models.resnet18(weights=weights)
    real.fc = nn.Identity()  # 512 numbers a picture, for a probe
    print(sum(weight.numel() for weight in real.parameters()), weights.transforms())
else:
    print("would load ResNet-18 with its ImageNet weights, and probe its features like ours")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Scale it
#
# The preset `gpu` trains a larger network on **CIFAR-10**, colour photographs in ten classes. No
# pip package holds them, so they have to be fetched once:
#
# ```
# python -c "from pfmcourse.data import cifar10; cifar10.load(download=True)"
# pfmcourse pretrain simclr --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain simclr --preset gpu
# ```
#
# <!-- slide
# The preset `gpu` trains a larger network on **CIFAR-10**, which has to be fetched once:
#
# ```
# python -c "from pfmcourse.data import cifar10; cifar10.load(download=True)"
# pfmcourse pretrain simclr --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain simclr --preset gpu
# ```
# -->
#
# <!-- notes
# Ask what goes wrong with several processes before you show the last line. Each contrasts the views
# of its own share only.
# -->

# %% slideshow={"slide_type": "-"}
laptop, gpu = (dataclasses.asdict(recipes.config("simclr", name)) for name in ("laptop", "gpu"))
rows = [(name, f"{laptop[name]}", f"{gpu[name]}") for name in laptop if laptop[name] != gpu[name]]
display(Table(("SimCLR", "laptop", "gpu"), rows))

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Careful with several processes.** Each process takes its share of the batch, and contrasts the
# views of that share only. Two processes with half of the batch each ask an easier question than
# one with all of it. So what counts is the batch **per process**: raise `batch` with their number
# (`-p batch 2048`), and the loss compares with that of one process again. The paper gathers the
# vectors of all processes instead. MoCo has no such problem: its others come from the queue.
#
# <!-- slide
# **Careful:** each process contrasts its own share of the batch. Half the batch is an easier
# question, and its loss no match for that of the whole.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Each has a checker. It tries your answer on small cases, and when it fails it says what the
# mistake looks like.
#
# <!-- slide
# 1. **Who is whose partner?** Easy, 5 minutes.
# 2. **NT-Xent** from a table of cosines. Medium, 10 minutes.
# 3. **Follow slowly:** MoCo's slow encoder. Easy, 5 minutes.
# 4. **Alignment and uniformity:** the two halves of the loss. Hard, 15 minutes.
#
# Each has a checker: it tries small cases, and says what a mistake looks like.
# -->
#
# <!-- notes
# 1 and 2 together make the loss, and can be done in class; 4 makes good homework. The usual mistake
# in 2 is to leave the view itself among the candidates; the checker says so. In 4, let them explain
# why the untrained network is so well aligned.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 1: Who is whose partner?
#
# **Difficulty: easy · 5 minutes**
#
# `pictures` pictures give twice as many views: first the first view of each, then the second view
# of each. Return two tensors: the row number of each view's partner, and a table of booleans that
# says for each view (row) which views (columns) are candidates: all but itself.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def partners(pictures):
    """A number -> (partner [views], candidate [views, views])."""
    ### BEGIN SOLUTION
    views = 2 * pictures
    partner = (torch.arange(views) + pictures) % views
    return partner, ~torch.eye(views, dtype=torch.bool)
    ### END SOLUTION


check.partners(partners)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 2: NT-Xent
#
# **Difficulty: medium · 10 minutes**
#
# Given the cosines of all views with all views, and the partner of each, return the loss in nats,
# the mean over the views. It must stay finite at a temperature of 0.005.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def contrastive_loss(cosines, partner, temperature):
    """cosines [views, views], partner [views], a number -> one number."""
    ### BEGIN SOLUTION
    itself = torch.eye(len(cosines), dtype=torch.bool)
    scores = (cosines / temperature).masked_fill(itself, -torch.inf)
    return F.cross_entropy(scores, partner)
    ### END SOLUTION


check.contrastive_loss(contrastive_loss)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 3: Follow slowly
#
# **Difficulty: easy · 5 minutes**
#
# Move the slow weights towards the fast ones, as MoCo does before each batch. Both are lists of
# tensors of the same shapes. Change the slow ones in place (`tensor.copy_(new)`); return nothing.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
@torch.no_grad()
def follow(slow, fast, momentum):
    """Two lists of tensors, and the share of the slow weights that stays."""
    ### BEGIN SOLUTION
    for ours, theirs in zip(slow, fast, strict=True):
        ours.copy_(momentum * ours + (1 - momentum) * theirs)
    ### END SOLUTION


check.follow(follow)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 4: Alignment and uniformity
#
# **Difficulty: hard · 15 minutes**
#
# Wang and Isola (2020) take the contrastive loss apart. **Alignment**: partners should be near,
# $\mathrm{mean}_i \lVert x_i - y_i \rVert^2$. **Uniformity**: all pictures should be spread over
# the sphere, $\log \mathrm{mean}_{i \ne j}\, e^{-2 \lVert x_i - x_j \rVert^2}$, here over the first
# views. Both are computed on vectors of length 1, and smaller is better. Return both.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def alignment_and_uniformity(first, second):
    """Two views [pictures, dim] -> two numbers."""
    ### BEGIN SOLUTION
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    alignment = (first - second).square().sum(1).mean()
    apart = torch.cdist(first, first).square()
    other = ~torch.eye(len(first), dtype=torch.bool)
    uniformity = (-2 * apart[other]).exp().mean().log()
    return alignment, uniformity
    ### END SOLUTION


check.alignment_and_uniformity(alignment_and_uniformity)

# %% [markdown] slideshow={"slide_type": "skip"}
# Now on the Georgian letters. A network can have one without the other: the untrained one is well
# aligned, because nearly all pictures are the same to it.

# %% slideshow={"slide_type": "skip"}
pair = [change(georgian.images, generator) for _ in range(2)]
for name, one in (
    ("raw pixels", encoders["raw pixels"]),
    ("untrained", fresh),
    ("live", live.model),
):
    with torch.no_grad():
        project = nn.Identity() if name == "raw pixels" else one.projection
        vectors = [project(one.encode(images.to(where))).float().cpu() for images in pair]
    alignment, uniformity = alignment_and_uniformity(*vectors)
    print(f"{name:<11} alignment {alignment:.2f}, uniformity {uniformity:.2f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Claims and summary
#
# Every sentence above that could be false, executed. Changed a parameter? Then some of these may
# fail: find out why.
#
# <!-- slide
# - Say what does **not** matter by changing it, and let the network recognise the rest.
# - The **others** of the batch keep it from giving all the same answer.
# - It pays where labels are **very few**, or tasks are many.
# - Whether it pays is only known after the **rival got the same care**.
#
# **Open:** other pictures of the same thing are pushed away as well, and the batch must be large.
# Does it need others at all? Lesson 14 does without them: SwAV and DINO.
# -->
#
# <!-- notes
# The claims of the lesson are executed at the end of the notebook, each with its numbers. Go back to
# the guesses on the board. Ask each for one project in which they would pretrain, and what the fair
# rival would be.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
blind = ("raw pixels, probe", "random encoder, probe")
of_georgian = neighbours["Georgian, one font"]
lesson.claim(
    "views find their partner a hundred times as often as by guessing",
    found * others > 100,
    f"{found:.0%} of them, among {others}",
)
lesson.claim(
    "a script it has never seen, known from one font: it finds more letters than raw pixels do",
    of_georgian["SimCLR"] > of_georgian["raw pixels"],
    f"{of_georgian['SimCLR']:.0%} against {of_georgian['raw pixels']:.0%}",
)
lesson.claim(
    "a rival without warps and with few steps flatters: with both it is better",
    results[scratch_name][20].mean > results[short_name][20].mean,
    f"{results[scratch_name][20].mean:.0%} against {results[short_name][20].mean:.0%}",
)
lesson.claim(
    "twenty labels: that alone takes away more than half of SimCLR's lead",
    advantage[scratch_name].mean < advantage[short_name].mean / 2,
    f"{advantage[scratch_name].mean:+.1%} instead of {advantage[short_name].mean:+.1%}",
)
lesson.claim(
    "ten labels: on average the frozen encoder beats training from scratch with the same warps",
    results[probe_name][10].mean > results[scratch_name][10].mean,
    f"{results[probe_name][10].mean:.0%} against {results[scratch_name][10].mean:.0%}",
)
lesson.claim(
    "ten and twenty labels: it beats raw pixels and a random encoder by 20 points or more",
    all(
        results[probe_name][count].mean > results[name][count].mean + 0.2
        for name in blind
        for count in (10, 20)
    ),
    f"{results[probe_name][10].mean:.0%} against "
    f"{max(results[name][10].mean for name in blind):.0%} with ten",
)
emoji_probes, emoji_pixels = (
    emoji_results[name] for name in ("SimCLR long, probe", "pixels (16 x 16), probe")
)
lesson.claim(
    "emoji of unseen concepts: a probe on the shipped encoder beats one on pixels by 3 points",
    all(score.mean > emoji_pixels[count].mean + 0.03 for count, score in emoji_probes.items()),
    ", ".join(
        f"{score.mean:.0%} against {emoji_pixels[count].mean:.0%}"
        for count, score in emoji_probes.items()
    ),
)
lesson.claim(
    "a hundred labels: less than half of that gain is left",
    gain[100].mean < gain[10].mean / 2,
    f"{gain[100].mean:+.1%} against {gain[10].mean:+.1%}",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# **Remember.** Say what does not matter by changing it, and let the network recognise the rest:
# that gives vectors that serve tasks nobody has named yet. The other pictures keep it from giving
# all the same answer. It pays where labels are very few, or tasks are many; and whether it pays is
# only known after the rival got the same care.
#
# **Left open.** Other pictures of the same thing are pushed away as well, and the batch must be
# large. Does it need others at all? **Next:** lesson 14 does without them, in SwAV and DINO.

# %% slideshow={"slide_type": "skip"}
lesson.finish()
