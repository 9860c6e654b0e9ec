"""A trained network for other programs; the file is read again and must give the same image."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from checkpoints.checkpoint import Checkpoint
from core.errors import UserError
from core.files import durable
from core.registry import EXPORTS, look_up
from models import build_network

TOLERANCE = 1e-5

ReadAgain = Callable[[Tensor], Tensor]  # the network as another program reads it from the file


def as_safetensors(checkpoint: Checkpoint, example: Tensor, path: Path) -> ReadAgain:
    """The weights, and the configs of network and physics in the header."""
    from safetensors import safe_open
    from safetensors.torch import save

    configs = {
        "network": json.dumps(checkpoint.network_config),
        "physics": json.dumps(checkpoint.physics.config),
    }
    weights = {
        name: tensor.cpu().contiguous() for name, tensor in checkpoint.network.state_dict().items()
    }
    path.write_bytes(save(weights, metadata=configs))
    with safe_open(path, "pt") as file:
        network = build_network(json.loads(file.metadata()["network"]))
        names = list(file.keys())
        network.load_state_dict({name: file.get_tensor(name) for name in names})
    return network.eval()


def as_torch_export(checkpoint: Checkpoint, example: Tensor, path: Path) -> ReadAgain:
    """A graph that needs torch alone; any number of images."""
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(checkpoint.network, (example,), dynamic_shapes=shapes)
    torch.export.save(program, buffer := io.BytesIO())
    path.write_bytes(buffer.getvalue())
    return torch.export.load(path).module()


def as_onnx(checkpoint: Checkpoint, example: Tensor, path: Path) -> ReadAgain:
    """A graph that needs no torch; any number of images."""
    from onnxruntime import InferenceSession

    try:
        torch.onnx.export(
            checkpoint.network,
            (example,),
            path,
            input_names=["image"],
            output_names=["output"],
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            external_data=False,
            verbose=False,
        )
    except (TypeError, torch.onnx.OnnxExporterError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"export onnx: torch's exporter cannot translate this network ({reason})"
        ) from None
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"image": x.numpy()})[0])


@torch.no_grad()
def export_network(checkpoint: Checkpoint, kind: str, folder: Path) -> dict:
    """Writes the network alone, for first images of its physics' size, and checks the file."""
    network = checkpoint.network.cpu()
    path, distance = folder / f"network.{EXPORTS[kind].suffix}", 0.0
    size = checkpoint.physics.cpu().parts[0].example(torch.device("cpu")).shape[1:]
    x0 = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))

    def write_and_compare(draft: Path) -> None:
        nonlocal distance
        read_again = look_up(EXPORTS, kind, "export")(checkpoint, x0[:2], draft)
        distance = (read_again(x0) - network(x0)).abs().max().item()
        if distance > TOLERANCE:
            raise UserError(
                f"export {kind}: the exported network's output differs by up to {distance:.1e}, "
                f"more than the tolerance of {TOLERANCE:g}"
            )

    try:
        durable(path, write_and_compare)
    except ImportError as error:
        raise UserError(f"export {kind}: {error}; it is in requirements.txt") from None
    megabytes = path.stat().st_size / 1e6
    print(f"{path}  {megabytes:.2f} MB, within {distance:.1e} of the checkpoint")
    return {"path": str(path), "distance": distance}
