"""Writes docs/reference.md from the parsers and the registry: `make reference`."""

import dataclasses
import inspect
import re
from argparse import (
    SUPPRESS,
    Action,
    ArgumentParser,
    BooleanOptionalAction,
    _HelpAction,
    _StoreTrueAction,
)
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from core import registry

PATH = Path(__file__).with_name("reference.md")
SCRIPTS = (
    "main_unet", "main_unet_dist", "progressive_distill", "test_UNet",
    "main_classify", "main_classify_dist", "test_classify",
    "predict", "compare_models", "analyze_features", "visualize_mask_spc", "acquire", "calibrate",
    "sweep", "runs", "zoo", "explore", "benchmark", "demo",
)  # fmt: skip

# What the value of a flag looks like, by the name of the function that reads it.
VALUES = {
    "int": "integer",
    "float": "number",
    "str": "text",
    "ordering": "an ordering, or `file:PATH`",
    "degradation": "a preset, or `file:PATH.yml`",
    "selection": "a selection, by number or name",
    "import_order": "`natural`, `walsh`, `listed:FILE`, or an ordering",
    "scaling": "a number > 0, `auto`, or `frame`",
    "noise_level": "dB, or `none`",
    "network_file": "a checkpoint, or `zoo:NAME`",
    "teacher": "a checkpoint, `zoo:NAME`, `FILE.pt2`, or `FILE.py:NAME`",
    "photons": "a number > 0, or `none`",
    "white_noise": "a number > 0, or `none`",
    "number_or_auto": "a number > 0, or `auto`",
    "side": "a power of two",
    "name": "letters, digits, `_`, `-`, `.`, `+`",
    "assignment": "`NAME=VALUE`",
    "named_value": "`NAME=VALUE`",
    "network": "a network, or `FILE.py:CLASS`",
    "own_source": "`FILE.py`",
}

# The tables of the registry: heading, and what a name in it is for.
TABLES = {
    "DATASETS": ("Datasets", "`--dataset` of the scripts that restore images."),
    "LABELLED": ("Datasets with labels", "`--dataset` of the scripts that classify."),
    "READERS": ("Who reads which data flag", "A dataset that does not read a flag refuses it."),
    "PHYSICS": ("Physics", "`--physics`, with the flags that each one reads and their defaults."),
    "ORDERINGS": ("Orderings", "`--ordering` of the single-pixel camera; `file:PATH` is your own."),
    "FIRST_IMAGES": ("First images", "`--x0`."),
    "READ_MEASUREMENTS": ("Networks that read measurements", "They need `--physics spc` with Hadamard patterns."),
    "CONSISTENCIES": ("Agreement with the measurements", "`--consistency`."),
    "UNTRAINED_TEACHERS": ("Teachers without training", "`--teacher` of `main_unet_dist.py`, as `tv`, `tv:WEIGHT` or `pnp:FILE`."),
    "LIGHT_BUDGETS": ("Budgets of light", "`--photon_budget`."),
    "KERNELS": ("Kernels", "`--kernel`; which physics takes which is on the page about physics."),
    "MASK_TYPES": ("Sampling masks of MRI", "`--mask_type`."),
    "DEGRADATIONS": ("Blind degradations", "`--degradation`; `file:PATH.yml` is your own."),
    "RESIZES": ("Resizing", "`--resize`: PyTorch's mode, and whether it antialiases."),
    "NETWORKS": ("Networks", "`--network`, with the flags that each one reads and their defaults."),
    "CLASSIFIERS": ("Classifiers", "`--model`."),
    "BATCH_NORMS": ("Batch normalisation", "`--batch_norm` of the U-Net."),
    "PADDINGS": ("Padding", "`--padding` of the U-Net."),
    "LOSSES": ("Distillation losses", "`--loss_distill` of the scripts that restore images."),
    "LABELS": ("Labels of recordings", "`--labels`, beside `best`; the loss is one on recorded values."),
    "LOSS_OPTIONS": ("Options of these losses", "Flag and default."),
    "TASK_LOSSES": ("Task losses", "`--loss` of `main_unet.py`, `--loss_gt` elsewhere."),
    "CLASS_LOSSES": ("Distillation losses of classifiers", "`--loss_distill`."),
    "CLASS_OPTIONS": ("Options of the losses of classifiers", "Flag and default."),
    "RECIPES": ("Recipes", "`--recipe`: the flags that each one stands for, as far as a script has them."),
    "BALANCES": ("Balances", "`--balance`: the settings that each one stands for."),
    "SELECTIONS": ("Selections", "`--type_dist` of the scripts that restore images, numbered from 0."),
    "CLASS_SELECTIONS": ("Selections of classifiers", "`--type_dist` of `main_classify_dist.py`."),
    "ALPHA_SCHEDULES": ("Schedules of the distillation weight", "`--alpha_schedule`."),
    "OPTIMIZERS": ("Optimisers", "`--optimizer`."),
    "SCHEDULES": ("Schedules of the learning rate", "`--schedule`."),
    "FEATURE_MEASURES": ("Measures of features", "`--measures` of `analyze_features.py`."),
    "EXPORTS": ("Exports", "`--export` of `predict.py`."),
    "TRAINING": ("Scripts that a study can run", "`script` of a study, or `--script`."),
    "ALONE": ("Which script trains the student alone", "The control of a study that distils."),
    "CLUSTERS": ("Clusters", "`--cluster`."),
    "BENCHES": ("Groups of the benchmark", "`--only` of `benchmark.py`."),
    "DEMOS": ("Demos", "`--task` of `demo.py`."),
}  # fmt: skip
# Other constants of the registry, which are parts or views of the tables above.
PARTS = {
    "ADAM", "CANDIDATES", "CANDIDATES_ALONE", "CIFAR_RESNET", "CLASSIFIED", "FETCHED", "FEW",
    "IMAGENET", "LAYOUTS", "LIGHT", "LIGHT_LIMITS", "MODELS",
    "PAIRS", "PICTURES", "PIXELS", "QUEUED", "RANKED", "RECORDED_LOSSES", "RESTORED", "SPC", "UNET",
}  # fmt: skip

# Every file that is written, by folder. A test looks for the names that the code writes.
FILES = {
    "results/trained_models/": [
        ("`UNET_cr_0.5.pth`, `UNET_crs_0.1_0.3.pth`", "the best network of `main_unet.py`, of the run that ended last; the second, with `crs`, is of a mixture of ratios"),
        ("`UNET_cr_0.5_lr_0.01_<hash>.pth`", "the same, kept when another run takes the shorter name; it holds the flags that are not at their defaults"),
        ("`<date>_student_weights_crs_0.1_crt_0.5_type_..._<hash>.pth`", "a student, whose ratio is after `crs` and its teacher's after `crt`; or `online_student`, `redistilled`, `hybrid` in its name"),
        ("`RESNET18_image_32_lessened_4_digits_seed_0.pth`", "the best network of `main_classify.py`, named and kept in the same way"),
        ("`student_<...>_seed_0_<hash>.pth`", "the student of `main_classify_dist.py`"),
    ],
    "results/runs/<name>_<hash>/": [
        ("`config.json`", "the flags of the run, which `--config` reads"),
        ("`run.json`", "what identifies the run, versions, command, scores"),
        ("`metrics.csv`, `metrics.json`", "one row a validation: losses, scores, gradient shares, learning rate, seconds"),
        ("`curves.png`", "the same as curves; the dotted line is the first image"),
        ("`loss.png`, `accuracy.png`", "of classifiers"),
        ("`images/step_<step>.png`", "with `--save_images`"),
        ("`tensorboard/`", "with `--tensorboard`"),
        ("`best.pth`", "the best network on the validation split, which is exported"),
        ("`last.pth`, `last_before.pth`", "the state to resume from, and the one before it"),
        ("`teacher.pth`", "the teacher of `--online`, which learned beside the student"),
        ("`prepared.csv`, `prepared.png`", "what the paraphraser of `ft` learned before the student"),
    ],
    "results/test/": [
        ("`psnr_results.csv`", "one row an evaluation of `test_UNet.py`"),
        ("`class_results.csv`", "one row a split and camera of `test_classify.py`; `Seed` is the run's, `Noise Seed` is of `--seed`"),
        ("`<checkpoint>/originals/`, `measurements_backprojection/`, `reconstructions/`, `features/`", "pictures, `--save_batches`"),
        ("`<checkpoint>/per_image.csv`, `grid.png`", "the scores of every image; some of them beside the baselines"),
        ("`<checkpoint>/per_frame.csv`, `first_image/`, `network/`, `all_recorded_values/`", "of a recording without truth: the error of every frame; pictures, `--save_batches`"),
        ("`<checkpoint>/results.json`, `model_summary.txt`", "of `test_classify.py`"),
        ("`<checkpoint>/confusion_<split>.png`, `report_<split>.txt`, `per_image_<split>.csv`", "of `test_classify.py`"),
    ],
    "results/predict/<checkpoint>/": [
        ("`<picture>.png`, `<picture>_before_after.png`", "a restored picture, alone and beside its input"),
        ("`frame_<k>.png`, `reconstructions.npy`, `before_after.png`", "with `--measurements`; the array is not rounded"),
        ("`<frame>.png`, `<frame>_before_after.png`, `reconstructions.npz`", "of a recording: `reconstructions`, `first_images`, `names`, and the digest of the `recording`"),
        ("`classes.csv`", "of a classifier: the three likeliest classes"),
        ("`network.safetensors`, `network.pt2`, `network.onnx`", "with `--export`"),
    ],
    "results/compare/": [("`models.csv`, `models.png`", "of `compare_models.py`")],
    "results/features/<names>/": [
        ("`measures.csv`, `cka.csv`, `layers.csv`, `channels.csv`", "the tables of `analyze_features.py`"),
        ("`measures.png`, `histograms.png`, `cka.png`, `maps_<layer>.png`, `fourier_<layer>.png`", "its pictures"),
    ],
    "results/masks/<ordering>_cr_<cr>_n_<n>/": [
        ("`mask.png`, `patterns.png`, `energy.png`", "of `visualize_mask_spc.py`"),
        ("`light.png`, `light.csv`", "with `--photons`: what each light gives, for every ratio"),
    ],
    "results/": [
        ("`calibration.json`, `calibration.png`", "of `calibrate.py`: a detector, and its photon transfer"),
    ],
    "the folder of `visualize_mask_spc.py --export`": [
        ("`pattern_<k>_positive.png`, `pattern_<k>_negative.png`", "the 0/1 patterns in pairs"),
        ("`patterns.csv`, `manifest.json`", "the order in which to show them; how to read the detector"),
        ("`patterns.npy`", "patterns other than Hadamard's as rows, for `--ordering file:patterns.npy`"),
    ],
    "zoo/": [
        ("`NAME.pth`, `zoo.json`", "of `zoo.py train --store`: a network; parameters, digests and scores of all"),
    ],
    "the file of `runs.py --output`": [
        ("`FILE.tex`, `FILE.csv`, `FILE.md`", "of `export`: a row a run"),
        ("`FILE.png`, `FILE.pdf`, `FILE.svg`", "of `compare`: the validation curves of the runs"),
    ],
    "the file of `acquire.py --output`": [
        ("`lab.npz`", "a recording; its keys are on the page about data"),
        ("`lab_truth.npz`", "the clean images of a simulated recording"),
    ],
    "results/sweeps/<name>/": [
        ("`study.yml`", "the study as it was resolved"),
        ("`report.html`", "the report, one file that needs no network"),
        ("`tables/<table>.csv`, `<table>.md`, `<table>.tex`", "the tables of the report"),
        ("`costs.csv`", "what each run took"),
        ("`report.html`, `atlas.csv`, `atlas.md`, `atlas.tex`, `atlas.png`", "of an atlas, whose studies have folders of their own"),
        (
            "`<run>/status.json`, `log.txt`, `scores.csv`, `held_out.csv`, `baseline_<name>.csv`, "
            "of earlier versions `anchor_<name>.csv`",
            "state, output, scores of test images, errors of held-out frames, baselines",
        ),
        ("`<run>/runs/<run>/`, `<run>/trained_models/`", "the run itself, as above"),
        ("`recordings/<run>/lab.npz`, `lab_truth.npz`, `status.json`", "of studies with a section `recording`"),
        ("`job.slurm` or `job.pbs`, `queued_<hash>.yml`, `logs/<job>.log`", "with `--cluster`"),
    ],
    "results/benchmark/": [("`table.csv`, `figure.png`, `report.md`", "of `benchmark.py`")],
    "results/demo/": [("`table.csv`, `figure.png`, `report.md`", "of `demo.py`; its networks are in `runs/` and `trained_models/` below it"), ("`lab.npz`, `lab_truth.npz`", "of the task `laboratory`: what was recorded, and its clean images")],
}  # fmt: skip


# ---------------------------------------------------------------- the parsers


def actions_of(parser: ArgumentParser) -> Iterator[tuple[str, list[Action]]]:
    """The groups of a parser, as --help shows them, with their flags."""
    for group in parser._action_groups:
        actions = [
            action
            for action in group._group_actions
            if not isinstance(action, _HelpAction) and action.help is not SUPPRESS
        ]
        if actions:
            yield group.title, actions


def kind_of(read: Callable, text: str) -> str:
    """The values that a function of argparse reads; names that the help lists are not repeated."""
    inside = inspect.getclosurevars(read).nonlocals if hasattr(read, "__closure__") else {}
    if {"low", "high", "kind"} <= inside.keys():
        return interval(inside["low"], inside["high"], inside["kind"], inside["open_low"])
    names = inside.get("names") or inside.get("table")
    if names:
        weight = "[:WEIGHT]" if read.__name__.startswith("weighted") else ""
        listed = all(re.search(rf"\b{re.escape(name)}\b", text) for name in names if name)
        return f"`NAME{weight}`" if listed else choices(names)
    name = getattr(read, "__name__", "")
    assert name in VALUES, f"say in VALUES of docs/make_reference.py what {read} reads"
    return VALUES[name]


LARGEST = 2**32 - 1  # from here on an upper limit is not worth naming


def interval(low: float, high: float, kind: type, open_low: bool) -> str:
    what = "integer" if kind is int else "number"
    if high >= LARGEST:
        return f"{what} {'>' if open_low else '≥'} {low:g}"
    return f"{what} in {'(' if open_low else '['}{low:g}, {high:g}]"


def choices(names) -> str:
    return ", ".join(f"`{name}`" for name in names if name is not None)


def values_of(action: Action) -> str:
    """What a flag takes."""
    if isinstance(action, _StoreTrueAction | BooleanOptionalAction):
        return "switch"
    if action.choices:
        one = choices(action.choices)
    elif action.type is None:
        one = f"`{action.metavar}`" if action.metavar else "text"
    else:
        one = kind_of(action.type, action.help or "")
    if action.nargs in ("+", "*"):
        return f"{one}; one or several"
    if isinstance(action.nargs, int) and action.nargs > 1:
        return f"{one}; {action.nargs} of them"
    return one


def default_of(action: Action) -> str:
    if action.required and action.option_strings:
        return "required"
    if action.default is None or action.default == [] or action.default == "":
        return ""
    if isinstance(action.default, bool):
        return "on" if action.default else "off"
    return f"`{value_of(action.default)}`"


def names_of(action: Action) -> str:
    """A flag in all its spellings, or the name of what stands without one."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    return ", ".join(f"`{option}`" for option in action.option_strings)


def script_page(script: str) -> Iterator[str]:
    """One script: what it does, and its flags."""
    parser = import_module(script).build_parser()
    yield f"### {script}.py"
    yield f"`python {script}.py`: {parser.description}"
    for title, actions in actions_of(parser):
        yield f"**{title}**"
        rows = [
            (names_of(action), values_of(action), default_of(action), help_of(action))
            for action in actions
        ]
        yield table(("flag", "value", "default", "what it does"), rows)
    for group in parser._mutually_exclusive_groups:
        flags = [action.option_strings[0] for action in group._group_actions]
        yield f"{'Exactly' if group.required else 'At most'} one of {choices(flags)}."


def help_of(action: Action) -> str:
    """The help of a flag, with what Markdown would take for its own signs escaped."""
    text = (action.help or "") % {"default": value_of(action.default)}
    return re.sub(r"([<>*])", r"\\\1", text)


# ---------------------------------------------------------------- the registry


def value_of(value) -> str:
    """A value as a command line would have it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " ".join(map(value_of, value))
    return str(value)


def fields_of(row) -> dict[str, object]:
    """The fields of a line of the registry, whatever kind of record it is."""
    if dataclasses.is_dataclass(row):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    if hasattr(row, "_asdict"):
        return row._asdict()
    if isinstance(row, dict):
        return {"settings": row}
    if isinstance(row, bool):
        return {"value": "on" if row else "off"}
    return {"path" if isinstance(row, str) and ":" in row else "value": row}


def cell(name: str, value) -> str:
    """A field in a table: code, but for what is empty."""
    if isinstance(value, dict):
        return ", ".join(setting(name, flag, default) for flag, default in value.items())
    if isinstance(value, bool):
        return "yes" if value else ""
    if value is None or value in ("", (), []):
        return ""
    if isinstance(value, tuple | list):
        return choices(value)
    return f"`{value_of(value)}`"


def setting(name: str, flag: str, default) -> str:
    if default is ...:
        return f"`--{flag}` (required)"
    if default is None or default == () or isinstance(default, bool):
        return f"`--{flag}`"
    return f"`--{flag} {value_of(default)}`"


def registry_page(name: str) -> Iterator[str]:
    """One table of the registry."""
    heading, text = TABLES[name]
    entries = getattr(registry, name)
    yield f"### {heading}"
    if not isinstance(entries, dict):
        yield f"{text} {choices(entries)}."
        return
    yield text
    rows = {key: fields_of(row) for key, row in entries.items()}
    columns = list(dict.fromkeys(field for row in rows.values() for field in row))
    cells = {
        key: [cell(column, row.get(column)) for column in columns] for key, row in rows.items()
    }
    used = [k for k in range(len(columns)) if any(row[k] for row in cells.values())]
    heads = ("name", *(columns[k] for k in used))
    yield table(heads, [(f"`{key}`", *(row[k] for k in used)) for key, row in cells.items()])


def files_page() -> Iterator[str]:
    for folder, files in FILES.items():
        yield f"**{folder if '`' in folder else f'`{folder}`'}**"
        yield table(("file", "what it is"), files)


# ---------------------------------------------------------------- the page


def table(heads, rows) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(re.sub(r"  +", " ", f"| {' | '.join(line)} |") for line in cells)


def reference() -> str:
    """The whole page."""
    parts = [
        "# Reference",
        "This page is generated from the code by `make reference`. Do not edit it.",
        "[Scripts](#scripts) · [Names](#names) · [Files](#files)",
        "## Scripts",
        "Every script answers `--help`. `--awgn-snr` and `--awgn_snr` are the same flag. "
        "Names in brackets behind a text are the entries that read the flag, with their defaults.",
        *(part for script in SCRIPTS for part in script_page(script)),
        "## Names",
        "Every name that a flag can take, with where its code is. The lines are in `core/registry.py`.",
        *(part for name in TABLES for part in registry_page(name)),
        "## Files",
        "Every file that is written. `--results` replaces `results`.",
        *files_page(),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PATH.write_text(reference())
    print(f"{PATH.name} written")
