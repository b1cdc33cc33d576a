"""The command line: words to a checked config, a config to one call. Imports nothing heavy."""

from __future__ import annotations

import gc
import importlib
import os
import shlex
import sys
from types import ModuleType
from typing import Any

from wassily import loading
from wassily.config import parsing
from wassily.errors import Stopped, UserError, did_you_mean, masked, out_of_memory, printable
from wassily.version import __version__

HELP = f"""wassily {__version__}: fine-tune and run Kandinsky 2.2

usage: wassily COMMAND [flags]        wassily COMMAND --help tells each one's flags

  demo            train both networks a little, offline, and draw before and after
  train prior     teach the prior: from a caption to an image embedding
  train decoder   teach the decoder: from an image embedding to a picture
  plan prior      tell what a training would take: memory, disk, steps, time;
  plan decoder    and which flags fit a GPU
  generate        draw pictures from prompts
  mix             draw from several texts and pictures at once, each with its weight
  merge           fold an adapter (LoRA) into a model, or mix a model with its fine-tune
  data check      look through a folder of pictures for what would harm a training
  evaluate        measure what was learnt and what was kept
  sweep           find how much of a fine-tune is best, between its base and itself
  report          write a training's report.html anew
  studio          draw, compare, train and look at data in the browser
  cache build prior     encode beforehand what a training of the prior reads,
  cache build decoder   or one of the decoder
  cache info      what the cache of encodings holds
  cache prune     remove what no run has used for a while
  doctor          versions, device, memory, caches, and what is missing

  wassily train prior   --train_data_dir pics --output_dir runs/prior
  wassily train decoder --train_data_dir pics --output_dir runs/decoder
  wassily generate "a robot naruto, 4k photo" --prior runs/prior --decoder runs/decoder

  --version       print the version
  --debug         with any command: show the stack trace of an error

On several GPUs: accelerate launch --multi_gpu -m wassily train decoder ...
"""

# words of a command -> (its config class, "module:function" that carries it out)
VERBS = {
    ("train", "prior"): ("PriorConfig", "wassily.training.run:train"),
    ("train", "decoder"): ("DecoderConfig", "wassily.training.run:train"),
    ("plan", "prior"): ("PriorPlan", "wassily.planning.plan:plan"),
    ("plan", "decoder"): ("DecoderPlan", "wassily.planning.plan:plan"),
    ("merge",): ("MergeConfig", "wassily.commands.merge:merge"),
    ("generate",): ("GenerateConfig", "wassily.generation.command:generate"),
    ("mix",): ("MixConfig", "wassily.generation.command:mix"),
    ("data", "check"): ("DataCheckConfig", "wassily.commands.data_check:check"),
    ("evaluate",): ("EvaluateConfig", "wassily.evaluation.evaluate:evaluate"),
    ("sweep",): ("SweepConfig", "wassily.commands.sweep:sweep"),
    ("report",): ("ReportConfig", "wassily.reporting.report:report"),
    ("cache", "build", "prior"): ("PriorConfig", "wassily.commands.cache_build:build_cache"),
    ("cache", "build", "decoder"): ("DecoderConfig", "wassily.commands.cache_build:build_cache"),
    ("cache", "info"): ("CacheConfig", "wassily.commands.cache_info:info"),
    ("cache", "prune"): ("CacheConfig", "wassily.commands.cache_info:prune"),
    ("studio",): ("StudioConfig", "wassily.pages.command:studio"),
    ("doctor",): ("DoctorConfig", "wassily.commands.doctor:doctor"),
    ("demo",): ("DemoConfig", "wassily.commands.demo:demo"),
}

# Modules that load nothing slow before they print a line of their own.
EARLY = {"wassily.generation.command", "wassily.pages.command"}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 failed, 2 the user can mend it, 129 hung up,
    130 interrupted, 143 terminated.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(HELP, end="")
            return 0
        if words[0] in ("--version", "-V"):
            print(f"wassily {__version__}")
            return 0
        if words[0] in ("train", "plan", "cache", "data") and words[1:2] in (["-h"], ["--help"]):
            print(HELP, end="")
            return 0
        verb, rest = _verb(words)
        class_name, target = VERBS[verb]
        config = parsing.parse(class_name, rest, " ".join(("wassily", *verb)))
        return _carried_out(target, config)
    except UserError as error:
        if debug:
            raise
        _tell(f"error: {printable(str(error))}")
        return 2
    except Stopped as stopped:
        _tell(f"{stopped}\n{again(words)}")
        return stopped.code
    except BrokenPipeError:
        # `wassily ... | head`: nobody reads on, which is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("wassily: interrupted", file=sys.stderr)
        return 130


def _carried_out(target: str, config: Any) -> int:
    """Run the function of a command; its exit code. Raises UserError where memory runs out."""
    module, function = target.split(":")
    if "torch" not in sys.modules and module not in EARLY:
        _tell("the flags are valid; loading PyTorch and the model libraries")
    try:
        # A verb that judges gives its own exit code; the others end well or raise.
        return getattr(_imported(module), function)(config) or 0
    except (RuntimeError, MemoryError, OSError) as error:
        if not out_of_memory(error):
            raise
        # By its name, as the verbs: it imports what is heavy.
        line = importlib.import_module("wassily.files.disk").full(config, error)
        raise UserError(line) from error


def _imported(name: str) -> ModuleType:
    """A command's module; the half million objects that its libraries make on their first import
    are not searched for garbage, then nor later: two seconds of a process's processor time.
    """
    if name in sys.modules:
        return sys.modules[name]
    with loading.uncollected():
        found = importlib.import_module(name)
        gc.freeze()
    return found


def _tell(line: str) -> None:
    # Every process of a launch comes here for the same reason: one of each machine says it.
    if os.environ.get("LOCAL_RANK", "0") in ("0", "-1"):
        print(f"wassily: {line}", file=sys.stderr)


def again(words: list[str]) -> str:
    """The line with the command that goes on with a stopped one, as one types it, without the hub's
    token. Behind a launcher it is the end of the command, for no process knows what stood before.
    """
    kept, skip, cut = [], False, False
    for word in words:
        if skip:
            skip = False
        elif parsing.flag_of(word) in ("resume_from_checkpoint", "hub_token"):
            skip = "=" not in word
        else:
            kept.append(shlex.quote(masked(word)))
            cut = cut or masked(word) != word
    if words[:1] == ["train"]:
        kept.append("--resume_from_checkpoint latest")
    if any(parsing.flag_of(word) == "hub_token" for word in words):
        kept.append('--hub_token "$HF_TOKEN"')
    launched = {"ACCELERATE_MIXED_PRECISION", "WORLD_SIZE"} & os.environ.keys()
    head = "go on with: wassily"
    if launched:
        head = "go on with the same launcher line as before, and at its end: -m wassily"
    note = "the next line leaves out secrets: add them before you run it\n" if cut else ""
    return note + masked(" ".join([head, *kept]))


def _verb(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Split the words into a known command and its flags."""
    for verb in VERBS:
        if tuple(words[: len(verb)]) == verb:
            return verb, words[len(verb) :]
    if words[0] == "cache":
        raise UserError("cache needs what to do: `wassily cache build prior`, `cache info`, ...")
    if words[0] == "data":
        raise UserError("data needs what to do: `wassily data check FOLDER`")
    if words[0] in ("train", "plan"):
        got = f"not {words[1]!r}" if len(words) > 1 else "none was given"
        first = words[0]
        raise UserError(f"{first} needs the network: `wassily {first} prior` or `decoder` ({got})")
    names = sorted({verb[0] for verb in VERBS})
    hint = did_you_mean(words[0], names)
    raise UserError(f"no command {words[0]!r}{hint} (there are: {', '.join(names)})")
