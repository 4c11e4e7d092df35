"""`goodseed review`: serves the reviewers' page of a run, or of two runs, to a local browser."""

from __future__ import annotations

import argparse
import functools
import tempfile
import webbrowser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.review import PAGE
from pipeline.system import silent_stderr


def add_command(commands: Any) -> None:
    """Adds `review` to the commands of `goodseed`."""
    review = commands.add_parser(
        "review", help="open the reviewers' page of a run", allow_abbrev=False,
        description="Serves the newest page of a run folder on 127.0.0.1 until Ctrl-C.",
    )  # fmt: skip
    review.add_argument("run_dir", metavar="RUN_DIR", type=Path)
    review.add_argument(
        "--compare", metavar="OTHER_RUN", type=Path, help="show it beside another run"
    )
    review.add_argument("--open", action="store_true", help="also open it in the browser")
    review.add_argument("--port", type=int, default=0, help="TCP port (default: a free one)")
    review.set_defaults(command=_review)


def _review(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as aside:
        return _serve(_folder(options, Path(aside)), options)


def _folder(options: argparse.Namespace, aside: Path) -> Path:
    """The folder of the page; if it compares two runs, the page is written to `aside`."""
    from pipeline.local import reviews

    if not options.compare:
        return reviews.newest(options.run_dir)
    from rich.console import Console

    with Console().status("loading TFX"), silent_stderr():
        runs = [(str(path), reviews.inputs(path)) for path in (options.run_dir, options.compare)]
        (aside / PAGE).write_text(reviews.compared(runs), "utf-8")
        return aside


class _Files(SimpleHTTPRequestHandler):
    """The files of a folder: no listing, no caching, and the type by the file's name."""

    extensions_map = {  # noqa: RUF012
        ".html": "text/html; charset=utf-8",
        ".md": "text/markdown; charset=utf-8",
        ".csv": "text/csv; charset=utf-8",
    }

    def end_headers(self) -> None:
        """Adds headers for the browser."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Logs nothing."""


def _serve(folder: Path, options: argparse.Namespace) -> int:
    handler = functools.partial(_Files, directory=str(folder))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", options.port), handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"port {options.port}: {reason}; choose another --port") from None
    with server:
        url = f"http://127.0.0.1:{server.server_port}/"
        print(f"{url} until Ctrl-C; its files are in {folder}", flush=True)
        if options.open:
            webbrowser.open(url)
        server.serve_forever()
    return 0
