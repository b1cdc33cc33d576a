"""The server of the pages: English at /, Arabic at /ar, one queue of generations for both."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wassily.errors import UserError
from wassily.files import platforms
from wassily.studio.access import Access, Guard
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
    """Serve until Ctrl-C or SIGTERM. Raises UserError for a port that is taken."""
    allowed = allowed_folders(config)
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="wassily-studio-") as folder:
        _settle(folder)
        demo = build(allowed, config.cache_dir)
        # gradio copies into its own folder what a page shows.
        access = Access(config.port or free_port(), (*allowed.images, Path(folder)))
        try:
            launch(demo, allowed, access)
        except OSError as error:
            raise UserError(f"--port {config.port}: {' '.join(str(error).split())}") from None
        address = access.address(PATHS[config.language])
        print(f"the studio is at {address} (Ctrl-C ends it)", flush=True)
        if config.open:
            webbrowser.open(address)
        try:
            demo.block_thread()
        finally:
            demo.close(verbose=False)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within, the signals that end a process raise SystemExit, so that what is temporary is
    removed. Ctrl-C raises KeyboardInterrupt, as ever.
    """

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    others = [one for one in platforms.stop_signals() if one != signal.SIGINT]
    before = {one: signal.signal(one, end) for one in others}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def allowed_folders(config: StudioConfig) -> AllowedFolders:
    """The folders that a config gives; that of the runs is made. Raises UserError."""
    allowed = AllowedFolders(Path(config.runs), tuple(map(Path, config.data)))
    allowed.make_own()
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

    from wassily.pages import compare, data, generate, shared, train

    queue = GenerationQueue()

    def fill(language: Language) -> None:
        say = Say(language)
        shared.header(say)
        with gr.Tabs(elem_id="tabs"):
            generate.tab(say, allowed, queue, cache_dir)
            compare.tab(say, allowed, queue, cache_dir)
            train.tab(say, allowed, cache_dir)
            data.tab(say, allowed)

    with gr.Blocks(title="wassily", analytics_enabled=False) as demo:
        gr.Navbar(visible=False)
        fill("en")
    with demo.route("wassily", PATHS["ar"], show_in_navbar=False):
        fill("ar")
    return demo.queue(default_concurrency_limit=8, api_open=False)


def launch(demo: gr.Blocks, allowed: AllowedFolders, access: Access) -> FastAPI:
    """Start to serve on this machine alone; gradio's app."""
    from starlette.middleware import Middleware

    from wassily.pages import shared

    app, _, _ = demo.launch(
        server_name=HOST,
        server_port=access.port,
        share=False,
        inbrowser=False,  # it would open the address without the token
        prevent_thread_lock=True,
        quiet=True,
        allowed_paths=[str(folder.resolve()) for folder in allowed.images],
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
        app_kwargs={"middleware": [Middleware(Guard, access=access)]},
    )
    return app


def free_port() -> int:
    """A port of this machine that nobody has."""
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
