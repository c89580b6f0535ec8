"""Scans with masks of one's own regions, brought onto the atlas of the network ``segment``, for training."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import torch

from hyperprep import __version__
from hyperprep.exceptions import OutputError, ScanError, WeightsError
from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.region_head import leaves_of, region_features
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.on_grid import on_network_grid
from hyperprep.models.predict.place import place
from hyperprep.models.predict.rules import template_brain
from hyperprep.models.predict.sampling import block_means, halved, lattice_grid
from hyperprep.models.spatial.files import replacing
from hyperprep.models.spatial.images import read_scan
from hyperprep.models.spatial.region_examples import INDEX, RegionExample, read_masks
from hyperprep.models.spatial.transforms import Chain, resample
from hyperprep.models.synth.alter import altered_alignment, altered_scan, draw_alteration
from hyperprep.models.weights import WeightsEntry, find_weights

TOGETHER = 14
"""Masks that are resampled at once, as bits of whole numbers of 16 bits."""


def prepare_examples(
    examples: Sequence[RegionExample],
    folder: str | Path,
    index: str | Path,
    *,
    variants: int = 1,
    seed: int = 0,
    weights_dir: str | Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
    told: Callable[[str], None] = print,
) -> list[str]:
    """Bring scans and masks onto the atlas, and store what the network makes of the scans.

    Parameters
    ----------
    examples
        Scans with their masks.
    folder
        Receives a file of about 80 MB for each scan and variant; files of scans and masks that have not
        changed since are kept.
    index
        Folder that receives the index, written last.
    variants
        Altered copies of each scan (brightness, bias field, noise, alignment) beside the scan itself.
    seed
        Seed of the alterations.
    weights_dir, device, num_threads
        As in :func:`hyperprep.models.predict.segment.segment`.
    told
        Called with a line for each scan.

    Returns
    -------
    list of str
        What was left out, and why; it stands in the index too.

    Raises
    ------
    NoInputError
        When a file is missing.
    ScanError
        When no example can be used.
    OutputError
        When the disk is full.
    WeightsError, DeviceError
        When weights or device are not there, or the network has no atlas.
    """
    folder = Path(folder)
    entry = find_weights("segment", weights_dir=weights_dir)
    network = load_network(entry).to(pick_device(device))
    if not isinstance(network, AtlasUNet):
        raise WeightsError(
            f"{entry.path} has no atlas; own regions are trained on a 'segment' network that has one."
        )
    options = {"weights_dir": weights_dir, "device": device, "num_threads": num_threads}
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for turn, example in enumerate(examples):
        files = [folder / _name(example, variant, seed, entry) for variant in range(variants + 1)]
        begins, there = f"{turn + 1}/{len(examples)} {example.label}", all(f.exists() for f in files)
        try:
            if not there:
                _prepare(example, files, seed, network, entry, options)
        except ScanError as error:
            left_out.append(f"{example.label}: {error}")
            told(f"{begins}: left out. {error}")
            continue
        told(f"{begins}: {', '.join(example.masks)}{' (prepared before)' if there else ''}")
        for variant, file in enumerate(files):
            rows.append(
                {"file": str(file.absolute()), "label": example.label, "participant": example.participant,
                 "variant": variant, "regions": {name: row for row, name in enumerate(example.masks)}}
            )  # fmt: skip
    if not rows:
        raise ScanError("No example could be used. " + " ".join(left_out))
    content = {
        "base_sha256": entry.sha256,
        "grid": entry.metadata["grid"],
        "intensity": entry.metadata["intensity"],
        "features": network.features + len(leaves_of(network)),
        "ratios": [network.own, network.features - network.own],
        "variants": variants,
        "left_out": left_out,
        "scans": rows,
    }
    with replacing(Path(index) / INDEX) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    return left_out


def _name(example: RegionExample, variant: int, seed: int, entry: WeightsEntry) -> str:
    """Name a prepared scan after all that it depends on."""
    depends = [__version__, entry.sha256, example.state(), [seed] if variant else []]
    digest = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:12]
    return f"{example.label}_{variant}_{digest}.safetensors"


def _prepare(
    example: RegionExample,
    files: Sequence[Path],
    seed: int,
    network: AtlasUNet,
    entry: WeightsEntry,
    options: Mapping[str, Any],
) -> None:
    """Make the files of one scan: as it is, then altered."""
    scan = read_scan(example.image)
    packed = _packed(mask for _, mask in read_masks(example, scan))
    placed = place(scan, **options)
    for variant, file in enumerate(files):
        if file.exists():
            continue
        image, template2scan = scan, placed.template2scan
        if variant:
            rng = np.random.default_rng([seed, variant, zlib.crc32(example.label.encode())])
            drawn = draw_alteration(rng)
            image = altered_scan(scan, drawn)
            template2scan = altered_alignment(template2scan, template_brain(entry)[1], drawn)
        with torch_threads(options["num_threads"]), torch.inference_mode():
            found, onto = on_network_grid(network, entry, image, template2scan, placed.mask)
            assert onto is not None
            features = region_features(network, found.trunk)[0].half().cpu()
            chain: Chain = [onto.forward, template2scan]
            masks = _on_atlas(packed, entry, chain)
        _store(file, features, masks)


def _packed(masks: Iterable[nb.Nifti1Image]) -> list[tuple[int, nb.Nifti1Image]]:
    """Put :data:`TOGETHER` masks at a time into one image, as bits; gives how many each image holds."""
    images = []
    for group in batched(masks, TOGETHER):
        bits = sum((np.asanyarray(mask.dataobj).astype(np.int16) << bit) for bit, mask in enumerate(group))
        images.append((len(group), nb.Nifti1Image(np.asarray(bits, np.int16), group[0].affine)))
    return images


def _on_atlas(
    packed: Sequence[tuple[int, nb.Nifti1Image]], entry: WeightsEntry, chain: Chain
) -> torch.Tensor:
    """Bring masks onto the atlas: the share of each voxel that is inside, (M, *grid) in whole 255ths."""
    fine, shares = halved(lattice_grid(entry.metadata["grid"])), []
    for count, image in packed:
        found = resample(image, fine, list(chain), interpolation="nearest")
        moved = np.asanyarray(found.dataobj).astype(np.int16)
        for bit in range(count):
            inside = (moved >> bit & 1).astype(np.float32)
            shares.append(np.round(255 * block_means(inside)).astype(np.uint8))
    return torch.from_numpy(np.stack(shares))


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut a sequence into lists of at most ``size``.

    >>> list(batched("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def _store(path: Path, features: torch.Tensor, masks: torch.Tensor) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        try:
            save_file({"features": features.contiguous(), "masks": masks.contiguous()}, temporary)
        except SafetensorError as error:
            raise OutputError(f"Writing {path} failed: {error}. Is the disk full?") from error
