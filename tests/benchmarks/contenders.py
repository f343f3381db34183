"""Who is compared: bert4x and its peers, each in the forms that may be its best, as far as they are installed."""

import sys
from dataclasses import dataclass

from tests.benchmarks.common import BACKENDS, PEERS, installed
from tests.benchmarks.peers import python_of

MODULES = {
    "bert4x": "tests.benchmarks.libraries.ours",
    "keras-hub": "tests.benchmarks.libraries.keras_hub",
    "transformers": "tests.benchmarks.libraries.transformers",
    "sentence-transformers": "",  # which has a case of its own
    "bert4keras": "tests.benchmarks.libraries.bert4keras",
    "openvino": "tests.benchmarks.libraries.engines",
    "onnxruntime": "tests.benchmarks.libraries.engines",
    "savedmodel": "tests.benchmarks.libraries.engines",
}


@dataclass(frozen=True)
class Contender:
    """A library, the backend of Keras if it has one, and how it runs."""

    library: str
    python: str
    backend: str = ""
    form: str = ""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.library, self.backend, self.form)))

    @property
    def module(self) -> str:
        return MODULES[self.library]

    @property
    def environment(self) -> dict[str, str]:
        return {"KERAS_BACKEND": self.backend} if self.backend else {}


def contenders(against, backends=BACKENDS, forms: dict[str, tuple[str, ...]] | None = None) -> list[Contender]:
    """Ours and the peers that are asked for and installed; the others are named.

    Args:
        forms: by library and backend, such as "bert4x, torch", or by library, such as "transformers"; the others have
            one.
    """
    forms = forms or {}
    found = []
    for library in ("bert4x", *[peer for peer in PEERS if peer in against]):
        python = sys.executable if library == "bert4x" else python_of(library)
        if python is None:
            print(f"{library} is not installed (python -m tests.benchmarks.peers {library}): skipped")
        elif library in ("bert4x", "keras-hub"):
            for backend in filter(installed, backends):
                kinds = forms.get(f"{library}, {backend}", ("",))
                found += [Contender(library, python, backend, form) for form in kinds]
        else:
            found += [Contender(library, python, form=form) for form in forms.get(library, ("",))]
    return found
