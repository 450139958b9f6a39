from __future__ import annotations

import pytest
import torch

from twore.models import PreResNet
from twore.pruning import prunable_weights

# parameter counts with 10 classes and 3 channels, published for the standard net and counted in the cited code
STANDARD = {20: 272_282, 38: 563_930, 56: 855_578, 110: 1_730_522}
RETHINKING = {20: 175_066, 38: 369_498, 56: 590_426, 110: 1_146_842}


@pytest.mark.parametrize(("variant", "counts"), [("standard", STANDARD), ("rethinking", RETHINKING)])
def test_parameter_counts(variant, counts):
    assert {d: sum(p.numel() for p in PreResNet(d, variant=variant).parameters()) for d in counts} == counts


@pytest.mark.parametrize("size", [4, 8, 31, 32])
def test_any_image_size_gives_one_row_of_logits_an_image(size):
    model = PreResNet(8, num_classes=7, in_channels=1)
    assert model(torch.zeros(2, 1, size, size)).shape == (2, 7)


def test_depth_counts_the_layers_with_weights_in_order():
    """Depth 20 = 18 convolutions in blocks + stem + read-out; the two projections are not counted by convention."""
    convolutions = prunable_weights(PreResNet(20), kinds=("conv",))
    assert len(convolutions) == 19 + 2
    assert len(prunable_weights(PreResNet(20))) == 20 + 2


@pytest.mark.parametrize("depth", [7, 18, 21, 2])
def test_other_depths_are_refused(depth):
    with pytest.raises(ValueError, match="6n\\+2"):
        PreResNet(depth)


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="standard, rethinking"):
        PreResNet(20, variant="wide")


def test_same_seed_same_weights():
    torch.manual_seed(3)
    a = PreResNet(8).state_dict()
    torch.manual_seed(3)
    b = PreResNet(8).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
