"""The papers' settings: that they are valid, what wins over them, what is shown of them."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from store.errors import UnknownNameError
from store.options import resolve
from store.videos import write_csv
from temporal.commands import train_head
from temporal.protocol_commands import protocols
from temporal.protocols import PROTOCOLS, protocol, protocol_text
from temporal.run_dir import Run
from temporal.spec import RunSpec

PAPERS = {"lakhal2018": "lakhal2018_residual_stacked_rnns", "zheng2017": "zheng2017_mrrn"}
PAPERS |= {"iqbal2017": "iqbal2017_recurrent_residual_networks"}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_a_valid_spec(name: str) -> None:
    spec = resolve(RunSpec, protocol(name))
    assert spec != RunSpec()
    for dotted, (value, words) in PROTOCOLS[name].settings.items():
        table, field = dotted.split(".", 1)
        found = getattr(getattr(spec, table), field)
        assert (found | value if isinstance(value, dict) else value) == found
        assert words


@pytest.mark.parametrize("name", PROTOCOLS)
def test_quotations_stand_in_the_paper(name: str, shared_data: Path) -> None:
    file = shared_data.parent / "papers" / f"{PAPERS[name]}.txt"
    if not file.is_file():
        pytest.skip(f"no text of the paper at {file}")
    paper = _plain(file.read_text(encoding="utf-8"))
    quoted = [text for _, words in PROTOCOLS[name].settings.values() for text in re.findall(r'"([^"]+)"', words)]
    assert quoted
    for part in (part for text in quoted for part in text.split("[...]")):
        assert _plain(part) in paper, part


def _plain(text: str) -> str:
    """Letters and digits only, without citations: hyphenation, line ends and mathematics are set differently."""
    text = re.sub(r"\[\\\[\d+\\\]\]\([^)]*\)|\[[\d, ]+\]|\\[a-z]+", "", text)
    return "".join(re.findall(r"[a-z0-9]+", text.lower()))


def test_a_protocol_is_overridden_by_config_and_flag(order_store, order_videos, tmp_path: Path) -> None:
    write_csv(order_videos, tmp_path / "list.csv")
    (tmp_path / "few.toml").write_text("[head]\nhidden = 4\nlayers = 1\n[train]\nepochs = 1\n[sequence]\nwidth = 4\n")
    arguments = [tmp_path / "list.csv", "--features", order_store.path, "--name", "one", "--out", tmp_path, "--train.validation", 0.25]
    arguments += ["--protocol", "lakhal2018", "--config", tmp_path / "few.toml", "--head.layers", 3]
    result = CliRunner().invoke(train_head, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    spec = Run.open(tmp_path / "one").spec
    assert (spec.head.name, spec.head.hidden, spec.head.layers, spec.train.optimizer) == ("res_lstm", 4, 3, "rmsprop")


def test_an_unknown_protocol_suggests() -> None:
    with pytest.raises(UnknownNameError, match="no protocol is called 'zheng2018'; did you mean zheng2017"):
        protocol("zheng2018")
    assert protocol(None) == {}


def test_protocols_are_listed_with_their_words() -> None:
    shown = CliRunner().invoke(protocols, []).output
    assert all(protocol_text(name) in shown for name in PROTOCOLS)
    assert '--head.hidden 1024                   "we therefore used h = 1024 as a base parameter to our models"' in shown
    assert "lakhal2018" not in CliRunner().invoke(protocols, ["zheng2017"]).output
