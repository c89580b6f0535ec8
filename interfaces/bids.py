"""Files put into a BIDS derivative data set, named by entities and complete from the start.

The sink takes the place of niworkflows' because that one lists TemplateFlow's whole cache when it is
imported (about five seconds of computing, and a folder in the user's home) and writes under the final name
directly. Its inputs are called the same.
"""

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    DynamicTraitedSpec,
    File,
    InputMultiObject,
    OutputMultiObject,
    SimpleInterface,
    Str,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.io import add_traits

ENTITIES = (
    "subject", "session", "acquisition", "ceagent", "reconstruction", "run", "echo", "part",
    "from", "to", "mode", "space", "cohort", "segmentation", "resolution", "label", "desc",
    "datatype", "suffix", "extension",
)  # fmt: skip
"""Entities that names of derivatives are made of (PyBIDS' words)."""

_STEM = (
    "sub-{subject}[/ses-{session}]/{datatype<anat>|anat}/sub-{subject}[_ses-{session}][_acq-{acquisition}]"
    "[_ce-{ceagent}][_rec-{reconstruction}][_run-{run}][_echo-{echo}][_part-{part}]"
)
_SPACE = (
    "[_space-{space}][_cohort-{cohort}][_seg-{segmentation}][_res-{resolution}][_label-{label}][_desc-{desc}]"
)
_FIGURE = "sub-{subject}/{datatype<figures>}/" + _STEM.split("/")[-1]

PATTERNS = (
    _STEM
    + _SPACE
    + "_{suffix<T1w|T2w|FLAIR|PDw|mask|dseg|probseg>}{extension<.nii|.nii.gz|.json|.tsv>|.nii.gz}",
    _STEM
    + "_from-{from}_to-{to}_mode-{mode<image|points>|image}[_desc-{desc}]"
    + "_{suffix<xfm>|xfm}{extension<.txt|.h5|.tsv|.json|.nii.gz>}",
    _STEM + _SPACE + "_{suffix<topology>}{extension<.nii.gz|.json|.tsv>|.nii.gz}",
    _STEM + "[_desc-{desc}]_{suffix<quality>}{extension<.json>}",
    _FIGURE + _SPACE + "_{suffix<T1w|mask|dseg|xfm|quality>}{extension<.svg|.html|.png|.json|.tsv>|.svg}",
)
"""Where each kind of derivative goes, as PyBIDS path patterns."""


class _DerivativesDataSinkInputSpec(DynamicTraitedSpec, BaseInterfaceInputSpec):
    base_directory = Directory(mandatory=True, desc="root of the derivatives; made if it does not exist")
    in_file = InputMultiObject(File(exists=True), mandatory=True, desc="what is stored")
    source_file = File(mandatory=True, desc="raw image inside its data set; its entities name the files")
    meta_dict = traits.Dict(Str, desc="fields of the sidecar; those given to the constructor win")


class _DerivativesDataSinkOutputSpec(TraitedSpec):
    out_file = OutputMultiObject(File(exists=True), desc="the files under their final names")
    out_meta = OutputMultiObject(File(exists=True), desc="their sidecars; undefined without any field")


class DerivativesDataSink(SimpleInterface):
    """Name files by BIDS entities, write them and their sidecars; each is complete or not there.

    Entities come from ``source_file`` and are overridden by those given here, one of which may be a list as
    long as ``in_file``. All other keywords become fields of the sidecar. A file that is there already with
    the same content is left alone, so that its time stamp stays.

    Parameters
    ----------
    **inputs
        Inputs, entities (see :data:`ENTITIES`) and fields of the sidecar.

    Raises
    ------
    OutputError
        If a file cannot be written.
    ValueError
        If no file name has these entities, or their number differs from that of the files.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> mask = folder / "found.nii.gz"
    >>> _ = mask.write_bytes(b"")
    >>> sink = DerivativesDataSink(
    ...     base_directory=folder / "out", source_file="/data/sub-01/anat/sub-01_run-02_T1w.nii.gz",
    ...     in_file=mask, desc="brain", suffix="mask", Type="Brain",
    ... )
    >>> stored = sink.run().outputs
    >>> Path(stored.out_file).relative_to(folder).as_posix()
    'out/sub-01/anat/sub-01_run-02_desc-brain_mask.nii.gz'
    >>> json.loads(Path(stored.out_meta).read_text())
    {'Type': 'Brain'}
    """

    input_spec = _DerivativesDataSinkInputSpec
    output_spec = _DerivativesDataSinkOutputSpec
    _always_run = True

    def __init__(self, **inputs: Any) -> None:
        static = set(self.input_spec.class_editable_traits())
        entities = {key: inputs.pop(key) for key in ENTITIES if key in inputs}
        self._metadata = {
            key: inputs.pop(key) for key in set(inputs) - static - {"from_file", "resource_monitor"}
        }
        super().__init__(**inputs)
        add_traits(self.inputs, sorted(ENTITIES))
        for key, value in entities.items():
            setattr(self.inputs, key, value)

    def _run_interface(self, runtime: Any) -> Any:
        base = Path(self.inputs.base_directory).absolute()
        names = self.names()
        given = self.inputs.meta_dict if isdefined(self.inputs.meta_dict) else {}
        metadata = {**given, **self._metadata}
        sidecar_text = json.dumps(metadata, indent=2, sort_keys=True) + "\n"
        files, sidecars = [], []
        for source, name in zip(self.inputs.in_file, names, strict=True):
            target = base / name
            if metadata:
                sidecar = target.with_name(target.name.split(".", 1)[0] + ".json")
                place_bytes(sidecar_text.encode(), sidecar)
                sidecars.append(str(sidecar))
            place_bytes(Path(source).read_bytes(), target)
            files.append(str(target))
        self._results["out_file"] = files
        if sidecars:
            self._results["out_meta"] = sidecars
        return runtime

    def names(self) -> list[str]:
        """Paths of the stored files relative to the root; ``in_file`` need not be set.

        Raises
        ------
        ValueError
            If no file name has these entities, or their number differs from that of the files.
        """
        entities = {
            key: getattr(self.inputs, key) for key in ENTITIES if isdefined(getattr(self.inputs, key))
        }
        in_files = self.inputs.in_file if isdefined(self.inputs.in_file) else None
        if in_files and "extension" not in entities:
            entities["extension"] = "".join(Path(in_files[0]).suffixes[-2:])
        lists = {key: value for key, value in entities.items() if isinstance(value, (list, tuple))}
        count = len(next(iter(lists.values()))) if lists else 1
        if len(lists) > 1 or (in_files and len(in_files) != count):
            raise ValueError(f"{len(in_files or [])} files for the entities {lists or entities}")
        return [
            derivative_name(
                self.inputs.source_file, **{**entities, **{key: values[i] for key, values in lists.items()}}
            )
            for i in range(count)
        ]


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
        Entities of the derivative (see :data:`ENTITIES`) that override the source's.

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
    from bids.layout import parse_file_entities
    from bids.layout.writing import build_path
    from niworkflows.utils.bids import relative_to_root

    found = parse_file_entities(str(relative_to_root(source_file)), config=["bids", "derivatives"])
    made = {**found, "extension": ".nii.gz", **entities}
    path = build_path({key: made[key] for key in ENTITIES if key in made}, list(PATTERNS))
    if not path:
        raise ValueError(f"no file name has the entities {made}")
    return str(path)
