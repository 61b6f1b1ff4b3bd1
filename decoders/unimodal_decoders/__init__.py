"""Picture codes to pixels: `pixel_decoder` is the face, `flow` the samplers, `distillation` what makes the turbo one."""
