"""Vision against its peers: same machine, sizes and pictures, in turn, in one run; medians of paired rounds.

"as users run it" is the library's model in fp32 with AdamW. "same precision" gives it the autocast that ours runs in.
lightly is no requirement of the course: where it is not installed, torchvision's own transforms stand in, picture by
picture, as lightly applies them.
"""

import dataclasses
import importlib
import statistics

import torch
from measure import in_turn, matmul_flops, ratio, trainer
from torch.nn import functional as F

from pfmcourse import convert
from pfmcourse.models.convnet import ConvNet, ConvNetConfig, Pictures
from pfmcourse.models.mae import MAE, MAEConfig
from pfmcourse.models.simclr import SimCLR, TwoViews
from pfmcourse.models.vit import ViT, ViTConfig
from pfmcourse.nn.views import Views, view
from pfmcourse.recipes.simclr import fractions, unlabelled

ROWS = 128


def pictures(rows=ROWS):
    return fractions(unlabelled("emoji").pictures[:rows])


def one_by_one():
    """SimCLR's two views for pictures one at a time, and who made them."""
    try:
        transforms = importlib.import_module("lightly.transforms")
    except ImportError:
        from torchvision.transforms import v2

        jitter = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
        flip, grey = v2.RandomHorizontalFlip(), v2.RandomGrayscale(0.2)
        crop = v2.RandomResizedCrop(32, scale=(0.3, 1.0), antialias=True)
        change = v2.Compose([crop, flip, jitter, grey, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
        return (lambda picture: (change(picture), change(picture))), "torchvision"
    made = transforms.SimCLRTransform(input_size=32, cj_strength=0.5, min_scale=0.3, gaussian_blur=0.0, normalize=None)
    return made, "lightly"


def test_simclr_pictures_per_second(report):
    """One training step of 128 pictures with the same network: views made in one go, and made one by one."""
    from torchvision.transforms.functional import to_pil_image

    torch.set_num_threads(2)
    images = pictures()
    files = [to_pil_image(image) for image in images]
    generator, views = torch.Generator().manual_seed(0), Views(smallest=0.3)
    change, peer = one_by_one()
    models = [SimCLR(ConvNet(ConvNetConfig(1, 24, dim=256, channels=3, size=32))) for _ in range(2)]

    def in_one_go(model):
        return model(TwoViews(*view(torch.cat([images, images]), views, generator).chunk(2)))["loss"]

    def each_alone(model):
        pairs = [change(picture) for picture in files]
        return model(TwoViews(*(torch.stack(side) for side in zip(*pairs, strict=True))))["loss"]

    times = in_turn(
        {
            "ours": trainer(models[0], in_one_go, precise=False),
            "theirs": trainer(models[1], each_alone, precise=False),
            "our views": lambda: view(torch.cat([images, images]), views, generator),
            "their views": lambda: [change(picture) for picture in files],
        }
    )
    report(
        "simclr_pictures_per_second",
        peer=peer,
        ratio=ratio(times, "theirs", "ours"),
        ratio_of_the_views_alone=ratio(times, "their views", "our views"),
        pictures_per_second=ROWS / statistics.median(times["ours"]),
    )
    assert ratio(times, "theirs", "ours") > 1


def sized(**changes):
    return ViTConfig(**({"size": 32, "patch": 4, "dim": 128, "layers": 4, "heads": 4, "epsilon": 1e-12} | changes))


def vit_flops(config, rows):
    """Of one training step: 6 a weight and token, and attention's two products, forward and twice backward."""
    tokens = 1 + config.patches
    weights = 12 * config.layers * config.dim**2 + config.channels * config.patch**2 * config.dim
    return rows * tokens * (6 * weights + 12 * config.layers * tokens * config.dim)


def test_vit_training_against_transformers(report):
    torch.set_num_threads(2)
    torch.manual_seed(0)
    ours = ViT(sized(classes=8))
    batch = Pictures(pictures(), torch.randint(8, (ROWS,)))
    theirs, same = convert.to_transformers(ours), convert.to_transformers(ours)
    assert torch.allclose(ours.logits(batch.images), theirs(batch.images).logits, atol=1e-4)

    def reference(model):
        return F.cross_entropy(model(batch.images).logits, batch.labels)

    times = in_turn(
        {
            "ours": trainer(ours, lambda model: model(batch)["loss"], precise=False),
            "users": trainer(theirs.train(), reference, precise=True),
            "same": trainer(same.train(), reference, precise=False),
        }
    )
    fastest, peak = statistics.median(times["ours"]), matmul_flops()
    report(
        "vit_training_pictures_per_second_to_transformers",
        ratio_as_users_run_it=ratio(times, "users", "ours"),
        ratio_same_precision=ratio(times, "same", "ours"),
        pictures_per_second=ROWS / fastest,
        share_of_matrix_multiply_speed=vit_flops(ours.config, ROWS) / fastest / peak,
        matrix_multiply_gflops=peak / 1e9,
    )
    assert ratio(times, "users", "ours") > 1


def test_mae_training_against_transformers_and_against_all_patches(report):
    torch.set_num_threads(2)
    torch.manual_seed(0)
    config = MAEConfig(encoder=sized(positions="sincos", pooling="mean"))
    ours, images = MAE(config), pictures()
    theirs, same = convert.to_transformers(ours), convert.to_transformers(ours)
    noise = torch.rand(ROWS, config.encoder.patches)
    assert torch.allclose(ours(images, noise)["loss"], theirs(images, noise=noise).loss, atol=1e-4)
    nearly_all = MAE(dataclasses.replace(config, share=1 / 64))
    times = in_turn(
        {
            "ours": trainer(ours, lambda model: model(images)["loss"], precise=False),
            "users": trainer(theirs.train(), lambda model: model(images).loss, precise=True),
            "same": trainer(same.train(), lambda model: model(images).loss, precise=False),
            "all": trainer(nearly_all, lambda model: model(images)["loss"], precise=False),
        }
    )
    report(
        "mae_training_pictures_per_second_to_transformers",
        ratio_as_users_run_it=ratio(times, "users", "ours"),
        ratio_same_precision=ratio(times, "same", "ours"),
        ratio_to_encoding_all_patches=ratio(times, "all", "ours"),
        pictures_per_second=ROWS / statistics.median(times["ours"]),
    )
    assert ratio(times, "users", "ours") > 1 and ratio(times, "all", "ours") > 1


def test_cost_as_patches_and_width_grow(report):
    """Seconds a step of 64 pictures, relative to the first row."""
    torch.set_num_threads(2)
    rows = {"64 patches, dim 128": {}}
    rows |= {f"{(32 // patch) ** 2} patches": {"patch": patch} for patch in (8, 2)}
    rows |= {f"dim {dim}": {"dim": dim} for dim in (256, 512)}
    images, labels = pictures(64), torch.randint(8, (64,))
    steps = {
        name: trainer(
            ViT(sized(classes=8, **changes)), lambda model: model(Pictures(images, labels))["loss"], precise=False
        )
        for name, changes in rows.items()
    }
    times = in_turn(steps, rounds=3)
    first = next(iter(rows))
    report("vit_cost", seconds=statistics.median(times[first]), **{name: ratio(times, name, first) for name in rows})
    assert ratio(times, "256 patches", first) > 1.5
