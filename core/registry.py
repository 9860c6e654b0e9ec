"""Every name that a user can type, and where its code is, which is imported when it is used."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Literal

from core import own
from core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """A distillation loss: where its code lives, its default weight, and what it needs."""

    path: str
    weight: float = 1.0
    safe: float | None = None  # the weight of --weights safe; without it the same
    options: tuple[str, ...] = ()  # the flags that it reads
    # Whether an adapter stands between the two layers: "auto" where their shapes differ, "always",
    # "never", or "own": the loss is a module that learns or remembers, made for two given layers.
    adapter: Literal["auto", "always", "never", "own"] = "auto"
    layers: str | None = None  # the selection that it compares unless --type_dist says otherwise
    needs: tuple[str, ...] = ()  # what its layers must have: see `distill.layers.NEEDS`
    reads: tuple[str, ...] = ()  # what it reads of a batch beside the two layers
    labelled: bool = False  # whether it needs the label of every image
    gather: bool = False  # whether it needs the samples of all processes, since it relates them
    pretrain: bool = False  # whether it learns something of the teacher before the student begins


# What stands for the truth: the truth, which an oracle knows; the teacher's output, or only what
# of it no pattern measured; the back-projection of all values.
LabelTarget = Literal["image", "teacher", "teacher_null_space", "raw"]


@dataclass(frozen=True, kw_only=True)
class LabelSpec:
    """What a network learns from recordings: labels instead of the truth, and a loss on values."""

    target: LabelTarget | None = None
    loss: str | None = None  # of RECORDED_LOSSES
    teacher_labels: str | None = None  # by which the teacher learns from the recording first
    text: str = ""

    @property
    def has_teacher(self) -> bool:
        return self.target in ("teacher", "teacher_null_space")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where an object lives, and the flags it reads with their defaults; `...` must be given."""

    path: str
    flags: dict
    label: str = ""  # in file names, filled from the config


UNET = {"scales": 2, "width": 64, "batch_norm": "off", "padding": "zeros"}
READ_MEASUREMENTS = ("unrolled",)  # networks that see more of y than the first image
NETWORKS = {  # that a command line can begin afresh
    "unet": Entry(path="models.unet:UNet", flags=UNET),
    "dncnn": Entry(path="models.dncnn:DnCNN", flags={"channels": 32, "blocks": 6}),
    "rrdbnet": Entry(
        path="models.rrdbnet:RRDBNet", flags={"channels": 32, "blocks": 3, "growth": 16}
    ),
    "rrdbnet_large": Entry(
        path="models.rrdbnet:RRDBNet", flags={"channels": 64, "blocks": 23, "growth": 32}
    ),
    "unrolled": Entry(
        path="models.unrolled:Unrolled", flags={"stages": 4, "channels": 24, "share": False}
    ),
    "drunet": Entry(path="models.drunet:DRUNet", flags={"width": 16, "blocks": 1}),
    "drunet_large": Entry(path="models.drunet:DRUNet", flags={"width": 64, "blocks": 4}),
    "restormer": Entry(path="models.restormer:Restormer", flags={"width": 16, "blocks": 1}),
    "restormer_large": Entry(path="models.restormer:Restormer", flags={"width": 48, "blocks": 4}),
}
FEW = {"dataset": "digits", "data_root": "data", "n": 32, "c": 1}
PIXELS = {
    "lessen_ratio": 4.0,
    "model_teacher": "resnet20",
    "model": "resnet8",
    "width": 16,
    "epochs": 15,
    "seeds": [0, 1, 2],
}
RANKED = ["kd", "dkd", "dist", "at", "sp", "rkd", "ickd", "crd", "ft", "tucker", "isrd:50"]
CLASSROOM = Entry(
    path="demos.classroom:report_restoration",
    flags={"cr": 0.1, "cr_teacher": 0.5, "epochs": 6, "width": 16, "pictures": 4, "seed": 42},
)
DEMOS = {  # of the demo
    "laboratory": Entry(
        path="demos.laboratory:report_laboratory",
        flags={
            "scenes": "text",
            "data_root": "data",
            "n": 64,
            "photons": 100.0,
            "frames": 500,
            "test_frames": 100,
            "cr": 0.2,
            "cr_teacher": 0.5,
            "epochs": 6,
            "adapt_epochs": 8,
            "width": 16,
            "pictures": 3,
            "seed": 42,
        },
    ),
    "classroom": CLASSROOM,
    "reconstruct": CLASSROOM,  # its earlier name
    "classify": Entry(
        path="demos.classes:report_classification",
        flags=FEW
        | {
            "model_teacher": "vgg16",
            "model": "resnet18",
            "epochs": 8,
            "width": 8,
            "balance": "halves",
            "seed": 42,
        },
    ),
    "benchmark": Entry(
        path="demos.classes:report_losses",
        flags=FEW | PIXELS | {"loss_distill": RANKED, "weights": "safe"},
    ),
}

QUEUED = {
    "time": ...,
    "partition": None,
    "memory": None,
    "gpus": 0,
    "cpus": 1,
    "environment": (),
    "signal_before": 120,
}
CLUSTERS = {
    "slurm": Entry(path="runners.cluster:Slurm", flags=QUEUED),
    "pbs": Entry(path="runners.cluster:PBS", flags=QUEUED),
}

BENCHES = {
    name: f"speed.groups:time_{name}"
    for name in ("training", "inference", "physics", "losses", "scaling", "peak")
} | {"live": "speed.live:time_live"}

TRAINING = (
    "main_unet",
    "main_unet_dist",
    "progressive_distill",
    "main_classify",
    "main_classify_dist",
)  # scripts that a study can be about
ALONE = {
    "main_unet_dist": "main_unet",
    "main_classify_dist": "main_classify",
}  # scripts that distil, and those that train the same student alone
FEATURE_MEASURES = {  # of a map of features
    name: f"features.measures:{name}"
    for name in (
        "wavelet", "high_frequency", "low_pass_residual", "spectral_entropy",
        "std", "skewness", "kurtosis", "iqr", "variation",
    )
}  # fmt: skip

CIFAR_RESNET = {"width": 16}
IMAGENET = {"width": 64, "stem": "auto", "pretrained": False}
CLASSIFIERS = {
    "resnet8": Entry(path="models.cifar_resnet:resnet8", flags=CIFAR_RESNET),
    "resnet20": Entry(path="models.cifar_resnet:resnet20", flags=CIFAR_RESNET),
    "resnet56": Entry(path="models.cifar_resnet:resnet56", flags=CIFAR_RESNET),
    "resnet112": Entry(path="models.cifar_resnet:resnet112", flags=CIFAR_RESNET),
    "vgg16": Entry(
        path="models.library:vgg16", flags={"width": 64, "batch_norm": "on", "pretrained": False}
    ),
    "resnet18": Entry(path="models.library:resnet18", flags=IMAGENET),
    "resnet34": Entry(path="models.library:resnet34", flags=IMAGENET),
    "resnet50": Entry(path="models.library:resnet50", flags=IMAGENET),
    "resnext50": Entry(path="models.library:resnext50", flags=IMAGENET),
    "shufflenet": Entry(
        path="models.library:shufflenet", flags={"stem": "auto", "pretrained": False}
    ),
    "vit_tiny": Entry(
        path="models.library:vit_tiny", flags={"patch": 16, "width": 192, "pretrained": False}
    ),
    "vit_small": Entry(
        path="models.library:vit_small", flags={"patch": 16, "width": 384, "pretrained": False}
    ),
}
MODELS = (
    NETWORKS
    | CLASSIFIERS
    | {  # that a checkpoint can hold
        "hybrid_unet": Entry(path="models.hybrid_unet:HybridUNet", flags=UNET | {"freeze": "none"}),
    }
)

LIGHT = {
    "photons": None,
    "photon_budget": "pattern",
    "dark": 0.0,
    "dark_noise": 0.0,
    "gain": 1.0,
}  # of a camera that counts photons
LIGHT_BUDGETS = ("pattern", "frame")
LIGHT_LIMITS = {  # lowest and highest value, and whether the lowest itself is refused
    "photons": (0.0, 1e9, True),
    "dark": (0.0, 1e9, False),
    "dark_noise": (0.0, 1e9, False),
    "gain": (0.0, 1e9, True),
}
SPC = {
    "cr": ...,
    "cr_range": None,
    "ordering": "xy",
    "block": None,
    "x0": "adjoint",
    "awgn_snr": None,
    "noise": None,
    **LIGHT,
}
PHYSICS = {
    "spc": Entry(path="physics.cameras:single_pixel_camera", flags=SPC, label="cr_{cr}"),
    "cs": Entry(path="physics.cameras:single_pixel_camera", flags=SPC, label="cr_{cr}"),
    "denoise": Entry(
        path="physics.restoration:denoise",
        flags={"sigma": ..., "x0": "adjoint"},
        label="denoise_sigma_{sigma}",
    ),
    "sr": Entry(
        path="physics.restoration:super_resolution",
        flags={"factor": ..., "kernel": "bicubic", "x0": "adjoint", "awgn_snr": None},
        label="sr_factor_{factor}_{kernel}",
    ),
    "blur": Entry(
        path="physics.restoration:blur",
        flags={"kernel": "gaussian", "blur_width": 1.5, "x0": "adjoint", "awgn_snr": None},
        label="blur_{kernel}_{blur_width}",
    ),
    "mri": Entry(
        path="physics.restoration:mri",
        flags={"acceleration": ..., "mask_type": "gaussian", "x0": "adjoint", "awgn_snr": None},
        label="mri_acceleration_{acceleration}_{mask_type}",
    ),
    "degrade": Entry(
        path="physics.degradation:degrade",
        flags={"degradation": "real_esrgan"},
        label="degrade_{degradation}",
    ),
    "given": Entry(path="physics.paired:given", flags={}, label="given"),
    "image": Entry(
        path="physics.resize:picture",
        flags={"lessen_ratio": 1.0, "resize": "antialias"},
        label="image_{n}_lessened_{lessen_ratio}",
    ),
}
RESTORED = {
    name: line for name, line in PHYSICS.items() if name != "image"
}  # of networks that restore images
CLASSIFIED = {name: line for name, line in PHYSICS.items() if name != "given"}  # of classifiers

KERNELS = ("bicubic", "bilinear", "box", "gaussian", "motion")
MASK_TYPES = ("gaussian", "uniform", "random")
DEGRADATIONS = ("real_esrgan", "mild")
DEGRADATION_VALUES = "physics.presets:complete_values"

RESIZES = {  # of a smaller image: torch's mode, and whether it is widened against aliasing
    "antialias": ("bilinear", True),
    "bilinear": ("bilinear", False),
    "bicubic": ("bicubic", False),
    "nearest": ("nearest-exact", False),
}

ORDERINGS = {  # of the Hadamard patterns, or dense patterns; file:PATH is the user's own
    "xy": "physics.orderings:xy_places",
    "zig_zag": "physics.orderings:zig_zag_places",
    "cake_cutting": "physics.orderings:cake_cutting_places",
    "sequency": "physics.orderings:sequency_places",
    "strip": "physics.orderings:strip_places",
    "variance": "physics.orderings:variance_places",
    "random": "physics.orderings:random_patterns",
    "learned": "physics.orderings:learned_patterns",
}

FIRST_IMAGES = ("adjoint", "lmmse")
BATCH_NORMS = ("off", "on", "bias-free")
CONSISTENCIES = ("none", "range")
UNTRAINED_TEACHERS = ("tv", "pnp")  # total variation, and a trained denoiser that is plugged in
PADDINGS = ("zeros", "circular", "release")

PAIRS = {"gt": ..., "lq": ..., "pairs": None}
DATASETS = {
    "photos": "data.datasets:photos",
    "photos_without_text": "data.datasets:photos_without_text",
    "text": "data.datasets:text",
    "digits": "data.datasets:digits",
    "mnist": "data.datasets:mnist",
    "fashion_mnist": "data.datasets:fashion_mnist",
    "cifar10": "data.datasets:cifar10",
    "celeba": "data.datasets:celeba",
    "folder": "data.datasets:folder",
    "npz": "data.own_arrays:array",
    "array": "data.own_arrays:array",
    "recorded": "recordings.frames:recorded",
    "paired": Entry(path="data.paired:paired", flags=PAIRS),
    "hybrid": Entry(
        path="data.paired:hybrid", flags=PAIRS | {"unpaired": ..., "paired_share": 0.5}
    ),
}

LABELLED = {  # datasets with a class for every image
    "digits": "data.datasets:digits",
    "mnist": "data.datasets:mnist",
    "fashion_mnist": "data.datasets:fashion_mnist",
    "cifar10": "data.datasets:cifar10",
    "cifar100": "data.datasets:cifar100",
    "folder": "data.labelled:class_folder",
    "npz": "data.own_arrays:array",
    "array": "data.own_arrays:array",
    "recorded": "recordings.frames:recorded",
    "aircraft": "data.labelled:aircraft",
    "cub": "data.labelled:cub",
}

LAYOUTS = {  # of what torchvision fetches, and may write beside: its folder in --data_root
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "celeba": "celeba",
    "aircraft": "fgvc-aircraft-2013b",
}
FETCHED = tuple(LAYOUTS)
PICTURES = {  # the flags that name folders of pairs
    "paired": ("gt", "lq"),
    "hybrid": ("gt", "lq", "unpaired"),
}
READERS = {  # of a flag of the data group, where not every dataset reads it
    "data_root": (*FETCHED, "folder", "npz", "array", "recorded", "cub"),
    "download": FETCHED,
    "on_bad_image": ("folder", "paired", "hybrid", "aircraft", "cub"),
}

LOSSES = {
    "mse": LossSpec(path="distill.feature:mse", weight=0.1),
    "mae": LossSpec(path="distill.feature:mae", weight=0.1),
    "l1": LossSpec(path="distill.feature:mae", weight=0.1),
    "smooth_l1": LossSpec(path="distill.feature:smooth_l1", weight=0.2),
    "charbonnier": LossSpec(path="distill.feature:charbonnier", weight=0.05),
    "cs": LossSpec(path="distill.feature:cs", weight=0.005),
    "l2": LossSpec(path="distill.feature:l2", weight=0.0005),
    "linf": LossSpec(path="distill.feature:linf", weight=0.003),
    "soft": LossSpec(
        path="distill.feature:soft", weight=0.5, options=("temperature",), needs=("channels",)
    ),
    "hint": LossSpec(path="distill.feature:mse", weight=0.02, adapter="always"),
    "at": LossSpec(path="distill.feature:at", weight=0.5, adapter="never", needs=("places",)),
    "feature_attention": LossSpec(
        path="distill.feature:feature_attention", weight=0.1, needs=("places",)
    ),
    "fakd": LossSpec(
        path="distill.relation:fakd", weight=0.0005, adapter="never", needs=("places", "channels")
    ),
    "comb_matrix": LossSpec(
        path="distill.relation:comb_matrix",
        weight=0.0005,
        options=("gamma",),
        adapter="never",
        gather=True,
    ),
    "perceptual": LossSpec(
        path="distill.perceptual:Perceptual", weight=0.01, options=("style_weight",)
    ),
}

TASK_LOSSES = {
    "mse": LossSpec(path="distill.feature:mse"),
    "mae": LossSpec(path="distill.feature:mae"),
    "l2": LossSpec(path="distill.feature:l2"),
    "charbonnier": LossSpec(path="distill.feature:charbonnier"),
    "smooth_l1": LossSpec(path="distill.feature:smooth_l1"),
    "perceptual": LossSpec(path="distill.perceptual:Perceptual", options=("style_weight",)),
}

CLASS_LOSSES = {
    "kd": LossSpec(
        path="distill.logits:kd",
        weight=1.0,
        safe=0.2,
        options=("temperature", "standardise"),
        adapter="never",
        layers="output",
        needs=("logits",),
    ),
    "dkd": LossSpec(
        path="distill.logits:dkd",
        weight=1.0,
        safe=0.1,
        options=("temperature", "dkd_alpha", "dkd_beta", "dkd_warmup"),
        adapter="never",
        layers="output",
        reads=("label", "epoch"),
        labelled=True,
        needs=("logits",),
    ),
    "dist": LossSpec(
        path="distill.logits:dist",
        weight=1.0,
        safe=0.05,
        options=("dist_beta", "dist_gamma"),
        adapter="never",
        layers="output",
        gather=True,
        needs=("logits", "samples"),
    ),
    "mse": LossSpec(path="distill.feature:mse", weight=1.0, safe=0.07, layers="latent"),
    "hint": LossSpec(
        path="distill.feature:mse", weight=1.0, safe=0.2, adapter="always", layers="latent"
    ),
    "at": LossSpec(
        path="distill.feature:at",
        weight=1000.0,
        safe=1.0,
        adapter="never",
        layers="stages",
        needs=("places",),
    ),
    "sp": LossSpec(
        path="distill.relation:sp",
        weight=3000.0,
        safe=40.0,
        adapter="never",
        layers="latent",
        gather=True,
        needs=("samples",),
    ),
    "rkd": LossSpec(
        path="distill.relation:rkd",
        weight=1.0,
        safe=0.02,
        options=("rkd_distance", "rkd_angle"),
        adapter="never",
        layers="pool",
        gather=True,
        needs=("samples",),
    ),
    "comb_matrix": LossSpec(
        path="distill.relation:comb_matrix",
        weight=0.1,
        safe=0.01,
        options=("gamma",),
        adapter="never",
        layers="latent",
        gather=True,
    ),
    "ickd": LossSpec(
        path="distill.relation:ICKD",
        weight=2.5,
        safe=0.3,
        adapter="own",
        layers="latent",
        needs=("map", "channels"),
    ),
    "crd": LossSpec(
        path="distill.contrast:CRD",
        weight=0.8,
        safe=0.05,
        options=("crd_tau", "crd_negatives"),
        adapter="own",
        layers="pool",
        reads=("index", "generator"),
        labelled=True,
        gather=True,
    ),
    "ft": LossSpec(
        path="distill.factor:FT",
        weight=500.0,
        safe=5.0,
        options=("ft_rate",),
        pretrain=True,
        adapter="own",
        layers="latent",
        needs=("map",),
    ),
    "tucker": LossSpec(
        path="distill.factor:tucker",
        weight=125.0,
        safe=3.0,
        options=("tucker_ranks", "tucker_space", "tucker_over"),
        layers="latent",
        gather=True,
        needs=("map",),
    ),
    "isrd": LossSpec(
        path="distill.pixel:ISRD",
        weight=10.0,
        safe=1.2,
        adapter="own",
        layers="first",
        reads=("teacher_input",),
        needs=("map",),
    ),
}

# Losses on recorded values, without labels.
RECORDED_LOSSES = {
    name: f"distill.recorded:{name}"
    for name in ("measurements", "outside_student", "r2r", "splitting", "sure")
}
LABELS = {  # of --labels
    "both": LabelSpec(target="teacher", loss="sure", text="teacher and sure together"),
    "teacher": LabelSpec(target="teacher", text="the teacher's output from all recorded values"),
    "adapted": LabelSpec(
        target="teacher",
        teacher_labels="anchored",
        text="the same of a teacher that first learned from the recording, as anchored to itself",
    ),
    "anchored": LabelSpec(
        target="teacher_null_space",
        loss="sure",
        text="sure, and the teacher where no pattern measured",
    ),
    "raw": LabelSpec(target="raw", text="the back-projection of all recorded values"),
    "measurements": LabelSpec(
        loss="measurements", text="no labels: the predicted values approach the recorded ones"
    ),
    "r2r": LabelSpec(loss="r2r", text="the same with recorrupted values"),
    "splitting": LabelSpec(loss="splitting", text="the same with a part of the values as input"),
    "sure": LabelSpec(loss="sure", text="the same with an unbiased estimate of the error"),
    "oracle": LabelSpec(target="image", text="the truth of --truth, as the upper limit"),
}
MEASUREMENT_WEIGHT = 1.0
# Among these --labels best chooses the first one that is not clearly worse than the best by score.
# A teacher that learned from the recording knows most of what no pattern measured, which no score
# sees.
CANDIDATES = ("adapted", "both", "teacher", "measurements", "raw")
CANDIDATES_ALONE = ("sure", "measurements", "raw")  # where there is no teacher

LOSS_OPTIONS = {
    "gamma": "auto",
    "temperature": 4.0,
    "style_weight": 0.0,
}  # options and their defaults
CLASS_OPTIONS = {
    "gamma": "auto",
    "temperature": 4.0,
    "standardise": False,
    "dkd_alpha": 1.0,
    "dkd_beta": 8.0,
    "dkd_warmup": 20.0,
    "dist_beta": 2.0,
    "dist_gamma": 2.0,
    "rkd_distance": 25.0,
    "rkd_angle": 50.0,
    "crd_tau": 0.07,
    "crd_negatives": 1024,
    "ft_rate": 0.5,
    "tucker_ranks": 0.5,
    "tucker_space": "projected",
    "tucker_over": "batch",
}
PREPARE_EPOCHS = 5  # the default of --prepare_epochs
RECIPES = {  # of training; `ours` are the defaults
    "ours": {},
    "release": {
        "optimizer": "adam",
        "lr": 1e-5,
        "weight_decay": 1e-4,
        "schedule": "constant",
        "warmup": 0.0,
        "grad_clip": 0.0,
        "batch_size": 50,
        "loss": "mse",
        "loss_gt": "mse",
    },
}

BALANCES = {  # published settings: weight of the labels, of `kd`, and its temperature
    "halves": {"beta": 0.5, "loss_distill": ["kd:0.5"], "temperature": 2.0},
    "pixel": {"beta": 0.1, "loss_distill": ["kd:0.9"], "temperature": 4.0},
    "benchmark": {"beta": 0.1, "loss_distill": ["kd:0.9"], "temperature": 2.0},
}

# The layers that losses compare, as groups of layers: see `distill.layers.GROUPS`.
SELECTIONS = {  # of --type_dist, which takes the name or the place in this list
    "latent": ("latent",),
    "all": ("all",),
    "first_latent": ("first", "latent"),
    "output": ("output",),
    "output_latent": ("output", "latent"),
    "encoder": ("first",),  # the first encoder block, as in the original release
    "encoder_latent": ("first", "latent"),
    "latent_decoder": ("latent", "decoder"),
    "output_latent_decoder": ("output", "latent", "decoder"),
    "output_all": ("output", "all"),
    "first": ("first",),
    "output_first_latent": ("output", "first", "latent"),
    "output_first": ("output", "first"),
}
CLASS_SELECTIONS = {  # of --type_dist of classifiers
    "latent": ("latent",),
    "all": ("all",),
    "stages": ("stages",),
    "first": ("first",),
    "first_latent": ("first", "latent"),
    "pool": ("pool",),
    "latent_pool": ("latent", "pool"),
}

SCHEDULES = {  # of the learning rate
    "cosine": Entry(path="training.schedule:cosine", flags={}),
    "constant": Entry(path="training.schedule:constant", flags={}),
    "multistep": Entry(
        path="training.schedule:multistep", flags={"milestones": ..., "lr_gamma": 0.5}
    ),
}

ALPHA_SCHEDULES = {
    "constant": Entry(path="distill.schedule:constant", flags={}),
    "step": Entry(
        path="distill.schedule:step", flags={"alpha_milestones": ..., "alpha_gamma": 0.5}
    ),
    "linear": Entry(path="distill.schedule:linear", flags={}),
    "cosine": Entry(path="distill.schedule:cosine", flags={}),
    "warmup": Entry(path="distill.schedule:warmup", flags={"alpha_warmup": 0.1}),
    "phases": Entry(path="distill.schedule:phases", flags={}),
}


@dataclass(frozen=True, kw_only=True)
class Export:
    """Where a form of export lives, and its files' suffix."""

    path: str
    suffix: str


EXPORTS = {
    "safetensors": Export(path="evaluation.export:as_safetensors", suffix="safetensors"),
    "torch_export": Export(path="evaluation.export:as_torch_export", suffix="pt2"),
    "onnx": Export(path="evaluation.export:as_onnx", suffix="onnx"),
}

ADAM = {"betas": [0.9, 0.999]}
OPTIMIZERS = {
    "adam": Entry(path="torch.optim:Adam", flags=ADAM),
    "adamw": Entry(path="torch.optim:AdamW", flags=ADAM),
    "sgd": Entry(path="torch.optim:SGD", flags={}),
}


def words(value) -> str:
    """A value in a file name: a number, a name, several numbers, or a digest of a dict."""
    if isinstance(value, dict):
        text = json.dumps(value, sort_keys=True)
        return f"own_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if isinstance(value, list):
        return "_".join(f"{v:g}" for v in value)
    return value if isinstance(value, str) else f"{value:g}"


def light_of(config: dict) -> str:
    """The noise of a camera in file names: _noise_0.2, _photons_50_frame, or nothing."""
    if config.get("noise") is not None:
        return f"_noise_{words(config['noise'])}"
    if config.get("photons") is None:
        return ""
    budget = "" if config["photon_budget"] == "pattern" else f"_{config['photon_budget']}"
    return f"_photons_{words(config['photons'])}{budget}"


def label_of(config: dict) -> str:
    """A physics in file names: cr_0.1, crs_0.1_0.3 for a mixture, denoise_sigma_25, ..."""
    if own.is_own(config["name"]):
        return own.short_name(config["name"])
    template = PHYSICS[config["name"]].label
    if "cr" in config:
        return ratios_of(config) + light_of(config)
    label = template.format(
        **{name: words(value) for name, value in config.items() if value is not None}
    )
    return label + light_of(config)


def ratios_of(config: dict, one: str = "cr") -> str:
    """The ratios of a single-pixel camera in file names: cr_0.1, crs_0.1_0.3, cr_0.02_to_0.5."""
    name = "crs" if isinstance(config["cr"], list) else one
    ratios = f"{name}_{words(config['cr'])}"
    if config.get("cr_range") is not None:
        low, high = config["cr_range"]
        ratios = f"{one}_{low:g}_to_{high:g}"
    return f"{ratios}_block_{config['block']}" if config.get("block") else ratios


def load(path: str):
    """The object that a 'module:name' string points to."""
    if own.is_own(path):
        return own.load(path)
    module, name = path.split(":")
    return getattr(import_module(module), name)


def bound(table: dict, name: str, args) -> Callable:
    """A function of a table with the flags of its line bound to it."""
    return partial(
        look_up(table, name, "entry"), **{flag: getattr(args, flag) for flag in table[name].flags}
    )


def look_up(table: dict, name: str, what: str):
    """The object of a table's name, or an error that lists the names."""
    if name not in table:
        raise UserError(f"unknown {what} '{name}': choose from {', '.join(table)}")
    entry = table[name]
    return load(entry if isinstance(entry, str) else entry.path)
