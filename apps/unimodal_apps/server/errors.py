"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}` and a status."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    error: ErrorDetail


MEANINGS = {
    400: "The request cannot be used; `param` names what is wrong with it.",
    401: "The API key is missing or wrong.",
    404: "There is no such model.",
    408: "The request did not arrive in time.",
    413: "The request, or a picture in it, is too large.",
    429: "The queue is full; try again after `Retry-After` seconds.",
    500: "Something went wrong in the server.",
    503: "The server is shutting down.",
    504: "The answer took longer than the server allows.",
}
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}

# Asking for the same again would take as long again.
NO_RETRY = {"x-should-retry": "false"}


class ApiError(HTTPException):
    """An answer that is an error.

    Args:
        status: of HTTP.
        param: the part of the request that is to blame.
        code: a short name of what happened.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers) if headers else None)
        self.param = param
        self.code = code


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def bad_request(error: Exception) -> ApiError:
    """From an error of the pipeline, whose message begins with the name of an argument."""
    message = str(error) or type(error).__name__
    named = re.match(r"([\w.\[\]]+)(?:, \w+)*: ", message)
    return ApiError(400, message, param=named[1] if named else None, code="invalid_value")


def invalid(error: ValidationError | RequestValidationError) -> ApiError:
    """From the first thing that does not fit the schema of a request."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the request is not JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    name = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"{name}: there is no such argument", param=name, code="unknown_parameter")
    if first["type"] == "missing":
        return ApiError(400, f"{name or 'body'}: it is missing", param=name, code="missing_parameter")
    reason = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{name}: {reason}" if name else reason, param=name, code="invalid_value")


def error_response(
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    body = ErrorBody(error=ErrorDetail(message=message, type=kind, param=param, code=code))
    return JSONResponse(body.model_dump(), status, headers)


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: the errors that an endpoint may answer with."""
    return {status: {"model": ErrorBody, "description": MEANINGS[status]} for status in sorted(statuses)}


def handle_errors(app: FastAPI) -> None:
    """Gives every error the same form."""

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        param, code = getattr(error, "param", None), getattr(error, "code", None)
        return error_response(error.status_code, str(error.detail), param, code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return await _http(request, invalid(error))

    @app.exception_handler(ClientGone)
    async def _gone(request: Request, error: ClientGone) -> JSONResponse:
        # Nobody reads this; 499 is what logs call it.
        return error_response(499, "the client has left")

    @app.exception_handler(Exception)
    async def _failed(request: Request, error: Exception) -> JSONResponse:
        return error_response(500, "something went wrong in the server; its log says what", headers=NO_RETRY)
