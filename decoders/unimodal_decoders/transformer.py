"""The flow transformer: diffusers' `ZImageTransformer2DModel` in the published layout, with a batched forward.

Two streams (latent patches and condition features) are refined apart and then attend to each other in one sequence
(Z-Image, arXiv 2511.22699). The library takes lists of pictures and pads them one by one; `velocity` runs the same
modules on a batch of equal sizes without lists, tables or complex numbers, so that it trains and compiles well.

Letters: B pictures, C latent channels, Y X latent sides, N features, D feature width.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF, ZImageTransformer2DModel
from torch import Tensor, nn

from unimodal_decoders.rotary import RotaryAttention, places, rotation
from unimodal_decoders.weight_files import fill, read_config, read_weights, write_config, write_weights

FILE_NAMES = ("model.safetensors", "decoder_model.safetensors")
PUBLISHED_PREFIX, LIBRARY_PREFIX = "semantic_embedder.", "cap_embedder."
OUR_KEY = "condition_on_grid"
"""Configuration key, false in published checkpoints: condition tokens stand on the picture's grid (`rotary.places`)."""


def build_transformer(config: Mapping[str, Any]) -> ZImageTransformer2DModel:
    """Fresh weights from the library's configuration keys; keys starting with `_` are skipped.

    Raises:
        ValueError: an unknown key, or sizes that do not fit each other.
    """
    known = set(inspect.signature(ZImageTransformer2DModel.__init__).parameters) - {"self"}
    options = {key: value for key, value in config.items() if not key.startswith("_") and key != OUR_KEY}
    if unknown := set(options) - known:
        raise ValueError(f"config: unknown keys {sorted(unknown)}, expected some of {sorted(known)}")
    head_dim, axes_dims = options["dim"] // options["n_heads"], options["axes_dims"]
    if options["dim"] % options["n_heads"] or head_dim != sum(axes_dims) or any(size % 2 for size in axes_dims):
        ratio = f"{options['dim']}/{options['n_heads']}"
        raise ValueError(f"config: axes_dims {axes_dims} must be even and sum to dim / n_heads = {ratio}")
    transformer = ZImageTransformer2DModel(**options)
    setattr(transformer, OUR_KEY, bool(config.get(OUR_KEY, False)))
    for block in blocks(transformer):
        block.attention.set_processor(RotaryAttention())
    return transformer


def load_transformer(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> ZImageTransformer2DModel:
    """Loads a `decoder` or `decoder-turbo` folder; `dtype` None keeps that of the file.

    The condition width is that of the weights: published configurations state another model's. Rotary angles are
    computed for each request, so a stated `axes_lens` that is too short does not matter.

    Raises:
        ValueError: a file is missing, or a tensor is missing, extra or misshapen.
    """
    weights = {_to_library(key): value for key, value in read_weights(folder, FILE_NAMES).items()}
    config = read_config(folder)
    width = weights.get(f"{LIBRARY_PREFIX}1.weight")
    if width is None or width.ndim != 2:
        raise ValueError(f"folder: the weights of {folder} have no matrix {PUBLISHED_PREFIX}1.weight")
    with torch.device("meta"):
        transformer = build_transformer(config | {"cap_feat_dim": width.shape[1]})
    fill(transformer, weights, folder, device, dtype)
    return transformer


def save_transformer(
    transformer: ZImageTransformer2DModel,
    folder: str | Path,
    file_name: str = "decoder_model.safetensors",
) -> None:
    """Writes `config.json` and the weights under their published names."""
    weights = {_to_published(key): value for key, value in transformer.state_dict().items()}
    write_weights(Path(folder) / file_name, weights)
    known = inspect.signature(ZImageTransformer2DModel.__init__).parameters
    config = {key: value for key, value in transformer.config.items() if key in known}
    ours = {OUR_KEY: True} if transformer.condition_on_grid else {}
    write_config(folder, {"_class_name": "ZImageTransformer2DModel"} | config | ours)


def velocity(transformer: ZImageTransformer2DModel, latents: Tensor, timestep: Tensor, features: Tensor) -> Tensor:
    """The predicted velocity x₁ - x₀ of every picture, with gradients; equals the library's own forward.

    Args:
        transformer: from `build_transformer` or `load_transformer`.
        latents: [B, C, Y, X] at time `timestep`, sides multiples of the patch size.
        timestep: [B] in [0, 1], 0 is noise and 1 is data.
        features: [B, N, D] condition.

    Returns:
        [B, C, Y, X] in the weights' type.

    Raises:
        ValueError: a shape does not fit.
    """
    tokens, modulation = trunk(transformer, latents, timestep, features)
    return read_out(transformer, final_layer(transformer), tokens, modulation, latents.shape)


def trunk(
    transformer: ZImageTransformer2DModel, latents: Tensor, timestep: Tensor, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Everything before the output projection: picture tokens [B, Y·X/patch², dim] and the time embedding [B, M]."""
    _check(transformer, latents, timestep, features)
    patch = transformer.all_patch_size[0]
    latents = latents.to(transformer.x_pad_token.dtype)
    modulation = transformer.t_embedder(timestep * transformer.t_scale).to(latents.dtype)

    patches = latents.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # [B, C, y, patch, x, patch]
    rows, columns = patches.shape[2], patches.shape[4]
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    picture = _pad(transformer.all_x_embedder[_patch_key(transformer)](patches), transformer.x_pad_token)
    condition = _pad(transformer.cap_embedder(features.to(latents.dtype)), transformer.cap_pad_token)
    angles = partial(rotation, axes_dims=transformer.axes_dims, theta=transformer.rope_theta, device=latents.device)
    picture_places, condition_places = places(
        rows, columns, features.shape[1], SEQ_MULTI_OF, transformer.condition_on_grid
    )
    picture_rotation, condition_rotation = angles(picture_places), angles(condition_places)

    run = _runner(transformer)
    for block in transformer.noise_refiner:
        picture = run(block, picture, None, picture_rotation, modulation)
    for block in transformer.context_refiner:
        condition = run(block, condition, None, condition_rotation)
    tokens = torch.cat((picture, condition), dim=1)
    joint_rotation = torch.cat((picture_rotation, condition_rotation), dim=1)
    for block in transformer.layers:
        tokens = run(block, tokens, None, joint_rotation, modulation)
    return tokens[:, : rows * columns], modulation


def read_out(
    transformer: ZImageTransformer2DModel, head: nn.Module, tokens: Tensor, modulation: Tensor, shape: torch.Size
) -> Tensor:
    """Picture tokens through an output projection and back into latents of `shape` [B, C, Y, X]."""
    patch = transformer.all_patch_size[0]
    _, channels, height, width = shape
    grid = head(tokens, c=modulation).unflatten(1, (height // patch, width // patch))
    return grid.unflatten(3, (patch, patch, channels)).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def final_layer(transformer: ZImageTransformer2DModel) -> nn.Module:
    """The transformer's output projection."""
    return transformer.all_final_layer[_patch_key(transformer)]


def set_final_layer(transformer: ZImageTransformer2DModel, layer: nn.Module) -> None:
    """Replaces the output projection."""
    transformer.all_final_layer[_patch_key(transformer)] = layer


def blocks(transformer: ZImageTransformer2DModel) -> list[Any]:
    """Every block, refiners first."""
    return [*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers]


def initialise_gates(transformer: ZImageTransformer2DModel, value: float) -> None:
    """Sets the bias of every residual gate, so that tanh(bias) of each branch passes from the first step.

    Fresh gates are near zero: each modulated block is then almost the identity and training starts slowly.
    """
    with torch.no_grad():
        for block in blocks(transformer):
            if block.modulation:
                # Chunks of the modulation: attention scale, attention gate, feed-forward scale, feed-forward gate.
                block.adaLN_modulation[0].bias.view(4, -1)[[1, 3]] = value


def _runner(transformer: ZImageTransformer2DModel) -> Any:
    if transformer.gradient_checkpointing and torch.is_grad_enabled():
        return transformer._gradient_checkpointing_func
    return lambda block, *arguments: block(*arguments)


def _pad(tokens: Tensor, pad_token: Tensor) -> Tensor:
    """Appends the learned pad token up to the next multiple the model was built for; pads are attended to."""
    count = -tokens.shape[1] % SEQ_MULTI_OF
    return torch.cat((tokens, pad_token.to(tokens.dtype).expand(tokens.shape[0], count, -1)), dim=1)


def _patch_key(transformer: ZImageTransformer2DModel) -> str:
    return f"{transformer.all_patch_size[0]}-{transformer.all_f_patch_size[0]}"


def _to_library(key: str) -> str:
    return LIBRARY_PREFIX + key.removeprefix(PUBLISHED_PREFIX) if key.startswith(PUBLISHED_PREFIX) else key


def _to_published(key: str) -> str:
    return PUBLISHED_PREFIX + key.removeprefix(LIBRARY_PREFIX) if key.startswith(LIBRARY_PREFIX) else key


def _check(transformer: ZImageTransformer2DModel, latents: Tensor, timestep: Tensor, features: Tensor) -> None:
    patch, channels = transformer.all_patch_size[0], transformer.in_channels
    width = transformer.cap_embedder[1].in_features
    if latents.ndim != 4 or latents.shape[1] != channels or latents.shape[2] % patch or latents.shape[3] % patch:
        raise ValueError(f"latents: {list(latents.shape)}, expected [B, {channels}, Y, X], sides multiples of {patch}")
    if timestep.shape != latents.shape[:1]:
        raise ValueError(f"timestep: {list(timestep.shape)}, expected [{latents.shape[0]}] as latents have")
    if features.ndim != 3 or features.shape[0] != latents.shape[0] or features.shape[2] != width:
        raise ValueError(f"features: {list(features.shape)}, expected [{latents.shape[0]}, N, {width}]")
