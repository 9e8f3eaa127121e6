"""`ccan export`: a trained network as one file for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ccan.cli.output import Outputs
from ccan.errors import ConfigError


@dataclass(frozen=True)
class Export:
    """Write a network for other programs (torch.export, ONNX, safetensors), checked against the original."""

    out: Path
    """The file: .pt2, .onnx or .safetensors."""
    checkpoint: str = "demo"
    """A checkpoint file, a run folder, or `demo` for the bundled model."""
    format: Literal["torch", "onnx", "safetensors"] | None = None
    """By default what the file's suffix says."""
    precision: Literal["float32", "float16"] = "float32"
    """float16 halves the file."""
    json: str | None = None
    """Write what was done to this file; `-` = standard output."""

    def run(self) -> None:
        """Export, check, say how far it is from the original."""
        from ccan.export import SUFFIXES, Format, export

        by_suffix: dict[str, Format] = {suffix: name for name, suffix in SUFFIXES.items()}
        format = self.format or by_suffix.get(self.out.suffix)
        if format is None:
            raise ConfigError(
                f"--out must end in {', '.join(by_suffix)}, got {self.out.name!r}; the suffix says the format"
            )
        with Outputs(self.json) as outputs:
            done = export(self.checkpoint, self.out, format, self.precision)
            sizes = ", ".join(map(str, done.batches))
            print(
                f"wrote {self.out}: {done.bytes / 1e6:.1f} MB, {done.precision}; largest difference from the original "
                f"{done.largest_difference:.1e} (batches of {sizes})"
            )
            outputs.json(self.json, done.to_dict())
