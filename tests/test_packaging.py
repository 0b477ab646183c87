"""What an installed latlas promises: typed, light to import, layered."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest

import latlas
from latlas.cli.commands import COMMANDS

ROOT = Path(latlas.__file__).parent
REPOSITORY = ROOT.parent
#: must be imported without torch: help, options, capability checks and reading data
LIGHT = ("latlas", "latlas.cli.__main__", "latlas.models", "latlas.data", "latlas.run",
         "latlas.training", "latlas.engine.options", "latlas.metrics",
         *sorted({command.target.partition(":")[0] for command in COMMANDS.values()}))
HEAVY = ("torch", "sklearn", "matplotlib", "polars", "pandas")


def _loaded_by(module: str) -> set[str]:
    """Top-level packages in a fresh interpreter after one import."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                             check=True)
    return set(process.stdout.split())


def test_it_says_that_it_is_typed() -> None:
    assert resources.files("latlas").joinpath("py.typed").is_file()


@pytest.mark.parametrize("module", LIGHT)
def test_import_is_light(module: str) -> None:
    assert not _loaded_by(module) & set(HEAVY)


def test_the_check_of_light_imports_sees_torch() -> None:
    assert "torch" in _loaded_by("latlas.core.model")


def test_every_verb_is_a_function_whatever_was_imported_before() -> None:
    """A submodule of the same name would take the place of a verb."""
    code = ("import latlas, importlib, pkgutil\n"
            "for m in pkgutil.iter_modules(latlas.__path__):\n"
            "    importlib.import_module('latlas.' + m.name)\n"
            "print(*[n for n in latlas.__all__ if n[0] != '_' and "
            "not callable(getattr(latlas, n, None))])")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                             check=True)
    assert process.stdout.split() == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = latlas.trian


def test_nothing_imports_the_root_but_for_the_version() -> None:
    """Verbs of the root pull in the whole house; a layer imports the module it needs."""
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path in ROOT.rglob("*.py")
             for name in _from_root(path) if name != "__version__" and not _is_module(name)]
    assert wrong == []


def _from_root(path: Path) -> list[str]:
    tree = ast.parse(path.read_text("utf-8"))
    result = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [a.name for node in result if node.module == "latlas" for a in node.names]


def _is_module(name: str) -> bool:
    return (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()


def test_no_imports_go_round_in_a_circle() -> None:
    """Imports inside functions and for types alone count, too."""
    files = {_name_of(path): path for path in ROOT.rglob("*.py")}
    graph = {name: _imported_by(path, files) - {name} for name, path in files.items()}
    assert _circles(graph) == []


def test_the_search_for_circles_finds_them() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d"}, "f": {"a", "e"}}
    assert sorted(_circles(graph)) == [["a", "b", "c"], ["d", "e"]]
    (path,) = [p for p in ROOT.rglob("run.py") if p.parent == ROOT]
    files = {_name_of(p): p for p in ROOT.rglob("*.py")}
    assert {"latlas.models", "latlas.data.fitting", "latlas.engine.train"} <= _imported_by(
        path, files)  # at the top, in a function, for a type


def _name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported_by(path: Path, files: dict[str, Path]) -> set[str]:
    """Modules of the package that any import statement of a file names."""
    result = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{a.name}" for a in node.names} & files.keys()
            result |= inside or {node.module} & files.keys()
        elif isinstance(node, ast.Import):
            result |= {a.name for a in node.names} & files.keys()
    return result


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that import each other, directly or not (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in graph.get(name, ()):
            if other not in order:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            members = stack[stack.index(name):]
            del stack[stack.index(name):]
            circles.extend([sorted(members)] if len(members) > 1 else [])

    for name in graph:
        if name not in order:
            visit(name)
    return circles


def test_options_of_score_are_declared_in_one_place() -> None:
    """The command has them from the function, and no other file knows a flag, type or help."""
    from latlas.cli.derive import as_command
    from latlas.verbs.score import score

    own = ("method", "draws", "temperatures", "leapfrog", "observation_sd", "precision")
    flags = inspect.signature(as_command("score", score)).parameters
    assert set(own) <= set(inspect.signature(score).parameters) and set(own) <= set(flags)
    elsewhere = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
                 for folder in (".", "cli", "verbs") for path in ROOT.joinpath(folder).glob("*.py")}
    apart = ("verbs/estimators.py", "cli/commands.py")  # what they mean, and lines that show them
    for option in ("temperatures", "leapfrog", "observation_sd"):
        word = rf"\b{option}: |--{option.replace('_', '-')}\b"
        knows = [name for name, text in elsewhere.items() if re.search(word, text)]
        assert set(knows) - set(apart) == {"verbs/score.py"}


def test_no_function_is_a_novel() -> None:
    """Functions of about 8 lines; beyond 60 there is no reason."""
    long = [f"{path.relative_to(ROOT)}:{node.lineno} {node.name}" for path in ROOT.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.FunctionDef) and _lines(node) > 60]
    assert long == []


def _lines(node: ast.FunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


PAGES = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.slow
def test_import_contracts_hold() -> None:
    script = Path(sys.executable).with_name("lint-imports")
    process = subprocess.run([script], cwd=REPOSITORY, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout


@pytest.mark.slow
def test_a_wheel_holds_the_package_and_its_data(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("latlas-*.whl")
    inside = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("latlas/")}
    assert inside == {f"latlas/{path.as_posix()}" for path in _shipped()}


def _shipped() -> list[Path]:
    files = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return [f for f in files if not any(p[0] == "." or p == "__pycache__" for p in f.parts)]
