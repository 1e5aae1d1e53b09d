"""Inference over gRPC: one message and one answer, or a stream of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.serving.admission import Admission, Place
from matchrt.serving.body import LARGE, SECONDS
from matchrt.serving.call import Call
from matchrt.serving.failures import draining, grpc_status, lacks_memory, surprise
from matchrt.serving.grpc_bounds import check_infer
from matchrt.serving.grpc_messages import message
from matchrt.serving.grpc_reading import parse, read, read_whole
from matchrt.serving.grpc_tensors import read_call, write_answer
from matchrt.serving.infer import infer_job
from matchrt.serving.models import VERSION, Model, find
from matchrt.serving.service import Job, Service
from matchrt.serving.tensors import InferCall, Tensor, Wanted

LOGGER = logging.getLogger("matchrt.serving")
# Streams at a time. Each may have one message in memory before that has a place.
_STREAMS = 8
# Seconds that a stream may be open without a message.
_QUIET = 60.0
# The mark of the last answer to a request of a stream, for Triton's clients. Ours has one answer, which is the last.
_IS_LAST = "triton_final_response"
Answer = Callable[[str, InferCall, list[Tensor]], Any]


class Inference:
    """The protocol's calls that run models.

    turns: a lock that all readings of messages share.
    largest: bytes of a message.
    """

    def __init__(self, service: Service, models: Mapping[str, Model], turns: asyncio.Lock, largest: int) -> None:
        self._service, self._models, self._turns = service, models, turns
        self._streams = Admission(_STREAMS, _STREAMS * largest, service.trimmer.freed)

    async def once(self, context: Any) -> bytes:
        """Answers a call of one message. Errors: model-not-served, request-invalid, those of `Service.run`."""
        place = self._service.enter()
        try:
            received = [await read_whole(context, self._turns, place, SECONDS)]
            return await self._run(received, self._call(context), place, _whole)
        finally:
            if not place.used:
                place.leave()

    async def stream(self, context: Any) -> None:
        """Answers the messages of a stream one after another, each by one message, also where a request fails.

        The next message is read when the answer is written; until then flow control keeps it with the client. Errors:
        body-slow if none comes for a minute; server-busy if there are too many streams; server-draining.
        """
        try:
            stream = self._streams.enter()
        except MatchRTError:
            raise _crowded() from None
        try:
            while True:
                received = [await self._next(context, stream)]
                if received[0] is None:
                    return
                size = len(received[0])
                await context.write(await self._answer(received, context))
                stream.hold(-size)
        finally:
            stream.leave()

    async def _next(self, context: Any, stream: Place) -> bytes | None:
        """The stream's next message; None for its end. Errors: those of `stream`."""
        reading = asyncio.ensure_future(read(context, self._turns, stream, _QUIET))
        ending = asyncio.ensure_future(self._service.draining.wait())
        try:
            await asyncio.wait((reading, ending), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise draining()
            return reading.result()
        except MatchRTError as error:
            if error.code == "server-busy":
                raise _crowded() from None
            if error.code != "body-slow":
                raise
            what = f"No message came on the stream for {_QUIET:g} seconds."
            raise MatchRTError("body-slow", what, "Open it again for the next one.") from None
        finally:
            reading.cancel()
            ending.cancel()

    async def _answer(self, received: list[bytes | None], context: Any) -> bytes:
        """The answer to a message of a stream: a result, or an error with the request's id."""
        start, status, ids = time.perf_counter(), "OK", [""]
        try:
            place = self._service.enter()
            try:
                place.hold(len(received[0] or b""))
                return await self._run(received, self._call(context), place, _of_stream, ids)
            finally:
                if not place.used:
                    place.leave()
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except Exception as error:
            failure = error if isinstance(error, MatchRTError) else surprise(error)
            if lacks_memory(error):
                LOGGER.error("out of memory in ModelStreamInfer")
            elif failure is not error:
                LOGGER.exception("unexpected failure in ModelStreamInfer")
            status = grpc_status(failure)
            answer = message("ModelStreamInferResponse")(error_message=str(failure), infer_response={"id": ids[0]})
            return bytes(answer.SerializeToString())
        finally:
            self._service.metrics.answered("grpc", "ModelStreamInfer", status, time.perf_counter() - start)

    def _run(
        self, received: list[Any], call: Call, place: Place, make: Answer, ids: list[str] | None = None
    ) -> asyncio.Future[bytes]:
        """The answer to a message, as a future.

        received: the message's bytes, which are taken out of it. make: the answer of a model's name, request and
        outputs. ids: where the request's id goes, as soon as it is known.
        """

        # Parsing a message may take long, so the request's own thread does it, and looks for the model.
        def prepare() -> Job[bytes]:
            raw = received.pop()
            with call.alone(self._service.parsing if len(raw) >= LARGE else None):
                check_infer(raw)
                request = parse("ModelInferRequest", raw)
                del raw
                if ids is not None:
                    ids[:] = [request.id]
                model = find(self._models, request.model_name, request.model_version)
                call.statistics = model.statistics
                asked = read_call(request)
            del request

            def write(asked: InferCall, tensors: list[Tensor], wanted: tuple[Wanted, ...]) -> bytes:
                return bytes(make(model.name, asked, tensors).SerializeToString())

            return infer_job(model, call, asked, write)

        return self._service.run(None, call, prepare, place)

    def _call(self, context: Any) -> Call:
        left = context.time_remaining()
        # If the caller set no deadline, grpc returns a very large number.
        return Call(min(self._service.options.timeout, left) if left is not None else self._service.options.timeout)


def _crowded() -> MatchRTError:
    """The error of a stream that finds no place, or that has lost its place to another one while it was silent."""
    what = f"All {_STREAMS} places for streams are taken."
    return MatchRTError("server-busy", what, "Share a stream, close those that are silent, or make plain calls.")


def _whole(model: str, asked: InferCall, tensors: list[Tensor]) -> Any:
    return write_answer(message("ModelInferResponse")(), model, VERSION, asked, tensors)


def _of_stream(model: str, asked: InferCall, tensors: list[Tensor]) -> Any:
    answer = message("ModelStreamInferResponse")()
    write_answer(answer.infer_response, model, VERSION, asked, tensors).parameters[_IS_LAST].bool_param = True
    return answer
