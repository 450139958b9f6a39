"""Batched augmentation against the obvious one-image-at-a-time pipeline, with the same draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twore.data import ImageBatches

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def batches(count: int = 37, size: tuple[int, int] = (8, 6), *, pad: int = 2, flip: bool = True) -> ImageBatches:
    images = np.random.default_rng(0).integers(1, 256, (count, *size, 3), dtype=np.uint8)
    return ImageBatches(images, np.arange(count), pad=pad, flip=flip, mean=MEAN, std=STD, device="cpu")


def normalise(image: np.ndarray) -> np.ndarray:
    return ((image / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)


@pytest.mark.parametrize(("pad", "flip"), [(0, False), (2, False), (0, True), (2, True)])
def test_epoch_equals_the_usual_pipeline_image_by_image(pad: int, flip: bool):
    images = np.random.default_rng(0).integers(1, 256, (37, 8, 6, 3), dtype=np.uint8)
    draw = torch.Generator().manual_seed(5)
    order = torch.randperm(37, generator=draw)
    windows = torch.randint(0, 2 * pad + 1, (2, 37), generator=draw)
    mirror = torch.randint(0, 2, (37,), generator=draw)
    expected = []
    for position, index in enumerate(order.tolist()):
        black_border = np.pad(images[index], ((pad, pad), (pad, pad), (0, 0)))
        top, left = windows[:, position].tolist()
        window = black_border[top : top + 8, left : left + 6]
        expected.append(normalise(window[:, ::-1] if flip and mirror[position] else window))
    found = list(batches(pad=pad, flip=flip).epoch(10, seed=5))
    assert [len(y) for _, y in found] == [10, 10, 10, 7]  # the last partial batch is kept
    assert torch.equal(torch.cat([y for _, y in found]), order)
    np.testing.assert_allclose(torch.cat([x for x, _ in found]), np.stack(expected), atol=2e-6)


def test_plain_is_the_normalised_images_in_order():
    data = batches()
    x, y = (torch.cat(part) for part in zip(*data.plain(10), strict=True))
    images = np.random.default_rng(0).integers(1, 256, (37, 8, 6, 3), dtype=np.uint8)
    np.testing.assert_allclose(x, np.stack([normalise(image) for image in images]), atol=2e-6)
    assert torch.equal(y, torch.arange(37)) and len(data) == 37


def test_formats():
    x, y = next(batches().epoch(4, seed=0))
    assert x.shape == (4, 3, 8, 6) and x.dtype == torch.float32 and y.dtype == torch.int64
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_same_seed_same_epoch_and_other_seed_another():
    data = batches()
    first, again, other = ([torch.cat(part) for part in zip(*data.epoch(10, seed=s), strict=True)] for s in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_draws_do_not_depend_on_batch_size_nor_touch_the_global_generator():
    data = batches()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    small, large = (torch.cat([x for x, _ in data.epoch(size, seed=3)]) for size in (1, 37))
    assert torch.equal(small, large)
    assert torch.equal(torch.get_rng_state(), state)


def test_each_image_draws_its_own_window_and_mirror():
    image = np.random.default_rng(1).integers(1, 256, (1, 8, 8, 3), dtype=np.uint8)
    data = ImageBatches(np.repeat(image, 2000, 0), np.zeros(2000), pad=1, flip=True, mean=MEAN, std=STD, device="cpu")
    x, _ = next(data.epoch(2000, seed=0))
    variants, counts = torch.unique(x.flatten(1), dim=0, return_counts=True)
    assert len(variants) == 3 * 3 * 2
    assert counts.min() > 60  # 111 expected, s.d. 10


def test_grey_images_and_the_last_window_of_the_last_image():
    images = np.full((3, 4, 4, 1), 255, np.uint8)
    data = ImageBatches(images, np.zeros(3), pad=1, flip=False, mean=(0.0,), std=(1.0,), device="cpu")
    total = torch.cat([x for seed in range(40) for x, _ in data.epoch(3, seed)])  # all nine windows of each
    assert set(total.sum((1, 2, 3)).int().tolist()) == {9, 12, 16}  # corners, edges, the middle: nothing read beyond


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 1))}, "uint8"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "N, H, W, C"),
        ({"labels": np.zeros(3)}, "one label an image"),
        ({"pad": -1}, "pad"),
        ({"mean": (0.0, 0.0)}, "mean and std"),
        ({"std": (0.0,)}, "positive"),
    ],
)
def test_bad_options_are_refused(change, message):
    options = {
        "images": np.zeros((2, 4, 4, 1), np.uint8),
        "labels": np.zeros(2),
        "pad": 0,
        "flip": False,
        "mean": (0.0,),
        "std": (1.0,),
        "device": "cpu",
    }
    with pytest.raises(ValueError, match=message):
        ImageBatches(**{**options, **change})


def test_bad_batch_size_is_refused_before_the_first_batch():
    for start in (lambda: batches().epoch(0, 1), lambda: batches().plain(0)):
        with pytest.raises(ValueError, match="batch size"):
            start()
