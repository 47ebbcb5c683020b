"""The command `specgan`, for any folder: `specgan train model=cgan` is `python train.py model=cgan` of a clone."""

import runpy
import sys

from specgan.command_line.commands import scripts_folder

COMMANDS = {
    "train": "trains a model, or measures what was trained (stage=test)",
    "generate": "draws new sounds of a checkpoint",
    "preprocess": "runs a task on a folder of audio",
    "serve": "serves a checkpoint, and pictures of sounds, to a browser",
    "push": "uploads a checkpoint to the Hugging Face hub, with a card",
    "export": "writes a checkpoint as an ONNX model, or as a page that draws sounds",
}
_MODULES = {  # commands that are no script of a clone
    "serve": "specgan.server",
    "push": "specgan.sharing",
    "export": "specgan.export",
}
_WIDTH = max(map(len, COMMANDS))
USAGE = "\n".join(
    [
        "usage: specgan COMMAND [SETTING=VALUE ...]",
        "",
        *(f"  {name:<{_WIDTH}}  {what}" for name, what in COMMANDS.items()),
        "",
        "specgan COMMAND --help    all settings of a command, and how to change them",
        "specgan COMMAND --config-dir FOLDER ...    your own YAML files in addition",
        'eval "$(specgan completion)"    settings are completed with Tab, in bash and in zsh with bashcompinit',
        "specgan --version",
    ]
)
# Hydra's own completion takes the first word of a line for the whole command.
COMPLETION = """_specgan() {
  if [ "$COMP_CWORD" -le 1 ]; then
    COMPREPLY=($(compgen -W "%s" -- "${COMP_WORDS[1]}"))
  else
    COMPREPLY=($(compgen -W "$(COMP_LINE="${COMP_LINE#* }" specgan "${COMP_WORDS[1]}" -sc query=bash)" \\
      -- "${COMP_WORDS[COMP_CWORD]}"))
  fi
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _specgan specgan"""


def main() -> None:
    """Runs the command that is named first; exits with 2 if it is none."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(USAGE)
    elif name == "--version":
        from specgan import __version__

        print(__version__)
    elif name == "completion":
        print(COMPLETION % " ".join(COMMANDS))
    elif name in _MODULES:
        sys.argv[1:] = arguments
        runpy.run_module(_MODULES[name], run_name="__main__", alter_sys=True)
    elif name in COMMANDS:
        script = str(scripts_folder() / f"{name}.py")
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
    else:
        print(f"specgan: {name!r} is none of its commands\n\n{USAGE}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
