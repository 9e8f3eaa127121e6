"""Start the dashboard: `python app/demo.py`, then open the address that it prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from app.serving import (
    AUTH_VARIABLE,
    check,
    free_port,
    launch_settings,
    logins,
    require_gradio,
    speak_directly,
)
from ccan.errors import CCANError, ConfigError

if TYPE_CHECKING:
    from app.store import Store


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; others than this need a login")
    add("--port", type=int, default=7860, help="0 = any free one")
    add("--checkpoint", default="demo", help="a checkpoint, a run folder, or demo (bundled)")
    add("--dataset", default="demo", help="layout of --data, or demo (a synthetic world)")
    add("--data", type=Path, help="folder of the dataset")
    add("--options", nargs="*", default=[], help="options of its loader, name=value")
    add("--features", type=Path, help="features of any model (.npz, .safetensors) instead")
    add("--images", type=Path, help="folder of the pictures that the features file names")
    add("--runs", type=Path, default=Path("runs"), help="folder of run folders, for their curves")
    add(
        "--compare",
        help="a second checkpoint (or features file) of the same images, to compare with",
    )
    add(
        "--gallery", type=Path, help="an index that ccan index made, to look for the queries in too"
    )
    add("--cases", type=Path, help="file of tags and notes; by default one for each dataset")
    add(
        "--share", action="store_true", help="a public link through Gradio's servers; needs a login"
    )
    add("--auth-file", type=Path, help=f"file with lines user:password; or set {AUTH_VARIABLE}")
    add("--check", action="store_true", help="build everything, answer one request, exit")
    return parser.parse_args(arguments)


def open_store(options: argparse.Namespace) -> Store:
    """The data of the page. Raises: CCANError; ConfigError for options that do not go together."""
    from app.store import Store

    if options.features is None:
        if options.images is not None:
            raise ConfigError("--images belongs to --features; a dataset's own images need --data")
        return Store.open(
            options.checkpoint,
            options.dataset,
            options.data,
            options.options,
            cases=options.cases,
        )
    if (options.checkpoint, options.dataset, options.data) != ("demo", "demo", None):
        raise ConfigError("--features stands for itself: leave out --checkpoint, --dataset, --data")
    return Store.of_features(options.features, options.images, cases=options.cases)


def other_of(options: argparse.Namespace) -> argparse.Namespace:
    """The same options with the second checkpoint, or the second features file, in place of the first."""
    name = "checkpoint" if options.features is None else "features"
    value = options.compare if options.features is None else Path(options.compare)
    return argparse.Namespace(**{**vars(options), name: value})


def serve(options: argparse.Namespace) -> None:
    """Load, build, launch; until interrupted, or for one request with --check."""
    require_gradio()
    from app.runs import Runs

    auth = logins(options.host, options.auth_file, options.share)
    port = free_port(options.host, 0 if options.check else options.port)
    print("Loading model, images and index (the first start takes up to a minute) …", flush=True)
    store = open_store(options)
    if options.compare is not None:
        print(f"Loading {options.compare} to compare with …", flush=True)
        store.set_other(open_store(other_of(options)))
    if options.gallery is not None:
        from ccan.search import open_index

        index = open_index(options.gallery)
        store.set_gallery(index)
        print(f"also looked for in {options.gallery}: {index.describe()}")
    store.runs = Runs(options.runs)
    device = store.predictor.device if store.predictor else "none, features only"
    print(f"{store.dataset.summary()}\n{store.report.summary()}\ndevice: {device}")
    from app.ui import build_ui

    page = build_ui(store)
    settings = launch_settings(options.host, port, options.share)
    _, address, _ = page.launch(auth=auth, prevent_thread_lock=True, **settings)
    try:
        if options.check:
            print(check(address, store.query_ids[0], auth))
        else:
            print(f"\nOpen {address} (Ctrl-C ends it)", flush=True)
            page.block_thread()
    finally:
        page.close(verbose=False)
        if store.elsewhere is not None:
            store.elsewhere.index.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """0 = done, 2 = an error that is the user's to mend."""
    options = parse(arguments)
    speak_directly()
    try:
        serve(options)
    except (CCANError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # also while an index is being made: nothing half-made stays
        print("\nstopped")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
