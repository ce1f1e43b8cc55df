"""Training on cases of one place: pooled, single-site and personal models, and the parent."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from torch import Tensor

from gliofed.errors import CheckpointError
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.run_context import RunContext
from gliofed.federated.checkpoint import CommittedRound, commit, last_committed
from gliofed.federated.label_counts import Pass, class_weights, row_weights
from gliofed.federated.schedule import Schedule, batches_of_pass
from gliofed.models.initial_weights import initial_weights
from gliofed.models.network import build_net, is_personal, train_only, without_frozen
from gliofed.models.optimiser import load_optimiser_state, make_optimiser, optimiser_state
from gliofed.runtime.progress import Progress, ProgressOfPart
from gliofed.training.loop import TrainingPlan, fit
from gliofed.types import RoundPoint


def train_plainly(
    context: RunContext,
    run: ModelRun,
    progress: Progress,
    on_commit: Callable[[CommittedRound], None],
) -> CommittedRound:
    """Train for all epochs, with a commit after each; continues from the last one.

    A synchronous federation of the sites of `run` trains the same model up to rounding: the
    batches, the samples and the steps are the same.
    """
    study, folder = run.effective_study(context.study), run.folder(context.out) / "rounds"
    run_id = run.run_id(context.study, context.prepared)
    plan = training_plan(context, run)
    net = build_net(study.net, run.seed)
    state = last_committed(folder, run_id) or CommittedRound(
        run_id,
        0,
        _first_weights(context, run),
        (),
        schedule=Schedule(plan.batches, study.train.epochs, 1),
    )
    state = replace(state, counts={run.model: run.counts(context.prepared)})
    net.load_state_dict(state.weights)
    net.to(context.machine.device)
    parameters = train_only(net, _trained_names(context, run, state.weights))
    optimiser = make_optimiser(parameters, study.optimisation)
    load_optimiser_state(parameters, optimiser, state.state)
    while not state.complete:
        started, epoch = time.monotonic(), state.rounds
        steps = range(epoch * plan.batches, (epoch + 1) * plan.batches)
        stats = fit(net, optimiser, plan, steps, ProgressOfPart(progress, 0, 1, run.model))
        point = RoundPoint.of_stats(epoch, 1, stats, time.monotonic() - started)
        state = replace(
            state,
            rounds=epoch + 1,
            weights={k: p.detach().to("cpu") for k, p in net.named_parameters()},
            state=optimiser_state(parameters, optimiser),
            history=(*state.history, point),
        )
        commit(folder, state)
        on_commit(state)
    return state


def _first_weights(context: RunContext, run: ModelRun) -> Mapping[str, Tensor]:
    """The weights before the first step. Raises CheckpointError where the base is not complete."""
    if run.base is None:
        return initial_weights(run.effective_study(context.study), run.seed)
    folder = run.base.folder(context.out) / "rounds"
    base = last_committed(folder, run.base.run_id(context.study, context.prepared))
    if base is None or not base.complete:
        raise CheckpointError(f"{folder}: has no complete training, which {run} begins with")
    return base.weights


def _trained_names(
    context: RunContext, run: ModelRun, weights: Mapping[str, Tensor]
) -> Collection[str]:
    """The parameters that the run changes."""
    if run.base is None:
        return without_frozen(weights, run.effective_study(context.study).frozen)
    return [name for name in weights if is_personal(name, context.study.personal.parts)]


def training_plan(context: RunContext, run: ModelRun) -> TrainingPlan:
    """The data and settings of a run whose cases are in one place."""
    study = run.effective_study(context.study)
    sites = {s: [context.prepared[str(c)] for c in cases] for s, cases in run.sites.items()}
    counts = run.counts(context.prepared)
    batches = batches_of_pass(counts.cases, study.train.batch)
    return TrainingPlan(
        study=study,
        sites=sites,
        task_weights=row_weights(study.loss, Pass(counts.labelled, batches, counts.classes)),
        class_weights=class_weights(counts),
        seed=run.seed,
        batches=batches,
        steps=study.train.epochs * batches,
        machine=context.machine,
    )
