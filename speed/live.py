"""The group of the benchmark for live images: a frame at a time, from its vector to its image."""

import torch
from torch import Tensor

from core.errors import UserError
from evaluation.live import Live, percentile_99
from models import build_network
from models.base import Network
from physics.base import Linear
from speed.candidates import TOLERANCE, Bench
from speed.groups import build_spc
from speed.timing import Work, time_interleaved, timing_rows

SIDE, CR = 128, 0.02
FRAMES = 200  # at least, so that a 99th percentile can be taken


def time_live(bench: Bench) -> list[dict]:
    """A frame by U-Nets of all widths and by the unrolled network."""
    camera = build_spc(SIDE, CR)
    assert isinstance(camera, Linear), "the single-pixel camera"
    reading = camera.with_measurements()
    assert isinstance(reading, Linear), "Hadamard patterns can be read"
    image = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    values = camera.clean_values(image)[0]  # (1, m)
    candidates: dict[str, Work] = {}
    for width in bench.args.width:
        unet = {"name": "unet", "c": 1, "scales": 2, "width": width}
        candidates[f"U-Net, width {width}"] = frame_work(bench, unet, camera, values)
    unrolled = {"name": "unrolled", "c": 1, "n": SIDE}
    candidates["unrolled"] = frame_work(bench, unrolled, reading, values)
    times = time_interleaved(candidates, max(FRAMES, bench.args.rounds), bench.device)
    case = f"a frame of {SIDE} x {SIDE}, cr {CR:g}"
    return [
        row | {"99th percentile (ms)": 1e3 * percentile_99(times[row["candidate"]])}
        for row in timing_rows("live", case, times, 1, n=SIDE, batch=1)
    ]


def frame_work(bench: Bench, config: dict, physics: Linear, values: Tensor) -> Work:
    """The work of a frame, once its image is that of a batch."""
    network = build_network(config)
    randomise(network)
    live = Live(network, physics, bench.device)

    def work() -> Tensor:
        with bench.autocast():
            return live(values)

    with torch.no_grad():
        x0 = physics.first_image(physics.place_values(values.to(bench.device)[None]))
        expected = live.network(x0.expand(2, -1, -1, -1))[0]
    difference = ((work() - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE[bench.args.precision]:
        raise UserError(
            f"live, {config['name']}: the image differs by {difference:.1e} from that of a batch; "
            "nothing is timed"
        )
    return work


def randomise(network: Network) -> None:
    """Gives every parameter that starts at zero, as those of last layers, other values."""
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        if not weight.any():
            weight.data = 0.01 * torch.randn(weight.shape, generator=generator)
