"""`POST /v1/match` takes two image files and answers with matches, and with a picture on request."""

from __future__ import annotations

import base64
import io
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import orjson
from fastapi import Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from PIL import Image as PILImage
from pydantic import BaseModel, Field, ValidationError

from matchrt.runtime.image import Image
from matchrt.runtime.matches import Matches
from matchrt.serving.call import Call
from matchrt.serving.failures import bad_request
from matchrt.serving.http_schemas import WORK, json_answer
from matchrt.serving.http_waiting import read_timeout, unless_gone
from matchrt.serving.models import pair_job
from matchrt.serving.options import Verify
from matchrt.serving.service import Job, ServedEngine, Service
from matchrt.serving.workers import Run

if TYPE_CHECKING:
    from fastapi import FastAPI

Picture = Literal["none", "png", "jpeg"]
_POINTS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}}
_SIZE = {"type": "object", "properties": {"height": {"type": "integer"}, "width": {"type": "integer"}}}
_ANSWER = {
    "type": "object",
    "required": ["matches", "keypoints0", "keypoints1", "scores", "image0", "image1", "timings_ms", "provenance"],
    "properties": {
        "matches": {"type": "integer"},
        "keypoints0": {**_POINTS, "description": "x, y in pixels of image0; its top-left pixel's centre is 0, 0"},
        "keypoints1": {**_POINTS, "description": "the same of image1"},
        "scores": {"type": "array", "items": {"type": "number"}, "description": "0..1, best first"},
        "inliers": {"type": "array", "items": {"type": "boolean"}, "description": "with verify"},
        "geometry": {"type": "object", "description": "with verify"},
        "image0": _SIZE,
        "image1": _SIZE,
        "picture": {"type": "string", "description": "base64, with picture"},
        "timings_ms": {
            "type": "object",
            "description": "decode: until both images were decoded; resize: from then until both were resized; "
            "inference: the engine's run; to_pixels: scaling the matches back",
        },
        "provenance": {"type": "object"},
    },
}


class MatchForm(BaseModel):
    """The fields of a request."""

    image0: UploadFile = Field(description="An image file.")
    image1: UploadFile = Field(description="The other one.")
    engine: str | None = Field(None, description="Where several are served.")
    min_score: float | None = Field(None, ge=0, le=1, description="Default: the engine's.")
    verify: Verify = Field("none", description="Geometry to check the matches by.")
    picture: Picture = Field("none", description="Draw the matches.")


def add_match(app: FastAPI, service: Service) -> None:
    """Adds the endpoint to the application."""

    @app.post("/v1/match", tags=["matching"], response_class=Response, **_described())
    async def match(request: Request) -> Response:
        """Matches two images. Keypoints are pixels of the images as given, turned as EXIF says."""
        form, files = await _read_form(request)
        chosen = service.engine(form.engine)
        call = Call(read_timeout(request, service.options.timeout))
        work = service.run(chosen, call, lambda: _job(chosen, call, files, form))
        return Response(await unless_gone(request, work), media_type="application/json")


def _described() -> dict[str, Any]:
    content = {"multipart/form-data": {"schema": MatchForm.model_json_schema()}}
    return {"openapi_extra": {"requestBody": {"required": True, "content": content}},
            "responses": json_answer(_ANSWER, WORK)}  # fmt: skip


async def _read_form(request: Request) -> tuple[MatchForm, tuple[bytes, bytes]]:
    """The fields, checked, and the two files. An empty text means the default.

    They are not parameters of the endpoint, because FastAPI then inspects their types in every request, which takes as
    long as parsing the form. Errors: request-invalid, RequestValidationError.
    """
    try:
        fields = await request.form()
    except ValueError as error:  # a charset whose decoder fails in a way of its own
        raise bad_request("The form's texts cannot be read.", "Send them as UTF-8.") from error
    try:
        form = MatchForm.model_validate({name: value for name, value in fields.items() if value != ""})
        return form, (await form.image0.read(), await form.image1.read())
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    finally:
        await fields.close()


def _job(
    engine: ServedEngine,
    call: Call,
    files: tuple[bytes, bytes],
    form: MatchForm,
) -> Job[bytes]:
    names = form.image0.filename or "image0", form.image1.filename or "image1"
    read0, read1 = (
        partial(engine.decoders.decode, data, name[:200], call) for data, name in zip(files, names, strict=True)
    )
    pair, images = pair_job(engine, read0, read1, form.min_score)
    # Images are large, so they are kept during the run only if they are drawn on.
    drawn = None if form.picture == "none" else images

    def finish(run: Run) -> bytes:
        matches = pair.finish(run)
        if form.verify != "none":
            matches = matches.verify(form.verify)
        return _answer(matches, None if drawn is None else _picture(matches, *drawn, form.picture))

    return Job(pair.inputs, finish)


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
