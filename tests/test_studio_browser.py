"""The studio in a real browser: every tab to a result, stop, bad uploads, two users at once, downloads, nothing from
afar.

The studio runs as people run it, in a process of its own with the embedded checkpoint.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import unimodal
import unimodal_apps
import unimodal_configs
import unimodal_decoders
import unimodal_tokenizers
from unimodal.diffusion.traces import Trace
from unimodal.quickstart.tour import bundled_picture, read_tour
from unimodal_apps.metadata import read_record
from unimodal_apps.reproduction import compare, redraw
from unimodal_apps.requests import Source
from unimodal_apps.studio.visitor import VISITS, Visitor, find_browser, open_browser

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
pytestmark = [
    pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed: apt-get install chromium"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A running studio."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    packages = unimodal, unimodal_apps, unimodal_configs, unimodal_decoders, unimodal_tokenizers
    roots = sorted({str(Path(package.__path__[0]).parent) for package in packages})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "unimodal_apps.cli", "demo", "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        assert demo.stdout is not None
        line = demo.stdout.readline()
        assert line.startswith(f"http://127.0.0.1:{port}"), line + demo.stdout.read()
        yield line.split()[0]
        demo.terminate()


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def user(browser: Any, address: str) -> Iterator[Visitor]:
    """One user, who stays for all tests: loading the page is what takes longest."""
    visitor = Visitor(browser, address)
    yield visitor
    visitor.close()


@pytest.mark.parametrize("task", VISITS)
def test_every_tab_comes_to_its_result(user: Visitor, task: str) -> None:
    facts = user.drive(task, seed=3)
    assert facts["Model"] == "tiny" and facts["Seed"] == "3" and int(facts["Forwards"]) > 0
    assert facts["Peak memory"].endswith("B") and facts["Tokens/s"]
    assert "Ended" not in facts
    assert user.page.locator(f"#{task}-live .uni-panels").is_visible()


def test_a_finished_run_can_be_looked_through_and_kept(user: Visitor, tmp_path: Path) -> None:
    user.open("create")
    live = user.page.locator("#create-live .uni-live")
    last = live.inner_html()
    user.page.locator("#create-step input[type=number]").fill("0")
    user.page.locator("#create-step input[type=number]").press("Enter")
    # The first step shows a grid of codes that is not full, and no pixels yet.
    user.page.wait_for_function(
        "(last) => document.querySelector('#create-live .uni-live').innerHTML != last", arg=last
    )
    for button, suffix in (("save-trace", ".json"), ("save-gif", ".gif")):
        with user.page.expect_download() as download:
            user.page.locator(f"#create-{button}").click()
        path = tmp_path / download.value.suggested_filename
        assert path.suffix == suffix
        download.value.save_as(path)
        if suffix == ".json":
            trace = Trace.load(path)
            assert trace.facts["seed"] == 3 and list(trace.states())
        else:
            with Image.open(path) as animation:
                assert animation.format == "GIF"


def test_stop_ends_a_run_at_its_next_step(browser: Any, address: str) -> None:
    user = Visitor(browser, address)
    user.open("create")
    user.choose("create")
    count = user.page.locator("#create-count input[type=number]")
    count.fill("4")  # so that the run is long enough to be stopped
    count.press("Tab")
    user.run("create")
    user.page.locator("#create-stop").click()
    assert user.wait("create")["Ended"] == "stopped"
    user.close()


def test_a_bad_upload_is_told_and_the_next_run_works(user: Visitor, tmp_path: Path) -> None:
    broken = tmp_path / "holiday.png"
    broken.write_text("no picture")
    user.open("understand")
    user.page.locator("#understand-pictures [aria-label=Clear]").first.click()
    user.page.locator("#understand-pictures input[type=file]").set_input_files(broken)
    user.page.wait_for_selector("#understand-pictures img", state="attached")
    user.run("understand")
    notice = user.page.wait_for_selector("#understand-live .uni-notice")
    assert notice is not None and "“holiday.png” cannot be read as a picture" in notice.inner_text()
    assert str(tmp_path) not in notice.inner_text()
    user.page.locator("#understand-pictures [aria-label=Clear]").first.click()
    assert user.drive("understand", seed=4)["Seed"] == "4"


def test_two_users_at_once_get_their_own_results(user: Visitor, browser: Any, address: str) -> None:
    other = Visitor(browser, address, look="dark")
    asked = {user: ("a tree and a car in the snow", 11), other: ("a picture of three boats", 12)}
    for visitor, (prompt, seed) in asked.items():
        visitor.open("create")
        visitor.choose("create", prompt)
        visitor.fix_seed("create", seed)
    for visitor in asked:
        visitor.run("create")
    for visitor, (prompt, seed) in asked.items():
        assert visitor.wait("create")["Seed"] == str(seed)
        name = f"{prompt.replace(' ', '-')}-{seed}.png"
        visitor.page.wait_for_selector(f'#create-gallery img[src*="{name}"]')
    other.close()


def test_what_is_painted_may_change_and_is_sent_once(user: Visitor, tmp_path: Path) -> None:
    user.open("edit")
    user.choose("edit")
    canvas = user.page.locator("#edit-canvas canvas").first  # a second, below it, is for cropping
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    assert place is not None
    user.page.mouse.move(place["x"] + 0.3 * place["width"], place["y"] + 0.7 * place["height"])
    user.page.mouse.down()
    user.page.mouse.move(place["x"] + 0.4 * place["width"], place["y"] + 0.75 * place["height"], steps=4)
    user.page.mouse.up()
    uploads = len([url for url in user.requests if "/upload" in url])
    user.run("edit")
    user.wait("edit")
    user.drive("infill")
    # The picture, what was painted, and both together; nothing more in the run or after it.
    assert len([url for url in user.requests if "/upload" in url]) == uploads + 3
    user.open("edit")
    address = user.page.locator("#edit-gallery img").first.get_attribute("src")
    assert address is not None
    path = tmp_path / "edited.png"
    path.write_bytes(user.page.request.get(address).body())
    assert read_record(path).mask is not None
    with Image.open(path) as edited, Image.open(bundled_picture(read_tour().edits[0].pictures[0])) as given:
        right = (edited.width * 3 // 4, 0, edited.width, edited.height)
        assert edited.size == given.size
        assert edited.convert("RGB").crop(right).tobytes() == given.convert("RGB").crop(right).tobytes()
        assert edited.convert("RGB").tobytes() != given.convert("RGB").tobytes()


def test_a_picture_of_a_conversation_can_be_made_again(user: Visitor, tmp_path: Path) -> None:
    user.open("chat")
    if user.page.locator("#chat-messages .bot").count() == 0:
        user.drive("chat", seed=3)
    user.page.locator("#chat-message textarea").fill(read_tour().story)
    user.page.get_by_role("checkbox", name="Answer with pictures").check()
    user.fix_seed("chat", 5)
    user.run("chat")
    user.wait("chat")
    address = user.page.locator("#chat-messages .bot img").last.get_attribute("src")
    assert address is not None
    path = tmp_path / "told.png"
    path.write_bytes(user.page.request.get(address).body())
    record = read_record(path)
    # The conversation began with a question about a picture.
    assert record.task == "chat" and len(record.messages) == 3 and len(record.sources) == 1
    pipe = unimodal.load("tiny", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    shown = Source.read(str(bundled_picture(read_tour().questions[0].picture)), "shown")
    with Image.open(path) as told:
        assert compare(told, redraw(pipe, record, [shown])) is None


def test_nothing_comes_from_afar(user: Visitor, address: str) -> None:
    assert user.requests
    assert not [url for url in user.requests if not url.startswith((address, "data:", "blob:"))]
