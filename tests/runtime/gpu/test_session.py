"""Sessions on stubs of CUDA and TensorRT: bytes move, memory is taken once and given back, graphs are launched."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
import pytest
from support.machines import KINDS, Machine, make_engine
from support.tensorrt_stub.running import kernel

from matchrt.errors import InternalError, MatchRTError
from matchrt.runtime.gpu.session import GRAPH_CHECKS, MAX_SHAPES, TensorRTSession
from matchrt.runtime.opening import open_session
from matchrt.runtime.session import SessionOptions

Arrays = dict[str, npt.NDArray[Any]]
every_machine = pytest.mark.parametrize("machine", KINDS, indirect=True)
ALLOCATING = ("cudaMalloc", "cudaHostAlloc", "cudaEventCreateWithFlags", "cudaStreamCreateWithFlags")


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *names, **more: str(tmp_path))


@pytest.fixture
def session(machine: Machine) -> Iterator[TensorRTSession]:
    opened = open_session(make_engine(machine))
    assert isinstance(opened, TensorRTSession)
    yield opened
    opened.close()


def inputs(seed: int, size0: tuple[int, int] = (32, 48), size1: tuple[int, int] | None = None) -> Arrays:
    """Static unless the second size is given."""
    random = np.random.default_rng(seed)
    sizes = (size0, size1 or size0)
    made: Arrays = {f"image{i}": random.integers(0, 256, (1, *sizes[i], 1), np.uint8) for i in (0, 1)}
    if size1 is None:
        made |= {f"size{i}": np.array([size0], np.int32) for i in (0, 1)}
    return made


def expected(given: Arrays) -> Arrays:
    """What the stub's kernel makes of them."""
    outputs: Arrays = {
        "keypoints0": np.empty((1, 16, 2), np.float32), "keypoints1": np.empty((1, 16, 2), np.float32),
        "scores": np.empty((1, 16), np.float32), "num_matches": np.empty(1, np.int32),
    }  # fmt: skip
    kernel(given, outputs)
    return outputs


def same(left: Arrays, right: Arrays) -> bool:
    return set(left) == set(right) and all(np.array_equal(left[name], right[name]) for name in left)


def code_of(action: Any, *arguments: Any) -> str:
    with pytest.raises(MatchRTError) as caught:
        action(*arguments)
    assert caught.value.remedy
    return caught.value.code


@every_machine
def test_bytes_go_up_through_the_kernel_and_down(session: TensorRTSession) -> None:
    for seed in range(5):
        given = inputs(seed)
        assert same(session.run(given), expected(given))


@every_machine
def test_results_are_the_callers_own(session: TensorRTSession) -> None:
    first = session.run(inputs(1))
    kept = {name: array.copy() for name, array in first.items()}
    session.run(inputs(2))
    assert same(first, kept)
    first["scores"][...] = 7
    assert same(session.run(inputs(1)), kept)


@every_machine
def test_what_is_written_into_lent_memory_is_not_copied(machine: Machine, session: TensorRTSession) -> None:
    shapes = {name: array.shape for name, array in inputs(0).items() if name.startswith("image")}
    assert session.staging(shapes) is None  # nothing has run on these shapes
    session.run(inputs(0))
    assert session.staging({**shapes, "image0": (1, 8, 8, 1)}) is None
    for seed in range(1, 5):
        lent, given = session.staging(shapes), inputs(seed)
        assert lent is not None and set(lent) == set(given)
        for name in shapes:
            lent[name][...] = given[name]
        assert same(session.run({**given, **{name: lent[name][0][None] for name in shapes}}), expected(given))
        assert same(session.run(inputs(9)), expected(inputs(9)))  # arrays of the caller's between these runs
    session.start(inputs(1))
    assert code_of(session.staging, shapes) == "session-busy"
    session.close()
    assert code_of(session.staging, shapes) == "session-closed"


@every_machine
def test_nothing_is_allocated_after_the_first_run(machine: Machine, session: TensorRTSession) -> None:
    session.run(inputs(0))
    taken, contexts = machine.cuda.count(*ALLOCATING), machine.script.names().count("create_execution_context")
    for seed in range(50):
        session.run(inputs(seed))
    assert machine.cuda.count(*ALLOCATING) == taken
    assert machine.script.names().count("create_execution_context") == contexts == 1
    assert machine.cuda.count("cudaMalloc") == 3 and machine.cuda.count("cudaHostAlloc") == 2


@every_machine
def test_the_second_run_captures_and_all_later_ones_launch(machine: Machine, session: TensorRTSession) -> None:
    cuda, script = machine.cuda, machine.script
    assert session.launch_mode() == "not run yet"
    session.run(inputs(0))
    assert cuda.count("cudaStreamBeginCapture") == 0 and "second run" in session.launch_mode()
    session.run(inputs(1))
    assert cuda.count("cudaGraphInstantiate") == cuda.count("cudaGraphDestroy") == 1
    assert cuda.count("cudaGraphLaunch") == GRAPH_CHECKS + 1
    assert session.launch_mode() == "graph"
    enqueued = script.names().count("execute_async_v3")
    assert enqueued == 3  # the first run, the capture, and the plain run that the graph is compared with
    cuda.calls.clear()
    for seed in range(2, 6):
        assert same(session.run(inputs(seed)), expected(inputs(seed)))
    assert script.names().count("execute_async_v3") == enqueued
    assert cuda.count("cudaGraphLaunch") == 4 and cuda.count("cudaStreamBeginCapture") == 0


def test_a_replayed_run_is_few_calls(machine: Machine, session: TensorRTSession) -> None:
    for seed in range(3):
        session.run(inputs(seed))
    machine.cuda.calls.clear()
    session.run(inputs(3))
    others = [name for name in machine.cuda.calls if name not in ("cudaEventElapsedTime", "cudaEventRecord")]
    assert others == [
        "cudaSetDevice", "cudaMemcpyAsync", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaStreamSynchronize"
    ]  # fmt: skip


@every_machine
def test_graphs_switched_off(machine: Machine) -> None:
    session = TensorRTSession(make_engine(machine), SessionOptions(cuda_graph=False))
    for seed in range(4):
        assert same(session.run(inputs(seed)), expected(inputs(seed)))
    assert session.launch_mode() == "enqueue (switched off)" and machine.cuda.count("cudaStreamBeginCapture") == 0
    session.close()


def test_an_engine_that_says_it_cannot_be_captured(machine: Machine, session: TensorRTSession) -> None:
    machine.script.not_capturable = True
    for seed in range(4):
        assert same(session.run(inputs(seed)), expected(inputs(seed)))
    assert "cannot be captured" in session.launch_mode() and machine.cuda.count("cudaStreamBeginCapture") == 0
    assert machine.script.names().count("is_stream_capturable") == 1  # asked once, not in every run


@every_machine
@pytest.mark.parametrize("where", ["kernel", "end", "instantiate", "begin"])
def test_a_capture_that_fails_is_told_and_runs_go_on(machine: Machine, session: TensorRTSession, where: str) -> None:
    session.run(inputs(0))
    functions = {
        "end": "cudaStreamEndCapture",
        "instantiate": "cudaGraphInstantiate",
        "begin": "cudaStreamBeginCapture",
    }
    if where == "kernel":
        machine.script.breaks_capture = True
    else:
        machine.cuda.failing[functions[where]] = "cudaErrorStreamCaptureUnsupported"
    if where == "end":  # the real one ends the capture, whatever it returns
        _end_captures_with_errors(machine)
    for seed in range(1, 5):
        assert same(session.run(inputs(seed)), expected(inputs(seed)))
    mode = session.launch_mode()
    assert mode.startswith("enqueue (capturing failed: ")
    assert ("illegal memory access" if where == "kernel" else functions[where]) in mode
    assert machine.cuda.graphs == machine.cuda.execs == {} and machine.cuda.count("cudaStreamBeginCapture") == 1


@every_machine
def test_a_graph_that_gives_other_bits_is_not_used(
    machine: Machine, session: TensorRTSession, caplog: pytest.LogCaptureFixture
) -> None:
    machine.script.races_in_graphs = True
    for seed in range(8):
        assert same(session.run(inputs(seed)), expected(inputs(seed)))
    assert "differ" in session.launch_mode() and "no CUDA graph" in caplog.text
    assert machine.cuda.execs == {} and machine.cuda.count("cudaStreamBeginCapture") == 1
    # The context that was captured goes on racing: the results above are those of another.
    assert machine.script.names().count("create_execution_context") == 2


def _end_captures_with_errors(machine: Machine) -> None:
    real = machine.cuda.module.cudaStreamEndCapture

    def end(stream: int) -> Any:
        machine.cuda.streams[stream].captured = None
        return real(stream)

    end.__name__ = "cudaStreamEndCapture"
    machine.cuda.module.cudaStreamEndCapture = end


@every_machine
def test_stage_times_are_measured_in_every_run(session: TensorRTSession) -> None:
    for seed in range(4):  # plainly, captured, replayed
        pending = session.start(inputs(seed))
        times = pending.timings()
        assert set(times) == {"upload", "gpu", "download"} and all(value > 0 for value in times.values())
        assert same(pending.result(), expected(inputs(seed)))


@every_machine
def test_one_run_at_a_time(session: TensorRTSession) -> None:
    pending = session.start(inputs(1))
    assert code_of(session.run, inputs(2)) == "session-busy"
    assert same(pending.result(), expected(inputs(1)))
    assert pending.result() is pending.result()
    assert same(session.run(inputs(2)), expected(inputs(2)))
    assert same(pending.result(), expected(inputs(1)))


@every_machine
def test_closed_sessions(machine: Machine) -> None:
    session = open_session(make_engine(machine))
    pending = session.start(inputs(0))
    session.close()
    session.close()
    for action in (lambda: session.run(inputs(0)), pending.result, session.fork):
        assert code_of(action) == "session-closed"
    assert session.manifest.model == "loftr-outdoor"


@every_machine
@pytest.mark.parametrize("runs", [0, 1, 3])
def test_closing_gives_everything_back(machine: Machine, runs: int) -> None:
    sessions = [open_session(make_engine(machine))]
    sessions.append(sessions[0].fork())
    for session in sessions:
        for seed in range(runs):
            session.run(inputs(seed))
    assert machine.cuda.held() > 0
    for session in sessions:
        session.close()
    assert machine.cuda.held() == 0
    for taking, giving in (("cudaMalloc", "cudaFree"), ("cudaHostAlloc", "cudaFreeHost"),
                           ("cudaEventCreateWithFlags", "cudaEventDestroy"),
                           ("cudaStreamCreateWithFlags", "cudaStreamDestroy"),
                           ("cudaGraphInstantiate", "cudaGraphExecDestroy")):  # fmt: skip
        assert machine.cuda.count(taking) == machine.cuda.count(giving), taking


@every_machine
def test_a_forgotten_session_gives_everything_back_too(machine: Machine) -> None:
    session = open_session(make_engine(machine))
    for seed in range(3):
        session.run(inputs(seed))
    del session
    gc.collect()
    assert machine.cuda.held() == 0


@every_machine
def test_memory_is_accounted_for(machine: Machine, session: TensorRTSession) -> None:
    assert session.memory().scratch == session.memory().tensors == session.memory().pinned == 0
    session.run(inputs(0))
    memory = session.memory()
    assert memory.scratch + memory.tensors == sum(b.usable for b in machine.cuda.device_memory.values())
    assert memory.pinned == sum(b.usable for b in machine.cuda.host_memory.values())


@every_machine
@pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc"])
def test_out_of_memory(machine: Machine, function: str) -> None:
    session = open_session(make_engine(machine))
    held = machine.cuda.held()
    machine.cuda.failing[function] = "cudaErrorMemoryAllocation"
    assert code_of(session.run, inputs(0)) == "out-of-memory"
    assert machine.cuda.held() == held  # what was had before it failed is given back
    machine.cuda.failing.clear()
    assert same(session.run(inputs(0)), expected(inputs(0)))
    session.close()


@every_machine
@pytest.mark.parametrize("function", ["cudaStreamCreateWithFlags", "cudaEventCreateWithFlags"])
def test_a_session_that_cannot_be_opened_leaves_nothing(machine: Machine, function: str) -> None:
    engine = make_engine(machine)
    machine.cuda.failing[function] = "cudaErrorMemoryAllocation"
    assert code_of(open_session, engine) == "out-of-memory"
    assert machine.cuda.held() == 0


@every_machine
def test_no_context(machine: Machine, session: TensorRTSession) -> None:
    machine.script.no_context = True
    with pytest.raises(MatchRTError, match="create_execution_context: out of memory") as caught:
        session.run(inputs(0))
    assert caught.value.code == "out-of-memory" and "Stub 0" in caught.value.message
    machine.script.no_context = False
    assert same(session.run(inputs(0)), expected(inputs(0)))


@every_machine
@pytest.mark.parametrize("what", ["shape_refused", "address_refused", "execute_fails"])
def test_calls_that_tensorrt_refuses(machine: Machine, session: TensorRTSession, what: str) -> None:
    setattr(machine.script, what, True)
    with pytest.raises(InternalError) as caught:
        session.run(inputs(0))
    assert caught.value.code == "session-failed" and ": " in caught.value.message
    setattr(machine.script, what, False)
    assert same(session.run(inputs(0)), expected(inputs(0)))


@every_machine
def test_outputs_that_depend_on_data(machine: Machine, session: TensorRTSession) -> None:
    machine.script.unresolved = ["keypoints0"]
    assert code_of(session.run, inputs(0)) == "engine-graph"


@every_machine
def test_errors_of_the_gpu(machine: Machine, session: TensorRTSession) -> None:
    pending = session.start(inputs(0))
    machine.cuda.failing["cudaStreamSynchronize"] = "cudaErrorLaunchFailure"
    assert code_of(pending.result) == "cuda-failed"
    machine.cuda.failing.clear()
    assert same(session.run(inputs(1)), expected(inputs(1)))


@every_machine
def test_inputs_are_checked(machine: Machine, session: TensorRTSession) -> None:
    good = inputs(0)
    for bad in ({"image0": good["image0"]}, good | {"image1": good["image1"][:, :16]},
                good | {"size0": good["size0"].astype(np.int64)}):  # fmt: skip
        assert code_of(session.run, bad) == "session-input"
    assert machine.cuda.count("cudaMalloc") == 0


class TestDynamic:
    """Engines that take images of several sizes."""

    @pytest.fixture
    def session(self, machine: Machine) -> Iterator[TensorRTSession]:
        opened = open_session(make_engine(machine, None))
        assert isinstance(opened, TensorRTSession)
        yield opened
        opened.close()

    @every_machine
    def test_each_shape_has_its_context_and_graph(self, machine: Machine, session: TensorRTSession) -> None:
        shapes = [((64, 64), (64, 48)), ((32, 32), (32, 40)), ((48, 64), (48, 64))]
        for seed in range(4):
            for first, second in shapes:
                given = inputs(seed, first, second)
                assert same(session.run(given), expected(given))
        names = machine.script.names()
        assert names.count("create_execution_context") == machine.cuda.count("cudaGraphInstantiate") == len(shapes)
        assert machine.cuda.count("cudaMalloc") == 3  # the first shape is the largest

    @every_machine
    def test_scratch_memory_is_for_the_shapes_not_for_the_profile(
        self, machine: Machine, session: TensorRTSession
    ) -> None:
        session.run(inputs(0, (32, 32), (32, 32)))
        assert session.memory().scratch == 2 * 32 * 32
        machine.script.calls.clear()
        session.run(inputs(0, (64, 64), (32, 32)))
        assert session.memory().scratch == 64 * 64 + 32 * 32
        names = machine.script.names()
        assert names.index("set_input_shape") < names.index("update_device_memory_size_for_shapes")

    @every_machine
    def test_growing_memory_drops_graphs_of_the_old_one(self, machine: Machine, session: TensorRTSession) -> None:
        small, large = ((32, 32), (32, 32)), ((128, 128), (128, 96))
        for seed in range(3):
            session.run(inputs(seed, *small))
        assert session.launch_mode() == "graph"
        session.run(inputs(0, *large))
        assert machine.cuda.execs == {} and machine.cuda.count("cudaFree") == 3
        for seed in range(3):  # on new memory, in a new graph
            given = inputs(seed, *small)
            assert same(session.run(given), expected(given))
        assert session.launch_mode() == "graph" and machine.cuda.count("cudaMalloc") == 6
        assert len(machine.cuda.device_memory) == 3

    @every_machine
    def test_the_least_recently_used_shape_makes_room(self, machine: Machine, session: TensorRTSession) -> None:
        sizes = [(64, 32 + 8 * index) for index in range(MAX_SHAPES + 1)]
        largest = (128, 128)
        session.run(inputs(0, largest, largest))  # memory for all
        for size in (*sizes[: MAX_SHAPES - 1],) * 2:
            session.run(inputs(0, size, size))
        assert len(machine.cuda.execs) == MAX_SHAPES - 1
        session.run(inputs(0, largest, largest))  # used again: the next oldest goes
        session.run(inputs(0, sizes[-1], sizes[-1]))
        assert len(session._shapes) == MAX_SHAPES and len(machine.cuda.execs) == MAX_SHAPES - 1
        machine.script.calls.clear()
        session.run(inputs(0, largest, largest))
        assert "create_execution_context" not in machine.script.names()
        given = inputs(5, sizes[0], sizes[0])
        assert same(session.run(given), expected(given))
        assert machine.script.names().count("create_execution_context") == 1

    @every_machine
    def test_memory_that_cannot_grow(self, machine: Machine, session: TensorRTSession) -> None:
        """What was given back is not used again: the next run takes memory anew."""
        small, large = ((32, 32), (32, 32)), ((128, 128), (128, 128))
        session.run(inputs(0, *small))
        machine.cuda.memory_left = 4000
        assert code_of(session.run, inputs(0, *large)) == "out-of-memory"
        assert machine.cuda.device_memory == {} == machine.cuda.host_memory
        assert session.memory().tensors == 0
        machine.cuda.memory_left = None
        for seed in range(3):
            given = inputs(seed, *small)
            assert same(session.run(given), expected(given))

    def test_sizes_outside_the_profile(self, session: TensorRTSession) -> None:
        for size in ((136, 64), (24, 64), (36, 64)):
            assert code_of(session.run, inputs(0, size, (32, 32))) == "session-input"


def test_forks_use_the_engines_gpu(machine: Machine) -> None:
    """Whatever GPU the thread that forks, or runs, was on."""
    import threading

    machine.cuda.gpus = 2
    machine.cuda.module.cudaSetDevice(1)
    session = open_session(make_engine(machine))
    done: list[Any] = []

    def work() -> None:
        fork = session.fork()  # a new thread begins on GPU 0
        done.append(same(fork.run(inputs(3)), expected(inputs(3))))
        done.append({stream.device for stream in machine.cuda.streams.values()})
        fork.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True, {1}]
    session.close()
