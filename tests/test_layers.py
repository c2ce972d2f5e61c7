"""The import directions of docs/design: store imports none of ours; extract, temporal and fusion import only store and themselves."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
OURS = {"store", "extract", "temporal", "fusion", "cli"}
ALLOWED = {
    "store": {"store"},
    "extract": {"extract", "store"},
    "temporal": {"temporal", "store"},
    "fusion": {"fusion", "store"},
}
TORCH_FREE = [
    "cli.py",
    "extract/spec.py",
    "extract/commands.py",
    "extract/presets.py",
    "extract/video.py",
    "extract/clips.py",
    "extract/decode.py",
]
TORCH_FREE += ["extract/flow_bytes.py", "extract/flow_frames.py", "extract/modality.py", "extract/pool.py"]
TORCH_FREE += [f"extract/flow_{name}.py" for name in ("commands", "files", "layouts", "show", "write")] + ["extract/flow/raft.py"]
TORCH_FREE += [
    "temporal/spec.py",
    "temporal/commands.py",
    "temporal/predict_command.py",
    "temporal/protocols.py",
    "temporal/sweep_commands.py",
    "temporal/grid.py",
    "temporal/many.py",
    "fusion/commands.py",
    "fusion/metrics.py",
]
TORCH_FREE += ["extract/idt_commands.py", "fusion/idt_commands.py"]
TORCH_FREE += sorted(f"{path}/{file.name}" for path in ("extract/trajectories", "fusion/idt") for file in (REPOSITORY / path).glob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """First components of every absolute import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; import by the full name"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_downwards(package: str) -> None:
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        wrong = (imports(path) & OURS) - ALLOWED[package]
        assert not wrong, f"{path.relative_to(REPOSITORY)} imports {sorted(wrong)}"


STORE = sorted(f"store/{path.name}" for path in (REPOSITORY / "store").glob("*.py") if path.name != "dataset.py")  # for torch users


@pytest.mark.parametrize("name", [*TORCH_FREE, *STORE])
def test_what_the_command_line_loads_imports_no_torch(name: str) -> None:
    assert not imports(REPOSITORY / name, top_level_only=True) & {"torch", "torchvision", "sklearn", "matplotlib"}


@pytest.mark.parametrize("name", STORE)
def test_the_torch_dataset_is_imported_by_nothing_else_in_the_store(name: str) -> None:
    assert "store.dataset" not in (REPOSITORY / name).read_text(encoding="utf-8")


def test_no_file_is_longer_than_the_hard_cap() -> None:
    files = [path for package in [*ALLOWED, "examples", "benchmarks"] for path in (REPOSITORY / package).rglob("*.py")]
    long = {str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines()) for path in [*files, REPOSITORY / "cli.py"]}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}
