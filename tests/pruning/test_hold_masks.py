"""Zeros stay exactly zero through fine-tuning, whatever the optimizer, and survive what people do with models."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from twore.pruning import apply_masks, audit_masks, hold_masks, make_masks, prunable_weights, ratio_at

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "adamw_loop": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9),
}


def make_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
    )


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()


def revived(model: nn.Module, masks: dict) -> int:
    return audit_masks(model, masks).revived


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_stay_exactly_zero(name: str) -> None:
    model = make_net()
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(3):
        step(model, optimizer)  # momentum and second moments of the dense run are there when the masks come
    masks = make_masks(prunable_weights(model), 0.8)
    kept = model[5].weight.detach()[masks["5.weight"]].clone()
    with hold_masks(model, masks, optimizer):
        assert revived(model, masks) == 0  # at once
        for _ in range(5):
            step(model, optimizer)
            for parameter, mask in ((model[0].weight, masks["0.weight"]), (model[5].weight, masks["5.weight"])):
                removed = parameter.detach()[~mask]
                assert not removed.any() and not removed.signbit().any()
    assert not torch.equal(kept, model[5].weight.detach()[masks["5.weight"]])  # the others do train
    step(model, optimizer)
    assert revived(model, masks) > 0  # without holding, momentum and gradients bring them back


def test_masking_gradients_alone_would_not_do() -> None:
    """The habit that holding replaces: decay and momentum move weights whose gradient is zero."""
    model = make_net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    step(model, optimizer)
    masks = make_masks(prunable_weights(model), 0.8)
    apply_masks(model, masks)
    optimizer.zero_grad()
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    for name, mask in masks.items():
        dict(model.named_parameters())[name].grad.masked_fill_(~mask, 0)
    optimizer.step()
    assert revived(model, masks) > 0


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 6), st.floats(0, 0.99), st.sampled_from(sorted(OPTIMIZERS)), st.integers(0, 99),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)  # fmt: skip
def test_held_in_every_shape_dtype_and_ratio(
    rows: int, columns: int, ratio: float, name: str, seed: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    model = nn.Linear(columns, rows).to(dtype)
    optimizer = OPTIMIZERS[name](model.parameters())
    masks = make_masks(prunable_weights(model), ratio)
    with hold_masks(model, masks, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(5, columns, dtype=dtype)).square().sum().backward()
            optimizer.step()
    assert revived(model, masks) == 0
    assert int((model.weight == 0).sum()) >= round(ratio * rows * columns)


def test_holding_changes_nothing_else() -> None:
    """Kept entries take the values of a step that knows no masks."""
    one, two = make_net(), make_net()
    masks = make_masks(prunable_weights(one), 0.5)
    apply_masks(two, masks)
    steppers = [OPTIMIZERS["sgd"](one.parameters()), OPTIMIZERS["sgd"](two.parameters())]
    hold_masks(one, masks, steppers[0])
    for model, optimizer in zip((one, two), steppers, strict=True):
        torch.manual_seed(1)
        step(model, optimizer)
    apply_masks(two, masks)
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key


def test_infinite_and_nan_entries_are_zeroed_too() -> None:
    model = nn.Linear(2, 2)
    masks = {"weight": torch.tensor([[False, False], [False, True]])}
    handle = hold_masks(model, masks, torch.optim.SGD(model.parameters(), 0.1))
    model.weight.data = torch.tensor([[math.inf, math.nan], [-3.0, 2.0]])
    handle.zero_weights()
    assert model.weight.tolist() == [[0, 0], [0, 2]] and not model.weight.signbit().any()


def test_channels_last_and_half_weights_are_held() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        model = nn.Conv2d(4, 8, 3).to(dtype=dtype, memory_format=torch.channels_last)
        masks = make_masks(prunable_weights(model), 0.7)
        handle = hold_masks(model, masks, torch.optim.SGD(model.parameters(), 0.1))
        with torch.no_grad():
            model.weight += 1
        before = model.weight.detach().clone()
        handle.zero_weights()
        assert revived(model, masks) == 0 and torch.equal(model.weight[masks["weight"]], before[masks["weight"]])


def test_clipping() -> None:
    model = make_net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    masks = make_masks(prunable_weights(model), 0.9)
    handle = hold_masks(model, masks, optimizer)
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    dense = nn.utils.get_total_norm([p.grad for p in model.parameters()])
    handle.zero_gradients()
    expected = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    assert torch.isclose(norm, expected) and norm < dense  # the sub-network's own norm
    optimizer.step()
    assert revived(model, masks) == 0
    assert all(not model[int(n[0])].weight.grad[~mask].any() for n, mask in masks.items())


def test_moving_average_of_held_weights_is_zero_too() -> None:
    model = make_net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    masks = make_masks(prunable_weights(model), 0.8)
    with hold_masks(model, masks, optimizer):
        averaged = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )
        for _ in range(4):
            step(model, optimizer)
            averaged.update_parameters(model)
    assert revived(averaged.module, masks) == 0
    assert not torch.equal(averaged.module[5].weight, model[5].weight)


def test_masks_may_grow_while_held() -> None:
    """The gradual schedule: masks are subsets of the ones before, and the last one has the exact count."""
    model = make_net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    weights = prunable_weights(model)
    handle = hold_masks(model, make_masks(weights, 0.0), optimizer)
    before = handle.masks
    for number in range(6):
        handle.masks = make_masks(weights, ratio_at("gradual", 0.9, number / 5))
        assert not any(bool((handle.masks[name] & ~before[name]).any()) for name in before)
        before = handle.masks
        step(model, optimizer)
        assert revived(model, before) == 0
    assert {n: int((~m).sum()) for n, m in before.items()} == {n: round(0.9 * w.numel()) for n, w in weights.items()}


def test_remove_ends_it_and_errors_leave_no_hook() -> None:
    model = make_net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    masks = make_masks(prunable_weights(model), 0.8)
    with pytest.raises(ValueError, match="nope"):
        hold_masks(model, {"nope": torch.ones(2).bool()}, optimizer)
    handle = hold_masks(model, masks, optimizer)
    with pytest.raises(ValueError, match="nope"):
        handle.update({"nope": torch.ones(2).bool()})
    assert handle.masks.keys() == masks.keys()  # a refused update changes nothing
    step(model, optimizer)
    assert revived(model, masks) == 0
    handle.remove()
    handle.remove()
    step(model, optimizer)
    assert revived(model, masks) > 0
    assert not optimizer._optimizer_step_post_hooks


def test_a_weight_outside_the_optimizer_is_held() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model[0].parameters(), 0.1)
    masks = make_masks(prunable_weights(model), 0.5)
    hold_masks(model, masks, optimizer)
    with torch.no_grad():
        model[5].weight += 1
    step(model, optimizer)
    assert revived(model, masks) == 0


def test_the_model_survives_copies_and_files() -> None:
    model = make_net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    keys = list(model.state_dict())
    masks = make_masks(prunable_weights(model), 0.8)
    with hold_masks(model, masks, optimizer):
        step(model, optimizer)
        assert list(model.state_dict()) == keys  # no renamed parameter, no mask buffer
        fresh = make_net(seed=9)
        fresh.load_state_dict(model.state_dict())
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        buffer.seek(0)
        stored = make_net(seed=9)
        stored.load_state_dict(torch.load(buffer))
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fresh, stored]
        for other in copies:
            assert revived(other, masks) == 0
            again = OPTIMIZERS["adamw"](other.parameters())
            with hold_masks(other, masks, again):  # and can be trained on
                step(other, again)
            assert revived(other, masks) == 0
        model.load_state_dict(make_net(seed=9).state_dict())  # in place: still the same Parameters
        step(model, optimizer)
        assert revived(model, masks) == 0


def test_the_optimizer_state_round_trip_keeps_the_hold() -> None:
    model = make_net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    masks = make_masks(prunable_weights(model), 0.8)
    hold_masks(model, masks, optimizer)
    step(model, optimizer)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    assert revived(model, masks) == 0


def test_compiled_models_share_the_masks_of_the_plain_one() -> None:
    model = make_net()
    masks = make_masks(prunable_weights(model), 0.8)
    compiled = torch.compile(model, backend="eager")
    optimizer = OPTIMIZERS["sgd"](compiled.parameters())
    with hold_masks(compiled, masks, optimizer):
        for _ in range(2):
            step(compiled, optimizer)
    assert revived(compiled, masks) == 0 and revived(model, masks) == 0
    of_compiled = make_masks(prunable_weights(compiled), 0.8)
    assert next(iter(of_compiled)).startswith("_orig_mod.")
    apply_masks(model, of_compiled)
    assert revived(model, of_compiled) == 0


def test_a_gradient_scaler_may_skip_steps() -> None:
    model = make_net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    masks = make_masks(prunable_weights(model), 0.8)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with hold_masks(model, masks, optimizer):
        for factor in (1.0, math.inf, 1.0):  # the middle step is skipped
            optimizer.zero_grad()
            scaler.scale(model(torch.randn(4, 3, 8, 8)).square().sum() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
    assert revived(model, masks) == 0 and all(bool(p.isfinite().all()) for p in model.parameters())
