"""The ComfyUI nodes: found and run the way ComfyUI does it, on the workflow that comes with them."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import model
from PIL import Image
from quick_pipeline import seeded

import unimodal_apps
from unimodal import Pipeline
from unimodal_apps.comfyui.tensors import to_images, to_masks, to_pictures

__all__ = ["model"]

FOLDER = Path(unimodal_apps.__path__[0]) / "comfyui"
WORKFLOW = json.loads((FOLDER / "workflow.json").read_text(encoding="utf-8"))
FEW = {"steps": 2, "decoder_steps": 1}

Nodes = dict[str, Any]


@pytest.fixture(params=["link", "copy of __init__.py"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nodes]:
    """The node classes, from a folder in `custom_nodes` as ComfyUI imports it."""
    place = tmp_path / "custom_nodes" / "unimodal.nodes"
    if request.param == "link":
        place.parent.mkdir()
        place.symlink_to(FOLDER, target_is_directory=True)
    else:
        place.mkdir(parents=True)
        shutil.copy(FOLDER / "__init__.py", place)
    name = str(place).replace(".", "_x_")
    found = importlib.util.spec_from_file_location(name, place / "__init__.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)
    yield module.NODE_CLASS_MAPPINGS
    del sys.modules[name]


class Save:
    """Stands in for a node of ComfyUI itself that takes one input of any kind, and keeps it."""

    FUNCTION, RETURN_TYPES = "keep", ("ANY",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def keep(self, **inputs: Any) -> tuple[Any]:
        return (next(iter(inputs.values())),)


class Executor:
    """Runs a workflow in ComfyUI's API format: checks every input against the declarations, then runs what it needs."""

    def __init__(self, workflow: dict[str, Any], nodes: Nodes):
        self.workflow = workflow
        self.nodes = nodes | {"SaveImage": Save, "PreviewAny": Save}
        self.results: dict[str, tuple[Any, ...]] = {}

    def run(self) -> dict[str, tuple[Any, ...]]:
        for name in self.workflow:
            self._result(name)
        return self.results

    def _result(self, name: str) -> tuple[Any, ...]:
        if name not in self.results:
            node = self.nodes[self.workflow[name]["class_type"]]
            inputs = {key: self._input(node, key, value) for key, value in self.workflow[name]["inputs"].items()}
            if node is not Save:
                assert set(node.INPUT_TYPES()["required"]) <= set(inputs)
            instance = node()
            self.results[name] = getattr(instance, node.FUNCTION)(**inputs)
            assert len(self.results[name]) == len(node.RETURN_TYPES)
        return self.results[name]

    def _input(self, node: Any, key: str, value: Any) -> Any:
        declared = {key: (None, {})} if node is Save else {**node.INPUT_TYPES()["required"], **_optional(node)}
        kind, *options = declared[key]
        if isinstance(value, list):
            source, place = value
            sent = self.nodes[self.workflow[source]["class_type"]].RETURN_TYPES[place]
            assert kind in (sent, None), f"{key} takes {kind}, it is sent {sent}"
            return self._result(source)[place]
        limits: dict[str, Any] = options[0] if options else {}
        if isinstance(kind, list):
            assert value in kind
        elif kind is not None:
            assert isinstance(value, {"STRING": str, "INT": int, "FLOAT": float, "BOOLEAN": bool}[kind]), key
            assert limits.get("min", value) <= value <= limits.get("max", value), key
        return value


def _optional(node: Any) -> dict[str, Any]:
    return node.INPUT_TYPES().get("optional", {})


def test_nodes_declare_what_comfyui_asks_for(nodes: Nodes) -> None:
    assert set(nodes) == {f"Unimodal{name}" for name in ("Loader", "Create", "Understand", "Edit", "Interleave")}
    for node in nodes.values():
        assert callable(getattr(node, node.FUNCTION)) and node.CATEGORY and node.DESCRIPTION
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        for kind, *options in [*node.INPUT_TYPES()["required"].values(), *_optional(node).values()]:
            assert isinstance(kind, list) or kind in (
                *("UNIMODAL", "IMAGE", "MASK"),
                *("STRING", "INT", "FLOAT", "BOOLEAN"),
            )
            if kind in ("STRING", "INT", "FLOAT", "BOOLEAN"):
                assert "default" in options[0]


def test_the_workflow_runs(nodes: Nodes, model: Path) -> None:
    workflow = json.loads(json.dumps(WORKFLOW))
    workflow["1"]["inputs"] |= {"model": str(model), "device": "cpu"}
    for name in ("2", "4", "6"):
        known = {
            **nodes[workflow[name]["class_type"]].INPUT_TYPES()["required"],
            **_optional(nodes[workflow[name]["class_type"]]),
        }
        sizes = {"width": 256, "height": 256, "max_tokens": 8}
        workflow[name]["inputs"] |= {key: value for key, value in (FEW | sizes).items() if key in known}
    results = Executor(workflow, nodes).run()
    pipe: Pipeline = results["1"][0]
    created, edited = results["3"][0], results["7"][0]
    assert created.shape == edited.shape == (1, 256, 256, 3) and created.dtype == torch.float32
    assert 0 <= created.min() < created.max() <= 1
    drawn = pipe.generate(
        WORKFLOW["2"]["inputs"]["prompt"],
        generator=seeded(1),
        num_inference_steps=2,
        decoder_steps=1,
        width=256,
        height=256,
    )
    assert to_pictures(created)[0].tobytes() == drawn.images[0].tobytes(), "the seed draws what it draws in Python"
    answer = pipe.understand(drawn.images, "what color is the car?", num_inference_steps=2, gen_length=8)
    assert results["5"] == (answer.text,)


@pytest.fixture
def tools() -> Nodes:
    from unimodal_apps.comfyui import NODE_CLASS_MAPPINGS

    return NODE_CLASS_MAPPINGS


class Recorded:
    """A pipeline that notes how it is called."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def edit(self, *arguments: Any, **named: Any) -> Any:
        self.calls.append((arguments, named))
        return SimpleNamespace(images=[group[0] for group in arguments[0]])

    def interleave(self, *arguments: Any, **named: Any) -> Any:
        self.calls.append((arguments, named))
        return SimpleNamespace(images=[], text="no picture")


def test_a_mask_and_references_go_with_every_picture(tools: Nodes) -> None:
    pipe, images, mask = Recorded(), torch.rand(2, 8, 16, 3), torch.zeros(1, 8, 16)
    mask[0, :, 4:] = 1
    [edited] = tools["UnimodalEdit"]().edit(
        pipe, images, "blue", 3, references=torch.ones(1, 4, 4, 3), mask=mask, text_guidance_scale=0.0, height=0
    )
    [((groups, instructions), named)] = pipe.calls
    assert edited.shape == images.shape and instructions == ["blue", "blue"]
    assert [[picture.size for picture in group] for group in groups] == [[(16, 8), (4, 4)]] * 2
    assert [area.getpixel((4, 0)) for area in named["mask_image"]] == [255, 255]
    assert named["mask_image"][0].getpixel((3, 0)) == 0
    assert named["text_guidance_scale"] == 0 and "height" not in named and named["generator"].initial_seed() == 3
    with pytest.raises(ValueError, match="3 masks for 2 pictures"):
        tools["UnimodalEdit"]().edit(pipe, images, "blue", 3, mask=torch.ones(3, 8, 16))


def test_an_answer_without_pictures_blocks_what_hangs_on_it(tools: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no picture"):
        tools["UnimodalInterleave"]().interleave(Recorded(), "a tale", 1)
    graph = ModuleType("comfy_execution.graph_utils")
    graph.ExecutionBlocker = lambda reason: f"blocked: {reason}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy_execution.graph_utils", graph)
    [image], text = tools["UnimodalInterleave"]().interleave(Recorded(), "a tale", 1)
    assert image.startswith("blocked") and text == "no picture"


class Stopped(Exception):
    """ComfyUI's own way to say that its stop button was pressed."""


def test_comfyui_sees_the_progress_and_can_stop_it(tools: Nodes, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, int]] = []

    class ProgressBar:
        def __init__(self, total: int) -> None:
            pass

        def update_absolute(self, value: int, total: int) -> None:
            shown.append((value, total))

    def throw_exception_if_processing_interrupted() -> None:
        if len(shown) == 3:
            raise Stopped

    comfy, management = ModuleType("comfy.utils"), ModuleType("comfy.model_management")
    comfy.ProgressBar = ProgressBar  # type: ignore[attr-defined]
    management.throw_exception_if_processing_interrupted = (  # type: ignore[attr-defined]
        throw_exception_if_processing_interrupted
    )
    monkeypatch.setitem(sys.modules, "comfy.utils", comfy)
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    [pipe] = tools["UnimodalLoader"]().load(str(model), "cpu", "default")
    with pytest.raises(Stopped):
        tools["UnimodalCreate"]().create(pipe, "a cat", 1, 1, False, steps=2, width=256, height=256)
    assert len(shown) == 3 and all(0 < value <= total for value, total in shown)


def test_pictures_become_tensors_and_come_back() -> None:
    generator = seeded(0)
    levels = torch.randint(256, (2, 5, 7, 3), generator=generator, dtype=torch.uint8)
    pictures = [Image.fromarray(array.numpy()) for array in levels]
    images = to_images(pictures)
    assert images.dtype == torch.float32 and images.shape == (2, 5, 7, 3) and images.max() <= 1
    assert [picture.tobytes() for picture in to_pictures(images)] == [picture.tobytes() for picture in pictures]
    assert to_pictures(torch.full((1, 2, 2, 4), 2.0))[0].getpixel((0, 0)) == (255, 255, 255, 255)
    assert to_masks(torch.tensor([[0.0, 1.0]]))[0].size == (2, 1)
    with pytest.raises(ValueError, match="one size"):
        to_images([pictures[0], pictures[1].rotate(90, expand=True)])
    with pytest.raises(ValueError, match=r"\[B, Y, X, C\]"):
        to_pictures(torch.zeros(4, 4, 3))
