"""Imports point one way (docs/architecture.md), and importing bert4x is fast because it loads no backend."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BACKENDS = {"tensorflow", "jax", "torch"}
# A part of the package, what its modules must not import, and where: "top" is when they are imported, "any" also later,
# inside functions. Prefixes of full module names.
FORBIDDEN = [
    ("bert4x", "top", BACKENDS),
    ("bert4x.errors", "any", {"bert4x"}),
    ("bert4x.config", "any", {"bert4x.layers", "bert4x.models", "bert4x.checkpoints", "bert4x.tasks", "keras"}),
    ("bert4x.masks", "any", {"bert4x"}),
    ("bert4x.layers", "any", {"bert4x.models", "bert4x.checkpoints", "bert4x.tokenizers", "bert4x.tasks"}),
    ("bert4x.families", "any", {"bert4x.tasks", "bert4x.generation", "bert4x.cli", "keras", *BACKENDS}),
    ("bert4x.models", "any", {"bert4x.tasks", "bert4x.cli", *BACKENDS}),
    ("bert4x.models", "top", {"bert4x.generation"}),  # a model's generate hands the model up, when called
    ("bert4x.generation", "any", {"bert4x.checkpoints", "bert4x.tasks", "bert4x.training", "bert4x.cli"}),
    ("bert4x.checkpoints", "top", {"bert4x.models", "bert4x.layers", "bert4x.masks", "bert4x.tasks", "keras"}),
    ("bert4x.checkpoints", "any", BACKENDS),
    ("bert4x.checkpoints.formats", "any", {"bert4x.models", "bert4x.config", "bert4x.tokenizers", "keras"}),
    ("bert4x.checkpoints.tables", "any", {"bert4x.models", "bert4x.tokenizers", "keras"}),
    ("bert4x.hub", "any", {"bert4x.models", "bert4x.layers", "bert4x.tasks", "bert4x.cli", "keras", *BACKENDS}),
    ("bert4x.tokenizers", "any", {"bert4x.models", "bert4x.layers", "bert4x.tasks", "keras", *BACKENDS}),
    ("bert4x.tasks", "any", {"bert4x.cli", *BACKENDS}),
    (
        "bert4x.cli",
        "top",
        {"bert4x.models", "bert4x.checkpoints", "bert4x.tasks", "bert4x.tokenizers", "keras", "rich"},
    ),
]
BUILDERS_ONLY = "bert4x.models.build"  # the one module of models that reads checkpoints
COMPILERS_ONLY = "bert4x.generation.compiled"  # the one module of generation that speaks to a backend by name


def modules():
    """Full name -> path of every module of the package."""
    for path in sorted((ROOT / "bert4x").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(module: str, path: Path):
    """(full name, whether it happens when the module is imported, line) of every import in a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    lazy = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or typing_only:
            lazy.update(id(inner) for inner in ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, id(node) not in lazy, node.lineno) for name in names)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize(("part", "where", "forbidden"), FORBIDDEN)
def test_imports_point_one_way(part, where, forbidden):
    wrong, seen = [], 0
    for module, path in modules():
        if not within(module, part):
            continue
        seen += 1
        for name, at_import, line in imported(module, path):
            if (at_import or where == "any") and any(within(name, prefix) for prefix in forbidden):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert seen, f"{part} does not exist any more; correct FORBIDDEN"
    assert not wrong, "\n".join(wrong)


def test_only_the_builder_stands_on_checkpoints():
    wrong = [
        f"{module}:{line} imports {name}"
        for module, path in modules()
        if within(module, "bert4x.models") and module != BUILDERS_ONLY
        for name, at_import, line in imported(module, path)
        if at_import and within(name, "bert4x.checkpoints")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_compiler_speaks_to_backends():
    users = {
        module
        for module, path in modules()
        if within(module, "bert4x.generation")
        for name, *_ in imported(module, path)
        if any(within(name, backend) for backend in BACKENDS)
    }
    assert users == {COMPILERS_ONLY}


def test_converters_stand_on_the_package_alone():
    paths = sorted((ROOT / "converters").glob("*.py"))
    assert len(paths) >= 4
    for path in paths:
        assert len(path.read_text(encoding="utf-8").splitlines()) < 50, f"{path.name} is too long"
        outside = {name.split(".")[0] for name, *_ in imported(path.stem, path)} - {"bert4x"} - sys.stdlib_module_names
        assert not outside, f"{path.name} imports {outside}"


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_import_loads_no_backend():
    code = "import sys, bert4x; print(' '.join(sys.modules))"
    loaded = {name.split(".")[0] for name in python(code).split()}
    assert "bert4x" in loaded
    assert not loaded & {*BACKENDS, "keras", "numpy", "h5py", "transformers", "tokenizers"}


def test_converting_and_inspecting_need_no_keras():
    code = (
        "import sys, bert4x; bert4x.inspect(bert4x.default_model());"
        "import bert4x.checkpoints.convert; print('keras' in sys.modules)"
    )
    assert python(code).split()[-1] == "False"


def test_import_is_fast():
    code = "import time; start = time.perf_counter(); import bert4x; print(time.perf_counter() - start)"
    assert min(float(python(code)) for _ in range(3)) < 0.3


def test_help_is_fast():
    code = (
        "import subprocess, sys, time; start = time.perf_counter();"
        "subprocess.run([sys.executable, '-m', 'bert4x', '--help'], check=True, stdout=subprocess.DEVNULL);"
        "print(time.perf_counter() - start)"
    )
    assert min(float(python(code)) for _ in range(3)) < 0.5


def test_public_names_exist_and_are_listed():
    import bert4x

    for name in bert4x.__all__:
        assert getattr(bert4x, name) is not None
    assert dir(bert4x) == bert4x.__all__ == sorted(bert4x.__all__)
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        _ = bert4x.biuld
    assert (ROOT / "bert4x" / "py.typed").is_file()
