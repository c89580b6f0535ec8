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
from hyperprep.bidsapp.layout import read_filters
from hyperprep.bidsapp.memory import check_plugin
from hyperprep.bidsapp.participants import available_participants, choose_participants
from hyperprep.bidsapp.places import check_locations, check_writable
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
    """

    participants: tuple[str, ...]
    template: Template = field(default_factory=Template)
    output_spaces: tuple[OutputSpace, ...] = ()
    weights_sha256: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    few_shot: tuple[FewShotTask, ...] = ()
    plugin: tuple[str, Mapping[str, Any]] | None = None
    verdict: Verdict = field(default_factory=Verdict)


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
    problems.attempt(check_labels, settings.labels)
    problems.attempt(check_lambda_regions, settings)
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
        weights_sha256=digests or {},
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


def check_labels(labels: Sequence[str]) -> None:
    """Check that every region asked for is known.

    Raises
    ------
    UsageError
        Naming near matches.
    """
    from hyperprep.models.spatial.labels import resolve_labels

    try:
        resolve_labels(labels)
    except UsageError as error:
        raise UsageError(f"--labels: {error}") from error


def check_lambda_regions(settings: Settings) -> None:
    """Check that the regions that choose lambda are known, and asked for to some effect.

    Raises
    ------
    UsageError
        When lambda is given, or a region is unknown.
    """
    from hyperprep.models.spatial.labels import resolve_labels

    if not settings.lambda_regions:
        return
    if settings.lam is not None:
        raise UsageError(
            f"--lambda-regions has no effect with --lambda {settings.lam:g}: leave one of them out."
        )
    try:
        resolve_labels(settings.lambda_regions)
    except UsageError as error:
        raise UsageError(f"--lambda-regions: {error}") from error


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
    from hyperprep.models.weights.resolver import MANIFEST

    if weights_dir is not None and not (weights_dir / MANIFEST).is_file():
        raise WeightsError(
            f"--weights-dir {weights_dir} has no {MANIFEST}, so nothing in it would be used; give the "
            "folder that the weights were exported to"
        )
    problems = _Problems()
    found = {
        name: problems.attempt(lambda n: find_weights(n, weights_dir=weights_dir), name) for name in SHIPPED
    }
    problems.stop_if_any()
    return {name: entry.sha256 for name, entry in found.items() if entry is not None}
