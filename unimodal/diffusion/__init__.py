"""Block diffusion: the `objective` that trains, the `sampler` and its parts; text and pictures are unknown here."""
