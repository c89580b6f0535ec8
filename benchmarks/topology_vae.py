"""The anomaly detector of An and Cho (2015) as a spatial VAE on axial slices, a baseline of the benchmark.

python -m benchmarks.topology_vae --maps MAPS --out runs/vae --max-time 20

Channels are those of Venkatakrishnan et al. (2020) as Czolbe et al. (2021) give them; sigma is 1.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.predict.device import pick_device
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.draw import SynthSpec
from hyperprep.models.synth.maps import LabelMaps, load_maps
from hyperprep.models.train.configure import lattice_of, read_config, spec_of
from hyperprep.models.train.loop import train
from hyperprep.models.train.registration import brain_pair
from hyperprep.models.train.schedule import Schedule
from hyperprep.models.train.topology import at_planes

CHANNELS = (32, 64, 128, 256)


class SpatialVAE(nn.Module):
    """Encoder and decoder of slices; the latent variables are a coarse image."""

    def __init__(self, channels: tuple[int, ...] = CHANNELS, latent: int = 16) -> None:
        super().__init__()
        down, up = [], []
        for before, after in itertools.pairwise((1, *channels)):
            down += [nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
            up = [nn.ConvTranspose2d(after, before, 4, 2, 1), *up]
            if before > 1:
                up = [up[0], nn.BatchNorm2d(before), nn.LeakyReLU(0.2), *up[1:]]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)
        self.mean, self.log_variance = (nn.Conv2d(channels[-1], latent, 1) for _ in range(2))
        self.widen = nn.Conv2d(latent, channels[-1], 1)

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give reconstruction, mean and log variance; drawn in training, at the mean otherwise.

        Slices of any size are padded to what the network halves four times.
        """
        x, y = slices.shape[2:]
        factor = 2 ** len(CHANNELS)
        code = self.encoder(F.pad(slices, (0, -y % factor, 0, -x % factor)))
        mean, log_variance = self.mean(code), self.log_variance(code).clamp(-10, 10)
        drawn = mean
        if self.training:
            drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(self.widen(drawn))[:, :, :x, :y], mean, log_variance


@dataclass
class VAETask:
    """Reconstruct slices of healthy heads."""

    maps: LabelMaps
    lattice: Lattice
    spec: SynthSpec
    slices: int = 32
    name: str = "vae"
    held_out: int = 2

    def build(self) -> nn.Module:
        """Make the network."""
        return SpatialVAE()

    def batch(self, rng: np.random.Generator) -> Any:
        """Draw slices of one head, (slices, 1, X, Y)."""
        index = int(rng.integers(len(self.maps.maps) - self.held_out))
        ((image, _),) = brain_pair(self.maps, self.lattice, self.spec, rng, (index,), same_contrast=1.0)
        held = torch.nonzero((image > 0).sum(dim=(0, 1, 2, 3)) > 200)[:, 0]
        chosen = held[torch.randperm(len(held), device=held.device)[: self.slices]]
        return at_planes(image, chosen, image.shape[-1])

    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Give the negative bound per slice."""
        made, mean, log_variance = model(batch)
        error = F.mse_loss(made, batch, reduction="sum") / 2 / len(batch)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2 / len(batch)
        return error + divergence, {"error": float(error.detach()), "divergence": float(divergence.detach())}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measure the reconstruction error on one batch."""
        batch = self.batch(np.random.default_rng(1))
        return {"mse": float(F.mse_loss(model(batch)[0], batch))}


@torch.no_grad()
def reconstruction_error(network: nn.Module, image: np.ndarray) -> np.ndarray:
    """Give the squared error of each voxel of a volume, (X, Y, Z) in [0, 1]."""
    slices = torch.from_numpy(np.ascontiguousarray(image)).float().movedim(-1, 0)[:, None]
    made = torch.cat([network(part)[0] for part in slices.split(16)])
    return (slices - made).square()[:, 0].movedim(0, -1).numpy()


def load(folder: Path) -> nn.Module:
    """Load the network of a finished run."""
    network = SpatialVAE()
    network.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True)["average"])
    return network.eval()


def main() -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/vae"))
    parser.add_argument("--max-time", type=float, default=20.0, metavar="MINUTES")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = pick_device(args.device)
    maps = load_maps(args.maps)
    maps = replace(maps, maps=maps.maps.to(device), brain=maps.brain.to(device))
    config = read_config("topology")
    task = VAETask(maps, lattice_of(config), spec_of(config))
    schedule = Schedule(steps=args.steps, max_seconds=60 * args.max_time, learning_rate=1e-3)
    train(task, schedule, args.out, device=device)


if __name__ == "__main__":
    main()
