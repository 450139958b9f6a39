"""Fits to spectra: power law, E-TPL, EXP and the Marchenko-Pastur bulk, against plain loops and SciPy."""

import doctest
import math

import numpy as np
import pytest
from scipy import integrate, optimize

from twore.metrics import marchenko_pastur, powerlaw, truncated
from twore.metrics.marchenko_pastur import fit_bulk
from twore.metrics.powerlaw import fit_power_laws
from twore.metrics.truncated import cumulative, fit_truncated, maximum_likelihood, moments


def spectrum(rows, columns, *, heavy=False, seed=0):
    draw = np.random.default_rng(seed)
    w = draw.standard_t(2.5, (rows, columns)) if heavy else draw.standard_normal((rows, columns))
    return np.linalg.svd(w, compute_uv=False) ** 2 / columns


SPECTRA = [
    spectrum(*shape, heavy=heavy, seed=shape[0])
    for shape in ((300, 200), (64, 64), (30, 27), (21, 20), (40, 19), (12, 10), (9, 8), (5, 3))
    for heavy in (False, True)
]


def slow_power_law(x):
    """Every xmin in turn, as the formulas stand in the module's docstring: alpha, xmin, ks, tail."""
    x = np.sort(x[x > 1e-5])
    fits = []
    for i in range(len(x) - 1):
        tail, n = x[i:], len(x) - i
        if len(x) < 20 and n < min(8, len(x)):
            continue
        alpha = 1 + (n - (len(x) < 20)) / np.log(tail / tail[0]).sum()
        ks = np.abs(1 - (tail / tail[0]) ** (1 - alpha) - np.arange(n) / n).max()
        fits.append((ks, i, alpha, tail[0], n))
    ks, _, alpha, xmin, n = min(fits)
    return alpha, xmin, ks, n


def test_power_laws_equal_a_loop_over_every_xmin():
    fits = fit_power_laws(SPECTRA)
    slow = np.array([slow_power_law(x) for x in SPECTRA])
    for column, field in enumerate((fits.alpha, fits.xmin, fits.ks, fits.tail)):
        np.testing.assert_allclose(field, slow[:, column], rtol=1e-9)
    np.testing.assert_allclose(fits.sigma, (fits.alpha - 1) / np.sqrt(fits.tail))


def test_each_spectrum_is_fitted_on_its_own(monkeypatch):
    together = fit_power_laws(SPECTRA)
    monkeypatch.setattr(powerlaw, "CHUNK", 100)  # cut anywhere
    for fits in (fit_power_laws(SPECTRA), fit_power_laws([x[::-1] for x in SPECTRA])):  # whatever the order
        np.testing.assert_allclose(fits.alpha, together.alpha, rtol=1e-12)
        np.testing.assert_array_equal(fits.tail, together.tail)
    alone = [fit_power_laws([x]).ks[0] for x in SPECTRA]
    np.testing.assert_allclose(alone, together.ks, rtol=1e-12)


def test_a_pure_power_law_is_found():
    x = 0.3 * (1 - np.arange(2000) / 2000) ** (-1 / 1.5)  # quantiles of x^-2.5 from 0.3
    fit = fit_power_laws([np.concatenate([np.linspace(0.01, 0.29, 500), x])])
    assert fit.alpha[0] == pytest.approx(2.5, rel=0.01)
    assert fit.xmin[0] == pytest.approx(0.3, rel=0.05)
    assert fit.ks[0] < 2e-3


NOTHING = [np.zeros(0), np.zeros(9), np.full(9, 1e-6), np.array([1.0]), np.full(30, 2.0)]


def test_nothing_to_fit_is_nan_and_leaves_the_others_alone():
    known = SPECTRA[0]
    fits = fit_power_laws([NOTHING[0], NOTHING[1], known, *NOTHING[2:]])
    assert np.isnan(np.delete(fits.alpha, 2)).all() and np.isnan(np.delete(fits.xmin, 2)).all()
    assert (np.delete(fits.tail, 2) == 0).all()
    assert fits.alpha[2] == fit_power_laws([known]).alpha[0]
    for fit in fit_truncated([NOTHING[0], NOTHING[1], known, *NOTHING[2:]]):
        for field in (fit.alpha, fit.lam, fit.xmin, fit.ks):
            assert np.isnan(np.delete(field, 2)).all() and np.isfinite(field[2])
    assert fit_power_laws([]).alpha.shape == fit_truncated([])[0].lam.shape == (0,)
    bulk = fit_bulk(np.zeros(9), 9, 9)
    assert math.isnan(bulk.sigma) and math.isnan(bulk.softrank)


def test_the_threshold_is_an_option():
    x = SPECTRA[0]
    assert np.isnan(fit_power_laws([x * 1e-9]).alpha[0])
    assert fit_power_laws([x * 1e-9], threshold=0).alpha[0] == pytest.approx(fit_power_laws([x]).alpha[0], rel=1e-9)


def log_normaliser(alpha, z):
    """ln of the integral from 1 of u^-alpha e^(-z (u - 1)), by SciPy."""
    value = integrate.quad(lambda u: u**-alpha * math.exp(-z * (u - 1)), 1, math.inf, epsabs=0, epsrel=1e-11, limit=500)
    return math.log(value[0])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.7, 4.0])
@pytest.mark.parametrize("z", [0.01, 0.3, 4.0, 200.0])
def test_moments_and_cdf_equal_numerical_integration(alpha, z):
    log_z, t, v, tt, tv, vv = (float(m[0]) for m in moments(np.array([alpha]), np.array([z])))
    assert log_z == pytest.approx(log_normaliser(alpha, z), rel=1e-8, abs=1e-9)

    def mean(f):
        density = lambda u: f(u) * u**-alpha * math.exp(-z * (u - 1) - log_z)  # noqa: E731
        return integrate.quad(density, 1, math.inf, epsabs=0, epsrel=1e-10, limit=500)[0]

    assert t == pytest.approx(mean(math.log), rel=1e-7)
    assert v == pytest.approx(mean(lambda u: u - 1), rel=1e-7)
    assert tt == pytest.approx(mean(lambda u: math.log(u) ** 2), rel=1e-7)
    assert tv == pytest.approx(mean(lambda u: math.log(u) * (u - 1)), rel=1e-7)
    assert vv == pytest.approx(mean(lambda u: (u - 1) ** 2), rel=1e-7)
    ends = np.array([0.0, 0.1, 1.0, 3.0]) * t
    shares = cumulative(np.array([alpha]), np.array([z]), ends, np.zeros(4, dtype=int))
    for end, share in zip(ends, shares, strict=True):
        part = integrate.quad(lambda s: math.exp((1 - alpha) * s - z * math.expm1(s) - log_z), 0, end)[0]
        assert share == pytest.approx(part, abs=1e-5)


def negative_log_likelihood(parameters, mean_t, mean_v):
    alpha, z = parameters
    return alpha * mean_t + z * mean_v + log_normaliser(alpha, z)


@pytest.mark.parametrize(("alpha", "z"), [(0.4, 0.2), (1.5, 0.05), (2.5, 1.0), (1.0, 3.0)])
def test_the_maximum_is_the_one_scipy_finds(alpha, z):
    # the means of a fit are what it is the maximum of; SciPy starts elsewhere and must come to the same place
    _, t, v, *_ = moments(np.array([alpha]), np.array([z]))
    ours = [float(part[0]) for part in maximum_likelihood(t, v)]
    assert ours == pytest.approx([alpha, z], rel=1e-5)
    theirs = optimize.minimize(
        negative_log_likelihood,
        (alpha + 0.5, 2 * z),
        args=(float(t[0]), float(v[0])),
        method="Nelder-Mead",
        bounds=[(0, None), (1e-6, None)],
        options={"xatol": 1e-7, "fatol": 1e-13},
    )
    assert ours == pytest.approx(theirs.x, rel=1e-3)


def test_the_ends_of_the_family_are_reached():
    # u^-4 has mean_t 1/3 and mean_v 1/2: a tail of this mean_t and a larger mean_v is heavier than the family allows
    assert [float(part[0]) for part in maximum_likelihood(np.array([1 / 3]), np.array([0.6]))] == pytest.approx([4, 0])
    # an exponential of rate 2 has mean_v 1/2: a larger mean_t would ask for alpha < 0
    mean_t = float(moments(np.array([0.0]), np.array([2.0]))[1][0])
    for more, less in ((1.02, False), (0.98, True)):
        alpha, z = (float(part[0]) for part in maximum_likelihood(np.array([more * mean_t]), np.array([0.5])))
        assert (alpha > 0) is less and z <= 2 + 1e-12
    assert z < 2


def test_etpl_and_exp_take_their_xmin_around_the_peak_by_ks():
    x = SPECTRA[1]
    etpl, exp = fit_truncated([x])
    log = np.sort(np.log10(x))
    counts, edges = np.histogram(log, bins=100)
    peak = 10 ** edges[counts.argmax()]
    distances = {}
    for xmin in np.sort(x)[(np.sort(x) >= 0.95 * peak) & (np.sort(x) < 1.5 * peak)]:
        tail = np.sort(x[x >= xmin])
        lam = 1 / (tail.mean() - xmin)
        distances[xmin] = np.abs(1 - np.exp(-lam * (tail - xmin)) - np.arange(len(tail)) / len(tail)).max(), lam
    best = min(distances, key=lambda xmin: distances[xmin][0])
    assert exp.xmin[0] == pytest.approx(best, rel=1e-9)
    assert (exp.ks[0], exp.lam[0]) == pytest.approx(distances[best], rel=1e-9)
    assert 0.95 * peak <= etpl.xmin[0] < 1.5 * peak
    assert exp.alpha[0] == 0


def test_eigenvalues_in_other_units_give_lambda_in_other_units():
    for a, b in zip(fit_truncated(SPECTRA), fit_truncated([4 * x for x in SPECTRA]), strict=True):
        np.testing.assert_allclose(b.lam, a.lam / 4, rtol=1e-6)
        np.testing.assert_allclose(b.alpha, a.alpha, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(b.ks, a.ks, rtol=1e-6)


def test_truncated_fits_do_not_depend_on_company(monkeypatch):
    together = fit_truncated(SPECTRA)[0]
    monkeypatch.setattr(truncated, "CHUNK", 7)
    np.testing.assert_allclose(fit_truncated(SPECTRA)[0].lam, together.lam, rtol=1e-9)
    np.testing.assert_allclose([fit_truncated([x])[0].lam[0] for x in SPECTRA], together.lam, rtol=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(400, 100), (200, 200)])
def test_random_weights_are_all_bulk_and_a_planted_direction_is_a_spike(rows, columns):
    noise = np.random.default_rng(1).standard_normal((rows, columns))
    bulk = fit_bulk(np.linalg.svd(noise, compute_uv=False) ** 2, rows, columns)
    assert bulk.sigma == pytest.approx(1, abs=0.02)
    assert bulk.softrank == pytest.approx(1, abs=0.06)
    assert bulk.spikes == 0
    planted = noise + 3.0 * np.ones((rows, columns))
    marked = fit_bulk(np.linalg.svd(planted, compute_uv=False) ** 2, rows, columns)
    assert marked.spikes >= 1 and marked.softrank < 0.1


@pytest.mark.parametrize("seed", range(6))
def test_no_sigma_is_nearer_than_the_one_found(seed):
    rows, columns = ((40, 20), (20, 10), (100, 30))[seed % 3]
    draw = np.random.default_rng(seed)
    x = np.linalg.svd(draw.standard_t(3, (rows, columns)), compute_uv=False) ** 2
    grid, density = marchenko_pastur._density(x / x.mean())
    found = fit_bulk(x, rows, columns).sigma
    tried = np.append(np.linspace(0.5 * found, 1.5 * found, 2001), found)
    distances = marchenko_pastur._distances(grid, density, rows / columns, tried)
    assert distances[-1] <= distances.min() + 1e-3 * abs(distances.min())


def test_the_density_is_a_sum_of_triangles():
    values = np.array([0.05, 0.3, 0.32, 1.0])
    x, density = marchenko_pastur._density(values)
    for point, height in list(zip(x, density, strict=True))[::17]:
        assert height == pytest.approx(np.maximum(1 - np.abs(point - values) / 0.1, 0).sum() / 0.4, abs=1e-12)


def test_examples_run():
    assert doctest.testmod(powerlaw).failed == 0
    assert doctest.testmod(truncated).failed == 0
    assert doctest.testmod(marchenko_pastur).failed == 0
