"""What pyproject.toml cannot say: the scripts and conf/, at the top of a clone, are part of the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SCRIPTS = ("train.py", "generate.py", "preprocess.py")


class BuildWithScripts(build_py):
    """Adds `specgan/scripts`: train.py, generate.py, preprocess.py and conf/. A clone installed with -e has its own."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for path, copied in self._scripts().items():
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copied)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *map(str, self._scripts().values())]

    def _scripts(self) -> dict[Path, Path]:
        paths = [*map(Path, SCRIPTS), *Path("conf").rglob("*.yaml")]
        return {path: Path(self.build_lib, "specgan", "scripts", path) for path in paths}


setup(cmdclass={"build_py": BuildWithScripts})
