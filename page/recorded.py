"""The frames of a recording on the page, and what networks make of them."""

import torch

from core.errors import UserError
from data.batches import Batch
from models.base import Network
from page.scene import encoded
from physics.single_pixel import SinglePixel
from preparation.setup import camera_of
from recordings.file import Recording


class Frames:
    """A recording and the networks that can restore its frames."""

    def __init__(self, recording: Recording, networks: dict[str, tuple[Network, SinglePixel]]):
        self.recording, self.networks = recording, networks
        self.camera = camera_of(recording)
        for name, (_, physics) in networks.items():
            self.camera.check_part(physics, name)

    def options(self) -> dict:
        return {"frames": list(self.recording.names)}

    def show(self, request: dict) -> dict:
        """All recorded values of a frame as an image, and what each network makes of its own."""
        k = request.get("frame")
        if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < len(self.recording):
            raise UserError(f"frame: a number from 0 to {len(self.recording) - 1} is needed")
        y = self.recording.place(self.recording.values[k : k + 1])
        variance = self.recording.place(self.recording.variance[k : k + 1])
        batch = Batch(image=None, index=torch.tensor([k]), recorded=y, variance=variance)
        images = [{"name": "all recorded values", "image": self.camera.back_projection(y)}]
        with torch.no_grad():
            for name, (network, physics) in self.networks.items():
                image = network(physics.observe_batch(batch))
                images.append({"name": f"{name}, {physics.m} values", "image": image})
        return {
            "name": self.recording.names[k],
            "estimates": [one | {"image": encoded(one["image"][0])} for one in images],
        }
