"""The OpenAPI document of one server, with what only it knows: sizes, counts, its model and whether it has a key."""

from typing import Any

from fastapi import FastAPI

from unimodal.diffusion.policies import POLICIES, make_policy
from unimodal.diffusion.policies.scores import ALL
from unimodal.settings import preset_names
from unimodal_apps.server.gate import GUARDED
from unimodal_apps.server.image_requests import EditFields
from unimodal_apps.server.images import SERVED
from unimodal_apps.server.limits import STEPS, Limits

_REFERENCES = "#/components/schemas/{model}"


def describe(app: FastAPI) -> None:
    """Makes `app.openapi` say what the application does, no more and no less."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(plain(), app.state.limits)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _described(document: dict[str, Any], limits: Limits) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    schemas["EditRequest"] = _edit_form(limits)
    form = document["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]["multipart/form-data"]
    form["schema"] = {"$ref": _REFERENCES.format(model="EditRequest")}
    for schema in schemas.values():
        _limit(schema.get("properties", {}), limits)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            # Requests that do not fit are answered with 400, as OpenAI does.
            operation["responses"].pop("422", None)
            guarded = limits.options.api_key is not None and path.startswith(GUARDED) and not path.startswith(SERVED)
            if guarded:
                operation["security"] = [{"key": []}]
            else:
                operation["responses"].pop("401", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    if limits.options.api_key is not None:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document


def _edit_form(limits: Limits) -> dict[str, Any]:
    """Fields and files of an edit."""
    schema = EditFields.model_json_schema(ref_template=_REFERENCES)
    file = {"type": "string", "format": "binary"}
    several = {"type": "array", "items": file, "minItems": 1, "maxItems": limits.options.max_pictures}
    schema["title"] = "EditRequest"
    schema["properties"] |= {
        "image": {"anyOf": [file, several], "description": "The picture, or several to take from."},
        "image[]": {**several, "description": "Another name for several pictures."},
        "mask": {**file, "description": "Where to change: transparent or, without transparency, white."},
    }
    schema["anyOf"] = [{"required": ["image"]}, {"required": ["image[]"]}]
    return schema


def _limit(properties: dict[str, Any], limits: Limits) -> None:
    options = limits.options
    most = {"max_images": options.max_images, "max_image_tokens": limits.max_codes}
    most |= dict.fromkeys(STEPS, options.max_steps)
    most |= dict.fromkeys(("max_tokens", "max_completion_tokens", "thinking_gen_length"), options.max_text_tokens)
    # Answers hold text, also those with pictures, and not every policy can end a text.
    ends_text = "max_images" in properties
    named = {
        "preset": list(preset_names()),
        "policy": [name for name in POLICIES if make_policy(name).ends_text or not ends_text],
        "remasking": list(ALL),
    }
    for name, values in named.items():
        if name in properties:
            properties[name]["anyOf"][0]["enum"] = values
    draws, chats = "prompt" in properties and "size" in properties, "messages" in properties
    if draws:
        most["n"] = options.max_images
        properties["size"]["enum"] = ["auto", *limits.sizes]
    if draws or chats:
        properties["model"]["anyOf"][0]["enum"] = [options.model]
    for name, value in most.items():
        for place in _numbers(properties.get(name, {})):
            place["maximum"] = value


def _numbers(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a schema that are whole numbers."""
    return [part for part in schema.get("anyOf", [schema]) if part.get("type") == "integer"]
