"""The server over a real socket, mostly through the official client, against what the pipeline does in Python."""

import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_type_hints

import httpx
import openai
import pytest
from PIL import Image, ImageDraw
from quick_pipeline import QUICK, gradient, seeded
from quick_server import asking, encoded, opened, served_pipeline

from unimodal.diffusion.sprint import SprintOptions
from unimodal.jobs.options import InterleavedSampling
from unimodal.jobs.options import Sampling as Options
from unimodal.pipeline import Pipeline
from unimodal_apps.server.chat_requests import ChatRequest
from unimodal_apps.server.image_requests import EditFields, GenerationRequest, Sprint
from unimodal_apps.server.options import ServerOptions
from unimodal_apps.server.run import running

OPTIONS = ServerOptions(model="golden", max_drawn_pixels=100_000)
TALK = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return served_pipeline()


@pytest.fixture(scope="module")
def url(pipe: Pipeline) -> Iterator[str]:
    with running(pipe, OPTIONS) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return gradient()


def test_the_server_says_how_it_is(url: str, client: openai.OpenAI) -> None:
    health = httpx.get(f"{url}/health").json()
    assert health["status"] == "ok" and health["model"] == "golden"
    assert [model.id for model in client.models.list()] == ["golden"]


def test_drawing_gives_the_pixels_of_the_pipeline(client: openai.OpenAI, pipe: Pipeline) -> None:
    options = {"negative_prompt": "a square", "guidance_scale": 2.0, **QUICK}
    result = client.images.generate(
        model="golden", prompt="a red circle", n=2, size="256x256", extra_body={"seed": 5, **options}
    )
    expected = pipe.generate("a red circle", num_images_per_prompt=2, generator=seeded(5), **options)
    assert result.data is not None and len(result.data) == 2
    for given, image in zip(result.data, expected.images, strict=True):
        assert given.b64_json is not None
        assert opened(given.b64_json).tobytes() == image.tobytes()
    assert result.size == "256x256"


def test_a_seed_that_was_drawn_is_told(client: openai.OpenAI) -> None:
    first = client.images.generate(prompt="a cat", extra_body={"temperature": 1.0, **QUICK})
    seed = first.model_dump()["seed"]
    again = client.images.generate(prompt="a cat", extra_body={"temperature": 1.0, "seed": seed, **QUICK})
    assert first.data and again.data and first.data[0].b64_json == again.data[0].b64_json


def test_pictures_come_as_addresses_in_other_formats_and_after_thoughts(client: openai.OpenAI) -> None:
    result = client.images.generate(
        prompt="a cat",
        size="256x320",  # type: ignore[arg-type]
        response_format="url",
        output_format="webp",
        extra_body={"thinking": True, **QUICK},
    )
    assert result.data is not None and result.data[0].url is not None
    answer = httpx.get(result.data[0].url)
    assert answer.headers["content-type"] == "image/webp"
    assert opened(answer.content).size == (256, 320)
    assert result.data[0].revised_prompt is not None
    assert httpx.get(f"{result.data[0].url}x").status_code == 404


def test_edits_take_one_picture_or_several(client: openai.OpenAI, pipe: Pipeline, picture: Image.Image) -> None:
    other = picture.rotate(90)
    for images in ([picture], [picture, other]):
        files = [encoded(image) for image in images]
        result = client.images.edit(
            image=files[0] if len(files) == 1 else files, prompt="make it green", extra_body={"seed": 2, **QUICK}
        )
        expected = pipe.edit(images, "make it green", generator=seeded(2), **QUICK)
        assert result.data is not None and result.data[0].b64_json is not None
        assert opened(result.data[0].b64_json).tobytes() == expected.images[0].tobytes()


def test_an_edit_stays_inside_its_mask(client: openai.OpenAI, pipe: Pipeline, picture: Image.Image) -> None:
    box = 64, 64, 191, 191
    transparent, white = Image.new("RGBA", picture.size, "red"), Image.new("L", picture.size)
    ImageDraw.Draw(transparent).rectangle(box, fill=(0, 0, 0, 0))
    ImageDraw.Draw(white).rectangle(box, fill=255)
    expected = pipe.edit(picture, "make it green", mask_image=white, generator=seeded(2), **QUICK).images[0]
    assert expected.tobytes() != picture.tobytes()
    for mask in (transparent, white):
        result = client.images.edit(
            image=encoded(picture), mask=encoded(mask), prompt="make it green", extra_body={"seed": 2, **QUICK}
        )
        assert result.data is not None and result.data[0].b64_json is not None
        assert opened(result.data[0].b64_json).tobytes() == expected.tobytes()


def test_questions_about_pictures_are_answered(client: openai.OpenAI, pipe: Pipeline, picture: Image.Image) -> None:
    answer = client.chat.completions.create(model="golden", messages=asking(picture), max_tokens=12)
    expected = pipe.understand(picture, "what is this?", gen_length=12)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None and answer.usage.completion_tokens == len(expected.tokens[0])
    [grid] = [pipe.sizes.for_understanding([picture])[0].size]
    codes = grid[0] * grid[1] // pipe.patch_size**2
    words = pipe.sequences.understanding([], "what is this?")
    # Around the codes: four tokens of the header, one at the end.
    assert answer.usage.prompt_tokens == len(words) + codes + 5


def test_conversations_go_on(client: openai.OpenAI, pipe: Pipeline, picture: Image.Image) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        *asking(picture),
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "where is it?"},
    ]
    answer = client.chat.completions.create(model="golden", messages=turns)
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "what is this?"}]
    expected = pipe.chat([turns[0], {"role": "user", "content": parts}, *turns[2:]])
    assert answer.choices[0].message.content == expected.text


def test_answers_hold_text_and_pictures_in_order(client: openai.OpenAI, pipe: Pipeline) -> None:
    messages: list[Any] = [{"role": "user", "content": "tell a story"}]
    options = {"modalities": ["text", "image"], **QUICK}
    answer = client.chat.completions.create(model="golden", messages=messages, seed=4, extra_body=options)
    expected = pipe.chat(messages, generator=seeded(4), **options)
    content: Any = answer.choices[0].message.content
    assert [part["type"] for part in content] == [
        "text" if isinstance(segment, str) else "image_url" for segment in expected.segments
    ]
    for part, segment in zip(content, expected.segments, strict=True):
        if isinstance(segment, str):
            assert part["text"] == segment
        else:
            assert opened(part["image_url"]["url"]).tobytes() == segment.tobytes()


@pytest.mark.parametrize("modalities", [["text"], ["text", "image"]])
def test_a_stream_is_the_answer_in_pieces(client: openai.OpenAI, picture: Image.Image, modalities: list[str]) -> None:
    request: dict[str, Any] = {"model": "golden", "messages": asking(picture), "seed": 7}
    extra = {"modalities": modalities, "block_length": 8, "temperature": 1.0}
    whole: Any = client.chat.completions.create(**request, extra_body=extra)
    stream = client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}, extra_body=extra
    )
    text, chunks = "", list(stream)
    pictures: list[Any] = []
    for chunk in chunks[:-1]:
        content: Any = chunk.choices[0].delta.content
        if isinstance(content, list):
            pictures += [part["image_url"]["url"] for part in content]
        else:
            text += content or ""
    expected = whole.choices[0].message.content
    parts: Any = [{"type": "text", "text": expected}] if isinstance(expected, str) else expected
    assert text == "".join(part["text"] for part in parts if part["type"] == "text")
    assert pictures == [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices


WAYS: list[dict[str, Any]] = [
    {"preset": "fast", "threshold": 0.5},
    {"policy": "remasking", "remasking": "top_k_margin", "num_inference_steps": 3, "span": "sequence"},
    {"policy": "adaptive", "minimal_topk": 2, "threshold": 0.3},
    {"policy": "editing", "editing_threshold": 0.2, "max_post_steps": 3, "block_length": 8},
    {"policy": "ancestral", "temperature": 1.0, "num_inference_steps": 3, "span": "answer"},
    {"sprint": {"text_keep_ratio": 0.5, "confidence_alpha": 1.0, "cache_warmup_steps": 1}, "block_length": 8},
]


@pytest.mark.parametrize("way", [*WAYS, {"policy": "cosine", "choice_temperature": 2.0}])
def test_drawings_are_sampled_as_they_ask(client: openai.OpenAI, pipe: Pipeline, way: dict[str, Any]) -> None:
    result = client.images.generate(prompt="a red circle", extra_body={"seed": 5, "decoder_steps": 2, **way})
    expected = pipe.generate("a red circle", generator=seeded(5), decoder_steps=2, **in_python(way))
    assert result.data is not None and result.data[0].b64_json is not None
    assert opened(result.data[0].b64_json).tobytes() == expected.images[0].tobytes()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_answers_are_sampled_as_they_ask(
    client: openai.OpenAI, pipe: Pipeline, picture: Image.Image, way: dict[str, Any], stream: bool
) -> None:
    request: dict[str, Any] = {"model": "golden", "messages": asking(picture), "max_tokens": 20, "seed": 3}
    answer: Any = client.chat.completions.create(**request, stream=stream, extra_body=way)
    expected = pipe.understand(picture, "what is this?", gen_length=20, generator=seeded(3), **in_python(way))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in answer) if stream else None
    assert expected.text == (text if stream else answer.choices[0].message.content)


def test_forms_take_the_same_ways(client: openai.OpenAI, pipe: Pipeline, picture: Image.Image) -> None:
    for way in (WAYS[1], WAYS[-1]):
        body = way | {name: json.dumps(value) for name, value in way.items() if isinstance(value, dict)}
        body |= {"seed": 2, "decoder_steps": 2}
        result = client.images.edit(image=encoded(picture), prompt="make it green", extra_body=body)
        expected = pipe.edit(picture, "make it green", generator=seeded(2), decoder_steps=2, **in_python(way))
        assert result.data is not None and result.data[0].b64_json is not None
        assert opened(result.data[0].b64_json).tobytes() == expected.images[0].tobytes()
    with pytest.raises(openai.BadRequestError, match="sprint: it must be a JSON object"):
        client.images.edit(image=encoded(picture), prompt="make it green", extra_body={"sprint": "half"})


def in_python(way: dict[str, Any]) -> dict[str, Any]:
    return way | ({"sprint": SprintOptions(**way["sprint"])} if "sprint" in way else {})


def test_requests_have_all_ways_to_sample() -> None:
    assert set(Sprint.model_fields) == {field.name for field in dataclasses.fields(SprintOptions)}
    for fields, options in ((GenerationRequest, Options), (ChatRequest, InterleavedSampling), (EditFields, Options)):
        # The length of a text has other names in OpenAI's protocol.
        assert set(get_type_hints(options)) - {"gen_length"} <= set(fields.model_fields)
        assert "sprint" in fields.model_fields


def test_conversations_share_calls(client: openai.OpenAI, pipe: Pipeline, picture: Image.Image, url: str) -> None:
    talks = [
        [*asking(picture), {"role": "assistant", "content": "a cat"}, {"role": "user", "content": f"and {number}?"}]
        for number in range(3)
    ] + [[{"role": "user", "content": f"hello {number}"}] for number in range(3)]

    def answer(number: int) -> Any:
        body = {"block_length": 16, "temperature": 1.0}
        return client.chat.completions.create(model="golden", messages=talks[number], seed=number, extra_body=body)

    def counted(kind: str) -> float:
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith(f'unimodal_batch_samples_{kind}{{task="ask"}}')]
        return float(value)

    alone = [answer(number) for number in range(6)]
    before = counted("count")
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(answer, range(6)))
    assert counted("count") - before < 6
    for first, second in zip(alone, together, strict=True):
        assert first.choices[0].message.content == second.choices[0].message.content and first.usage == second.usage
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "what is this?"}]
    talk = [{"role": "user", "content": parts}, *talks[1][1:]]
    expected = pipe.chat(talk, generator=seeded(1), block_length=16, temperature=1.0)
    assert alone[1].choices[0].message.content == expected.text


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/images/generations", {}, "prompt"),
    ("/v1/images/generations", {"prompt": ""}, "prompt"),
    ("/v1/images/generations", {"prompt": "a", "size": "100x100"}, "size"),
    ("/v1/images/generations", {"prompt": "a", "n": 9}, "n"),
    ("/v1/images/generations", {"prompt": "a", "n": "2"}, "n"),
    ("/v1/images/generations", {"prompt": "a", "style": "vivid"}, "style"),
    ("/v1/images/generations", {"prompt": "a", "num_inference_steps": 10**6}, "num_inference_steps"),
    ("/v1/images/generations", {"prompt": "a" * 40_000}, "prompt"),
    ("/v1/images/generations", {"prompt": "a", "preset": "slow"}, "preset"),
    ("/v1/images/generations", {"prompt": "a", "policy": "luck"}, "policy"),
    ("/v1/images/generations", {"prompt": "a", "policy": "quota", "remasking": "random"}, "remasking"),
    ("/v1/images/generations", {"prompt": "a", "policy": "threshold", "num_inference_steps": 2}, "num_inference_steps"),
    ("/v1/images/generations", {"prompt": "a", "thinking_gen_length": 4}, "thinking_gen_length"),
    ("/v1/images/generations", {"prompt": "a", "sprint": {"text_keep_ratio": 2}}, "sprint.text_keep_ratio"),
    ("/v1/images/generations", {"prompt": "a", "sprint": {"ratio": 0.5}}, "sprint.ratio"),
    ("/v1/images/generations", {"prompt": "a", "policy": "editing", "max_post_steps": 10**6}, "max_post_steps"),
    ("/v1/chat/completions", {"messages": TALK, "policy": "cosine"}, "policy"),
    ("/v1/chat/completions", {"messages": TALK, "guidance_scale": 2.0}, "guidance_scale"),
    ("/v1/chat/completions", {"messages": TALK, "max_image_tokens": 10**6}, "max_image_tokens"),
    ("/v1/chat/completions", {"messages": []}, "messages"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
    ("/v1/chat/completions", {"messages": [{"role": "robot", "content": "hello"}]}, "messages.0.role"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "n": 2}, "n"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10**9}, "max_tokens"),
]


@pytest.mark.parametrize(("path", "body", "param"), BAD)
def test_what_cannot_be_used_is_named(url: str, path: str, body: dict[str, Any], param: str) -> None:
    answer = httpx.post(url + path, json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == param and error["type"] == "invalid_request_error" and error["message"]


def test_other_models_paths_and_methods_do_not_exist(url: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4o'"):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    assert httpx.get(f"{url}/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{url}/v1/chat/completions").status_code == 405
    assert httpx.post(f"{url}/v1/chat/completions", content="{").status_code == 400


def test_the_document_describes_this_server(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    generation = document["components"]["schemas"]["GenerationRequest"]["properties"]
    assert "256x256" in generation["size"]["enum"] and "1024x1024" not in generation["size"]["enum"]
    assert generation["n"]["maximum"] == OPTIONS.max_images
    talk = document["components"]["schemas"]["ChatRequest"]["properties"]
    assert "cosine" in generation["policy"]["anyOf"][0]["enum"] and "fast" in talk["preset"]["anyOf"][0]["enum"]
    assert "cosine" not in talk["policy"]["anyOf"][0]["enum"] and "random" in talk["remasking"]["anyOf"][0]["enum"]
    assert not [path for path, operations in document["paths"].items() if "422" in json.dumps(list(operations))]


def test_numbers_are_counted(url: str, client: openai.OpenAI) -> None:
    client.images.generate(prompt="a cat", extra_body=QUICK)
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['unimodal_forwards_total{task="generate"}']) > 0
    assert float(values['unimodal_requests_total{method="POST",path="/v1/images/generations",status="200"}']) > 0
    assert float(values["unimodal_running_requests"]) == 0
