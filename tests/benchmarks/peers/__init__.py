"""Environments of the libraries that are compared: what is not installed here gets one of its own, beside this one.

    python -m tests.benchmarks.peers [NAME ...] [--folder FOLDER]

An environment holds what NAME.txt lists, and sees everything of the current one after that, so that no backend is
installed twice. The folder is $BERT4X_PEERS, or build/peers.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

MODULES = {  # what to import to see whether a peer is installed
    "transformers": "transformers",
    "sentence-transformers": "sentence_transformers",
    "keras-hub": "keras_hub",
    "bert4keras": "bert4keras",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "savedmodel": "tensorflow",
}
LISTS = Path(__file__).parent


def environments() -> Path:
    """The folder of all environments."""
    return Path(os.environ.get("BERT4X_PEERS", Path(__file__).parents[3] / "build" / "peers"))


def python_of(name: str) -> str | None:
    """The interpreter that has a peer: this one, or that of its environment; None when neither has it."""
    if find_spec(MODULES[name]):
        return sys.executable
    found = interpreter(environments() / name)
    return str(found) if found.exists() else None


def interpreter(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(name: str, folder: Path) -> None:
    """Makes the environment of a peer. Raises: subprocess.CalledProcessError when pip fails."""
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    python = str(interpreter(folder))
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    (Path(own) / "current.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    command = [python, "-m", "pip", "install", "--quiet"]
    # Its requirements name a Keras of 2019, and would replace the one that is here.
    command += ["--no-deps"] if name == "bert4keras" else []
    subprocess.run([*command, "--requirement", str(LISTS / f"{name}.txt")], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}; default: what is missing")
    parser.add_argument("--folder", type=Path, default=environments())
    args = parser.parse_args()
    for name in args.names:
        if name not in MODULES:
            parser.error(f"no peer {name!r}; expected one of {', '.join(MODULES)}")
    for name in args.names or [name for name in MODULES if python_of(name) is None]:
        print(f"{name}: {args.folder / name}", flush=True)
        install(name, args.folder / name)
