"""Which scans of a dataset have masks of regions in a derivative, and which regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hyperprep.bidsapp.named_files import NamedFile, images_of
from hyperprep.exceptions import HyperPrepError, NoInputError, ScanError, UsageError
from hyperprep.models.spatial.checks import open_image
from hyperprep.models.spatial.images import read_dseg, read_scan
from hyperprep.models.spatial.labels import fold
from hyperprep.models.spatial.own_regions import own_name
from hyperprep.models.spatial.region_examples import MaskSource, RegionExample, read_masks

_OF_MASKS = frozenset({"label", "desc", "seg", "atlas", "hemi"})
"""Entities that tell masks of one scan apart, and not scans."""

_NATIVE = ("orig", "individual")
"""Spaces, beside the suffix of the scan, that are the scan's own."""

_EXAMPLE = "sub-01/anat/sub-01_label-Claustrum_mask.nii.gz"


def find_region_examples(
    bids_dir: Path,
    masks_dir: Path,
    *,
    suffix: str = "T1w",
    regions: Sequence[str] = (),
    participants: Sequence[str] = (),
) -> list[RegionExample]:
    """Find scans with masks of regions; a scan may have any subset of them.

    A mask is a file ``..._label-NAME_mask`` (or ``desc-NAME``) for one region, or a ``..._dseg`` with its
    table of ``index`` and ``name``, of which the numbers that occur count. Its scan is the image of the same
    participant, session, run and space, in the derivative or in the dataset. ``desc-brain`` masks are left
    out.

    Parameters
    ----------
    bids_dir
        The dataset.
    masks_dir
        The derivative with the masks.
    suffix
        Of the scans.
    regions
        Only these, by the names in file names or tables; all when empty.
    participants
        Only these, without ``sub-``; all when empty.

    Returns
    -------
    list of RegionExample
        One for each scan, by name.

    Raises
    ------
    NoInputError
        If there is no mask, or no scan for one.
    ScanError
        If a segmentation cannot be read.
    UsageError
        If a region or participant asked for has no mask, a region has two, or a segmentation no table.
    """
    files = images_of(masks_dir)
    masks = [f for f in files if f.is_mask() and f.desc != "brain" and (f.suffix == "dseg" or _name_of(f))]
    if participants:
        without = set(participants) - {str(f.entities.get("sub")) for f in masks}
        if without:
            raise UsageError(f"No mask of a region of sub-{', sub-'.join(sorted(without))} in {masks_dir}.")
        masks = [f for f in masks if f.entities.get("sub") in participants]
    if not masks:
        raise NoInputError(
            f"{masks_dir} has no mask of a region. Put one file for each region there, such as {_EXAMPLE}, "
            "or a ..._dseg.nii.gz with a table of its numbers (index, name) in ..._dseg.tsv."
        )
    whose = sorted({str(mask.entities.get("sub")) for mask in masks})
    scans = [f for f in (*files, *images_of(bids_dir, whose)) if f.suffix == suffix]
    asked = {fold(name) for region in regions for name in (region, own_name(region))}
    held: dict[Path, dict[str, MaskSource]] = {}
    participant_of: dict[Path, str] = {}
    spelled: dict[str, str] = {}
    untold: list[UsageError] = []
    for mask in masks:
        try:
            sources = _regions_in(mask, masks_dir)
        except UsageError as error:
            untold.append(error)
            continue
        for name in sources:
            spelled.setdefault(fold(name), name)
        wanted = {name: source for name, source in sources.items() if not asked or fold(name) in asked}
        if not wanted:
            continue
        scan = _scan_of(mask, scans, suffix)
        participant_of[scan.path] = str(scan.entities["sub"])
        for name, source in wanted.items():
            _add(held.setdefault(scan.path, {}), spelled[fold(name)], source, scan.path)
    missing = [r for r in regions if not {fold(r), fold(own_name(r))} & spelled.keys()]
    if untold and (missing or not regions):
        raise untold[0]
    if missing:
        known = sorted(spelled.values())
        raise UsageError(
            f"No mask of {', '.join(missing)} in {masks_dir}. There are masks of {', '.join(known[:40])}"
            f"{' and more' if len(known) > 40 else ''}."
        )
    if not held:
        raise UsageError(
            f"No number of a segmentation in {masks_dir} stands in its table, so no region has a name. Add "
            "the numbers to the table (index, name)."
        )
    return [
        RegionExample(path.name.split(".", 1)[0].rpartition("_")[0], participant_of[path], path, found)
        for path, found in sorted(held.items())
    ]


def _add(held: dict[str, MaskSource], name: str, source: MaskSource, scan: Path) -> None:
    if name in held:
        raise UsageError(
            f"{scan.name} has {name} twice: in {held[name].path} and {source.path}. Keep one, or choose "
            "regions with --regions."
        )
    held[name] = source


def check_region_examples(examples: Sequence[RegionExample]) -> None:
    """Read every scan and mask once.

    Raises
    ------
    ScanError
        With everything that cannot be used, a line each.
    """
    problems = []
    for example in examples:
        try:
            for _ in read_masks(example, read_scan(example.image)):
                pass
        except HyperPrepError as error:
            problems.append(str(error))
    if problems:
        raise ScanError("\n".join(problems))


def _name_of(mask: NamedFile) -> str:
    """Give the name of the region of a mask file; empty where its name tells none."""
    name = own_name(mask.entities.get("label") or mask.desc or "")
    return own_name(_sided(mask, name)) if name else ""


def _sided(mask: NamedFile, name: str) -> str:
    """Put the side that a file's name tells before the name of a region.

    Raises
    ------
    UsageError
        If it is neither left nor right.
    """
    told = mask.entities.get("hemi")
    if told is None:
        return name
    side = {"L": "Left-", "R": "Right-"}.get(told.upper())
    if side is None:
        raise UsageError(f"{mask.path}: hemi-{told} is no side. Write hemi-L or hemi-R.")
    return name if fold(name).startswith(fold(side)) else side + name


def _regions_in(mask: NamedFile, root: Path) -> dict[str, MaskSource]:
    """Give the regions of a mask or segmentation by name.

    Raises
    ------
    ScanError
        If the image cannot be read.
    UsageError
        If the table of a segmentation is missing, damaged, or has one name for two numbers that occur.
    """
    if mask.suffix == "mask":
        return {_name_of(mask): MaskSource(mask.path)}
    names = _table_of(mask, root)
    numbers = np.unique(np.asanyarray(read_dseg(mask.path).dataobj))
    found: dict[str, MaskSource] = {}
    for number in numbers[numbers > 0].tolist():
        if number in names:
            name = own_name(_sided(mask, names[number]))
            if name in found:
                raise UsageError(
                    f"The table of {mask.path} calls {found[name].number} and {number} alike, {name}: give "
                    "each number a name of its own."
                )
            found[name] = MaskSource(mask.path, number)
    return found


def _table_of(dseg: NamedFile, root: Path) -> dict[int, str]:
    """Find the table of a segmentation: the nearest TSV whose entities are among its own (inheritance)."""
    folder = dseg.path.parent
    while True:
        for table in sorted(folder.glob("*dseg.tsv"), key=lambda p: -len(p.name)):
            named = NamedFile.of(table)
            if named.suffix == "dseg" and named.entities.items() <= dict(dseg.entities).items():
                return _read_table(table)
        if folder in (root, folder.parent):
            raise UsageError(
                f"{dseg.path} has no table that names its numbers. Put {dseg.path.name.split('.', 1)[0]}.tsv "
                "with the columns index and name beside it, or dseg.tsv at the root of the derivative."
            )
        folder = folder.parent


def _read_table(table: Path) -> dict[int, str]:
    """Read a table of numbers and names.

    Raises
    ------
    UsageError
        If it cannot be read, lacks a column, or a number is none or there twice.
    """
    import pandas as pd

    try:
        rows = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{table} cannot be read as a table ({error}). Save it as TSV in UTF-8.") from error
    if not {"index", "name"} <= set(rows.columns):
        raise UsageError(f"{table} must have the columns index and name; it has {', '.join(rows.columns)}.")
    found: dict[int, str] = {}
    for number, name in zip(rows["index"].str.strip(), rows["name"], strict=True):
        if not number.isdecimal() or int(number) in found or not own_name(name):
            raise UsageError(
                f"{table}: every line needs a whole number of its own and a name with letters; there is "
                f"{number!r} with {name!r}."
            )
        found[int(number)] = name
    return found


def _scan_of(mask: NamedFile, scans: Sequence[NamedFile], suffix: str) -> NamedFile:
    """Find the scan that a mask was drawn on: nothing in the names contradicts, and the grids are alike."""

    def place(file: NamedFile) -> dict[str, str]:
        told = {key: value for key, value in file.entities.items() if key not in _OF_MASKS}
        return {k: v for k, v in told.items() if k != "space" or v not in (*_NATIVE, suffix)}

    wanted = place(mask)
    same = [scan for scan in scans if place(scan) == wanted]
    if not same:
        own = ("sub", "ses", "space")
        near = [s for s in scans if all(place(s).get(key) == wanted.get(key) for key in own)]
        near = [s for s in near if all(wanted.get(k, v) == v for k, v in place(s).items())]
        same = near if len({tuple(sorted(place(s).items())) for s in near}) == 1 else []
    if not same:
        others = ", ".join(s.path.name for s in scans if s.entities.get("sub") == mask.entities.get("sub"))
        raise NoInputError(
            f"{mask.path} has no {suffix} image of its participant, session, run and space, neither in "
            "the derivative nor in the dataset. Of this participant there is: "
            f"{others or 'none'}. Put it there, name the mask like its scan, or take another --suffix."
        )
    if len(same) == 1:
        return same[0]
    shape = _shape_of(mask.path)
    return min(same, key=lambda one: (_shape_of(one.path) != shape, one.desc not in (None, "preproc")))


def _shape_of(path: Path) -> tuple[int, ...]:
    """Give an image's shape by its header; nothing where it cannot be read, which is told later."""
    try:
        return tuple(open_image(path).shape)
    except HyperPrepError:
        return ()
