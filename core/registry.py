"""Every name a user can type and where its code lives; nothing here is imported until it is used."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import NamedTuple

from core.errors import UserError


class LossSpec(NamedTuple):
    """Where a loss lives, its weight under the default recipe, the flags it reads, and when an adapter bridges two taps.

    The bridge: where their shapes "differ", "always", "never", or "own": a class that learns or remembers, made of the two shapes,
    the classes of the training images and the shape of what the teacher sees. `taps` is the selection that it compares where no other is
    asked for; `needs` is what it reads of a batch. A loss that relates samples must be `together` with those of other processes.
    """

    path: str
    weight: float = 1.0
    options: tuple[str, ...] = ()
    adapter: str = "differ"
    layers: str | None = None
    needs: tuple[str, ...] = ()
    together: bool = False


class Entry(NamedTuple):
    """Where a physics, a network or a dataset lives, and the flags that it reads with their defaults; `...` has none and must be given."""

    path: str
    flags: dict
    label: str = ""  # in file names, made of the recipe


UNET = {"scales": 2, "width": 64, "batch_norm": "off", "padding": "zeros"}
NETWORKS = {  # that a command line can begin afresh
    "unet": Entry("models.unet:UNet", UNET),
    "dncnn": Entry("models.dncnn:DnCNN", {"features": 32, "blocks": 6}),
    "rrdbnet": Entry("models.rrdbnet:RRDBNet", {"features": 32, "blocks": 3, "growth": 16}),
    "rrdbnet_large": Entry("models.rrdbnet:RRDBNet", {"features": 64, "blocks": 23, "growth": 32}),
    "drunet": Entry("models.drunet:DRUNet", {"width": 16, "blocks": 1}),
    "drunet_large": Entry("models.drunet:DRUNet", {"width": 64, "blocks": 4}),
    "restormer": Entry("models.restormer:Restormer", {"width": 16, "blocks": 1}),
    "restormer_large": Entry("models.restormer:Restormer", {"width": 48, "blocks": 4}),
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
DEMOS = {  # of the demo
    "reconstruct": Entry(
        "evaluation.demo:report_restoration",
        {"cr": 0.1, "cr_teacher": 0.5, "epochs": 6, "width": 16, "pictures": 4, "seed": 42},
    ),
    "classify": Entry(
        "evaluation.demo_classes:report_classification",
        FEW
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
        "evaluation.demo_classes:report_losses", FEW | PIXELS | {"loss_distill": RANKED}
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
    "slurm": Entry("runners.cluster:Slurm", QUEUED),
    "pbs": Entry("runners.cluster:PBS", QUEUED),
}

BENCHES = {
    name: f"speed.groups:time_{name}"
    for name in ("training", "inference", "physics", "losses", "scaling", "peak")
}

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
        "wavelet", "high_frequency", "low_pass_residual", "spectral_entropy", "std", "skewness", "kurtosis", "iqr", "variation",
    )
}  # fmt: skip

CIFAR_RESNET = {"width": 16}
IMAGENET = {"width": 64, "stem": "auto", "pretrained": False}
CLASSIFIERS = {
    "resnet8": Entry("models.cifar_resnet:resnet8", CIFAR_RESNET),
    "resnet20": Entry("models.cifar_resnet:resnet20", CIFAR_RESNET),
    "resnet56": Entry("models.cifar_resnet:resnet56", CIFAR_RESNET),
    "resnet112": Entry("models.cifar_resnet:resnet112", CIFAR_RESNET),
    "vgg16": Entry("models.library:vgg16", {"width": 64, "batch_norm": "on", "pretrained": False}),
    "resnet18": Entry("models.library:resnet18", IMAGENET),
    "resnet34": Entry("models.library:resnet34", IMAGENET),
    "resnet50": Entry("models.library:resnet50", IMAGENET),
    "resnext50": Entry("models.library:resnext50", IMAGENET),
    "shufflenet": Entry("models.library:shufflenet", {"stem": "auto", "pretrained": False}),
    "vit_tiny": Entry("models.library:vit_tiny", {"patch": 16, "width": 192, "pretrained": False}),
    "vit_small": Entry(
        "models.library:vit_small", {"patch": 16, "width": 384, "pretrained": False}
    ),
}
MODELS = (
    NETWORKS
    | CLASSIFIERS
    | {  # that a checkpoint can hold
        "hybrid_unet": Entry("models.hybrid_unet:HybridUNet", UNET | {"freeze": "none"}),
    }
)

SPC = {"cr": ..., "ordering": "xy", "x0": "adjoint", "awgn_snr": None}
PHYSICS = {
    "spc": Entry("physics.single_pixel:single_pixel_camera", SPC, "cr_{cr}"),
    "cs": Entry("physics.single_pixel:single_pixel_camera", SPC, "cr_{cr}"),
    "denoise": Entry(
        "physics.restoration:denoise", {"sigma": ..., "x0": "adjoint"}, "denoise_sigma_{sigma}"
    ),
    "sr": Entry(
        "physics.restoration:super_resolution",
        {"factor": ..., "kernel": "bicubic", "x0": "adjoint", "awgn_snr": None},
        "sr_factor_{factor}_{kernel}",
    ),
    "blur": Entry(
        "physics.restoration:blur",
        {"kernel": "gaussian", "blur_width": 1.5, "x0": "adjoint", "awgn_snr": None},
        "blur_{kernel}_{blur_width}",
    ),
    "mri": Entry(
        "physics.restoration:mri",
        {"acceleration": ..., "mask_type": "gaussian", "x0": "adjoint", "awgn_snr": None},
        "mri_acceleration_{acceleration}_{mask_type}",
    ),
    "degrade": Entry(
        "physics.degradation:degrade", {"degradation": "real_esrgan"}, "degrade_{degradation}"
    ),
    "given": Entry("physics.paired:given", {}, "given"),
    "image": Entry(
        "physics.resize:picture",
        {"lessen_ratio": 1.0, "resize": "antialias"},
        "image_{n}_lessened_{lessen_ratio}",
    ),
}
RESTORED = {
    name: line for name, line in PHYSICS.items() if name != "image"
}  # what images are restored from
CLASSIFIED = {
    name: line for name, line in PHYSICS.items() if name != "given"
}  # what classes are told from

KERNELS = ("bicubic", "bilinear", "box", "gaussian", "motion")
MASK_TYPES = ("gaussian", "uniform", "random")
DEGRADATIONS = ("real_esrgan", "mild")

RESIZES = {  # of a smaller image: torch's mode, and whether it is widened against aliasing
    "antialias": ("bilinear", True),
    "bilinear": ("bilinear", False),
    "bicubic": ("bicubic", False),
    "nearest": ("nearest-exact", False),
}

ORDERINGS = {  # of the Hadamard patterns, or dense patterns; file:PATH is the user's own
    "xy": "physics.single_pixel:xy_places",
    "zig_zag": "physics.single_pixel:zig_zag_places",
    "cake_cutting": "physics.single_pixel:cake_cutting_places",
    "sequency": "physics.single_pixel:sequency_places",
    "strip": "physics.single_pixel:strip_places",
    "variance": "physics.single_pixel:variance_places",
    "random": "physics.single_pixel:random_patterns",
}

FIRST_IMAGES = ("adjoint", "lmmse")
BATCH_NORMS = ("off", "on", "bias-free")
PADDINGS = ("zeros", "circular", "release")

PAIRS = {"gt": ..., "lq": ..., "pairs": None}
DATASETS = {
    "photos": "data.datasets:photos",
    "digits": "data.datasets:digits",
    "mnist": "data.datasets:mnist",
    "fashion_mnist": "data.datasets:fashion_mnist",
    "cifar10": "data.datasets:cifar10",
    "celeba": "data.datasets:celeba",
    "folder": "data.datasets:folder",
    "npz": "data.datasets:npz",
    "paired": Entry("data.paired:paired", PAIRS),
    "hybrid": Entry("data.paired:hybrid", PAIRS | {"unpaired": ..., "paired_share": 0.5}),
}

LABELLED = {  # datasets with a class for every image
    "digits": "data.datasets:digits",
    "mnist": "data.datasets:mnist",
    "fashion_mnist": "data.datasets:fashion_mnist",
    "cifar10": "data.datasets:cifar10",
    "cifar100": "data.datasets:cifar100",
    "folder": "data.labelled:class_folder",
    "npz": "data.datasets:npz",
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
    "data_root": (*FETCHED, "folder", "npz", "cub"),
    "download": FETCHED,
    "on_bad_image": ("folder", "paired", "hybrid", "aircraft", "cub"),
}

LOSSES = {
    "mse": LossSpec("distill.feature:mse", 0.1),
    "mae": LossSpec("distill.feature:mae", 0.1),
    "l1": LossSpec("distill.feature:mae", 0.1),
    "smooth_l1": LossSpec("distill.feature:smooth_l1", 0.2),
    "charbonnier": LossSpec("distill.feature:charbonnier", 0.05),
    "cs": LossSpec("distill.feature:cs", 0.03),
    "l2": LossSpec("distill.feature:l2", 0.0005),
    "linf": LossSpec("distill.feature:linf", 0.003),
    "soft": LossSpec("distill.feature:soft", 0.5, options=("temperature",)),
    "hint": LossSpec("distill.feature:mse", 0.02, adapter="always"),
    "at": LossSpec("distill.feature:at", 2.0, adapter="never"),
    "feature_attention": LossSpec("distill.feature:feature_attention", 0.1),
    "fakd": LossSpec("distill.relation:fakd", 0.03, adapter="never"),
    "comb_matrix": LossSpec(
        "distill.relation:comb_matrix", 0.0005, options=("gamma",), adapter="never", together=True
    ),
    "perceptual": LossSpec("distill.perceptual:Perceptual", 0.01, options=("style_weight",)),
}

TASK_LOSSES = {
    "mse": LossSpec("distill.feature:mse"),
    "mae": LossSpec("distill.feature:mae"),
    "l2": LossSpec("distill.feature:l2"),
    "charbonnier": LossSpec("distill.feature:charbonnier"),
    "smooth_l1": LossSpec("distill.feature:smooth_l1"),
    "perceptual": LossSpec("distill.perceptual:Perceptual", options=("style_weight",)),
}

CLASS_LOSSES = {
    "kd": LossSpec("distill.logits:kd", 1.0, ("temperature", "standardise"), "never", "output"),
    "dkd": LossSpec(
        "distill.logits:dkd",
        1.0,
        ("temperature", "dkd_alpha", "dkd_beta", "dkd_warmup"),
        "never",
        "output",
        ("label", "epoch"),
    ),
    "dist": LossSpec(
        "distill.logits:dist", 1.0, ("dist_beta", "dist_gamma"), "never", "output", together=True
    ),
    "mse": LossSpec("distill.feature:mse", 1.0, layers="latent"),
    "hint": LossSpec("distill.feature:mse", 1.0, adapter="always", layers="latent"),
    "at": LossSpec("distill.feature:at", 1000.0, adapter="never", layers="stages"),
    "sp": LossSpec("distill.relation:sp", 3000.0, adapter="never", layers="latent", together=True),
    "rkd": LossSpec(
        "distill.relation:rkd", 1.0, ("rkd_distance", "rkd_angle"), "never", "pool", together=True
    ),
    "comb_matrix": LossSpec(
        "distill.relation:comb_matrix", 0.1, ("gamma",), "never", "latent", together=True
    ),
    "ickd": LossSpec("distill.relation:ICKD", 2.5, adapter="own", layers="latent"),
    "crd": LossSpec(
        "distill.contrast:CRD",
        0.8,
        ("crd_tau", "crd_negatives"),
        "own",
        "pool",
        ("index", "generator"),
        together=True,
    ),
    "ft": LossSpec("distill.factor:FT", 500.0, ("ft_rate",), "own", "latent"),
    "tucker": LossSpec(
        "distill.factor:tucker",
        125.0,
        ("tucker_ranks", "tucker_space", "tucker_over"),
        layers="latent",
        together=True,
    ),
    "isrd": LossSpec("distill.pixel:ISRD", 10.0, adapter="own", layers="first", needs=("seen",)),
}

LOSS_OPTIONS = {
    "gamma": "auto",
    "temperature": 4.0,
    "style_weight": 0.0,
}  # and what they are unless told
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
PREPARE_EPOCHS = 5  # unless told
BALANCES = {  # of the documents: weight of the labels, of `kd`, and its temperature
    "halves": {"beta": 0.5, "loss_distill": ["kd:0.5"], "temperature": 2.0},
    "pixel": {"beta": 0.1, "loss_distill": ["kd:0.9"], "temperature": 4.0},
    "benchmark": {"beta": 0.1, "loss_distill": ["kd:0.9"], "temperature": 2.0},
}

SELECTIONS = (  # --type_dist: the place in this list, or the name
    "latent",
    "all",
    "first_latent",
    "output",
    "output_latent",
    "encoder",
    "encoder_latent",
    "latent_decoder",
    "output_latent_decoder",
    "output_all",
    "first",
    "output_first_latent",
    "output_first",
)

CLASS_SELECTIONS = ("latent", "all", "stages", "first", "first_latent", "pool", "latent_pool")

SCHEDULES = {  # of the learning rate
    "cosine": Entry("training.schedule:cosine", {}),
    "constant": Entry("training.schedule:constant", {}),
    "multistep": Entry("training.schedule:multistep", {"milestones": ..., "lr_gamma": 0.5}),
}

ALPHA_SCHEDULES = {
    "constant": Entry("distill.schedule:constant", {}),
    "step": Entry("distill.schedule:step", {"alpha_milestones": ..., "alpha_gamma": 0.5}),
    "linear": Entry("distill.schedule:linear", {}),
    "cosine": Entry("distill.schedule:cosine", {}),
    "warmup": Entry("distill.schedule:warmup", {"alpha_warmup": 0.1}),
    "phases": Entry("distill.schedule:phases", {}),
}


class Export(NamedTuple):
    """Where a form of export lives, and its files' suffix."""

    path: str
    suffix: str


EXPORTS = {
    "safetensors": Export("evaluation.export:as_safetensors", "safetensors"),
    "torch_export": Export("evaluation.export:as_torch_export", "pt2"),
    "onnx": Export("evaluation.export:as_onnx", "onnx"),
}

ADAM = {"betas": [0.9, 0.999]}
OPTIMIZERS = {
    "adam": Entry("torch.optim:Adam", ADAM),
    "adamw": Entry("torch.optim:AdamW", ADAM),
    "sgd": Entry("torch.optim:SGD", {}),
}


def words(value) -> str:
    """A number, a name, or several numbers, in a file name; of the user's own values a digest."""
    if isinstance(value, dict):
        text = json.dumps(value, sort_keys=True)
        return f"own_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if isinstance(value, list):
        return "_".join(f"{v:g}" for v in value)
    return value if isinstance(value, str) else f"{value:g}"


def label_of(config: dict) -> str:
    """A camera in file names: cr_0.1, crs_0.1_0.3 for a mixture of ratios, denoise_sigma_25, ..."""
    template = PHYSICS[config["name"]].label
    if isinstance(config.get("cr"), list):
        template = template.replace("cr_", "crs_", 1)
    return template.format(
        **{name: words(value) for name, value in config.items() if value is not None}
    )


def load(path: str):
    """The object that a 'module:name' string points to."""
    module, name = path.split(":")
    return getattr(import_module(module), name)


def bound(table: dict, name: str, args) -> Callable:
    """A function of a table, with the flags that its line lists."""
    return partial(
        look_up(table, name, "entry"), **{flag: getattr(args, flag) for flag in table[name].flags}
    )


def look_up(table: dict, name: str, what: str):
    """The object behind a table's name, or an error that lists the names."""
    if name not in table:
        raise UserError(f"unknown {what} '{name}': choose from {', '.join(table)}")
    entry = table[name]
    return load(entry if isinstance(entry, str) else entry.path)
