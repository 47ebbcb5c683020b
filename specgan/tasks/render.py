"""Task: one audio file -> one picture of exactly the given size."""

import sys
from pathlib import Path
from typing import Any

from specgan.batch.runner import Report
from specgan.files import Outputs, write_bytes
from specgan.pictures.render import render


def render_file(input: str | Path, output: str | Path, *, axes: bool = False, **settings: Any) -> Report:
    """Writes the picture that `render` makes of `input` to `output`, a .png; "-" is standard output.

    Raises:
        ValueError: not a .png, or another file than an earlier run's; besides as `render`.
    """
    to_stdout = str(output) == "-"
    if not to_stdout and Path(output).suffix.lower() != ".png":
        raise ValueError(f"output is {output}; the picture is a PNG: a name with .png, or - for standard output")
    if to_stdout:
        sys.stdout.buffer.write(render(input, axes=axes, **settings))
    else:
        outputs = Outputs(Path(output).parent, "render")
        outputs.require_free([Path(output).name])
        png = render(input, axes=axes, **settings)
        outputs.claim([Path(output).name])
        write_bytes(output, png)
    return Report(n_done=1, message=f"{output}: picture of {input}")
