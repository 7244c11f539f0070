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
# # Start here
#
# A child who can read letters learns the ten digits in an afternoon. A child who has never held a book needs longer.
# Machines are the same. This course is about giving them the book first.
#
# After this lesson you can
#
# - find your way around the course and run any lesson;
# - read the history of pretrained models from one picture;
# - **pretrain** a network on a task whose labels cost nothing, **adapt** it to another task with ten labels, and say
#   honestly what that gained, and where it gains nothing.
#
# You need: Python, and having heard what a neural network is. How long reading and running take is printed below.
#
# <!-- slide
# A child who can read letters learns the ten digits in an afternoon. This course gives machines the book first.
#
# After this lesson you can
#
# - run any lesson of the course;
# - read the history of pretrained models from one picture;
# - **pretrain** a network where labels cost nothing, **adapt** it with ten labels, and say honestly what that
#   gained.
# -->
#
# <!-- notes
# Ask who has used a pretrained model, knowingly or not. A phone's keyboard counts. Run the whole notebook before
# class, and in class the pretraining cell only: it is done while people write down their guesses.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# **Papers.** LeCun, Bottou, Bengio, Haffner: *Gradient-Based Learning Applied to Document Recognition* (1998) ·
# Simard, Steinkraus, Platt: *Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis*
# (2003) · Yosinski, Clune, Bengio, Lipson: *How transferable are features in deep neural networks?* (2014) ·
# Bommasani and others: *On the Opportunities and Risks of Foundation Models* (2021) · Zhou and others: *A Comprehensive
# Survey on Pretrained Foundation Models: A History from BERT to ChatGPT* (2023)

# %% tags=["parameters"] slideshow={"slide_type": "skip"}
preset = None  # None: $PFMCOURSE_PRESET, else "laptop"
seed = 0
steps = None  # of pretraining; None: as the preset says
width = None  # filters of the network's first layer; None: as the preset says

# %% slideshow={"slide_type": "skip"}
import dataclasses
import itertools
from collections import Counter

import safetensors.torch
import scipy.stats
import torch
from IPython.display import Markdown, display
from torch import nn

from pfmcourse import evaluate, plots, timeline
from pfmcourse.checks import start_here as check
from pfmcourse.course import doctor
from pfmcourse.data import digits, glyphs, source
from pfmcourse.evaluate import Table
from pfmcourse.lesson import Lesson
from pfmcourse.models.convnet import ConvNet, ConvNetConfig, Pictures
from pfmcourse.nn.augment import Warp, augment
from pfmcourse.recipes.letters import pixels, warped_batches
from pfmcourse.train import TrainConfig, fit, seed_everything

lesson = Lesson("start_here", preset=preset, seed=seed, steps=steps, width=width)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How to use the course
#
# - **To learn**: read a lesson, guess where it asks for a guess, run it, and do the exercises. `pfmcourse student OUT`
#   writes copies without the solutions. The checkers tell you which mistake yours looks like.
# - **To teach**: every lesson is a slide deck as well. `pfmcourse slides` writes the decks; press S in one for the
#   speaker's notes.
# - **To build**: all code lives in the package `pfmcourse`. `pfmcourse run LESSON` executes a lesson,
#   `pfmcourse pretrain RECIPE` trains a model without a notebook, also on several GPUs.
#
# <!-- slide
# - **To learn**: guess, run, do the exercises; checkers name the likely mistake. `pfmcourse student OUT` hides the
#   solutions.
# - **To teach**: `pfmcourse slides` makes the decks. The speaker's notes have what these slides leave out.
# - **To trust**: a lesson ends with **claims**, code that prints `PASS` or `FAIL`.
# -->
#
# <!-- notes
# Show the folder of notebooks while you say this. If there are laptops in the room, let everybody type `pfmcourse
# doctor` now: mending an installation takes longer than this slide.
# -->

# %% [markdown] slideshow={"slide_type": "fragment"}
# ### Four sizes of every run
#
# | preset | for | takes |
# |---|---|---|
# | `smoke` | testing that every line runs | seconds |
# | `laptop` | you, by default | a minute or two on two cores |
# | `long` | what the same model becomes with patience | up to 40 minutes, or a GPU for minutes |
# | `gpu` | a data-centre GPU | minutes to an hour |
#
# Choose with `pfmcourse run start_here --preset smoke`, or in the parameters cell above.
#
# <!-- slide
# | preset | for | takes |
# |---|---|---|
# | `smoke` | testing that every line runs | seconds |
# | `laptop` | you, by default | a minute or two on two cores |
# | `long` | what the same model becomes with patience | up to 40 minutes, or a GPU for minutes |
# | `gpu` | a data-centre GPU | minutes to an hour |
# -->

# %% [markdown] slideshow={"slide_type": "notes"}
# ### Claims that can fail
#
# A lesson ends with its **claims**. They are code: each compares two numbers that this very run has measured, and prints
# `PASS` or `FAIL`. If you change a parameter and a claim fails, you have found out something.
#
# No number in the prose is typed by hand. Where simple methods win, the lesson says so.

# %% [markdown] slideshow={"slide_type": "skip"}
# Is your machine ready? Ask the doctor. A line that is not `ok` says what to do; `pfmcourse doctor` in a terminal shows
# all of them.

# %% slideshow={"slide_type": "skip"}
findings = doctor.examine()
short = {"Python", "packages", "device", "cores", "memory"}
doctor.show([one for one in findings if one.level != doctor.OK or one.what in short])

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The idea
#
# Two piles of pictures. The first costs nothing: a font file draws each letter and knows its name. The second was
# written by hand, and somebody has to look at each digit and say which one it is.
#
# <!-- slide
# Two piles of pictures: the first is **free**, for the second somebody has to say what each one is.
# -->
#
# <!-- notes
# Ask which pile costs money, and why: a font file is picture and label in one. Half of the room will not know all
# scripts. That does not matter, because the network knows none of them.
# -->

# %% slideshow={"slide_type": "fragment"}
printed, handwritten = glyphs.load(), digits.load()
names = "gKшΨфԱლאس"
cheap = [torch.nonzero(printed.labels == printed.letters.index(name))[2].item() for name in names]
dear = [500 * digit + 7 for digit in (3, 8, 1, 6, 9, 0, 4, 7, 2)]  # 500 of each, in order
plots.image_grid(
    [*printed.images[cheap, None], *handwritten.images[dear, None]],
    titles=[*names, *"?????????"],
    row_titles=["print", "hand"],
    columns=9,
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# We want a machine that reads the second pile. We can afford ten labels.
#
# The plan has two steps, and so has nearly everything in this course.
#
# 1. **Pretrain.** Train a network on the cheap pile, for a task that nobody needs solved: naming printed letters.
# 2. **Adapt.** Keep what the network has learned about strokes, bows and corners. Put a new last layer on it, and train
#    that, or all of it, with the ten labels.
#
# The bet: what helps to tell letters apart helps to tell digits apart, too.
#
# <!-- slide
# 1. **Pretrain** on the cheap pile: naming printed letters, a task that nobody needs solved.
# 2. **Adapt** to the dear one: keep what it learned about strokes, put on a new last layer, train with **ten
#    labels**.
#
# The bet: what tells letters apart helps to tell digits apart.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The same bet, for twenty years
#
# Each mark below is a system that made this bet with other data or another task. Years run from left to right, each band
# is a kind of data, and colour and shape say **how the pretraining task gets its answers**.
#
# <!-- slide
# A band is a kind of data. Colour and shape say **how the pretraining task gets its answers**.
# -->
#
# <!-- notes
# Let the room look for half a minute before you speak. Which band is the oldest? Which colour wins in language,
# which in vision? When do the bands begin to share a year's fashion? Later lessons come back to many of these
# names; nobody has to know them now.
# -->

# %% slideshow={"slide_type": "fragment"}
history = timeline.entries()
plots.timeline(history)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Where do the answers come from?
#
# - **Supervised**: people gave them. Names of letters, names of objects in photographs. Good answers are few and dear.
# - **Generative**: hide a part of the data and ask for it. The next word, a masked patch, a missing edge of a graph. The
#   data is its own answer sheet, so there is no end of it.
# - **Contrastive**: which of these belong together? Two crops of one photograph, a picture and its caption. Nothing has
#   to be produced, only recognised.
#
# The last two are called *self-supervised*: the labels come from the data itself.
#
# <!-- slide
# - **Supervised**: people gave them. Good answers are few and dear.
# - **Generative**: hide a part of the data and ask for it. There is no end of it.
# - **Contrastive**: which of these belong together? Only recognise, do not produce.
#
# *Self-supervised* are the last two: the labels come from the data itself.
# -->
#
# <!-- notes
# A common misunderstanding: self-supervised does not mean without labels. There is a right answer to every
# question; it is only that nobody had to write it down. The table counts the marks of the timeline: ask for the
# largest number of each row before you show it.
# -->

# %% slideshow={"slide_type": "fragment"}
kinds = ("generative", "contrastive", "supervised")
bands = {modality: Counter() for modality in dict.fromkeys(entry.modality for entry in history)}
for entry in history:
    bands[entry.modality][entry.kind] += 1
counted = tuple(
    (band, *(str(found[kind] or "") for kind in kinds)) for band, found in bands.items()
)
display(Table(("systems in the picture", *kinds), counted))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The story in four steps
#
# **Vision began with labels.** In 2012 AlexNet learned to name a thousand kinds of objects. Then people noticed that its
# inner layers were useful for other pictures, too. For years "pretrained" meant "trained on ImageNet".
#
# **Language never had that many labels, and did not need them.** Text predicts itself. NNLM (2003) and Word2Vec (2013)
# kept one vector for each word. In 2018 ELMo, GPT and BERT kept the whole network, which reads a word in its sentence.
#
# <!-- slide
# - **Vision began with labels.** "Pretrained" meant "trained on ImageNet".
# - **Language did without them.** Text predicts itself: Word2Vec kept a vector for each word; ELMo, GPT and BERT
#   kept the whole network.
# -->
#
# <!-- notes
# One sentence for each step is enough. Whoever wants dates finds them on the timeline, one key to the left and up.
# -->

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The Transformer made it one machine for everything.** Built in 2017 to translate, it trains fast on many processors
# and does not care what its tokens stand for. Words at first; then patches of pictures, slices of sound, nodes of a
# graph. The two self-supervised tasks moved with it from band to band.
#
# **Then the bands grew together.** CLIP (2021) learned from pictures and their captions. Unified models read and write
# several kinds of data with one network, and since GPT-3 (2020) one can often *ask* instead of adapting.
#
# <!-- slide
# - **The Transformer made it one machine.** Its tokens may be words, patches of pictures, nodes of a graph.
# - **The bands grew together.** CLIP learned from pictures and captions; since GPT-3 one can often *ask*.
# -->

# %% [markdown] slideshow={"slide_type": "fragment"}
# ### A promise and a risk
#
# Two words from the report that named *foundation models* (Bommasani and others, 2021):
#
# - **Emergence**: large models do things that nobody built in, such as learning a task from a few examples in the
#   question.
# - **Homogenisation**: many applications stand on one model. It saves work, and every fault of the one model is in all of
#   them.
#
# Later lessons measure both sides. Now to the smallest experiment that shows the point.
#
# <!-- slide
# - **Emergence**: large models do things that nobody built in.
# - **Homogenisation**: many applications stand on one model, and share its faults.
# -->
#
# <!-- notes
# Ask for an example of a fault that would spread: a language that the one model hardly read, a prejudice of its
# texts.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## By hand
#
# ### The layer that names things
#
# A network turns a picture into a list of numbers $h$, its **features**. The last layer, the *head*, holds one row of
# weights $w_c$ for each class and compares:
#
# $$p_c = \frac{e^{w_c \cdot h}}{\sum_k e^{w_k \cdot h}} \qquad
# \ell = -\log p_y \qquad
# \frac{\partial \ell}{\partial w_c} = (p_c - [c = y])\, h$$
#
# Read the last formula aloud. The right class has $p_y - 1 < 0$, so its row moves **towards** the features. The others
# move away, and more so the surer they were. Pretraining and adapting both do this. Only the classes differ.
#
# <!-- slide
# A network turns a picture into **features** $h$. Its *head* has one row of weights $w_c$ for each class:
#
# $$p_c = \frac{e^{w_c \cdot h}}{\sum_k e^{w_k \cdot h}} \qquad
# \ell = -\log p_y \qquad
# \frac{\partial \ell}{\partial w_c} = (p_c - [c = y])\, h$$
#
# - The right class's row moves **towards** the features.
# - The others move away, and more so the surer they were.
# -->
#
# <!-- notes
# Work it out on the board for three classes with p = ½, ¼, ¼. $[c = y]$ is one for the right class and zero for the
# others. The sign confuses people: training goes *against* the gradient. The notebook computes loss and gradient
# with three lines of matrix products; the line below is what its comparison with the packaged network prints.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
seed_everything(0)
small = ConvNet(ConvNetConfig(classes=10, width=4, dim=16)).eval()
nn.init.normal_(small.head.weight)
batch = Pictures(torch.rand(6, 1, 28, 28), torch.tensor([3, 1, 4, 1, 5, 9]))


def softmax_regression(h, w, b, y):
    """Mean loss over a batch, and its gradient with respect to the weights."""
    scores = h @ w.T + b  # one row a picture, one column a class
    p = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    right = torch.eye(len(w))[y]  # 1 where the class is the right one
    loss = -(right * p.log()).sum(dim=1).mean()
    return loss, (p - right).T @ h / len(y)


with torch.no_grad():
    features = small.encode(batch.images)
    by_hand, gradient = softmax_regression(
        features, small.head.weight, small.head.bias, batch.labels
    )
packaged = small(batch)["loss"]
packaged.backward()
assert torch.allclose(by_hand, packaged, atol=1e-5)
assert torch.allclose(gradient, small.head.weight.grad, atol=1e-5)
print("loss and gradient agree with the packaged network's")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Everything below the head is there to make $h$ good: pictures of one class close together, whatever their slant and
# thickness. A good $h$ needs few labels. **That is what pretraining is for.**
#
# <!-- slide
# All layers below are there to make $h$ good. A good $h$ needs few labels: **that is what pretraining is for.**
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# The letters of seven scripts in sixteen fonts. They come with *matplotlib*, which needs them to label axes. There is no
# digit among them. Two fonts, an italic and a bold one, are put aside to see whether the network learns letters or
# fonts.
#
# <!-- slide
# **Letters** of seven scripts, from fonts that come with *matplotlib*. No digits. Two fonts are put aside.
# -->
#
# <!-- notes
# Why put fonts aside and not pictures? Because a picture of the same letter in the same font would be nearly the
# same picture. Ask the room what "unseen" should mean before you say it.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
scripts = Counter(printed.scripts)
print(f"{len(printed):,} pictures, {len(printed.letters)} classes, {len(printed.fonts)} fonts")
print("classes:", ", ".join(f"{script} {count}" for script, count in scripts.items()))
print("any digit?", any(letter.isdigit() for letter in printed.letters))
print(f"training {len(printed.split('train')):,}, unseen fonts {len(printed.split('test'))}")

# %% slideshow={"slide_type": "skip"}
for name in ("glyphs", "digits"):
    print(f"{name}: {source.source(name).licence}\n  {source.source(name).attribution}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The digits are from MNIST. Most of the "training" part stays without labels here: we draw ten, twenty or a hundred of
# it. **Validation chooses, test reports**: every number of steps and learning rate below was chosen on the validation
# part.
#
# <!-- slide
# **Digits**: MNIST. We draw ten, twenty or a hundred labels from the training part.
#
# **Validation chooses, test reports.** Every number of steps and learning rate was chosen on the validation part.
# -->
#
# <!-- notes
# The ten labels are one of each class. With ten digits drawn blindly a class or two would be missing.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
train, validation, test = (handwritten.split(part) for part in ("train", "validation", "test"))
print(f"train {len(train):,}, validation {len(validation)}, test {len(test):,}")
ten = evaluate.draw_labels(train.labels, 10, seed=0)
twenty = evaluate.draw_labels(train.labels, 20, seed=0)
print("ten labels:", train.labels[ten].tolist())
print("the ten are among the twenty:", set(ten.tolist()) <= set(twenty.tolist()))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### One letter, many hands
#
# Print is too regular. So no letter is shown twice in the same way: it is turned, leaned, stretched, bent, made thicker
# or thinner. The label survives. This is **augmentation**, and the baselines below get it as well.
#
# <!-- slide
# Print is too regular. Turn, lean, stretch, bend, thicken: the label survives. This is **augmentation**, and the
# baselines get it as well.
# -->
#
# <!-- notes
# Ask which change would *not* keep the label: a mirror, or half a turn (b and q, 6 and 9). Augmentation is
# knowledge that people put in: it says what does not matter. So it would be unfair to keep it from the baselines.
# -->

# %% slideshow={"slide_type": "fragment"}
shown = pixels(printed.images[[cheap[0]] * 9 + [cheap[3]] * 9])
warped = augment(shown, Warp(), torch.Generator().manual_seed(0))
warped[::9] = shown[::9]
plots.image_grid(
    warped,
    columns=9,
    row_titles=[names[0], names[3]],
    title="First as printed, then as the network gets to see it",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predict, then pretrain
#
# Write down three guesses before you go on.
#
# 1. A network that has only seen letters is shown digits, of which one each has a label. How many of a thousand others
#    does it get right?
# 2. The same network without the letters, trained on the same ten pictures for as long as it helps?
# 3. And with a hundred labels instead of ten: does the difference grow or shrink?
#
# <!-- slide
# Write down three guesses.
#
# 1. A network that has only seen **letters** gets **ten digits**, one of each, with their labels. How many of a
#    thousand others does it then name right?
# 2. The same network **without the letters**, trained on the same ten pictures for as long as it helps?
# 3. With a **hundred labels** instead of ten: does the difference grow or shrink?
# -->
#
# <!-- notes
# Collect the guesses on the board, with names if the room allows it, and leave them there until the table. Start
# the pretraining while people write: on a laptop it is done before they are. Ask for a reason with each guess,
# above all with the third.
# -->

# %% slideshow={"slide_type": "subslide"}
letters = lesson.pretrain("letters")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The loss starts at $\ln$ of the number of classes, as for blind guessing, and falls. It cannot reach zero: every letter
# fills the same box, so *o* and *O* look alike.
#
# <!-- slide
# It starts at $\ln$ of the number of classes, as for blind guessing. It cannot reach zero: *o* and *O* look alike.
# -->
#
# <!-- notes
# The printed line says how long this took. Ask why *o* and *O* cannot be told apart here: every letter fills the
# same box.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What did it learn?
#
# Letters, not fonts: here is how it does in the two fonts it has never seen.
#
# <!-- slide
# Letters, not fonts? Here are the two fonts that it has never seen:
# -->
#
# <!-- notes
# Then the fun part: let the room guess a row before you show the table.
# -->

# %% slideshow={"slide_type": "fragment"}
unseen = letters.metrics["test_accuracy"]
lesson.record("unseen_fonts", 100 * unseen, "% of letters named right", "two unseen fonts")
display(
    Markdown(
        f"**{unseen:.0%}** of the letters in unseen fonts are named right, out of "
        f"{len(printed.letters)} names. Blind guessing would get {1 / len(printed.letters):.1%}."
    )
)

# %% slideshow={"slide_type": "skip"}


@torch.no_grad()
def logits(model, images):
    """What a network says to pictures, wherever it lives."""
    where = model.head.weight.device
    return torch.cat([model.logits(part.to(where)).cpu() for part in images.split(500)])


@torch.no_grad()
def encode(model, images):
    """The features of pictures, on the CPU."""
    where = model.head.weight.device
    return torch.cat([model.encode(part.to(where)).cpu() for part in images.split(500)])


# %% [markdown] slideshow={"slide_type": "fragment"}
# ### Which letter is a 3?
#
# It has never seen a digit and has no name for one. But it must answer. So which letters does it take them for?
#
# <!-- slide
# It has never seen a digit, but it must answer.
# -->

# %% slideshow={"slide_type": "fragment"}
guessed = logits(letters.model, pixels(train.images)).argmax(dim=1)
rows = []
for digit in range(10):
    found = Counter(guessed[train.labels == digit].tolist()).most_common(4)
    row = (f"{printed.letters[label]} ({printed.scripts[label]})" for label, _ in found)
    rows.append((str(digit), *row))
display(Table(("digit", "taken for", "or", "or", "or"), tuple(rows)))

# %% [markdown] slideshow={"slide_type": "notes"}
# The answers are wrong, and sensible: shapes of the same build. That is what can be reused.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Digits, seen by a reader of letters
#
# The features $h$ of five hundred digits, flattened to a map by t-SNE. Colour and shape mark the true digit,
# which neither the network nor the map was told.
#
# <!-- slide
# Features $h$ of five hundred digits, in the plane by t-SNE. Nobody told it, or the map, which digit is which.
# -->
#
# <!-- notes
# Let the room name the groups that touch. A common misunderstanding of such maps: distances between far groups, and
# the size of a group, mean nothing.
# -->

# %% slideshow={"slide_type": "fragment"}
plots.embedding_map(
    encode(letters.model, pixels(validation.images)),
    groups=validation.labels,
    method=lesson.at("tsne", smoke="pca"),
    title="Digits in the features of a network that learned letters",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Pictures of one digit lie together without a single label. Where two colours mix, ask which two digits they are: would
# you tell them apart in every handwriting? To **name** the groups takes only a few labels. That is the next step.
#
# <!-- slide
# One digit, one group, **without a single label**. Only the names are missing.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Adapt it
#
# Six ways to use ten labels:
#
# | | the encoder starts from | trained on the labels |
# |---|---|---|
# | **fine-tuned** | letters | everything, for a short while |
# | **linear probe** | letters | a linear classifier on frozen features |
# | from scratch | random weights | everything, until it stops improving |
# | from scratch, twice as long | random weights | everything, for twice as many steps |
# | random features | random weights | a linear classifier on frozen features |
# | pixels | | logistic regression on the raw picture |
#
# Network, augmentation and batch size are the same in the first, third and fourth row.
#
# <!-- slide
# | six ways to use ten labels | the encoder starts from | trained on the labels |
# |---|---|---|
# | **fine-tuned** | letters | everything, for a short while |
# | **linear probe** | letters | a linear classifier on frozen features |
# | from scratch | random weights | everything, until it stops improving |
# | from scratch, twice as long | random weights | everything, for twice as many steps |
# | random features | random weights | a linear classifier on frozen features |
# | pixels | | logistic regression on the raw picture |
#
# - Network, augmentation and batch size are the same in the first, third and fourth row.
# - Each method has its own steps and learning rate, chosen on validation.
# -->
#
# <!-- notes
# Ask the room which row is missing from papers most often: the baseline that was trained for as long as helps.
# "Twice as long" is there to check that more steps would not save the third row.
# -->

# %% slideshow={"slide_type": "skip"}
sizes = dataclasses.replace(letters.model.config, classes=10)
common = {"weight_decay": 0.05, "precision": "fp32", "unit": "pictures"}


# Steps and learning rates were chosen on the validation part, for each method on its own.
def short(count):
    """The plan for fine-tuning, whatever the number of labels."""
    return TrainConfig(steps=lesson.at(60, smoke=2), learning_rate=2e-3, **common)


def fresh(count):
    """The plan for random weights: only with a hundred labels do more than 200 steps help."""
    steps = 200 if count < 100 else 400
    return TrainConfig(steps=lesson.at(steps, smoke=2), learning_rate=5e-3, **common)


def twice(count):
    """The same with twice the steps."""
    return dataclasses.replace(fresh(count), steps=2 * fresh(count).steps)


def adapt(start, plan, images, labels, draw, **options):
    """A copy of ``start`` with a new head, or a fresh network for None, trained on few labels."""
    seed_everything(draw)
    model = start.with_new_head(10) if start is not None else ConvNet(sizes)
    plan = dataclasses.replace(plan, seed=draw)
    return model, fit(model, warped_batches(images, labels, 32, Warp()), plan, **options)


# %% [markdown] slideshow={"slide_type": "subslide"}
# ### One draw of ten labels, step by step
#
# First look at a single draw on the validation part. The fine-tuned network gets few steps, the fresh one many: here
# twice as many as in the comparison below, so that you see whether more would help it.
#
# <!-- slide
# On the validation part: few steps for the fine-tuned network, many for the fresh one.
# -->
#
# <!-- notes
# Ask: where would you stop the fresh one? Nobody may look at the test part for that.
# -->

# %% slideshow={"slide_type": "skip"}


def watch(model):
    """Share of the validation digits that are right."""
    right = logits(model, pixels(validation.images)).argmax(dim=1) == validation.labels
    return {"validation_accuracy": right.float().mean()}


first_draw = 10 * seed
chosen = evaluate.draw_labels(train.labels, 10, first_draw)
images, labels = pixels(train.images[chosen]), train.labels[chosen]
curves = {
    name: adapt(
        start,
        dataclasses.replace(plan, evaluate_every=10),
        images,
        labels,
        first_draw,
        evaluate=watch,
    )[1]
    for name, start, plan in (
        ("fine-tuned", letters.model, short(10)),
        ("from scratch", None, twice(10)),
    )
}

# %% slideshow={"slide_type": "fragment"}
plots.loss_curve(curves, metric="validation_accuracy", title="Ten labels, one draw")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The pretrained network starts high and needs few steps. The fresh one climbs for a long while and then levels off: ten
# pictures have no more to tell. Where the two end differs from draw to draw, because it matters a lot which ten pictures
# you happen to get. So draw several times, and treat every method with the same draws.
#
# <!-- slide
# One starts high, the other climbs and levels off. But this is **one** draw: which ten pictures is luck.
# -->

# %% slideshow={"slide_type": "skip"}
draws = lesson.at(
    {10: 10, 20: 5, 100: 3}, smoke={10: 2, 20: 2}
)  # fewer labels, more luck: more draws
draws = {count: range(10 * seed, 10 * seed + many) for count, many in draws.items()}
counts = tuple(draws)
again = {10: draws[10][: len(draws[10]) // 2]}  # what only checks a choice gets half of the draws


def method(start, plan):
    """What ``evaluate.few_label`` wants: few labels in, accuracy on the test part out."""

    def run(images, labels, test_images, test_labels, *, metric, seed):
        model, _ = adapt(start, plan(len(labels)), images, labels, seed)
        return evaluate.accuracy(logits(model, test_images).argmax(dim=1), test_labels)

    return run


def few_labels(data, test_data, how, draws=draws):
    """Accuracy at each number of labels, over its draws."""
    found = {}
    for count in draws:
        found |= evaluate.few_label(
            data,
            train.labels,
            test_data,
            test.labels,
            counts=(count,),
            seeds=draws[count],
            method=how,
        )
    return evaluate.FewLabel(found)


seed_everything(seed)
untrained = ConvNet(sizes)
untrained(Pictures(pixels(train.images[::10]), train.labels[::10]))  # batch norm sees pictures once
untrained.eval()
raw, raw_test = pixels(train.images), pixels(test.images)
seen, seen_test = (encode(letters.model, one) for one in (raw, raw_test))
random, random_test = (encode(untrained, one) for one in (raw, raw_test))

results = {
    "fine-tuned": few_labels(raw, raw_test, method(letters.model, short)),
    "linear probe": few_labels(seen, seen_test, "linear_probe"),
    "from scratch": few_labels(raw, raw_test, method(None, fresh)),
    "from scratch, twice as long": few_labels(raw, raw_test, method(None, twice), again),
    "random features": few_labels(random, random_test, "linear_probe"),
    "pixels": few_labels(raw.flatten(1), raw_test.flatten(1), "linear_probe"),
}

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What pretraining is worth
#
# Test accuracy, mean over the draws with its 95 % interval. *Twice as long* has half of the draws.
#
# <!-- slide
# Test accuracy: mean over the draws with its 95 % interval. Every method gets the same draws.
#
# - By column: who wins with ten labels, and who with a hundred?
# - By row: what do random features and pixels say about the network's shape alone?
# -->
#
# <!-- notes
# Now compare with the guesses on the board. Give the room a minute for the two questions. A linear probe cannot be
# better than the features below it.
# -->

# %% slideshow={"slide_type": "fragment"}
evaluate.few_label_table(results)

# %% slideshow={"slide_type": "subslide"}
shown = ("fine-tuned", "from scratch", "random features", "pixels")
plots.lines(
    {name: results[name] for name in shown},
    xlabel="labels in all",
    ylabel="test accuracy",
    percent=True,
    references={"chance": 0.1},
    title="The fewer labels, the more pretraining helps",
)

# %% [markdown] slideshow={"slide_type": "notes"}
# Ask the class for their guesses first. Most expect the gain to grow with the labels. Then ask what would happen with
# handwritten letters instead of printed ones, and why big models keep their advantage at a hundred labels and more:
# their tasks are harder than ten digits.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Is the difference real?
#
# The intervals in the table are wide, because the luck of the draw is in them. But a lucky draw is lucky for both. So
# **subtract draw by draw, and take the interval of the differences.**
#
# <!-- slide
# A lucky draw is lucky for both: **subtract draw by draw, then take the interval.**
# -->
#
# <!-- notes
# Ask how two overlapping intervals can hide a sure difference. The heights of brothers and of their sisters
# overlap; the difference within each family can still have one sign.
# -->

# %% slideshow={"slide_type": "fragment"}
gain = results["fine-tuned"].minus(results["from scratch"])
same_draws = evaluate.interval(results["from scratch"][10].values[: len(again[10])])
longer = evaluate.paired_difference(results["from scratch, twice as long"][10], same_draws)
rows = [("fine-tuned minus from scratch", *(f"{gain[count]:.1%}" for count in counts))]
rows += [("from scratch: twice the steps", f"{longer:.1%}", *("" for _ in counts[1:]))]
display(Table(("gain, paired by draw", *(f"{count} labels" for count in counts)), tuple(rows)))

# %% [markdown] slideshow={"slide_type": "fragment"}
# ### What to make of it
#
# - With **ten labels** pretraining wins, and no patience makes up for it: twice the steps buy the fresh network
#   much less than the letters did.
# - Raw pixels and random features are far behind. The gain is **learned** features, not the network's shape alone.
# - With **twenty** the gain is small. Look at its interval: if it reaches below zero, this run cannot tell.
# - With a **hundred labels** there is nothing left to gain. Ten pictures of each digit, warped in a thousand ways, teach
#   the strokes as well as the letters did.
# - The **linear probe** is not far behind fine-tuning and takes milliseconds. When labels are few, try it first.
#
# Pretraining pays when labels are few. When you have many, and a small task, train from scratch with good augmentation,
# and compare with a baseline that was trained until it stopped improving.
#
# <!-- slide
# - **Ten labels**: pretraining wins, and patience does not make up for it.
# - **Twenty**: little. If the interval reaches below zero, this run cannot tell.
# - **A hundred**: nothing left to gain. Ten warped pictures of each digit teach the strokes as well.
# - Pixels and random features are far behind: the gain is **learned**.
# - The **linear probe** takes milliseconds. Try it first.
# -->

# %% slideshow={"slide_type": "skip"}
for name, key in (
    ("fine-tuned", "fine_tuned"),
    ("linear probe", "probe"),
    ("from scratch", "scratch"),
    ("pixels", "pixels"),
):
    for count in counts:
        mean = 100 * results[name][count].mean
        lesson.record(f"{key}_{count}", mean, "% of test digits right", f"{name}, {count} labels")
lesson.record("gain_10", 100 * gain[10].mean, "points", "fine-tuned minus from scratch, 10 labels")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In the library
#
# There is no magic in the package. The same network is a list of standard layers from `torch.nn`, and a checkpoint is a
# table of named tensors. Below, the weights go through the file format of the course, *safetensors*, into the plain
# layers, and both networks give the same answers.
#
# <!-- slide
# No magic: the same network is a list of layers from `torch.nn`, and a checkpoint is a table of named tensors. The
# weights go through a *safetensors* file into plain layers:
# -->
#
# <!-- notes
# A checkpoint that does not fit is usually one with other names. That is why the cell prints how many names it
# matched.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
filters = [1, sizes.width, 2 * sizes.width, 4 * sizes.width]
layers = []
for before, after in itertools.pairwise(filters):
    layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.MaxPool2d(2)]
    layers += [nn.BatchNorm2d(after), nn.ReLU()]
layers += [nn.Flatten(), nn.Linear(9 * filters[-1], sizes.dim, bias=False)]
layers += [nn.BatchNorm1d(sizes.dim), nn.ReLU(), nn.Linear(sizes.dim, len(printed.letters))]
plain = nn.Sequential(*layers).eval()

ours = {name: value.cpu().contiguous() for name, value in letters.model.state_dict().items()}
stored = safetensors.torch.load(safetensors.torch.save(ours))  # or save_file and load_file
place = {"whole": 13, "norm": 14, "head": 16}
for stage in range(3):
    place |= {f"stages.{stage}.filters": 4 * stage, f"stages.{stage}.norm": 4 * stage + 2}
renamed = {}
for name, value in stored.items():
    layer, _, kind = name.rpartition(".")
    renamed[f"{place[layer]}.{kind}"] = value
plain.load_state_dict(renamed)  # a missing or unexpected name would raise

plain = plain.double()
with torch.no_grad():
    theirs = plain(pixels(test.images[:50]).double())
mine = ConvNet(letters.model.config).double().eval()
mine.load_state_dict(stored)
largest = (theirs - mine.logits(pixels(test.images[:50]).double())).abs().max().item()
print("tensors named:", len(renamed), "of", len(ours))
print("the outputs differ by less than 1e-9:", largest < 1e-9)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Real pretrained networks come the same way. With a network connection,
#
# ```python
# model = torchvision.models.resnet18(weights="DEFAULT")  # trained on ImageNet, some 45 MB
# model.fc = torch.nn.Linear(model.fc.in_features, 10)  # a new head
# ```
#
# gives a network that has seen a million photographs, with a new head for ten classes. Later lessons do that, and check
# number for number that the course's models agree with those of *torchvision*, *transformers* and *dgl*.
#
# <!-- slide
# Real pretrained networks come the same way, with a network connection:
#
# ```python
# model = torchvision.models.resnet18(weights="DEFAULT")  # trained on ImageNet, some 45 MB
# model.fc = torch.nn.Linear(model.fc.in_features, 10)  # a new head
# ```
#
# A million photographs seen, and a new head for ten classes. **Two lines.**
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Scale it
#
# A **recipe** is data, model and schedule in one name. The lesson used the recipe `letters`; the command line runs it
# without a notebook.
#
# ```
# pfmcourse pretrain letters                     # as in this lesson
# pfmcourse pretrain letters -p steps 2000       # turn one number
# pfmcourse pretrain letters --preset gpu        # a wider network, larger batches, one GPU
# torchrun --nproc_per_node 4 -m pfmcourse pretrain letters --preset gpu
# ```
#
# The augmentation runs where the pictures are, one operation for a whole batch, so a GPU does not wait for it. Under
# `torchrun` each process takes its share of the same batches: the run gets faster and stays the same run, but for batch
# norm, which sees a share only.
#
# Do not expect wonders from more steps here. Digits are easy, and letters teach what they can in seconds. Exercise your
# doubt: set `steps` in the parameters cell and run the lesson again.
#
# <!-- slide
# A **recipe** is data, model and schedule in one name. The command line runs it without a notebook.
#
# ```
# pfmcourse pretrain letters                     # as in this lesson
# pfmcourse pretrain letters -p steps 2000       # turn one number
# pfmcourse pretrain letters --preset gpu        # a wider network, larger batches, one GPU
# torchrun --nproc_per_node 4 -m pfmcourse pretrain letters --preset gpu
# ```
#
# - With `torchrun` each process takes its share of the same batches: faster, and the same run, but for batch norm.
# - Do not expect wonders from more steps: digits are easy. Doubt it? Set `steps` and run again.
# -->
#
# <!-- notes
# Ask what batch norm sees on four processes: a quarter of each batch, so its means are noisier.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Replace the body of each function and run the cell below it. The checker tries your function on small cases and tells
# you what to look at.
#
# <!-- slide
# | | exercise | difficulty | minutes |
# |---|---|---|---:|
# | 1 | **A fair draw**: some examples of every class, the same for the same seed | easy | 5 |
# | 2 | **No training at all**: the class whose mean is nearest | medium | 10 |
# | 3 | **Is it luck?** The interval of a paired difference | medium | 15 |
#
# - Replace the body of the function, run the cell below it. The checker says what your mistake looks like.
# - Done early? In exercise 2 replace `seen` by `random`, then by `raw.flatten(1)`.
# -->
#
# <!-- notes
# The second one surprises people: without any training it does about as well as the linear probe, since the
# features are good. In the third, the usual mistakes are the normal quantile instead of Student's, and dividing by
# n instead of its root.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 1: a fair draw
#
# **Difficulty:** easy · 5 minutes
#
# Draw `each` examples of every class at random and return their row numbers. Use the generator, so that the same seed
# gives the same draw. Useful: `torch.nonzero`, `torch.randperm(n, generator=generator)`.

# %% slideshow={"slide_type": "skip"}


def few_of_each(labels, each, generator):
    """Row numbers of ``each`` random examples of every class in ``labels``."""
    ### BEGIN SOLUTION
    drawn = []
    for label in labels.unique():
        rows = torch.nonzero(labels == label).flatten()
        drawn.append(rows[torch.randperm(len(rows), generator=generator)[:each]])
    return torch.cat(drawn)
    ### END SOLUTION


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
check.few_of_each(few_of_each)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 2: no training at all
#
# **Difficulty:** medium · 10 minutes
#
# With good features one can do without gradients. Take the mean of each class's features, and give a new example the
# class whose mean is nearest. Useful: `torch.cdist`.

# %% slideshow={"slide_type": "skip"}


def nearest_mean(features, labels, new):
    """The class of each row of ``new``: the one whose mean of ``features`` is nearest."""
    ### BEGIN SOLUTION
    classes = labels.unique()
    means = torch.stack([features[labels == label].mean(dim=0) for label in classes])
    return classes[torch.cdist(new, means).argmin(dim=1)]
    ### END SOLUTION


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
check.nearest_mean(nearest_mean)

# %% [markdown] slideshow={"slide_type": "skip"}
# Now on the digits. Compare with the probe's row of the table above. Then replace `seen` by `random`, or by
# `raw.flatten(1)`.

# %% slideshow={"slide_type": "skip"}
for count in counts:
    scores = []
    for draw in draws[count]:
        rows = evaluate.draw_labels(train.labels, count, draw)
        named = nearest_mean(seen[rows], train.labels[rows], seen_test)
        scores.append(evaluate.accuracy(named, test.labels))
    print(f"{count} labels: {evaluate.interval(scores):.1%} right")

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 3: is it luck?
#
# **Difficulty:** medium · 15 minutes
#
# Two methods were run on the same draws. Return the mean of `first - second` and both ends of its 95 % interval. With
# $n$ differences of mean $m$ and standard deviation $s$ the interval is $m \pm t \cdot s / \sqrt{n}$, where $t$ is the
# 0.975 quantile of Student's distribution with $n - 1$ degrees of freedom: `scipy.stats.t.ppf(0.975, n - 1)`.

# %% slideshow={"slide_type": "skip"}


def paired_interval(first, second):
    """Mean, lower and upper end of the 95 % interval of first minus second, draw by draw."""
    ### BEGIN SOLUTION
    difference = torch.tensor(first) - torch.tensor(second)
    n = len(difference)
    half = scipy.stats.t.ppf(0.975, n - 1) * float(difference.std()) / n**0.5
    mean = float(difference.mean())
    return mean, mean - half, mean + half
    ### END SOLUTION


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
check.paired_interval(paired_interval)

# %% slideshow={"slide_type": "skip"}
tuned, untuned = results["fine-tuned"][10], results["from scratch"][10]
paired = paired_interval(tuned.values, untuned.values)
print("paired:     {:+.3f}, from {:+.3f} to {:+.3f}".format(*paired))
apart = (tuned.half_width**2 + untuned.half_width**2) ** 0.5
print(f"as strangers: {tuned.mean - untuned.mean:+.3f}, give or take {apart:.3f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Claims and summary
#
# Everything above that could be false, checked on this run's numbers.
#
# <!-- slide
# Every claim of this lesson was checked on this run's numbers: `PASS` or `FAIL`, in the notebook.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
lesson.claim(
    "it learned letters, not fonts: over half of the letters in unseen fonts are named right",
    unseen > 0.5,
    f"{unseen:.1%}",
)
lesson.claim(
    "ten labels: fine-tuning beats the same network from scratch, with 95 % confidence",
    gain[10].low > 0,
    f"{gain[10]:.1%}",
)
lesson.claim(
    "the baseline had its time: doubling its steps buys less than half of what letters buy",
    longer.mean < gain[10].mean / 2,
    f"{longer.mean:.1%} against {gain[10].mean:.1%}",
)
lesson.claim(
    "ten labels: learned features beat random features and raw pixels by 20 points or more",
    results["linear probe"][10].mean
    > 0.2 + max(results[name][10].mean for name in ("random features", "pixels")),
    f"{results['linear probe'][10].mean:.1%}",
)
lesson.claim(
    "more labels, less to gain: with the most labels the gain is under half of that with ten",
    gain[counts[-1]].mean < gain[10].mean / 2,
    f"{gain[counts[-1]].mean:.1%} against {gain[10].mean:.1%}",
)
# %% [markdown] slideshow={"slide_type": "fragment"}
# ### What to remember
#
# - **Pretrain** where answers are cheap, **adapt** where they are dear.
# - The gain is largest when labels are few, and it can vanish when they are not. Measure it; do not assume it.
# - A baseline deserves the same network, the same augmentation and as many steps as help it. Short baselines make
#   anything look good.
# - Compare on the same draws, and report the interval.
#
# **Left open.** Our letters came with names, which is luck: most data in the world carries no label at all. Could the
# data itself ask the questions? In the lesson *Word vectors*, plain text does.
#
# <!-- slide
# - **Pretrain** where answers are cheap, **adapt** where they are dear.
# - The gain is largest when labels are few. It can vanish: measure it.
# - A baseline deserves the same network, augmentation and as many steps as help it.
# - Compare on the same draws, and report the interval.
#
# **Left open.** Our letters came with names. Could the data itself ask the questions? In *Word vectors* plain text
# does.
# -->
#
# <!-- notes
# Come back to the guesses one last time. Who was right about the third, and what was the reason?
# -->

# %% slideshow={"slide_type": "skip"}
lesson.finish()
