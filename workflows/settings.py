"""What a run is asked to do, as the workflows take it: frozen, made once, handed down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hyperprep.workflows.memory import SCAN_VOXELS, TEMPLATE_VOXELS

#: Name under which the further segmentation is written (``seg-hyperprep_dseg``).
SEGMENTATION_NAME = "hyperprep"

#: Transforms that lead to another session of the same participant, by their names.
TO_SESSION = re.compile(r"_to-(ses[0-9A-Za-z]+|first)T1w_")


@dataclass(frozen=True)
class Scan:
    """One T1-weighted image of one session, and what is known of it beforehand.

    Attributes
    ----------
    t1w : Path
        The raw image, inside its BIDS data set (the derivatives' entities come from this name).
    mask : Path or None
        A brain mask of this very image, from a derivative; any grid.
    mask_uri : str or None
        BIDS URI of that mask (``bids:<name of the data set>:<path>``), for the sidecar of ours.
    dseg : Path or None
        A segmentation of this very image with FreeSurfer numbers, from a derivative; any grid. It takes the
        place of the network's where overlap steers the registration.
    skull_stripped : bool or None
        ``SkullStripped`` of the sidecar; None where the sidecar does not say.
    voxels : int
        Number of voxels of the raw image; what the steps need of memory grows with it.

    Examples
    --------
    >>> Scan(Path("/data/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz")).label
    'sub-01_ses-2'
    """

    t1w: Path
    mask: Path | None = None
    dseg: Path | None = None
    mask_uri: str | None = None
    skull_stripped: bool | None = None
    voxels: int = field(default=SCAN_VOXELS, compare=False, repr=False)

    @property
    def label(self) -> str:
        """The entities of the file name, without suffix and extension."""
        return self.t1w.name.split(".", 1)[0].rsplit("_", 1)[0]

    @property
    def participant(self) -> str:
        """The participant's label, without ``sub-``.

        Examples
        --------
        >>> Scan(Path("sub-01_ses-2_T1w.nii.gz")).participant
        '01'
        """
        return self.label.split("_")[0].removeprefix("sub-")

    @property
    def node_name(self) -> str:
        """The label as Nipype allows it in names of nodes and workflows.

        Examples
        --------
        >>> Scan(Path("sub-01_acq-a_run-2_T1w.nii")).node_name
        'sub_01_acq_a_run_2'
        """
        return "".join(char if char.isalnum() else "_" for char in self.label)

    @property
    def session(self) -> str | None:
        """Label of the session, without ``ses-``; None where the name has none.

        Examples
        --------
        >>> Scan(Path("sub-01_ses-pre_T1w.nii.gz")).session
        'pre'
        """
        found = re.search(r"_ses-([^_]+)_", self.t1w.name)
        return found[1] if found else None

    @property
    def space(self) -> str:
        """What files of other sessions call this very image's space.

        Examples
        --------
        >>> Scan(Path("sub-01_ses-2_run-1_T1w.nii.gz")).space, Scan(Path("sub-01_T1w.nii.gz")).space
        ('ses2T1w', 'firstT1w')
        """
        return f"ses{re.sub(r'[^0-9A-Za-z]', '', self.session)}T1w" if self.session else "firstT1w"


@dataclass(frozen=True)
class Template:
    """The standard brain that everything is brought to; it lies in an MNI-like frame.

    Attributes
    ----------
    name : str
        The ``space-`` label of the derivatives, alphanumeric.
    image : Path or None
        T1-weighted template; None takes the MNI152 template that nilearn carries.
    mask : Path or None
        Its brain mask; None takes the network's (nilearn's template is skull-stripped and has one).
    voxels : int
        Number of voxels of the image; what the steps need of memory grows with it.
    uri : str or None
        What sidecars give as ``SpatialReference``; None makes a BIDS URI from the name.
    """

    name: str = "MNI152NLin2009aSym"
    image: Path | None = None
    mask: Path | None = None
    uri: str | None = None
    voxels: int = field(default=TEMPLATE_VOXELS, compare=False, repr=False)

    @property
    def spatial_reference(self) -> str:
        """The BIDS URI (or URL) that sidecars give as ``SpatialReference``.

        Examples
        --------
        >>> Template().spatial_reference
        'bids:templateflow:tpl-MNI152NLin2009aSym'
        """
        return self.uri or f"bids:templateflow:tpl-{self.name}"


@dataclass(frozen=True)
class OutputSpace:
    """A grid in the template's space on which the results are also written.

    Attributes
    ----------
    resolution : str or None
        The ``res-`` label; None writes no such entity and takes the template's own grid.
    reference : Path or None
        An image whose grid is used; None makes a grid of ``resolution`` mm over the template.
    """

    resolution: str | None = None
    reference: Path | None = None


@dataclass(frozen=True)
class FewShotTask:
    """A task that is given by examples.

    Attributes
    ----------
    name : str
        Alphanumeric; the ``desc-`` label of its results.
    kind : "mask" or "image"
        What it makes.
    inputs, outputs : tuple of Path
        T1w image and output of each example, on one grid.
    masks : tuple of (Path or None)
        Brain mask of each example.
    labels : tuple of str
        Name of each example, such as ``sub-01``.
    suffix : str
        BIDS suffix of the images that it makes.
    """

    name: str
    kind: Literal["mask", "image"]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    labels: tuple[str, ...]
    suffix: str = "T1w"

    def without(self, participant: str) -> FewShotTask:
        """Leave out the examples of a participant: its own answer must not be shown.

        Examples
        --------
        >>> files = (Path("a"), Path("b"))
        >>> task = FewShotTask("x", "mask", files, files, (None, None), ("sub-01", "sub-02_ses-1"))
        >>> task.without("02").labels
        ('sub-01',)
        """
        kept = [i for i, label in enumerate(self.labels) if label.split("_")[0] != f"sub-{participant}"]
        return replace(
            self,
            inputs=tuple(self.inputs[i] for i in kept),
            outputs=tuple(self.outputs[i] for i in kept),
            masks=tuple(self.masks[i] for i in kept),
            labels=tuple(self.labels[i] for i in kept),
        )


@dataclass(frozen=True)
class AnatSettings:
    """How every scan of a run is processed.

    Attributes
    ----------
    bids_dir, output_dir : Path
        Raw data set (for the BIDS URIs of the sources) and root of the derivatives.
    labels : tuple of str
        Structures to segment: names, FreeSurfer numbers, super-regions or ``"all"``.
    uncertainty : bool
        Map the entropy of the segmentation's probabilities.
    probsegs : bool
        Store the probability map of each region asked for.
    lam : float or "auto"
        Regularisation weight of the registration, in [0, 1]; ``"auto"`` searches it per image pair.
    lambda_regions : tuple of str
        Regions whose overlap that search maximises; all structures when empty.
    refine : "ncc" or "none"
        Instance refinement after the network.
    symmetric : bool
        Average the registrations of both directions.
    longitudinal : bool
        Also register every later session of a participant to the first one.
    dof : int
        Degrees of freedom of the prealignment to the template: 6, 7 or 12.
    bias_correct : bool
        N4 bias field correction of the T1w image.
    skull_strip : "auto", "skip" or "force"
        ``auto`` believes the scan's sidecar, ``skip`` takes every scan as skull-stripped,
        ``force`` lets the network find the brain in every scan.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``, already resolved.
    omp_nthreads : int
        Threads of one node.
    weights_dir : Path or None
        Folder searched for weights before the environment and the package.
    weights_sha256 : mapping
        Digest of each network's weights by name (``locate``, ``segment``, ``hypermorph``); enters the
        hash of the nodes, so that other weights make the nodes run again.
    few_shot : tuple of FewShotTask
        Tasks given by examples, done to every scan.
    on_failure : "raise" or "warn"
        What a failed prealignment does to its scan.
    reportlets : bool
        Draw the figures of the report.
    topology : bool
        Map where each scan and the template have no match.
    topology_calibrated : bool
        Control statistics for those maps are there.
    topology_mask : bool
        Register a second time with the places that have no match left out; needs both of the above.
    control_statistics : Path or None
        NPZ of the group level; None takes those beside the weights.
    session_statistics : Path or None
        NPZ of pairs of sessions without change; None leaves their change uncalibrated.
    """

    bids_dir: Path
    output_dir: Path
    labels: tuple[str, ...] = ("all",)
    uncertainty: bool = False
    probsegs: bool = False
    lam: float | Literal["auto"] = "auto"
    lambda_regions: tuple[str, ...] = ()
    refine: Literal["ncc", "none"] = "ncc"
    symmetric: bool = False
    longitudinal: bool = False
    dof: int = 12
    bias_correct: bool = True
    skull_strip: Literal["auto", "skip", "force"] = "auto"
    device: str = "cpu"
    omp_nthreads: int = 1
    weights_dir: Path | None = None
    weights_sha256: Mapping[str, str] = field(default_factory=dict)
    few_shot: tuple[FewShotTask, ...] = ()
    on_failure: Literal["raise", "warn"] = "raise"
    reportlets: bool = True
    topology: bool = False
    topology_calibrated: bool = False
    topology_mask: bool = False
    control_statistics: Path | None = None
    session_statistics: Path | None = None

    @property
    def masks_registration(self) -> bool:
        """Whether scans are registered twice, the second time without places that have no match."""
        return self.topology and self.topology_calibrated and self.topology_mask
