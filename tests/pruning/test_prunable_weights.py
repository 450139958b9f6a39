"""Which weights are prunable: every layer type, patterns, ties, and the refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from twore.pruning import KINDS, prunable_weights


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4), nn.Conv1d(4, 4, 1)])
        self.head = nn.Linear(4, 7, bias=False)


CONVOLUTIONS = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]


@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_every_convolution_is_prunable(layer: type[nn.Module]) -> None:
    assert list(prunable_weights(layer(2, 3, 3), kinds=("conv",))) == ["weight"]


def test_order_and_objects_are_the_models_own() -> None:
    net = Net()
    weights = prunable_weights(net)
    assert list(weights) == ["conv.weight", "block.0.weight", "block.2.weight", "head.weight"]
    named = dict(net.named_parameters())
    assert all(weight is named[name] for name, weight in weights.items())
    assert list(prunable_weights(net, kinds=("conv",))) == ["conv.weight", "block.2.weight"]
    assert list(prunable_weights(net, kinds="linear")) == ["block.0.weight", "head.weight"]


def test_packed_and_separate_attention_projections_are_linear() -> None:
    assert list(prunable_weights(nn.MultiheadAttention(8, 2), "linear")) == ["in_proj_weight", "out_proj.weight"]
    separate = nn.MultiheadAttention(8, 2, kdim=4, vdim=4)
    names = ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]
    assert list(prunable_weights(separate)) == names
    base = nn.Transformer(16, 2, 1, 1, 32)  # 3 attentions of 2 weights, 2 feed-forwards of 2
    assert len(prunable_weights(base)) == 10


def test_subclasses_and_frozen_weights_count() -> None:
    class Mine(nn.Linear):
        pass

    assert list(prunable_weights(nn.Sequential(Mine(2, 2).requires_grad_(False)))) == ["0.weight"]


def test_patterns_match_the_weight_or_its_module() -> None:
    net = Net()
    assert list(prunable_weights(net, include="block.*")) == ["block.0.weight", "block.2.weight"]
    assert list(prunable_weights(net, include=["head", "conv.weight"])) == ["conv.weight", "head.weight"]
    assert list(prunable_weights(net, exclude=("block.?", "head*"))) == ["conv.weight"]
    assert list(prunable_weights(net, include="block.*", exclude="block.0")) == ["block.2.weight"]
    assert len(prunable_weights(net, exclude="embed*")) == 4  # never in: harmless


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": "haed"}, "did you mean 'head'"),
        ({"exclude": "hed.weight"}, "did you mean 'head.weight'"),
        ({"exclude": ["head", "layer9.*"]}, r"'layer9\.\*' matches no parameter"),
        ({"exclude": "block"}, r"did you mean 'block\.\*'"),
        ({"include": "embed"}, "matches no prunable weight"),
        ({"include": "conv", "kinds": "linear"}, "matches no prunable weight"),
        ({"kinds": ("conv", "liner")}, "did you mean 'linear'"),
        ({"kinds": ()}, "kinds is empty"),
        ({"exclude": "*"}, "leave none of the 4"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prunable_weights(Net(), **options)


def test_nothing_found_says_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"no conv weight, but 2 linear: pass kinds=\('linear',\)"):
        prunable_weights(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), kinds=("conv",))
    with pytest.raises(ValueError, match="1 Embedding, 2 LayerNorm"):
        prunable_weights(nn.Sequential(nn.Embedding(3, 2), nn.LayerNorm(2), nn.LayerNorm(2)))
    with pytest.raises(ValueError, match="no module at all"):
        prunable_weights(nn.ReLU())


def tied_net() -> Net:
    net = Net()
    net.head.weight = net.embed.weight
    return net


def test_a_tied_weight_is_never_silent() -> None:
    with pytest.raises(ValueError, match="head.weight is tied to embed.weight") as caught:
        prunable_weights(tied_net())
    assert "exclude='head.weight'" in str(caught.value) and "include=['*', 'head.weight']" in str(caught.value)
    with pytest.raises(ValueError, match="tied"):
        prunable_weights(tied_net(), include="h*")  # a wildcard is no explicit choice
    assert list(prunable_weights(tied_net(), kinds="conv")) == ["conv.weight", "block.2.weight"]


def test_the_ways_out_of_a_tie_work_as_the_message_says() -> None:
    net = tied_net()
    assert list(prunable_weights(net, exclude="head.weight")) == ["conv.weight", "block.0.weight", "block.2.weight"]
    assert list(prunable_weights(net, exclude="embed")) == ["conv.weight", "block.0.weight", "block.2.weight"]
    chosen = prunable_weights(net, include=["*", "head.weight"])
    assert next(iter(chosen)) == "embed.weight"  # the one name that named_parameters() has for it
    assert chosen["embed.weight"] is net.head.weight and len(chosen) == 4
    for name in ("head", "embed.weight"):
        assert list(prunable_weights(net, include=name)) == ["embed.weight"]


def test_ties_between_prunable_layers_and_by_memory_are_seen() -> None:
    twins = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    twins[1].weight = twins[0].weight
    with pytest.raises(ValueError, match=r"1\.weight is tied to 0\.weight"):
        prunable_weights(twins)
    assert list(prunable_weights(twins, include="1.weight")) == ["0.weight"]
    aliased = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    aliased[1].weight = nn.Parameter(aliased[0].weight.data)  # another Parameter, the same memory
    with pytest.raises(ValueError, match="tied"):
        prunable_weights(aliased)


def test_one_module_under_two_names_is_one_use() -> None:
    net = nn.ModuleDict({"body": nn.Linear(3, 3)})
    net["alias"] = net["body"]
    assert list(prunable_weights(net)) == ["body.weight"]


def test_weights_that_are_no_plain_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.weight is lazy"):
        prunable_weights(nn.Sequential(nn.LazyConv2d(3, 3)))
    normed = nn.Sequential(nn.Linear(3, 3), parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match=r"1\.weight is computed .*remove_parametrizations"):
        prunable_weights(normed)
    assert list(prunable_weights(normed, exclude="1.weight")) == ["0.weight"]
    pruned = nn.Sequential(nn.Linear(3, 3))
    prune.l1_unstructured(pruned[0], "weight", amount=0.5)
    with pytest.raises(ValueError, match=r"0\.weight is computed .*prune\.remove"):
        prunable_weights(pruned)
    prune.remove(pruned[0], "weight")
    assert list(prunable_weights(pruned)) == ["0.weight"]


def test_a_compiled_model_keeps_its_names_and_knows_the_plain_ones() -> None:
    compiled = torch.compile(Net(), backend="eager")
    assert list(prunable_weights(compiled, include=["head"])) == ["_orig_mod.head.weight"]


def test_every_kind_is_documented() -> None:
    import twore.pruning.weights as module

    assert all(f'"{kind}"' in (module.__doc__ or "") for kind in KINDS)
