"""The numbers of a signal's form, on rows one can check by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from probed import asked, probed

from twore.advise.shape import Shape, noise_range, roughness, shapes
from twore.analysis.spared import PERFECT, unpruned

ROW = np.array([10.0, 20.0, 40.0, 30.0, 22.0])


def shape(signal=ROW, *, noise=1.0, whole=100.0) -> Shape:
    return Shape(0.9, np.arange(1.0, len(signal) + 1), np.asarray(signal, float), noise, whole)


def test_the_form_of_a_row():
    form = shape()
    assert (form.at, form.peak, form.low, form.last, form.rise) == (2, 40.0, 10.0, 22.0, -8.0)
    assert form.elsewhere == 16.0  # of 10 and 22: away from the peak and its neighbours
    assert form.kept == 0.22


def test_near_the_peak():
    assert shape().near(0.0) == (3.0, 3.0)
    assert shape().near(0.4) == (3.0, 4.0)  # within 12 of 40
    assert shape().near(1.0) == (1.0, 5.0)


def test_roughness_finds_the_errors_s_d_and_no_slope():
    noise = np.random.default_rng(0).normal(0, 2.0, 4000)
    assert roughness(noise + np.arange(4000)) == pytest.approx(2.0, rel=0.05)
    assert roughness(np.arange(10.0)) == 0
    assert np.isnan(roughness(np.array([1.0, 2.0])))


def test_what_noise_alone_ranges_over():
    """Tables of the relative range (d2 of control charts): 1.128, 2.059, 2.847 and 3.532."""
    assert [round(noise_range(number), 3) for number in (1, 2, 4, 8, 16)] == [0.0, 1.128, 2.059, 2.847, 3.532]


def test_the_unpruned_score_is_that_of_the_lightest_light_ratio():
    setting = probed()
    assert unpruned(setting) == 98.2  # ratio 0.5, epoch 24
    dense = setting.probes.query("epoch == 24 and ratio == 0.5").assign(ratio=0.0, recalibrated_score=99.0)
    assert unpruned(replace(setting, probes=pd.concat([setting.probes, dense]))) == 99.0
    heavy = replace(setting, probes=setting.probes.query("ratio == 0.9"))
    assert unpruned(heavy) == PERFECT  # nothing light was probed: better too little kept than too much


def test_rows_of_the_dense_network_change_nothing_else():
    setting = asked(probed())
    dense = setting.probes.query("epoch == 24 and ratio == 0.5").assign(ratio=0.0, recalibrated_score=99.0)
    more = replace(setting, probes=pd.concat([setting.probes, dense]))
    assert sorted(shapes(more, "batches")) == [0.5, 0.9]
    assert (shapes(more, "batches")[0.9].signal == shapes(setting, "batches")[0.9].signal).all()


def test_the_signal_is_the_predictors_and_weights_have_no_score():
    found = shapes(asked(probed()), "batches")[0.9]
    assert found.signal.tolist() == [20, 30, 34, 30, 22, 18]
    weights = shapes(asked(probed()), "weights")[0.9]
    assert weights.at == 5 and np.isnan(weights.whole)  # powerlaw_alpha falls to the end


def test_a_ratio_without_a_value_at_the_end_has_no_shape():
    setting = asked(probed())
    there = ~((setting.probes["epoch"] == 24) & (setting.probes["ratio"] == 0.9))
    assert sorted(shapes(replace(setting, probes=setting.probes[there]), "batches")) == [0.5]
    assert shapes(replace(setting, probes=None), "batches") == {}
