"""A segmentation network: the trunk is computed once per image, the last layer made for each asked label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nn.film import Conditioner
from hyperprep.models.nn.norm import InstanceNorm


class ConvBlock(nn.Sequential):
    """A 3 x 3 x 3 convolution, normalised unless told otherwise, and LeakyReLU 0.1."""

    def __init__(self, n_in: int, n_out: int, *, norm: bool = True) -> None:
        super().__init__(
            nn.Conv3d(n_in, n_out, 3, padding=1, bias=not norm),
            InstanceNorm(n_out) if norm else nn.Identity(),
            nn.LeakyReLU(0.1, inplace=True),
        )


def space_to_depth(image: torch.Tensor, factor: int) -> torch.Tensor:
    """Move each cube of voxels into channels: (B, C, X, Y, Z) -> (B, C f^3, X/f, Y/f, Z/f).

    Parameters
    ----------
    image
        (B, C, X, Y, Z), sides divisible by ``factor``.
    factor
        Side f of the cubes in voxels.

    Examples
    --------
    >>> space_to_depth(torch.arange(16).view(1, 1, 2, 2, 4), 2)[0, :, 0, 0, 0].tolist()
    [0, 1, 4, 5, 8, 9, 12, 13]
    """
    b, c, x, y, z = image.shape
    f = factor
    cubes = image.reshape(b, c, x // f, f, y // f, f, z // f, f)
    return cubes.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * f**3, x // f, y // f, z // f)


def depth_to_space(features: torch.Tensor, factor: int) -> torch.Tensor:
    """Invert :func:`space_to_depth`: (B, C f^3, X, Y, Z) -> (B, C, X f, Y f, Z f).

    Examples
    --------
    >>> image = torch.rand(1, 2, 4, 6, 8)
    >>> torch.equal(depth_to_space(space_to_depth(image, 2), 2), image)
    True
    """
    b, c, x, y, z = features.shape
    f = factor
    cubes = features.reshape(b, c // f**3, f, f, f, x, y, z)
    return cubes.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // f**3, x * f, y * f, z * f)


class Pointwise(nn.Linear):
    """A 1 x 1 x 1 convolution as a matrix product, which stays fast for one image on a processor."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, C_in, *spatial) to (B, C_out, *spatial)."""
        return super().forward(features.movedim(1, -1)).movedim(-1, 1)


class LabelConditioned(nn.Module):
    """What networks share that compute a trunk once per image and a last layer for each asked label.

    A cell is a cube of :attr:`stem` voxels a side; subclasses give :meth:`trunk` and :meth:`cell_logits`.
    """

    n_labels: int
    stem: int
    features: int
    stage_channels: tuple[int, ...]

    @property
    def divisor(self) -> int:
        """What each side of the image must be divisible by."""
        raise NotImplementedError

    def stages(self, image: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Give the encoder's features, finest stage first.

        Parameters
        ----------
        image
            (B, 1, *spatial) in [0, 1].
        count
            How many stages; all when not given.

        Returns
        -------
        list of torch.Tensor
            (B, stage_channels[s], *spatial / (stem 2^s)) of each stage s.
        """
        raise NotImplementedError

    def trunk(self, image: torch.Tensor) -> torch.Tensor:
        """Compute what all labels share: (B, 1, *spatial) -> (B, features, *spatial / stem)."""
        raise NotImplementedError

    def cell_logits(
        self, cells: torch.Tensor, conditions: torch.Tensor, where: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Apply the last layer of each asked label to some cells of the trunk.

        Parameters
        ----------
        cells
            (N, features), cells taken from the trunk's output.
        conditions
            (L, n_labels) one-hot rows.
        where
            (N,) places of those cells in C order; all cells when not given.

        Returns
        -------
        torch.Tensor
            Logits, (N, stem ** 3, L): the cube of voxels of each cell, C order.
        """
        raise NotImplementedError

    def label_logits(self, trunk: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """Apply the last layer of each asked label to a trunk output.

        Parameters
        ----------
        trunk
            (1, features, *spatial / stem).
        conditions
            (L, n_labels) one-hot rows.

        Returns
        -------
        torch.Tensor
            Logits, (1, L, *spatial).
        """
        logits = self.cell_logits(trunk[0].movedim(0, -1).reshape(-1, self.features), conditions)
        return depth_to_space(logits.permute(2, 1, 0).reshape(1, -1, *trunk.shape[2:]), self.stem)

    def forward(self, image: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """Segment the asked labels.

        Parameters
        ----------
        image
            (B, 1, *spatial) in [0, 1], sides divisible by :attr:`divisor`.
        conditions
            (L, n_labels) one-hot rows.

        Returns
        -------
        torch.Tensor
            Logits, (B, L, *spatial).
        """
        return torch.cat([self.label_logits(one[None], conditions) for one in self.trunk(image)])


class HeadConditionedUNet(LabelConditioned):
    """U-Net trunk with a hypernetwork that makes the last layer from the asked label.

    Cubes of ``stem`` voxels a side become channels at the entrance, and the last layer gives one logit for
    each voxel of the cube, so all arithmetic happens on a grid ``stem`` times as coarse as image and result.

    Parameters
    ----------
    n_labels
        Number of conditions.
    channels
        Channels of each level of the trunk; the first is also what the label-specific last layer reads.
    stem
        Side of the cubes in voxels.
    """

    def __init__(self, n_labels: int, channels: Sequence[int] = (32, 48, 96, 128), stem: int = 2) -> None:
        super().__init__()
        self.n_labels, self.stem, self.features = n_labels, stem, channels[0]
        self.stage_channels = tuple(channels)
        self.down = nn.ModuleList()
        before = stem**3
        for c in channels:
            self.down.append(nn.Sequential(ConvBlock(before, c), ConvBlock(c, c)))
            before = c
        self.lift = nn.ModuleList()
        self.up = nn.ModuleList()
        for deep, c in zip(list(channels)[:0:-1], list(channels)[-2::-1], strict=True):
            self.lift.append(Pointwise(deep, c))
            self.up.append(nn.Sequential(ConvBlock(c, c), ConvBlock(c, c)))
        self.conditioner = Conditioner(n_labels, [stem**3 * (self.features + 1)])
        made = self.conditioner.outputs[0]
        assert isinstance(made, nn.Linear)
        with torch.no_grad():
            made.bias[-(stem**3) :] = -2.0

    @property
    def divisor(self) -> int:
        """What each side of the image must be divisible by."""
        return int(self.stem * 2 ** (len(self.down) - 1))

    def stages(self, image: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Give the encoder's features, finest stage first."""
        x = space_to_depth(image, self.stem).contiguous(memory_format=torch.channels_last_3d)
        found = []
        for level, block in enumerate(self.down[:count]):
            x = block(x if level == 0 else F.max_pool3d(x, 2))
            found.append(x)
        return found

    def trunk(self, image: torch.Tensor) -> torch.Tensor:
        """Compute what all labels share: (B, 1, *spatial) -> (B, features, *spatial / stem)."""
        skips = self.stages(image)
        x = skips[-1]
        for lift, block, skip in zip(self.lift, self.up, skips[-2::-1], strict=True):
            x = block(F.interpolate(lift(x), scale_factor=2, mode="nearest") + skip)
        return x

    def cell_logits(
        self, cells: torch.Tensor, conditions: torch.Tensor, where: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Give the logits of the asked labels at some cells; their places do not matter here."""
        made = self.conditioner(conditions)[0]
        size = self.stem**3
        matrices = made[:, :-size].reshape(len(made), self.features, size)
        weights = matrices.permute(1, 2, 0).reshape(self.features, -1)
        return torch.addmm(made[:, -size:].T.reshape(-1), cells, weights).reshape(len(cells), size, len(made))
