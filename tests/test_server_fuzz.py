"""What schemathesis makes of the server's OpenAPI document: it finds no violation and no error of the server."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from quick_pipeline import gradient
from quick_server import data_url, encoded, served_pipeline
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode
from schemathesis.transport.serialization import Binary

from unimodal_apps.server.options import ServerOptions
from unimodal_apps.server.run import running

EXAMPLES = 12

# Small, so that the pipeline itself answers whatever is asked.
OPTIONS = ServerOptions(
    model="golden", max_drawn_pixels=256 * 256, max_images=1, max_pictures=2, max_steps=2, max_text_tokens=8
)

# What the document cannot say: that the user has the first and the last word, which options belong together, that a
# mask has the proportions of its picture, that bytes are a picture. With these in their place, and without what only
# some others go with, any request will do.
PICTURE = encoded(gradient().resize((64, 64)))
WHITE = encoded(Image.new("L", (64, 64), 255))
MENDED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}], "modalities": ["text", "image"]},
    "/v1/images/edits": {"image": Binary(PICTURE), "image[]": [Binary(PICTURE)], "mask": Binary(WHITE)},
    "/v1/images/generations": {},
}
DEPENDENT = (
    *("policy", "remasking", "reveal_length", "choice_temperature", "editing_threshold", "max_post_steps"),
    *("thinking_num_inference_steps", "thinking_gen_length"),
)
PATHS = (*MENDED, "/v1/images/files/{name}", "/v1/models", "/health", "/metrics")

statuses: Counter[tuple[str, int]] = Counter()


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
    address = data_url(gradient().resize((64, 64)))
    schemathesis.openapi.format("picture-url", st.sampled_from([address, "http://127.0.0.1/a.png", "a.png"]))
    schemathesis.openapi.format("binary", st.sampled_from([PICTURE, b"nothing"]))
    with running(served_pipeline(), OPTIONS) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def try_out(operation: Any, mode: GenerationMode, left_out: list[str], mend: dict[str, Any] | None = None) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def try_it(case: Any) -> None:
        assume(not is_text_in_a_form(case))
        if mend is not None:
            case.body |= mend
            for options in (case.body, case.body.get("extra_body")):
                for name in DEPENDENT if options else ():
                    options.pop(name, None)
        response = case.call(timeout=120)
        statuses[operation.path, response.status_code] += 1
        case.validate_response(response, excluded_checks=CHECKS.get_by_names(left_out))

    try_it()


def is_text_in_a_form(case: Any) -> bool:
    """Whether a prompt is wrong by its type alone: a form has no types, a number is the text that it is sent as."""
    in_form = str(case.media_type).startswith("multipart/") and isinstance(case.body, dict)
    return in_form and isinstance(case.body.get("prompt", ""), bool | int | float | None)


@pytest.mark.parametrize("path", PATHS)
def test_the_document_is_true(api: Any, path: str) -> None:
    [operation] = api[path].values()
    try_out(operation, GenerationMode.POSITIVE, ["positive_data_acceptance"] if path in MENDED else [])


@pytest.mark.parametrize("path", MENDED)
def test_what_makes_sense_is_accepted(api: Any, path: str) -> None:
    [operation] = api[path].values()
    try_out(operation, GenerationMode.POSITIVE, [], MENDED[path])


@pytest.mark.parametrize("path", MENDED)
def test_what_is_not_in_the_document_is_refused(api: Any, path: str) -> None:
    [operation] = api[path].values()
    try_out(operation, GenerationMode.NEGATIVE, [])


def test_all_endpoints_are_tried(api: Any) -> None:
    assert set(api.raw_schema["paths"]) == set(PATHS)


def test_something_was_done_and_something_refused() -> None:
    """The examples before were no formality."""
    for path in MENDED:
        assert statuses[path, 200] and statuses[path, 400], (path, statuses)
    assert not [entry for entry in statuses if entry[1] >= 500]
