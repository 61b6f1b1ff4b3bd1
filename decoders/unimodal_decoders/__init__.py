"""Picture codes to pixels: `pixel_decoder` is the face, `flow` the samplers, `distillation` makes the turbo one."""
