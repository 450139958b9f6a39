"""Rescaling pruned layers: the dense statistics come back, in order, zeros stay zero, all else is left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from twore.pruning import apply_masks, audit_masks, make_masks, prunable_weights
from twore.pruning.rescale import output_statistics, rescale_outputs


def run(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch)


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.LayerNorm(20), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(20, 5, bias=False))


def pruned_copy(net: nn.Module, ratio: float = 0.4) -> tuple[nn.Module, dict[str, Tensor]]:
    net = copy.deepcopy(net)
    masks = make_masks(prunable_weights(net), ratio)
    apply_masks(net, masks)
    return net, masks


def moments(model: nn.Module, name: str, batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a layer's output over all batches at once, the plain way."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    model.eval()
    for batch in batches:
        model(batch)
    handle.remove()
    rows = torch.cat([o.flatten(0, -2) for o in seen])
    return rows.mean(0), rows.std(0, unbiased=False)


@torch.no_grad()
def distance(a: nn.Module, b: nn.Module, x: Tensor) -> float:
    return float((a(x) - b(x)).square().mean())


BATCHES = [torch.randn(40, 6, generator=torch.Generator().manual_seed(1)) + 1, torch.randn(9, 6) * 2]


@pytest.mark.parametrize("batches", [BATCHES[:1], BATCHES], ids=["one batch", "two batches"])
def test_every_layer_gets_the_dense_mean_and_deviation(batches: list[Tensor]) -> None:
    dense = make_net()
    net, masks = pruned_copy(dense)
    assert rescale_outputs(net, dense, batches, run, masks) == 3
    for name in ("0", "2", "5"):
        (mean, std), (wanted_mean, wanted_std) = moments(net, name, batches), moments(dense, name, batches)
        torch.testing.assert_close(std, wanted_std, rtol=1e-4, atol=1e-5)
        if name == "5":  # no bias, so its mean is what it is
            assert not torch.allclose(mean, wanted_mean, rtol=1e-2)
        else:
            torch.testing.assert_close(mean, wanted_mean, rtol=1e-4, atol=1e-5)
    assert audit_masks(net, masks).revived == 0
    for name in masks:  # one number a row: a unit's weights keep their proportions
        weight = net.get_parameter(name).detach()
        old = pruned_copy(dense)[0].get_parameter(name).detach()
        kept = masks[name]
        gains = torch.where(kept, weight / torch.where(kept, old, 1.0), torch.nan)
        spread = gains.nan_to_num(-1e9).amax(1) - gains.nan_to_num(1e9).amin(1)
        assert float(spread.max()) < 1e-4
        assert float((gains[kept] - 1).abs().max()) > 0.1


def test_by_hand() -> None:
    dense = nn.Sequential(nn.Linear(2, 1))
    with torch.no_grad():
        dense[0].weight.copy_(torch.tensor([[3.0, 4.0]]))
        dense[0].bias.fill_(1.0)
    net, masks = pruned_copy(dense, 0.5)  # the 3 goes
    # inputs with equal, independent, standardised columns around 2: dense mean 1 + 3*2 + 4*2 = 15, deviation 5;
    # pruned mean 1 + 8 = 9, deviation 4. Gain 5/4, bias 5/4 * (1 - 9) + 15 = 5
    x = torch.tensor([[1.0, 1.0], [1.0, 3.0], [3.0, 1.0], [3.0, 3.0]])
    rescale_outputs(net, dense, [x], run, ["0.weight"])
    torch.testing.assert_close(net[0].weight, torch.tensor([[0.0, 5.0]]))
    torch.testing.assert_close(net[0].bias, torch.tensor([5.0]))


def test_one_batch_in_flight_equals_layer_by_layer() -> None:
    dense, batch = make_net(), BATCHES[0]
    flying, masks = pruned_copy(dense)
    stepping, _ = pruned_copy(dense)
    rescale_outputs(flying, dense, [batch], run, masks)
    rescale_outputs(stepping, dense, [batch[:15], batch[15:]], run, masks)  # the same rows, cut: another way of working
    for a, b in zip(flying.parameters(), stepping.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_statistics_taken_once_serve_every_ratio() -> None:
    dense = make_net()
    statistics = output_statistics(dense, iter(BATCHES), run, ["5", "0.weight", "2"])
    assert list(statistics) == ["0", "2", "5"]  # in order of execution
    mean, std = moments(dense, "2", BATCHES)
    torch.testing.assert_close(statistics["2"].mean.float(), mean)
    torch.testing.assert_close(statistics["2"].std.float(), std)
    for ratio in (0.3, 0.8):
        (a, masks), (b, _) = pruned_copy(dense, ratio), pruned_copy(dense, ratio)
        rescale_outputs(a, statistics, BATCHES, run, masks)
        rescale_outputs(b, dense, BATCHES, run, masks)
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_an_unpruned_model_stays_as_it_is() -> None:
    dense = make_net()
    net = copy.deepcopy(dense)
    rescale_outputs(net, dense, BATCHES, run, ["0", "2", "5"])
    for a, b in zip(net.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_unit_without_weights_keeps_its_zeros_and_gets_the_mean() -> None:
    dense = make_net()
    net = copy.deepcopy(dense)
    masks = {"0.weight": torch.ones(20, 6, dtype=torch.bool)}
    masks["0.weight"][3] = False
    apply_masks(net, masks)
    rescale_outputs(net, dense, BATCHES[:1], run, masks)
    assert bool((net[0].weight[3] == 0).all())
    torch.testing.assert_close(net[0].bias[3], moments(dense, "0", BATCHES[:1])[0][3])
    assert all(bool(p.isfinite().all()) for p in net.parameters())


def test_all_else_is_put_back() -> None:
    dense = make_net().train()
    net, masks = pruned_copy(dense)
    before = {n: v.clone() for n, v in net.state_dict().items()}
    dense_before, state = {n: v.clone() for n, v in dense.state_dict().items()}, torch.random.get_rng_state()
    rescale_outputs(net, dense, BATCHES, run, ["2.weight"])
    changed = {n for n, v in net.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"2.weight", "2.bias"}
    assert all(torch.equal(v, dense_before[n]) for n, v in dense.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())  # no dropout was drawn
    assert all(m.training for model in (net, dense) for m in model.modules())
    assert not any(m._forward_hooks for model in (net, dense) for m in model.modules())


def test_an_error_leaves_the_old_weights() -> None:
    dense = make_net()
    net, masks = pruned_copy(dense)
    before = {n: v.clone() for n, v in net.state_dict().items()}
    statistics = output_statistics(dense, BATCHES, run, masks)
    for batches, error in (([BATCHES[0], torch.randn(3, 7)], RuntimeError), ([BATCHES[0] * torch.nan], ValueError)):
        with pytest.raises(error):
            rescale_outputs(net, statistics, batches, run, masks)
        assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())


def test_a_layer_that_runs_twice_is_repaired_over_both_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x).relu())

    torch.manual_seed(0)
    dense = Twice()
    net, masks = pruned_copy(dense)
    statistics = output_statistics(dense, BATCHES[:1], run, masks)
    assert statistics["layer"].calls == 2
    old = net.layer.weight.detach().clone()
    rescale_outputs(net, statistics, BATCHES[:1], run, masks)
    assert audit_masks(net, masks).revived == 0
    assert not torch.equal(old, net.layer.weight)


def test_convolutions_and_transposed_linear_layers() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    gpt = nn.Sequential(Conv1D(8, 6), nn.ReLU(), Conv1D(4, 8))
    images = [torch.randn(5, 2, 9, 9)]
    for dense, batches in ((conv, images), (conv, images * 2), (gpt, BATCHES[:1]), (gpt, BATCHES)):
        net, masks = pruned_copy(dense)
        rescale_outputs(net, dense, batches, run, masks)
        wanted, found = (output_statistics(m, batches, run, masks) for m in (dense, net))
        for name in wanted:
            torch.testing.assert_close(found[name].mean, wanted[name].mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found[name].std, wanted[name].std, rtol=1e-4, atol=1e-5)
        assert audit_masks(net, masks).revived == 0


def test_what_is_refused() -> None:
    dense = make_net()
    net, masks = pruned_copy(dense)
    with pytest.raises(ValueError, match="batches is empty"):
        rescale_outputs(net, dense, [], run, masks)
    with pytest.raises(ValueError, match="it is a LayerNorm"):
        rescale_outputs(net, dense, BATCHES, run, ["3"])
    with pytest.raises(ValueError, match="no such layer"):
        rescale_outputs(net, dense, BATCHES, run, ["9.weight"])
    with pytest.raises(ValueError, match="names is empty"):
        rescale_outputs(net, dense, BATCHES, run, [])
    with pytest.raises(ValueError, match="no statistics of 2"):
        rescale_outputs(net, output_statistics(dense, BATCHES, run, ["0"]), BATCHES, run, masks)
    tied = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="untie"):
        rescale_outputs(tied, tied, [torch.tensor([0, 1])], run, ["1"])
    encoder = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
    x = [torch.randn(3, 4, 6)]
    assert set(output_statistics(encoder, x, run, ["linear1", "linear2"])) == {"linear1", "linear2"}
    with pytest.raises(ValueError, match="does not call self_attn.out_proj"):
        output_statistics(encoder, x, run, ["linear1", "self_attn.out_proj"])


def test_it_restores_what_pruning_took() -> None:
    """The claim in small: a pruned net's function is nearer to the dense one's after the repair, at several ratios."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    fresh = torch.randn(200, 6) + 1
    for ratio in (0.3, 0.5, 0.7):
        net, masks = pruned_copy(dense, ratio)
        before = distance(net, dense, fresh)
        rescale_outputs(net, dense, [torch.randn(200, 6) + 1], run, masks)
        assert distance(net, dense, fresh) < 0.7 * before
