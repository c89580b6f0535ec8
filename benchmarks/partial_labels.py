"""Partial annotations: one conditional network beside separate ones, a PSL loss and last-layer conditioning.

python -m benchmarks.partial_labels --maps MAPS --rows ROWS --steps 500 --out FILE

Figures 2 and 4 of the paper (Billot et al. 2023) at reduced size: the middle of synthetic heads at 4 mm, five
regions that are nested or disjoint, each of them annotated in a share of the scans drawn at random. Every
network has the same backbone, loss (soft Dice and cross-entropy on what was annotated), learning rate and
number of steps of four scans; separate networks take that many steps each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.rows import Row, Rows
from hyperprep.models.losses.dice import region_loss
from hyperprep.models.nets.conemos import ConditionalUNet
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.draw import SynthSpec
from hyperprep.models.synth.maps import LabelMaps, load_maps
from hyperprep.models.train.segmentation import SegmentationTask

REGIONS = {"deep-grey": ("deep-grey",), "thalamus": ("10", "49"), "ventricles": ("ventricles",),
           "hippocampus": ("17", "53"), "brain-stem": ("16",)}  # fmt: skip
"""The regions, and the conditions of the segmentation task of which they are unions."""

HELD_OUT = 4
"""Heads on which the networks are measured."""

SPEC = SynthSpec(
    rotation_deg=8.0, shift_mm=5.0, log_scale=0.06, warp_mm=5.0, random_contrast=0.0, contrasts=("T1w",),
    noise=0.06, bias=0.3, thick_slices=0.3, skull_kept=0.7, skull_badly_removed=0.0,
)  # fmt: skip

LATTICE = Lattice((32, 32, 24), 4.0, (-62.0, -80.0, -46.0))
"""The middle of the brain at 4 mm, where all regions lie."""

SHARES = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class Scan:
    """One scan.

    Attributes
    ----------
    image
        (1, 1, *grid) in [0, 1].
    masks
        (K, *grid) 0/1, what is true.
    drawn
        (K,) which of them were annotated.
    """

    image: torch.Tensor
    masks: torch.Tensor
    drawn: np.ndarray


def make_scans(maps: LabelMaps, indices: Sequence[int], each: int, seed: int) -> list[Scan]:
    """Make scans of some heads, completely annotated."""
    task = SegmentationTask(maps, LATTICE, SPEC, held_out=HELD_OUT)
    rows = [[task.conditions.index(name) for name in names] for names in REGIONS.values()]
    scans = []
    for number in range(each * len(indices)):
        rng = np.random.default_rng([seed, number])
        image, structure, brain = task.example(rng, index=indices[number % len(indices)])
        every = task.targets(structure, brain)[0]
        masks = torch.stack([every[row].amax(0) for row in rows])
        scans.append(Scan(image[None, None], masks, np.ones(len(rows), bool)))
    return scans


def annotate(scans: Sequence[Scan], share: float, seed: int) -> list[Scan]:
    """Keep a share of the annotations of each region, drawn at random; the scans stay."""
    rng = np.random.default_rng([seed, 7])
    drawn = np.zeros((len(scans), len(REGIONS)), bool)
    for region in range(len(REGIONS)):
        drawn[rng.permutation(len(scans))[: max(1, round(share * len(scans)))], region] = True
    return [Scan(one.image, one.masks, row) for one, row in zip(scans, drawn, strict=True)]


def last_layer_only(network: ConditionalUNet) -> ConditionalUNet:
    """Let the condition reach the last convolution alone (N = 1 in the paper's figure 4B)."""
    for output in list(network.conditioner.outputs)[:-1]:
        nn.init.zeros_(output.weight)  # type: ignore[arg-type]
        nn.init.zeros_(output.bias)  # type: ignore[arg-type]
        output.requires_grad_(requires_grad=False)
    return network


BATCH = 4
"""Scans in a step."""

Logits = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""Images (B, 1, *grid) and a region for each -> (B, *grid) logits."""


def fit(
    network: nn.Module,
    loss: Callable[[np.random.Generator], torch.Tensor],
    steps: int,
    seed: int,
    rate: float = 2e-3,
) -> None:
    """Descend; the learning rate falls to nothing along a cosine."""
    known = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(known, lr=rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    rng = np.random.default_rng([seed, 1])
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        loss(rng).backward()
        nn.utils.clip_grad_norm_(known, 1.0)
        optimiser.step()
        falling.step()


def _mean_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Give the mean loss of (N, *grid) logits and masks, each a region of a scan."""
    return region_loss(logits.flatten(1).T, masks.flatten(1).T)


def _some(having: Sequence[Scan], rng: np.random.Generator) -> Scan:
    return having[int(rng.integers(len(having)))]


def conditional(
    scans: Sequence[Scan], channels: tuple[int, ...], steps: int, seed: int, *, last: bool = False
) -> Logits:
    """One network, the region is its condition; regions drawn inversely to how often they were annotated."""
    network = ConditionalUNet(len(REGIONS), channels)
    if last:
        last_layer_only(network)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    rows = torch.eye(len(REGIONS))
    having = [[s for s in scans if s.drawn[k]] for k in range(len(REGIONS))]
    chance = np.array([1 / len(h) for h in having])

    def logits(images: torch.Tensor, asked: Sequence[int]) -> torch.Tensor:
        found: torch.Tensor = network(images, rows[list(asked)])[:, 0]
        return found

    def loss(rng: np.random.Generator) -> torch.Tensor:
        asked = [int(k) for k in rng.choice(len(chance), BATCH, p=chance / chance.sum())]
        drawn = [_some(having[region], rng) for region in asked]
        masks = torch.stack([scan.masks[k] for scan, k in zip(drawn, asked, strict=True)])
        return _mean_loss(logits(torch.cat([scan.image for scan in drawn]), asked), masks)

    fit(network, loss, steps, seed)
    return logits


def separate(scans: Sequence[Scan], channels: tuple[int, ...], steps: int, seed: int) -> Logits:
    """One network for each region."""
    networks = [ConditionalUNet(1, channels) for _ in REGIONS]

    def logits(images: torch.Tensor, asked: Sequence[int]) -> torch.Tensor:
        found: torch.Tensor = networks[asked[0]](images, torch.ones(len(images), 1))[:, 0]
        return found

    for region, network in enumerate(networks):
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        having = [s for s in scans if s.drawn[region]]

        def loss(rng: np.random.Generator, region: int = region, having: list[Scan] = having) -> torch.Tensor:
            drawn = [_some(having, rng) for _ in range(BATCH)]
            masks = torch.stack([scan.masks[region] for scan in drawn])
            return _mean_loss(logits(torch.cat([scan.image for scan in drawn]), [region]), masks)

        fit(network, loss, steps, seed)
    return logits


def psl(scans: Sequence[Scan], channels: tuple[int, ...], steps: int, seed: int) -> Logits:
    """One network with an output for each region; the loss is that of what was annotated (appendix A)."""
    network = ConditionalUNet(1, channels)
    network.last = nn.Conv3d(channels[0], len(REGIONS), 1)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    having = [s for s in scans if s.drawn.any()]

    def every(images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = network(images, torch.ones(len(images), 1))
        return found

    def loss(rng: np.random.Generator) -> torch.Tensor:
        drawn = [_some(having, rng) for _ in range(BATCH)]
        known = torch.from_numpy(np.stack([scan.drawn for scan in drawn]))
        found = every(torch.cat([scan.image for scan in drawn]))
        return _mean_loss(found[known], torch.stack([scan.masks for scan in drawn])[known])

    fit(network, loss, steps, seed)
    return lambda images, asked: every(images)[torch.arange(len(images)), list(asked)]


METHODS: dict[str, Callable[[Sequence[Scan], tuple[int, ...], int, int], Logits]] = {
    "conditional, every convolution": conditional,
    "conditional, last convolution": lambda *args: conditional(*args, last=True),
    "PSL loss": psl,
    "separate networks": separate,
}


@torch.no_grad()
def measure(logits: Logits, scans: Sequence[Scan]) -> dict[str, float]:
    """Mean hard Dice of each region."""
    scores: dict[str, list[float]] = {name: [] for name in REGIONS}
    for scan in scans:
        for region, name in enumerate(REGIONS):
            found, truth = logits(scan.image, [region])[0] > 0, scan.masks[region] > 0
            scores[name].append(float(2 * (found & truth).sum() / (found.sum() + truth.sum()).clamp_min(1)))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def table(rows: list[Row]) -> list[str]:
    """Mean Dice for each method and share of annotations, and each region's."""
    lines = [f"| method | annotations | mean | {' | '.join(REGIONS)} | seconds |"]
    lines.append("|---" * (4 + len(REGIONS)) + "|")
    for method in METHODS:
        for share in SHARES:
            mine = [row for row in rows if row["method"] == method and row["share"] == share]
            if mine:
                each = np.array([[row[name] for name in REGIONS] for row in mine])
                cells = [f"{each.mean():.3f}", *(f"{v:.3f}" for v in each.mean(0))]
                spent = np.mean([row["seconds"] for row in mine])
                lines.append(f"| {method} | {100 * share:.0f} % | {' | '.join(cells)} | {spent:.0f} |")
    return lines


def main() -> None:
    """Train what the rows do not hold yet, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--each", type=int, default=3, help="scans of each head")
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    maps, rows = load_maps(args.maps), Rows(args.rows)
    heads = len(maps.maps) - HELD_OUT
    scans = make_scans(maps, range(heads), args.each, seed=1)
    tested = make_scans(maps, range(heads, len(maps.maps)), 2, seed=2)
    for seed in range(args.seeds):
        for share in args.shares:
            annotated = annotate(scans, share, seed)
            for method in args.methods:
                if rows.has(method=method, share=share, seed=seed, steps=args.steps):
                    continue
                torch.manual_seed(seed)
                began = time.perf_counter()
                found = METHODS[method](annotated, tuple(args.channels), args.steps, seed)
                seconds = time.perf_counter() - began
                scores = measure(found, tested)
                rows.add(
                    {
                        "method": method,
                        "share": share,
                        "seed": seed,
                        "steps": args.steps,
                        "seconds": seconds,
                        **scores,
                    }
                )
    lines = table([row for row in rows.known if row["steps"] == args.steps])
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
