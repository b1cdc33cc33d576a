"""One training from its parts to its export: `train(config)`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wassily.config import launch_checks, schema
from wassily.config.training import TrainConfig
from wassily.data import example_order
from wassily.encodings import cache, definitions
from wassily.errors import UserError, out_of_memory
from wassily.files import atomic, disk
from wassily.files.run_state import RunState
from wassily.models import hub, parts
from wassily.planning import plan
from wassily.reporting import next_command, run_facts
from wassily.reporting.model_card import facts_of
from wassily.runtime import compile, failures
from wassily.runtime.accelerator import Runtime
from wassily.training import checkpoints, cuda_graphs, optimizers
from wassily.training.assemble import Run, assemble
from wassily.training.export import export
from wassily.training.inputs import count_lines, gather
from wassily.training.loop import Events, Learner, Pending, Span, fit
from wassily.training.setup import Setup, check_surroundings, config_lines, settle
from wassily.training.stopping import SaveSchedule, StopSignals
from wassily.training.validation import sample_lines
from wassily.training_data import extra_sources, training_set


def train(config: TrainConfig) -> None:
    """Train one network as the config says, and leave a stock pipeline folder."""
    repositories = check_surroundings(config)
    output_dir = Path(config.output_dir)
    with StopSignals() as signals, contextlib.ExitStack() as held, disk.disk(output_dir):
        runtime = Runtime(
            config.mixed_precision, 1, config.output_dir, config.logging_dir, config.report_to
        )
        held.callback(runtime.end)
        launch_checks.check_launch(config, runtime.precision, runtime.world, runtime.sharded)
        if config.compile:
            compile.check_launch(config.role, runtime.device, runtime.precision)
            compile.check(runtime.device)
        cuda_graphs.check(config, runtime)
        setup = settle(config, repositories, runtime, held)
        root = cache.default_folder(config.cache_dir)
        with _failures(setup, fused=False):
            signals.remark = extra_sources.retained_remark(config, root)
            context = definitions.of_training(config, repositories, runtime, root)
            inputs = gather(config, context, setup.seed)
            before = setup.resumed.state.fused if setup.resumed else None
            fused = plan.fused(config, repositories, runtime, before)
        with _failures(setup, fused):
            run = assemble(setup, inputs, fused)
            announce(run)
            record(run)
            finish(run, steps(run, signals))


@contextlib.contextmanager
def _failures(setup: Setup, fused: bool) -> Iterator[None]:
    """Inside, too little memory and the end of another process become one line each."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if failures.another_is_gone(error):
            gone = (
                f"another process of this run is gone: {disk.checkpoint_remark(setup.output_dir)}"
            )
            raise UserError(f"{gone}; repeat the command") from None
        if not out_of_memory(error):
            raise
        precision = setup.runtime.precision
        remedy = plan.remedy(setup.config, setup.repositories, precision, fused)
        raise UserError(remedy) from None


def announce(run: Run) -> None:
    """Say what will happen, before the first step. Raises UserError if no step is left."""
    setup, split, reading = run.setup, run.split, run.inputs.reading
    config, runtime, say = setup.config, setup.runtime, setup.runtime.say
    for line in config_lines(config, setup.repositories, setup.output_dir):
        say(line)
    tensors = len(run.weights.trained)
    say(f"training the {config.role}: {_count(run):,} parameters in {tensors} tensors")
    say(f"what is trained: {run.adaptation.describe()}")
    what, often = reading.described(split.global_batch, run.stop)
    say(
        f"{what}, global batch {split.global_batch} = "
        f"{config.train_batch_size} x {config.gradient_accumulation_steps} accumulated x "
        f"{runtime.world} process(es), {run.stop} steps = {often}"
    )
    beside = [f"beside them {side.described()}" for side in run.beside]
    for line in (*reading.shapes(split), *optimizers.beta2_lines(config), *beside):
        say(line)
    say(f"device {runtime.device}, precision {runtime.precision}, seed {setup.seed}")
    say(runtime.engine)
    pace = (split.global_batch, reading.count, setup.start, run.stop)
    for line in (
        *count_lines(run.inputs.facts),
        *sample_lines(config, *pace, setup.output_dir),
    ):
        say(line)
    if setup.resumed:
        folder = setup.resumed.folder
        say(f"going on from {folder} at step {setup.start}")
        if setup.start > run.stop:
            raise UserError(
                f"{folder.name} is past the end: raise --max_train_steps above {run.stop}"
            )


def _count(run: Run) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in run.weights.trained.values())


def record(run: Run) -> None:
    """See that there is room for a checkpoint; write down the config, and open the trackers."""
    setup = run.setup
    config, runtime = setup.config, setup.runtime
    if setup.start < run.stop:
        run.saving.check_room()
    if runtime.main:
        atomic.write_text(setup.output_dir / "run.toml", schema.to_toml(config))
        if line := schema.left_out(config):
            runtime.say(line)
        facts = {
            "processes": runtime.world,
            "device": str(runtime.device),
            "precision": runtime.precision,
            "base": parts.public_name(setup.repositories[config.role], config.role),
            "repositories": setup.repositories,
            "source": next_command.source(config),
            "trained": f"{run.adaptation.describe()}: {_count(run):,} parameters",
            "steps": run.stop,
            "global_batch": run.split.global_batch,
            "beside": [side.described() for side in run.beside],
            "seed": setup.seed,
            "data": run.inputs.facts,
        }
        run_facts.write(config, facts)
    runtime.start_trackers(config.tracker_project_name, schema.public(config))


def steps(run: Run, signals: StopSignals) -> int:
    """The loop, with all that happens beside it; the number of steps done."""
    setup, split, validations = run.setup, run.split, run.validations
    loader = _loader(run)
    done = setup.start
    # Known before the first step: the checkpoint may be that of a run that had its end.
    ended = validations.begin(setup.start, run.stop)
    with signals.patience():
        if not ended:
            learner = _learner(run)
            done = fit(
                learner,
                training_set.batches(run.inputs.reading, loader, setup.runtime),
                span=Span(done, run.stop, split.accumulation, setup.seed, split.global_batch),
                events=_events(run, learner, signals),
                runtime=setup.runtime,
                pending=run.pending,
            )
    signals.check()
    if done < run.stop:
        setup.runtime.say(validations.why_ended(done, run.stop))
    return done


def _loader(run: Run) -> Iterable[Any]:
    """What gives the micro-batches, own and other examples mixed; a torch DataLoader."""
    setup, reading = run.setup, run.inputs.reading
    examples = training_set.make_examples(reading, run.trainable, setup.seed)
    keys = reading.keys(run.split, setup.start)
    mixed, order = example_order.beside(examples, keys, run.beside, run.split, setup.start)
    workers, pinned = setup.config.dataloader_num_workers, setup.runtime.device.type == "cuda"
    return example_order.loader(mixed, order, reading.collate, workers, pinned)


def _learner(run: Run) -> Learner:
    """What the loop trains; its micro-batches run as CUDA graphs where that pays."""
    config, runtime, objective = run.setup.config, run.setup.runtime, run.objective
    trained = list(run.weights.trained.values())
    recorded: cuda_graphs.Recorded | None = None
    if cuda_graphs.wanted(config, objective, runtime, run.split.per_process):
        plain = cuda_graphs.forward_backward(objective, runtime)
        recorded = cuda_graphs.Recorded(plain, objective, trained, run.trainable.even, runtime)
    return Learner(
        objective=objective,
        trained=trained,
        optimizer=run.weights.optimizer,
        learning_rate=optimizers.learning_rate(config, run.stop),
        max_grad_norm=config.max_grad_norm,
        ema=run.weights.ema,
        recorded=recorded,
    )


def _events(run: Run, learner: Learner, signals: StopSignals) -> Events:
    """What happens beside the steps, and after which."""
    config = run.setup.config
    minutes = config.checkpointing_minutes
    schedule = SaveSchedule(config.checkpointing_steps, minutes, signals, run.setup.runtime)

    def validate(done: int) -> bool:
        if isinstance(learner.recorded, cuda_graphs.Recorded):
            learner.recorded.let_go()  # what is generated needs their memory
        ends = run.validations.run(done)
        learner.objective.train()
        return ends

    return Events(
        log_every=config.logging_steps,
        on_log=run.step_log.log,
        save_at=schedule.save_at,
        on_save=functools.partial(_save, run, signals),
        stop_at=schedule.stop_at,
        on_skipped=run.skipped.note,
        validate_at=run.validations.due,
        on_validate=validate,
    )


def _save(run: Run, signals: StopSignals, done: int, pending: Pending) -> None:
    """Write checkpoint-<done>. Raises UserError."""
    setup = run.setup
    place = run.inputs.reading.state(done, setup.runtime)
    state = RunState(
        step=done,
        role=setup.config.role,
        repositories=setup.repositories,
        signature=run.signature,
        config=schema.public(setup.config),
        fused=run.fused,
        best=run.best.state(),
        pending_loss=(float(pending.total), pending.steps),
        skipped_steps=run.skipped.count,
        scaler=setup.runtime.scaler_state(),
        stream=place,
    )
    run.saving.save(state, run.best, done < run.stop)
    signals.remark = f"checkpoint-{done} is saved"


def finish(run: Run, done: int) -> None:
    """Draw the last samples, export the pipeline with its card, upload it if asked to."""
    setup = run.setup
    config, runtime, hub_repository = setup.config, setup.runtime, setup.hub_repository
    if done == run.stop:
        run.validations.run(run.stop)
    if runtime.main:  # once more: a kill between a save and its rotation leaves one over
        checkpoints.rotate(setup.output_dir, config.checkpoints_total_limit)
    with run.weights.to_write() as whole:
        exported, best = run.validations.choose(done, whole)
        facts = facts_of(
            config=config,
            repositories=setup.repositories,
            hub_repository=hub_repository,
            steps=exported,
            pictures=run.inputs.reading.count,
            seed=setup.seed,
            trained=run.adaptation.describe() if config.lora else "",
            best=best,
        )
        export(setup, whole, run.adaptation, facts)
    first = next_command.caption(config, getattr(run.inputs.reading, "source", None))
    runtime.say(next_command.next_line(config, setup.repositories, first))
    if hub_repository and runtime.main:
        hub.upload(setup.output_dir, hub_repository, config.hub_token)
        runtime.say(f"uploaded to {hub_repository}")
    runtime.wait()
