"""A config becomes the parts of a run: network, examples, optimizer, what is measured and saved."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wassily.config import schema
from wassily.config.training import TrainConfig
from wassily.data.example_order import ExtraExamples, Split
from wassily.encodings import definitions
from wassily.errors import UserError
from wassily.evaluation import validation_scores, variance_drift
from wassily.files import run_state
from wassily.files.run_state import Saved
from wassily.maths.ema import average
from wassily.models import adapters, parts
from wassily.models.adapters import Lora, Whole
from wassily.models.trainable import Trainable, make_trainable
from wassily.planning import plan
from wassily.runtime import accelerator, compile
from wassily.training import best, optimizer_state, optimizers, resume, weights
from wassily.training.best import Best, LastIsBest
from wassily.training.checkpoints import Saving
from wassily.training.inputs import Inputs
from wassily.training.loop import Pending
from wassily.training.setup import Resumed, Setup, saved_state, use_xformers
from wassily.training.step_log import Skipped, StepLog
from wassily.training.validation import Measures, Validations, Validator
from wassily.training.weights import Weights
from wassily.training_data import extra_sources


@dataclass(frozen=True, kw_only=True)
class Run:
    """The parts of one training, ready for its first step.

    `fused`: the micro-batches of a step run as one. `beside` is mixed into the own examples.
    `objective` is prepared for the device and the processes; `weights` are those in training.
    """

    setup: Setup
    inputs: Inputs
    trainable: Trainable
    beside: list[ExtraExamples]
    split: Split
    fused: bool
    signature: dict[str, Any]
    adaptation: Whole | Lora
    objective: nn.Module
    weights: Weights
    pending: Pending
    saving: Saving
    best: Best | LastIsBest
    step_log: StepLog
    skipped: Skipped
    validations: Validations

    @property
    def stop(self) -> int:
        """Optimizer steps in all."""
        return steps_in_all(self.setup.config, self.inputs.reading.count, self.split.global_batch)


def steps_in_all(config: TrainConfig, count: int | None, global_batch: int) -> int:
    """The optimizer steps of a config, on `count` examples; None: of a stream."""
    if config.max_train_steps:
        return config.max_train_steps
    assert count  # the config was checked: only of a stream it is not known
    per_epoch = count / global_batch
    return math.ceil(config.num_train_epochs * per_epoch)


def assemble(setup: Setup, inputs: Inputs, fused: bool) -> Run:
    """All parts of a run, as a checkpoint left them if one is resumed. Raises UserError."""
    config, runtime, reading, resumed = setup.config, setup.runtime, inputs.reading, setup.resumed
    split = Split(*plan.cut(config, fused), runtime.world, runtime.rank)
    runtime.accumulate_over(split.accumulation)
    trainable = make_trainable(config, setup.repositories)
    beside = extra_sources.streams(inputs.beside, trainable, split.global_batch)
    base = parts.fingerprint(trainable.net)
    adaptation = adapters.chosen_adaptation(
        config, adapters.notes(config, setup.repositories, base)
    )
    adaptation.attach(trainable.net, runtime.weight_dtype, setup.seed)
    same = {"network": config.role, "base model": base, **reading.signature()}
    same |= {**adaptation.signature(), **_signature(setup, trainable, split, beside)}
    if resumed:
        run_state.check_same(resumed.state, same, resumed.folder)
        resumed = _loadable(setup, resumed, trainable, adaptation)
        run_state.check_same(resumed.state, same, resumed.folder)
        setup = dataclasses.replace(setup, resumed=resumed)
    reading.begin(split, resumed.state.stream if resumed else None)
    _place(setup, trainable)
    # The network is still the base's: a resumed run measures from there, too.
    measures = _measures(setup, inputs, trainable)
    if resumed:
        adaptation.load(trainable.net, resumed.folder)
    objective, whole = _in_training(setup, trainable)
    saving = Saving(setup, adaptation, whole)
    best = _best(setup, saving)
    step_log = StepLog(setup.output_dir, runtime)
    validator = Validator(setup, whole, adaptation, measures, step_log)
    run = Run(
        setup=setup,
        inputs=inputs,
        trainable=trainable,
        beside=beside,
        split=split,
        fused=fused,
        signature=same,
        adaptation=adaptation,
        objective=objective,
        weights=whole,
        pending=Pending(torch.zeros((), device=runtime.device)),
        saving=saving,
        best=best,
        step_log=step_log,
        skipped=_skipped(setup, inputs, split, step_log),
        validations=Validations(config, validator, best, split.global_batch, reading.count),
    )
    _restore(run)
    return run


def _loadable(
    setup: Setup, resumed: Resumed, trainable: Trainable, adaptation: Whole | Lora
) -> Resumed:
    """The checkpoint that is resumed, or one before it where that one cannot be loaded."""
    trained = adapters.trained_parameters(trainable.net)
    adapters.keep_as(trained, setup.config.weights_dtype)  # the moments are of the same dtype

    def fault(folder: Path) -> str | None:
        try:
            saved_state(setup.config, folder)
            adaptation.check(trainable.net, folder, setup.config.use_ema)
            optimizer_state.read(folder, trained)
        except UserError as error:
            return str(error)
        return None

    def found() -> Resumed:
        asked = setup.config.resume_from_checkpoint
        folder = resume.loadable(resumed.folder, asked, setup.output_dir, fault, setup.runtime.say)
        state = saved_state(setup.config, folder)
        assert state is not None  # there is a folder
        return Resumed(folder, state)

    return setup.runtime.shared(found)


def _signature(
    setup: Setup, trainable: Trainable, split: Split, beside: list[ExtraExamples]
) -> dict[str, Any]:
    """What must be the same for a checkpoint to be resumed, besides base, data and adaptation."""
    config = setup.config
    return {
        "holdout": config.holdout or None,
        "trained list": adapters.described(adapters.trained_parameters(trainable.net)),
        "global batch": split.global_batch,
        "precision": setup.runtime.precision,
        "seed": setup.seed,
        "resolution": config.resolution if config.role == "decoder" else None,
        "bucket": definitions.bucketed(config) or None,
        "random_flip": config.random_flip,
        "condition_dropout": config.condition_dropout or None,
        "use_ema": config.use_ema,
        "ema_sigma_rel": config.ema_sigma_rel,
        "optimizer": optimizers.described(config),
        "weights_dtype": config.weights_dtype,
        "beside": [side.described() for side in beside] or None,
    }


def _place(setup: Setup, trainable: Trainable) -> None:
    """Put the network on the device, in the arithmetic that the config wants."""
    config, runtime = setup.config, setup.runtime
    if config.allow_tf32:
        accelerator.allow_tf32()
    if config.enable_xformers_memory_efficient_attention:
        use_xformers(trainable.net, runtime)
    adapters.keep_as(adapters.trained_parameters(trainable.net), config.weights_dtype)
    trainable.objective.to(runtime.device)


def _in_training(setup: Setup, trainable: Trainable) -> tuple[nn.Module, Weights]:
    """The objective prepared for the processes, and its weights with optimizer and average."""
    config, runtime = setup.config, setup.runtime
    outline = weights.spread(trainable.objective, runtime)
    trained = adapters.trained_parameters(trainable.net)
    optimizer = optimizers.optimizer(config, list(trained.values()), runtime.device)
    ema = average(trained, config.use_ema, config.ema_sigma_rel)
    objective, optimizer = runtime.prepare(trainable.objective, optimizer)
    if config.gradient_release:
        optimizers.release_gradients(trainable.net, optimizer)
    if config.compile:
        compile.compile_in_place(trainable.net)
    return objective, weights.weights_of(
        trainable.objective, trained, ema, optimizer, outline, runtime
    )


def _measures(setup: Setup, inputs: Inputs, trainable: Trainable) -> Measures:
    """What is measured at validations; the variance's drift begins at the network as it is now."""
    config, runtime, probe = setup.config, setup.runtime, inputs.probe
    where = (setup.repositories["decoder"], runtime)
    return Measures(
        variance_drift.drift_to_measure(config, *where, trainable, inputs.reading, setup.seed),
        functools.partial(probe.losses, runtime=runtime) if probe else None,
        validation_scores.scores_asked_for(config, probe, setup.repositories["prior"], setup.seed),
    )


def _best(setup: Setup, saving: Saving) -> Best | LastIsBest:
    """What --keep_best and --patience ask for; its weights are those in training."""
    config = setup.config

    def write(folder: Path) -> None:
        saving.write_best(folder, Saved(best.step_of(folder), config.role, setup.repositories))

    return best.chosen_best(config.keep_best, config.patience, setup.output_dir, write)


def _skipped(setup: Setup, inputs: Inputs, split: Split, step_log: StepLog) -> Skipped:
    """The account of skipped steps, resumed."""
    before = setup.resumed.state.skipped_steps if setup.resumed else 0
    most = None if setup.config.gradient_release else setup.config.max_bad_steps
    names_at = functools.partial(inputs.reading.names_at, split=split)
    return Skipped(before, most, names_at, step_log)


def _restore(run: Run) -> None:
    """Put back what a checkpoint has besides the weights, and say which flags have changed."""
    resumed, runtime = run.setup.resumed, run.setup.runtime
    if resumed is None:
        return
    state = resumed.state
    run.saving.take(resumed.folder)
    runtime.load_scaler(state.scaler)
    anew = run.best.restore(state.best, resumed.folder.parent)
    if anew:
        runtime.say(anew)
    total, run.pending.steps = state.pending_loss
    run.pending.total.fill_(total)
    now = json.loads(json.dumps(schema.public(run.setup.config)))
    both = (optimizers.in_force(state.config), optimizers.in_force(now))
    for line in run_state.changed(*both, schema.remarked(type(run.setup.config))):
        runtime.say(line)
