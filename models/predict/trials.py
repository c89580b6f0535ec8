"""Registrations of one pair at different lambdas, each computed once, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from hyperprep.models.nets.hypermorph import HyperMorph
from hyperprep.models.predict.pair import BrainPair
from hyperprep.models.predict.tune import Search, climb_lambda, largest_keeping, search_lambda

MAX_SD_LOG_JACOBIAN = 0.35
"""Registrations whose sd of log |J| exceeds this are not chosen."""

SIMILARITY_KEPT = 0.98
"""With labels, lambda keeps at least this share of the similarity that lambda 0.25 reaches; without, it is
the largest that keeps this share of the highest."""

REFERENCE_LAMBDA = 0.25

MAX_FOLDING_PERCENT = 0.1

SearchKind = Literal["bounded", "gradient"]


class Trials:
    """What the network makes of one pair, by lambda.

    Parameters
    ----------
    network
        Registration network.
    pair
        The two brains on its grid.
    regions
        Names of ``pair.groups`` whose overlap counts; all labels together when empty.
    symmetric
        Average the velocities of both directions; the network then runs twice for each lambda.
    others
        The network's hyperparameters after lambda, scaled to [0, 1]; they stay as they are.
    """

    def __init__(
        self,
        network: HyperMorph,
        pair: BrainPair,
        regions: Sequence[str] = (),
        *,
        symmetric: bool = False,
        others: Sequence[float] = (),
    ) -> None:
        self.network, self.pair, self.symmetric = network, pair, symmetric
        self.others = tuple(others)
        self.targets = [f"dice_{name}" for name in regions] or ["dice_all"]
        self._velocity: dict[float, torch.Tensor] = {}
        self._row: dict[float, dict[str, Any]] = {}
        self._slopes: set[float] = set()

    def aimed_at(self, regions: Sequence[str] = (), *, by_labels: bool = True) -> Trials:
        """Give trials of the same pair with another aim, which share what has been computed.

        Parameters
        ----------
        regions
            Names of ``pair.groups`` whose overlap counts; all labels together when empty.
        by_labels
            Whether overlap decides; else similarity and regularity do, as for a pair without labels.
        """
        pair = self.pair if by_labels else self.pair.without_labels()
        other = Trials(self.network, pair, regions, symmetric=self.symmetric, others=self.others)
        other._velocity, other._row = self._velocity, self._row
        return other

    @property
    def evaluations(self) -> int:
        """How often the network has run."""
        return len(self._velocity) * (2 if self.symmetric else 1)

    @property
    def gradients(self) -> int:
        """How often a derivative went back through the network; one costs about two of its runs."""
        return len(self._slopes) * (2 if self.symmetric else 1)

    def velocity(self, lam: float) -> torch.Tensor:
        """Give the network's velocity (1, 3, *coarse) at this lambda."""
        if lam not in self._velocity:
            self._velocity[lam] = self._run(torch.tensor([lam], device=self.pair.fixed.device))
        return self._velocity[lam]

    def _run(self, lam: torch.Tensor) -> torch.Tensor:
        value = torch.cat([lam, lam.new_tensor(self.others)])
        velocity = self.network(self.pair.fixed, self.pair.moving, value)
        if self.symmetric:
            velocity = (velocity - self.network(self.pair.moving, self.pair.fixed, value)) / 2
        return velocity

    def row(self, lam: float) -> dict[str, Any]:
        """Measure the registration at this lambda: one row of the curve."""
        if lam not in self._row:
            self._row[lam] = {"lam": lam, **self.pair.measure(self.velocity(lam))}
        return self._row[lam]

    def score(self, lam: float) -> float:
        """Say how good this lambda is: overlap of the labels, else similarity, with regularity bounded.

        Labels may only choose among registrations that also fit the images: segmentations that resemble
        the template's more than the brain's would otherwise ask for no deformation at all.
        """
        return float(self._worth(self.row(lam), self._similarity_wanted()))

    def score_and_slope(self, lam: float) -> tuple[float, float]:
        """Give the score of a lambda and its derivative by lambda (HyperMorph section 3.2).

        The derivative goes back through warp, integration, primary network and hypernetwork.
        """
        with torch.enable_grad():
            value = torch.tensor([lam], device=self.pair.fixed.device, requires_grad=True)
            velocity = self._run(value)
            figures = self.pair.figures(velocity)
            self._velocity[lam] = velocity.detach()
            self._row[lam] = {
                "lam": lam,
                **{name: float(figure.detach()) for name, figure in figures.items()},
            }
            score = self._worth(figures, self._similarity_wanted())
            slope = torch.autograd.grad(score, value)[0]
        self._slopes.add(lam)
        return float(score.detach()), float(slope)

    def _similarity_wanted(self) -> float:
        """Least similarity that costs nothing, where labels choose."""
        if not self.pair.numbers:
            return 0.0
        with torch.no_grad():
            return SIMILARITY_KEPT * float(self.row(REFERENCE_LAMBDA)["similarity"])

    def _worth(self, row: Mapping[str, Any], similarity_wanted: float) -> Any:
        """Give the score of one row's figures, floats or scalars that can be differentiated."""
        excess = max(0.0, row["sd_log_jacobian"] - MAX_SD_LOG_JACOBIAN)
        excess += max(0.0, row["folding_percent"] - MAX_FOLDING_PERCENT)
        if not self.pair.numbers:
            return row["similarity"] - 10 * excess
        lost = max(0.0, similarity_wanted - row["similarity"])
        present = [row[name] for name in self.targets if name in row] or [row["dice_all"]]
        return sum(present) / len(present) - 4 * lost - 10 * excess

    def search(self, kind: SearchKind = "bounded") -> Search:
        """Search lambda in [0, 1], by values alone or along the derivative.

        With labels, for the highest score. Without, for the largest lambda that keeps
        :data:`SIMILARITY_KEPT` of the highest similarity: similarity alone asks for hardly any regularity,
        and the overlap of labels that nobody gave then suffers (benchmarks/results/tuning.md).
        """
        fine = 7 if self.pair.numbers else 3
        gradient = kind == "gradient"
        top = climb_lambda(self.score_and_slope) if gradient else search_lambda(self.score, fine=fine)
        return top if self.pair.numbers else largest_keeping(self.score, top, SIMILARITY_KEPT)

    def choose(self, kind: SearchKind = "bounded") -> float:
        """Give the lambda that :meth:`search` finds."""
        return self.search(kind).best

    def curve(self, chosen: float) -> list[dict[str, Any]]:
        """Give all rows in order of lambda, the chosen one marked."""
        return [{**self._row[lam], "chosen": int(lam == chosen)} for lam in sorted(self._row)]
