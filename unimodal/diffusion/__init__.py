"""Block diffusion: the `objective` that trains, and the `sampler` with its parts; text and pictures are unknown here."""
