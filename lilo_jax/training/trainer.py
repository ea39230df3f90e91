"""The loop: which questions, their rollouts, which groups, one update; then records, evaluation, checkpoint."""

import dataclasses
import functools

import jax
import numpy as np

from lilo_jax.device.mesh import put_replicated, put_rows, row_shards
from lilo_jax.evaluation.audit import audit
from lilo_jax.evaluation.held_out import Evaluation, evaluate
from lilo_jax.grading.journal import Journal
from lilo_jax.keys import stream_key
from lilo_jax.models.packing import PackedRows, cut_rows, pack_blocks
from lilo_jax.models.scoring import informative_sequences
from lilo_jax.processes import hosts
from lilo_jax.processes.stop_request import StopRequest
from lilo_jax.rl.prepare import prepare_blocks
from lilo_jax.storage.checked_files import hash_of
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.ledger import Ledger
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks.steps import newlines
from lilo_jax.training.accounting import book, describe, describe_pool, group_record, rollout_records, suspects
from lilo_jax.training.assembly import Assembly
from lilo_jax.training.collection import Collected, Collector, collect, training_batch
from lilo_jax.training.facts import refresh_facts
from lilo_jax.training.follow_ups import add_follow_ups
from lilo_jax.training.recorder import Recorder
from lilo_jax.training.saver import Saver
from lilo_jax.types import Admission, Array, Estimate, Metrics, TrainBatch, TrainState


def train(
    assembly: Assembly,
    state: TrainState,
    ledger: Ledger,
    *,
    directory: RunDirectory,
    saver: Saver,
    recorder: Recorder,
    journal: Journal,
    clock: PhaseClock,
    stop: StopRequest,
    last_step: int,
) -> TrainState:
    """Takes steps from wherever `state` is, until `last_step` are done or `stop` asks; the last one is saved."""
    config, collector = assembly.config, assembly.collector
    for step in range(int(state.step), last_step):
        before, booked = state, ledger.to_dict()
        if stop.agreed():
            break
        journal.turn_to(step)
        state = refresh_facts(assembly, state, step, ledger, clock)
        audited = audit_belief(assembly, state, step, ledger, clock)
        collected = collect(collector, state, assembly.policy(state), step, clock)
        if stop.agreed():  # a step that has not been trained on is taken again
            state, ledger = before, Ledger.from_dict(booked, ledger.token_flops)
            break
        believed = believe(collector, state, collected, step, clock)
        admission, state = admit(collector, state, collected, step, clock)
        pool = describe_pool(state.curriculum)
        hosts.agree(f"in step {step}", functools.partial(decisions, collected, admission))
        batch = make_batch(assembly, state, collected, admission, believed, step, ledger, clock)
        state, learned = update(assembly, state, batch, step, clock)
        with clock.phase("record"):  # while the device updates
            book(collector, config.update, collected, admission, batch, ledger)
            collected.statistics = jax.device_get(collected.statistics)
            description = describe(collector, collected, admission)
            if config.storage.rollouts_every and step % config.storage.rollouts_every == 0:
                directory.write_rollouts(step, rollout_records(assembly.pool, collected, admission))
            directory.append("groups", {"step": step, **group_record(collected, admission, believed)})
            directory.append("grading", {"step": step, **dataclasses.asdict(assembly.graders.take_counts())})
            recorder.flush()
        with clock.phase("update"):  # the next step samples from the result: there is nothing left to do meanwhile
            jax.block_until_ready(learned)
        recorder.write_step(step, description | pool | audited, learned, ledger, clock.take())
        done = step + 1
        if done % config.evaluation.every == 0 or done == config.num_steps:
            recorder.flush()
            with recorder.progress.doing("evaluation"):
                recorder.write_evaluation(evaluate_held_out(assembly, state, done, ledger))
            assembly.graders.take_counts()  # those of a step are its own
            if suspected := suspects(collector, state):
                directory.append("suspects", {"step": done, "questions": suspected})
        if done % config.storage.save_every == 0 or saver.is_due(config.storage.save_every_seconds):
            recorder.flush()
            saver.save(done, state, ledger)
    recorder.flush()
    saver.save(int(state.step), state, ledger)
    return state


def decisions(collected: Collected, admission: Admission) -> dict[str, str]:
    """What a step has decided, each as a hash, in the order in which it was."""
    rollouts = collected.rollouts
    return {
        "the questions": hash_of([collected.place.tolist(), collected.round.tolist()]),
        "the tokens": hash_of([r.completion_ids.tolist() for r in rollouts]),
        "the verdicts": hash_of([r.verdict.value for r in rollouts]),
        "the rewards": hash_of([r.reward for r in rollouts]),
        "the groups trained on": hash_of([admission.indices.tolist(), admission.mask.tolist()]),
    }


def evaluate_held_out(assembly: Assembly, state: TrainState, step: int, ledger: Ledger) -> list[Evaluation]:
    """Accuracy on every held-out set."""
    key = stream_key(assembly.config.seed, "evaluate", step)
    return evaluate(assembly.evaluator, assembly.held_out, assembly.policy(state), key, step, ledger)


def audit_belief(
    assembly: Assembly, state: TrainState, step: int, ledger: Ledger, clock: PhaseClock
) -> dict[str, float | None]:
    """Metrics of what the curriculum believes, at the steps that have an audit."""
    settings, estimate = assembly.config.audit, assembly.programs.estimate
    if not settings.questions or step % settings.every:
        return {}
    with clock.phase("audit"):
        believe = estimate and functools.partial(estimate, state.curriculum)
        visits = jax.device_get(state.curriculum.visits)
        return audit(assembly.probe, settings, assembly.policy(state), believe, visits, step, ledger)


def believe(
    collector: Collector, state: TrainState, collected: Collected, step: int, clock: PhaseClock
) -> Estimate | None:
    """What the curriculum believes of the collected groups' questions before it hears of their outcomes.

    Host arrays; None if it believes nothing.
    """
    programs = collector.programs
    if programs.estimate is None:
        return None
    with clock.phase("select"):
        places = put_replicated(collector.sampler.mesh, np.maximum(collected.place, 0))
        key = stream_key(collector.judge.seed, "belief", step)
        return jax.device_get(programs.estimate(state.curriculum, places, key))


def admit(
    collector: Collector, state: TrainState, collected: Collected, step: int, clock: PhaseClock
) -> tuple[Admission, TrainState]:
    """Chooses the groups to train on, and remembers all that were collected."""
    with clock.phase("select"):
        key = stream_key(collector.judge.seed, "admit", step)
        now = put_replicated(collector.sampler.mesh, np.int32(step))
        admission, remembered = collector.programs.admit(state.curriculum, collected.statistics, key, now)
        return jax.device_get(admission), state.replace(curriculum=remembered)


def make_batch(
    assembly: Assembly,
    state: TrainState,
    collected: Collected,
    admission: Admission,
    believed: Estimate | None,
    step: int,
    ledger: Ledger,
    clock: PhaseClock,
) -> TrainBatch:
    """The rows of the admitted groups, with the outcomes of follow-ups; host arrays."""
    collector, split = assembly.collector, assembly.task.steps or newlines
    asked = believed if collector.programs.algorithm.needs_belief else None
    batch = training_batch(collector, collected, admission, asked)
    batch = add_follow_ups(collector, split, assembly.policy(state), batch, step, ledger, clock)
    if not assembly.config.update.pack:
        return batch
    batch = batch.replace(sequences=cut_rows(batch.sequences))
    if (informative := collector.programs.informative) is not None:
        with clock.phase("score"):
            batch = batch.replace(informative=jax.device_get(informative(batch)))
    return batch


def update(
    assembly: Assembly, state: TrainState, batch: TrainBatch, step: int, clock: PhaseClock
) -> tuple[TrainState, Metrics]:
    """Starts scoring and all optimiser steps on a batch of host arrays; all is still being computed when this returns.

    What the host decides is decided before: between the two the device waits for nothing.
    """
    programs, config = assembly.programs, assembly.config.update
    with clock.phase("score"):
        key = stream_key(assembly.config.seed, "update", step)
        dealt = _plans(assembly, batch, programs.deal(key, batch.informative) if config.pack else None)
        plans = _plans(assembly, batch, prepare_blocks(len(batch.row_mask), config))
        batch, prepared = programs.prepare(state, put_rows(assembly.mesh, batch), plans)
    with clock.phase("update"):
        state, updated = programs.update(state, batch, key, dealt)
        return state, prepared | updated


def _plans(assembly: Assembly, batch: TrainBatch, blocks: Array | None) -> PackedRows | None:
    """Where sequences stand in packed rows, for blocks of rows that are computed together; None: each in its own."""
    if not assembly.config.update.pack or blocks is None:
        return None
    plans = pack_blocks(
        informative_sequences(batch),
        np.asarray(blocks),
        multiple=row_shards(assembly.mesh),
        share=assembly.programs.model.shares_prompts,
    )
    return put_replicated(assembly.mesh, plans)
