"""Gains, rivals, gaps and choices of adapted students, by hand."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
from scipy import stats

from laboratory import comparison, comparison_figures
from laboratory.comparison import AdaptedRun, arrange

SCORES = {  # of three seeds, over 20 dB of the student that is not adapted
    "both": (1.0, 1.2, 1.1),
    "teacher": (0.8, 0.9, 0.7),
    "measurements": (0.2, 0.5, 0.2),
    "raw": (-0.6, -0.5, -0.7),
    "oracle": (2.0, 2.0, 2.0),
}


def errors_around(mean):
    """Of four frames; the standard error of the difference of two such means is 0."""
    return tuple(mean + shift for shift in (-0.3, -0.1, 0.1, 0.3))


def runs_of(scores=SCORES, cell=(("photons", 10),), held_out=None):
    return [
        AdaptedRun(
            cell,
            labels,
            labels,
            seed,
            20 + gain,
            20.0,
            errors_around((held_out or {}).get(labels, -gain)),
        )
        for labels, gains in scores.items()
        for seed, gain in enumerate(gains)
    ]


def test_gain_and_gap_are_means_over_the_seeds_with_their_intervals():
    table = arrange(runs_of())
    half = stats.sem((1.0, 1.2, 1.1)) * stats.t.ppf(0.975, 2)
    (row,) = comparison.gains_table(table)
    assert row["both"] == f"+1.10 ± {half:.2f}" and row["not adapted (dB)"] == 20
    (row,) = comparison.gap_table(table)
    assert row["both"] == f"+55 ± {50 * half:.0f}" and "oracle" not in row


def test_a_gap_without_an_oracle_that_is_better_is_empty():
    (row,) = comparison.gap_table(arrange(runs_of(SCORES | {"oracle": (0.1, 0.01, 0.1)})))
    assert row["both"] == ""


def test_a_gain_of_one_seed_is_not_given():
    (row,) = comparison.gains_table(arrange(runs_of({"both": (1.0,)})))
    assert row["both"] == "one seed"


def test_the_rival_is_the_best_of_those_without_a_teacher_and_pairs_are_of_one_seed():
    differences = comparison.compare_with_rivals(arrange(runs_of()))
    assert [(one.name, one.rival) for one in differences] == [
        ("both", "measurements"),
        ("teacher", "measurements"),
    ]
    expected = stats.ttest_rel(SCORES["both"], SCORES["measurements"])
    assert differences[0].difference.mean == pytest.approx(0.8)
    assert differences[0].difference.p == pytest.approx(expected.pvalue, rel=1e-6)


@pytest.mark.parametrize(
    "held_out, chosen, loss",
    [
        ({}, "both", 0.0),
        ({"teacher": -9}, "teacher", 0.2),
        ({"raw": -9}, "raw", 1.6),
        ({"both": -0.7}, "teacher", 0.2),
    ],
)
def test_held_out_frames_choose_among_the_candidates_and_never_the_oracle(held_out, chosen, loss):
    first = comparison.choices_of(arrange(runs_of(held_out=held_out)))[0]
    assert first.chosen.labels == chosen and first.loss == pytest.approx(loss)
    assert first.best.labels == "both"


def test_the_first_candidate_is_chosen_until_another_is_clearly_better():
    runs = {run.labels: run for run in runs_of({"adapted": (1.0,), "both": (1.1,)})}
    for shift, chosen in ((-0.05, "adapted"), (-0.2, "both")):
        # The frames differ by shift +- 0.1 sqrt(4 / 3): a standard error of 0.058
        errors = (-1.1, -0.9, -1.1, -0.9)
        both = tuple(
            error + shift + noise
            for error, noise in zip(errors, (0.1, 0.1, -0.1, -0.1), strict=True)
        )
        held_out = {"adapted": errors, "both": both}
        table = arrange(replace(run, held_out=held_out[name]) for name, run in runs.items())
        assert comparison.choices_of(table)[0].chosen.labels == chosen


def test_a_choice_that_harms_is_reported():
    table = arrange(runs_of(held_out={"raw": -9}))
    assert "**in 3 a student more than 0.03 dB worse than before**" in (
        comparison.write_comparison(table)
    )
    assert "never a student more than 0.03 dB worse" in comparison.write_comparison(
        arrange(runs_of())
    )


def test_the_best_by_the_truth_may_be_the_student_as_it_was():
    harmful = {"both": (-0.2, -0.2), "raw": (-0.4, -0.4)}
    assert comparison.choices_of(arrange(runs_of(harmful)))[0].loss == pytest.approx(0.2)


def test_many_settings_are_rows():
    many = {f"both {k}": (1.0, 1.1) for k in range(11)}
    rows = comparison.gains_table(arrange(runs_of(many)))
    assert len(rows) == 11 and rows[0] == {"setting": "both 0", "photons 10": "+1.05 ± 0.64"}


def test_light_goes_from_none_which_has_no_noise_to_few_photons():
    runs = [
        run
        for frames in (50, 200)
        for photons in (2, None, 50)
        for run in runs_of(cell=(("dataset", "text"), ("photons", photons), ("frames", frames)))
    ]
    figure = comparison_figures.plot_over_light(arrange(runs))
    assert [axis.get_title() for axis in figure.axes] == ["text, frames 50", "text, frames 200"]
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["none", "50", "2"]
    assert axis.get_ylim()[1] > 2 and len(axis.containers) == len(SCORES)
    plt.close(figure)
    figure = comparison_figures.plot_over_frames(arrange(runs))
    titles = [axis.get_title() for axis in figure.axes if axis.get_visible()]
    assert titles == ["text, photons 2", "text, photons none", "text, photons 50"]
    assert figure.axes[0].get_xscale() == "log"
    plt.close(figure)
    assert comparison_figures.plot_over_light(arrange(runs_of())) is None, "nothing varies"


def test_harm_that_is_much_larger_than_all_gains_leaves_the_panel():
    cells = [(("photons", photons),) for photons in (50, 10)]
    scores = SCORES | {"raw": (-30, -30, -30)}
    table = arrange([run for cell in cells for run in runs_of(scores, cell)])
    figure = comparison_figures.plot_over_light(table)
    low, high = figure.axes[0].get_ylim()
    assert -5 < low < -2 and 2 < high < 3
    plt.close(figure)
