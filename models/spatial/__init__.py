"""Grids, images, transforms, label tables and measures (numpy, nibabel and SimpleITK; no torch)."""
