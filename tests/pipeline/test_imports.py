"""Imports point one way: cli → commands → {local, kubeflow} → graph → components."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

from tests.conftest import ROOT


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports() -> dict[str, set[str]]:
    """The modules of this repository that each module imports, inside functions too."""
    files = [f for p in ("pipeline", "components", "schemas") for f in (ROOT / p).rglob("*.py")]
    files += (ROOT / "serving").glob("*.py")
    modules = {name_of(file): ast.parse(file.read_text()) for file in files}
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                named = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                found[name] |= named or ({node.module} & modules.keys())
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & modules.keys()
        found[name].discard(name)
    return found


def test_there_is_no_cycle() -> None:
    list(graphlib.TopologicalSorter(imports()).static_order())


def test_a_layer_imports_no_higher_layer() -> None:
    runners = ("pipeline.local", "pipeline.kubeflow")
    above_graph = (*runners, "pipeline.commands", "pipeline.cli", "pipeline.summary")
    barred = {
        "schemas": ("components", "pipeline", "serving"),
        "components": ("pipeline.graph", "pipeline.system", "pipeline.sample", *above_graph),
        "pipeline.config": ("pipeline", "schemas", "serving"),
        "pipeline.graph": above_graph,
        "pipeline.local": ("pipeline.kubeflow", "pipeline.commands", "pipeline.cli"),
        "pipeline.kubeflow": ("pipeline.local", "pipeline.commands", "pipeline.cli"),
        "pipeline.commands": ("pipeline.cli",),
    }
    for name, imported in imports().items():
        for layer, higher in barred.items():
            if inside(name, layer):
                wrong = {one for one in imported if any(inside(one, high) for high in higher)}
                assert not wrong, f"{name} imports {wrong}"


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
