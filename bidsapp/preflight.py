"""Everything that can be known to go wrong before anything is computed, told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.database import check_database
from hyperprep.bidsapp.datasets import check_dataset, check_derivatives
from hyperprep.bidsapp.few_shot import check_few_shot_weights, find_task
from hyperprep.bidsapp.labels import check_labels, check_lambda_regions
from hyperprep.bidsapp.layout import read_filters
from hyperprep.bidsapp.memory import check_plugin
from hyperprep.bidsapp.participants import available_participants, choose_participants
from hyperprep.bidsapp.places import check_locations, check_weights_dir, check_writable
from hyperprep.bidsapp.resources import device_of_run, read_plugin
from hyperprep.bidsapp.template import check_template, find_template
from hyperprep.bidsapp.validate import Verdict, validate
from hyperprep.exceptions import HyperPrepError, ScanError, UsageError, WeightsError
from hyperprep.workflows.settings import FewShotTask, OutputSpace, Template

#: Names of the space a scan itself lies in; results are always written there.
NATIVE_SPACES = frozenset({"T1w", "anat"})

_T = TypeVar("_T")


class PreflightError(HyperPrepError):
    """Problems that stop a run at its start, all of them.

    Parameters
    ----------
    problems
        At least one; the first decides on the exit code.
    """

    def __init__(self, problems: Sequence[HyperPrepError]) -> None:
        self.problems = tuple({str(problem): problem for problem in problems}.values())
        self.exit_code = self.problems[0].exit_code
        texts = [str(problem) for problem in self.problems]
        if len(texts) > 1:
            texts = [f"{len(texts)} problems were found before the run:", *(f"  - {text}" for text in texts)]
        super().__init__("\n".join(texts))


@dataclass(frozen=True)
class Plan:
    """What the checks found out on the way, for the run to use.

    Parameters
    ----------
    participants
        Labels of the participants to process.
    template
        The standard brain.
    output_spaces
        Grids in the template's space that are written.
    weights_sha256
        Digest of each network's weights by name.
    device
        Device the networks run on; ``auto`` is decided.
    few_shot
        Tasks given by examples, with their files.
    plugin
        Name and arguments of the Nipype plugin asked for; ``None`` is our own.
    verdict
        What the BIDS validator said.
    control_statistics
        Scores of controls that topology-change maps are compared with; ``None`` where there are none.
    session_statistics
        Scores of pairs of sessions without change; ``None`` where there are none.
    """

    participants: tuple[str, ...]
    template: Template = field(default_factory=Template)
    output_spaces: tuple[OutputSpace, ...] = ()
    weights_sha256: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    few_shot: tuple[FewShotTask, ...] = ()
    plugin: tuple[str, Mapping[str, Any]] | None = None
    verdict: Verdict = field(default_factory=Verdict)
    control_statistics: Path | None = None
    session_statistics: Path | None = None


class _Problems:
    """Collects errors instead of stopping at the first."""

    def __init__(self) -> None:
        self.found: list[HyperPrepError] = []

    def attempt(self, check: Callable[..., _T], *args: Any) -> _T | None:
        try:
            return check(*args)
        except HyperPrepError as error:
            self.found.append(error)
            return None

    def stop_if_any(self) -> None:
        if self.found:
            raise PreflightError(self.found)


def preflight(settings: Settings) -> Plan:
    """Check everything that a run needs; takes seconds and writes nothing but a probe file.

    Parameters
    ----------
    settings
        Settings of this run.

    Returns
    -------
    Plan
        What the run needs to know.

    Raises
    ------
    PreflightError
        With every problem that was found.
    """
    problems = _Problems()
    problems.attempt(check_dataset, settings)
    participants = problems.attempt(_participants, settings)
    before = len(problems.found)
    problems.attempt(check_locations, settings)
    if len(problems.found) == before:
        for folder, name in ((settings.output_dir, "output"), (settings.work_dir, "working")):
            problems.attempt(check_writable, folder, name)
    if settings.reports_only:
        problems.stop_if_any()
        return Plan(participants=participants or ())
    problems.attempt(read_filters, settings.bids_filter_file)
    problems.attempt(check_derivatives, settings)
    if settings.bids_dir.is_dir():
        problems.attempt(check_database, settings)
    own = problems.attempt(check_labels, settings.labels, settings.weights_dir)
    problems.attempt(check_lambda_regions, settings)
    problems.attempt(check_controls, settings)
    plugin = problems.attempt(read_plugin, settings.use_plugin)
    problems.attempt(check_plugin, settings, plugin)
    template = problems.attempt(find_template, settings.template)
    checked = problems.attempt(check_template, template) if template else None
    spaces = problems.attempt(choose_spaces, settings, template) if template else ()
    digests = problems.attempt(check_weights, settings.weights_dir)
    if settings.few_shot:
        added = problems.attempt(check_few_shot_weights, settings.weights_dir)
        digests = {**(digests or {}), **(added or {})}
    tasks = [problems.attempt(find_task, name, folder) for name, folder in settings.few_shot]
    topology = (
        problems.attempt(check_topology, settings, template)
        if template and wants_topology(settings)
        else None
    )
    device = problems.attempt(device_of_run, settings.device, plugin)
    verdict = Verdict()
    if participants and not settings.skip_bids_validation:
        verdict = validate(settings.bids_dir, participants)
        if verdict.dataset:
            problems.found.append(_invalid(settings.bids_dir, verdict.dataset))
    problems.stop_if_any()
    return Plan(
        participants=participants or (),
        template=checked or Template(),
        output_spaces=spaces or (),
        weights_sha256={**(digests or {}), **(own or {}), **({"topology": topology[0]} if topology else {})},
        control_statistics=topology[1] if topology else None,
        session_statistics=topology[2] if topology else None,
        device=device or "cpu",
        few_shot=tuple(task for task in tasks if task is not None),
        plugin=plugin,
        verdict=verdict,
    )


def _participants(settings: Settings) -> tuple[str, ...]:
    if not settings.bids_dir.is_dir():
        return ()
    available = available_participants(settings.bids_dir)
    return choose_participants(available, settings.participant_label, settings.bids_dir)


def _invalid(bids_dir: Path, errors: Sequence[str]) -> ScanError:
    listed = "; ".join(errors[:10])
    return ScanError(
        f"the BIDS validator rejects {bids_dir}: {listed}. Mend the data set, or use --skip-bids-validation"
    )


def choose_spaces(settings: Settings, template: Template) -> tuple[OutputSpace, ...]:
    """Turn the output spaces asked for into grids of the template's space.

    Raises
    ------
    UsageError
        If a space is neither the template's nor the scan's own.
    """
    if not settings.output_spaces:
        return (OutputSpace(),)
    foreign = [s.name for s in settings.output_spaces if s.name not in {template.name, *NATIVE_SPACES}]
    if foreign:
        raise UsageError(
            f"--output-spaces {' '.join(foreign)}: results can be written in the space of the template "
            f"({template.name}) and of the scan (T1w); choose another --template for another space"
        )
    sized = [str(s) for s in settings.output_spaces if s.name in NATIVE_SPACES and s.resolution_mm]
    if sized:
        raise UsageError(f"--output-spaces {' '.join(sized)}: the scan's own space keeps the scan's own grid")
    chosen = [s for s in settings.output_spaces if s.name == template.name]
    return tuple(OutputSpace(None if s.resolution_mm is None else str(s.resolution_mm)) for s in chosen)


def check_weights(weights_dir: Path | None) -> Mapping[str, str]:
    """Find the weights of every network and verify them.

    Returns
    -------
    mapping
        sha256 of each file by the network's name.

    Raises
    ------
    WeightsError
        If the folder given holds no weights.
    PreflightError
        If some are missing or damaged; all of them are named.
    """
    from hyperprep.models.weights import SHIPPED, find_weights

    check_weights_dir(weights_dir)
    problems = _Problems()
    found = {
        name: problems.attempt(lambda n: find_weights(n, weights_dir=weights_dir), name) for name in SHIPPED
    }
    problems.stop_if_any()
    return {name: entry.sha256 for name, entry in found.items() if entry is not None}


def wants_topology(settings: Settings) -> bool:
    """Say whether topology-change maps are asked for.

    Examples
    --------
    >>> fixed = {"bids_dir": Path("/in"), "output_dir": Path("/out"), "analysis_level": "participant"}
    >>> wants_topology(Settings(**fixed)), wants_topology(Settings(**fixed, topology_mask=True))
    (False, True)
    """
    return settings.topology or settings.topology_mask


def check_controls(settings: Settings) -> None:
    """Check that control participants are listed where they have an effect.

    Raises
    ------
    UsageError
        If they are given at the participant level.
    """
    if settings.controls is not None:
        raise UsageError(
            "--controls belongs to the group level; the participant level uses the statistics that it makes: "
            "leave it out."
        )


def check_topology(settings: Settings, template: Template) -> tuple[str, Path | None, Path | None]:
    """Find the weights of the topology-change maps, and statistics of controls that belong to them.

    Those of the data set's own controls, which the group level writes, come before those that ship.

    Returns
    -------
    tuple of str and twice Path or None
        sha256 of the weights, the statistics, and with ``--longitudinal`` those of pairs of
        sessions without change.

    Raises
    ------
    WeightsError
        If the weights are missing.
    UsageError
        If the maps shall mask the registration and there are no statistics, or the registration is not
        refined.
    """
    from hyperprep.bidsapp.controls import STATISTICS
    from hyperprep.models.spatial.controls import ControlStatistics
    from hyperprep.models.weights import find_controls, find_weights

    option = "--topology-mask" if settings.topology_mask else "--topology"
    try:
        entry = find_weights("topology", weights_dir=settings.weights_dir)
    except WeightsError as error:
        raise WeightsError(f"{option}: the network of these maps cannot be used. {error}") from error
    own = settings.output_dir / STATISTICS
    found = own if own.is_file() else find_controls(entry)
    known = None if found is None else ControlStatistics.load(found)
    if known is not None and (known.weights_sha256, known.reference) != (entry.sha256, template.name):
        if found == own:
            raise UsageError(
                f"{option}: {own} was made with other weights or another template ({known.reference}). Run "
                "the group level with --controls again, or delete it."
            )
        found = None  # those that ship hold for the default template only
    if settings.topology_mask and found is None:
        raise UsageError(
            "--topology-mask needs statistics of controls: run with --topology, then the group level with "
            "--controls FILE, then this."
        )
    if settings.topology_mask and settings.refine == "none":
        raise UsageError("--topology-mask acts on the refinement: leave --refine none out.")
    pairs = find_controls(entry, "sessions") if settings.longitudinal else None
    if pairs is not None and ControlStatistics.load(pairs).weights_sha256 != entry.sha256:
        raise WeightsError(
            f"{option}: {pairs} was made with other weights than {entry.path}. Make it again: "
            "python -m hyperprep.models.predict.synthetic_controls --maps MAPS --kind sessions."
        )
    return entry.sha256, found, pairs
