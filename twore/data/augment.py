"""Images kept once in memory as uint8 on the compute device, cropped, flipped and normalised a batch at a time.

The augmentation is the usual one of CIFAR (He et al. 2015, section 4.2; the report's section 6.1 "crop+flip"): pad the
raw image with `pad` black pixels on each side, cut a random window of the original size, mirror it with probability
1/2, then normalise. Every image draws its own window and mirror. All draws of an epoch are made at once by one seeded
generator on the CPU, so they are the same on every device, and nothing here waits for a GPU.

N images, B batch, H height, W width, C channels, p pad.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twore.data.images import DataError


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of each channel over all training pixels, of values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


# Over the pixels of the whole training part; a subsample uses the same, so that settings differ in the data only.
# CIFAR-10: computed from the data (the smaller s.d. of .20 in many scripts is a mean of per-image ones). CIFAR-100: the
# values commonly published. Digits: computed from the 1,297 training images.
STATISTICS: dict[str, ChannelStatistics] = {
    "digits": ChannelStatistics((0.3054,), (0.3757,)),
    "cifar10": ChannelStatistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ChannelStatistics((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


class ImageBatches:
    """One split of a data set, held on `device`; an iterator of batches (x, y) is made for each pass over it.

    images: uint8 (N, H, W, C); labels: integers (N,); mean, std: C numbers, of pixel values in [0, 1].
    x: float32 (B, C, H, W) in channels_last memory format, normalised; y: int64 (B,); both on `device`.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        *,
        pad: int,
        flip: bool,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
    ) -> None:
        _check(images, labels, pad, mean, std)
        count, height, width, channels = images.shape
        self.pad, self.flip, self.device = pad, flip, torch.device(device)
        self._shape = (height, width, channels)
        self._labels = torch.tensor(labels, dtype=torch.int64, device=self.device)

        padded = torch.zeros(count, height + 2 * pad, width + 2 * pad, channels, dtype=torch.uint8, device=self.device)
        padded[:, pad : pad + height, pad : pad + width] = torch.tensor(images, device=self.device)
        self._padded_shape = padded.shape[1:3]
        # A view whose row r is the W pixels from pixel r of all images laid end to end. Any row of any window is one of
        # these, so a batch of crops is one index_select of B*H rows: four times as fast as indexing windows.
        pixels = padded.numel() // channels
        self._rows = padded.as_strided((pixels - width + 1, width * channels), (channels, 1))
        self._row_starts = torch.arange(height, device=self.device) * padded.shape[2]  # (H,), in pixels of one image
        # (2, 1, W*C): the order of a row's bytes, as it is and mirrored with the channels of a pixel kept together.
        order = torch.arange(width * channels, device=self.device).view(width, channels)
        self._orders = torch.stack([order, order.flip(0)]).view(2, 1, width * channels)
        # x = u * scale + shift equals (u / 255 - mean) / std; repeated over a whole image, since an operand of length C
        # would make torch's inner loop C long.
        deviation = torch.tensor(std, dtype=torch.float64)
        scale, shift = 1 / (255 * deviation), -torch.tensor(mean, dtype=torch.float64) / deviation
        self._scale = scale.to(self.device, torch.float32).repeat(height * width)  # (H*W*C,)
        self._shift = shift.to(self.device, torch.float32).repeat(height * width)  # (H*W*C,)

    def __len__(self) -> int:
        """Number of images N."""
        return len(self._labels)

    def epoch(self, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once; `seed` fixes the order, windows and mirrors. A last partial batch is kept."""
        _check_batch_size(batch_size)
        draw = torch.Generator().manual_seed(seed)
        # Drawn in this order and whether used or not: the order of images does not depend on the augmentation.
        index = torch.randperm(len(self), generator=draw)
        top, left = torch.randint(0, 2 * self.pad + 1, (2, len(self)), generator=draw)
        mirror = torch.randint(0, 2, (len(self),), generator=draw)
        return self._batches(batch_size, index, top, left, mirror if self.flip else None)

    def plain(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once in the given order, neither shifted nor mirrored; a last partial batch is kept."""
        _check_batch_size(batch_size)
        middle = torch.full((len(self),), self.pad)
        return self._batches(batch_size, torch.arange(len(self)), middle, middle, None)

    def _batches(
        self, batch_size: int, index: Tensor, top: Tensor, left: Tensor, mirror: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All (N,), int64, on the CPU: which image, its window's first row and column, 1 to mirror it (None: never)."""
        padded_height, padded_width = self._padded_shape
        first = (index * padded_height + top) * padded_width + left  # (N,): the window's first pixel
        labels = self._labels[index.to(self.device)]
        first = first.to(self.device)
        mirror = None if mirror is None else mirror.to(self.device)
        for start in range(0, len(self), batch_size):
            batch = slice(start, start + batch_size)
            yield self._images(first[batch], None if mirror is None else mirror[batch]), labels[batch]

    def _images(self, first: Tensor, mirror: Tensor | None) -> Tensor:
        """Windows whose first pixels are `first` (B,), mirrored where `mirror` (B,) is 1 -> (B, C, H, W)."""
        height, width, channels = self._shape
        rows = (first[:, None] + self._row_starts).view(-1)  # (B*H,)
        u = self._rows.index_select(0, rows).view(-1, height, width * channels)
        if mirror is not None:
            u = u.gather(2, self._orders[mirror].expand_as(u))
        x = u.view(len(first), -1).float()  # (B, H*W*C)
        torch.addcmul(self._shift, x, self._scale, out=x)  # in place: fresh memory costs more than the arithmetic
        return x.view(-1, height, width, channels).permute(0, 3, 1, 2)  # (B, C, H, W) in channels_last memory


def _check(
    images: NDArray[np.uint8], labels: NDArray[np.int64], pad: int, mean: Sequence[float], std: Sequence[float]
) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise DataError(f"images must be uint8 of shape (N, H, W, C): got {images.dtype} {images.shape}")
    if labels.shape != images.shape[:1]:
        raise DataError(f"there must be one label an image: got {labels.shape} for {len(images)} images")
    if pad < 0:  # ValueError from here on: the caller's options are wrong, not the data
        raise ValueError(f"pad is a number of pixels, at least 0: got {pad}")
    channels = images.shape[3]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(f"mean and std must be {channels} numbers each and std positive: got {mean} and {std}")


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch size must be at least 1: got {batch_size}")
