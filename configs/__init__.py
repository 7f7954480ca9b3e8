"""Hydra configs, one folder per subject, mirroring the code."""
