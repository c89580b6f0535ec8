"""Training label maps in the template frame, and how their labels become targets and tissues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hyperprep.exceptions import NoInputError
from hyperprep.models.synth.structures import MERGED, TISSUE_GROUPS, mirrored

ORIGIN_MM = (-96.0, -132.0, -78.0)
"""First voxel centre of the template-frame maps (RAS mm); their spacing is 1 mm."""


@dataclass(frozen=True)
class LabelMaps:
    """Label maps resampled into the template frame at 1 mm.

    Attributes
    ----------
    maps
        (n, 192, 224, 192) uint8, index of each voxel's label.
    brain
        (n, 192, 224, 192) uint8 0/1, closed brain mask of each map.
    numbers
        FreeSurfer number of each index; >= 500 is extracerebral tissue.
    """

    maps: torch.Tensor
    brain: torch.Tensor
    numbers: tuple[int, ...]

    def lookup(self, structures: tuple[int, ...]) -> torch.Tensor:
        """Make the table from label index to 1 + position in ``structures``, 0 where in none of them.

        Structures in ``MERGED`` count as the one that they are merged into.

        Examples
        --------
        >>> LabelMaps(torch.empty(0), torch.empty(0), (0, 2, 17, 25, 41)).lookup((17, 41, 2)).tolist()
        [0, 3, 1, 3, 2]
        """
        order = {number: place + 1 for place, number in enumerate(structures)}
        return torch.tensor([order.get(MERGED.get(n, n), 0) for n in self.numbers], dtype=torch.uint8)

    def mirror_table(self) -> torch.Tensor:
        """Make the table from label index to the index of the structure in the other hemisphere.

        Examples
        --------
        >>> LabelMaps(torch.empty(0), torch.empty(0), (0, 2, 16, 41)).mirror_table().tolist()
        [0, 3, 2, 1]
        """
        place = {number: i for i, number in enumerate(self.numbers)}
        return torch.tensor(
            [place.get(mirrored(n), i) for i, n in enumerate(self.numbers)], dtype=torch.uint8
        )

    def groups(self) -> torch.Tensor:
        """Give each label index its intensity group.

        Background is 0; the groups of ``TISSUE_GROUPS`` follow, then one group per extracerebral label.

        Examples
        --------
        >>> LabelMaps(torch.empty(0), torch.empty(0), (0, 2, 41, 3, 500, 501)).groups().tolist()
        [0, 1, 1, 2, 16, 17]
        """
        names = list(TISSUE_GROUPS)
        table, extra = [], len(names) + 1
        for number in self.numbers:
            group = next((names.index(k) + 1 for k, v in TISSUE_GROUPS.items() if number in v), 0)
            if number >= 500:
                group, extra = extra, extra + 1
            table.append(group)
        return torch.tensor(table, dtype=torch.long)


def load_maps(path: str | Path) -> LabelMaps:
    """Load label maps prepared by ``hyperprep.models.train.prepare``.

    Raises
    ------
    NoInputError
        When the file is not there.
    """
    path = Path(path)
    if not path.exists():
        raise NoInputError(
            f"No prepared label maps at {path}. Make them with: "
            f"python -m hyperprep.models.train prepare LABELMAPS.npz {path}"
        )
    with np.load(path) as stored:
        return LabelMaps(
            maps=torch.from_numpy(stored["maps"]),
            brain=torch.from_numpy(np.unpackbits(stored["brain"], axis=-1)[..., : stored["maps"].shape[-1]]),
            numbers=tuple(int(n) for n in stored["numbers"]),
        )


def structure_ranges(
    labels: np.ndarray, numbers: Sequence[int], origin: Sequence[float]
) -> dict[int, np.ndarray]:
    """Measure where structures lie: the middle 90 % of their voxels along each axis.

    Parameters
    ----------
    labels
        (X, Y, Z) positions in ``numbers`` plus 1, 0 for none; 1 mm voxels.
    numbers
        FreeSurfer numbers.
    origin
        First voxel centre, RAS mm.

    Returns
    -------
    dict
        FreeSurfer number to (3, 2) mm; structures that are absent are left out.

    Examples
    --------
    >>> structure_ranges(np.pad(np.ones((3, 1, 1), int), 2), (17,), (0.0, 0.0, 0.0))[17][1].tolist()
    [2.0, 2.0]
    """
    counts, rows = [], len(numbers) + 1
    for axis, n in enumerate(labels.shape):
        place = np.arange(n).reshape([-1 if a == axis else 1 for a in range(3)])
        flat = (labels.astype(np.int32) * n + place).ravel()
        counts.append(np.bincount(flat, minlength=rows * n)[: rows * n].reshape(rows, n))
    out = {}
    for row, number in enumerate(numbers, start=1):
        if counts[0][row].sum() == 0:
            continue
        ends = []
        for axis in range(3):
            share = np.cumsum(counts[axis][row]) / counts[axis][row].sum()
            low, high = np.searchsorted(share, (0.05, 0.95))
            ends.append([low + origin[axis], high + origin[axis]])
        out[number] = np.array(ends, float)
    return out
