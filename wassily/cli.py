"""The command line: words to a checked config, a config to one call. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import io
import os
import shlex
import shutil
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

from wassily import loading
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
    ("train", "prior"): ("PriorConfig", "wassily.run:train"),
    ("train", "decoder"): ("DecoderConfig", "wassily.run:train"),
    ("plan", "prior"): ("PriorPlan", "wassily.plan:plan"),
    ("plan", "decoder"): ("DecoderPlan", "wassily.plan:plan"),
    ("merge",): ("MergeConfig", "wassily.merge:merge"),
    ("generate",): ("GenerateConfig", "wassily.drawing:generate"),
    ("mix",): ("MixConfig", "wassily.drawing:mix"),
    ("data", "check"): ("DataCheckConfig", "wassily.doctor:check"),
    ("evaluate",): ("EvaluateConfig", "wassily.evaluation:evaluate"),
    ("sweep",): ("SweepConfig", "wassily.sweep:sweep"),
    ("report",): ("ReportConfig", "wassily.report:report"),
    ("cache", "build", "prior"): ("PriorConfig", "wassily.prefill:build_cache"),
    ("cache", "build", "decoder"): ("DecoderConfig", "wassily.prefill:build_cache"),
    ("cache", "info"): ("CacheConfig", "wassily.cache:info"),
    ("cache", "prune"): ("CacheConfig", "wassily.cache:prune"),
    ("studio",): ("StudioConfig", "wassily.studio:studio"),
    ("doctor",): ("DoctorConfig", "wassily.about:doctor"),
    ("demo",): ("DemoConfig", "wassily.demo:demo"),
}

# Modules that load nothing slow before they print a line of their own.
EARLY = {"wassily.drawing", "wassily.studio"}


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
        config = parse(class_name, rest, " ".join(("wassily", *verb)))
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
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif _flag(word) in ("resume_from_checkpoint", "hub_token"):
            skip = "=" not in word
        else:
            kept.append(shlex.quote(word))
    if words[:1] == ["train"]:
        kept.append("--resume_from_checkpoint latest")
    if any(_flag(word) == "hub_token" for word in words):
        kept.append('--hub_token "$HF_TOKEN"')
    launched = {"ACCELERATE_MIXED_PRECISION", "WORLD_SIZE"} & os.environ.keys()
    head = "go on with: wassily"
    if launched:
        head = "go on with the same launcher line as before, and at its end: -m wassily"
    return masked(" ".join([head, *kept]))


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


def config_class(name: str) -> type:
    """A config class by its name."""
    from wassily import commands, config, measuring

    homes = (config, commands, measuring)
    return next(getattr(home, name) for home in homes if hasattr(home, name))


def parse(class_name: str, words: list[str], prog: str) -> Any:
    """The config of a command: defaults, then the preset, the file of `--config`, the flags.

    Raises UserError for bad values and unknown flags, naming the nearest one.
    """
    import tyro

    cls = config_class(class_name)
    words, file = _take_config_file(words)
    _check_words(words)
    default = _from_file(cls, file) if file is not None else {}
    default = _preset(cls, words, default) | default
    if {"-h", "--help"} & set(words):  # which shows the values of the file
        from wassily import schema

        # tyro breaks the longest flags' names where the terminal is narrower than they are.
        os.environ["COLUMNS"] = str(max(60, shutil.get_terminal_size().columns))
        default = {name: value for name, value in default.items() if name not in schema.SECRETS}
    # A switch that is on by the file or the preset, or off: saying so again changes nothing.
    fields = {f.name: f.default for f in dataclasses.fields(cls)} | default
    said = {n if value else f"no_{n}" for n, value in fields.items() if isinstance(value, bool)}
    named = {_flag(word) for word in words}
    for name, value in fields.items():
        if isinstance(value, bool) and {name, f"no_{name}"} <= named:
            raise UserError(f"--{name} and --no-{name} were both given: keep one")
    words = [word for word in words if _flag(word) not in said]
    # Contradictions are judged once, on the whole: tyro builds from a bag of defaults, not from a
    # config.
    bare = _unchecked(cls, fields)
    options: dict[str, Any] = {"use_underscores": True, "config": (tyro.conf.FlagCreatePairsOff,)}
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):  # tyro's faults come in a frame of many lines
            return tyro.cli(cls, prog=prog, args=words, default=bare, **options)
    except SystemExit as stop:
        if stop.code != 2:
            raise
        from wassily import words as given

        raise UserError(given.fault(cls, words, refusal.getvalue(), _positional(cls))) from None


def _positional(cls: type) -> str | None:
    """The field whose values stand without a flag, if a config class has one."""
    import tyro

    hints = typing.get_type_hints(cls, include_extras=True)
    for name, kind in hints.items():
        if tyro.conf.Positional in getattr(kind, "__metadata__", ()):
            return name
    return None


def _preset(cls: type, words: list[str], file: dict[str, Any]) -> dict[str, Any]:
    """The values of the preset that is named by flag or file; none for one that is not known."""
    from wassily import presets

    named = file.get("preset")
    for word, following in zip(words, [*words, None][1:], strict=True):
        if _flag(word) == "preset":
            named = word.partition("=")[2] if "=" in word else following
    network = next((n for n in presets.PRESETS if cls.__name__.lower().startswith(n)), None)
    if network is None or named is None:
        return {}
    lora = bool(file.get("lora")) or any(_flag(word) == "lora" for word in words)
    known = presets.known(network, lora)
    if named == "8gb" and named not in known:
        least = list(known)[-1]
        raise UserError(f"--preset {named}: the {network} as a whole does not fit; take {least}")
    return dict(known.get(named, {}))  # an unknown name is refused with the flags


def _flag(word: str) -> str | None:
    """The flag's name in a word, in one spelling; None for a value."""
    if not word.startswith("--"):
        return None
    name = word[2:].split("=", 1)[0].replace("-", "_")
    return "validation_prompts" if name == "validation_prompt" else name


def _check_words(words: list[str]) -> None:
    """Raise UserError for words that are no text, and for a list of prompts given in two pieces."""
    for word in words:
        if any("\ud800" <= c <= "\udfff" for c in word):
            raise UserError(f"{word!r}: not UTF-8 text")
    if sum(_flag(word) == "validation_prompts" for word in words) > 1:
        raise UserError("--validation_prompts was given twice: put all prompts behind one")


def _unchecked(cls: type, values: dict[str, Any]) -> Any:
    """An instance that skipped `__post_init__`: only a holder of defaults for tyro."""
    holder: Any = object.__new__(cls)
    for key, value in values.items():
        object.__setattr__(holder, key, value)
    return holder


def _take_config_file(words: list[str]) -> tuple[list[str], str | None]:
    """Cut `--config FILE` out of the words."""
    for i, word in enumerate(words):
        if word == "--config":
            if any(w == "--config" or w.startswith("--config=") for w in words[i + 1 :]):
                raise UserError("--config was given twice: name one file")
            if i + 1 == len(words):
                raise UserError("--config needs the name of a TOML file")
            return words[:i] + words[i + 2 :], words[i + 1]
        if word.startswith("--config="):
            return words[:i] + words[i + 1 :], word.split("=", 1)[1]
    return words, None


def _from_file(cls: type, file: str) -> dict[str, Any]:
    """Named values of a TOML file, checked by name and type."""
    from wassily import schema

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    path = Path(file).expanduser()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"--config {file}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"--config {file}: not UTF-8 text; save it as UTF-8") from None
    except (OSError, ValueError, RecursionError) as error:  # of the size of a number, too
        raise UserError(f"--config {file}: {error}") from None
    checked = schema.from_mapping(cls, values, f"--config {file}")
    schema.check_types(
        _unchecked(cls, {f.name: f.default for f in dataclasses.fields(cls)} | checked)
    )
    return checked
