"""Picture codes to pixels: `pixel_decoder` (the face), `conditioner`, `transformer`, `flow`, `autoencoder`, `distillation`."""
