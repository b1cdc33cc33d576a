"""The pages: the one owner of gradio. English at /, Arabic at /ar, one drawing queue for both."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from wassily.errors import UserError
from wassily.studio.allowed_folders import AllowedFolders
from wassily.studio.generation_queue import GenerationQueue
from wassily.studio.texts import Language, Say

if TYPE_CHECKING:
    import gradio as gr
    from fastapi import FastAPI

    from wassily.config.commands import StudioConfig

HOST = "127.0.0.1"
PATHS: dict[Language, str] = {"en": "", "ar": "ar"}


def serve(config: StudioConfig) -> None:
    """Serve until Ctrl-C. Raises UserError for a port that is taken."""
    allowed = allowed_folders(config)
    with tempfile.TemporaryDirectory(prefix="wassily-studio-") as folder:
        _settle(folder)
        demo = build(allowed, config.cache_dir)
        try:
            _, address, _ = launch(demo, allowed, config.port, config.open)
        except OSError as error:
            raise UserError(f"--port {config.port}: {' '.join(str(error).split())}") from None
        print(f"the studio is at {address}{PATHS[config.language]} (Ctrl-C ends it)", flush=True)
        try:
            demo.block_thread()
        finally:
            demo.close(verbose=False)


def allowed_folders(config: StudioConfig) -> AllowedFolders:
    """The folders that a config gives; that of the runs is made. Raises UserError."""
    allowed = AllowedFolders(Path(config.runs), tuple(map(Path, config.data)))
    try:
        allowed.own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--runs {config.runs}: {error.strerror or error}") from None
    return allowed


def _settle(folder: str) -> None:
    """Before gradio is read: nobody's settings open it to others, and it tells nobody of itself."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def build(allowed: AllowedFolders, cache_dir: str | None) -> gr.Blocks:
    """All pages as gradio's Blocks."""
    import gradio as gr

    from wassily.studio.page import compare, data, generate, shared, train

    queue = GenerationQueue()

    def fill(language: Language) -> None:
        say = Say(language)
        shared.header(say)
        with gr.Tabs(elem_id="tabs"):
            generate.tab(say, allowed, queue, cache_dir)
            compare.tab(say, allowed, queue, cache_dir)
            train.tab(say, allowed)
            data.tab(say, allowed)

    with gr.Blocks(title="wassily", analytics_enabled=False) as demo:
        gr.Navbar(visible=False)
        fill("en")
    with demo.route("wassily", PATHS["ar"], show_in_navbar=False):
        fill("ar")
    return demo.queue(default_concurrency_limit=8, api_open=False)


def launch(
    demo: gr.Blocks, allowed: AllowedFolders, port: int, browser: bool
) -> tuple[FastAPI, str, str]:
    """Start to serve on this machine alone; gradio's answer: the app, its address, no share."""
    from wassily.studio.page import shared

    return demo.launch(
        server_name=HOST,
        server_port=port or free_port(),
        share=False,
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        allowed_paths=[str(allowed.own.resolve())],
        max_file_size="1mb",
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        theme=shared.theme(),
        css=shared.CSS,
        head=shared.HEAD,
        app_kwargs={"middleware": shared.middleware()},
    )


def free_port() -> int:
    """A port of this machine that nobody has."""
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
