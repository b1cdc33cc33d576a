"""The studio against somebody else's folders and other people's pages.

Each test bears the number of the finding that it closes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import draw_picture

from wassily.config import schema
from wassily.config.generation import GenerateConfig
from wassily.config.training import DecoderConfig, PriorConfig
from wassily.errors import UserError
from wassily.files import lock
from wassily.pages import server
from wassily.studio import (
    access,
    command_words,
    generation_queue,
    model_choices,
    process,
    resume_command,
    run_status,
)
from wassily.studio.access import Access
from wassily.studio.allowed_folders import AllowedFolders

ROLES = {"prior": PriorConfig, "decoder": DecoderConfig}


@pytest.fixture
def allowed(tmp_path: Path) -> AllowedFolders:
    """Runs, data with one folder of images, and a folder beside them."""
    for name in ("runs", "pics/train", "private"):
        (tmp_path / name).mkdir(parents=True)
        draw_picture(1).save(tmp_path / name / "a.png")
    found = AllowedFolders(tmp_path / "runs", (tmp_path / "pics",))
    found.make_own()
    return found


# ---------------------------------------------------------------- 5: a run.toml


def saved_run(allowed: AllowedFolders, role: str = "prior", **changes: Any) -> Path:
    """A run that the form could have started, with changes in its run.toml."""
    folder = allowed.runs / "run"
    folder.mkdir(exist_ok=True)
    values: dict[str, Any] = {"train_data_dir": str(allowed.data[0] / "train")}
    values |= {"output_dir": str(folder)}
    for home in ROLES:
        values[f"pretrained_{home}_model_name_or_path"] = "mini"
    config = ROLES[role](**{k: v for k, v in (values | changes).items() if v is not None})
    (folder / "run.toml").write_text(schema.to_toml(config), "utf-8")
    return folder


REFUSED: dict[str, dict[str, Any]] = {
    "data": {"train_data_dir": "PRIVATE"},
    "dots": {"train_data_dir": "PICS/../private"},
    "dataset": {"train_data_dir": None, "dataset_name": "somebody/images"},
    "address": {"train_data_dir": None, "dataset_name": "http://h/a.tar", "streaming": True,
                "max_train_steps": 1, "num_train_epochs": 1},
    "classes": {"train_data_dir": None, "instance_data_dir": "PICS", "instance_prompt": "a",
                "with_prior_preservation": True, "class_data_dir": "PRIVATE", "class_prompt": "b"},
    "prompts": {"preserve": "PRIVATE/prompts.txt"},
    "cache": {"cache_dir": "PRIVATE"},
    "hub": {"push_to_hub": True, "hub_model_id": "somebody/model"},
    "wandb": {"report_to": "wandb"},
    "all trackers": {"report_to": "all"},
    "prior": {"pretrained_prior_model_name_or_path": "somebody/prior"},
    "decoder": {"pretrained_decoder_model_name_or_path": "PRIVATE"},
    "flag": {"validation_prompts": ("a", "--push_to_hub")},
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_finding_05_a_run_toml_is_fenced_like_the_form(kind: str, allowed: AllowedFolders) -> None:
    """What reads, writes or sends more than the form can is one line with the command to type."""
    top = allowed.runs.parent
    (top / "private" / "prompts.txt").write_text("a\n")
    places = {"PRIVATE": str(top / "private"), "PICS": str(allowed.data[0])}

    def placed(value: Any) -> Any:
        for name, place in places.items() if isinstance(value, str) else ():
            value = value.replace(name, place)
        return value

    assert resume_command.words(allowed, saved_run(allowed), None)[0] == "train"
    folder = saved_run(allowed, **{name: placed(value) for name, value in REFUSED[kind].items()})
    with pytest.raises(UserError) as caught:
        resume_command.words(allowed, folder, None)
    line = str(caught.value)
    assert "\n" not in line
    if kind != "flag":  # which no command line takes
        assert f"wassily train prior --config {folder}/run.toml --resume" in line


def test_finding_05_a_prior_for_the_embeddings_is_fenced(allowed: AllowedFolders) -> None:
    """Of the decoder alone: `--drawn_embeds`."""
    private = str(allowed.runs.parent / "private")
    folder = saved_run(allowed, "decoder", drawn_embeds=private)
    with pytest.raises(UserError, match=r"--drawn_embeds .* is no prior that the studio found"):
        resume_command.words(allowed, folder, None)
    folder = saved_run(allowed, "decoder", drawn_embeds="mini")
    assert "--drawn_embeds" in resume_command.words(allowed, folder, None)


def test_finding_05_every_path_of_a_training_is_fenced() -> None:
    """A new flag that names a file or a model has to be put behind the fence."""
    fenced = {*resume_command.DATA, *resume_command.MODELS, "cache_dir", "output_dir"}
    fenced |= {"resume_from_checkpoint"}  # always the latest
    fenced |= {"logging_dir"}  # always in the output folder, by the config's own checks
    for config in ROLES.values():
        fields = config.__dataclass_fields__.values()
        named = {field.name for field in fields if field.type != "bool"}  # --lora is a switch here
        assert schema.PATHS & named <= fenced


def test_finding_05_the_cache_of_the_studio_is_allowed(allowed: AllowedFolders) -> None:
    """No other."""
    folder = saved_run(allowed, cache_dir="own")
    assert "own" in resume_command.words(allowed, folder, "own")
    with pytest.raises(UserError, match="not that of the studio"):
        resume_command.words(allowed, folder, "other")


def test_finding_05_what_is_shown_is_what_runs(allowed: AllowedFolders) -> None:
    """The words name no file that could be another one when the process reads it."""
    words = resume_command.words(allowed, saved_run(allowed, learning_rate=2e-5), None)
    assert "--config" not in words and "2e-05" in words
    assert command_words.checked(words).resume_from_checkpoint == "latest"


# ---------------------------------------------------------------- 10: one odd folder


def model(folder: Path) -> Path:
    (folder / "prior").mkdir(parents=True)
    (folder / "prior" / "config.json").write_text("{}")
    return folder


def training(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text("# PriorConfig\n")
    return folder


def test_finding_10_a_name_that_is_no_utf8_is_left_out(allowed: AllowedFolders) -> None:
    """In every list: models, trainings, data folders, images."""
    odd = os.fsdecode(b"bad\xff")
    model(allowed.runs / "good"), model(allowed.runs / odd)
    training(allowed.runs / "run"), training(allowed.runs / f"run-{odd}")
    (allowed.data[0] / odd).mkdir()
    for name in ("a", odd):
        draw_picture(1).save(allowed.images[0] / f"{name}.png")
    assert [one.place for one in model_choices.model_choices(allowed.runs)] == ["good"]
    assert run_status.trainings(allowed) == ["run"]
    assert allowed.folders() == [str(allowed.data[0]), str(allowed.data[0] / "train")]
    assert generation_queue.history(allowed.images[0]) == [allowed.images[0] / "a.png"]
    with pytest.raises(UserError):
        allowed.run(f"run-{odd}")


Spoil = Callable[[Path], object]
DEEP = "[" * 200_000
SPOILT: dict[str, Spoil] = {
    "state.json nests": lambda run: (run / "state.json").write_text(DEEP),
    "config.json nests": lambda run: (run / "prior" / "config.json").write_text(DEEP),
    "lock nests": lambda run: (run / ".lock").write_text("[" * 5000),
    "lock is a pipe": lambda run: os.mkfifo(run / ".lock"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_finding_10_one_odd_file_takes_no_page_down(how: str, allowed: AllowedFolders) -> None:
    """The others are listed, whatever lies in one folder."""
    training(model(allowed.runs / "good") / "run")
    SPOILT[how](model(allowed.runs / "odd"))
    training(allowed.runs / "odd" / "run")
    assert "good" in [one.place for one in model_choices.model_choices(allowed.runs)]
    assert "good/run" in run_status.trainings(allowed)
    assert model_choices.guidance(allowed.runs, "prior", str(allowed.runs / "odd")) == 4
    run_status.look(allowed, allowed.runs / "odd")


def test_finding_10_a_folder_that_goes_while_it_is_looked_at(
    allowed: AllowedFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation removes checkpoints between a look and the next; so does a lack of rights."""
    model(allowed.runs / "good"), model(allowed.runs / "gone")
    training(allowed.runs / "run"), training(allowed.runs / "gone-run")
    (allowed.data[0] / "gone").mkdir()
    for name in ("a", "gone"):
        draw_picture(1).save(allowed.images[0] / f"{name}.png")

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(path: Path, *more: Any, **named: Any) -> Any:
            if "gone" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *more, **named)

        return maybe

    for name in ("stat", "lstat", "is_dir"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    assert [one.place for one in model_choices.model_choices(allowed.runs)] == ["good"]
    assert run_status.trainings(allowed) == ["run"]
    assert allowed.folders() == [str(allowed.data[0]), str(allowed.data[0] / "train")]
    assert generation_queue.history(allowed.images[0]) == [allowed.images[0] / "a.png"]


# ---------------------------------------------------------------- 16: killed under another name


@pytest.mark.parametrize("number", [5, 1, -1, "x"])
def test_finding_16_a_killed_run_of_another_host_rests(
    number: object, allowed: AllowedFolders
) -> None:
    """A container that is started again has another name: nobody holds the lock."""
    folder = training(allowed.runs / "run")
    (folder / lock.NAME).write_text(json.dumps({"process": number, "host": "old-container"}))
    assert run_status.look(allowed, folder).state == "stopped"


# ---------------------------------------------------------------- 17: links


@pytest.mark.parametrize(
    "part", ["prior", "prior/config.json", "image_encoder", "model_index.json"]
)
def test_finding_17_a_model_of_links_is_not_offered(part: str, allowed: AllowedFolders) -> None:
    """Whichever part of it leads out of its folder."""
    private = model(allowed.runs.parent / "private" / "model")
    (private / "image_encoder").mkdir()
    (private / "model_index.json").write_text("{}")
    folder = model(allowed.runs / "linked")
    assert [one.place for one in model_choices.model_choices(allowed.runs)] == ["linked"]
    (folder / part).rename(allowed.runs.parent / "aside") if (folder / part).exists() else None
    (folder / part).symlink_to(private / part)
    assert model_choices.model_choices(allowed.runs) == []


@pytest.mark.parametrize("part", ["00.png", "step-1", "validation"])
def test_finding_17_an_image_behind_a_link_is_not_shown(part: str, allowed: AllowedFolders) -> None:
    """Whichever part of its path is the link."""
    run, place = allowed.runs / "run", Path("validation/step-1/00.png")
    private = allowed.runs.parent / "private" / "run"
    for top in (run, private):
        (top / place).parent.mkdir(parents=True)
        for name in ("00.png", "01.png", "sheet.png"):
            draw_picture(1).save(top / place.with_name(name))
    assert [path.name for path in run_status.samples(run)[1]] == ["00.png", "01.png"]
    short = next(p for p in (place, *place.parents) if p.name == part)
    (run / short).rename(allowed.runs.parent / "aside")
    (run / short).symlink_to(private / short)
    shown = [path.name for path in run_status.samples(run)[1]]
    assert shown == (["01.png"] if part == "00.png" else [])


# ---------------------------------------------------------------- 11, 18, 19: other pages

PORT = 7860


@pytest.fixture
def own(allowed: AllowedFolders) -> Access:
    """What a studio allows."""
    return Access(PORT, allowed.images)


def request(
    own: Access, path: str, method: str = "GET", query: str = "", **headers: str
) -> dict[str, Any]:
    """A request in the form of ASGI, by default one of the studio's own page."""
    usual = {"host": f"127.0.0.1:{PORT}", "cookie": f"{own.cookie}={own.token}"}
    if method == "POST":
        usual["origin"] = f"http://127.0.0.1:{PORT}"
    named = usual | {name.replace("_", "-"): value for name, value in headers.items()}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in named.items() if value]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    return scope | {"query_string": query.encode()}


def status(own: Access, path: str, method: str = "GET", **more: str) -> int | None:
    return access.refusal(own, request(own, path, method, **more))


def test_finding_11_only_what_the_pages_use_is_there(own: Access) -> None:
    """No upload, no description, no other way to call, no file of another address."""
    for path in ("/", "/ar", "/theme.css", "/assets/a.js", "/static/js/a.js", "/favicon.ico"):
        assert status(own, path) is None
    for path in ("/gradio_api/queue/data", "/gradio_api/heartbeat/abc"):
        assert status(own, path) is None
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict"):
        assert status(own, path, "POST") is None and status(own, path) == 404
    for path in (
        "/gradio_api/upload",
        "/gradio_api/call/begin",
        "/gradio_api/call/v2/begin",
        "/gradio_api/api/predict",
        "/gradio_api/reset",
        "/gradio_api/openapi.json",
        "/gradio_api/info",
        "/gradio_api/file=http://127.0.0.1/a.png",
        "/gradio_api/proxy=http://127.0.0.1/a.png",
        "/config",
        "/login",
        "/openapi.json",
        "/docs",
        "/monitoring",
        "/static/../config",
        "/queue/join",
    ):
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
            found = status(own, path, method, origin=f"http://127.0.0.1:{PORT}")
            assert found == 404, (method, path)
    assert access.refusal(own, {"type": "websocket", "path": "/", "headers": []}) == 400


def test_finding_18_only_png_of_two_folders_are_served(
    own: Access, allowed: AllowedFolders
) -> None:
    """Not the logs and records of the studio, no page with a script in it, and no link out."""
    pictures, compared = allowed.images
    private = allowed.runs.parent / "private" / "a.png"
    for folder in (pictures, compared, allowed.trainings):
        for name in ("a.png", "a.html", "a.txt", "a.svg", "a.png.html"):
            (folder / name).write_bytes(private.read_bytes())
    (pictures / "link.png").symlink_to(private)
    served = {
        path
        for path in [*allowed.own.rglob("*"), *allowed.runs.glob("*"), private]
        if status(own, f"{access.FILE}{path}") is None
    }
    assert served == {pictures / "a.png", compared / "a.png"}
    for path in (f"{pictures}/../trainings/a.png", "pictures/a.png", "", "\0.png"):
        assert status(own, access.FILE + path) == 404


def test_finding_19_only_its_own_pages_are_answered(own: Access) -> None:
    """Not another name, not another port of this machine, whose cookies the browser sends along."""
    join = "/gradio_api/queue/join"
    for origin in (
        "",
        "null",
        "http://localhost:18080",
        "http://127.0.0.1:18080",
        "http://127.0.0.1",
        f"https://127.0.0.1:{PORT}",
        f"http://localhost:{PORT}",  # the same studio by its other name: not where it was asked
        f"http://127.0.0.1:{PORT}.evil.example",
    ):
        assert status(own, join, "POST", origin=origin) == 403, origin
        if origin:
            assert status(own, "/", origin=origin) == 403, origin
    for host in (
        "",
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:80",
        f"evil.example:{PORT}",
        f"127.0.0.1.evil.example:{PORT}",
        f"localhost.:{PORT}",
        f"[::1]:{PORT}",
    ):
        assert status(own, "/", host=host) == 403, host
    there = f"localhost:{PORT}"
    assert status(own, join, "POST", host=there, origin=f"http://{there}") is None
    two = request(own, "/")
    two["headers"].append((b"host", b"evil.example"))
    assert access.refusal(own, two) == 403


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_finding_19_nothing_is_embedded_elsewhere(site: str, own: Access) -> None:
    """A page elsewhere may link to the studio, and load neither its images nor its events."""
    for path in ("/theme.css", "/gradio_api/queue/data", "/"):
        assert status(own, path, sec_fetch_site=site, sec_fetch_mode="no-cors") == 403
        assert status(own, path, sec_fetch_site="same-origin", sec_fetch_mode="cors") is None
    assert status(own, "/", sec_fetch_site=site, sec_fetch_mode="navigate") is None
    assert status(own, "/theme.css", sec_fetch_site=site, sec_fetch_mode="navigate") == 403


def test_finding_19_a_token_is_needed(own: Access) -> None:
    """In the address of a page at the first visit, then in a cookie; another user has neither."""
    other = Access(PORT, ())
    assert len(own.token) >= 32 and own.token != other.token
    for cookie in ("", f"{own.cookie}={other.token}", f"a={own.token}", f"{own.cookie}="):
        for path in ("/", "/theme.css", "/gradio_api/queue/data", "/gradio_api/upload"):
            assert status(own, path, cookie=cookie) == 401
        assert status(own, "/gradio_api/queue/join", "POST", cookie=cookie) == 401
    assert status(own, "/", cookie="", query=f"token={own.token}") is None
    assert status(own, "/ar", cookie="", query=f"a=b&token={own.token}") is None
    assert status(own, "/", cookie="", query=f"token={other.token}") == 401
    assert status(own, "/theme.css", cookie="", query=f"token={own.token}") == 401
    assert status(own, "/", cookie=f"a=b; {own.cookie}={own.token}; c=d") is None
    assert Access(PORT + 1, ()).cookie != own.cookie  # of two studios on one machine
    assert own.address("ar") == f"http://127.0.0.1:{PORT}/ar?token={own.token}"


def answered(own: Access, scope: dict[str, Any]) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer; the app behind it answers 200."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    answer = access.Guard(app, own)(scope, receive, send)
    with pytest.raises(StopIteration):
        answer.send(None)  # type: ignore[attr-defined]
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers


def test_finding_18_every_answer_is_kept_to_its_own_page(own: Access) -> None:
    """Also a refusal. The cookie comes with the first visit alone."""
    for path, code in (("/", 200), ("/config", 404)):
        found, headers = answered(own, request(own, path))
        assert found == code
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "set-cookie" not in headers
    _, headers = answered(own, request(own, "/", query=f"token={own.token}", cookie=""))
    cookie = headers["set-cookie"].split("; ")
    assert cookie == [f"{own.cookie}={own.token}", "Path=/", "HttpOnly", "SameSite=Strict"]
    code, headers = answered(own, request(own, "/", query="token=x", cookie=""))
    assert code == 401 and "set-cookie" not in headers


# ---------------------------------------------------------------- 20: stop and records


def recorded(allowed: AllowedFolders, value: object) -> process.TrainingProcess:
    """The process of the training `run`, of which a record says this."""
    found = process.process_of(allowed, allowed.runs / "run")
    found.record.write_text(json.dumps({"process": value, "words": ["train", "prior"]}))
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were asked to stop; each one has the words of the record."""
    found: list[int] = []
    words = ["python", "-m", "wassily", "train", "prior"]
    monkeypatch.setattr(process.platforms, "words_of", lambda number: words)
    monkeypatch.setattr(process.platforms, "ask_to_stop", found.append)
    return found


@pytest.mark.parametrize("number", [-1, 0, 1, True, False, 5.0, "5", None, [5], -99])
def test_finding_20_no_such_number_is_signalled(
    number: object, allowed: AllowedFolders, asked: list[int]
) -> None:
    """-1 would be every process of the user."""
    own = recorded(allowed, number)
    assert not process.runs(own)
    with pytest.raises(UserError, match="does not run"):
        process.stop(own)
    assert asked == []


def test_finding_20_only_the_holder_of_the_lock_is_signalled(
    allowed: AllowedFolders, asked: list[int]
) -> None:
    """A record names any process of the user; the lock of the output folder names the training."""
    folder = training(allowed.runs / "run")
    own = recorded(allowed, os.getpid())
    with pytest.raises(UserError, match="does not write there"):
        process.stop(own)
    (folder / lock.NAME).write_text(json.dumps({"process": os.getpid(), "host": "h"}))
    with pytest.raises(UserError, match="does not write there"):
        process.stop(own)
    (folder / lock.NAME).unlink()
    with lock.held(folder):
        with pytest.raises(UserError, match="does not write there"):
            process.stop(recorded(allowed, os.getpid() + 1))
        process.stop(recorded(allowed, os.getpid()))
    assert asked == [os.getpid()]


@pytest.mark.parametrize("name", ["run.txt", "run.writing", "run.json"])
def test_finding_20_a_link_is_not_written_through(
    name: str, allowed: AllowedFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file behind it stays as it was; the training starts with a new one."""
    target = allowed.runs.parent / "precious"
    target.write_text("precious")
    (allowed.trainings / name).symlink_to(target)

    class Child:
        pid = os.getpid()

        def poll(self) -> None:
            return None

    monkeypatch.setattr(process.subprocess, "Popen", lambda *words, **more: Child())
    monkeypatch.setattr(process, "_children", [])
    own = process.process_of(allowed, allowed.runs / "run")
    process.start(own, ["train", "prior"])
    assert target.read_text() == "precious"
    assert process.record_of(own)["process"] == os.getpid()
    assert not own.output.is_symlink() and own.output.is_file()


@pytest.mark.parametrize("name", ["", "pictures", "compared", "trainings"])
def test_finding_20_its_own_folders_are_no_links(name: str, tmp_path: Path) -> None:
    """The studio does not start to write elsewhere."""
    (tmp_path / "private").mkdir()
    (tmp_path / "runs" / ("studio" if name else "")).mkdir(parents=True)
    (tmp_path / "runs" / "studio" / name).symlink_to(tmp_path / "private")
    with pytest.raises(UserError, match=r"a link, and the studio writes into it\. Remove it"):
        AllowedFolders(tmp_path / "runs").make_own()


# ---------------------------------------------------------------- 28, 29


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_finding_28_what_is_temporary_goes_with_a_signal(name: str, tmp_path: Path) -> None:
    """As with Ctrl-C: the folder is left by the way of every exception."""
    number, before = signal.Signals[name], signal.getsignal(signal.Signals[name])
    left = False
    with pytest.raises(SystemExit) as caught, server.ended_by_signals():
        try:
            signal.raise_signal(number)
        finally:
            left = True
    assert left and caught.value.code == 128 + number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 10**9}, "--width: 1e.09 is more than 4096"),
        ({"height": 4097}, "--height: 4097 is more than 4096"),
        ({"guidance_scale": 1e308}, "--guidance_scale: 1e.308 is more than 100"),
        ({"prior_guidance_scale": 101.0}, "--prior_guidance_scale: 101 is more than 100"),
        ({"guidance_scale": float("nan")}, "--guidance_scale"),
        ({"prompts": ("a" * 10_001,)}, "too long .10,001 characters, the limit is 10,000"),
        ({"negative_prompt": "a" * 10_001}, "too long"),
        ({"prompts": ("a\ud800",)}, "not Unicode text"),
        ({"num_images": 10**7}, "--num_images: 1e.07 is more than"),
        ({"batch_size": 1025}, "--batch_size: 1025 is more than 1024"),
    ],
)
def test_finding_29_fields_have_bounds(changes: dict[str, Any], message: str) -> None:
    """In the studio and on the command line, which share the config."""
    with pytest.raises(UserError, match=message) as caught:
        GenerateConfig(**({"prompts": ("a",)} | changes))
    assert len(str(caught.value)) < 300
    GenerateConfig(prompts=("a" * 10_000,), width=4096, height=4096, guidance_scale=100.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 8192}, "--resolution: 8192 is more than 4096"),
        ({"validation_prompts": ("a", "b" * 10_001)}, "--validation_prompts: .*too long"),
    ],
)
def test_finding_29_a_training_has_the_same_bounds(
    changes: dict[str, Any], message: str, allowed: AllowedFolders
) -> None:
    """The flags that it shares with a generation."""
    with pytest.raises(UserError, match=message):
        PriorConfig(train_data_dir=str(allowed.data[0]), **changes)


def test_finding_29_the_line_with_the_hyphen_is_named() -> None:
    """Not the first one."""
    with pytest.raises(UserError, match="'--b' begins with a hyphen"):
        command_words.train("prior", {"validation_prompts": ("a", "--b")})


def test_the_port_in_the_address_is_left_out_where_browsers_do() -> None:
    """Of port 80 alone."""
    assert Access(80, ()).hosts == ["127.0.0.1", "localhost"]
    with socket.socket() as probe:
        probe.bind((server.HOST, 0))
        assert server.free_port() != probe.getsockname()[1]
