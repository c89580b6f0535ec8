"""Topology-change maps beside their baselines.

python -m benchmarks.topology synthetic --maps MAPS --cases 64 --rows rows/ --weights semantic=DIR mse=DIR
python -m benchmarks.topology real --data DATA --rows rows/ --weights semantic=DIR
python -m benchmarks.topology healthy --data DATA --weights semantic=DIR
python -m benchmarks.topology table --rows rows/ --out benchmarks/results/topology.md

``--weights`` takes names of networks and their folders (``DIR/manifest.json``); control statistics beside the
weights give Q. Each (case, method) is a file in ``--rows``: a second run with the same folder continues.
``--quick`` looks at two cases, with an untrained network where no weights are given, to see that all runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from scipy import ndimage

from benchmarks.topology_cases import Case, cases, on_grid
from benchmarks.topology_methods import (
    AfterSyN,
    Ours,
    Scored,
    Starts,
    TemplateToScan,
    anomaly,
    digest_of,
    learn,
    names,
)
from benchmarks.topology_table import table
from hyperprep.models.predict.synthetic_controls import healthy_head, template_brain
from hyperprep.models.spatial.controls import ControlStatistics
from hyperprep.models.spatial.grids import Grid, model_grid
from hyperprep.models.synth.maps import load_maps

BASELINES = ("difference", "li-wyatt", "log-jacobian")
KEPT = 20_000
"""Voxels outside a change that a row keeps, drawn at random; all inside are kept."""

QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0)
"""Where regions are counted: quantiles of a map's values in the healthy brain."""

CLASSES = {
    "cortical surface": (3, 42),
    "ventricles": (4, 43, 14, 15),
    "subcortical": (10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54),
    "white matter": (2, 41),
}


def row_of(score: np.ndarray, truth: np.ndarray, inside: np.ndarray, grid: Grid) -> dict[str, np.ndarray]:
    """Reduce a map to what the table needs: values inside and outside the change, and regions by threshold.

    A region is a connected part of eight voxels or more; it is false where it does not touch the change.

    >>> truth = np.zeros((9, 9, 9), bool)
    >>> truth[2:4, 2:4, 2:4] = True
    >>> score = np.random.default_rng(0).random((9, 9, 9)) + 5 * truth
    >>> row = row_of(score, truth, np.ones_like(truth), Grid((9, 9, 9), np.eye(4)))
    >>> len(row["positive"]), row["hit"].astype(int).tolist()[-2:], row["false"].tolist()[-1]
    (8, [1, 1], 0)
    """
    positive, negative = score[truth & inside], score[~truth & inside]
    rng = np.random.default_rng(0)
    drawn = negative if len(negative) <= KEPT else rng.choice(negative, KEPT, replace=False)
    thresholds = np.quantile(negative, QUANTILES)
    hit, false = [], []
    for threshold in thresholds:
        parts, count = ndimage.label((score > threshold) & inside, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        large = {n for n in range(1, count + 1) if sizes[n] >= 8}
        touched = set(np.unique(parts[truth & inside]).tolist()) & large
        hit.append(bool(touched))
        false.append(len(large - touched))
    return {
        "positive": positive.astype(np.float32),
        "negative": drawn.astype(np.float32),
        "negatives": np.array(len(negative)),
        "thresholds": thresholds,
        "hit": np.array(hit),
        "false": np.array(false),
    }


def measure(
    rows: Path, case: str, method: str, run: Callable[[], Scored], truth: np.ndarray, inside: np.ndarray,
    grid: Grid, about: dict[str, Any], *, timed: bool = True,
) -> None:  # fmt: skip
    """Run a method on a case, unless its rows are there already, made by the same weights."""
    done = _row(rows, case, method)
    if done.exists() and json.loads(done.read_text()).get("weights", "") == about.get("weights", ""):
        return
    score, excess, seconds = run()
    for name, values in (("L", score), ("Q", excess)):
        if values is not None:
            row = row_of(values, truth, inside, grid)
            np.savez_compressed(rows / f"{done.stem}__{name}.npz", **row)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    spent = {"seconds": seconds} if timed else {}
    done.write_text(json.dumps({**about, "method": method, **spent, "memory_gb": memory}))
    print(f"{case} {method}: {seconds:.1f} s", flush=True)


def _row(rows: Path, case: str, method: str) -> Path:
    return rows / f"{case}__{method.replace(' ', '_').replace('/', '_')}.json"


def synthetic(args: argparse.Namespace) -> None:
    """Score synthetic heads with one focal change each."""
    grid = model_grid(2.0)
    maps, template, made_by = load_maps(args.maps), template_brain(), digests(args)
    methods: dict[str, Callable[[nb.Nifti1Image], Scored]] = dict(ours(args, template, grid))
    register = TemplateToScan(template, grid)
    after = [AfterSyN(kind, register) for kind in names(args.methods)]
    methods.update({method.kind: method for method in after})
    if args.vae:
        methods["vae"] = anomaly(args.vae, grid)
    for case in cases(maps, args.cases, spacing=args.spacing):
        truth = on_grid(case.truth, grid)
        inside = on_grid(nb.Nifti1Image((case.scan.get_fdata() > 0).astype(np.uint8), case.scan.affine), grid)
        if not truth.any():
            continue  # too small for the grid on which all are compared
        for name, method in methods.items():
            if (
                method in after
                and method.mean is None
                and not _row(args.rows, f"synthetic-{case.name}", name).exists()
            ):
                learn(after, healthy(maps, args.controls, args.spacing))
            run = _runner(method, case)
            about = {"diameter_mm": case.diameter_mm, "site": case.site, "kind": case.kind}
            about["weights"] = made_by.get(name, "")
            measure(
                args.rows, f"synthetic-{case.name}", name, run, truth, inside, grid, about,
                timed=not args.untimed,
            )  # fmt: skip


def _runner(method: Callable[[nb.Nifti1Image], Scored], case: Case) -> Callable[[], Scored]:
    return lambda: method(case.scan)


def healthy(maps: Any, count: int, spacing: float) -> Iterator[nb.Nifti1Image]:
    """Give healthy heads, for the baselines' means."""
    for number in range(count):
        yield next(iter(healthy_head(maps, np.random.default_rng([1, number]), spacing=spacing)))


def ours(args: argparse.Namespace, template: nb.Nifti1Image, grid: Grid) -> Iterator[tuple[str, Ours]]:
    """Give our networks by name."""
    from hyperprep.models.weights import find_controls, find_weights

    starts = Starts(template, args.device, args.threads)
    for word in args.weights:
        name, _, folder = word.partition("=")
        found = find_controls(find_weights("topology", weights_dir=folder))
        controls = None if found is None else ControlStatistics.load(found)
        yield f"ours {name}", Ours(Path(folder), controls, starts, grid)


def digests(args: argparse.Namespace) -> dict[str, str]:
    """Give what makes the scores of each of our networks, by its name in the table."""
    return {f"ours {name}": digest_of(folder) for name, _, folder in (w.partition("=") for w in args.weights)}


def real(args: argparse.Namespace) -> None:
    """Score session 2 against session 1 of sub-01, with the manual mask of the lesions' change."""
    from benchmarks.topology_real import sessions

    made_by = digests(args)
    for case, name, run, truth, inside, grid in sessions(args):
        about = {"site": "real", "kind": "change", "weights": made_by.get(name, "")}
        measure(args.rows, case, name, run, truth, inside, grid, about, timed=not args.untimed)


def healthy_classes(args: argparse.Namespace) -> None:
    """Print where L_sym between healthy brains is high, by class of structures (the paper's figure 5)."""
    from benchmarks.topology_real import healthy_scores

    lines = ["| network | " + " | ".join(CLASSES) + " |", "|---|" + "---|" * len(CLASSES)]
    for name, values in healthy_scores(args, CLASSES):
        cells = [
            f"{np.median(v):.2f} ({np.quantile(v, 0.25):.2f}-{np.quantile(v, 0.75):.2f})"
            for v in values.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    print("\n".join([*lines, "\nMedian and quartiles of L_sym in nats over all pairs."]))


def untrained(folder: Path) -> str:
    """Export an untrained network that compares images; its figures mean nothing."""
    import tomllib

    import tomli_w
    import torch

    from hyperprep.models.nets.topology import TopologyNetwork
    from hyperprep.models.train import configure
    from hyperprep.models.train.export import export

    run = folder / "run"
    run.mkdir(parents=True)
    config = configure.override(configure.read_config("topology-small"), ["model.features=image"])
    (run / "config.toml").write_text(tomli_w.dumps(config))
    assert tomllib.loads((run / "config.toml").read_text()) == config
    state = TopologyNetwork(3, config["model"]["channels"], config["model"]["norm"]).state_dict()
    torch.save({"average": state, "step": 1, "seconds": 1.0}, run / "model.pt")
    (run / "curve.jsonl").write_text('{"step": 1, "seconds": 1.0, "val_misfit": 0.0}\n')
    export(run, out_dir=folder / "weights")
    return f"untrained={folder / 'weights'}"


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("synthetic", "real", "healthy", "table"))
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=Path, default=Path("runs/topology-rows"))
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=DIR")
    parser.add_argument("--methods", nargs="*", default=list(BASELINES))
    parser.add_argument("--vae", type=Path, help="run folder of benchmarks.topology_vae")
    parser.add_argument("--cases", type=int, default=64)
    parser.add_argument("--controls", type=int, default=12, help="healthy heads for the baselines' means")
    parser.add_argument("--spacing", type=float, default=1.0, help="voxel size of the synthetic heads, mm")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--untimed", action="store_true", help="other jobs run as well: keep no seconds")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.rows.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if args.quick:
            args.cases, args.controls, args.spacing = 2, 1, 2.0
            args.weights = args.weights or [untrained(Path(folder))]
            args.methods = args.methods[:1]
        run = {"synthetic": synthetic, "real": real, "healthy": healthy_classes, "table": table}
        run[args.what](args)


if __name__ == "__main__":
    main()
