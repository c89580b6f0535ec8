"""The bound against dense linear algebra on grids small enough for it."""

from __future__ import annotations

import math

import pytest
import torch

from hyperprep.models.losses.variational import (
    divergence_constant,
    divergence_map,
    log_pseudo_determinant,
    neighbour_count,
    prior_moments,
    surprise_map,
)

SHAPES = [(3, 4), (2, 3, 4)]


def laplacian(shape: tuple[int, ...]) -> torch.Tensor:
    """The graph Laplacian of a grid, built voxel by voxel."""
    index = torch.arange(math.prod(shape)).view(shape)
    matrix = torch.zeros(index.numel(), index.numel(), dtype=torch.float64)
    for axis, size in enumerate(shape):
        for place in range(size - 1):
            pairs = zip(
                index.select(axis, place).flatten(), index.select(axis, place + 1).flatten(), strict=True
            )
            for a, b in pairs:
                matrix[a, a] += 1
                matrix[b, b] += 1
                matrix[a, b] -= 1
                matrix[b, a] -= 1
    return matrix


def belief(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(1, len(shape), *shape, generator=generator, dtype=torch.float64) + 0.3
    return mean, torch.randn(mean.shape, generator=generator, dtype=torch.float64) - 1


@pytest.mark.parametrize("shape", SHAPES)
def test_divergence_is_that_of_the_dense_gaussians(shape):
    mean, log_variance = belief(shape)
    alpha, beta, n = 0.7, 2.5, math.prod(shape)
    precision = alpha * laplacian(shape) + beta / n**2 * torch.ones(n, n, dtype=torch.float64)
    prior = torch.distributions.MultivariateNormal(
        torch.zeros(n, dtype=torch.float64), precision_matrix=precision
    )
    expected = sum(
        torch.distributions.kl_divergence(
            torch.distributions.MultivariateNormal(
                mean[0, d].flatten(), torch.diag(log_variance[0, d].exp().flatten())
            ),
            prior,
        )
        for d in range(len(shape))
    )
    found = divergence_map(mean, log_variance, alpha, beta).sum() + divergence_constant(shape, alpha, beta)
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_prior_has_the_laplacians_eigenvalues(shape):
    dense = laplacian(shape)
    eigenvalues = torch.linalg.eigvalsh(dense)
    assert log_pseudo_determinant(shape) == pytest.approx(float(eigenvalues[1:].log().sum()), rel=1e-9)
    assert torch.equal(neighbour_count(shape, dense).flatten(), dense.diagonal())


@pytest.mark.parametrize("shape", SHAPES)
def test_no_other_prior_has_a_smaller_divergence_than_the_analytic_one(shape):
    mean, log_variance = belief(shape)
    alpha, beta = (1 / prior_moments(mean, log_variance)).tolist()

    def divergence(a: float, b: float) -> float:
        return float(divergence_map(mean, log_variance, a, b).sum()) + divergence_constant(shape, a, b)

    least = divergence(alpha, beta)
    assert all(
        divergence(alpha * a, beta * b) > least
        for a in (0.8, 1, 1.25)
        for b in (0.8, 1, 1.25)
        if a * b != 1 or a != 1
    )


def test_moments_of_a_batch_are_means_over_its_members():
    mean, log_variance = (torch.cat(pair) for pair in zip(belief((3, 4)), belief((3, 4)), strict=True))
    mean[1] *= 3
    each = torch.stack([prior_moments(mean[i : i + 1], log_variance[i : i + 1]) for i in range(2)])
    assert torch.allclose(prior_moments(mean, log_variance), each.mean(0))


def test_surprise_is_the_normal_density():
    difference, log_variance = torch.randn(1, 3, 4, 5), torch.tensor([-1.0, 0.0, 2.0])
    density = torch.distributions.Normal(0.0, (log_variance / 2).exp().view(1, 3, 1, 1))
    expected = -density.log_prob(difference).sum(1, keepdim=True)
    assert torch.allclose(surprise_map(difference, log_variance), expected, atol=1e-5)
