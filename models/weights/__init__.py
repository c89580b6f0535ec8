"""Weights: where they are looked for, how they are verified, what is known about them."""

from hyperprep.models.weights.resolver import SHIPPED, WeightsEntry, find_controls, find_weights, load_state

__all__ = ["SHIPPED", "WeightsEntry", "find_controls", "find_weights", "load_state"]
