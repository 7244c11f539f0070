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
# # Masked autoencoders
#
# BERT learns a language by filling holes in sentences. Can a network learn to see by filling holes
# in pictures? For some years this worked badly. Then two answers came within months: hide far
# **more** than BERT does (MAE), or guess **words** instead of pixels (BEiT).
#
# After this lesson you can
#
# - write a **masked autoencoder** by hand, and say why it is cheap although it hides most of what
#   there is;
# - measure how well a network paints what it does not see, against painters that learned nothing;
# - tell **BEiT**'s visual tokens from MAE's pixels;
# - say why features of one kind serve a linear probe, and those of another kind fine-tuning.
#
# You need: lesson 06 (BERT), lesson 11 (ViT) and lesson 13 (SimCLR). How long reading and running
# take is printed below.
#
# <!-- slide
# BERT learns a language by filling holes in sentences. Can a network learn to see by filling holes in
# **pictures**? Hide far **more** (MAE), or guess **words** instead of pixels (BEiT).
#
# After this lesson you can
#
# - write a **masked autoencoder** by hand, and say why it is cheap
# - judge a painting by rivals that learned nothing
# - tell **BEiT**'s visual tokens from MAE's pixels
# - say which features serve a linear probe, and which want fine-tuning
# -->
#
# <!-- notes
# Lessons 06 (BERT), 11 (ViT) and 13 (SimCLR) come together here. Ask how BERT learns, and what would
# be the word of a picture. Start running the notebook now: the probes and the fine-tuning take most
# of its time, and they come late.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# **Papers.** He, Chen, Xie, Li, Dollár, Girshick: *Masked Autoencoders Are Scalable Vision
# Learners* (2021) · Bao, Dong, Piao, Wei: *BEiT: BERT Pre-Training of Image Transformers* (2021) ·
# Zhou and others: *iBOT: Image BERT Pre-Training with Online Tokenizer* (2021) · Chen, Kornblith,
# Norouzi, Hinton: *A Simple Framework for Contrastive Learning of Visual Representations* (2020)

# %% tags=["parameters"] slideshow={"slide_type": "skip"}
preset = None  # None: $PFMCOURSE_PRESET, else "laptop"
seed = 0
share = None  # of the patches that MAE hides; None: as the preset says
dim = None  # numbers per patch in the live network; None: as the preset says

# %% slideshow={"slide_type": "skip"}
import dataclasses
import time
import warnings

import torch
from IPython.display import display

from pfmcourse import evaluate, offline, plots, recipes
from pfmcourse.checks import mae as check
from pfmcourse.data import emoji, photographs, source
from pfmcourse.evaluate import Table
from pfmcourse.lesson import Lesson
from pfmcourse.models.beit import MaskedPictures
from pfmcourse.models.convnet import Pictures
from pfmcourse.models.mae import MAE, MAEConfig
from pfmcourse.models.vit import ViTConfig
from pfmcourse.nn.patch_codes import PatchCodes
from pfmcourse.nn.patches import blockwise_mask, patchify, unpatchify
from pfmcourse.recipes import mae as recipe
from pfmcourse.recipes import simclr as views
from pfmcourse.train import TrainConfig, device, fit

lesson = Lesson("mae", preset=preset, seed=seed, share=share, dim=dim)

# The other numbers that decide how long this notebook takes, all in one place.
ablation_steps, ablation_batch = lesson.at(20, smoke=2), lesson.at(128, smoke=16)
tune_steps = lesson.at(100, smoke=2)  # updates of each fine-tuning
scratch_steps = lesson.at(200, smoke=2)  # from scratch there is more to learn
tune_batch = lesson.at(32, smoke=8)
probe_draws = lesson.at(3, smoke=1)  # how often the few labels are drawn for a probe
tune_draws = 1  # and for fine-tuning, which takes longer
looked_at = lesson.at(1000, smoke=40)  # held-out pictures that are measured, at most

# One example of each class is what the last task is about, not a mistake.
warnings.filterwarnings("ignore", message="The number of unique classes is greater")


def spread(things):
    """As many as are looked at, evenly from the first to the last."""
    return things[torch.linspace(0, len(things) - 1, min(len(things), looked_at)).long()]


# %% [markdown] slideshow={"slide_type": "slide"}
# ## The idea
#
# BERT hides 15 of 100 words. Do the same with the patches of a picture, and the game is too easy:
# whatever is missing can be filled in from the patch next to it. A sentence says hardly anything
# twice; a picture says nearly everything many times. How much must be hidden until you have to
# **think** what it is?
#
# <!-- slide
# BERT hides 15 of 100 words. With patches that is **too easy**: copy the one next to it. A sentence
# says hardly anything twice, a picture nearly everything many times.
#
# How much must be hidden until you have to **think** what it is?
# -->
#
# <!-- notes
# Cover the right half of the picture, and let the class name each thing as soon as they can; uncover
# from the right. Ask what they used: colour and texture first, then the outline, and in the end what
# they know of the world.
# -->

# %% slideshow={"slide_type": "skip"}
PATCH = 4


def holed(images, mask, grey=0.55):
    """The pictures with their hidden patches painted grey."""
    patches = patchify(images, PATCH)
    return unpatchify(torch.where(mask[..., None], grey, patches), PATCH, images.shape[-1] // PATCH)


unseen_emoji = emoji.load(languages=("en",)).split("test")
by_category = [
    unseen_emoji.categories.index(name) for name in dict.fromkeys(unseen_emoji.categories)
]
emoji_names = [unseen_emoji.names["en"][row] for row in by_category]
emoji_shown = views.fractions(unseen_emoji.pictures[torch.tensor(by_category)])

# %% slideshow={"slide_type": "-"}
some = emoji_shown[[1, 2, 3]]
places = (some.shape[-1] // PATCH) ** 2
noise = torch.rand(len(some), places, generator=torch.Generator().manual_seed(3))
rank = noise.argsort(1).argsort(1)
shares = (0.25, 0.5, 0.75, 0.9)
hidden_more = [holed(some, rank >= round(places * (1 - part))) for part in shares]
plots.image_grid(
    [column[row] for row in range(len(some)) for column in (*hidden_more, some)],
    [*(f"{part:.0%} hidden" for part in shares), "whole"] * len(some),
    columns=len(shares) + 1,
    title="What is it?",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# (Emoji: OpenMoji, CC BY-SA 4.0.)
#
# MAE hides **three quarters**. That has a second effect, and it may be the larger one: the encoder
# reads only the patches that are left. Fewer tokens, and the cost of attention falls with their
# square.
#
# <!-- slide
# MAE hides **three quarters**, and its encoder reads only what is left: fewer tokens, and the cost of
# attention falls with their **square**.
#
# Emoji: OpenMoji, CC BY-SA 4.0.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Asymmetric
#
# | | sees | size | after pretraining |
# |---|---|---|---|
# | **encoder**, a ViT | the visible patches only | large | kept |
# | **decoder** | all places; a *mask token* where a patch is hidden | small | thrown away |
#
# BERT puts `[MASK]` into its input, and so meets in pretraining a token that no later text holds.
# MAE's encoder never sees a mask token. With $H$ the hidden patches, $x_i$ the pixels of patch $i$
# and $\hat x_i$ what the decoder paints:
#
# $$\ell = \frac{1}{|H|} \sum_{i \in H} \frac{1}{D} \lVert \hat x_i - x_i \rVert^2$$
#
# Often $x_i$ is normalised first: each patch gets mean 0 and variance 1. Its brightness no longer
# counts, only its texture, and the paper finds that the encoder learns more.
#
# <!-- slide
# | | sees | size | after pretraining |
# |---|---|---|---|
# | **encoder**, a ViT | the visible patches only | large | kept |
# | **decoder** | all places; a *mask token* where a patch is hidden | small | thrown away |
#
# The loss counts the hidden patches $H$ alone, what is painted ($\hat x_i$) against the truth:
#
# $$\ell = \frac{1}{|H|} \sum_{i \in H} \frac{1}{D} \lVert \hat x_i - x_i \rVert^2$$
#
# Often each $x_i$ gets mean 0 and variance 1 first: then only its **texture** counts.
# -->
#
# <!-- notes
# Draw the way of one picture: patches, a quarter of them through the large encoder, then mask tokens
# put in between, then the small decoder. Ask why the encoder should never see a mask token: no later
# picture has one. A common misunderstanding: the mask token is one learned vector, the same at all
# places; only the positions tell the decoder what is where.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## By hand
#
# ### Mask, encode, paint, compare
#
# To hide exactly three quarters at random: give each patch a random number, sort, and keep the
# first quarter. Then one picture after the other:
#
# <!-- slide
# 1. Give each patch a random number, sort, keep the first quarter.
# 2. The **encoder** reads the visible patches, and nothing else.
# 3. Put its states back in their places, a **mask token** everywhere else; add the positions.
# 4. The **decoder** paints all patches.
# 5. Compare the **hidden** ones with the truth.
# -->
#
# <!-- notes
# The notebook has these five steps as a function of under twenty lines, one picture after the other.
# What is printed compares it with the packaged model. Ask why one sorts instead of tossing a coin
# for each patch: all pictures keep equally many, so that a batch is a rectangle.
# -->

# %% slideshow={"slide_type": "skip"}


def mae_by_hand(model, images, noise):
    """The loss of a batch: `noise` orders the patches of each picture, the first stay visible."""
    patches, losses = patchify(images, model.config.encoder.patch), []
    for row, order in enumerate(noise.argsort(dim=1)):
        visible, hidden = order[: model.config.kept], order[model.config.kept :]
        seen = model.encoder.embed(images[row : row + 1])[:, visible]
        states = model.bridge(model.encoder.read(seen))[0]  # the class token, then what is visible
        canvas = model.mask_token.repeat(len(order), 1)
        canvas[visible] = states[1:]
        x = (torch.cat([states[:1], canvas]) + model.positions)[None]
        for block in model.blocks:
            x = block(x)
        painted = model.pixels(model.norm(x))[0, 1:][hidden]
        truth = patches[row, hidden]
        spread = (truth.var(dim=1, keepdim=True) + 1e-6).sqrt()
        losses.append((painted - (truth - truth.mean(1, keepdim=True)) / spread).square().mean())
    return torch.stack(losses).mean()


# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
torch.manual_seed(0)
body = ViTConfig(size=16, patch=4, dim=16, layers=2, positions="sincos", pooling="mean")
small = MAE(MAEConfig(body, decoder_dim=8, decoder_layers=1)).double().eval()
torch.nn.init.normal_(small.pixels.weight)  # zeros at first: too easy for a test
images = torch.rand(3, 3, 16, 16, dtype=torch.float64)
noise = torch.rand(3, body.patches)
by_hand = mae_by_hand(small, images, noise)
print("patches:", body.patches, "visible:", small.config.kept)
print("the packaged loss agrees:", torch.allclose(by_hand, small(images, noise)["loss"]))

_, mask = small.reconstruct(images, noise)
print("hidden in each picture:", mask.sum(1).tolist())
print("by rank as well:", torch.equal(mask, noise.argsort(1).argsort(1) >= small.config.kept))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What may not matter
#
# Two checks that catch most mistakes. Change the *hidden* pixels: the painting must stay what it
# was. Change the *visible* pixels: it must not. And the encoder's work is really a quarter:
#
# <!-- slide
# Two checks that catch most mistakes. What must happen to the painting?
#
# - other **hidden** pixels: ?
# - other **visible** pixels: ?
#
# And how many tokens does the encoder read, in pretraining and later?
# -->
#
# <!-- notes
# Wait for the answers: the first must change nothing, or the network has looked; the second must
# change something, or it does not look at all. The numbers of tokens include the class token. After
# pretraining the encoder reads whole pictures: nothing is hidden then.
# -->

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]


def painted_where_hidden(pictures):
    """What the model paints where patches are hidden, in its own normalised colours."""
    whole, hidden = small.reconstruct(pictures, noise)
    patches = patchify(pictures, 4)
    spread = (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    return ((patchify(whole, 4) - patches.mean(-1, keepdim=True)) / spread)[hidden]


before = painted_where_hidden(images)
other = torch.rand_like(images)
only_hidden = torch.where(mask[..., None], patchify(other, 4), patchify(images, 4))
only_visible = torch.where(mask[..., None], patchify(images, 4), patchify(other, 4))
for name, patches in (("hidden", only_hidden), ("visible", only_visible)):
    same = torch.allclose(before, painted_where_hidden(unpatchify(patches, 4, 4)))
    print(f"other {name} pixels, same painting: {same}")

lengths = []
watch = small.encoder.blocks[0].register_forward_hook(
    lambda block, inputs, output: lengths.append(output.shape[1])
)
small(images, noise)
small.encode(images)
watch.remove()
print("tokens in the encoder, pretraining:", lengths[0], "and later:", lengths[1])

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# Three sets of pictures, all without labels:
#
# - **letters and digits**, the same as in lesson 13, so that MAE and SimCLR can be compared;
# - **emoji**; whole *concepts* are held out, so no variant of a test emoji is in training;
# - **photographs** of the package scikit-image, cut into tiles. Neighbouring tiles overlap, so
#   whole *photographs* are held out: a cat, a cup of coffee, coins.
#
# <!-- slide
# No labels; what is tested is held out:
#
# - **letters and digits**, as in lesson 13
# - **emoji**; whole *concepts* are held out
# - **photographs**, in tiles; whole *photographs* are held out
#
# Emoji: OpenMoji, CC BY-SA 4.0.
# -->
#
# <!-- notes
# Ask what would go wrong if tiles were split at random: neighbouring tiles overlap, so a test tile
# would be half known. How many pictures there are, the names of the photographs and who made them is
# printed in the notebook.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
task = views.digits_task()
georgian = views.letters_task("Georgian")
everything = emoji.load(languages=("en",))
parts = {part: everything.split(part) for part in ("train", "test")}
shots = photographs.load()
letters = recipe.pictures_of("letters").pictures
print("letters and digits:", tuple(letters.shape))
print("emoji:", {part: len(found) for part, found in parts.items()})
concepts = [set(found.concepts.tolist()) for found in parts.values()]
print("concepts in both parts:", len(concepts[0] & concepts[1]))
print("photographs to learn from:", ", ".join(shots.split("train").names))
print("photographs held out:", ", ".join(shots.split("test").names))

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
catalog = source.catalog()
for name in ("glyphs", "digits", "emoji_pictures", "photographs"):
    print(f"{catalog[name].title}. {catalog[name].licence}. {catalog[name].attribution}\n")

# %% slideshow={"slide_type": "-"}
unseen_tiles = torch.cat(
    [
        photographs.tiles([name], tile=side)[at : at + 1]
        for name, side, at in (
            ("chelsea", 64, 41),
            ("chelsea", 128, 7),
            ("chelsea", 64, 60),
            ("coffee", 64, 80),
            ("coffee", 128, 18),
            ("coins", 64, 30),
        )
    ]
)
tiles_shown = views.fractions(unseen_tiles)
seen_tiles = recipe.pictures_of("photographs").pictures
variety = seen_tiles.float().flatten(1).std(1)
varied = seen_tiles[variety > variety.median()]  # the other half is sky and plain walls
letters_shown, seen_shown = (
    views.fractions(one[torch.linspace(40, len(one) - 40, len(emoji_shown)).long()])
    for one in (letters, varied)
)
plots.image_grid(
    [*letters_shown, *emoji_shown, *seen_shown],
    columns=len(emoji_shown),
    size=60,
    title="Letters and digits, emoji, tiles of photographs",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0.
# The authors of the photographs stand in the cell above.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predict, then pretrain
#
# Write down your guesses:
#
# 1. Hide 75 of 100 patches instead of 25: how many times as many pictures a second will the
#    network learn from?
# 2. An emoji of which you see a quarter. Who paints the rest better: a network that has seen other
#    emoji, or who copies the nearest patch that is visible?
# 3. A linear probe on frozen features, with the same ViT: will MAE or SimCLR tell digits better?
#    And after fine-tuning?
#
# The patches of letters are normalised, so a decoder that paints nothing has a known loss: the
# mean square of what it should have painted. Patches of bare paper count as zero.
#
# <!-- slide
# Write down your guesses:
#
# 1. Hide 75 of 100 patches instead of 25: how many times as many pictures a second?
# 2. An emoji of which you see a quarter. Who paints the rest better: a network that has seen other
#    emoji, or who copies the nearest visible patch?
# 3. A linear probe on frozen features, the same ViT: will MAE or SimCLR tell digits better? And after
#    fine-tuning?
# -->
#
# <!-- notes
# Two minutes, in pairs, numbers on paper. Many say "four times" in 1. Leave the answers on the board;
# each is settled in a section of its own. What is printed is the loss to beat.
# -->

# %% slideshow={"slide_type": "fragment"}
sizes = lesson.config("mae")
data = recipe.pictures_of(sizes.pictures)
unseen_digits = (spread(task.test_images) * 255).round().to(torch.uint8)
torch.manual_seed(seed)
fresh = recipes.get("mae").model(sizes, data).eval().to(device())  # its last layer is zero at first
nothing = recipe.painting_error(sizes, fresh, unseen_digits)
print(f"loss on unseen digits when nothing is painted: {nothing:.3f}")
print(f"patches of a picture: {fresh.config.encoder.patches}, visible: {fresh.config.kept}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Live
#
# <!-- notes
# Half a minute of training on a laptop with two cores. The curve begins where nothing is painted. A
# common misunderstanding: to compare its end with the loss on the slide before. That one is for
# unseen digits, the curve for warped letters and digits; the lines below compare like with like. Ask
# why it falls so slowly: much of what is hidden cannot be known from what is visible.
# -->

# %% slideshow={"slide_type": "-"}
live = lesson.pretrain("mae")

# %% slideshow={"slide_type": "-"}
live_loss = recipe.painting_error(sizes, live.model, unseen_digits)
speed, unit = live.history.units_per_second, live.history.unit
lesson.record("live_test_loss", live_loss, "squared error of normalised pixels", "unseen digits")
lesson.record("nothing_test_loss", nothing, "squared error of normalised pixels", "unseen digits")
print(f"{live.history.steps} steps, {speed:,.0f} {unit} a second")
print(f"unseen digits: {live_loss:.3f}; painting nothing: {nothing:.3f}")
print("(The curve is of warped letters and digits, which are harder; these two are of one kind.)")

# %% [markdown] slideshow={"slide_type": "skip"}
# What MAE becomes with more time, and on other pictures, is shown with the checkpoints that ship
# with the repository.

# %% slideshow={"slide_type": "skip"}
long = {
    name: lesson.load(name)
    for name in ("mae", "mae_emoji", "mae_photographs", "beit", "simclr_vit", "simclr")
}
where = device()

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How much to hide
#
# The same network, the same number of steps, four shares. These runs are short: look at the speed,
# and at the quality only with care. The probe is that of a later section: digits with 100 labels,
# frozen features.
#
# <!-- slide
# The same network, the same number of steps, four shares. Look at the **speed**; these runs are too
# short to rank the quality (the probe: digits, 100 labels).
# -->
#
# <!-- notes
# Question 1 of the guesses. Ask why a quarter of the tokens does not give four times the speed: the
# decoder reads all places whatever is hidden, and warping the pictures costs something too.
# -->

# %% slideshow={"slide_type": "skip"}


def frozen(model, pictures):
    """What an encoder says about pictures; nothing is learned."""
    return views.features(model, pictures)


def drawn_rows(labels, count):
    """The pictures that are drawn at least once: only these need be read."""
    drawn = [evaluate.draw_labels(labels, count, draw) for draw in range(probe_draws)]
    return torch.cat(drawn).unique()


def probe(encode, job, count):
    """Accuracy over draws of `count` labels. `encode` turns pictures into features."""
    drawn = drawn_rows(job.labels, count)
    found = encode(job.images[drawn])
    features = torch.zeros(len(job.labels), found.shape[1])
    features[drawn] = found
    images, labels = spread(job.test_images), spread(job.test_labels)
    # One example of each class leaves nothing to choose by: then the strength is given.
    given = lesson.smoke or count == job.classes
    strengths = (1.0,) if given else (1e-3, 1e-2, 0.1, 1.0)

    def method(x, y, test_x, test_y, *, metric, seed):
        return evaluate.linear_probe(
            x, y, test_x, test_y, strengths=strengths, metric=metric, seed=seed
        )

    return evaluate.few_label(
        features, job.labels, encode(images), labels, (count,), probe_draws, method
    )[count]


ablation = {}
for part in shares:
    choices = dataclasses.replace(sizes, share=part, steps=ablation_steps, batch=ablation_batch)
    torch.manual_seed(seed)
    network = recipes.get("mae").model(choices, data)
    schedule = dataclasses.replace(recipes.get("mae").training(choices, data), seed=seed)
    history = fit(network, recipes.get("mae").batches(choices, data, seed), schedule)
    score = probe(lambda x, model=network: frozen(model, x), task, 100)
    ablation[part] = (network.config.kept, history.usual_rate(), score)

# %% slideshow={"slide_type": "-"}
rows = [
    (f"{part:.0%}", f"{kept}", f"{per_second:,.0f}", f"{score:.1%}")
    for part, (kept, per_second, score) in ablation.items()
]
for part, (_, per_second, score) in ablation.items():
    lesson.record(f"speed_{part * 100:.0f}", per_second, "pictures a second", "hidden share in %")
    lesson.record(f"ablation_probe_{part * 100:.0f}", score.mean, "accuracy", "digits, 100 labels")
columns = ("hidden", "patches that the encoder reads", "pictures a second", "probe")
display(Table(columns, rows))

# %% [markdown] slideshow={"slide_type": "fragment"}
# At equal *steps* all have seen the same number of pictures; at equal *time* the fast ones have
# seen more. The decoder reads all places whatever is hidden, and warping the pictures costs
# something too, so a quarter of the tokens does not mean four times the speed. The larger the
# encoder, the nearer it comes.
#
# <!-- slide
# - At equal *steps* all have seen as many pictures; at equal *time* the fast ones have seen **more**.
# - The decoder reads all places, whatever is hidden: so not four times the speed.
# - The larger the encoder, the nearer it comes.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What did it learn?
#
# ### Painting emoji it has never seen
#
# One emoji of each category, of concepts that no network here was trained on. Above the truth, in
# the middle what the encoder sees, below what is painted.
#
# <!-- slide
# One emoji of each category, of concepts that no network here was trained on:
# -->
#
# <!-- notes
# Let the class choose the best and the worst painting, and say why. Symmetry, a frame, one large
# colour: these are continued. A face in the hidden part is lost. This is the shipped checkpoint,
# trained for longer; it paints plain pixels, so nothing is taken from the truth.
# -->

# %% slideshow={"slide_type": "skip"}


def paint(model, images, seed=0):
    """The pictures, with holes, and with the holes painted by the model."""
    places = model.config.encoder.patches
    noise = torch.rand(len(images), places, generator=torch.Generator().manual_seed(seed))
    whole, mask = (x.cpu() for x in model.reconstruct(images.to(where), noise.to(where)))
    return [*images, *holed(images, mask), *whole.clamp(0, 1)]


painting_rows = ["truth", "visible", "MAE"]

# %% slideshow={"slide_type": "-"}
plots.image_grid(
    paint(long["mae_emoji"].model, emoji_shown),
    columns=len(emoji_shown),
    row_titles=painting_rows,
    size=64,
    title="Emoji of held-out concepts",
)

# %% slideshow={"slide_type": "skip"}
print("From left to right:", "; ".join(emoji_names))

# %% [markdown] slideshow={"slide_type": "subslide"}
# <!-- slide
# ### Photographs it has never seen
# -->
#
# <!-- notes
# Ask before you show the words: would a larger network paint sharp hair? A common misunderstanding:
# blur means too little training. It is what this loss asks for.
# -->

# %% slideshow={"slide_type": "-"}
plots.image_grid(
    paint(long["mae_photographs"].model, tiles_shown),
    columns=len(tiles_shown),
    row_titles=painting_rows,
    size=90,
    title="Tiles of held-out photographs: cat, coffee, coins",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The paintings are blurred, and have to be. Where several things may stand in a hole, the squared
# error is smallest for their **mean**, and the mean of sharp pictures is a blurred one. Lines that
# enter a hole are continued; what lies wholly in the hidden part is lost.
#
# <!-- slide
# Blurred, and it has to be: where several things may stand in a hole, the squared error is smallest
# for their **mean**, and the mean of sharp pictures is a blurred one.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# <!-- slide
# ### Digits it has never seen, and a trap
# -->
#
# <!-- notes
# Ask who can explain the row of the fresh network before you show the words. It is the most useful
# question to take home: what in this picture does the network not have to know?
# -->

# %% slideshow={"slide_type": "-"}
digits_shown = task.test_images[torch.arange(8) * (len(task.test_images) // 8)]
plots.image_grid(
    [
        *paint(fresh, digits_shown),
        *paint(live.model, digits_shown)[-8:],
        *paint(long["mae"].model, digits_shown)[-8:],
    ],
    columns=8,
    row_titles=["truth", "visible", "fresh", "live", "long"],
    size=60,
    title="Unseen digits",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Even the **fresh**, untrained network seems to paint. The networks for letters paint *normalised*
# patches, so mean and contrast of each hidden patch are taken from the truth, as in the paper's
# figures: look for what is *inside* the patches. The networks for emoji and for photographs are
# trained on plain pixels; there, nothing is taken from the truth.
#
# <!-- slide
# Even the **fresh**, untrained network seems to paint! Mean and contrast of each hidden patch are
# taken **from the truth**, as in the paper's figures. Look *inside* the patches.
# -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Against painters that learned nothing
#
# How good is a painting? A number says little without its rivals:
#
# - the **mean picture** of training: the same for every emoji;
# - the **mean colour** of the visible patches;
# - a copy of the **nearest visible patch**;
# - a **blend** of the visible patches' mean colours, near ones more.
#
# All paint the same hidden patches of the same held-out pictures. The error is the mean square of
# the difference, in pixels from 0 (dark) to 1.
#
# <!-- slide
# The same hidden patches, the same pictures, and rivals without training:
#
# - the **mean picture** of training
# - the **mean colour** of what is visible
# - a copy of the **nearest** visible patch
# - a **blend** of visible colours, near ones more
# -->
#
# <!-- notes
# Question 2 of the guesses. Let the class rank the four rivals before you show the bars. Then ask
# why the nearest patch comes last on emoji and not on photographs.
# -->

# %% slideshow={"slide_type": "skip"}


def rivals(images, noise, kept, train):
    """Mean squared error of hidden patches for each painter that sees what MAE sees."""
    patches = patchify(images, PATCH)
    count, places, numbers = patches.shape
    mask = noise.argsort(1).argsort(1) >= kept
    seen = ~mask[..., None]
    side = images.shape[-1] // PATCH
    grid = torch.stack([torch.arange(places) // side, torch.arange(places) % side], 1).float()
    distance = torch.cdist(grid, grid)  # from patch to patch, in patches
    colours = patches.unflatten(2, (images.shape[1], -1)).mean(-1)
    mean_colour = (colours * seen).sum(1, keepdim=True) / kept
    reach = distance.expand(count, -1, -1).masked_fill(mask[:, None], torch.inf)
    nearest = reach.argmin(2)
    weight = reach.clamp(min=0.5) ** -3.0  # of each visible patch; a hidden one is infinitely far
    blend = (weight / weight.sum(2, keepdim=True)) @ colours

    def flat(colour):
        return colour.repeat_interleave(PATCH**2, dim=-1)

    paintings = {
        "mean picture": patchify(train.mean(0, keepdim=True), PATCH).expand_as(patches),
        "mean colour": flat(mean_colour).expand_as(patches),
        "nearest visible patch": patches.gather(1, nearest[..., None].expand(-1, -1, numbers)),
        "blend of visible colours": flat(blend),
    }
    errors = {name: (found - patches).square() for name, found in paintings.items()}
    return {name: float(error[mask].mean()) for name, error in errors.items()}


# %% slideshow={"slide_type": "skip"}
tiles = photographs.tiles(shots.split("test").names, tile=(32, 64, 128))
unseen = {"emoji": spread(unseen_emoji.pictures), "photographs": spread(tiles)}
painting = {}
for name, pictures in unseen.items():
    run = long[f"mae_{name}"]
    # The same noise as in painting_error, so that all painters have the same patches to paint.
    noise = torch.rand(
        len(pictures), run.model.config.encoder.patches, generator=torch.Generator().manual_seed(0)
    )
    train = views.fractions(recipe.pictures_of(name).pictures)
    errors = rivals(views.fractions(pictures), noise, run.model.config.kept, train)
    errors["MAE, long"] = recipe.painting_error(run.config, run.model, pictures)
    painting[name] = errors

# %% slideshow={"slide_type": "-"}
keys = {
    "mean picture": "mean_picture",
    "mean colour": "mean_colour",
    "nearest visible patch": "nearest",
    "blend of visible colours": "blend",
    "MAE, long": "mae",
}
for name, errors in painting.items():
    for painter, error in errors.items():
        note = f"hidden patches of {len(unseen[name])} held-out pictures"
        lesson.record(
            f"painting_{name}_{keys[painter]}", error, "squared error, pixels 0 to 1", note
        )
figure, both = plots.panels(2, 1, width=640, height=500)
for axes, (name, errors) in zip(both, painting.items(), strict=True):
    plots.bars(
        errors,
        axes=axes,
        digits=4,
        highlight=("MAE, long",),
        xlabel="mean squared error of hidden patches (smaller is better)",
        title=f"Held-out {name}",
    )
written = [
    f"{name}: " + ", ".join(f"{painter} {error:.4f}" for painter, error in errors.items())
    for name, errors in painting.items()
]
plots.show(figure, "Mean squared error of hidden patches. " + ". ".join(written) + ".")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Blending colours is the rival to watch. On photographs neighbouring patches are alike, so blending
# goes a long way; emoji have edges, outlines and symmetry, and there it pays to know what emoji
# look like.
#
# <!-- slide
# On photographs blending goes a long way: neighbours are alike. On emoji it pays to **know what emoji
# look like**.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ### BEiT: guess a word, not pixels
#
# BEiT came some months earlier and stayed closer to BERT. First make a *vocabulary of patches*.
# Then each patch has a **visual token**, the number of the nearest typical patch, and the network
# guesses the tokens of hidden patches: a classification, with a softmax, as in BERT. The paper's
# tokenizer is a trained network (that of DALL-E). Ours is k-means, so it can be looked at:
#
# <!-- slide
# First make a **vocabulary of patches**: here k-means. Then each patch has a **visual token**, the
# number of the nearest typical patch.
#
# | | MAE | BEiT |
# |---|---|---|
# | guesses | pixels | tokens |
# | loss | squared error: a mean, so it blurs | softmax, as in BERT: it must choose |
# | hides | three quarters, patch by patch | less, in whole blocks |
# | the encoder reads | what is visible | all places, mask tokens included |
# -->
#
# <!-- notes
# Ask which loss blurs and which does not: a softmax can say "either this or that", a squared error
# must answer with the mean. The paper's tokenizer is a trained network.
# -->

# %% slideshow={"slide_type": "skip"}
beit = long["beit"]
codes: PatchCodes = beit.model.codes.cpu()
pick = torch.Generator().manual_seed(1)
some_letters = views.fractions(letters[torch.randperm(len(letters), generator=pick)[:1500]])
counts = torch.bincount(codes.encode(some_letters).flatten(), minlength=len(codes.codes))
frequent = counts.argsort(descending=True)
print(
    f"{len(codes.codes)} typical patches; the most frequent one: {counts.max() / counts.sum():.0%}"
)

# %% slideshow={"slide_type": "-"}
plots.image_grid(
    list(codes.codes[frequent[:30]].clamp(0, 1).unflatten(1, (-1, codes.patch, codes.patch))),
    columns=15,
    size=32,
    title="The thirty most frequent visual tokens",
)

# %% slideshow={"slide_type": "subslide"}
tokens = codes.encode(digits_shown)
read_back = codes.decode(tokens).clamp(0, 1)
block_mask = blockwise_mask(
    8, beit.model.encoder.config.side, beit.config.share, torch.Generator().manual_seed(2)
)
with torch.no_grad():
    guessed = (
        beit.model.encoder.logits(digits_shown.to(where), block_mask.to(where)).argmax(-1).cpu()
    )
filled = codes.decode(torch.where(block_mask, guessed, tokens)).clamp(0, 1)
plots.image_grid(
    [*digits_shown, *read_back, *holed(digits_shown, block_mask), *filled],
    columns=8,
    row_titles=["truth", "tokens", "visible", "guessed"],
    size=60,
    title="Unseen digits in visual tokens, and BEiT's guesses",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# BEiT hides less than MAE, in whole **blocks**: a lone missing patch could be guessed from its
# neighbours. It reads all places, mask tokens included, so it saves nothing. And it never blurs: it
# must choose one token.
#
# <!-- slide
# Second row: the truth in tokens, the best it could do. Why is the table's second line the honest
# one?
# -->
#
# <!-- notes
# About every second patch is empty paper, so the share of right guesses is flattered; that is why
# the table has a second line.
# -->

# %% slideshow={"slide_type": "skip"}
pictures = spread(task.test_images)
mask = blockwise_mask(
    len(pictures),
    beit.model.encoder.config.side,
    beit.config.share,
    torch.Generator().manual_seed(0),
)
truth = codes.encode(pictures)
with torch.no_grad():
    guesses = torch.cat(
        [
            beit.model.encoder.logits(part.to(where), hidden.to(where)).argmax(-1).cpu()
            for part, hidden in zip(pictures.split(250), mask.split(250), strict=True)
        ]
    )
right, common = guesses == truth, truth == frequent[0]
beit_right, beit_common = (float(x.float().mean()) for x in (right[mask], common[mask]))
beit_rare = float(right[mask & ~common].float().mean())
lesson.record("beit_right", beit_right, "share of hidden tokens", "unseen digits")
lesson.record("beit_most_frequent", beit_common, "share of hidden tokens", "always the same guess")
lesson.record("beit_right_elsewhere", beit_rare, "share of hidden tokens", "others than that one")

# %% slideshow={"slide_type": "-"}
display(
    Table(
        ("hidden patches of unseen digits", "BEiT, long", "always the most frequent token"),
        [
            ("all", f"{beit_right:.1%}", f"{beit_common:.1%}"),
            ("those that are not the most frequent token", f"{beit_rare:.1%}", f"{0:.1%}"),
        ],
    )
)

# %% [markdown] slideshow={"slide_type": "skip"}
# **iBOT** (2021) joins two lines. As in BEiT, tokens of hidden patches are guessed. But the
# tokenizer is not made beforehand: it is a slowly moving copy of the network itself, as in DINO
# (lesson 14), so that the tokens mean more the more the network has learned; and the class token
# is trained like DINO's. DINOv2 goes on from there.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Adapt it
#
# ### Two ways to use an encoder
#
# - **Linear probe:** freeze the encoder, and train a linear layer on what it says. Fast, and it
#   asks: are the classes *already* separated?
# - **Fine-tuning:** put a linear layer on top, and let all weights learn on. It asks: is this a
#   good *place to start*?
#
# The tasks of lesson 13: handwritten digits with 20 and with 100 labels in all, and Georgian
# letters, a script that no network has seen, with one example of each letter. MAE and SimCLR have
# the same ViT and saw the same pictures.
#
# <!-- slide
# - **Linear probe:** freeze the encoder, train a linear layer on what it says. Are the classes
#   *already* separated?
# - **Fine-tuning:** a linear layer on top, and all weights learn on. Is this a good *place to start*?
#
# The tasks of lesson 13: digits with **20** and with **100** labels in all, and **Georgian**, one
# example of each letter.
#
# MAE and SimCLR have the **same ViT** and saw the same pictures. Which of them wins which contest?
# -->
#
# <!-- notes
# Question 3 of the guesses: let them vote again, now that they have seen what MAE paints. Ask which of
# the two ways they would use with a thousand tasks (a probe), and which with one that matters
# (fine-tuning).
# -->

# %% slideshow={"slide_type": "skip"}
tasks = {
    "digits, 20 labels": (task, 20),
    "digits, 100 labels": (task, 100),
    "Georgian, one each": (georgian, georgian.classes),
}


def encoder_of(run):
    """The part of a pretrained network that is kept."""
    return getattr(run.model, "encoder", run.model)


def untrained(classes=0):
    """The same ViT without pretraining."""
    torch.manual_seed(seed)
    made = recipes.get("mae").model(long["mae"].config, long["mae"].data)
    return made.with_new_head(classes)


encoders = {  # row of the table -> a model that encodes pictures
    "random ViT": untrained(),
    "MAE, live": live.model.encoder,
    "MAE, long": encoder_of(long["mae"]),
    "BEiT, long": encoder_of(long["beit"]),
    "SimCLR with the ViT, long": encoder_of(long["simclr_vit"]),
    "SimCLR with a ConvNet, long": encoder_of(long["simclr"]),
}
result_keys = {
    "raw pixels": "pixels",
    "random ViT": "random",
    "ViT from scratch": "scratch",
    "ViT from scratch, as few steps": "scratch_short",
    "MAE, live": "mae_live",
    "MAE, long": "mae",
    "BEiT, long": "beit",
    "SimCLR with the ViT, long": "simclr_vit",
    "SimCLR with a ConvNet, long": "simclr",
}
task_keys = dict(zip(tasks, ("digits20", "digits100", "georgian"), strict=True))

# %% [markdown] slideshow={"slide_type": "skip"}
# **Probes**, over several draws of the labels, the same for every row.

# %% slideshow={"slide_type": "skip"}
began = time.perf_counter()
probed = {name: {"raw pixels": probe(lambda x: x.flatten(1), *job)} for name, job in tasks.items()}
for row, model in encoders.items():
    for name, job in tasks.items():
        probed[name][row] = probe(lambda x, model=model: frozen(model, x), *job)
for name, found in probed.items():
    for row, score in found.items():
        lesson.record(f"{task_keys[name]}_{result_keys[row]}_probe", score.mean, "accuracy")
print(f"probing took {time.perf_counter() - began:.0f} s")

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Fine-tuning** takes seconds for each run, so not all cells of the table are filled. Add rows to
# `tuned_rows` if you have the time. All see the labelled pictures warped as in pretraining, *from
# scratch* too. That row comes twice: with as few steps as the others, and with many more. The
# checkpoints differ in steps (their cards say so): SimCLR sees each picture twice and whole, so its
# steps are slower.
#
# <!-- slide
# All see the labelled pictures warped as in pretraining, *from scratch* too.
# -->
#
# <!-- notes
# Read one column at a time. Start with raw pixels: which encoders are above them, and where? Scores
# with ± are means over several draws of the labels. Fine-tuning ran once: look for large differences
# only.
# -->

# %% slideshow={"slide_type": "skip"}
gentle = {"optimizer": "muon", "learning_rate": 1e-3, "warmup": 0.05, "weight_decay": 0.05}
eager = {"optimizer": "muon", "learning_rate": 1e-3, "warmup": 0.05, "weight_decay": 0.05}
tuned_rows = {  # task -> rows
    "digits, 100 labels": (
        "ViT from scratch, as few steps",
        "ViT from scratch",
        "MAE, long",
        "SimCLR with the ViT, long",
    ),
}


def starting_point(row, classes):
    """A network with a new head, and the schedule that suits it."""
    if row.startswith("ViT from scratch"):
        steps = tune_steps if row.endswith("few steps") else scratch_steps
        return untrained(classes), TrainConfig(steps=steps, **eager)
    return encoders[row].with_new_head(classes), TrainConfig(steps=tune_steps, **gentle)


def fine_tuned(row, job, count):
    """Accuracy after fine-tuning on `count` labels, over draws."""

    def method(images, labels, test_images, test_labels, *, metric, seed):
        model, schedule = starting_point(row, job.classes)
        images, labels = images.to(where), labels.to(where)

        def batch(step, generator):
            rows = torch.randint(len(labels), (tune_batch,), generator=generator).to(where)
            return Pictures(views.CHANGES["letters"](images[rows], generator), labels[rows])

        fit(model, batch, dataclasses.replace(schedule, seed=seed))
        model.eval()
        with torch.no_grad():
            answers = [model.logits(x.to(where)).argmax(1).cpu() for x in test_images.split(250)]
        return evaluate.accuracy(torch.cat(answers), test_labels)

    images, labels = spread(job.test_images), spread(job.test_labels)
    return evaluate.few_label(job.images, job.labels, images, labels, (count,), tune_draws, method)[
        count
    ]


began = time.perf_counter()
tuned = {
    name: {row: fine_tuned(row, *tasks[name]) for row in rows} for name, rows in tuned_rows.items()
}
for name, found in tuned.items():
    for row, score in found.items():
        ending = "" if row.startswith("ViT from scratch") else "_finetuned"
        lesson.record(f"{task_keys[name]}_{result_keys[row]}{ending}", score.mean, "accuracy")
print(f"fine-tuning took {time.perf_counter() - began:.0f} s")

# %% slideshow={"slide_type": "-"}
columns = [(name, kind) for name in tasks for kind in (probed, tuned) if name in kind]
rows = [
    (row, *(f"{kind[name][row]:.1%}" if row in kind[name] else "–" for name, kind in columns))
    for row in ("raw pixels", "random ViT", *list(result_keys)[2:4], *list(encoders)[1:])
]
heads = [f"{name}: {'probe' if kind is probed else 'fine-tuned'}" for name, kind in columns]
display(Table(("", *heads), rows))

# %% [markdown] slideshow={"slide_type": "subslide"}
# <!-- slide
# ### The contest in one picture
# -->
#
# <!-- notes
# Ask for each network: what does fine-tuning change? Then for the lines: how far does the same ViT
# come without pretraining? All fine-tuned bars and both lines are single runs.
# -->

# %% slideshow={"slide_type": "-"}
shown = "digits, 100 labels"
plots.bars(
    {
        row: {
            kind: found[shown][row].mean
            for kind, found in (("probe", probed), ("fine-tuned", tuned))
            if row in found[shown]
        }
        for row in ("MAE, long", "SimCLR with the ViT, long")
    },
    percent=True,
    baseline={
        "from scratch, more steps": tuned[shown]["ViT from scratch"].mean,
        "from scratch": tuned[shown]["ViT from scratch, as few steps"].mean,
    },
    xlabel="unseen digits named right",
    title="Digits with 100 labels: two ways to use the same ViT",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Why the two rank differently
#
# **SimCLR** is trained to call two warped views of a picture the same. So its features *throw away*
# what the warp changes (place, slant, thickness) and keep what stays: which letter it is. That is
# nearly the task, so a linear layer finds the classes at once.
#
# **MAE** must paint, and for that it has to *keep* all of it: where the stroke is, how thick, how
# it leans. The class is in there, among much else, in no particular direction. A linear layer on
# the mean of the patches has to find it from few labels. Let the weights move, and the encoder can
# drop what the task does not need: fine-tuning gains most where the probe was weak. What MAE buys
# here is a quick start: from scratch the network is still improving when its steps end, and with
# many more of them it may well catch up.
#
# How little a linear layer finds shows the first line of the table: **raw pixels**. They, too, keep
# everything, and a probe on frozen MAE features does not beat them; for Georgian it is far behind.
#
# Which of the two is better depends on what you will do with it. And who wrote the warps knew that
# slant does not change a letter: SimCLR was told something that MAE was not.
#
# <!-- slide
# | | SimCLR | MAE |
# |---|---|---|
# | must | call two warped views the same | paint what is hidden |
# | so its features | throw away place, slant, thickness | keep all of it |
# | the class | stands out | is in there, among much else |
# | linear probe | finds it at once | does not beat raw pixels |
# | fine-tuning | has little to add | drops what the task does not need |
#
# **SimCLR was told something that MAE was not:** slant does not change a letter.
# -->
#
# <!-- notes
# Ask which of the two they would take to find out *where* something is in a picture, or how thick a
# stroke is. A common misunderstanding: a weak probe means that nothing was learned.
# -->

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In the library
#
# ### transformers, the reference
#
# Weights of the library's `ViTMAEForPreTraining` and `BeitForMaskedImageModeling` in our classes:
# the same numbers in double and in single precision.
#
# <!-- slide
# Weights of the library's `ViTMAEForPreTraining` in our class, and back: the same numbers, in double
# and in single precision.
# -->
#
# <!-- notes
# The notebook does the same for `BeitForMaskedImageModeling`, and hands our long checkpoint to the
# library. With a network you can fetch the weights that the authors trained on ImageNet. Ask why one
# compares gradients as well: two losses can agree by chance, or where a part is never reached.
# -->

# %% slideshow={"slide_type": "skip"}
from transformers import BeitConfig, BeitForMaskedImageModeling, ViTMAEConfig, ViTMAEForPreTraining

from pfmcourse import convert

tiny = {
    "image_size": 12,
    "patch_size": 3,
    "num_channels": 2,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
decoder = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 10,
    "norm_pix_loss": True,
}
torch.manual_seed(0)
images = torch.rand(3, 2, 12, 12, dtype=torch.float64)
noise = torch.rand(3, 16, dtype=torch.float64)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


def randomised(reference, dtype):
    """The reference with all weights random: none can be taken for another."""
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return reference.to(dtype).eval()


def same_weights(first, second):
    """Every weight is there, and none has changed."""
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# %% slideshow={"slide_type": "-"} tags=["nbval-check-output"]
for dtype, tolerance in TOLERANCE.items():
    reference = randomised(ViTMAEForPreTraining(ViTMAEConfig(**tiny, **decoder)), dtype)
    ours = convert.from_transformers(reference)
    theirs = reference(images.to(dtype), noise=noise.to(dtype))
    loss = ours(images.to(dtype), noise.to(dtype))["loss"]
    _, mask = ours.reconstruct(images.to(dtype), noise.to(dtype))
    theirs.loss.backward()
    loss.backward()
    theirs_gradient = reference.vit.embeddings.patch_embeddings.projection.weight.grad.flatten(1)
    gap = (theirs_gradient - ours.encoder.patch_embedding.weight.grad).abs().max()
    print(f"MAE, {dtype}: same loss:", abs(theirs.loss.item() - loss.item()) < tolerance)
    print("  same patches hidden:", torch.equal(mask, theirs.mask.bool()))
    print("  same gradient of the patch embedding:", float(gap) < 10 * tolerance)
    print("  there and back:", same_weights(reference, convert.to_transformers(ours)))

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
extra = {"vocab_size": 7, "use_mask_token": True, "use_relative_position_bias": True}
torch.manual_seed(1)
mask, tokens = torch.rand(3, 16) < 0.4, torch.randint(7, (3, 16))
for dtype, tolerance in TOLERANCE.items():
    reference = randomised(BeitForMaskedImageModeling(BeitConfig(**tiny, **extra)), dtype)
    ours = convert.from_transformers(reference)
    theirs = reference(images.to(dtype), mask, labels=tokens[mask])
    with torch.no_grad():
        logits = ours.logits(images.to(dtype), mask)
        loss = ours(MaskedPictures(images.to(dtype), mask, tokens))["loss"]
    print(f"BEiT, {dtype}: same guesses:", bool((theirs.logits - logits).abs().max() < tolerance))
    print("  same loss:", abs(theirs.loss.item() - loss.item()) < tolerance)
    print("  there and back:", same_weights(reference, convert.to_transformers(ours)))

ours = long["mae"].model.cpu().double()
handed_over = convert.to_transformers(ours)
digits = task.test_images[:4].double()
order = torch.rand(4, ours.config.encoder.patches, dtype=torch.float64)
losses = handed_over(digits, noise=order).loss, ours(digits, order)["loss"]
same = abs(losses[0].item() - losses[1].item()) < 1e-9
long["mae"].model.float().to(where)
print("our long checkpoint in the library, same loss:", same)

# %% [markdown] slideshow={"slide_type": "skip"}
# **Real public weights.** With a network, the library fetches MAE as its authors trained it on
# ImageNet, and our class takes the weights. Nothing here needs the network, so this is off.

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
fetch = False  # True: some 450 MB from the Hugging Face hub
wanted = "facebook/vit-mae-base"
if fetch and not offline.active():
    real = convert.from_transformers(ViTMAEForPreTraining.from_pretrained(wanted))
    print(wanted, real.config)
else:
    print(f"would load {wanted}, hand its weights to our MAE, and paint the same tiles")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Scale it
#
# The same recipes run on a GPU, and on several processes, without a change:
#
# ```
# pfmcourse pretrain mae --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain mae --preset gpu
# ```
#
# What does it save to encode a quarter? A block of width $d$ that reads $n$ tokens takes about $12
# n d^2$ multiply-adds for its matrices and $2 n^2 d$ for attention:
#
# <!-- slide
# ```
# pfmcourse pretrain mae --preset gpu
# torchrun --nproc-per-node 2 -m pfmcourse pretrain mae --preset gpu
# ```
#
# A block of width $d$ that reads $n$ tokens takes about $12 n d^2 + 2 n^2 d$ multiply-adds. In
# millions, for one picture:
# -->
#
# <!-- notes
# The same recipes run on a GPU and on several processes, without a change. Let the class compute one
# row: which of the two terms is the larger, at these sizes? Masked autoencoders need long training:
# the paper goes over ImageNet hundreds of times, and the fine-tuned score still rises.
# -->

# %% slideshow={"slide_type": "-"} tags=["nbval-check-output"]


def multiply_adds(tokens, dim, layers):
    """Of a Transformer: four matrices dim x dim and two dim x 4 dim a block, and the attention."""
    return layers * (12 * tokens * dim**2 + 2 * tokens**2 * dim)


ours = recipes.config("mae", "laptop")
networks = {  # patches, then width and layers of the encoder and of the decoder
    "ours, letters": (49, ours.dim, ours.layers, ours.decoder_dim, ours.decoder_layers),
    "paper, ViT-Base": (196, 768, 12, 512, 8),
    "paper, ViT-Large": (196, 1024, 24, 512, 8),
    "paper, ViT-Huge": (256, 1280, 32, 512, 8),
}
rows = []
for name, (places, width, depth, narrow, few) in networks.items():
    whole = multiply_adds(1 + places, width, depth)
    quarter = multiply_adds(1 + places // 4, width, depth)
    small_part = multiply_adds(1 + places, narrow, few)
    rows.append(
        (
            name,
            f"{whole / 1e6:,.0f}",
            f"{quarter / 1e6:,.0f}",
            f"{small_part / 1e6:,.0f}",
            f"{(whole + small_part) / (quarter + small_part):.1f}",
        )
    )
print(Table(("", "encoder, all", "a quarter", "decoder", "times cheaper"), tuple(rows)))

# %% [markdown] slideshow={"slide_type": "fragment"}
# In millions, for one picture. The decoder is the same for all of the paper's networks, so the
# larger the encoder, the nearer the saving comes to four. The `gpu` preset trains on the
# pictures of CIFAR-10:
#
# <!-- slide
# The paper's decoder stays the same: the larger the encoder, the nearer the saving comes to **four**.
# -->

# %% slideshow={"slide_type": "skip"}
laptop, gpu = (dataclasses.asdict(recipes.config("mae", name)) for name in ("laptop", "gpu"))
rows = [(name, f"{laptop[name]}", f"{gpu[name]}") for name in laptop if laptop[name] != gpu[name]]
display(Table(("MAE", "laptop", "gpu"), rows))

# %% [markdown] slideshow={"slide_type": "skip"}
# What to expect: masked autoencoders need long training; the paper goes over ImageNet for up to
# 1,600 epochs, and its fine-tuned score still rises. What they win grows with the size of the
# encoder.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Each has a checker. It tries your answer on small cases, and when it fails it says what the
# mistake looks like.
#
# <!-- slide
# 1. **Keep exactly so many**, and find the way back. Medium, 10 minutes.
# 2. **Normalise a patch**, and paint it back. Easy, 5 minutes.
# 3. **Only what was hidden:** the loss. Easy, 5 minutes.
# 4. **A tokenizer** for patches. Medium, 10 minutes.
#
# Each has a checker: it tries small cases, and says what a mistake looks like.
# -->
#
# <!-- notes
# 1 and 3 are the heart of MAE and can be done in class; 4 goes with BEiT. The usual stumbling block
# is the way back in 1: the order of an order is its inverse. Before 3, ask what the network would
# learn if the visible patches counted too.
# -->

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 1: Keep exactly so many, and find the way back
#
# **Difficulty: medium · 10 minutes**
#
# Each patch has a random number in `noise`; in each picture the `kept` patches with the smallest
# ones stay. Return their numbers, and the *way back*: with the patches shuffled so that the visible
# ones come first, `shuffled.gather(1, restore)` gives them in their old order.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def masking(noise, kept):
    """noise [batch, patches] -> visible [batch, kept], restore [batch, patches]."""
    ### BEGIN SOLUTION
    order = noise.argsort(dim=1)
    return order[:, :kept], order.argsort(dim=1)
    ### END SOLUTION


check.masking(masking)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 2: Normalise a patch, and paint it back
#
# **Difficulty: easy · 5 minutes**
#
# Give each patch mean 0 and variance 1 (the variance with $n - 1$, plus 1e-6 under the root:
# there is bare paper). Return the normalised patches, their means and their deviations. Then undo
# it.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def normalise(patches):
    """patches [batch, patches, numbers] -> normalised patches, means, deviations."""
    ### BEGIN SOLUTION
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    deviation = (variance + 1e-6).sqrt()
    return (patches - mean) / deviation, mean, deviation
    ### END SOLUTION


def paint_back(normalised, mean, deviation):
    """What `normalise` returned, or another normalised painting -> patches in colours."""
    ### BEGIN SOLUTION
    return normalised * deviation + mean
    ### END SOLUTION


check.normalise(normalise, paint_back)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 3: Only what was hidden
#
# **Difficulty: easy · 5 minutes**
#
# Return the mean squared error of the hidden patches. Before you write it: what would the network
# learn if the visible ones counted too? (The checker tells, if you get it wrong.)


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def hidden_error(painted, truth, mask):
    """painted, truth [batch, patches, numbers], mask [batch, patches], true: hidden -> a number."""
    ### BEGIN SOLUTION
    return (painted - truth)[mask].square().mean()
    ### END SOLUTION


check.hidden_error(hidden_error)

# %% [markdown] slideshow={"slide_type": "skip"}
# ### Exercise 4: A tokenizer for patches
#
# **Difficulty: medium · 10 minutes**
#
# Return for each patch the number of the code that is nearest in squared distance.


# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
def nearest_code(patches, codes):
    """patches [count, numbers], codes [vocab, numbers] -> tokens [count]."""
    ### BEGIN SOLUTION
    return (patches[:, None] - codes[None]).square().sum(-1).argmin(1)
    ### END SOLUTION


check.nearest_code(nearest_code)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Claims and summary
#
# Every sentence above that could be false, executed. Changed a parameter? Then some of these may
# fail: find out why.
#
# <!-- slide
# - Pictures repeat themselves: hide **most** of them, and encode only the rest. Harder *and* cheaper.
# - A network that **paints** keeps everything: its features want fine-tuning.
# - A network that was **told what does not matter** has features that a linear layer can read.
# - Judge a painting by its **rivals**, and know what was taken from the truth.
#
# **Open:** pixels are much work for little meaning; tokens need a tokenizer. Networks that teach
# themselves what to predict (iBOT, and DINO in lesson 14) try to have both.
# -->
#
# <!-- notes
# The claims of the lesson are executed at the end of the notebook, each with its numbers. Go back to
# the guesses on the board. Ask for a kind of data, not pictures and not text, that repeats itself so
# much that one should hide most of it.
# -->

# %% slideshow={"slide_type": "skip"} tags=["nbval-check-output"]
lesson.claim(
    "the live network paints unseen digits better than painting nothing",
    live_loss < 0.9 * nothing,
    f"{live_loss:.3f} against {nothing:.3f}",
)
for name, errors in painting.items():
    for rival in ("mean colour", "nearest visible patch"):
        lesson.claim(
            f"MAE paints held-out {name} better than the {rival}",
            errors["MAE, long"] < errors[rival],
            f"{errors['MAE, long']:.4f} against {errors[rival]:.4f}",
        )
lesson.claim(
    "on emoji it also beats the blend of visible colours",
    painting["emoji"]["MAE, long"] < painting["emoji"]["blend of visible colours"],
    f"{painting['emoji']['MAE, long']:.4f} against "
    f"{painting['emoji']['blend of visible colours']:.4f}",
)
lesson.claim(
    "hiding 75 of 100 patches trains on more pictures a second than hiding 25",
    ablation[0.75][1] > ablation[0.25][1],
    f"{ablation[0.75][1]:,.0f} against {ablation[0.25][1]:,.0f} pictures a second",
)
lesson.claim(
    "BEiT guesses hidden tokens better than by the most frequent one",
    beit_right > beit_common,
    f"{beit_right:.1%} against {beit_common:.1%}",
)
mae_probe = probed[shown]["MAE, long"]
for row, wins in (("random ViT", True), ("SimCLR with the ViT, long", False)):
    gap = evaluate.paired_difference(mae_probe, probed[shown][row])
    lesson.claim(
        f"a linear probe on MAE is {'better' if wins else 'worse'} than on: {row}",
        gap.low > 0 if wins else gap.high < 0,
        f"difference {gap:.1%}",
    )
over_pixels = evaluate.paired_difference(mae_probe, probed[shown]["raw pixels"])
lesson.claim(
    "a linear probe on MAE gains less than five points over raw pixels, if anything",
    over_pixels.mean < 0.05,
    f"difference {over_pixels:.1%}",
)
lesson.claim(
    "fine-tuning gains more for MAE than for SimCLR with the same ViT",
    tuned[shown]["MAE, long"].mean - mae_probe.mean
    > tuned[shown]["SimCLR with the ViT, long"].mean
    - probed[shown]["SimCLR with the ViT, long"].mean,
    f"MAE {mae_probe.mean:.1%} to {tuned[shown]['MAE, long'].mean:.1%}",
)
quick = tuned[shown]["ViT from scratch, as few steps"].mean
lesson.claim(
    "fine-tuned for a few steps, MAE is ahead of the same ViT from scratch with as many",
    tuned[shown]["MAE, long"].mean > quick,
    f"{tuned[shown]['MAE, long'].mean:.1%} against {quick:.1%}",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# **Remember.** Pictures repeat themselves, so hide most of them, and encode only the rest: that is
# harder *and* cheaper. A network that paints keeps everything, so its features want fine-tuning; a
# network that was told what does not matter has features that a linear layer can read. Judge a
# painting by its rivals, and know what was taken from the truth.
#
# **Left open.** Pixels are much work for little meaning; tokens need a tokenizer. Networks that
# teach themselves what to predict (iBOT, and DINO in lesson 14) try to have both. **Next:** lesson
# 16 leaves the grid: pretraining on graphs.

# %% slideshow={"slide_type": "skip"}
lesson.finish()
