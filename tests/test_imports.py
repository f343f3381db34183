"""Imports point one way (docs/architecture.md), and importing bert4x is fast because it loads no backend."""

import ast
import functools
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
    ("bert4x.masks", "any", {"bert4x"}),
    ("bert4x.config", "any", {"keras"}),
    ("bert4x.families", "any", {"bert4x.generation", "keras", *BACKENDS}),
    ("bert4x.models", "any", BACKENDS),
    ("bert4x.generation", "any", {"bert4x.checkpoints"}),
    ("bert4x.checkpoints", "top", {"bert4x.layers", "bert4x.masks", "keras"}),
    ("bert4x.checkpoints", "any", BACKENDS),
    ("bert4x.checkpoints.formats", "any", {"keras"}),
    ("bert4x.checkpoints.tables", "any", {"keras"}),
    ("bert4x.hub", "any", {"bert4x.layers", "keras", *BACKENDS}),
    ("bert4x.tokenizers", "any", {"bert4x.layers", "keras", *BACKENDS}),
    ("bert4x.tasks", "any", BACKENDS),
    ("bert4x.runtimes", "any", {"bert4x.layers", "keras", "torch", "jax"}),
    (
        "bert4x.cli",
        "top",
        {"bert4x.models", "bert4x.checkpoints", "bert4x.tasks", "bert4x.tokenizers", "keras", "rich"},
    ),
]
# The rooms of the package, lower ones first: nothing imports, at any time, what stands above it. A name is a module, or
# a package with all in it but what has a longer name here; with a dot at its end, only what is in the package. Imports
# by name when something is asked for, as the registry imports the families, are not seen here.
ROOMS = (
    ("errors", "version", "locks", "quiet", "chinese"),
    ("porting",),  # scripts as text
    ("masks", "devices", "metrics", "numpy_ops"),
    ("layers", "optimizers"),
    # files: containers, and where they lie
    ("json_files", *(f"checkpoints.{name}" for name in ("formats", "tensors", "files", "ranks", "staging"))),
    ("config", "activation_names"),
    (
        "families",
        "checkpoints.spec",
        "checkpoints.layout",
    ),  # the registry, and what a family says of its checkpoints with
    ("hub",),
    ("tokenizers",),
    ("checkpoints", "training.lora"),  # opening, converting; adapters are part of what is written
    ("models.cache", "models.inputs"),
    ("generation",),
    ("runtimes",),
    ("models", "snippets"),  # a model has `generate`
    ("families.",),
    ("training", "plots", "recipe", "backend"),
    ("tasks", "training.bidirectional"),
    ("exporting", "testing", "serving"),
    ("cli", "__main__", "porting.__main__"),
)
BUILDERS = {"bert4x.models.build", "bert4x.models.loading"}  # the modules of models that read checkpoints
COMPILERS_ONLY = "bert4x.generation.compiled"  # the one module of generation that speaks to a backend by name


def modules():
    """Full name -> path of every module of the package."""
    for path in sorted((ROOT / "bert4x").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@functools.cache
def imported(module: str, path: Path) -> list[tuple[str, bool, int]]:
    """(full name, whether it happens when the module is imported, line) of every import in a module that is run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    lazy, never, found = set(), set(), []
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or typing_only:
            (never if typing_only else lazy).update(id(inner) for inner in ast.walk(node))
    for node in ast.walk(tree):
        if id(node) in never:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(name, id(node) not in lazy, node.lineno) for name in names]
    return found


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


def imports_within() -> dict[str, dict[str, int]]:
    """Module -> the modules and packages here that it imports, at any time -> a line."""
    known = dict(modules())
    found: dict[str, dict[str, int]] = {module: {} for module in known}
    for module, path in known.items():
        for name, _, line in imported(module, path):
            target = direct = next((m for m in (name, name.rpartition(".")[0]) if m in known), None)
            while target and target != "bert4x":  # importing a module runs the packages above it, too
                runs = any(now and within(to, "bert4x") for to, now, _ in imported(target, known[target]))
                if not within(module, target) and (target == direct or runs):
                    found[module].setdefault(target, line)
                target = target.rpartition(".")[0]
    return found


def room_of(module: str) -> int:
    """The place of a module in ROOMS."""
    inner, rooms = module.removeprefix("bert4x."), []
    for place, names in enumerate(ROOMS):
        rooms += [(len(n), place) for n in names if within(inner, n) or (n.endswith(".") and inner.startswith(n))]
    assert rooms, f"{module} is in none of ROOMS: say where it stands"
    return max(rooms)[1]


def test_rooms_stand_on_lower_ones():
    """Imports inside functions count."""
    known = imports_within()
    gone = [name for names in ROOMS for name in names if f"bert4x.{name.rstrip('.')}" not in known]
    assert not gone, f"{gone} do not exist any more; correct ROOMS"
    wrong = [
        f"{module}:{line} imports {target}, which stands above it"
        for module, targets in known.items()
        for target, line in targets.items()
        if module != "bert4x" and room_of(target) > room_of(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circles():
    """Imports inside functions count: no module imports, at any time, one that stands on it."""
    imports, done = imports_within(), set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in imports[module]:
                walk(target, (*path, module))
            done.add(module)

    for module in imports:
        walk(module, ())


def test_only_the_builder_stands_on_checkpoints():
    wrong = [
        f"{module}:{line} imports {name}"
        for module, path in modules()
        if within(module, "bert4x.models") and module not in BUILDERS
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


def test_import_and_help_are_fast():
    """In seconds of the processor, which other work on the machine hardly changes."""
    code = "import time; start = time.process_time(); import bert4x; print(time.process_time() - start)"
    assert min(float(python(code)) for _ in range(3)) < 0.3
    code = (
        "import resource, subprocess, sys;"
        "subprocess.run([sys.executable, '-m', 'bert4x', '--help'], check=True, stdout=subprocess.DEVNULL);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    )
    assert min(float(python(code)) for _ in range(3)) < 0.5


def test_commands_import_keras_without_what_they_do_not_use():
    code = (
        "import sys; sys.argv = ['bert4x', 'fill-mask', '[MASK]明'];"
        "from bert4x.cli import main; main(); found = {'keras', 'sklearn', 'matplotlib'} & set(sys.modules);"
        "import matplotlib.pyplot; print(*found)"
    )
    assert python(code).split()[-1:] == ["keras"]


def test_public_names_exist_and_are_listed():
    import bert4x

    for name in bert4x.__all__:
        assert getattr(bert4x, name) is not None
    assert dir(bert4x) == bert4x.__all__ == sorted(bert4x.__all__)
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        _ = bert4x.biuld
    assert (ROOT / "bert4x" / "py.typed").is_file()
