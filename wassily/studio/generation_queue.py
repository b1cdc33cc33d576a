"""Drawing for the pages: one picture after the other, with the pipelines of the last time kept."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from wassily.config import generation_checks
from wassily.config.generation import DrawConfig, GenerateConfig
from wassily.data import images
from wassily.errors import UserError
from wassily.generation import conditions, generate, load, metadata, sample
from wassily.models import parts
from wassily.runtime.accelerator import has_accelerator, quiet_libraries

LOADED = ("prior", "decoder", "prior_lora", "decoder_lora", "lora_scale", "cache_dir")


class Cancelled(Exception):
    """The one who asked for a drawing does not want it any more."""


@dataclasses.dataclass
class Job:
    """One drawing as it goes on: `tell` hears the share that is done, from 0 to 1."""

    tell: Callable[[float], object] = lambda share: None
    cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)

    @contextlib.contextmanager
    def watched(self, networks: list[parts.Network], passes: int) -> Iterator[None]:
        """Inside, each pass of these networks counts, and is the last if it was cancelled."""
        done = 0

        def count(*_: object) -> None:
            nonlocal done
            if self.cancelled.is_set():
                raise Cancelled
            self.tell(min(1.0, done / passes))
            done += 1

        hooks = [network.register_forward_pre_hook(count) for network in networks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class GenerationQueue:
    """Generates images for all pages, one request at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._key: tuple[object, ...] | None = None
        self._loaded: load.Pipelines | None = None

    def draw(self, config: GenerateConfig, job: Job) -> list[tuple[Path, int]]:
        """Each picture's file and seed, in order. Raises UserError, and Cancelled with no picture.

        The same bits as `wassily generate` with the same flags.
        """
        task = conditions.task(config)
        jobs = generate.jobs_of(config, task)
        with self._turn:
            networks = load.find(config)
            files = generate.destinations(config, task, networks)
            pairs = [(subject, seed) for subject, _, seed in jobs]
            drawn, (_, decoder, device) = self._drawn(config, networks, task, pairs, job)
            noted = generate.provenance_of(config, task, jobs, decoder.unet.dtype, device)
            saved = []
            for (_, words, seed), picture, file, one in zip(jobs, drawn, files, noted, strict=True):
                chunks = metadata.png_chunks(one, words)
                saved.append((generate.save(picture, file, chunks, config), seed))
        return saved

    def again(self, old: metadata.Provenance, out: Path, cache_dir: str | None, job: Job) -> Path:
        """The picture that these notes are of, drawn anew. Raises like `draw`."""
        config = dataclasses.replace(old.config, out=str(out), cache_dir=cache_dir)
        task = conditions.task(config)
        with self._turn:
            networks = load.find(config)
            (file,) = generate.destinations(config, task, networks)
            assert config.seed is not None  # `read_provenance` saw to that
            jobs = [(task.subjects[0], config.seed)] * config.batch_size
            drawn, (_, _, device) = self._drawn(config, networks, task, jobs, job)
            again = dataclasses.replace(old, made_with=metadata.made_with(device))
            chunks = metadata.png_chunks(again, task.words[0])
            return generate.save(drawn[old.place], file, chunks, config)

    def _drawn(
        self,
        config: DrawConfig,
        networks: load.Networks,
        task: conditions.Task,
        jobs: list[tuple[sample.Subject, int]],
        job: Job,
    ) -> tuple[list[images.Picture], load.Pipelines]:
        if job.cancelled.is_set():
            raise Cancelled
        prior, decoder, device = self._pipelines(config, networks)
        batches = -(-len(jobs) // config.batch_size)
        passes = batches * (config.prior_steps + generation_checks.steps(config, config))
        drawing = generate.drawing_of(config, task.canvas)
        with job.watched([prior.prior, decoder.unet], passes):
            drawn = sample.draw(prior, decoder, jobs, drawing, device)
        return drawn, (prior, decoder, device)

    def _pipelines(self, config: DrawConfig, networks: load.Networks) -> load.Pipelines:
        """Both pipelines and the device; those of the last time if nothing of it has changed."""
        dtype = config.dtype
        if dtype == "auto":
            dtype = "fp16" if has_accelerator() else "fp32"
        key = (*(getattr(config, name) for name in LOADED), dtype, _times(config))
        if self._loaded is None or key != self._key:
            self._loaded = None  # before others come: two models need not fit
            quiet_libraries()
            self._loaded, self._key = load.pipelines(config, networks), key
        return self._loaded


def _times(config: DrawConfig) -> list[float]:
    """When the folders of what is drawn with were last changed: a training may have written."""
    names = (config.prior, config.decoder, config.prior_lora, config.decoder_lora)
    tops = [Path(name) for name in names if name and Path(name).is_dir()]
    return [path.stat().st_mtime for top in tops for path in (top, *sorted(top.glob("*/*.json")))]


# ---------------------------------------------------------------- history


def history(folder: Path, most: int = 60) -> list[Path]:
    """The pictures that were drawn into a folder, the newest first."""
    files = [path for path in folder.glob("*.png") if path.is_file() and not path.is_symlink()]
    return sorted(files, key=lambda path: (path.stat().st_mtime, path.name), reverse=True)[:most]


def provenance_of(file: Path) -> metadata.Provenance:
    """What drew a picture of the history. Raises UserError for one that was drawn elsewhere on
    other pictures: their names are not followed.
    """
    drawn = metadata.read_provenance(str(file))
    config = drawn.config
    others = (config.image, config.mask, config.control, getattr(config, "variations", None))
    if not isinstance(config, GenerateConfig) or any(others) or drawn.digests:
        raise UserError(
            f"{file.name}: drawn from other pictures; wassily generate --from {file} draws it again"
        )
    return drawn
