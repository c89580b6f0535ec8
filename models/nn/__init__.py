"""Layers: feature-wise modulation, hypernetworks, warping and integration."""
