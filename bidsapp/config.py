"""The settings of one run: one frozen dataclass, made by the parser and handed down."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_TEMPLATE = "MNI152NLin2009aSym"


@dataclass(frozen=True)
class OutputSpace:
    """A space, and the voxel size in it, in which resampled images are written.

    Parameters
    ----------
    name
        Name of the space, as in the BIDS entity ``space-``.
    resolution_mm
        Isotropic voxel size in mm (``res-`` entity); ``None`` is the template's own grid.

    Examples
    --------
    >>> str(OutputSpace("MNI152NLin2009aSym", 2))
    'MNI152NLin2009aSym:res-2'
    """

    name: str
    resolution_mm: int | None = None

    def __str__(self) -> str:
        return self.name if self.resolution_mm is None else f"{self.name}:res-{self.resolution_mm}"


def available_cpus() -> int:
    """Count the CPU cores this process may use (its affinity, not the machine's total)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def new_run_uuid() -> str:
    """Name a run by its time (UTC) and a random part, sortable and unique.

    Examples
    --------
    >>> len(new_run_uuid())
    24
    """
    return f"{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}_{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a user can decide about a run.

    The defaults stand here and nowhere else; the parser only overrides them.

    Parameters
    ----------
    bids_dir
        Root of the BIDS data set that is read; never written to.
    output_dir
        Root of the derivatives that are written.
    analysis_level
        ``"participant"`` or ``"group"``.
    participant_label, session_label
        Labels without ``sub-``/``ses-``; empty means all.
    bids_filter_file
        JSON with PyBIDS filters under the key ``t1w``.
    subject_anatomical_reference
        ``"sessionwise"`` processes every session, ``"first-lex"`` only the participant's first T1w image in
        lexicographic order.
    bids_database_dir
        Folder of a PyBIDS database of the whole data set; made there if it is new or empty. ``None`` looks
        only at the chosen participants' folders.
    derivatives
        Pairs (name, folder) of derivative data sets whose brain masks and segmentations are used.
    skip_bids_validation
        Do not run the BIDS validator over what is going to be read.
    nprocs
        Most threads that run at the same time, over all nodes.
    omp_nthreads
        Most threads of one node; ``None`` is the smaller of `nprocs` and 8.
    mem_gb
        Memory the scheduler may fill, in GB; ``None`` is 90 % of what this process may use.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    use_plugin
        YAML or JSON file that names a Nipype plugin and its arguments.
    output_spaces
        Spaces of the resampled outputs; empty means the template's own grid.
    template
        TemplateFlow name, or path of an image.
    lam
        Regularisation weight lambda in [0, 1]; ``None`` tunes it for each scan.
    lambda_regions
        Regions whose overlap that search maximises; empty means all structures.
    refine
        ``"ncc"`` refines the registration on each scan, ``"none"`` does not.
    symmetric
        Average the registrations of both directions.
    longitudinal
        Also register every later session of a participant to the first one.
    topology
        Map where each scan and the template have no match.
    topology_mask
        Register again with those places left out; asks for the maps too.
    controls
        Group level: text file with the labels of the participants who are controls of those maps.
    labels
        Regions to segment: names, FreeSurfer numbers, super-regions or ``all``.
    uncertainty
        Map how uncertain the segmentation is at each voxel.
    probsegs
        Store the probability map of each of those regions.
    few_shot
        Pairs (name, folder): tasks given by examples, done to every scan.
    skull_strip_t1w
        ``"auto"``, ``"skip"`` or ``"force"``.
    weights_dir
        Folder that is searched for network weights before the installed ones.
    offline
        Refuse every network connection of this process and of its workers.
    work_dir
        Folder of intermediate results; a run with the same one resumes.
    clean_workdir
        Delete the intermediate results of the chosen participants before the run.
    config_file
        TOML file the settings were read from, if any.
    write_graph
        Write the graph of the workflow to ``logs/``.
    stop_on_first_crash
        End the whole run at the first node that fails.
    reports_only
        Only write the reports again, from outputs that exist.
    boilerplate_only
        Only write the methods text with citations.
    prefetch
        Only fetch what a run with these settings needs from the network.
    resource_monitor
        Record memory and CPU load of every node.
    verbose
        0 for progress, 1 for Nipype's messages too, 2 for everything.
    run_uuid
        Name of this run; log folders are called after it.
    """

    bids_dir: Path
    output_dir: Path
    analysis_level: str
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    subject_anatomical_reference: str = "sessionwise"
    bids_database_dir: Path | None = None
    derivatives: tuple[tuple[str, Path], ...] = ()
    skip_bids_validation: bool = False
    nprocs: int = field(default_factory=available_cpus)
    omp_nthreads: int | None = None
    mem_gb: float | None = None
    device: str = "auto"
    use_plugin: Path | None = None
    output_spaces: tuple[OutputSpace, ...] = ()
    template: str = DEFAULT_TEMPLATE
    lam: float | None = None
    lambda_regions: tuple[str, ...] = ()
    refine: str = "ncc"
    symmetric: bool = False
    longitudinal: bool = False
    topology: bool = False
    topology_mask: bool = False
    controls: Path | None = None
    labels: tuple[str, ...] = ("all",)
    uncertainty: bool = False
    probsegs: bool = False
    few_shot: tuple[tuple[str, Path], ...] = ()
    skull_strip_t1w: str = "auto"
    weights_dir: Path | None = None
    offline: bool = False
    work_dir: Path = field(default_factory=lambda: Path("work").absolute())
    clean_workdir: bool = False
    config_file: Path | None = None
    write_graph: bool = False
    stop_on_first_crash: bool = False
    reports_only: bool = False
    boilerplate_only: bool = False
    prefetch: bool = False
    resource_monitor: bool = False
    verbose: int = 0
    run_uuid: str = field(default_factory=new_run_uuid)

    @property
    def threads_per_node(self) -> int:
        """Threads that one node may use."""
        return self.omp_nthreads if self.omp_nthreads is not None else min(self.nprocs, 8)

    def as_mapping(self) -> Mapping[str, Any]:
        """Return the settings as plain values (strings, numbers, lists) for logs and reports.

        Examples
        --------
        >>> s = Settings(bids_dir=Path("/in"), output_dir=Path("/out"), analysis_level="participant")
        >>> s.as_mapping()["bids_dir"], s.as_mapping()["lam"]
        ('/in', 'auto')
        """
        plain = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        plain["lam"] = "auto" if self.lam is None else self.lam
        plain["omp_nthreads"] = self.threads_per_node
        return plain

    def as_options(self) -> dict[str, Any]:
        """Return what was chosen as entries of a configuration file; defaults are left out.

        Examples
        --------
        >>> s = Settings(bids_dir=Path("/in"), output_dir=Path("/out"), analysis_level="participant",
        ...              lam=0.5, mem_gb=8.0)
        >>> s.as_options()
        {'mem': '8.0GB', 'lambda': 0.5}
        """
        fixed: dict[str, Any] = {
            "bids_dir": self.bids_dir,
            "output_dir": self.output_dir,
            "analysis_level": self.analysis_level,
        }
        defaults = Settings(**fixed)
        options: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name in {*fixed, "run_uuid", "config_file"} or value == getattr(defaults, f.name):
                continue
            options[_OPTION_NAMES.get(f.name, f.name.replace("_", "-"))] = _plain(value)
        if "mem" in options:
            options["mem"] = f"{options['mem']}GB"
        for key, pairs in (("derivatives", self.derivatives), ("few-shot", self.few_shot)):
            if key in options:
                options[key] = [f"{name}={path}" for name, path in pairs]
        return options


#: Options that are not called after their setting.
_OPTION_NAMES = {"lam": "lambda", "mem_gb": "mem"}


def _plain(value: Any) -> Any:
    """Turn paths and output spaces into text and tuples into lists."""
    if isinstance(value, (Path, OutputSpace)):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
