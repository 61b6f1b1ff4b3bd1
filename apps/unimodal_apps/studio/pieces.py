"""Components that several tabs have: their two columns, pictures that go in and come out, and examples."""

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

_PICTURES: dict[str, Any] = {
    "columns": 3,
    "fit_columns": False,
    "object_fit": "contain",
    "elem_classes": "uni-gallery",
}


def input_column(scale: int = 4) -> gr.Column:
    """Holds what users give; stands left of the work."""
    return gr.Column(scale=scale, min_width=320, elem_classes="uni-inputs")


def work_column(scale: int = 7) -> gr.Column:
    """Holds the run and what comes of it."""
    return gr.Column(scale=scale, min_width=320, elem_classes="uni-work")


def picture_uploads(height: int = 180, name: str | None = None) -> gr.Gallery:
    """Takes pictures; its value is what `inputs.read_uploads` reads.

    Args:
        name: the id of its element.
    """
    return gr.Gallery(
        label="Pictures",
        type="filepath",
        file_types=["image"],
        interactive=True,
        height=height,
        elem_id=name,
        **_PICTURES,
    )


def result_gallery(label: str, name: str) -> gr.Gallery:
    """Shows the pictures of a result, each in full; out of sight until there are some."""
    return gr.Gallery(label=label, height="auto", interactive=False, visible=False, elem_id=name, **_PICTURES)


def offer_examples(
    rows: Sequence[Sequence[Any]], components: Sequence[Any], shown: Sequence[int] | None = None
) -> gr.Dataset:
    """A table of examples; choosing one fills in the components.

    Gradio's own `Examples` makes every component that it fills in one that shows progress. Such a component is asked
    for its value at each step of any run, and a canvas answers that by uploading its pictures anew.

    Args:
        rows: values of the components.
        shown: which of them the table shows; None is all.
    """
    places = range(len(components)) if shown is None else shown
    # A field shortens its examples; as HTML they are whole.
    texts = {place for place in places if isinstance(rows[0][place], str)}
    table = gr.Dataset(
        label="Examples",
        components=["html" if place in texts else components[place] for place in places],
        samples=[[escape(row[place]) if place in texts else row[place] for place in places] for row in rows],
        type="index",
    )

    def chosen(index: int) -> Any:
        values = list(rows[index])
        return values if len(values) > 1 else values[0]

    table.click(
        chosen,
        table,
        list(components),
        queue=False,
        show_progress="hidden",
        show_progress_on=table,
        api_visibility="private",
    )
    return table
