"""Unified multimodal masked diffusion: understand, draw, edit and interleave text and pictures."""

__version__ = "0.1.0"
