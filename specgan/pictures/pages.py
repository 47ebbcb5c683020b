"""HTML pages from templates: one file each that loads nothing from elsewhere."""

from base64 import b64encode
from pathlib import Path

from specgan.files import write_text

TEMPLATES = Path(__file__).parent / "templates"  # style and parts that all pages share


def write_page(path: str | Path, template: Path, **values: object) -> None:
    """Writes a page, with every text of `values` escaped.

    Args:
        path: the page; its folder is created.
        template: a Jinja template; it may include those beside it and those in `TEMPLATES`.
        values: what the template shows. Characters that are not valid Unicode, as in the name of a file that is not
            UTF-8, become question marks.
    """
    # Here, because the commands that write no page start faster without it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template.name).render(values)
    write_text(path, page, errors="replace")


def data_uri(media_type: str, content: bytes) -> str:
    """Returns the address of a picture or sound that a page holds itself; the type is that of MIME: "audio/flac"."""
    return f"data:{media_type};base64,{b64encode(content).decode()}"
