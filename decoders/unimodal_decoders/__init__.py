"""Picture codes to pixels: `pixel_decoder` is the face of its parts `conditioner`, `transformer`, `flow`, `autoencoder`."""
