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
# # ViT
#
# A Transformer reads sentences. So cut a picture into patches, lay them in a row, and let it read.
# That is the whole of the **Vision Transformer**. It threw away what had made networks good at
# pictures for thirty years, and with enough data it won all the same. With little data it loses,
# and you will see by how much.
#
# After this lesson you can
#
# - write a **ViT** by hand: patches, class token, positions;
# - say what a convolution knows about pictures that a Transformer has to learn, and measure what
#   this knowledge is worth;
# - look into a ViT: its filters, its positions, where its heads look;
# - make up for little data: augmentation, pretraining, and a teacher (**DeiT**).
#
# You need: lesson 04 (attention). How long reading and running take is printed below.
#
# <!-- slide
# Cut a picture into patches, lay them in a row, and let a Transformer read. With enough data it
# won. With little data it loses, and you will see by how much.
#
# After this lesson you can
#
# - write a **ViT** by hand: patches, class token, positions;
# - measure what a convolution knows about pictures that a Transformer has to learn;
# - look into a ViT: its filters, its positions, where its heads look;
# - make up for little data: augmentation, pretraining, and a teacher (**DeiT**).
#
# You need: attention (lesson 04).
# -->
#
# <!-- notes
# Ask who has used a convolutional network, and what it assumes about pictures. Keep the answers:
# they are the two bullets of the fourth slide. All training that we watch takes about a minute.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# **Papers.** Dosovitskiy and others: *An Image is Worth 16x16 Words: Transformers for Image
# Recognition at Scale* (2020) · Touvron, Cord, Douze, Massa, Sablayrolles, Jégou: *Training
# data-efficient image transformers & distillation through attention* (2020) · Abnar, Zuidema:
# *Quantifying Attention Flow in Transformers* (2020) · Raghu, Unterthiner, Kornblith, Zhang,
# Dosovitskiy: *Do Vision Transformers See Like Convolutional Neural Networks?* (2021) · Steiner
# and others: *How to train your ViT?* (2021)

# %% tags=["parameters"] slideshow={"slide_type": "skip"}
preset = None  # None: $PFMCOURSE_PRESET, else "laptop"
seed = 0
steps = None  # updates of each live pretraining; None: as the preset says
patch = None  # side of a patch in pixels, 4, 7 or 14; None: as the preset says

# %% slideshow={"slide_type": "skip"}
import dataclasses
import math
import tempfile
from collections import Counter

import torch
import torch.nn.functional as F
from IPython.display import display
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pfmcourse import evaluate, offline, plots, recipes
from pfmcourse.checks import vit as check
from pfmcourse.data import emoji, glyphs, source
from pfmcourse.evaluate import Table
from pfmcourse.lesson import Lesson
from pfmcourse.models.convnet import ConvNet, Pictures
from pfmcourse.models.vit import ViT, ViTConfig
from pfmcourse.nn.patches import patchify, sincos_positions, unpatchify
from pfmcourse.recipes import vit as recipe
from pfmcourse.recipes.simclr import CHANGES, SEEN, TEST, VALIDATION, digits_task, features
from pfmcourse.train import TrainConfig, bf16_is_faster, device, fit, seed_everything

lesson = Lesson("vit", preset=preset, seed=seed, steps=steps, patch=patch)

# %% [markdown] slideshow={"slide_type": "skip"}
# How long everything but the three pretraining runs takes is decided here, in one place.

# %% slideshow={"slide_type": "skip"}
few = {  # small data against more: one short run for each share of the letters
    "shares": lesson.at((0.2, 1.0), smoke=(0.2, 1.0)),
    "steps": lesson.at(100, smoke=2),
    "batch": lesson.at(32, smoke=8),
}
labelled = {  # handwritten digits with few labels
    "counts": (20, 100),
    "draws": 1,
    "tested": lesson.at(500, smoke=50),  # test digits
    "batch": lesson.at(32, smoke=8),
}
common = {"weight_decay": 0.05, "unit": "pictures"}
plans = {
    "ViT from scratch": TrainConfig(
        steps=lesson.at(250, smoke=2), learning_rate=2e-3, optimizer="muon", **common
    ),
    "ViT fine-tuned": TrainConfig(
        steps=lesson.at(60, smoke=2), learning_rate=1e-3, optimizer="muon", **common
    ),
    "ConvNet from scratch": TrainConfig(
        steps=lesson.at(200, smoke=2), learning_rate=3e-3, **common
    ),
    "ConvNet fine-tuned": TrainConfig(steps=lesson.at(60, smoke=2), learning_rate=2e-3, **common),
    "other size": TrainConfig(steps=lesson.at(40, smoke=2), learning_rate=5e-4, **common),
}

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The idea
#
# A picture as a sentence: sixteen words, read row by row.
#
# <!-- notes
# The patches here are eight pixels wide. Cover the first picture: could you still name it from the
# row alone? That is the question that the network is asked.
# -->

# %% slideshow={"slide_type": "fragment"}
everything = emoji.load(languages=("en",))
shown = everything.pictures[everything.names["en"].index("sailboat")]
words = unpatchify(patchify(shown[None].float(), 8)[0][:, None], 8, 1).to(torch.uint8)
gaps = F.pad(words.float(), (1, 1, 1, 1), value=190).flatten(1)[None]  # grey around each patch
spaced = unpatchify(gaps, 10, 4)[0].to(torch.uint8)
plots.image_grid([shown, spaced], ["a picture", "its patches"], size=140)

# %% [markdown] slideshow={"slide_type": "fragment"}
# <!-- slide
# For the Transformer it is this:
# -->

# %% slideshow={"slide_type": "fragment"}
plots.image_grid(list(words), [str(place) for place in range(1, 17)], columns=16, size=44)

# %% [markdown] slideshow={"slide_type": "-"}
# All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0

# %% [markdown] slideshow={"slide_type": "notes"}
# From here on everything is as in lesson 04. Each patch goes through one matrix and becomes a
# vector, as a word does by its row in a table. It gets a vector that says where it stands. In
# front of all stands one more token, the **class token**: it shows nothing itself, and gathers
# from the others what the whole picture shows. From its last vector the class is read.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The mathematics
#
# A picture of $H \times W$ pixels and $C$ channels gives $N = HW / P^2$ patches $x_1 \ldots x_N$
# of $P^2 C$ numbers each:
#
# $$z_0 = [\,c;\; x_1 E;\; \ldots;\; x_N E\,] + p$$
#
# $$z \leftarrow z + \mathrm{attention}(\mathrm{norm}(z)), \qquad
# z \leftarrow z + \mathrm{mlp}(\mathrm{norm}(z)), \qquad
# y = W\,\mathrm{norm}(z)_0$$
#
# with the class token $c$, one matrix $E$ for all patches, and one position $p_i$ for each token.
# No mask: every patch may look at every other from the first layer on.
#
# <!-- slide
# $H \times W$ pixels, $C$ channels: $N = HW / P^2$ patches $x_1 \ldots x_N$ of $P^2 C$ numbers
# each
#
# $$z_0 = [\,c;\; x_1 E;\; \ldots;\; x_N E\,] + p$$
#
# $$z \leftarrow z + \mathrm{attention}(\mathrm{norm}(z))$$
#
# $$z \leftarrow z + \mathrm{mlp}(\mathrm{norm}(z))$$
#
# $$y = W\,\mathrm{norm}(z)_0$$
#
# | | | |
# |---|---|---|
# | $c$ | class token | shows nothing itself, gathers from the others what the picture shows |
# | $E$ | one matrix | for all patches |
# | $p$ | positions | one for each token |
#
# No mask: every patch may look at every other.
# -->
#
# <!-- notes
# The two middle lines are repeated, layer by layer. Ask: which of these symbols would change if
# the picture were larger? Only the number of positions. We come back to that.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What a convolution knows without learning
#
# - **Locality**: neighbouring pixels belong together. A 3 × 3 filter sees nothing else.
# - **Translation**: an edge is an edge wherever it is. One filter serves all places.
#
# A Transformer shares its weights between places, too. But to it a picture is a **bag of
# patches**: who is whose neighbour, it knows from the positions only, and what follows from it,
# from training only. Take the positions away, shuffle the patches, and see who notices.
#
# <!-- slide
# - **Locality**: neighbouring pixels belong together. A 3 × 3 filter sees nothing else.
# - **Translation**: an edge is an edge wherever it is. One filter serves all places.
#
# A Transformer shares its weights between places, too. But to it a picture is a **bag of
# patches**: who is whose neighbour, it knows from the positions only.
#
# Take the positions away, shuffle the patches, and see who notices:
# -->
#
# <!-- notes
# Let them guess before the last lines come. A common misunderstanding: a ViT has locality, because
# patches are local. Inside a patch, yes; between patches it knows nothing at first.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(0)
some = torch.rand(2, 1, 28, 28)
blind = ViT(ViTConfig(size=28, patch=4, channels=1, dim=32, layers=2)).eval()
nn.init.zeros_(blind.positions)
filters = recipes.get("convnet").model(recipes.config("convnet", "smoke"), recipe.letters()).eval()
shuffled = unpatchify(patchify(some, 4)[:, torch.randperm(49)], 4, 7)
with torch.no_grad():
    for name, network in (("ViT without positions", blind), ("ConvNet", filters)):
        same = torch.allclose(network.encode(some), network.encode(shuffled), atol=1e-5)
        print(f"{name}: the same features for shuffled patches: {same}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## By hand
#
# ### Patches
#
# Cutting is no computation, only another order of the same numbers: split both sides in two axes,
# put the axes in another order, join them.
#
# <!-- slide
# No computation, only another order of the same numbers:
# -->
#
# <!-- notes
# Say the shapes aloud, line by line. The line with `permute` is the only one that moves numbers in
# memory. Ask what goes wrong when it is left out: the shape is right and the patches are not.
# -->


# %% slideshow={"slide_type": "fragment"} tags=["slide-code", "nbval-check-output"]
def cut(images, patch):
    """[batch, channels, height, width] -> [batch, patches, channels * patch * patch]."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch, width // patch
    x = images.reshape(batch, channels, rows, patch, columns, patch)
    x = x.permute(0, 2, 4, 1, 3, 5)  # batch, rows, columns, channels, patch, patch
    return x.reshape(batch, rows * columns, channels * patch * patch)


colours = torch.rand(3, 3, 20, 28)
print(tuple(colours.shape), "->", tuple(cut(colours, 4).shape))
print("as the packaged function:", torch.equal(cut(colours, 4), patchify(colours, 4)))
print("and back again:", torch.equal(unpatchify(cut(colours, 4), 4, columns=7), colours))

# %% [markdown] slideshow={"slide_type": "skip"}
# A matrix on each patch is a convolution whose filters are as large as its steps; most libraries
# write it so.

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
matrix = torch.rand(32, 3 * 4 * 4)
one = cut(colours, 4) @ matrix.T
other = F.conv2d(colours, matrix.view(32, 3, 4, 4), stride=4).flatten(2).mT
print("a matrix on each patch is a convolution:", torch.allclose(one, other, atol=1e-5))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The whole network
#
# <!-- slide
# ```
# x = cut(images, patch) @ E
# x = concatenate([class_token, x]) + positions
# for block in blocks:
#     q, k, v = block.queries_keys_values(norm(x))      # in several heads
#     looks = softmax(q @ k.T / sqrt(d))
#     x = x + block.output(looks @ v)
#     x = x + block.down(gelu(block.up(norm(x))))
# return head(norm(x)[0])                               # of the class token
# ```
#
# Written out in the notebook, and compared with the packaged network:
# -->
#
# <!-- notes
# The notebook's function does this with nothing but the weights and matrix products. Each line is
# one of the formulas: let the class match them. Only the first two lines and the last are new
# against lesson 04.
# -->


# %% slideshow={"slide_type": "skip"}
def vit_by_hand(w, images, patch, layers, heads):
    """The scores of the classes; w holds the weights by their names."""

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    x = linear(cut(images, patch), "patch_embedding")
    x = torch.cat([w["class_token"].expand(len(x), 1, -1), x], dim=1) + w["positions"]
    for block in (f"blocks.{number}" for number in range(layers)):
        y = linear(norm(x, f"{block}.attention_norm"), f"{block}.attention.project")
        q, k, v = y.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # each: batch, heads, ...
        looks = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + linear((looks @ v).transpose(1, 2).flatten(2), f"{block}.attention.output")
        y = F.gelu(linear(norm(x, f"{block}.feed_forward_norm"), f"{block}.feed_forward.up"))
        x = x + linear(y, f"{block}.feed_forward.down")
    return linear(norm(x, "norm")[:, 0], "head")  # of the class token


# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
small = ViT(ViTConfig(10, size=28, patch=4, channels=1, dim=32, layers=3, heads=4)).double().eval()
with torch.no_grad():
    for weight in small.parameters():
        weight.normal_(std=0.3)  # a fresh head is all zeros, and would hide every mistake
    weights = dict(small.named_parameters())
    by_hand = vit_by_hand(weights, some.double(), patch=4, layers=3, heads=4)
    difference = (by_hand - small.logits(some.double())).abs().max()
print("scores of", by_hand.shape[1], "classes for", by_hand.shape[0], "pictures")
print("as the packaged ViT, in double precision:", bool(difference < 1e-9))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Positions
#
# Words stand in a line, patches in a plane. **Fixed** positions say the column with one half of
# their numbers and the row with the other, by the sines and cosines of lesson 04. **Learned** ones
# are a table like any other. Ours start from the fixed ones and are learned from there: with so
# few pictures we give away that a plane is a plane.
#
# How similar is the position of one patch to all the others? Dark is alike.
#
# <!-- slide
# Words stand in a line, patches in a plane.
#
# - **Fixed**: one half of the numbers says the column, the other the row, by sines and cosines.
# - **Learned**: a table like any other. Ours start from the fixed ones and are learned from there.
#
# How similar is the position of one patch to all the others? Dark is alike.
# -->
#
# <!-- notes
# Each small square is the whole picture of four by four patches. Ask why the dark region is where
# it is. With so few pictures we give away that a plane is a plane; the paper's network had to find
# it.
# -->

# %% slideshow={"slide_type": "fragment"}
places = {"corner": 0, "edge": 7, "inside": 5, "inside, below": 10, "other corner": 15}


def similarity(positions, side=4):
    """Pictures of how like each of `places` is to every other place: dark is alike."""
    unit = F.normalize(positions.detach().float().cpu(), dim=1)
    maps = (unit @ unit.T)[list(places.values())]
    low, high = maps.amin(1, keepdim=True), maps.amax(1, keepdim=True)
    return (1 - (maps - low) / (high - low)).view(-1, 1, side, side)


plots.image_grid(
    list(similarity(sincos_positions(4, 4, 96))),
    list(places),
    size=84,
    title="Fixed positions: likeness to the patch at …",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# A font file knows its letters, so a picture of a letter comes with its name, at no cost. We take
# five scripts. Two fonts are put aside: **tested is in unseen fonts**, an italic and a bold one.
#
# <!-- slide
# A font file knows its letters: pictures with names, at no cost. **Tested is in unseen fonts.**
# -->
#
# <!-- notes
# Two fonts are put aside, an italic and a bold one. The scripts that are never seen, Armenian and
# Georgian, are for lesson 13, where the same letters come back.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
letters = recipe.letters()
printed = glyphs.load().written_in(*SEEN)
print(f"{len(letters.labels):,} pictures of {letters.classes} letters to learn from,", end=" ")
print(f"{len(letters.test_labels)} to be tested on")
scripts = Counter(printed.scripts[label] for label in printed.labels.unique().tolist())
print(", ".join(f"{script} {count}" for script, count in scripts.items()))
seen_fonts, unseen_fonts = (set(printed.split(part).font.tolist()) for part in ("train", "test"))
print("fonts:", len(seen_fonts), "and", len(unseen_fonts), "others:", not seen_fonts & unseen_fonts)
print("never seen:", VALIDATION, "and", TEST, "letters, and every digit")

# %% slideshow={"slide_type": "fragment"}
chosen = [printed.letters.index(name) for name in "RgΨωЖשك"]
rows = [(printed.split("train").labels == label).nonzero()[0].item() for label in chosen]
originals = letters.images[rows]
warped = CHANGES["letters"](originals.repeat(3, 1, 1, 1), torch.Generator().manual_seed(seed))
plots.image_grid(
    [*originals, *warped],
    columns=len(chosen),
    row_titles=["as printed", "changed", "changed", "changed"],
    title="Letters, and how training changes them",
    size=64,
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The network sees each letter in another shape every time: turned, leaned, bent, made thicker,
# cropped. Testing is without changes. Later we shall need **handwritten digits** (MNIST): a task
# with few labels.
#
# <!-- slide
# Each time in another shape: turned, leaned, bent, made thicker, cropped. Testing is without
# changes.
# -->
#
# <!-- notes
# Ask which changes would be wrong here: a mirror image, for one, makes another letter of *b*.
# -->

# %% slideshow={"slide_type": "skip"}
for name in ("glyphs", "digits", "emoji_pictures"):
    print(f"{name}: {source.source(name).licence}\n  {source.source(name).attribution}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predict, then pretrain
#
# A ViT and a convolutional network of about the same number of weights get the same pictures in
# the same order. Write down your guesses:
#
# 1. Which one is ahead after a short run, and by how much?
# 2. Which one profits more when we train far longer?
# 3. With a fifth of the pictures: does the distance grow or shrink?
#
# <!-- slide
# A ViT and a convolutional network: the same number of weights, the same pictures, the same order.
#
# 1. Which one is ahead after a short run, and by how much?
# 2. Which one profits more when we train far longer?
# 3. With a fifth of the pictures: does the distance grow or shrink?
# -->
#
# <!-- notes
# Two minutes for the guesses; write some on the board before the curves come. Both runs together
# take about half a minute on a laptop. A loss is on training pictures as they were changed: it
# says who learns faster, not yet who reads better.
# -->

# %% slideshow={"slide_type": "skip"}
vit = lesson.pretrain("vit")

# %% slideshow={"slide_type": "skip"}
convnet = lesson.pretrain("convnet")
vit_long, convnet_long = lesson.load("vit"), lesson.load("convnet")

# %% slideshow={"slide_type": "fragment"}
plots.loss_curve(
    {"ViT": vit.history, "ConvNet": convnet.history},
    references={"knows nothing": math.log(letters.classes)},
    title="The same pictures, two networks",
)


# %% [markdown] slideshow={"slide_type": "subslide"}
# <!-- slide
# ### In fonts never seen
# -->


# %% slideshow={"slide_type": "fragment"}
def row(name, run):
    """A line of the table: size, training, and what became of it in fonts never seen."""
    count = sum(weight.numel() for weight in run.model.parameters())
    share = run.metrics["test_accuracy"]
    trained = run.history.steps if run.history else run.card["steps"]
    seconds = run.history.seconds if run.history else run.card["seconds"]
    return name, f"{count / 1e6:.2f}", f"{trained:,}", f"{seconds:.0f}", f"{share:.1%}"


runs = {
    "ViT, live": vit,
    "ConvNet, live": convnet,
    "ViT, long checkpoint": vit_long,
    "ConvNet, long checkpoint": convnet_long,
}
columns = ("", "million weights", "steps", "seconds", "right in unseen fonts")
display(Table(columns, tuple(row(name, run) for name, run in runs.items())))
for name, run in (("vit", vit), ("convnet", convnet), ("vit_long", vit_long)):
    lesson.record(f"{name}_unseen_fonts", run.metrics["test_accuracy"], "accuracy", "unseen fonts")
lesson.record("convnet_long_unseen_fonts", convnet_long.metrics["test_accuracy"], "accuracy")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Look at the curves first, then at the fonts. The convolution starts with two true statements
# about pictures. The ViT has to find them in the same few thousand letters. Does patience bring it
# nearer? No one can reach the top: every letter fills the same box, so *o* and *O* look alike.
#
# <!-- slide
# - The convolution starts with two true statements about pictures. The ViT has to find them in the
#   same few thousand letters.
# - Patience brings it nearer.
# - No one can reach the top: every letter fills the same box, so *o* and *O* look alike.
# -->
#
# <!-- notes
# Two of the four are the runs from above, two are checkpoints that come with the course. Take up
# the first two guesses. Seconds are of the machines that trained them.
# -->

# %% [markdown] slideshow={"slide_type": "notes"}
# Ask the class why the paper's ViT won nevertheless. It was pretrained on far more pictures than
# ImageNet has: on ImageNet alone it was behind ResNets, and that is the paper's own figure.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What did it learn?
#
# ### Filters
#
# Each row of the patch matrix is a small picture: what makes its number large. The paper shows
# their **principal components**, the few filters that all others are made of. Ours began as random
# numbers, and still look like them: a random matrix keeps all pixels of a patch well enough. So
# look at what training has **added**, the trained matrix minus the one it started from.
#
# <!-- slide
# - Each row of the patch matrix is a small picture: what makes its number large.
# - They began as random numbers. Here is what training has **added**, as principal components.
# -->

# %% slideshow={"slide_type": "fragment"}
network = vit_long.model
where = next(network.parameters()).device
seed_everything(vit_long.seed)
untrained = recipes.get("vit").model(vit_long.config, letters).to(where).eval()  # as it began
began = untrained.patch_embedding.weight.detach().float().cpu()  # [dim, pixels of a patch]
added = network.patch_embedding.weight.detach().float().cpu() - began
strengths, components = torch.linalg.svd(added, full_matrices=False)[1:]
explained = strengths**2 / (strengths**2).sum()
pictures = unpatchify(components[:, None], network.config.patch, 1)
largest = pictures.abs().amax((1, 2, 3), keepdim=True)
plots.image_grid(
    list(0.5 + pictures / largest / 2),
    [f"{share:.0%}" for share in explained.tolist()],
    columns=8,
    size=64,
    title="What training added to the patch matrix, and how much of it",
)
print(f"the matrix has moved by {float(added.norm() / began.norm()):.0%} of its length")
random = torch.linalg.svdvals(began) ** 2
print(f"its random start: the strongest component has {float(random[0] / random.sum()):.0%}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Read the strong ones: ink at a border, one side against the other, the middle against the ends.
# These are **edges and strokes**, the filters that a convolutional network learns as well. Nobody
# built them in. The weak ones look like noise.
#
# <!-- slide
# - The strong ones: ink at a border, one side against the other.
# - **Edges and strokes**, as a convolutional network learns them. Nobody built them in.
# - The weak ones look like noise.
# -->
#
# <!-- notes
# The number below each is its share of the change. Let someone describe the first row: what would
# a letter have to look like to make this number large?
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Positions after training
#
# They began as the fixed ones. Did they go anywhere?
#
# <!-- slide
# They began as the fixed ones. Did they go anywhere?
# -->
#
# <!-- notes
# Compare column by column. Near patches are still more alike than far ones, but the dark spots
# have become smaller. Ask what a network would have to do that starts from random positions.
# -->

# %% slideshow={"slide_type": "fragment"}
learned = network.positions[network.special :].detach().float().cpu()
start = sincos_positions(4, 4, network.config.dim)
moved = float((learned - start).norm() / start.norm())
plots.image_grid(
    [*similarity(start), *similarity(learned)],
    list(places) * 2,
    columns=len(places),
    row_titles=["at the start", "after training"],
    size=84,
    title="Likeness of positions",
)
print(f"the table has moved by {moved:.0%} of its own length")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Where the class token looks
#
# The last layer, one column a head. Dark patches get much of the class token's attention.
#
# <!-- slide
# One row a picture, one column a head of the last layer. Dark patches get much of the class
# token's attention.
# -->

# %% slideshow={"slide_type": "fragment"}
digits = digits_task()
tested = {name: printed.letters.index(name) for name in "kЖΨg"}
unseen_labels = printed.split("test").labels
samples = {
    name: letters.test_images[(unseen_labels == label).nonzero()[0].item()]
    for name, label in tested.items()
}
samples |= {
    f"digit {digit}": digits.test_images[(digits.test_labels == digit).nonzero()[0].item()]
    for digit in (3, 8)
}
stack = torch.stack(list(samples.values()))


def seen_maps(model, images):
    """Attention of every layer and head, [layers, batch, heads, tokens, tokens], on the CPU."""
    return model.attention_maps(images.to(next(model.parameters()).device)).float().cpu()


looks = seen_maps(network, stack)[-1, :, :, 0, network.special :]  # [batch, heads, patches]
side = math.isqrt(looks.shape[-1])
panels = []
for image, heads in zip(stack, looks, strict=True):
    panels.append(1 - image)
    panels += [1 - head.view(1, side, side) / head.max() for head in heads]
plots.image_grid(
    panels,
    columns=1 + looks.shape[1],
    row_titles=list(samples),
    size=64,
    title="The picture, then each head of the last layer",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Go down a column. Does a head choose by **what** is there, or by **where** it is? Compare the
# maps: those of one head for different letters, and those of different heads for one letter.
#
# <!-- slide
# - Does a head choose by **what** is there, or by **where** it is?
# - Compare one head for two letters, and two heads for one letter:
# -->

# %% slideshow={"slide_type": "fragment"}
looked_at = letters.test_images[:: lesson.at(3, smoke=30)]
looks = seen_maps(network, looked_at)[-1, :, :, 0, network.special :]
unit = F.normalize(looks, dim=-1)  # [letters, heads, patches]
many, heads = unit.shape[:2]
across_letters = torch.einsum("ahp, bhp -> hab", unit, unit)[:, ~torch.eye(many).bool()].mean()
across_heads = torch.einsum("agp, ahp -> agh", unit, unit)[:, ~torch.eye(heads).bool()].mean()
print(f"one head, two letters: likeness {across_letters:.2f} (cosine)")
print(f"two heads, one letter: likeness {across_heads:.2f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Letters stand in the middle of their box, so *where* is worth knowing: is there ink in the upper
# left? The heads share the picture out among them. Digits were never in the training, and the same
# places are asked. But take care: a map shows where one layer looks, not why a letter was named. By
# the last layer each patch has long read the others. Exercise 3 follows attention through all
# layers.
#
# <!-- slide
# - The heads share the picture out among them, for digits, too, which were never in the training.
# - A map shows where **one layer** looks, not **why** a letter was named.
# -->
#
# <!-- notes
# A likeness of one means the same map. A common misunderstanding: dark patches are the reason for
# the answer.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Near and far
#
# A 3 × 3 filter sees its neighbours only. How far away, in patches, do a ViT's heads look?
#
# <!-- slide
# A 3 × 3 filter sees its neighbours only. How far away, in patches, do a ViT's heads look?
# -->


# %% slideshow={"slide_type": "skip"}
def distances(model, images):
    """Mean distance in patches between who looks and what is looked at: [layers, heads]."""
    maps = seen_maps(model, images)[..., model.special :, model.special :]
    side = math.isqrt(maps.shape[-1])
    grid = torch.stack(torch.meshgrid(*2 * [torch.arange(side)], indexing="ij"), -1).view(-1, 2)
    apart = torch.cdist(grid.float(), grid.float())
    maps = maps / maps.sum(-1, keepdim=True)
    return (maps * apart).sum(-1).mean((1, 3)), float(apart.mean())


far, anywhere = distances(network, looked_at)
fresh_far, _ = distances(untrained, looked_at)


def by_layer(values):
    """Layers counted from 1, for a plot."""
    return {number: float(value) for number, value in enumerate(values, start=1)}


# %% slideshow={"slide_type": "fragment"}
plots.lines(
    {
        "farthest head": by_layer(far.amax(1)),
        "mean of the heads": by_layer(far.mean(1)),
        "nearest head": by_layer(far.amin(1)),
        "untrained, mean": by_layer(fresh_far.mean(1)),
    },
    references={"looks anywhere alike": anywhere},
    log=False,
    xlabel="layer",
    ylabel="distance in patches",
    title="How far the heads look",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The line marked *nearest* is what training has found of locality. In large ViTs the first layers
# have near heads **and** far heads, the last ones only far heads; trained on too little data, the
# near ones never appear (Raghu and others, 2021). Which of these is ours like?
#
# <!-- slide
# - The line *nearest head* is what training has found of locality.
# - Large ViTs have near **and** far heads in the first layers, only far ones in the last.
# - With too little data the near ones never appear (Raghu and others, 2021). Which is ours like?
# -->
#
# <!-- notes
# Before training every head looks everywhere alike. Let the class answer the last question from
# the lines of the first two layers.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Adapt it
#
# ### Little data and more, changed or not
#
# Short runs, all of the same number of steps: with a fifth of the letters, or with all of them, with
# changes and without. The two fonts of the test are the same throughout.
#
# <!-- slide
# Short runs of the same length: a fifth of the letters or all of them, changed or as printed.
# -->
#
# <!-- notes
# Take up the third guess. The runs have a hundred steps: too few to read well, enough to compare.
# -->

# %% slideshow={"slide_type": "skip"}
small_data = {}
for name, label in (("vit", "ViT"), ("convnet", "ConvNet")):
    for changed in (True, False):
        scores = {}
        for share in few["shares"]:
            run = recipes.pretrain(
                name,
                lesson.preset,
                seed,
                resume=False,
                share=share,
                changed=changed,
                steps=few["steps"],
                batch=few["batch"],
                patch=lesson.config(name).patch,
            )
            scores[share] = run.metrics["test_accuracy"]
        small_data[f"{label}, {'changed' if changed else 'as printed'}"] = scores

# %% slideshow={"slide_type": "fragment"}
plots.lines(
    small_data,
    percent=True,
    xlabel="share of the training letters",
    ylabel="right in unseen fonts",
    title=f"{few['steps']} steps each",
)
least, most = min(few["shares"]), max(few["shares"])
for name, scores in small_data.items():
    key = name.lower().replace(", ", "_").replace(" ", "_")
    lesson.record(f"{key}_all", scores[most], "accuracy", "unseen fonts, short run")
    lesson.record(f"{key}_least", scores[least], "accuracy", f"{least:.0%} of the letters")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Changing the pictures says to the network: *this does not matter*. It is a way to hand over
# knowledge without building it in, so the network that has less built in should have more use for
# it. It costs something as well: pictures that never come twice take longer to learn. In runs as
# short as these the cost is what you see, for the ViT most of all. Whether longer runs earn it back
# is not tried here. Digits by hand, below, differ from print as these changes do.
#
# <!-- slide
# - To change a picture says: *this does not matter*. It hands over knowledge without building it
#   in.
# - It costs something: pictures that never come twice take longer to learn. In short runs the cost
#   is what you see.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Twenty labels
#
# Now handwritten digits. A ViT with random weights has to learn from a handful of pictures what a
# stroke is. A pretrained one knows strokes, from print. All networks see their few digits changed
# as above, the fresh ones for far more steps than the pretrained ones.
#
# <!-- slide
# Handwritten digits. The pretrained networks know strokes, from print. The fresh ones get far more
# steps.
# -->


# %% slideshow={"slide_type": "skip"}
def quickly():
    """For reading without learning: half precision on machines where that is faster."""
    return torch.autocast(where.type, torch.bfloat16, enabled=bf16_is_faster(where.type))


@torch.no_grad()
def answers(model, images):
    """The class that a network names, on the CPU."""
    model.eval()
    return torch.cat([model.logits(x.to(device())).argmax(1).cpu() for x in images.split(250)])


def changing(images, labels, rows, size=None):
    """Batches of pictures drawn with replacement, each changed anew; drawn smaller with `size`."""
    images, labels = images.to(device()), labels.to(device())

    def draw(step, generator):
        drawn = torch.randint(len(labels), (rows,), generator=generator).to(labels.device)
        shown = CHANGES["letters"](images[drawn], generator)
        return Pictures(shown if size is None else resized(shown, size), labels[drawn])

    return draw


def resized(images, size):
    """The same pictures with `size` pixels on each side."""
    return F.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    ).clamp(0, 1)


def few_digits(start, plan, fresh=None):
    """For `evaluate.few_label`: `start` with a new head, or a network made by `fresh`, trained."""

    def run(images, labels, test_images, test_labels, *, metric, seed):
        seed_everything(seed)
        model = start.with_new_head(10) if fresh is None else fresh()
        schedule = dataclasses.replace(plan, seed=seed)
        fit(model.train(), changing(images, labels, labelled["batch"]), schedule)
        return evaluate.accuracy(answers(model, test_images), test_labels)

    return run


vit_sizes = dataclasses.replace(vit.model.config, classes=10)
convnet_sizes = dataclasses.replace(convnet.model.config, classes=10)
methods = {
    "ViT, from scratch": few_digits(None, plans["ViT from scratch"], lambda: ViT(vit_sizes)),
    "ViT, live on letters": few_digits(vit.model, plans["ViT fine-tuned"]),
    "ViT, long checkpoint": few_digits(vit_long.model, plans["ViT fine-tuned"]),
    "ConvNet, from scratch": few_digits(
        None, plans["ConvNet from scratch"], lambda: ConvNet(convnet_sizes)
    ),
    "ConvNet, long checkpoint": few_digits(convnet_long.model, plans["ConvNet fine-tuned"]),
}
draws = range(10 * seed, 10 * seed + labelled["draws"])
every = len(digits.test_labels) // labelled["tested"]
unseen, unseen_names = digits.test_images[::every], digits.test_labels[::every]


def few_labels(data, test_data, how):
    """Accuracy at each number of labels, over the same draws for every method."""
    options = {"counts": labelled["counts"], "seeds": draws, "method": how}
    return evaluate.few_label(data, digits.labels, test_data, unseen_names, **options)


on_digits = {name: few_labels(digits.images, unseen, how) for name, how in methods.items()}
with quickly():
    unseen_features = features(network, unseen)


def frozen(images, labels, test_images, test_labels, *, metric, seed):
    """A linear probe on the long checkpoint's features."""
    found = features(network, images), labels, unseen_features, test_labels
    return evaluate.linear_probe(*found, seed=seed)


on_digits["ViT, long, frozen"] = few_labels(digits.images, unseen, frozen)
on_digits["raw pixels"] = few_labels(digits.images.flatten(1), unseen.flatten(1), "linear_probe")

# %% slideshow={"slide_type": "fragment"}
columns = ("", *(f"{count} labels" for count in labelled["counts"]))
rows = []
for name, result in on_digits.items():
    rows.append((name, *(f"{one.mean:.1%}" for one in result.values())))
display(Table(columns, tuple(rows)))
for name, key in (
    ("ViT, from scratch", "vit_scratch"),
    ("ViT, live on letters", "vit_live"),
    ("ViT, long checkpoint", "vit_pretrained"),
    ("ConvNet, from scratch", "convnet_scratch"),
    ("ConvNet, long checkpoint", "convnet_pretrained"),
    ("raw pixels", "pixels"),
):
    for count, one in on_digits[name].items():
        lesson.record(f"digits{count}_{key}", one.mean, "accuracy", f"{name}, {count} labels")

# %% [markdown] slideshow={"slide_type": "fragment"}
# One draw of the labels, the same for every method, so look at large differences only. **A ViT
# wants to be pretrained**: what the convolution has built in, it can bring along from another task.
# Compare the two gains, that of the ViT and that of the ConvNet, and see what is left of them with
# more labels. (From scratch the ViT is still improving when its steps end; more steps would narrow
# the gap.) And compare each network with the raw pixels before you call it good.
#
# <!-- slide
# - **A ViT wants to be pretrained**: what the convolution has built in, it can bring along from
#   another task.
# - Compare the two gains, that of the ViT and that of the ConvNet.
# - What is left of them with more labels?
# - And is it better than raw pixels?
# -->
#
# <!-- notes
# *Frozen* is a linear probe on the features. Ask what a hospital with twenty labelled scans should
# take from this, and what not: letters and digits are close relatives.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### DeiT: learn from a teacher
#
# Touvron and others (2020) trained a ViT on ImageNet alone. Their means: strong changes, and a
# **teacher**, a convolutional network. Beside the class token stands a second one, the
# **distillation token**, with a head of its own. One learns the label $y$, the other what the
# teacher takes the picture for, right or wrong:
#
# $$\ell = \tfrac12 \, \mathrm{CE}(\mathrm{head}_1(z_\text{class}),\, y) + \tfrac12 \,
# \mathrm{CE}(\mathrm{head}_2(z_\text{distill}),\, \arg\max_c \text{teacher}_c)$$
#
# The teacher sees the picture as it was changed. Where a crop has cut off the tail of a *Q*, it
# says *O*, and that is the better answer. Our teacher is the ConvNet's long checkpoint.
#
# <!-- slide
# A second token, a second head: one learns the label $y$, the other what a **teacher** says, right
# or wrong.
#
# $$\ell = \tfrac12 \, \mathrm{CE}(\mathrm{head}_1(z_\text{class}),\, y) + \tfrac12 \,
# \mathrm{CE}(\mathrm{head}_2(z_\text{distill}),\, \arg\max_c \text{teacher}_c)$$
#
# The teacher is the ConvNet's long checkpoint.
# -->
#
# <!-- notes
# The live run takes about half a minute. Exercise 2 is this loss.
# -->

# %% slideshow={"slide_type": "skip"}
deit = lesson.pretrain("deit")


# %% slideshow={"slide_type": "skip"}
@torch.no_grad()
def both_answers(model, images):
    """The class that each of DeiT's heads names, on the CPU."""
    found = (model.both_logits(part.to(device())) for part in images.split(250))
    pairs = [(one.argmax(1).cpu(), other.argmax(1).cpu()) for one, other in found]
    return [torch.cat(column) for column in zip(*pairs, strict=True)]


by_label, by_teacher = both_answers(deit.model, letters.test_images)
together = answers(deit.model, letters.test_images)
taught_by = answers(recipe.teacher(), letters.test_images)
plain = answers(vit.model, letters.test_images)

# %% slideshow={"slide_type": "fragment"}
rows = [
    (
        name,
        f"{evaluate.accuracy(named, letters.test_labels):.1%}",
        f"{evaluate.accuracy(named, taught_by):.1%}",
    )
    for name, named in (
        ("ViT, without a teacher", plain),
        ("DeiT, head of the class token", by_label),
        ("DeiT, head of the distillation token", by_teacher),
        ("DeiT, both heads", together),
        ("the teacher", taught_by),
    )
]
display(Table(("", "right in unseen fonts", "agrees with the teacher"), tuple(rows)))
apart = 1 - evaluate.accuracy(by_label, by_teacher)
print(f"the two heads disagree on {apart:.0%} of the letters")
lesson.record("deit_unseen_fonts", deit.metrics["test_accuracy"], "accuracy", "both heads")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Same number of steps, same pictures. Where the two heads of one network disagree, their mean may
# know better than either. One run each: a difference of a few letters may be luck.
#
# <!-- slide
# - One run each: a few letters may be luck.
# - Where two heads disagree, their mean may know better than either.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Larger and smaller pictures
#
# A ViT can read any number of patches. Only the table of positions has one size, and it can be
# **stretched** like a picture, by bicubic interpolation. Or shall we resize the picture?
#
# <!-- slide
# A ViT can read any number of patches; only the table of positions has one size. **Stretch** it
# like a picture? Or resize the picture?
# -->

# %% slideshow={"slide_type": "skip"}


stride = lesson.at(1, smoke=10)  # every letter, or one in ten
as_drawn, their_names = letters.test_images[::stride], letters.test_labels[::stride]


def right(model, images):
    """Share of the unseen letters that are named right."""
    return evaluate.accuracy(answers(model, images), their_names)


trained_for = network.config.size
other_sizes = {}
for size in (21, 56):
    drawn = resized(as_drawn, size)
    other_sizes[size] = {
        "positions stretched": right(network, drawn),
        "picture resized": right(network, resized(drawn, trained_for)),
    }


def trained_at(model, size):
    """A network trained on for a few steps with pictures of this size."""
    seed_everything(seed)
    batches = changing(letters.images, letters.labels, few["batch"], size)
    fit(model.train(), batches, dataclasses.replace(plans["other size"], seed=seed))
    return model.eval()


copy = recipes.get("vit").model(vit_long.config, letters)
copy.load_state_dict(network.state_dict())
other_sizes[21]["stretched, then fine-tuned"] = right(trained_at(copy, 21), resized(as_drawn, 21))

# %% slideshow={"slide_type": "fragment"}
kinds = ("positions stretched", "picture resized", "stretched, then fine-tuned")
rows = [("as trained", f"{trained_for} × {trained_for}", f"{right(network, as_drawn):.1%}")]
rows += [
    (kind, f"{size} × {size}", f"{found[kind]:.1%}")
    for size, found in other_sizes.items()
    for kind in kinds
    if kind in found
]
display(Table(("", "pixels", "right in unseen fonts"), tuple(rows)))
for size, found in other_sizes.items():
    lesson.record(f"stretched_{size}", found["positions stretched"], "accuracy", "long checkpoint")
    lesson.record(f"resized_{size}", found["picture resized"], "accuracy", "long checkpoint")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The network was never shown that size, and still reads: the stretched positions say where a patch
# stands. What they cannot mend are the **patches**. In a larger picture the strokes are thicker,
# so a patch shows another piece of a letter than any in training. That is why the paper
# stretches positions to *fine-tune* at the new size, where more patches then bring more detail.
# Without training, resize the picture.
#
# Compare the resized pictures with those *as trained*, too. Resizing blurs, and so do the changes
# of training. To this network the sharp original is the stranger of the two.
#
# <!-- slide
# - Stretched positions say where a patch stands. They cannot mend the **patches**: in a larger
#   picture a patch shows another piece of a letter.
# - So stretch to **fine-tune** at the new size. Without training, resize the picture.
# - Resized is read no worse than *as trained*. Why?
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In the library
#
# Weights of the library's `ViTForImageClassification` and `DeiTForImageClassificationWithTeacher`
# in our class: the same answers, in double and in single precision.
#
# <!-- slide
# - Weights of the library's ViT and DeiT in our class, and of ours in the library's
# - The same answers, in double and in single precision
# -->
#
# <!-- notes
# Random weights in every place, biases and norms too: zeros would hide a mistake. With a network,
# one line fetches a ViT that was pretrained on fourteen million photographs; the notebook has the
# cell, switched off.
# -->

# %% slideshow={"slide_type": "skip"}
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ViTForImageClassification,
)
from transformers import ViTConfig as LibraryViTConfig
from transformers.utils import logging

from pfmcourse import convert

logging.disable_progress_bar()
tiny = {
    "image_size": 28,
    "patch_size": 7,
    "num_channels": 3,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "num_labels": 6,
}


@torch.no_grad()
def random_weights(model):
    """Every weight random, biases and norms too, so that none can be taken for another."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(std=0.3)
    return model.eval()


def largest(first, second):
    """The largest difference between two tensors."""
    return float((first - second).detach().abs().max())


# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(0)
photos = torch.rand(4, 3, 28, 28)
named = torch.tensor([5, 0, 3, 3])
for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
    library = random_weights(ViTForImageClassification(LibraryViTConfig(**tiny))).to(dtype)
    ours, theirs = convert.from_transformers(library), library(photos.to(dtype), labels=named)
    logits, loss = ours.logits(photos.to(dtype)), ours(Pictures(photos.to(dtype), named))["loss"]
    print(f"ViT, {dtype}: same scores and loss, < {bound}:", end=" ")
    print(largest(logits, theirs.logits) < bound, largest(loss, theirs.loss) < bound)

    library = random_weights(DeiTForImageClassificationWithTeacher(DeiTConfig(**tiny))).to(dtype)
    ours, theirs = convert.from_transformers(library), library(photos.to(dtype))
    one, other = ours.both_logits(photos.to(dtype))
    print(f"DeiT, {dtype}: same scores of both heads, < {bound}:", end=" ")
    print(
        largest(one, theirs.cls_logits) < bound,
        largest(other, theirs.distillation_logits) < bound,
    )

# %% [markdown] slideshow={"slide_type": "skip"}
# And the way back: our checkpoint as a model of the library, saved in its format and loaded again.

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
ours = recipes.get("vit").model(vit_long.config, letters)
ours.load_state_dict(network.state_dict())
ours = ours.double().eval()
handed_over = convert.to_transformers(ours)
read = letters.test_images[:20].double()
print(type(handed_over).__name__, end=": ")
print("same scores", largest(handed_over(read).logits, ours.logits(read)) < 1e-9)
with tempfile.TemporaryDirectory() as folder:  # offline: it is read from this disk
    handed_over.save_pretrained(folder)
    again = ViTForImageClassification.from_pretrained(folder, dtype=torch.float64)
    back = convert.from_transformers(again.eval())
equal = all(
    torch.equal(weight, back.state_dict()[name]) for name, weight in ours.state_dict().items()
)
print("saved, loaded and converted back, every weight equal:", equal)

# %% [markdown] slideshow={"slide_type": "skip"}
# **Real public weights.** With a network, the library fetches a ViT that Google pretrained on
# fourteen million photographs, and our class takes the weights. Nothing here needs the network, so
# this is off.

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
fetch = False  # True: some 350 MB from the Hugging Face hub
wanted = "google/vit-base-patch16-224"
if fetch and not offline.active():
    real = convert.from_transformers(ViTForImageClassification.from_pretrained(wanted))
    print(wanted, real.config)
else:
    print(f"would load {wanted}, hand its weights to our ViT, and name photographs with it")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Scale it
#
# The same recipes run on a GPU, and on several processes, without a change:
#
# ```
# pfmcourse pretrain vit --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain vit --preset gpu
# ```
#
# <!-- slide
# The same recipe on a GPU, and on several processes:
#
# ```
# pfmcourse pretrain vit --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain vit --preset gpu
# ```
#
# What changes with the preset:
# -->
#
# <!-- notes
# Ask which of these numbers costs memory, which time, which both. *Width* is that of the ConvNet.
# The next slide counts.
# -->

# %% slideshow={"slide_type": "fragment"}
laptop, gpu = (dataclasses.asdict(recipes.config("vit", name)) for name in ("laptop", "gpu"))
rows = [
    (name, f"{laptop[name]:g}", f"{gpu[name]:g}") for name in laptop if laptop[name] != gpu[name]
]
display(Table(("ViT", "laptop", "gpu"), tuple(rows)))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What it costs
#
# With $T = N + 1$ tokens of width $d$, one layer has some $12 d^2$ weights and takes
#
# $$12\,T d^2 + 2\,T^2 d$$
#
# multiply-adds: the matrices once for each token, and each token with each other token, once for
# the scores and once for the mixing. The formula, against a count of what is really multiplied:
#
# <!-- slide
# One layer, $T = N + 1$ tokens of width $d$: some $12 d^2$ weights, and this many multiply-adds:
#
# $$12\,T d^2 + 2\,T^2 d$$
#
# The formula, against a count of what is really multiplied:
# -->


# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
def cost(size, patch, dim, layers, channels=1, classes=201):
    """Tokens, weights and multiply-adds of a ViT for one picture."""
    patches, pixels = (size // patch) ** 2, channels * patch**2
    tokens = patches + 1
    weights = (pixels + 1) * dim + dim + tokens * dim  # patches, class token, positions
    weights += layers * (12 * dim**2 + 13 * dim) + 2 * dim + (dim + 1) * classes
    adds = patches * pixels * dim + layers * (12 * tokens * dim**2 + 2 * tokens**2 * dim)
    return tokens, weights, adds + dim * classes


model = ViT(ViTConfig(201, size=28, patch=4, channels=1, dim=128, layers=4))
_, expected_weights, expected_adds = cost(28, 4, 128, 4)
print("weights:", sum(p.numel() for p in model.parameters()) == expected_weights)
with FlopCounterMode(display=False) as counter, torch.no_grad():
    vit_by_hand(dict(model.named_parameters()), torch.rand(1, 1, 28, 28), 4, layers=4, heads=4)
print("multiply-adds:", counter.get_total_flops() == 2 * expected_adds)

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
plain_cost = cost(28, 4, 128, 4)
rows = []
for name, changes in (
    ("28 pixels, patches of 4, width 128", {}),
    ("patches of 2: four times as many", {"patch": 2}),
    ("56 pixels: four times as many, too", {"size": 56}),
    ("width 256", {"dim": 256}),
    ("8 layers", {"layers": 8}),
    ("224 pixels in colour, patches of 16: ViT-B", {"size": 224, "patch": 16, "dim": 768}),
):
    base = changes if "dim" not in changes or changes["dim"] < 768 else changes | {"layers": 12}
    base = base | ({"channels": 3, "classes": 1000} if base.get("dim") == 768 else {})
    tokens, weights, adds = cost(**({"size": 28, "patch": 4, "dim": 128, "layers": 4} | base))
    times = adds / plain_cost[2]
    rows.append((name, str(tokens), f"{weights / 1e6:.2f}", f"{adds / 1e6:,.0f}", f"{times:,.1f}"))
print(Table(("", "tokens", "million weights", "million multiply-adds", "times"), tuple(rows)))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Smaller patches cost no weights but much work, and the part that grows with $T^2$ overtakes the
# rest when $T$ passes $6d$. Width costs both. What to expect of more: our letters are few, and a
# larger network will know them by heart. The paper's lesson is that size and data have to grow
# together.
#
# <!-- slide
# - Smaller patches cost no weights but much work; width costs both.
# - The part with $T^2$ overtakes the rest when $T$ passes $6d$.
# - Size and data have to grow together.
# -->
#
# <!-- notes
# Before the table comes: patches of half the side, how many times the work? Four, and a bit. Where
# does the bit come from?
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Each has a checker. It tries your answer on small cases, and when it fails it says what the
# mistake looks like.
#
# <!-- slide
# | | | | minutes |
# |---|---|---|---|
# | 1 | **Class token or mean**: what stands for the picture? | easy | 5 |
# | 2 | **Labels and a teacher**: the loss of DeiT | easy | 5 |
# | 3 | **Attention rollout**: attention through all layers | medium | 15 |
# | 4 | **Stretch the positions** to another number of patches | hard | 15 |
#
# - Each has a checker: it tries your answer on small cases.
# - When it fails, it says what the mistake looks like.
#
# Done early? Change `patch` in the first code cell. What do you expect of the time, and of the
# reading?
# -->
#
# <!-- notes
# The first two fit into a lecture. For the third draw two layers on the board first, and ask on
# which side the new matrix goes.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 1: Class token or mean
#
# **Difficulty: easy · 5 minutes**
#
# What stands for the whole picture? Return the class token's vector, or the mean of the patches.
# The first `special` tokens are no patches: one in a ViT, two in DeiT.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def pool(tokens, special, pooling):
    """tokens [batch, tokens, dim], pooling "class" or "mean" -> [batch, dim]."""
    ### BEGIN SOLUTION
    if pooling == "class":
        return tokens[:, 0]
    return tokens[:, special:].mean(1)
    ### END SOLUTION


check.pool(pool)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 2: Labels and a teacher
#
# **Difficulty: easy · 5 minutes**
#
# Return DeiT's loss: half for the labels, at the head of the class token, and half for the
# teacher's first choice, at the head of the distillation token.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def distillation_loss(by_label, by_teacher, labels, teacher_logits):
    """Scores [batch, classes] of both heads, labels [batch], the teacher's scores -> one number."""
    ### BEGIN SOLUTION
    choice = teacher_logits.argmax(1)
    return (F.cross_entropy(by_label, labels) + F.cross_entropy(by_teacher, choice)) / 2
    ### END SOLUTION


check.hard_distillation(distillation_loss)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 3: Attention rollout
#
# **Difficulty: medium · 15 minutes**
#
# In the last layer patches are no longer patches. Abnar and Zuidema (2020) follow attention
# through the layers. Average the heads of a layer: $A$. Around attention the stream goes on
# unchanged, so a layer mixes tokens by about $\frac12 (A + I)$. Multiply these from the first
# layer to the last, each new one **from the left**.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def rollout(maps):
    """maps [layers, heads, tokens, tokens], rows look at columns -> [tokens, tokens]."""
    ### BEGIN SOLUTION
    identity = torch.eye(maps.shape[-1])
    total = identity
    for attention in maps.mean(1):
        total = (attention + identity) / 2 @ total
    return total
    ### END SOLUTION


check.rollout(rollout)

# %% [markdown] slideshow={"slide_type": "skip"}
# Then try it: `rollout(seen_maps(network, stack)[:, 0])[0, 1:].view(4, 4)` is what the class token
# has gathered from each patch of the first picture above.

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 4: Stretch the positions
#
# **Difficulty: hard · 15 minutes**
#
# Return the table of positions for `rows` times `columns` patches. Special tokens come first and
# stay as they are. The rest is a square grid, read row by row. Use `F.interpolate` with
# `mode="bicubic"` and `align_corners=False`; it wants the axes (batch, dim, rows, columns).


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def stretch(positions, special, rows, columns):
    """positions [special + side * side, dim] -> [special + rows * columns, dim]."""
    ### BEGIN SOLUTION
    side = math.isqrt(len(positions) - special)
    plane = positions[special:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, size=(rows, columns), mode="bicubic", align_corners=False)
    patches = plane[0].permute(1, 2, 0).flatten(0, 1)
    return torch.cat([positions[:special], patches])
    ### END SOLUTION


check.stretch(stretch)

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
# which claim surprised them, and which may fail with another seed.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
few_count = min(labelled["counts"])
scratch, pretrained = (
    on_digits[name][few_count] for name in ("ViT, from scratch", "ViT, long checkpoint")
)
convnet_gain = on_digits["ConvNet, long checkpoint"][few_count].mean
convnet_gain -= on_digits["ConvNet, from scratch"][few_count].mean
lesson.claim(
    "after the same steps the ConvNet reads unseen fonts better than the ViT",
    convnet.metrics["test_accuracy"] > vit.metrics["test_accuracy"],
    f"{convnet.metrics['test_accuracy']:.1%} against {vit.metrics['test_accuracy']:.1%}",
)
lesson.claim(
    "with patience the ViT gets better",
    vit_long.metrics["test_accuracy"] > vit.metrics["test_accuracy"],
    f"{vit_long.metrics['test_accuracy']:.1%}",
)
lesson.claim(
    "on few letters, too, the ConvNet is ahead",
    small_data["ConvNet, changed"][least] > small_data["ViT, changed"][least],
    f"{small_data['ConvNet, changed'][least]:.1%} against {small_data['ViT, changed'][least]:.1%}",
)
lesson.claim(
    "in runs as short as these the ViT learns more from letters as printed than from changed ones",
    small_data["ViT, as printed"][most] > small_data["ViT, changed"][most],
    f"{small_data['ViT, as printed'][most]:.1%} against {small_data['ViT, changed'][most]:.1%}",
)
lesson.claim(
    "pretraining on letters lifts the ViT on digits with the fewest labels",
    all(a > b for a, b in zip(pretrained.values, scratch.values, strict=True)),
    f"{pretrained.mean:.1%} against {scratch.mean:.1%}",
)
lesson.claim(
    "the ViT gains more by it than the ConvNet",
    pretrained.mean - scratch.mean > convnet_gain,
    f"{pretrained.mean - scratch.mean:.1%} against {convnet_gain:.1%}",
)
lesson.claim(
    "a head of the last layer keeps to its places more than to any letter",
    float(across_letters) > float(across_heads) + 0.1,
    f"likeness {across_letters:.2f} against {across_heads:.2f}",
)
lesson.claim(
    "pictures of another size are read better resized than with stretched positions",
    all(one["picture resized"] > one["positions stretched"] for one in other_sizes.values()),
    ", ".join(f"{one['picture resized']:.0%}" for one in other_sizes.values()),
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Remember.** A picture is a sentence of patches; the rest is the Transformer of lesson 04. It
# assumes nearly nothing about pictures, so it needs more of them: more data, changed data,
# pretraining, or a teacher that knows. What is built in helps while data are few, and a network
# that has to learn everything can be pretrained on something cheap.
#
# **Left open.** Every patch looks at every other, which gets dear as pictures grow, and all layers
# work at one resolution. **Next:** lesson 12 brings back what convolutions do well: near before
# far, and coarser maps in higher layers.
#
# <!-- slide
# - **A picture is a sentence of patches**; the rest is the Transformer of lesson 04.
# - It assumes nearly nothing about pictures, so it needs more of them: more data, changed data,
#   pretraining, or a teacher that knows.
# - What is built in helps while data are few.
# - A network that has to learn everything can be pretrained on **something cheap**.
#
# Left open: every patch looks at every other, which gets dear as pictures grow.
#
# **Next:** lesson 12 brings back what convolutions do well: near before far, and coarser maps in
# higher layers.
# -->
#
# <!-- notes
# Come back to the three guesses of the beginning.
# -->

# %% slideshow={"slide_type": "skip"}
lesson.finish()
