"""What the app says and does with bad input: message, exit code, and the fate of the other participants.

python -m benchmarks.bad_input --out benchmarks/results/bad_input.md
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nb
import numpy as np

from hyperprep.models.weights import find_weights

QUICK = ["--refine", "none", "--lambda", "0.5", "--nprocs", "2", "--offline"]


def run(*words: str | Path) -> tuple[int, str]:
    """Run the app: exit code, and all it said."""
    done = subprocess.run(
        [sys.executable, "-m", "hyperprep.bidsapp", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def save(path: Path, data: np.ndarray) -> None:
    """Write an image with voxels of 1 mm."""
    nb.Nifti1Image(data, np.eye(4)).to_filename(path)


def spoil(good: Path) -> dict[str, Callable[[Path], None]]:
    """Ways to spoil a scan, by the label of the participant that gets it."""
    image = nb.Nifti1Image.from_filename(good)
    data = np.asarray(image.dataobj, dtype=np.float32)
    raw = good.read_bytes()
    return {
        "truncated": lambda p: p.write_bytes(raw[: len(raw) // 2]) and None,
        "nan": lambda p: save(p, np.full(data.shape, np.nan, np.float32)),
        "fourD": lambda p: save(p, np.stack([data, data, data], -1)),
        "twoD": lambda p: save(p, data[:, :, data.shape[2] // 2]),
        "empty": lambda p: p.write_bytes(b"") and None,
        "constant": lambda p: save(p, np.full(data.shape, 7, np.float32)),
        "text": lambda p: p.write_bytes(gzip.compress(b"this is no image")) and None,
    }


def one_line(text: str, *clues: str) -> str:
    """Pick the line of a message that holds one of the clues, shortened to be shown in a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines.sort(key=lambda line: "participants; failed:" in line)
    found = next((line for clue in clues for line in lines if clue.lower() in line.lower()), "")
    return (found or (lines[-1] if lines else "(silent)")).replace("|", "/")[:400]


def scans(folder: Path, good: str) -> Iterator[list[str]]:
    """One data set with a good participant and one for each kind of bad scan."""
    data = folder / "scans"
    source = folder / "demo"
    for name in ("dataset_description.json", "README", "README.md"):
        if (source / name).is_file():
            data.mkdir(exist_ok=True)
            shutil.copy(source / name, data / name)
    shutil.copytree(source / f"sub-{good}", data / f"sub-{good}")
    scan = next((source / f"sub-{good}").rglob("*_T1w.nii.gz"))
    ways = spoil(scan)
    for label, way in ways.items():
        anat = data / f"sub-{label}" / "anat"
        anat.mkdir(parents=True)
        way(anat / f"sub-{label}_T1w.nii.gz")
    (data / "sub-nothing" / "anat").mkdir(parents=True)
    shutil.copy(scan, data / "sub-nothing" / "anat" / "sub-nothing_T2w.nii.gz")
    out = folder / "out-scans"
    code, said = run(data, out, "participant", "-w", folder / "w", "--skip-bids-validation", *QUICK)
    fate = "finished" if list((out / f"sub-{good}").rglob("*_quality.json")) else "NOT FINISHED"
    for label in (*ways, "nothing"):
        report = "report says so" if (out / f"sub-{label}.html").exists() else "no report"
        rest = [p for p in out.rglob(f"sub-{label}_*") if p.suffix != ".svg" and "logs" not in p.parts]
        yield [
            "scan: no T1w" if label == "nothing" else f"scan: {label}",
            one_line(said, f"sub-{label}"),
            str(code),
            f"sub-{good} {fate}; {report}; {len(rest)} other files of sub-{label}",
        ]


def starts(folder: Path, good: str) -> Iterator[list[str]]:
    """Try what stops a run at its start: nobody is processed."""
    data, out = folder / "demo", folder / "out-starts"
    base = [data, out, "participant", "-w", folder / "w2", "--participant-label", good, *QUICK]
    weights = folder / "weights"
    weights.mkdir()
    for name in ("segment", "locate", "hypermorph"):
        content = bytearray(find_weights(name).path.read_bytes())
        content[-1] ^= 1
        (weights / f"{name}.safetensors").write_bytes(content)
    shutil.copy(find_weights("segment").path.parent / "manifest.json", weights / "manifest.json")
    hidden = folder / "hidden"
    hidden.mkdir()
    shutil.copy(weights / "manifest.json", hidden / "manifest.json")
    blocked = folder / "blocked"
    blocked.write_text("a file, not a folder")
    cases: dict[str, tuple[list[str | Path], str]] = {
        "missing weights": ([*base, "--weights-dir", hidden], "weight"),
        "wrong weights digest": ([*base, "--weights-dir", weights], "sha256"),
        "output cannot be written": ([data, blocked / "out", *base[2:]], "blocked"),
        "unknown participant": ([*base, "--participant-label", "nobody"], "nobody"),
        "unknown template": ([*base, "--template", "MNI152NLin99"], "MNI152NLin99"),
        "unknown label": ([*base, "--labels", "hypocampus"], "hypocampus"),
        "impossible lambda": ([*base, "--lambda", "1.5"], "1.5"),
        "absent GPU asked for": ([*base, "--device", "cuda"], "cuda"),
        "output is the input": ([data, data, *base[2:]], "input"),
    }
    for name, (words, clue) in cases.items():
        code, said = run(*words)
        written = out.exists() and any(out.rglob("*.nii.gz"))
        fate = "IMAGES WERE WRITTEN" if written else "nothing was processed or written"
        yield [name, one_line(said, clue), str(code), fate]


def killed(folder: Path, good: str) -> Iterator[list[str]]:
    """Kill a run with SIGKILL in its middle, look for half-written files, start it again."""
    out, work = folder / "out-killed", folder / "w3"
    words = [folder / "demo", out, "participant", "-w", work, "--participant-label", good, *QUICK]
    process = subprocess.Popen(
        [sys.executable, "-m", "hyperprep.bidsapp", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not list(work.rglob("result_prealign.pklz")):
        time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    bad = []
    for path in (p for p in out.rglob("*.nii.gz") if not p.name.startswith(".")):
        try:
            np.asarray(nb.Nifti1Image.from_filename(path).dataobj)
        except Exception as error:
            bad.append(f"{path.name}: {error}")
    before = {p: p.stat().st_mtime_ns for p in work.rglob("result_*.pklz")}
    code, said = run(*words)
    again = [p.parent.name for p, t in before.items() if p.stat().st_mtime_ns != t]
    done = "finished" if list((out / f"sub-{good}").rglob("*_quality.json")) else "NOT FINISHED"
    yield [
        "SIGKILL in mid-run, started again",
        one_line(said, "processed"),
        f"-9, then {code}",
        f"after the kill {len(bad)} unreadable images; {len(before)} steps were done, {len(again)} of them "
        f"ran again; sub-{good} {done}",
    ]


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = ["| case | message | exit code | fate |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        subprocess.run([sys.executable, "-m", "hyperprep.bidsapp.demo", str(folder / "demo")], check=True)
        single = [p for p in sorted((folder / "demo").glob("sub-*")) if (p / "anat").is_dir()]
        good = single[0].name.removeprefix("sub-")
        for part in (starts, killed, scans):
            for row in part(folder, good):
                lines.append("| " + " | ".join(cell.replace(scratch, "") for cell in row) + " |")
                print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
