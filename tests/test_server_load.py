"""Many clients at once: nothing is lost, and everybody gets the answer that they would have got alone."""

from typing import Any

import httpx
import pytest
from quick_server import served_pipeline

from unimodal.pipeline import Pipeline
from unimodal_apps.server.load import LoadResult, measure, workload
from unimodal_apps.server.options import ServerOptions
from unimodal_apps.server.run import running

CLIENTS = 64


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return served_pipeline()


def test_64_clients_get_their_own_answers(pipe: Pipeline) -> None:
    requests = workload(CLIENTS, draw_every=16, steps=2)
    with running(pipe, ServerOptions()) as url:
        alone, together = measure(url, requests, (1, CLIENTS))
        lines = httpx.get(f"{url}/metrics").text.splitlines()
    for result in (alone, together):
        assert (result.lost, result.wrong, len(result.latencies)) == (0, 0, CLIENTS)
    # The answers differ, so that one in the place of another would be seen; and calls were shared.
    assert len(set(alone.answers)) > CLIENTS * 0.9
    values = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}
    for task in ("ask", "generate"):
        samples, calls = (values[f'unimodal_batch_samples_{kind}{{task="{task}"}}'] for kind in ("sum", "count"))
        assert samples > 1.3 * calls, task


def test_a_loss_and_a_mix_up_are_seen(monkeypatch: Any) -> None:
    answers: list[list[str | None]] = [["a", "b", "c"], ["a", None, "b"]]

    async def passed(url: str, requests: Any, clients: int, api_key: str | None) -> LoadResult:
        return LoadResult(clients=clients, seconds=1.0, answers=answers.pop(0))

    monkeypatch.setattr("unimodal_apps.server.load._pass", passed)
    first, second = measure("", workload(3, 0), (1, 2))
    assert (first.lost, first.wrong, second.lost, second.wrong) == (0, 0, 1, 1)
