"""HyperPrep: anatomical MRI preprocessing whose settings are inputs of the network."""

__version__ = "0.1.0"
