"""Load test: how many requests a server answers in a second, and whether every client gets its own answer.

    python -m unimodal_apps.server.load --model tiny --clients 1,4,16,64 --requests 64
    python -m unimodal_apps.server.load --url http://127.0.0.1:8000 --api-key SECRET

Requests are questions about pictures, conversations and drawings, each different from all others and with a seed of
its own. They are sent one at a time first; the answers of that pass are what every client must get later, however
many there are.
"""

import asyncio
import base64
import io
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import typer
from PIL import Image, ImageDraw

CHAT, DRAW = "/v1/chat/completions", "/v1/images/generations"
COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
SHAPES = ("circle", "square")
PATIENCE = 600


@dataclass(frozen=True, kw_only=True)
class LoadRequest:
    """One request of a client."""

    path: str
    body: dict[str, Any]


@dataclass(kw_only=True)
class LoadResult:
    """One pass over all requests.

    Args:
        answers: what counts of each answer, in the order of the requests; None where none came.
        latencies: seconds per answer.
        wrong: answers that are not those of the first pass.
    """

    clients: int
    seconds: float
    answers: list[str | None]
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0

    @property
    def lost(self) -> int:
        return self.answers.count(None)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def latency(self, share: float) -> float:
        """Seconds within which this share of the answers came."""
        ordered = sorted(self.latencies) or [float("nan")]
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def workload(count: int, draw_every: int, steps: int | None = None) -> list[LoadRequest]:
    """Requests that are all different.

    Args:
        draw_every: every so many a drawing; 0 is none.
        steps: per block and of the pixel decoder; None is as the checkpoint says.
    """
    return [
        _request(number, draw_every > 0 and number % draw_every == draw_every - 1, steps) for number in range(count)
    ]


def _request(number: int, draws: bool, steps: int | None) -> LoadRequest:
    color, shape = COLORS[number % len(COLORS)], SHAPES[number // len(COLORS) % len(SHAPES)]
    shared: dict[str, Any] = {"seed": number, "temperature": 1.0}
    if steps is not None:
        shared["num_inference_steps"] = steps
    if draws:
        pixels = {} if steps is None else {"decoder_steps": max(2, steps)}
        return LoadRequest(path=DRAW, body={"prompt": f"a {color} {shape}", **shared, **pixels})
    question: Any = f"tell me about {color} number {number}"
    if number % 2 == 0:
        url = f"data:image/png;base64,{base64.b64encode(_drawn(number, color, shape)).decode()}"
        question = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": f"what is {number}?"}]
    return LoadRequest(
        path=CHAT, body={"messages": [{"role": "user", "content": question}], "max_tokens": 16, **shared}
    )


def _drawn(number: int, color: str, shape: str) -> bytes:
    """A PNG of a shape somewhere."""
    picture = Image.new("RGB", (128, 128), "gray")
    left = number * 7 % 64
    draw = ImageDraw.Draw(picture)
    (draw.ellipse if shape == "circle" else draw.rectangle)((left, 30, left + 50, 80), fill=color)
    target = io.BytesIO()
    picture.save(target, format="PNG")
    return target.getvalue()


def measure(
    url: str, requests: Sequence[LoadRequest], clients: Sequence[int], api_key: str | None = None
) -> Iterator[LoadResult]:
    """A result per number of clients; the first pass, whatever its number, is the one that others are compared with."""
    expected: list[str | None] | None = None
    for number in clients:
        result = asyncio.run(_pass(url, requests, number, api_key))
        expected = expected or result.answers
        pairs = zip(result.answers, expected, strict=True)
        result.wrong = sum(answer is not None and answer != first for answer, first in pairs)
        yield result


async def _pass(url: str, requests: Sequence[LoadRequest], clients: int, api_key: str | None) -> LoadResult:
    answers: list[str | None] = [None] * len(requests)
    latencies: list[float] = []
    left = iter(enumerate(requests))

    async def client() -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE) as connection:
            for place, request in left:
                began = time.perf_counter()
                try:
                    response = await connection.post(request.path, json=request.body)
                except httpx.HTTPError:
                    continue
                if response.status_code == httpx.codes.OK:
                    answers[place] = _essence(response.json())
                    latencies.append(time.perf_counter() - began)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return LoadResult(clients=clients, seconds=time.perf_counter() - started, answers=answers, latencies=latencies)


def _essence(body: dict[str, Any]) -> str:
    """What must be the same each time: texts and files, not numbers and times of requests."""
    return json.dumps([body.get("choices"), body.get("data"), body.get("seed"), body.get("usage")])


def main(
    url: Annotated[str | None, typer.Option(help="A server that runs; one is started if left out.")] = None,
    model: Annotated[str, typer.Option(help="What a started server serves.")] = "tiny",
    clients: Annotated[str, typer.Option(help="Numbers of clients, the first for comparison.")] = "1,4,16,64",
    requests: Annotated[int, typer.Option(min=1, help="Requests per pass.")] = 64,
    draw_every: Annotated[int, typer.Option(min=0, help="Every so many a drawing; 0 is none.")] = 8,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps per block and of the pixel decoder.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="UNIMODAL_API_KEY")] = None,
) -> None:
    """Print throughput against clients; exit with 1 if an answer was lost or another client's."""
    numbers = [int(part) for part in clients.split(",")]
    sent = workload(requests, draw_every, steps)
    failed = False
    typer.echo("clients  requests/s  median s   95 % s  lost  wrong")
    with nullcontext(url) if url else _started(model, len(sent)) as address:
        for result in measure(address, sent, numbers, api_key):
            failed = failed or result.lost > 0 or result.wrong > 0
            typer.echo(
                f"{result.clients:7d}  {result.per_second:10.2f}  {result.latency(0.5):8.2f}  "
                f"{result.latency(0.95):7.2f}  {result.lost:4d}  {result.wrong:5d}"
            )
    raise typer.Exit(1 if failed else 0)


def _started(model: str, count: int) -> Any:
    """A server of its own, with room for all requests."""
    import unimodal
    from unimodal_apps.server.options import ServerOptions
    from unimodal_apps.server.run import running

    pipe = unimodal.load(model)
    pipe.set_progress_bar_config(disable=True)
    return running(pipe, ServerOptions(model=model, queue_length=count + 1, request_timeout=PATIENCE))


if __name__ == "__main__":
    typer.run(main)
