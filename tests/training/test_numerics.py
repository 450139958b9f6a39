from __future__ import annotations

import pytest
import torch

from twore.training import Numerics
from twore.training.numerics import resolve


def test_auto_takes_bf16_only_where_it_is_clearly_faster():
    def seconds(gain):
        return lambda numerics: 1.0 if numerics.precision == "float32" else 1.0 / gain

    asked = Numerics(device="cpu")
    assert resolve(asked, seconds(1.5)) == Numerics(device="cpu", precision="bf16")
    assert resolve(asked, seconds(1.05)) == Numerics(device="cpu", precision="float32")


def test_what_is_asked_is_not_measured():
    def forbidden(_numerics):
        raise AssertionError

    assert resolve(Numerics(device="cpu", precision="bf16"), forbidden).precision == "bf16"


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match="--device cpu"):
        resolve(Numerics(device="cuda"))


@pytest.mark.parametrize("change", [{"device": "tpu"}, {"precision": "fp8"}, {"threads": 0}, {"stack": -1}])
def test_unknown_values_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Numerics(**change)
