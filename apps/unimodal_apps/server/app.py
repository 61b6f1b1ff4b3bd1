"""The server as an ASGI application: routes, middleware, errors, and the life of the engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel

import unimodal
from unimodal_apps.server import chat, images, openapi
from unimodal_apps.server.engine import Engine
from unimodal_apps.server.errors import ApiError, declared, handle_errors
from unimodal_apps.server.gate import Counted, Gate
from unimodal_apps.server.limits import Limits
from unimodal_apps.server.metrics import CONTENT_TYPE, Metrics
from unimodal_apps.server.options import ServerOptions
from unimodal_apps.server.served import ServedPictures


class Health(BaseModel):
    status: Literal["ok"]
    model: str
    waiting: int
    running: int
    version: str


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "unimodal"


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


def create_app(pipe: unimodal.Pipeline, options: ServerOptions) -> FastAPI:
    """An application that serves one pipeline; its engine lives as long as the application does."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await asyncio.to_thread(engine.close)

    metrics = Metrics()
    engine = Engine(pipe, options, metrics)
    app = FastAPI(
        title="Unimodal",
        description="Text and pictures in and out of one masked-diffusion model, in the protocol of OpenAI.",
        version=unimodal.__version__,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.engine, app.state.metrics, app.state.options = engine, metrics, options
    app.state.limits = Limits(pipe, options)
    app.state.served = ServedPictures(options)
    handle_errors(app)
    app.include_router(chat.router)
    app.include_router(images.router)

    @app.get("/health", responses=declared(503), tags=["server"], summary="Whether the server works")
    async def health(request: Request) -> Health:
        if not engine.alive:
            raise ApiError(503, "the server is shutting down", code="shutting_down")
        return Health(
            status="ok",
            model=options.model,
            waiting=engine.num_waiting,
            running=engine.num_running,
            version=unimodal.__version__,
        )

    @app.get("/v1/models", responses=declared(401), tags=["server"], summary="The model")
    async def models(request: Request) -> Models:
        return Models(data=[Model(id=options.model)])

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"description": "Numbers for Prometheus.", "content": {"text/plain": {}}}},
        tags=["server"],
        summary="Numbers for Prometheus",
    )
    async def numbers(request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    app.add_middleware(Gate, options=options, open_paths=(images.SERVED,))
    if options.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.allowed_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id"],
        )
    app.add_middleware(Counted, metrics=metrics)
    openapi.describe(app)
    return app
