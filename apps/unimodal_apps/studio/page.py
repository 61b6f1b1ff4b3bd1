"""The page: a head, a tab for every job, and the server that shows it."""

from collections.abc import Callable
from html import escape
from importlib.resources import files

import gradio as gr

from unimodal.quickstart.tour import bundled_picture, read_tour
from unimodal_apps.studio.studio import Studio
from unimodal_apps.studio.tabs import chat, create, edit, infill, story, understand
from unimodal_apps.studio.theme import studio_theme

TABS: dict[str, tuple[str, Callable[[Studio], None]]] = {
    "Chat": ("chat", chat.build),
    "Understand": ("understand", understand.build),
    "Create": ("create", create.build),
    "Edit": ("edit", edit.build),
    "Interleaved story": ("story", story.build),
    "Infill": ("infill", infill.build),
}
"""Title, name and content of every tab, in order."""
TEXT_TABS = ("chat", "infill")
"""Tabs that a checkpoint without pictures has."""

MOST_BYTES = "32mb"
_CLEAN_EVERY, _CLEAN_OLDER = 3600, 6 * 3600


def build_page(studio: Studio) -> gr.Blocks:
    """All tabs, wired to the studio."""
    with gr.Blocks(
        title=f"Unimodal studio, {studio.name}",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_CLEAN_EVERY, _CLEAN_OLDER),
    ) as page:
        gr.HTML(_head(studio), elem_classes="uni-head-block")
        with gr.Tabs(elem_classes="uni-tabs"):
            for title, (name, build) in TABS.items():
                if name in TEXT_TABS or not studio.pipe.vocab.is_text_only:
                    with gr.Tab(title, id=name, elem_id=f"tab-{name}"):
                        build(studio)

        def left(request: gr.Request) -> None:
            # Somebody closed the page: what they asked for is not needed any more.
            studio.runner.stop(lambda owner: isinstance(owner, tuple) and owner[0] == request.session_hash)

        page.unload(left)
    return page


def launch(
    studio: Studio, *, host: str = "127.0.0.1", port: int | None = None, share: bool = False, quiet: bool = False
) -> tuple[gr.Blocks, str]:
    """Serves the page from a thread of its own until it is closed.

    Args:
        port: None takes the first free one from 7860 on.
        share: also under a public address, through Gradio's relay.

    Returns:
        The page, and its address.

    Raises:
        ValueError: the host or port cannot be used.
    """
    page = build_page(studio)
    style = (files("unimodal_apps") / "studio" / "studio.css").read_text(encoding="utf-8")
    page.queue(max_size=64)
    try:
        _, local, public = page.launch(
            server_name=host,
            server_port=port,
            share=share,
            quiet=quiet,
            prevent_thread_lock=True,
            show_error=True,
            footer_links=[],
            ssr_mode=False,
            mcp_server=False,
            max_file_size=MOST_BYTES,
            allowed_paths=[str(bundled_picture(name)) for name in read_tour().pictures],
            theme=studio_theme(),
            css=style,
        )
    except OSError as error:
        raise ValueError(f"host, port: nothing can be served at {host}:{port or 'any port'} ({error})") from error
    return page, public or local


def _head(studio: Studio) -> str:
    facts = " · ".join(escape(fact) for fact in (studio.name, studio.device, studio.dtype))
    toggle = "document.body.classList.toggle('dark')"
    return (
        '<header class="uni-head"><div class="uni-mark" aria-hidden="true"></div>'
        "<div><h1>Unimodal <span>studio</span></h1>"
        "<p>One model that looks, draws, edits and tells. Watch every token settle.</p></div>"
        f'<div class="uni-model">{facts}</div>'
        f'<button class="uni-toggle" aria-label="Light or dark" title="Light or dark" onclick="{toggle}">◐</button>'
        "</header>"
    )
