"""Importing any module reaches no network, writes no file, draws no random number and sets nothing up."""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import unimodal
import unimodal_apps
import unimodal_configs
import unimodal_decoders
import unimodal_tokenizers

PACKAGES = (unimodal_configs, unimodal_tokenizers, unimodal_decoders, unimodal, unimodal_apps)

# Libraries are imported first: what they do when they are imported is theirs.
CHECK = """
import importlib, logging, os, random, socket, sys, warnings
import accelerate, diffusers, fastapi, httpx, numpy, open_clip, timm, torch, transformers, typer
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from transformers.models.glm_image import modeling_glm_image

def refuse(*args, **kwargs):
    raise AssertionError("an import reached for the network or a folder")

socket.socket.connect = refuse
os.mkdir = os.makedirs = refuse

def state():
    return (
        dict(os.environ), torch.initial_seed(), torch.get_rng_state().tolist(), random.getstate(),
        repr(numpy.random.get_state()), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
        torch.backends.cuda.matmul.allow_tf32, list(logging.root.handlers), logging.root.level, list(warnings.filters),
        os.getcwd(), os.listdir("."),
    )

before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert state() == before, f"importing {name} changed something"
"""


def names() -> list[str]:
    found = []
    for package in PACKAGES:
        walked = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        found += [package.__name__, *(module.name for module in walked)]
    return found


def run(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    roots = {str(Path(package.__path__[0]).parent) for package in PACKAGES}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(roots)), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_importing_any_module_does_nothing(tmp_path: Path) -> None:
    done = run(CHECK, *names(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_the_command_and_the_package_import_no_heavy_library(tmp_path: Path) -> None:
    code = "import sys, unimodal, unimodal_apps.cli\nassert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    done = run(code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
