"""How much memory each step needs: what it needs anyway, and what every voxel of its images adds.

``benchmarks/memory.py`` measures both: it runs every node of the graph alone in a process on one head at
several voxel sizes. A step that runs a network on a grid of its own needs a fixed amount while the network
runs, and grows with the scan while results are brought onto the scan's grid; the sum of both is reserved.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A head scan of 1 mm voxels, where the number of voxels is not known.
SCAN_VOXELS = 176 * 256 * 256
#: The template that nilearn carries, at 1 mm.
TEMPLATE_VOXELS = 197 * 233 * 189


@dataclass(frozen=True)
class Need:
    """Memory of one step.

    Parameters
    ----------
    fixed_gb
        GB whatever the images are, the libraries' own included.
    bytes_per_voxel
        Bytes that each voxel of the images adds.
    """

    fixed_gb: float
    bytes_per_voxel: float


NEEDS: dict[str, Need] = {
    "load": Need(0.5, 15),
    "conform": Need(0.5, 14),
    "n4": Need(0.5, 32),
    "locate": Need(1.8, 7),
    "brain_mask": Need(0.5, 20),  # not measured: as strip, and the label image of the connected parts
    "prealign": Need(0.5, 19),
    "segment": Need(1.7, 30),  # 8 of them not measured: the intensities of the scan itself
    "measure": Need(0.5, 14),
    "strip": Need(0.5, 18),
    "few_shot": Need(1.7, 12),  # not measured: the scan counts for two, and each example for one
    "register": Need(1.9, 22),
    "register_symmetric": Need(2.4, 22),  # not measured: five more displacement fields of the template's size
    "resample": Need(0.5, 18),
    "volume_change": Need(0.5, 130),  # not measured: fields of three components, Jacobian of nine
    "grid": Need(0.5, 18),
    "quality": Need(0.4, 44),
    "contours": Need(0.5, 28),
    "slider": Need(0.5, 14),
    "alignment": Need(0.4, 20),
    "drawing": Need(0.4, 20),
}
"""By step; the key is the node's name or, where several nodes do the same, what they do."""


def needed_gb(step: str, voxels: int) -> float:
    """Give the memory to reserve for a step.

    Parameters
    ----------
    step
        Key of ``NEEDS``.
    voxels
        Number of voxels of the images the step reads and writes: of the scan, or of scan and reference.

    Returns
    -------
    float
        GB, rounded up to tenths.

    Examples
    --------
    >>> needed_gb("measure", 0)
    0.5
    >>> needed_gb("n4", 200_000_000) > 5
    True
    """
    need = NEEDS[step]
    tenths = 10 * need.fixed_gb + need.bytes_per_voxel * voxels / 1e8
    return -int(-(tenths - 1e-9) // 1) / 10


def grid_voxels(resolution: str | None, template_voxels: int) -> int:
    """Give the number of voxels of a grid over the template, isotropic with so many mm or the template's own.

    Examples
    --------
    >>> grid_voxels("2", TEMPLATE_VOXELS) == TEMPLATE_VOXELS // 8
    True
    """
    return template_voxels if resolution is None else TEMPLATE_VOXELS // int(resolution) ** 3
