"""`unimodal info`: what a model consists of and the memory it takes."""

from typing import Annotated, Any

import typer

from unimodal_apps import options
from unimodal_apps.session import report

DTYPES = ("float32", "bfloat16", "float16")


def info(
    configuration: Annotated[
        str | None, typer.Argument(help="A model or configuration, as in uni_16b; all that are known if left out.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The same: an embedded checkpoint, a folder, or a packaged configuration.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Count parameters, tensors and memory of each component, without loading any weights.

    \b
    Examples:
      unimodal info
      unimodal info uni_16b
      unimodal info runs/tiny --json
    """
    from unimodal.inventory_sources import describe, known

    if configuration is not None and model is not None:
        raise typer.BadParameter("give CONFIGURATION or --model, not both")
    asked = model or configuration
    described = [describe(name) for name in ([asked] if asked is not None else known())]
    result: dict[str, Any] = described[0] if asked is not None else {"models": described}
    report(as_json, result, [line for entry in described for line in _table(entry)][:-1])


def _table(entry: dict[str, Any]) -> list[str]:
    rows = [["component", "parameters", "active", "tensors", *DTYPES]]
    for part in [*entry["components"], entry["total"]]:
        counts = [f"{part[name]:,}" for name in ("parameters", "active_parameters", "tensors")]
        rows.append([part["name"], *counts, *(_size(part["memory"][dtype]) for dtype in DTYPES)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) if not column else text.rjust(width) for column, (text, width) in cells)
        for cells in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]
    on_disk = f", {_size(entry['bytes_on_disk'])} on disk" if "bytes_on_disk" in entry else ""
    return [f"{entry['name']}  ({entry['source']}{on_disk})", *lines, ""]


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
