from __future__ import annotations

import pytest

from twore.training import REPORT_DENSE, REPORT_FINETUNE, WMT14_DENSE, Training


def test_the_report_drops_after_80_and_120_epochs():
    rates = [REPORT_DENSE.lr_at(epoch, 0) for epoch in (0, 79, 80, 119, 120, 159)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_fine_tuning_is_constant():
    assert {REPORT_FINETUNE.lr_at(epoch, update) for epoch in range(40) for update in (0, 10**5)} == {1e-3}


def test_inverse_square_root_by_hand():
    """Vaswani et al. eq. 3 with warm-up 4: steps 1..4 rise linearly to 4**-0.5, then step**-0.5."""
    spec = Training(schedule="inverse_sqrt", lr=1.0, warmup=4, drops=())
    assert [spec.lr_at(0, update) for update in (0, 1, 3, 15)] == pytest.approx([0.125, 0.25, 0.5, 0.25])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", -1),
        ("batch_size", 0),
        ("optimizer", "lion"),
        ("schedule", "cosine"),
        ("lr", -0.1),
        ("lr", float("nan")),
        ("momentum", 1.0),
        ("clip", 0.0),
        ("accumulate", 0),
        ("drops", (120, 80)),
        ("drop_factor", -1.0),
        ("warmup", 0),
        ("betas", (2.0, 0.9)),
        ("eps", 0.0),
        ("ema", -1.0),
        ("clock", "stop"),
    ],
)
def test_senseless_values_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Training(**{field: value})


def test_a_share_of_an_epoch_is_at_least_a_batch():
    assert [Training(share=share).batches_of(10) for share in (1.0, 0.29, 0.3, 0.001)] == [10, 2, 3, 1]


def test_the_published_translation_schedule():
    # Vaswani et al. 2017, eq. 3, d_model 512 and 4,000 warm-up updates: peak at update 4,000 (512 * 4000)**-0.5
    assert WMT14_DENSE.lr_at(0, 3_999) == pytest.approx((512 * 4_000) ** -0.5) == pytest.approx(6.988e-4, rel=1e-4)
    assert WMT14_DENSE.lr_at(0, 0) == pytest.approx(512**-0.5 * 4_000**-1.5) == pytest.approx(1.747e-7, rel=1e-3)
    assert WMT14_DENSE.lr_at(3, 15_999) == pytest.approx(6.988e-4 / 2, rel=1e-4)
