"""A trained network for other programs; what was written is read again and must give the same image."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from core.errors import UserError
from core.files import durable
from core.registry import EXPORTS, look_up
from models import build_network
from training.checkpoint import Checkpoint

TOLERANCE = 1e-5


def as_safetensors(restored: Checkpoint, example: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    """The weights, and the recipes of network and physics in the header."""
    from safetensors import safe_open
    from safetensors.torch import save

    configs = {
        "network": json.dumps(restored.network_config),
        "physics": json.dumps(restored.physics.config),
    }
    weights = {
        name: tensor.cpu().contiguous() for name, tensor in restored.network.state_dict().items()
    }
    path.write_bytes(save(weights, metadata=configs))
    with safe_open(path, "pt") as file:
        network = build_network(json.loads(file.metadata()["network"]))
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return network.eval()


def as_torch_export(
    restored: Checkpoint, example: Tensor, path: Path
) -> Callable[[Tensor], Tensor]:
    """A graph that needs torch alone; any number of images."""
    program = torch.export.export(
        restored.network, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, buffer := io.BytesIO())
    path.write_bytes(buffer.getvalue())
    return torch.export.load(path).module()


def as_onnx(restored: Checkpoint, example: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    """A graph that needs no torch; any number of images."""
    from onnxruntime import InferenceSession

    shapes = ({0: torch.export.Dim.DYNAMIC},)
    names = {"input_names": ["image"], "output_names": ["output"]}
    try:
        torch.onnx.export(
            restored.network,
            (example,),
            path,
            dynamo=True,
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
            **names,
        )
    except (TypeError, torch.onnx.OnnxExporterError) as error:
        raise UserError(
            f"export onnx: torch's exporter cannot translate this network ({str(error).splitlines()[0]})"
        ) from None
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"image": x.numpy()})[0])


@torch.no_grad()
def export(restored: Checkpoint, kind: str, folder: Path) -> dict:
    """Writes the network alone, for first images of its camera's size, and says how far what was written is from the original."""
    network = restored.network.cpu()
    path, distances = folder / f"network.{EXPORTS[kind].suffix}", []
    size = restored.physics.cpu().parts[0].example(torch.device("cpu")).shape[1:]
    first = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))

    def write_and_compare(draft: Path) -> None:
        again = look_up(EXPORTS, kind, "export")(restored, first[:2], draft)
        distances.append((again(first) - network(first)).abs().max().item())
        if distances[0] > TOLERANCE:
            raise UserError(
                f"export {kind}: what is written gives other outputs, by up to {distances[0]:.1e}; more than {TOLERANCE:g} is not accepted"
            )

    try:
        durable(path, write_and_compare)
    except ImportError as error:
        raise UserError(f"export {kind}: {error}; it is in requirements.txt") from None
    print(
        f"{path}  {path.stat().st_size / 1e6:.2f} MB, within {distances[0]:.1e} of the checkpoint"
    )
    return {"path": str(path), "distance": distances[0]}
