"""`dfkd up` and `dfkd janitor`: run the service on this machine, and free its disk."""

from pathlib import Path
from typing import Annotated

import typer

from dfkd.cli import display

out = display.console(stderr=False)
err = display.console(stderr=True)

Directory = Annotated[Path | None, typer.Option(help="Directory of all data.")]


def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    data_dir: Directory = None,
) -> None:
    """Start the whole service: API, worker and a private Redis. Ctrl-C stops it."""
    from dfkd_core.extras import require

    require("worker")
    from jobs.settings import settings_from_environment
    from service.embedded.up import up

    up(settings_from_environment(data_dir), host, port)


def janitor(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    data_dir: Directory = None,
) -> None:
    """Remove files whose retention period is over; print what and why. The service does this every hour by itself."""
    from dfkd_core.extras import require

    require("server")
    from jobs.files.artifacts import open_artifacts
    from jobs.garbage_collector import collect_garbage
    from jobs.settings import settings_from_environment
    from jobs.store import open_store

    settings = settings_from_environment(data_dir)
    store = open_store(settings)
    try:
        acts = collect_garbage(
            store,
            open_artifacts(settings),
            retention_seconds=settings.retention_seconds,
            checkpoint_retention_seconds=settings.checkpoint_retention_seconds,
            dry_run=dry_run,
        )
    finally:
        store.close()
    for act in acts:
        out.print(f"{act.verb} {act.what}: {act.why}")
    err.print(f"{len(acts)} {'to do' if dry_run else 'done'}")
