"""The work of `matchrt bench`, with progress bars."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from matchrt.bench.accuracy import AccuracyOptions, AccuracyReport, evaluate
from matchrt.bench.compare import Baseline, Comparison, as_baseline, compare
from matchrt.bench.engines import Choice, engine_facts
from matchrt.bench.folder import EvalFolder
from matchrt.bench.latency import LatencyOptions, LatencyReport, matcher_subject, measure
from matchrt.bench.machine import this_machine
from matchrt.bench.report import Results
from matchrt.bench.throughput import ThroughputOptions, ThroughputReport, measure_throughput
from matchrt.cli.output import counter
from matchrt.runtime import matcher as runtime
from matchrt.runtime.options import MatcherOptions
from matchrt.store import EngineStore


@dataclass(frozen=True)
class Plan:
    """What to measure.

    choices: engines by the name that reports give them.
    without_graphs: names of the choices that repeat other choices without CUDA graphs.
    store: where engines that are given by name are found.
    options: the matcher's options, the same for all engines.
    images: the pair that latency and throughput are measured on, as paths or arrays.
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
    latency: LatencyOptions
    streams: int
    throughput: ThroughputOptions
    folder: EvalFolder | None
    measured_by: AccuracyOptions
    baselines: tuple[Baseline, ...]


def run_plan(plan: Plan, quiet: bool) -> Results:
    """Measures latency and throughput while all engines are open, then the accuracy of one engine after another.

    quiet: show no progress bars. Errors: those of opening engines and of matching; matcher-result.
    """
    results = Results(this_machine())  # before the run, because the run changes the load
    if plan.latency.runs or plan.streams:
        with ExitStack() as stack:
            matchers = {name: stack.enter_context(_open(plan, choice)) for name, choice in plan.choices.items()}
            latency = _latency(plan, matchers, quiet) if plan.latency.runs else None
            throughput = _throughput(plan, matchers, stack, quiet) if plan.streams else None
            machine = results.machine.after()
            facts = tuple(engine_facts(name, matcher) for name, matcher in matchers.items())
        results = replace(results, machine=machine, engines=facts, latency=latency, throughput=throughput)
    accuracy = _accuracy(plan, plan.folder, quiet) if plan.folder is not None else ()
    return replace(results, accuracy=accuracy, comparisons=_comparisons(accuracy, plan.baselines))


def _open(plan: Plan, choice: Choice) -> runtime.Matcher:
    options = replace(plan.options, backend=choice.backend, cuda_graph=plan.options.cuda_graph and choice.cuda_graph)
    return runtime.Matcher(choice.engine, options, plan.store)


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
