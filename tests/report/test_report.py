"""The report of synthetic runs whose truth is known: what is written, what is said, what is left out and why."""

import re
import shutil
import xml.etree.ElementTree as ElementTree
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from synthetic import GAINS, PEAKS, RATIOS, write_run

from twore.report import write_report
from twore.report.findings import answer, findings, headline
from twore.report.readings import similarity_reading


class Tags(HTMLParser):
    """Every (tag, attributes) of a page, and its visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        bare = re.sub(r"<style.*?</style>", "", page, flags=re.S)
        self.text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", bare)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def report(folder: Path) -> Tags:
    return Tags(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def scaling(tmp_path_factory) -> Path:
    """A run over depth and data, two dense seeds, with its report written; tests must not change it."""
    folder = write_run(tmp_path_factory.mktemp("scaling"), scaling=True, dense_seeds=2)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(scaling) -> Tags:
    return Tags((scaling / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def one_setting(tmp_path_factory) -> Path:
    """A translation run of one setting, without checkpoints.csv and curves.csv; tests must not change it."""
    folder = write_run(tmp_path_factory.mktemp("one"), translation=True, checkpoints=False, curves=False)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory) -> Tags:
    """The least run: one setting, one seed, results.csv only."""
    folder = write_run(tmp_path_factory.mktemp("seed"), finetune_seeds=1, checkpoints=False, curves=False)
    (folder / "study.yaml").unlink()
    return report(folder)


def test_every_figure_of_the_report_is_written_as_png_and_svg(scaling):
    names = {path.stem.split("-")[1] for path in (scaling / "figures").glob("*.png")}
    assert names == {"1", "2", "3a", "4", "5", "6", "7", "8a", "9", "10"}
    assert {p.stem for p in (scaling / "figures").glob("*.svg")} == {
        p.stem for p in (scaling / "figures").glob("*.png")
    }


def test_the_page_needs_nothing_but_itself(page):
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes.get(name, "")[:60])
    assert "url(" not in page.text


def test_links_within_the_page_lead_somewhere(page):
    places = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(links) >= 12
    assert all(str(link)[1:] in places for link in links)


def test_every_image_says_in_words_what_it_shows(page):
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 10
    assert all(len(str(image["alt"])) > 40 for image in images)
    assert any("epoch 8, 9.6 points above the last one" in str(image["alt"]) for image in images)


def test_headline_and_answer_state_the_truth(page):
    assert "Stop early when you prune 90 % of the weights or more; up to 80 %, train to the end." in page.text
    assert "Regime I, up to ratio 0.8: the last checkpoint (epoch 40)" in page.text
    assert "Regime II, from ratio 0.9 on: the best epochs are 8 to 24 of 40" in page.text
    assert (
        "earlier at heavy ratios (median 16) than at light ones (median 40), as the two-regime model says" in page.text
    )
    assert "(here: 3 fine-tune seeds and 2 dense seeds)" in page.text
    assert "Resampling the 2 dense seeds" in page.text and "at 3 of the 3 ratios of Regime II" in page.text


@pytest.mark.parametrize("ratio", sorted(PEAKS))
def test_each_heavy_ratio_is_read_off_rightly(page, ratio):
    said = (
        f"At ratio {ratio:g} the best checkpoint is epoch {PEAKS[ratio]}, {GAINS[ratio]:.1f} points above the last one"
    )
    assert said in page.text


def test_scaling_is_compared_with_the_report(page):
    assert "by model depth (layers): 20: from ratio 0.95; 14: from ratio 0.9; 8: from ratio 0.9." in page.text
    assert "by training data (%): 10: nowhere; 50: from ratio 0.9; 100: from ratio 0.9." in page.text
    assert "moves to lighter ratios with smaller models, as in the report" in page.text
    assert "moves to lighter ratios with more data, as in the report" in page.text
    assert "40 to 24 at ratio 0.9, 32 to 16 at ratio 0.95, 24 to 8 at ratio 0.97" in page.text
    assert "It gets earlier at 3 of 3 ratios" in page.text


def test_similarity_is_compared_with_the_boundary(page):
    assert "rises most between ratios 0.8 and 0.9, from 0.0042 to 0.05 nats" in page.text
    assert "the two lines coincide, as in the report" in page.text


def test_random_distance_is_compared_with_each_optimum(page):
    assert "random_distance is largest at epoch 16 and then falls by 0.0024" in page.text
    assert "At ratio 0.95 that is the best epoch." in page.text
    # at 0.97 the score falls by 0.3 points an epoch from epoch 8: 2.4 points by epoch 16
    assert (
        "At ratio 0.97 it is 2 checkpoints later than the best (8) and pruning there scores 2.4 points less."
        in page.text
    )
    assert "within one checkpoint of each other at 1 of 3 ratios" in page.text


def test_the_training_curve_names_the_drops(page):
    assert "The learning rate drops after epochs 20 and 30." in page.text


def test_provenance_and_study_are_shown_and_escaped(page, scaling):
    assert "node-a" in page.text and "abc1234" in page.text
    assert "2026-11-20T12:00:00 to 2026-11-21T12:00:00" in page.text
    cells = 5 * 2 * 10 * len(RATIOS) * 3
    assert f"{cells:,}" in page.text
    assert f"{cells * 2 / 3600:.1f} h for cells" in page.text  # two seconds a cell
    assert "&lt;b&gt;not markup" in (scaling / "report.html").read_text(encoding="utf-8")


def test_the_same_tables_give_the_same_bytes(one_setting, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(one_setting, copy, ignore=shutil.ignore_patterns("figures", "report.html"))
    write_report(copy)
    written = [one_setting / "report.html", *sorted((one_setting / "figures").iterdir())]
    assert len(written) == 1 + 2 * 7
    for path in written:
        assert (copy / path.relative_to(one_setting)).read_bytes() == path.read_bytes(), path.name


def test_figures_say_what_their_axes_are(scaling):
    for path in (scaling / "figures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert float(str(root.get("width")).removesuffix("pt")) > 300
        comments = re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))  # matplotlib writes each text as one
        wanted = {"1": "prune ratio", "5": "optimal epoch to prune at", "10": "training loss (nats)"}
        assert wanted.get(path.stem.split("-")[1], "training epochs before pruning") in comments, path.name


def test_one_seed_and_only_results_make_a_page(one_seed):
    assert "One seed says so: check it with more." in one_seed.text
    assert "the spread is unknown and chance cannot be ruled out" in one_seed.text
    assert "Every score is a single run" in one_seed.text
    assert "There is no study.yaml" in one_seed.text


def test_figures_without_data_are_named_with_the_reason(one_seed):
    assert len([1 for tag, _ in one_seed.tags if tag == "img"]) == 4  # 1, 2, 3 and 8
    for number in (4, 5, 9):
        assert re.search(
            rf"Figure {number}, [^:]+: there is one setting only; sweep model depth or data", one_seed.text
        )
    assert "pairs.csv has no rows for this setting: it takes two fine-tune seeds" in one_seed.text
    assert "checkpoints.csv has no rows for this setting" in one_seed.text
    assert "curves.csv has no rows for this setting" in one_seed.text


def test_translation_has_the_figures_b(one_setting):
    names = {path.stem.split("-")[1] for path in (one_setting / "figures").glob("*.png")}
    assert names == {"1", "2", "3b", "6", "8b"}


def texts_of(figure: Path) -> list[str]:
    """Every text in an SVG: matplotlib writes each as a comment beside its outlines."""
    return re.findall(r"<!-- (.*?) -->", figure.read_text(encoding="utf-8"))


def test_translation_is_drawn_by_its_loss_too(one_setting):
    """In the synthetic run 100 x loss is 400 - score: the loss has the score's optima, and a point is 0.01 nat."""
    text = " ".join((one_setting / "report.html").read_text(encoding="utf-8").split())
    reading = text.split('id="figure-3b-loss-regimes"')[1].split("</figure>")[0]
    for ratio, peak in PEAKS.items():
        said = f"At ratio {ratio:g} the best checkpoint is epoch {peak}, {GAINS[ratio] / 100:.3f} nats below the last"
        assert said in reading
    assert not re.search(r"\bpoints?\b", reading.split('<ul class="reading">')[1])


def test_the_loss_is_in_nats_and_less_is_better(one_setting):
    regimes, optima = (texts_of(one_setting / "figures" / f"figure-{key}.svg") for key in LOSS_FIGURES)
    assert "loss minus the row's best (nats)" in regimes and "later, and 0.005 nats higher or more" in regimes
    assert "0.096" in regimes  # ratio 0.97: 9.6 points from epoch 8 to the last
    assert "loss (nats a token)" in optima and "3.316" in optima  # ratio 0.97 at epoch 8: 4 - (95 - 30 * 0.97**4) / 100
    assert not [text for text in regimes + optima if text.startswith("\N{MINUS SIGN}")]
    by_score = texts_of(one_setting / "figures" / "figure-3b-regimes.svg")
    assert "BLEU minus best of the row" in by_score and "later, and 0.5 points lower or more" in by_score


LOSS_FIGURES = ("3b-loss-regimes", "8b-loss-optima")


def test_stars_that_were_chosen_on_other_scores_are_explained(one_setting, tmp_path):
    text = (one_setting / "report.html").read_text(encoding="utf-8")
    assert "A star marks the best epoch of a ratio." in text and "best on validation; the numbers" not in text
    shutil.copytree(one_setting, tmp_path / "valid")
    results = pd.read_csv(tmp_path / "valid" / "results.csv")
    results.assign(valid_score=results["score"] + 1).to_csv(tmp_path / "valid" / "results.csv", index=False)
    assert report(tmp_path / "valid").text.count("best on validation; the numbers are test scores") == 3  # 3b, 8b twice


def test_samples_of_dense_and_pruned_models_stand_side_by_side(one_setting):
    text = (one_setting / "report.html").read_text(encoding="utf-8")
    part = text.split('id="samples"')[1].split('id="provenance"')[0]
    assert "Guten Tag &lt;b&gt;." in part
    for said in ("dense says at 40", "0.2 says at 40", "0.97 says at 40", "0.97 says at 8"):
        assert said in part
    assert part.count("the best epoch") == 2


def test_samples_without_their_inputs_are_shown_all_the_same(one_setting, tmp_path):
    """Text that may not be given on is left out of a folder; what the models said is ours."""
    shutil.copytree(one_setting, tmp_path / "given")
    samples = pd.read_csv(tmp_path / "given" / "samples.csv").drop(columns=["input", "reference"])
    samples.to_csv(tmp_path / "given" / "samples.csv", index=False)
    said = report(tmp_path / "given").text
    assert "0.97 says at 8" in said and "(left out of this folder)" in said


def test_no_second_regime_is_said_plainly(tmp_path):
    results = pd.read_csv(write_run(tmp_path, two_regimes=False) / "results.csv")
    found = findings(results)
    assert headline(found) == "Train to the end: at no prune ratio of this grid does stopping early gain 0.5 points."
    assert answer(found)[0].startswith("Two regimes do not show here: the largest gain over the last checkpoint")
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert similarity_reading(pairs, found)[-1] == "There is no boundary in the scores to compare that with."


def test_a_gain_within_the_noise_is_not_claimed(tmp_path):
    results = pd.read_csv(write_run(tmp_path, dense_seeds=2) / "results.csv")
    last = (results["epoch"] == 40) & results["ratio"].isin(PEAKS)
    results.loc[last & (results["dense_seed"] == 0), "score"] += 12.0  # one dense run gains much at its end, one loses
    results.loc[last & (results["dense_seed"] == 1), "score"] -= 12.0
    found = findings(results)
    assert headline(found).endswith("The gain is not clear of the spread over seeds.")
    assert "exceeds two standard errors at 0 of the 3 ratios" in answer(found)[-1]


def test_a_gain_that_goes_away_again_is_pointed_out(tmp_path):
    results = pd.read_csv(write_run(tmp_path) / "results.csv")
    results.loc[(results["epoch"] == 40) & (results["ratio"] == 0.95), "score"] += 4.8  # now the last is as good
    said = " ".join(answer(findings(results)))
    assert "The line is not clean: at the heavier ratio 0.95 the gain is below 0.5 points" in said


def test_nothing_is_claimed_of_a_ratio_whose_last_checkpoint_is_missing(tmp_path):
    results = pd.read_csv(write_run(tmp_path, two_regimes=False) / "results.csv")
    found = findings(results[~((results["ratio"] == 0.97) & (results["epoch"] == 40))])
    assert headline(found) == "No answer yet: the last checkpoint is not scored at ratio 0.97."
    assert "At ratio 0.97 the last checkpoint was not scored yet" in " ".join(answer(found))


def test_lines_that_do_not_coincide_are_not_said_to(tmp_path):
    folder = write_run(tmp_path)
    results, pairs = pd.read_csv(folder / "results.csv"), pd.read_csv(folder / "pairs.csv")
    pairs.loc[pairs["ratio"] == 0.8, "model_similarity"] = 0.049  # the jump is now between 0.5 and 0.8
    said = similarity_reading(pairs, findings(results))
    assert "between ratios 0.5 and 0.8" in said[0] and said[-1].endswith("the two lines do not coincide here.")


def test_a_killed_study_is_reported_as_far_as_it_got(tmp_path):
    folder = write_run(tmp_path, checkpoints=False, curves=False, pairs=False)
    results = pd.read_csv(folder / "results.csv")
    results = results[~((results["ratio"] == 0.97) & (results["epoch"] >= 36))]
    results.to_csv(folder / "results.csv", index=False)
    pd.DataFrame([{"key": "k1", "error": "out of memory <at> step 3"}]).to_csv(folder / "failures.csv", index=False)
    said = report(folder).text
    assert "174 of the 180 of a full grid: the study is not complete" in said
    assert "At ratio 0.97 the best checkpoint is epoch 8; the last one was not scored." in said
    assert "1 failed" in said and "out of memory <at> step 3" in said


def test_the_smallest_table_makes_a_page(tmp_path):
    cell = {"epoch": 5, "ratio": 0.5, "finetune_seed": 0, "score": 71.25}
    pd.DataFrame([cell]).to_csv(tmp_path / "results.csv", index=False)
    said = report(tmp_path).text
    assert "Scores run from 71.2 (ratio 0.5, epoch 5) to 71.2" in said and "Train to the end" in said


def test_a_figure_that_no_longer_follows_is_removed(tmp_path):
    cell = {"epoch": 5, "ratio": 0.5, "finetune_seed": 0, "score": 71.25}
    pd.DataFrame([cell]).to_csv(tmp_path / "results.csv", index=False)
    stale = tmp_path / "figures" / "figure-10-training.png"
    stale.parent.mkdir()
    stale.write_bytes(b"of an earlier report")
    write_report(tmp_path)
    assert not stale.exists() and (tmp_path / "figures" / "figure-2-scores.png").exists()


def test_missing_or_empty_results_are_refused_with_a_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the study"):
        write_report(tmp_path)
    (tmp_path / "results.csv").write_text("epoch,ratio,finetune_seed,score\n")
    with pytest.raises(ValueError, match="no rows yet"):
        write_report(tmp_path)
