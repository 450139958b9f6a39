"""Linear mode connectivity: barriers known in closed form, BatchNorm re-estimated, masks, and models left alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from twore.metrics import loss_barrier, mode_connectivity, score_barrier
from twore.pruning import apply_masks, make_masks, prunable_weights, recalibrate_batchnorm


class Point(nn.Module):
    """A network of one weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(weight), dtype=torch.float64))


def double_well(model):
    """loss (w^2 - 1)^2, 0 at -1 and 1, 1 between them; score 100 - 10 (w^2 - 1)^2."""
    loss = (float(model.weight) ** 2 - 1) ** 2
    return {"loss": loss, "score": 100 - 10 * loss}


def test_a_double_well_has_the_barrier_of_its_formula():
    result = mode_connectivity(Point(-1), Point(1), double_well, points=5)
    assert result.path["t"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert result.path["loss"].tolist() == [0, 0.5625, 1, 0.5625, 0]  # w = -1, -1/2, 0, 1/2, 1
    assert (result.loss_barrier, result.score_barrier) == (1.0, 10.0)
    assert (result.loss_lmc, result.score_lmc) == (-1.0, -10.0)  # below 0: a barrier
    assert loss_barrier(Point(-1), Point(1), double_well, points=5) == 1.0
    assert score_barrier(Point(-1), Point(1), double_well, points=5) == 10.0


def test_the_chord_counts_not_the_mean_of_the_ends():
    def slope(model):
        return {"loss": float(model.weight), "score": 0.0}

    result = mode_connectivity(Point(0), Point(8), slope)
    assert result.loss_barrier == 0.0  # a straight rise is no barrier, though the middle lies above an end
    # from w = 0 to w = 2: loss 1 at 0 and 9 at 2, chord 1 + 4 w; (w^2 - 1)^2 lies below it all the way
    assert mode_connectivity(Point(0), Point(2), double_well).loss_barrier == 0.0
    # from -1 to 2: ends 0 and 9, at w = -0.25 (t = 1/4) the loss 0.8789 is below its chord 2.25
    assert mode_connectivity(Point(-1), Point(2), double_well, points=5).loss_barrier == 0.0
    result = mode_connectivity(Point(-1), Point(1.2), double_well, points=3)  # middle 0.1: 0.9801, chord 0.0968
    assert result.loss_barrier == pytest.approx(0.9801 - 0.44**2 / 2)


def test_badly_trained_ends_have_a_positive_lmc():
    result = mode_connectivity(Point(0), Point(2), double_well, points=5)  # losses 1, .5625, 0, 1.5625, 9
    assert result.loss_lmc == 5.0  # mean of the ends 5, furthest from it the 0 in the middle
    assert mode_connectivity(Point(-1.5), Point(-0.5), double_well, points=3).loss_lmc > 0


def make_net(seed, *, norm):
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 16), nn.BatchNorm1d(16) if norm else nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(16, 3))


def evaluate_on(x, y):
    def evaluate(model):
        assert not model.training
        logits = model(x).detach()
        return {
            "loss": float(F.cross_entropy(logits, y)),
            "score": 100 * float((logits.argmax(1) == y).double().mean()),
        }

    return evaluate


X, Y = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3


@pytest.mark.parametrize("norm", [True, False])
def test_a_model_is_connected_with_itself(norm):
    net = make_net(0, norm=norm)
    result = mode_connectivity(net, net, evaluate_on(X, Y), batches=[X])
    assert (result.loss_barrier, result.score_barrier, result.loss_lmc, result.score_lmc) == (0, 0, 0, 0)
    assert result.path["loss"].nunique() == 1  # not even a rounding error between t


@pytest.mark.parametrize("norm", [True, False])
def test_both_models_are_left_as_they_were(norm):
    nets = [make_net(seed, norm=norm).train() for seed in (0, 1)]
    before = [{n: v.clone() for n, v in net.state_dict().items()} for net in nets]
    state = torch.random.get_rng_state()
    mode_connectivity(*nets, evaluate_on(X, Y), batches=iter([X]))  # an iterator is enough: it is read once
    assert torch.equal(state, torch.random.get_rng_state())
    for net, old in zip(nets, before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in net.state_dict().items())
        assert all(m.training for m in net.modules())
        assert all(p.grad is None for p in net.parameters())


def test_every_point_has_its_own_batchnorm_statistics():
    a, b = make_net(0, norm=True), make_net(1, norm=True)
    result = mode_connectivity(a, b, evaluate_on(X, Y), batches=[X], points=3)
    middle = make_net(2, norm=True).eval()
    for p, q, r in zip(middle.parameters(), a.parameters(), b.parameters(), strict=True):
        p.data = (q.data + r.data) / 2
    stale = evaluate_on(X, Y)(middle)["loss"]
    recalibrate_batchnorm(middle, [X])
    assert result.path["loss"][1] == pytest.approx(evaluate_on(X, Y)(middle)["loss"], rel=1e-6)
    assert abs(stale - result.path["loss"][1]) > 1e-3
    named = mode_connectivity(a, b, evaluate_on(X, Y), batches=[{"x": X}], forward=lambda m, z: m(z["x"]), points=3)
    assert named.path.equals(result.path)
    recalibrate_batchnorm(a, [X])
    assert result.path["loss"][0] == pytest.approx(evaluate_on(X, Y)(a.eval())["loss"], rel=1e-6)


def test_symmetric():
    a, b = make_net(0, norm=False).double(), make_net(1, norm=False).double()
    there, back = (mode_connectivity(*pair, evaluate_on(X.double(), Y)) for pair in ((a, b), (b, a)))
    assert there.loss_barrier == pytest.approx(back.loss_barrier, rel=1e-9, abs=1e-12)
    assert there.path["loss"].tolist() == pytest.approx(back.path["loss"].tolist()[::-1])


def test_the_line_stays_within_the_union_of_both_masks():
    nets = [make_net(seed, norm=False) for seed in (0, 1)]
    masks = [make_masks(prunable_weights(net), 0.8) for net in nets]
    for net, mask in zip(nets, masks, strict=True):
        apply_masks(net, mask)
    seen = []

    def evaluate(model):
        seen.append({n: p.detach().clone() for n, p in prunable_weights(model).items()})
        return {"loss": 1.0, "score": 0.0, "tokens": 7}

    result = mode_connectivity(*nets, evaluate, points=3)
    assert result.path["tokens"].tolist() == [7.0] * 3  # all that evaluate says is kept
    for name in masks[0]:
        union = masks[0][name] | masks[1][name]
        assert bool((seen[1][name][~union] == 0).all())
        assert bool((seen[1][name][union] != 0).all())
        assert torch.equal(seen[0][name], nets[0].get_parameter(name))  # the ends exactly
        assert torch.equal(seen[2][name], nets[1].get_parameter(name))


def test_what_is_refused():
    a, b = make_net(0, norm=True), make_net(1, norm=True)
    with pytest.raises(ValueError, match="pass batches"):
        mode_connectivity(a, b, evaluate_on(X, Y))
    with pytest.raises(ValueError, match=r"one architecture: 4.weight is \(3, 16\) in a and missing"):
        mode_connectivity(nn.Sequential(*a), nn.Sequential(*a[:4]), evaluate_on(X, Y))
    with pytest.raises(ValueError, match="architecture"):
        mode_connectivity(nn.Linear(2, 2), nn.Linear(2, 3), evaluate_on(X, Y))
    with pytest.raises(ValueError, match="at least 3"):
        mode_connectivity(Point(0), Point(1), double_well, points=2)
    with pytest.raises(ValueError, match="'score' is missing"):
        mode_connectivity(Point(0), Point(1), lambda model: {"loss": 1.0})
    with pytest.raises(ValueError, match="t=0.5"):
        mode_connectivity(
            Point(-1), Point(1), lambda m: {"loss": 1.0 if abs(m.weight) > 0 else float("nan"), "score": 0.0}
        )
