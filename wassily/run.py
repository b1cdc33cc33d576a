"""One training from its parts to its export: `train(config)`."""

from __future__ import annotations

import contextlib
import functools
import json
import math
from pathlib import Path
from typing import Any

import torch

from wassily import (
    adapt,
    cache,
    checkpoint,
    compiled,
    drift,
    encoders,
    faults,
    gauge,
    graphs,
    hub,
    material,
    models,
    optim,
    pairs,
    plan,
    recipes,
    run_state,
    schema,
    sides,
    start,
    stream,
    summary,
    weights,
)
from wassily import best as bests
from wassily import runtime as runtimes
from wassily.card import facts_of
from wassily.config import TrainConfig
from wassily.ema import average
from wassily.errors import UserError, out_of_memory
from wassily.results import Results
from wassily.run_state import RunState, Saved
from wassily.runtime import Runtime
from wassily.saving import Saving
from wassily.skipped import Skipped
from wassily.stopping import Pace, Signals
from wassily.train import Events, Pending, Span, fit
from wassily.validations import Validations, announced


def train(config: TrainConfig) -> None:
    """Train one network as the config says, and leave a stock pipeline folder."""
    repositories = start.check_surroundings(config)
    output_dir = Path(config.output_dir)
    with Signals() as signals, contextlib.ExitStack() as held, faults.disk(output_dir):
        runtime = Runtime(
            config.mixed_precision, 1, config.output_dir, config.logging_dir, config.report_to
        )
        held.callback(runtime.end)
        optim.check_launch(config, runtime.precision, runtime.world, runtime.sharded)
        if config.compile:
            compiled.check_launch(config.role, runtime.device, runtime.precision)
            compiled.check(runtime.device)
        graphs.check(config, runtime)
        start_from = runtime.shared(lambda: start.begin(config, output_dir, held, runtime.say))
        saved = runtime.shared(lambda: run_state.to_resume(start_from))
        seed = start.seed_of(config, saved, runtime)
        repository = runtime.shared(lambda: start.hub_repository(config, output_dir))
        run = Run(
            config, repositories, output_dir, runtime, seed, start_from, saved, repository, signals
        )
        try:
            run.go()
        except (RuntimeError, MemoryError) as error:
            if faults.another_is_gone(error):
                gone = f"another process of this run is gone: {faults.kept(output_dir)}"
                raise UserError(f"{gone}; repeat the command") from None
            if not out_of_memory(error):
                raise
            remedy = plan.remedy(config, repositories, runtime.precision, run.fused)
            raise UserError(remedy) from None


class Run:
    """One training from its parts to its export; each method is a stage of `go`."""

    def __init__(
        self,
        config: TrainConfig,
        repositories: dict[str, str],
        output_dir: Path,
        runtime: Runtime,
        seed: int,
        start_from: Path | None,
        saved: RunState | None,
        hub_repository: str | None,
        signals: Signals,
    ):
        self.config, self.repositories, self.output_dir = config, repositories, output_dir
        self.runtime, self.seed, self.start_from, self.saved = runtime, seed, start_from, saved
        self.hub_repository, self.signals = hub_repository, signals
        self.fused = False  # whether a step's micro-batches are run as one batch

    def go(self) -> None:
        """Check, load, train, export."""
        self.load()
        self.announce()
        self.begin()
        self.train()
        self.finish()

    def load(self) -> None:
        """Data, network, optimizer; and the state of a checkpoint, if there is one."""
        config, runtime = self.config, self.runtime
        root = cache.default_folder(config.cache_dir)
        self.signals.kept = sides.kept(config, root)
        context = encoders.of_training(config, self.repositories, runtime, root)
        found = material.gather(config, context, self.seed)
        self.reading, self.probe, self.facts = found.reading, found.probe, found.facts
        before = self.saved.fused if self.saved else None
        self.fused = plan.fused(config, self.repositories, runtime, before)
        self.split = stream.Split(*plan.cut(config, self.fused), runtime.world, runtime.rank)
        runtime.accumulate_over(self.split.accumulation)
        self.kit = recipes.make_kit(config, self.repositories)
        self.sides = sides.streams(found.beside, self.kit, self.split.global_batch)
        self.role = models.TRAINED[config.role]
        base = models.fingerprint(self.kit.net)
        self.adaptation = adapt.chosen(config, adapt.notes(config, self.repositories, base))
        self.adaptation.attach(self.kit.net, runtime.weight_dtype, self.seed)
        self.signature = self._signature(base)
        if self.start_from and self.saved:
            run_state.check_same(self.saved, self.signature, self.start_from)
        self.reading.begin(self.split, self.saved.stream if self.saved else None)
        if config.allow_tf32:
            runtimes.allow_tf32()
        if config.enable_xformers_memory_efficient_attention:
            recipes.use_xformers(self.kit.net, runtime)
        adapt.keep_as(adapt.trained_parameters(self.kit.net), config.weights_dtype)
        self.kit.objective.to(runtime.device)
        # The network is still the base's: a resumed run measures from there, too.
        self.drift = drift.of_variance(config, context, self.kit, self.reading, self.seed)
        if self.start_from and self.saved:
            self.adaptation.load(self.kit.net, self.start_from)
        outline = weights.spread(self.kit.objective, runtime)
        self.trained = adapt.trained_parameters(self.kit.net)
        self.optimizer = optim.optimizer(config, list(self.trained.values()), runtime.device)
        self.ema = average(self.trained, config.use_ema, config.ema_sigma_rel)
        self.objective, self.optimizer = runtime.prepare(self.kit.objective, self.optimizer)
        parts = (self.kit.objective, self.trained, self.ema, self.optimizer)
        self.weights = weights.of(*parts, outline, runtime)
        self.saving = Saving(config, self.output_dir, runtime, self.adaptation, self.weights)
        if config.gradient_release:
            optim.release_gradients(self.kit.net, self.optimizer)
        if config.compile:
            compiled.compile_in_place(self.kit.net)
        self.best = bests.chosen(
            config.keep_best, config.patience, self.output_dir, self._write_best
        )
        self.pending = Pending(torch.zeros((), device=runtime.device))
        if self.start_from and self.saved:
            self._restore(self.start_from, self.saved)

    def _signature(self, base: str) -> dict[str, Any]:
        """What must be the same for a checkpoint to be gone on with."""
        config = self.config
        return {
            "network": config.role,
            "base model": base,
            **self.reading.signature(),
            **self.adaptation.signature(),
            "holdout": config.holdout or None,
            "trained list": adapt.described(adapt.trained_parameters(self.kit.net)),
            "global batch": self.split.global_batch,
            "precision": self.runtime.precision,
            "seed": self.seed,
            "resolution": config.resolution if config.role == "decoder" else None,
            "bucket": getattr(config, "bucket", False) or None,
            "random_flip": config.random_flip,
            "condition_dropout": config.condition_dropout or None,
            "use_ema": config.use_ema,
            "ema_sigma_rel": config.ema_sigma_rel,
            "optimizer": optim.described(config),
            "weights_dtype": config.weights_dtype,
            "beside": [side.described() for side in self.sides] or None,
        }

    def _restore(self, folder: Path, saved: RunState) -> None:
        self.saving.take(folder)
        self.runtime.load_scaler(saved.scaler)
        anew = self.best.restore(saved.best, folder.parent)
        if anew:
            self.runtime.say(anew)
        total, self.pending.steps = saved.pending_loss
        self.pending.total.fill_(total)
        now = json.loads(json.dumps(schema.public(self.config)))
        for line in checkpoint.changed(optim.in_force(saved.config), optim.in_force(now)):
            self.runtime.say(line)

    @property
    def start(self) -> int:
        """Optimizer steps done already."""
        return self.saved.step if self.saved else 0

    @property
    def stop(self) -> int:
        """Optimizer steps in all."""
        if self.config.max_train_steps:
            return self.config.max_train_steps
        assert self.reading.count  # the config was checked: only of a stream it is not known
        per_epoch = self.reading.count / self.split.global_batch
        return math.ceil(self.config.num_train_epochs * per_epoch)

    def announce(self) -> None:
        """Say what will happen, before the first step."""
        say, config, runtime = self.runtime.say, self.config, self.runtime
        for line in start.told(config, self.repositories, self.output_dir):
            say(line)
        count = sum(p.numel() for p in self.trained.values())
        say(f"training the {config.role}: {count:,} parameters in {len(self.trained)} tensors")
        say(f"what is trained: {self.adaptation.describe()}")
        what, often = self.reading.told(self.split.global_batch, self.stop)
        say(
            f"{what}, global batch {self.split.global_batch} = "
            f"{config.train_batch_size} x {config.gradient_accumulation_steps} accumulated x "
            f"{runtime.world} process(es), {self.stop} steps = {often}"
        )
        beside = [f"beside them {side.described()}" for side in self.sides]
        for line in (*self.reading.shapes(self.split), *optim.told(config), *beside):
            say(line)
        say(f"device {runtime.device}, precision {runtime.precision}, seed {self.seed}")
        say(runtime.engine)
        pace = (self.split.global_batch, self.reading.count, self.start, self.stop)
        for line in (*summary.lines(self.facts), *announced(config, *pace, self.output_dir)):
            say(line)
        if self.start_from:
            say(f"going on from {self.start_from} at step {self.start}")
            if self.start > self.stop:
                raise UserError(
                    f"{self.start_from.name} is past the end: "
                    f"raise --max_train_steps above {self.stop}"
                )

    def begin(self) -> None:
        """See that there is room for a checkpoint; write down the config, and open the trackers."""
        config, runtime = self.config, self.runtime
        if self.start < self.stop:
            self.saving.check_room()
        if runtime.main:
            checkpoint.write_text(self.output_dir / "run.toml", schema.to_toml(config))
            count = sum(p.numel() for p in self.trained.values())
            facts = {
                "base": models.public_name(self.repositories[config.role], config.role),
                "repositories": self.repositories,
                "source": pairs.source(config),
                "trained": f"{self.adaptation.describe()}: {count:,} parameters",
                "steps": self.stop,
                "global_batch": self.split.global_batch,
                "beside": [side.described() for side in self.sides],
                "seed": self.seed,
                "data": self.facts,
            }
            summary.write(config, runtime, facts)
        runtime.start_trackers(config.tracker_project_name, schema.public(config))

    def train(self) -> None:
        """The loop."""
        config, runtime = self.config, self.runtime
        examples = recipes.make_examples(self.reading, self.kit, self.seed)
        keys = self.reading.keys(self.split, self.start)
        mixed, order = stream.beside(examples, keys, self.sides, self.split, self.start)
        workers, collate = config.dataloader_num_workers, self.reading.collate
        loader = stream.loader(mixed, order, collate, workers, runtime.device.type == "cuda")
        probe = self.probe
        where = (config, self.repositories, self.output_dir, runtime, self.seed)
        what = (self.role, self.weights, self.adaptation, self.drift)
        held = functools.partial(probe.losses, runtime=runtime) if probe else None
        scored = gauge.chosen(config, probe, self.repositories["prior"], self.seed)
        self.results = Results(*where, *what, held, scored)
        before = self.saved.skipped_steps if self.saved else 0
        most = None if config.gradient_release else config.max_bad_steps
        self.skipped = Skipped(before, most, self._names_at, self.results, self.output_dir)
        self.validations = Validations(
            config, self.results, self.best, self.split.global_batch, self.reading.count
        )
        # Known before the first step: the checkpoint may be that of a run that had its end.
        ended = self.validations.begin(self.start, self.stop)
        with self.signals.patience():
            self.done = self.start if ended else self._fit(loader)
        self.signals.check()
        if self.done < self.stop:
            runtime.say(self.validations.why_ended(self.done, self.stop))

    def _fit(self, loader: Any) -> int:
        """The loop itself; the number of steps done."""
        config, runtime, split = self.config, self.runtime, self.split
        pace = Pace(config.checkpointing_steps, config.checkpointing_minutes, self.signals, runtime)
        trained = list(self.trained.values())
        return fit(
            self.objective,
            graphs.passes(
                config, self.objective, trained, self.kit.even, runtime, split.per_process
            ),
            trained,
            self.optimizer,
            recipes.batches(self.reading, loader, runtime),
            span=Span(self.start, self.stop, split.accumulation, self.seed, split.global_batch),
            learning_rate=optim.learning_rate(config, self.stop),
            max_grad_norm=config.max_grad_norm,
            ema=self.ema,
            events=Events(
                log_every=config.logging_steps,
                on_log=self.results.log,
                save_at=pace.save_at,
                on_save=self.save,
                stop_at=pace.stop_at,
                on_skipped=self.skipped.note,
                validate_at=self.validations.due,
                on_validate=self.validations.run,
            ),
            runtime=runtime,
            pending=self.pending,
        )

    def _names_at(self, step: int) -> list[str]:
        """The pictures of the global batch of a step."""
        return self.reading.names_at(step, self.split)

    def save(self, done: int, pending: Pending) -> None:
        """Write checkpoint-<done>. Raises UserError."""
        place = self.reading.state(done, self.runtime)
        state = RunState(
            step=done,
            role=self.config.role,
            repositories=self.repositories,
            signature=self.signature,
            config=schema.public(self.config),
            fused=self.fused,
            best=self.best.state(),
            pending_loss=(float(pending.total), pending.steps),
            skipped_steps=self.skipped.count,
            scaler=self.runtime.scaler_state(),
            stream=place,
        )
        self.saving.save(state, self.best, done < self.stop)
        self.signals.kept = f"checkpoint-{done} is saved"

    def _write_best(self, folder: Path) -> None:
        state = Saved(bests.step_of(folder), self.config.role, self.repositories)
        self.saving.write_best(folder, state)

    def finish(self) -> None:
        """Draw the last samples, export the pipeline with its card, upload it if asked to."""
        if self.done == self.stop:
            self.validations.run(self.stop)
        if self.runtime.main:  # once more: a kill between a save and its rotation leaves one over
            checkpoint.rotate(self.output_dir, self.config.checkpoints_total_limit)
        with self.weights.to_write() as whole:
            steps, best = self.validations.choose(self.done, whole)
            facts = facts_of(
                config=self.config,
                repositories=self.repositories,
                hub_repository=self.hub_repository,
                steps=steps,
                pictures=self.reading.count,
                seed=self.seed,
                trained=self.adaptation.describe() if self.config.lora else "",
                best=best,
            )
            self.results.export(facts, whole)
        first = pairs.caption(self.config, getattr(self.reading, "source", None))
        self.runtime.say(pairs.next_line(self.config, self.repositories, first))
        if self.hub_repository and self.runtime.main:
            hub.upload(self.output_dir, self.hub_repository, self.config.hub_token)
            self.runtime.say(f"uploaded to {self.hub_repository}")
        self.runtime.wait()
