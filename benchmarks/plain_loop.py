"""Fine-tuning a pruned PreResNet on CIFAR-10 as published pruning code does it: the side twore is compared with.

Written for this comparison in the usual style and meant to stay as it is, so that a faster twore shows. PIL images and
per-image transforms in a DataLoader with two workers; an eager float32 model in torch's default memory format; SGD
with momentum; masks multiplied into the weights after each step; the loss read at each step for the log. On a GPU,
batches come from pinned memory. Three things are in its favour: workers live on between epochs, masks are ready
tensors, and no accuracy is logged.

B batch, C channels, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

LOADER_WORKERS = 2
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's training pixels, in [0, 1]


class Images(Dataset):
    """Images as torchvision's CIFAR10 gives them: PIL, then the transform. images: uint8 (N, 32, 32, C)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class PlainBlock(nn.Module):
    """Pre-activation basic block."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(out)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and channels == out
        self.downsample = None if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.relu(self.bn1(x)))
        y = self.conv2(self.relu(self.bn2(y)))
        return y + (x if self.downsample is None else self.downsample(x))


def plain_model(depth: int, width: int) -> nn.Module:
    """PreResNet of depth 6n+2 with n basic blocks a stage. (B, 3, 32, 32) -> (B, 10)"""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False)]
    channels = width
    for stage in range(3):
        for block in range((depth - 2) // 6):
            layers.append(PlainBlock(channels, width << stage, 2 if stage and not block else 1))
            channels = width << stage
    head = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*layers, *head)


def magnitude_masks(model: nn.Module, ratio: float) -> dict[nn.Conv2d, Tensor]:
    """For each convolution 1.0 where a weight is kept, 0.0 for the `ratio` smallest; the weights are zeroed."""
    masks = {}
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            size = layer.weight.detach().abs()
            masks[layer] = (size > size.flatten().kthvalue(round(ratio * size.numel())).values).float()
            layer.weight.data.mul_(masks[layer])
    return masks


def fine_tune(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    depth: int,
    width: int,
    ratio: float,
    lr: float,
    epochs: int,
    clock: Any,
    device: str = "cpu",
    workers: int = LOADER_WORKERS,
) -> int:
    """One epoch of warm-up, then `epochs` on the clock; returns the number of images in those."""
    model = plain_model(depth, width).to(device)
    masks = magnitude_masks(model, ratio)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    options = {"num_workers": workers, "persistent_workers": True, "pin_memory": device != "cpu"}
    loader = DataLoader(Images(images, labels), batch_size=64, shuffle=True, **options)
    model.train()
    log = []
    for epoch in range(1 + epochs):
        if epoch == 1:
            clock.start()
        for x, y in loader:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)
            log.append(loss.item())
    clock.stop()
    return epochs * len(images)
