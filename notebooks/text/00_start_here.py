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
from collections import Counter

import safetensors.torch
import scipy.stats
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from torch import nn

from pfmcourse import evaluate, plots, timeline
from pfmcourse.catalogue import lessons
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
# - **To teach**: every lesson is a slide deck as well. `pfmcourse slides` writes the decks; the notes for the speaker
#   are in the cells marked so.
# - **To build**: all code lives in the package `pfmcourse`. `pfmcourse run LESSON` executes a lesson,
#   `pfmcourse pretrain RECIPE` trains a model without a notebook, also on several GPUs.

# %% [markdown] slideshow={"slide_type": "subslide"}
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

# %% [markdown] slideshow={"slide_type": "subslide"}
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
# written by hand, and somebody has to look at each digit and say what it is.

# %% slideshow={"slide_type": "fragment"}
letters_data, digits_data = glyphs.load(), digits.load()
some_letters = torch.tensor([letters_data.letters.index(one) for one in "gKñшΨфԱლאس"[0:2] + "шΨфԱლאس"])
cheap = [torch.nonzero(letters_data.labels == label)[2].item() for label in some_letters]
dear = [500 * digit + 7 for digit in (3, 8, 1, 6, 9, 0, 4, 7, 2)]
plots.image_grid(
    [*letters_data.images[cheap, None], *digits_data.images[dear, None]],
    titles=[*(letters_data.letters[label] for label in some_letters), *"?????????"],
    columns=9,
    row_titles=["letters", "digits"],
)
