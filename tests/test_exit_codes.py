"""Exit codes of what no command foresaw."""

import pytest

import cli


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
