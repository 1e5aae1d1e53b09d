"""The work of `matchrt bench`, with progress bars."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from matchrt.bench.accuracy import AccuracyOptions, AccuracyReport, evaluate
from matchrt.bench.calls import CallReport, measure_calls
from matchrt.bench.cautions import CpuTime, cpu_time, machine_cautions, size_cautions
from matchrt.bench.compare import Baseline, Comparison, as_baseline, compare
from matchrt.bench.engines import Choice, engine_facts
from matchrt.bench.folder import EvalFolder
from matchrt.bench.latency import LatencyOptions, LatencyReport, matcher_subject, measure
from matchrt.bench.machine import this_machine
from matchrt.bench.peers import PeerReport, measure_peers
from matchrt.bench.report import Results
from matchrt.bench.stream_rate import StreamRate, measure_stream
from matchrt.bench.throughput import ThroughputOptions, ThroughputReport, measure_throughput
from matchrt.cli.output import counter
from matchrt.errors import MatchRTError
from matchrt.runtime import matcher as runtime
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.options import MatcherOptions
from matchrt.store import EngineStore

# Errors of an engine whose backend or device is not on this machine. The other engines are measured all the same.
_MISSING = ("package-missing", "package-broken", "package-version", "device-missing")
# Whole calls are measured this many times less often than an engine's latency, since there are several for each engine.
_FEWER_CALLS = 3


@dataclass(frozen=True)
class Plan:
    """What to measure.

    choices: engines by the name that reports give them.
    without_graphs: names of the choices that repeat other choices without CUDA graphs.
    store: where engines that are given by name are found.
    options: the matcher's options, the same for all engines.
    images: the pair that latency and throughput are measured on, as paths or arrays.
    generated: (height, width) in pixels of that pair if it is a generated one; None if the user gave it.
    frames: (height, width) in pixels of frames whose whole calls are measured; empty for none.
    peers: whether engines are measured beside torch and other runtimes.
    latency: the numbers of runs; with 0 runs, latency is not measured.
    streams: largest number of threads that throughput is measured with; 0 for no throughput.
    throughput: how long each number of streams runs.
    folder: evaluation folder that accuracy is measured on; None for no accuracy.
    measured_by: estimator and thresholds of accuracy.
    baselines: figures of other matchers that accuracy is compared with.
    """

    choices: dict[str, Choice]
    without_graphs: frozenset[str]
    store: EngineStore
    options: MatcherOptions
    images: tuple[Any, Any]
    generated: tuple[int, int] | None
    frames: tuple[tuple[int, int], ...]
    peers: bool
    latency: LatencyOptions
    streams: int
    throughput: ThroughputOptions
    folder: EvalFolder | None
    measured_by: AccuracyOptions
    baselines: tuple[Baseline, ...]


def run_plan(plan: Plan, quiet: bool) -> Results:
    """Measures times while all engines are open, then the accuracy of one engine after another.

    quiet: show no progress bars. Errors: those of opening engines and of matching; matcher-result.
    """
    results, before = Results(this_machine()), cpu_time()  # before the run, because the run changes the load
    if plan.latency.runs or plan.streams:
        with ExitStack() as stack:
            matchers, missing = _open_all(plan, stack)
            latency = _latency(plan, matchers, quiet) if plan.latency.runs else None
            calls = _calls(plan, matchers, quiet) if plan.latency.runs and plan.frames else None
            peers = _peers(plan, matchers, quiet) if plan.peers else ()
            throughput = _throughput(plan, matchers, stack, quiet) if plan.streams else None
            streams = _streams(plan, matchers, quiet) if plan.streams else {}
            machine = results.machine.after()
            facts = tuple(engine_facts(name, matcher) for name, matcher in matchers.items())
            manifests = {name: matcher.manifest for name, matcher in matchers.items()}
        stolen = _stolen_since(before)
        cautions = (*missing, *machine_cautions(machine, stolen), *size_cautions(manifests, plan.generated))
        results = Results(machine, facts, latency, calls, peers, throughput, streams, cautions=cautions)
    accuracy = _accuracy(plan, plan.folder, quiet) if plan.folder is not None else ()
    return replace(results, accuracy=accuracy, comparisons=_comparisons(accuracy, plan.baselines))


def _open_all(plan: Plan, stack: ExitStack) -> tuple[dict[str, runtime.Matcher], list[str]]:
    """The matchers by name, and a sentence for each engine whose backend is not here. Errors: if none can be opened."""
    matchers: dict[str, runtime.Matcher] = {}
    missing: dict[str, MatchRTError] = {}
    for name, choice in plan.choices.items():
        try:
            matchers[name] = stack.enter_context(_open(plan, choice))
        except MatchRTError as error:
            if error.code not in _MISSING:
                raise
            missing[name] = error
    if not matchers:
        raise next(iter(missing.values()))
    return matchers, [f"{name} was left out: {error.message} {error.remedy}" for name, error in missing.items()]


def _stolen_since(before: CpuTime | None) -> float | None:
    now = cpu_time()
    return None if before is None or now is None else now.share_stolen_since(before)


def _open(plan: Plan, choice: Choice) -> runtime.Matcher:
    options = replace(plan.options, backend=choice.backend, cuda_graph=plan.options.cuda_graph and choice.cuda_graph)
    return runtime.Matcher(choice.engine, options, plan.store)


def _calls(plan: Plan, matchers: dict[str, runtime.Matcher], quiet: bool) -> CallReport:
    fewer = replace(plan.latency, runs=-(-plan.latency.runs // _FEWER_CALLS))
    with counter(fewer.runs + fewer.warm_up, "frames", quiet) as advance:
        return measure_calls(matchers, plan.frames, fewer, advance)


def _peers(plan: Plan, matchers: dict[str, runtime.Matcher], quiet: bool) -> tuple[PeerReport, ...]:
    reports = []
    options = replace(plan.latency, runs=max(plan.latency.runs, 1))
    with counter(len(matchers) * (options.runs + options.warm_up), "peers", quiet) as advance, ExitStack() as stack:
        for name, matcher in matchers.items():
            if name not in plan.without_graphs:
                choice = plan.choices[name]
                file = read_engine(choice.engine, plan.store, choice.backend)
                threads = plan.options.threads
                reports.append(measure_peers(name, file, matcher.session, options, stack, advance, threads))
    return tuple(reports)


def _streams(
    plan: Plan, matchers: dict[str, runtime.Matcher], quiet: bool
) -> dict[str, tuple[StreamRate, ...]]:  # fmt: skip
    if not plan.frames:
        return {}
    with counter(len(matchers) * len(plan.frames), "streams", quiet) as advance:
        found: dict[str, tuple[StreamRate, ...]] = {}
        for name, matcher in matchers.items():
            for size in plan.frames:
                found[name] = (*found.get(name, ()), measure_stream(matcher, size, plan.throughput))
                advance()
    return found


def _latency(plan: Plan, matchers: dict[str, runtime.Matcher], quiet: bool) -> LatencyReport:
    with counter(plan.latency.runs + plan.latency.warm_up, "latency", quiet) as advance:
        subjects = {name: matcher_subject(matcher, *plan.images) for name, matcher in matchers.items()}
        return measure(subjects, plan.latency, advance=advance)


def _throughput(plan: Plan, matchers: dict[str, runtime.Matcher], stack: ExitStack, quiet: bool) -> ThroughputReport:
    subjects = {}
    for name, matcher in matchers.items():
        forks = [stack.enter_context(matcher.fork()) for _ in range(plan.streams - 1)]
        subjects[name] = [matcher_subject(worker, *plan.images) for worker in (matcher, *forks)]
    with counter(plan.streams * len(subjects), "throughput", quiet) as advance:
        return measure_throughput(subjects, plan.throughput, advance)


def _accuracy(plan: Plan, folder: EvalFolder, quiet: bool) -> tuple[AccuracyReport, ...]:
    """The accuracy of each engine. CUDA graphs do not change matches, so each engine is measured once."""
    reports = []
    chosen = {name: choice for name, choice in plan.choices.items() if name not in plan.without_graphs}
    with counter(len(folder) * len(chosen), "accuracy", quiet) as advance:
        for name, choice in chosen.items():
            with _open(plan, choice) as matcher:
                reports.append(evaluate(matcher.match, folder, plan.measured_by, name=name, advance=advance))
    return tuple(reports)


def _comparisons(reports: tuple[AccuracyReport, ...], baselines: tuple[Baseline, ...]) -> tuple[Comparison, ...]:
    """The comparisons of every run with every baseline, and of the later runs with the first one."""
    found = [compare(report, other) for report in reports for other in baselines]
    return (*found, *(compare(report, as_baseline(reports[0])) for report in reports[1:]))
