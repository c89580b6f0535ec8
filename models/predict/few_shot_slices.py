"""Few-shot prediction of slices: arrays in, arrays out, already aligned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.exceptions import ScanError, UsageError
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.neuralizer import INPUT_CHANNELS, Neuralizer
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.rules import percentiles
from hyperprep.models.spatial.images import robust_rescale
from hyperprep.models.weights import WeightsEntry, find_weights

WEIGHTS = "neuralizer"


def predict_slices(
    network: Neuralizer, target: torch.Tensor, context: torch.Tensor, *, chunk: int | None = None
) -> torch.Tensor:
    """Run the network on slices of any size; they are padded with zeros to what it can halve.

    Parameters
    ----------
    network
        The network.
    target
        (B, 3, H, W) in [0, 1].
    context
        (B, N, 4, H, W).
    chunk
        Examples in memory at the same time.

    Returns
    -------
    torch.Tensor
        (B, H, W) clipped to [0, 1].

    Examples
    --------
    >>> found = predict_slices(Neuralizer(2), torch.rand(1, 3, 9, 13), torch.rand(1, 2, 4, 9, 13))
    >>> found.shape
    torch.Size([1, 9, 13])
    """
    h, w = target.shape[-2:]
    pad = [0, -w % network.divisor, 0, -h % network.divisor]
    n = context.shape[1]
    wide = F.pad(context.flatten(0, 1), pad).unflatten(0, (-1, n))
    return network(F.pad(target, pad), wide, chunk=chunk)[:, 0, :h, :w].clamp(0, 1)


def load_few_shot(
    weights: str | Path | None, weights_dir: str | Path | None, device: torch.device
) -> tuple[Neuralizer, WeightsEntry]:
    """Find, verify and load the few-shot network.

    Raises
    ------
    WeightsError
        When there are no weights that can be used.
    """
    entry = find_weights(WEIGHTS, path=weights, weights_dir=weights_dir)
    network = load_network(entry).to(device)
    assert isinstance(network, Neuralizer)
    if device.type == "cpu":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network, entry


def few_shot_slice(
    images: Sequence[np.ndarray],
    examples: Sequence[tuple[Sequence[np.ndarray], np.ndarray]],
    *,
    weights: str | Path | None = None,
    weights_dir: str | Path | None = None,
    chunk: int | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> np.ndarray:
    """Predict the output of one slice from examples of other slices.

    All slices have one shape and pixel size (that of the weights' grid, for best results), show the same
    part of the head, and are affinely aligned.

    Parameters
    ----------
    images
        One to three (H, W) images of the slice, any unit; each is scaled by its own percentiles.
    examples
        Images and output of each example, in the same order. Outputs that hold 0 and 1 alone are masks;
        others are scaled by the percentiles of all outputs together.
    weights, weights_dir, device, num_threads
        As in :func:`hyperprep.models.predict.locate.locate`.
    chunk
        Examples in memory at the same time; all when not given.

    Returns
    -------
    numpy.ndarray
        (H, W) float32: probability of the mask, or the image in the unit of the outputs.

    Raises
    ------
    UsageError
        When shapes or numbers of images differ, or there is no example.
    ScanError
        When an image is empty.
    WeightsError, DeviceError
        When weights or device are not there.
    """
    shapes = {np.shape(a) for a in images} | {np.shape(a) for x, y in examples for a in (*x, y)}
    counts = {len(images)} | {len(x) for x, _ in examples}
    if not examples or len(shapes) != 1 or len(counts) != 1 or not 1 <= len(images) <= INPUT_CHANNELS:
        raise UsageError(
            f"Slices need examples of one shape and one number (1 to {INPUT_CHANNELS}) of images; found "
            f"shapes {sorted(shapes)} and {sorted(counts)} images in {len(examples)} examples."
        )
    outputs = np.stack([np.asarray(y, np.float32) for _, y in examples])
    low, high = 0.0, 1.0
    if not np.isin(outputs, (0, 1)).all():
        low, high = (float(v) for v in np.percentile(outputs, (0.5, 99.5)))
    if not outputs.any() or high <= low:
        raise ScanError("The outputs of the examples are all empty or constant: they show no task.")
    with torch_threads(num_threads), torch.inference_mode():
        where = pick_device(device)
        network, entry = load_few_shot(weights, weights_dir, where)
        limits = percentiles(entry)
        target = torch.from_numpy(_channels(images, limits))[None].to(where)
        scaled = np.clip((outputs - low) / (high - low), 0, 1)
        context = [
            np.concatenate([_channels(x, limits), y[None]])
            for (x, _), y in zip(examples, scaled, strict=True)
        ]
        found = predict_slices(
            network, target, torch.from_numpy(np.stack(context))[None].float().to(where), chunk=chunk
        )
        return np.asarray(found[0].cpu().numpy() * (high - low) + low, np.float32)


def _channels(images: Sequence[np.ndarray], limits: tuple[float, float]) -> np.ndarray:
    """Scale images and put them into the input channels, (3, H, W)."""
    out = np.zeros((INPUT_CHANNELS, *np.shape(images[0])), np.float32)
    for place, image in enumerate(images):
        out[place] = robust_rescale(np.asarray(image, np.float32), low=limits[0], high=limits[1])
    return out
