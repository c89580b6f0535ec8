"""A first answer to a few-shot task in closed form, by least squares on what its examples show.

Every example is explained by the others: its output is regressed on its own images, smoothed as well, and on
the others' outputs, averaged where the images around look alike. The same regression then answers for the
target. A mask is thus voted for by similar examples (as in label fusion, Coupe et al. 2011), and an image is
filtered.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

WINDOW = 5
"""Side of the patches whose likeness weighs an example's vote, pixels."""

RIDGE = 1e-4
"""Ridge of the regression, as a share of each feature's mean square."""


def _smoothed(images: torch.Tensor, window: int) -> torch.Tensor:
    """Average (B, C, H, W) over windows, fewer pixels at the border."""
    return F.avg_pool2d(images, window, stride=1, padding=window // 2, count_include_pad=False)


def _features(inputs: torch.Tensor, others: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Give what a slice's output is regressed on, (B, features, H, W).

    Parameters
    ----------
    inputs
        (B, 3, H, W) of the slice.
    others, outputs
        (B, M, 3, H, W) and (B, M, H, W) of the examples that vote.
    """
    unlike = _smoothed((others - inputs[:, None]).square().sum(2), WINDOW)
    weights = torch.exp(-unlike / (unlike.amin(1, keepdim=True) + 1e-3))
    voted = (weights * outputs).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    mean = outputs.mean(1, keepdim=True)
    first = inputs[:, :1]
    return torch.cat(
        [
            torch.ones_like(first),
            inputs,
            _smoothed(first, 3),
            _smoothed(first, 7),
            mean,
            voted,
            torch.sigmoid(8 * (voted - 0.5)),
            voted * first,
        ],
        dim=1,
    )


@torch.no_grad()
def first_answer(target: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Answer for the target and, from the others, for each example.

    Parameters
    ----------
    target
        (B, 3, H, W) in [0, 1].
    context
        (B, N, 4, H, W): input channels and output. A single example is explained by its own smoothed output.

    Returns
    -------
    tuple of torch.Tensor
        (B, 1, H, W) of the target and (B, N, 1, H, W) of the examples, in [0, 1].

    Examples
    --------
    >>> context = torch.rand(1, 4, 4, 16, 16)
    >>> context[:, :, 3] = 1 - context[:, :, 0]
    >>> target = torch.rand(1, 3, 16, 16)
    >>> found, _ = first_answer(target, context)
    >>> bool((found[:, 0] - (1 - target[:, 0])).abs().max() < 0.05)
    True
    """
    inputs, outputs = context[:, :, :3].float(), context[:, :, 3].float()
    target = target.float()
    n = context.shape[1]
    explained = []
    for one in range(n):
        rest = [i for i in range(n) if i != one]
        votes = outputs[:, rest] if rest else _smoothed(outputs, 3)
        explained.append(_features(inputs[:, one], inputs[:, rest or [one]], votes))
    rows = torch.stack(explained, dim=1)
    flat = rows.transpose(1, 2).flatten(2)
    flat, wanted = flat.double(), outputs.flatten(1)[..., None].double()
    square = flat @ flat.transpose(1, 2)
    ridge = RIDGE * square.diagonal(dim1=1, dim2=2) + 1e-6 * flat.shape[-1]
    weights = torch.linalg.solve(square + torch.diag_embed(ridge), flat @ wanted).float()
    answers = torch.einsum("bnfhw,bf->bnhw", rows, weights[..., 0])
    answer = torch.einsum("bfhw,bf->bhw", _features(target, inputs, outputs), weights[..., 0])
    return answer[:, None].clamp(0, 1), answers[:, :, None].clamp(0, 1)
