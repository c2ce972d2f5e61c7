"""The command line: joins the commands of every package. Arguments in, one library call, exit code out.

Exit codes: 0 done; 1 finished with recorded failures; 2 wrong usage or an error; 3 interrupted, the same command resumes.
"""

import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from store.errors import Interrupted, PipelineError

if TYPE_CHECKING:
    from store.scores import ScoreTable

# Help texts stand here so that `actioncache --help` imports no package.
COMMANDS = {
    "Videos": {
        "list": ("store.list_commands", "list_command", "Read a video list, show what is in it, write it as CSV."),
    },
    "Stage one: videos to features": {
        "extract": ("extract.commands", "extract", "Run a network over the clips of every video and store the features."),
        "jobs": ("extract.jobs.commands", "jobs", "Run extract as a Slurm job array: plan, submit, watch, retry."),
        "presets": ("extract.commands", "presets", "List the named settings of extract."),
        "backbones": ("extract.commands", "backbones", "List the networks, their levels and weights."),
        "weights": ("extract.weights_commands", "weights", "List, download, check and convert weights."),
        "flow": ("extract.flow_commands", "flow", "Look at optical flow, write it as files, list the methods."),
        "frames": ("extract.commands", "frames", "Write a strip of frames of every video as a picture, for reports."),
        "store": ("store.commands", "store", "Look into, check, repair, compact, compare and exchange feature stores."),
    },
    "Stage two: features to scores": {
        "train-head": ("temporal.commands", "train_head", "Train a light recurrent head from cached features."),
        "heads": ("temporal.heads_commands", "heads", "List the heads, their papers and their own settings."),
        "sweep": ("temporal.sweep_commands", "sweep", "Train every combination of a grid; rank by validation, never by test."),
        "reproduce": ("temporal.reproduce_commands", "reproduce", "Run a paper's tables and curves; its numbers beside ours."),
        "protocols": ("temporal.protocol_commands", "protocols", "List the papers' settings for train-head."),
        "predict": ("temporal.predict_command", "predict", "Score videos, of a store or straight from their files, with a trained head."),
    },
    "Beside the networks": {
        "idt": ("cli", "idt", "Improved trajectories: extract, encode as Fisher vectors, score with an SVM."),
    },
    "Scores to results": {
        "scores": ("store.score_commands", "scores", "Look into score tables; import and export those of other tools."),
        "fuse": ("fusion.commands", "fuse", "Combine score tables, joined by video id and class name."),
        "recipes": ("fusion.commands", "recipes", "List the published ways of fusing."),
        "learn": ("fusion.learn_commands", "learn_command", "Learn a fusion's weights, temperatures or stacking from validation scores."),
        "cross-fit": ("fusion.learn_commands", "cross_fit_command", "Fuse by weights learned from the other groups of the same tables."),
        "evaluate": ("fusion.commands", "evaluate", "Accuracy of score tables, with intervals."),
        "report": ("fusion.commands", "report", "Write a self-contained HTML page, JSON and text."),
    },
}


IDT = {
    "Videos to trajectories": {
        "extract": ("extract.idt_commands", "extract_command", "Track points through every video, write its improved trajectories."),
        "show": ("extract.idt_commands", "show_command", "Draw a video's trajectories over its frames."),
    },
    "Trajectories to scores": {
        "encode": ("fusion.idt_commands", "encode_command", "Learn a codebook and encode every video as Fisher vectors, in a store."),
        "train": ("fusion.idt_commands", "train_command", "Train linear SVMs on Fisher vectors, score the videos left out."),
        "score": ("fusion.idt_commands", "score_command", "Score encoded videos with trained SVMs."),
    },
}


class Packages:
    """What commands of stage two need of its siblings, which it may not import: packages are joined here. They find this in the context."""

    def fuse(self, tables: "Mapping[str, ScoreTable]", rule: str, weights: Mapping[str, float]) -> "ScoreTable":
        """Late fusion."""
        from fusion.fuse import fuse
        from fusion.spec import FuseSpec

        return fuse(tables, FuseSpec(rule=rule, weights=dict(weights)))

    def extract(self, *arguments: Any) -> Any:
        """``extract.again.extract_again``."""
        return importlib.import_module("extract.again").extract_again(*arguments)

    def strip(self, *arguments: Any) -> Any:
        """``extract.pictures.frame_strip``."""
        return importlib.import_module("extract.pictures").frame_strip(*arguments)


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is named; ``table`` as COMMANDS."""

    table = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of the help."""
        return [name for section in self.table.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        for section in self.table.values():
            if cmd_name in section:
                module, attribute, _ = section[cmd_name]
                command: click.Command = getattr(importlib.import_module(module), attribute)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of the help without importing anything."""
        for title, section in self.table.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, _, text) in section.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="actioncache", prog_name="actioncache")
@click.pass_context
def cli(context: click.Context) -> None:
    """Two-stage video action recognition: CNN features once into a cached store, recurrent heads from it in seconds.

    LIST -> extract -> store -> train-head -> scores -> fuse -> report
    """
    context.obj = Packages()


class IdtGroup(LazyGroup):
    """The commands of ``idt``, which two packages bring."""

    table = IDT


@click.group("idt", cls=IdtGroup)
def idt() -> None:
    """Improved trajectories: from videos to Fisher vectors and an SVM's decision values, to be fused with networks.

    LIST -> extract -> trajectory files -> encode -> store -> train -> scores -> fuse
    """


def _terminate(number: int, frame: object) -> None:
    """SIGTERM, as a scheduler sends it, ends like Ctrl-C: interrupted, and the same command resumes."""
    raise Interrupted(f"{signal.Signals(number).name}: interrupted; run the command again")


class _Lasting(io.FileIO):
    """A file that goes on taking bytes when the other end of its pipe has gone."""

    swallows: tuple[type[OSError], ...] = (BrokenPipeError,)

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except self.swallows:
            forget(self.fileno())
            return super().write(data)


class _LastingErrors(_Lasting):
    """The same for standard error: nobody could be told of any trouble with it."""

    swallows = (OSError,)


def forget(descriptor: int) -> None:
    """Have what is written to a descriptor vanish from now on."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), descriptor)


@contextmanager
def lasting_output() -> Iterator[None]:
    """In the block a command whose reader (head, less) has gone comes to its own end: its exit code says what happened.

    Raises ``OSError`` at the end where standard output cannot be written to, as on a full disk.
    """
    with _lasting("stderr", _LastingErrors), _lasting("stdout", _Lasting):
        yield


@contextmanager
def _lasting(name: str, kind: type[_Lasting]) -> Iterator[None]:
    real = getattr(sys, name)
    if not isinstance(real, io.TextIOWrapper) or real is not getattr(sys, f"__{name}__"):  # closed, or something that stands in for it
        yield
        return
    real.flush()
    file = io.BufferedWriter(kind(real.fileno(), "w", closefd=False))
    lasting = io.TextIOWrapper(file, encoding=real.encoding, errors=real.errors, line_buffering=real.line_buffering)
    setattr(sys, name, lasting)
    try:
        yield
    finally:
        setattr(sys, name, real)
        try:
            lasting.flush()
        except OSError:
            forget(real.fileno())  # so that nothing is told a second time when the interpreter ends
            raise


def notes(error: BaseException) -> list[str]:
    """What was added to an error on its way up, such as what else could not be done."""
    return list(getattr(error, "__notes__", []))


def main() -> None:
    """Run the command line and exit with its code."""
    code = 0
    try:
        with lasting_output():
            code = run()
    except OSError as error:  # of standard output, when its last bytes were to be written
        if code < 2:
            click.echo(f"error: standard output: {error.strerror or error}", err=True)
        code = 2
    sys.exit(code)


def run() -> int:
    """Run the command line; its exit code."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = 2
    except (Interrupted, click.Abort, KeyboardInterrupt) as error:
        click.echo("\n".join([str(error) or "interrupted", *notes(error)]), err=True)
        code = 3
    except PipelineError as error:
        click.echo("\n".join([f"error: {error}", *notes(error)]), err=True)
        code = 2
    except OSError as error:  # a file or folder of the user's that cannot be read or written
        where = f"{error.filename}: " if error.filename is not None else ""
        click.echo(f"error: {where}{error.strerror or error}; check that the path is right, may be used and has room", err=True)
        code = 2
    except Exception:  # a bug or a failing machine: told in full, and never mistaken for 1, "finished with recorded failures"
        traceback.print_exc()
        code = 2
    finally:
        signal.signal(signal.SIGTERM, before)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
