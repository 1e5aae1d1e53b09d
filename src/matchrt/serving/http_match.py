"""`POST /v1/match` takes two image files and answers with matches, and with a picture on request."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import orjson
from fastapi import Request, Response
from PIL import Image as PILImage
from pydantic import BaseModel, Field, ValidationError

from matchrt.runtime.advice import advised
from matchrt.runtime.image import Image
from matchrt.runtime.matches import Matches
from matchrt.runtime.options import Effort, Switch
from matchrt.serving.body import Body
from matchrt.serving.call import Call
from matchrt.serving.failures import bad_request
from matchrt.serving.http_components import FILE, Schema, object_of, ref
from matchrt.serving.http_guard import body_of
from matchrt.serving.http_multipart import read_boundary, read_parts
from matchrt.serving.http_schemas import TIMEOUT, WORK, json_answer, takes
from matchrt.serving.http_waiting import read_timeout, unless_gone
from matchrt.serving.models import Model, files_model, pair_job
from matchrt.serving.options import Verify
from matchrt.serving.service import Job, Service
from matchrt.serving.wishes import Wishes
from matchrt.serving.workers import Run

if TYPE_CHECKING:
    from fastapi import FastAPI

Picture = Literal["none", "png", "jpeg"]
# The form's fields that are files.
_FILES = {"image0": "An image file.", "image1": "The other one."}


class MatchForm(BaseModel):
    """The fields of a request that are no files."""

    engine: str | None = Field(None, description="Where several are served.")
    min_score: float | None = Field(None, ge=0, le=1, description="Default: the engine's.")
    rotate: Switch | None = Field(
        None, description="auto: turn image1 by quarters if the pair gives little. Default: with high effort."
    )
    zoom: Switch | None = Field(
        None, description="auto: try each image at half the size if the pair gives little. Default: with high effort."
    )
    effort: Effort = Field(
        "normal", description="high: try all of this that is not off, a larger size and weaker matches."
    )
    verify: Verify = Field("none", description="Geometry to check the matches by.")
    picture: Picture = Field("none", description="Draw the matches.")


def add_match(app: FastAPI, service: Service, models: Mapping[str, Model]) -> None:
    """Adds the endpoint to the application. Raises nothing.

    models: of the service, by name. A request counts in the statistics of the model that takes files.
    """

    @app.post("/v1/match", tags=["matching"], response_class=Response, **_described())
    async def match(request: Request) -> Response:
        """Matches two images. Keypoints are pixels of the images as given, turned as EXIF says."""
        boundary = read_boundary(request.headers.get("content-type", ""))
        body, call = body_of(request), Call(read_timeout(request, service.options.timeout))
        work = service.run(None, call, lambda: _job(service, models, call, body, boundary), body.place)
        return Response(await unless_gone(request, work), media_type="application/json")


def _described() -> dict[str, Any]:
    request = takes({"multipart/form-data": ref("MatchRequest")}, (TIMEOUT,))
    return {**request, "responses": json_answer(ref("MatchAnswer"), WORK)}


def match_schemas() -> dict[str, Schema]:
    """The named schema of the endpoint's form, which is that of `MatchForm` with the files. Raises nothing."""
    files = {name: {**FILE, "description": words} for name, words in _FILES.items()}
    fields = {name: _without_null(field) for name, field in MatchForm.model_json_schema()["properties"].items()}
    return {"MatchRequest": object_of(_FILES, **files, **fields)}


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """A field's schema for a form, which can leave a field out but cannot say null."""
    kept = {key: value for key, value in field.items() if key not in ("anyOf", "default", "title")}
    kinds = [kind for kind in field.get("anyOf", []) if kind.get("type") != "null"]
    return {**(kinds[0] if kinds else {}), **kept, **({"default": d} if (d := field.get("default")) else {})}


def _job(service: Service, models: Mapping[str, Model], call: Call, body: Body, boundary: bytes) -> Job[bytes]:
    """The job of a request. Errors: request-invalid, model-not-served, those of `Body.take` and `pair_job`."""
    with call.alone(service.parsing if body.large else None):
        files, form = _read_body(body.take(), boundary)
    engine = service.engine(form.engine)
    call.statistics = models[files_model(engine.name)].statistics
    read0, read1 = (partial(engine.decoders.decode, data, name, call) for data, name in files)
    wishes = Wishes(form.min_score, form.rotate, form.zoom, form.effort)
    pair, images = pair_job(engine, (read0, read1), wishes, call)
    # Images are large, so they are kept during the run only if they are drawn on.
    drawn = None if form.picture == "none" else images

    def finish(run: Run) -> bytes:
        found = pair.finish(run)
        if form.verify != "none":
            found = found.verify(form.verify, judged=found.judgement is None)
        matches = advised(found, engine.manifest, wishes.options(engine.max_pixels), "request")
        return _answer(matches, None if drawn is None else _picture(matches, *drawn, form.picture))

    return Job(pair.inputs, finish, engine)


def _read_body(content: bytearray, boundary: bytes) -> tuple[list[tuple[bytes, str]], MatchForm]:
    """The two files with their names, and the fields. Error: request-invalid."""
    parts = read_parts(content, boundary)
    files = []
    for field in _FILES:
        part = parts.pop(field, None)
        if part is None or part.filename is None:
            raise bad_request(f"The form's field '{field}' is missing, or is no file.", "Send two image files.")
        files.append((bytes(part.content), (part.filename or field)[:200]))
    return files, _read_form({name: part.text() for name, part in parts.items()})


def _read_form(texts: dict[str, str]) -> MatchForm:
    """The fields, checked. An empty text means the default. Error: request-invalid."""
    try:
        return MatchForm.model_validate({name: text for name, text in texts.items() if text})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise bad_request(f"{where[:80]}: {first['msg']}.", "See /docs.") from error


def _answer(matches: Matches, picture: str | None) -> bytes:
    answer: dict[str, Any] = {
        **matches.account(),
        "keypoints0": matches.keypoints0,
        "keypoints1": matches.keypoints1,
        "scores": matches.scores,
    }
    if matches.geometry is not None:
        answer["inliers"] = matches.inliers
    if picture is not None:
        answer["picture"] = picture
    # float32 as the shortest decimal that reads back to it.
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _picture(matches: Matches, first: Image, second: Image, kind: Picture) -> str:
    buffer = io.BytesIO()
    PILImage.fromarray(matches.draw(first, second)).save(buffer, format=kind.upper(), quality=90)
    return base64.b64encode(buffer.getvalue()).decode()
