"""How the page is served: on this machine unless people log in, with nothing recorded and nothing sent outside."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

from ccan.errors import ConfigError

AUTH_VARIABLE = "CCAN_AUTH"
ASSETS = Path(__file__).parent / "assets"
Logins = list[tuple[str, str]]


def logins(host: str, auth_file: Path | None, share: bool = False) -> Logins | None:
    """Who may log in; None = nobody needs to, on this machine alone.

    Raises: ConfigError for a host or a share that others reach without a login, or for one that is not user:password.
    """
    text = auth_file.read_text("utf-8") if auth_file else os.environ.get(AUTH_VARIABLE, "")
    pairs = [line.strip().partition(":") for line in text.splitlines() if line.strip()]
    if any(not user or not password for user, _, password in pairs):
        raise ConfigError("expected logins as user:password, one a line, got a line that is not")
    if auth_file and not pairs:
        raise ConfigError(f"expected lines user:password in {auth_file}, got an empty file")
    if not pairs and (share or not is_loopback(host)):
        which = "--share" if share else f"--host {host}"
        raise ConfigError(
            f"{which} lets other machines in, so it needs a login: set {AUTH_VARIABLE}=user:password "
            "or pass --auth-file FILE (never a password on the command line)"
        )
    return [(user, password) for user, _, password in pairs] or None


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int) -> int:
    """The port itself, or any free one for 0. Raises: ConfigError if it is taken or not allowed."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name != "nt")
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen on {host} port {port} ({error}); is another dashboard running? "
            f"Pass another one: --port {port + 1 if 0 < port < 65535 else 8000}"
        ) from error


def require_gradio() -> None:
    """Raises: ConfigError with what to install, where the dashboard's packages are missing."""
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError(
            "the dashboard needs Gradio, which is not installed here: pip install -e '.[app]', or make setup"
        )


def speak_directly() -> None:
    """Keep requests of this machine to itself away from a proxy that the environment names."""
    known = [os.environ[name] for name in ("NO_PROXY", "no_proxy") if os.environ.get(name)]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(
        [*known[:1], "127.0.0.1,localhost,::1"]
    )


def launch_settings(host: str, port: int, share: bool = False) -> dict[str, Any]:
    """What `launch` is told: nothing is recorded, no file of this machine can be read, nothing is shared unasked."""
    import gradio as gr

    from app.images import MAX_UPLOAD_BYTES

    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"]
    mono = ["ui-monospace", "Menlo", "Consolas", "Liberation Mono", "monospace"]
    return {
        "server_name": host,
        "server_port": port,
        "share": share,
        "strict_cors": True,
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "quiet": True,
        "footer_links": [],
        "max_file_size": MAX_UPLOAD_BYTES,
        "theme": gr.themes.Base(
            primary_hue="slate", neutral_hue="slate", font=fonts, font_mono=mono
        ),
        "css_paths": ASSETS / "style.css",
        "head": (ASSETS / "head.html").read_text(encoding="utf-8"),
    }


def check(address: str, query: str, auth: Logins | None) -> str:
    """Ask the running server for one ranking → what it said."""
    from gradio_client import Client

    login: Any = auth[0] if auth else None
    client = Client(address, auth=login, verbose=False, analytics_enabled=False)
    nearest = client.predict(query, 5, api_name="/rank")
    marks = ", ".join(f"{found['mark']} {found['distance']:.3f}" for found in nearest)
    return f"check passed: {address} ranks {query}: {marks}"
