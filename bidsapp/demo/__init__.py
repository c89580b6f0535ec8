"""Demo data: a small BIDS dataset with known ground truth, made from the template that nilearn bundles."""

from hyperprep.bidsapp.demo.dataset import write_demo

__all__ = ["write_demo"]
