"""Exit codes of what no command foresaw."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cli
from store.errors import PipelineError


@pytest.mark.parametrize("error", [OSError("the disk is on fire"), ZeroDivisionError("a bug")])
def test_an_unforeseen_error_is_not_finished_with_failures(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(standalone_mode: bool) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert str(error) in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_an_error_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "list.csv").write_text("id,path,label\na,a.mp4,A\n")
    output = tmp_path / "file" / "out.csv"
    monkeypatch.setattr("sys.argv", ["actioncache", "list", str(tmp_path / "list.csv"), "-o", str(output)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert f"error: {tmp_path / 'file'}" in told
    assert "check that the path is right" in told
    assert "Traceback" not in told


def test_sigterm_is_an_interruption(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli.cli, "main", lambda standalone_mode: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 3
    assert "SIGTERM: interrupted; run the command again" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_was_added_to_an_error_is_told_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(standalone_mode: bool) -> None:
        error = PipelineError("the disk is gone")
        error.add_note("also, 3 finished videos could not be published")
        raise error

    monkeypatch.setattr(cli.cli, "main", refuse)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: the disk is gone\nalso, 3 finished videos could not be published\n"


@pytest.mark.parametrize(("code", "words"), [(1, 10), (1, 200_000), (0, 200_000), (3, 10)])
def test_a_reader_that_goes_away_does_not_change_the_code(code: int, words: int) -> None:
    """As in ``actioncache extract ... | head -1`` with recorded failures."""
    script = (
        "import click, cli\n"
        "from store.errors import Interrupted\n"
        "def end(standalone_mode):\n"
        f"    click.echo('word\\n' * {words})\n"
        f"    click.echo('last')\n"
        f"    if {code} == 3: raise Interrupted('by a signal')\n"
        f"    return {code}\n"
        "cli.cli.main = end\n"
        "cli.main()\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    finally:
        os.close(writer)
    assert done.returncode == code, done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("words", [1, 100_000])
def test_an_output_without_room_is_an_error_that_is_told_once(words: int) -> None:
    script = f"import click, cli\ncli.cli.main = lambda standalone_mode: click.echo('word\\n' * {words})\ncli.main()\n"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count("error: ")) == (2, 1), done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("code", [0, 1, 3])
def test_an_error_output_that_nobody_reads_does_not_change_the_code(code: int) -> None:
    """As in ``actioncache extract ... 2>&1 | head``."""
    script = (
        "import sys, click, cli\n"
        "from store.errors import Interrupted\n"
        "def end(standalone_mode):\n"
        "    print('note', file=sys.stderr, flush=True)\n"
        "    click.echo('a figure')\n"
        f"    if {code} == 3: raise Interrupted('by a signal')\n"
        f"    return {code}\n"
        "cli.cli.main = end\n"
        "cli.main()\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=writer, check=False, timeout=60)
    finally:
        os.close(writer)
    assert done.returncode == code
