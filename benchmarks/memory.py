"""Peak memory of every step of the pipeline on one head scanned at several voxel sizes, and its growth.

Each node of the real graph runs in a process of its own, whose largest resident memory is read. The line
through the sizes gives the GB that a step needs whatever the scan, and the bytes that each voxel adds:
the constants of ``workflows/memory.py``.

python -m benchmarks.memory --spacings 1.0 0.7 --out benchmarks/results/memory.md
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.engine.utils import topological_sort
from nipype.pipeline.plugins.base import PluginBase

from benchmarks.peak import peak_gb
from hyperprep.bidsapp.demo.dataset import write_demo
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import read_scan, write_image
from hyperprep.models.spatial.transforms import resample
from hyperprep.workflows.run import init_run_wf
from hyperprep.workflows.settings import AnatSettings, Scan, Template

FIELD_OF_VIEW_MM = (180.0, 256.0, 256.0)


def _run_alone(node: Any, pipe: Any) -> None:
    node.run()
    pipe.send(peak_gb())


class OneProcessEach(PluginBase):
    """Nipype plugin that runs one node after the other, each in a fresh process, and notes its peak (GB)."""

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self.peak: dict[str, float] = {}

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Run the graph."""
        context = mp.get_context("spawn")
        for node in topological_sort(graph)[0]:
            node.config = config
            if node.run_without_submitting or isinstance(node.interface, IdentityInterface):
                node.run(updatehash=updatehash)
                continue
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_run_alone, args=(node, there))
            process.start()
            there.close()
            self.peak[node.fullname] = here.recv()
            process.join()
            print(f"{self.peak[node.fullname]:6.2f} GB  {node.fullname}", flush=True)


def scan_at(source: Path, spacing: float, folder: Path) -> Path:
    """Write a head on an isotropic grid of some voxel size over a field of view of usual size."""
    image = read_scan(source)
    centre = image.affine @ np.array([*(np.array(image.shape) - 1) / 2, 1])
    x, y, z = (round(extent / spacing) for extent in FIELD_OF_VIEW_MM)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = centre[:3] - spacing * (np.array([x, y, z]) - 1) / 2
    made = resample(image, Grid((x, y, z), affine), [np.eye(4)])
    data = np.asarray(made.dataobj)
    label = f"{spacing:g}".replace(".", "p")
    path = folder / "bids" / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    return write_image(nb.Nifti1Image(np.clip(data, 0, None).astype(np.int16), affine), path)


def measure(scan: Path, folder: Path, **options: Any) -> dict[str, float]:
    """Peak (GB) of each step; the largest where a step occurs several times."""
    label = scan.name.split("_")[0].removeprefix("sub-")
    workflow = init_run_wf(
        participants={label: [Scan(scan)]},
        template=Template(),
        settings=AnatSettings(bids_dir=folder / "bids", output_dir=folder / "out", **options),
        base_dir=folder / "work",
    )
    plugin = OneProcessEach()
    workflow.run(plugin=plugin)
    steps: dict[str, float] = defaultdict(float)
    for name, peak in plugin.peak.items():
        part = "template: " if ".template_wf." in name else ""
        step = part + name.rsplit(".", 1)[-1]
        steps[step] = max(steps[step], peak)
    return steps


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spacings", type=float, nargs="+", default=[1.0, 0.7])
    parser.add_argument("--scan", type=Path, help="head to take (default: one of the demo data set)")
    parser.add_argument("--quick", action="store_true", help="lambda given, no refinement")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    options: dict[str, Any] = {"lam": 0.3, "refine": "none"} if args.quick else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if args.scan is None:
            write_demo(folder / "demo")
            args.scan = sorted((folder / "demo").rglob("*_T1w.nii.gz"))[0]
        found, voxels = {}, {}
        for spacing in args.spacings:
            scan = scan_at(args.scan, spacing, folder)
            voxels[spacing] = int(np.prod(nb.Nifti1Image.from_filename(scan).shape))
            found[spacing] = measure(scan, folder, **options)
    heads = [f"{spacing:g} mm ({voxels[spacing] / 1e6:.1f} M voxels)" for spacing in args.spacings]
    lines = [f"| step | {' | '.join(f'GB at {h}' for h in heads)} | GB at 0 voxels | bytes per voxel |"]
    lines.append("|---" * (len(heads) + 3) + "|")
    millions = np.array([voxels[spacing] for spacing in args.spacings]) / 1e6
    for step in sorted(set().union(*found.values())):
        peaks = [found[spacing].get(step, float("nan")) for spacing in args.spacings]
        slope, base = np.polyfit(millions, peaks, 1) if len(peaks) > 1 else (float("nan"), float("nan"))
        cells = [f"{peak:.2f}" for peak in peaks]
        lines.append(f"| {step} | {' | '.join(cells)} | {base:.2f} | {1e3 * slope:.0f} |")
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
