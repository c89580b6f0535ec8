"""Files put into a BIDS derivative data set, named by entities and complete from the start."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces.base import Directory, File, OutputMultiObject, TraitedSpec
from niworkflows.interfaces.bids import PrepareDerivative, _PrepareDerivativeInputSpec

_STEM = (
    "sub-{subject}[/ses-{session}]/{datatype<anat>|anat}/sub-{subject}[_ses-{session}][_acq-{acquisition}]"
    "[_ce-{ceagent}][_rec-{reconstruction}][_run-{run}][_echo-{echo}][_part-{part}]"
)
_SPACE = (
    "[_space-{space}][_cohort-{cohort}][_seg-{segmentation}][_res-{resolution}][_label-{label}][_desc-{desc}]"
)
_FIGURE = "sub-{subject}/{datatype<figures>}/" + _STEM.split("/")[-1]

PATTERNS = (
    _STEM + _SPACE + "_{suffix<T1w|mask|dseg|probseg>}{extension<.nii|.nii.gz|.json|.tsv>|.nii.gz}",
    _STEM
    + "_from-{from}_to-{to}_mode-{mode<image|points>|image}[_desc-{desc}]"
    + "_{suffix<xfm>|xfm}{extension<.txt|.h5|.tsv|.json>}",
    _STEM + "[_desc-{desc}]_{suffix<quality>}{extension<.json>}",
    _FIGURE + _SPACE + "_{suffix<T1w|mask|dseg|xfm|quality>}{extension<.svg|.html|.png|.json|.tsv>|.svg}",
)
"""Where each kind of derivative goes, as PyBIDS path patterns."""

_ENTITIES = (
    *PrepareDerivative._config_entities_dict,
    {"name": "segmentation", "pattern": "[_/\\\\]+seg-([a-zA-Z0-9+]+)"},
)


class _DerivativesDataSinkInputSpec(_PrepareDerivativeInputSpec):
    base_directory = Directory(mandatory=True, desc="root of the derivatives; made if it does not exist")


class _DerivativesDataSinkOutputSpec(TraitedSpec):
    out_file = OutputMultiObject(File(exists=True), desc="the files under their final names")
    out_meta = OutputMultiObject(File(exists=True), desc="their sidecars")


class DerivativesDataSink(PrepareDerivative):
    """Name files by BIDS entities, write them and their sidecars; each is complete or not there.

    Entities come from ``source_file`` and are overridden by inputs; other keywords become metadata of the
    sidecar, ``None`` among them leaves a field out. Files that are there already with the same content are
    left alone, so that their time stamps stay.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp())
    >>> mask = out / "found.nii.gz"
    >>> _ = mask.write_bytes(b"")
    >>> sink = DerivativesDataSink(
    ...     base_directory=out / "derivatives", source_file="/data/sub-01/anat/sub-01_run-02_T1w.nii.gz",
    ...     in_file=mask, desc="brain", suffix="mask", check_hdr=False, Type="Brain",
    ... )  # doctest: +SKIP
    >>> sink.run().outputs.out_file  # doctest: +SKIP
    '.../derivatives/sub-01/anat/sub-01_run-02_desc-brain_mask.nii.gz'
    """

    input_spec = _DerivativesDataSinkInputSpec
    output_spec = _DerivativesDataSinkOutputSpec
    _always_run = True
    _config_entities = frozenset(entity["name"] for entity in _ENTITIES)
    _config_entities_dict = _ENTITIES
    _file_patterns = PATTERNS
    _standard_spaces: tuple[str, ...] = ()  # else resolutions are looked up in TemplateFlow, even online
    _default_dtypes: Mapping[str, None] = defaultdict(type(None))  # images arrive in their final type

    def _run_interface(self, runtime: Any) -> Any:
        runtime = super()._run_interface(runtime)
        results, base = self._results, Path(self.inputs.base_directory).absolute()
        metadata = {**results["out_meta"], **self._metadata}
        metadata = {key: value for key, value in metadata.items() if value is not None}
        files, sidecars = [], []
        for prepared, relative in zip(results["out_file"], results["out_path"], strict=True):
            target = base / relative
            if metadata:
                sidecar = target.with_name(target.name.split(".", 1)[0] + ".json")
                text = json.dumps(metadata, indent=2, sort_keys=True) + "\n"
                place_bytes(text.encode(), sidecar)
                sidecars.append(str(sidecar))
            place_bytes(Path(prepared).read_bytes(), target)
            files.append(str(target))
        self._results = {"out_file": files, "out_meta": sidecars}
        return runtime


def place_bytes(content: bytes, target: Path) -> bool:
    """Write a file under a temporary name and rename it, unless it is there with this content.

    Parameters
    ----------
    content
        What the file holds.
    target
        Its final name; missing folders are made.

    Returns
    -------
    bool
        Whether the file was written.

    Raises
    ------
    OutputError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "sub-01" / "a.json"
    >>> place_bytes(b"{}", target), place_bytes(b"{}", target)
    (True, False)
    """
    from hyperprep.models.spatial.files import replacing

    if target.is_file() and target.stat().st_size == len(content) and target.read_bytes() == content:
        return False
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return True


def derivative_name(source_file: Path | str, **entities: Any) -> str:
    """Name that :class:`DerivativesDataSink` gives a derivative of a source file.

    Parameters
    ----------
    source_file
        Raw image inside its data set.
    **entities
        Entities of the derivative (``suffix`` and ``extension`` among them) that override the source's; an
        underscore after a name is dropped (``from_``). ``None`` removes an entity.

    Returns
    -------
    str
        Path relative to the root of the derivatives.

    Raises
    ------
    ValueError
        If no pattern takes these entities.

    Examples
    --------
    >>> derivative_name("/in/sub-01/ses-2/anat/sub-01_ses-2_run-02_T1w.nii.gz", desc="brain", suffix="mask")
    'sub-01/ses-2/anat/sub-01_ses-2_run-02_desc-brain_mask.nii.gz'
    """
    from bids.layout import Config, parse_file_entities
    from bids.layout.writing import build_path
    from niworkflows.utils.bids import relative_to_root

    config = Config(name="hyperprep", entities=list(_ENTITIES), default_path_patterns=list(PATTERNS))
    made = parse_file_entities(str(relative_to_root(source_file)), config=["bids", "derivatives", config])
    made.update({"extension": ".nii.gz"})
    made.update({name.rstrip("_"): value for name, value in entities.items()})
    path = build_path({key: value for key, value in made.items() if value is not None}, list(PATTERNS))
    if not path:
        raise ValueError(f"no file name has the entities {made}")
    return str(path)
