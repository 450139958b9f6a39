"""PreResNet for small images: pre-activation residual networks of depth 6n+2 (He et al., 2016, "Identity mappings in
deep residual networks"), the CV model of the report (section 6.1).

Two variants, because the code that the report cites does not build what the name says:
- "standard": n = (depth-2)/6 basic blocks a stage; 272,282 / 563,930 / 855,578 / 1,730,522 parameters for depth
  20 / 38 / 56 / 110 (10 classes, 3 channels).
- "rethinking": n = (depth-2)//9, bottleneck blocks from depth 44 on, as in the code of Liu et al. (2019);
  175,066 / 369,498 / 590,426 / 1,146,842 parameters.

Shape letters: B batch, C channels, H and W image height and width, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

VARIANTS = ("standard", "rethinking")
BOTTLENECK_FROM = 44  # depth; the cited code switches block type here
EXPANSION = 4  # output width of a bottleneck block over its inner width; He et al. 2016


class PreResNet(nn.Module):
    """A stem convolution, three stages of residual blocks (widths w, 2w, 4w), and a linear read-out.

    depth: any 6n+2 from 8 on. width: channels of the first stage, 16 as published. Images of any size from 4x4 on:
    the last feature map is averaged whole. Initialisation draws from torch's global generator: seed it first.
    """

    channelwise = True  # between layers no channels are mixed: models can be folded (twore.training.folding)

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        in_channels: int = 3,
        variant: str = "standard",
        *,
        width: int = 16,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"PreResNet depth is 6n+2 with n >= 1 (8, 14, 20, 26, ...): got {depth}")
        if variant not in VARIANTS:
            raise ValueError(f"PreResNet variant is one of {', '.join(VARIANTS)}: got {variant!r}")
        if width < 1 or num_classes < 1 or in_channels < 1:
            raise ValueError(
                f"width, num_classes and in_channels are at least 1: got {width}, {num_classes}, {in_channels}"
            )
        blocks = (depth - 2) // 6 if variant == "standard" else max(1, (depth - 2) // 9)
        bottleneck = variant == "rethinking" and depth >= BOTTLENECK_FROM
        self.stem = _conv(in_channels, width, 3)
        channels, stages = width, []
        for stage, inner in enumerate((width, 2 * width, 4 * width)):
            layers = []
            for i in range(blocks):
                block = _Block(channels, inner, stride=2 if stage and not i else 1, bottleneck=bottleneck)
                layers.append(block)
                channels = block.out_channels
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits. (B, C, H, W) -> (B, K)"""
        x = self.stages(self.stem(x))
        x = torch.relu(self.norm(x)).mean(dim=(2, 3))  # (B, 4w, H/4, W/4) -> (B, 4w)
        return self.classifier(x)


class _Block(nn.Module):
    """Pre-activation residual block: [norm, relu, conv] two (basic) or three (bottleneck) times, plus the shortcut."""

    def __init__(self, channels: int, inner: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.out_channels = inner * EXPANSION if bottleneck else inner
        shapes = (
            [(channels, inner, 1, 1), (inner, inner, 3, stride), (inner, self.out_channels, 1, 1)]
            if bottleneck
            else [(channels, inner, 3, stride), (inner, inner, 3, 1)]
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c_in) for c_in, *_ in shapes)
        self.convs = nn.ModuleList(_conv(c_in, c_out, kernel, step) for c_in, c_out, kernel, step in shapes)
        needs_projection = stride != 1 or channels != self.out_channels
        self.shortcut = _conv(channels, self.out_channels, 1, stride) if needs_projection else None

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs):
            y = conv(torch.relu(norm(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.normal_(conv.weight, 0.0, math.sqrt(2.0 / (kernel * kernel * c_out)))  # He et al. 2015, fan-out
    return conv
