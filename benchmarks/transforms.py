"""Compare how ANTs and HyperPrep read the same transform files.

A real scan is put on grids of every orientation, an affine and a smooth displacement field are written as
ITK files in both directions, and ``antsApplyTransforms`` and ``antsApplyTransformsToPoints`` (antspyx) are
compared with our own resampling and point mapping.
Run ``python benchmarks/transforms.py DATA_DIR [--out FILE]``, where ``DATA_DIR/bids/oasis`` holds the scans.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import ants
import nibabel as nb
import numpy as np
import pandas as pd
from nibabel.affines import voxel_sizes
from nibabel.orientations import axcodes2ornt
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import read_scan
from hyperprep.models.spatial.transforms import (
    Chain,
    DisplacementField,
    map_points,
    resample,
    write_transform,
)

FLIP = np.array([-1.0, -1.0, 1.0])
# name: axis codes, voxel size in mm, Euler angles in degrees
GRIDS = {
    "RAS": ("RAS", (3.0, 3.0, 3.0), (0, 0, 0)),
    "LAS": ("LAS", (3.0, 3.0, 3.0), (0, 0, 0)),
    "LPS": ("LPS", (3.0, 3.0, 3.0), (0, 0, 0)),
    "oblique": ("LAS", (3.0, 3.0, 3.0), (20, -15, 35)),
    "anisotropic": ("RPI", (1.5, 1.8, 5.0), (0, 0, 0)),
    "oblique anisotropic": ("ASR", (1.5, 5.0, 2.0), (-10, 25, 5)),
}


def make_grid(codes: str, spacing: tuple[float, ...], angles: tuple[float, ...], center: np.ndarray) -> Grid:
    """Grid of 180 mm along each axis around a centre (RAS mm)."""
    directions = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(axcodes2ornt(codes)):
        directions[int(world), axis] = sign
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ directions * spacing
    shape = np.ceil(180 / np.array(spacing)).astype(int)
    affine[:3, 3] = center - affine[:3, :3] @ (shape - 1) / 2
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def smooth_field(grid: Grid) -> DisplacementField:
    """Smooth random displacements of up to 8 mm."""
    noise = np.random.default_rng(0).normal(size=(*grid.shape, 3))
    smooth = gaussian_filter(noise, (*(15 / grid.spacing), 0))
    return DisplacementField(grid, 8 * smooth / np.abs(smooth).max())


def invert(field: DisplacementField, iterations: int = 30) -> DisplacementField:
    """Inverse on the same grid by fixed-point iteration."""
    points = field.grid.to_world(np.moveaxis(np.indices(field.grid.shape), 0, -1)).reshape(-1, 3)
    inverse = np.zeros_like(points)
    for _ in range(iterations):
        moved = points + inverse
        inverse = moved - field.map_points(moved)
    return DisplacementField(field.grid, inverse.reshape(field.data.shape))


def to_ants(img: nb.Nifti1Image) -> ants.ANTsImage:
    """ANTs image from array and affine."""
    spacing = voxel_sizes(img.affine)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ img.affine
    return ants.from_numpy(
        img.get_fdata(dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )


def compare(moving: nb.Nifti1Image, reference: Grid, chain: Chain, path: Path) -> tuple[float, float]:
    """Largest difference between ANTs and us: points in mm, images as a share of the moving image's range."""
    write_transform(chain, path)
    rng = np.random.default_rng(1)
    points = reference.to_world(rng.uniform(0, np.array(reference.shape) - 1, size=(500, 3)))
    table = pd.DataFrame(points * FLIP, columns=["x", "y", "z"])
    mapped = ants.apply_transforms_to_points(3, table, [str(path)], whichtoinvert=[False])
    theirs = mapped.to_numpy()[:, :3] * FLIP
    ours = resample(moving, reference, chain).get_fdata()
    blank = nb.Nifti1Image(np.zeros(reference.shape, np.float32), reference.affine)
    warped = ants.apply_transforms(
        to_ants(blank), to_ants(moving), [str(path)], interpolator="linear"
    ).numpy()
    return (
        float(np.abs(theirs - map_points(points, chain)).max()),
        float(np.abs(ours - warped).max() / np.ptp(moving.get_fdata())),
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder that holds bids/oasis")
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args()
    scan = read_scan(sorted(options.data.glob("bids/oasis/sub-*/anat/*_T1w.nii.gz"))[0])
    center = Grid.of(scan).center
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (8, -5, 12), degrees=True).as_matrix() * (1.05, 0.93, 1.1)
    affine[:3, 3] = center - affine[:3, :3] @ center + (4, -3, 2)
    lines = [
        "| grid | file | direction | points: largest difference (mm) | images: largest difference / range |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, (codes, spacing, angles) in GRIDS.items():
            grid = make_grid(codes, spacing, angles, center)
            moving = resample(scan, grid, [])
            field = smooth_field(grid)
            chains: dict[tuple[str, str], Chain] = {
                ("affine .txt", "forward"): [affine],
                ("affine .txt", "inverse"): [np.linalg.inv(affine)],
                ("field and affine .h5", "forward"): [field, affine],
                ("field and affine .h5", "inverse"): [np.linalg.inv(affine), invert(field)],
            }
            for (kind, direction), chain in chains.items():
                path = Path(folder) / f"{direction}{kind[-3:] if kind.endswith('.h5') else '.txt'}"
                point, image = compare(moving, grid, chain, path)
                lines.append(f"| {name} | {kind} | {direction} | {point:.1e} | {image:.1e} |")
    table = "\n".join(lines)
    print(table)
    if options.out:
        options.out.write_text(table + "\n")


if __name__ == "__main__":
    main()
