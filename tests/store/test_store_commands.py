"""actioncache store ..."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from store import FeatureStore, SpecMismatchError
from store.commands import store as command
from store.testing import SPEC, sample


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def features(tmp_path: Path) -> FeatureStore:
    made = FeatureStore.create(tmp_path, "x", SPEC)
    for part in ("a", "b"):
        with made.writer(part) as writer:
            for video_id, one in list(sample(videos=12).items())[slice(8) if part == "a" else slice(8, None)]:
                writer.add(video_id, one)
            writer.fail("bad", "decode", "no frame")
    return made


def test_info(features: FeatureStore) -> None:
    text = run("info", features.path).output
    for words in (
        "videos              12",
        "shards               2",
        "failures             1",
        "level     high: float16 [N, 8]",
        features.digest,
    ):
        assert words in text
    assert json.loads(run("info", features.path, "--json").output) == json.loads(json.dumps(features.info()))


def test_ls(features: FeatureStore) -> None:
    assert f"{features.num_rows()['more/8']}\tmore/8" in run("ls", features.path).output.splitlines()
    lines = [json.loads(line) for line in run("ls", features.path, "--json").output.splitlines()]
    assert {line["id"]: line["rows"] for line in lines} == features.num_rows()


def test_verify_repair_and_compact(features: FeatureStore) -> None:
    assert "0 problems in 12 videos" in run("verify", features.path).output
    shard = features.shards[0]
    data = bytearray(shard.path.read_bytes())
    data[shard.structure.values["high"].offset] ^= 1
    shard.path.unlink()
    shard.path.write_bytes(data)
    assert run("verify", features.path).exit_code == 0
    found = run("verify", features.path, "--deep", "--json")
    assert found.exit_code == 1
    assert [(one["shard"], one["id"]) for one in json.loads(found.output)] == [(shard.name, "a")]
    assert "1 problems in 12 videos (every feature): run `actioncache store repair`" in run("verify", features.path, "--deep").output
    done = run("repair", features.path)
    assert done.exit_code == 0
    assert f"damaged/{shard.name}\nlost a\n1 shards set aside" in done.output
    assert run("verify", features.path, "--deep").exit_code == 0
    assert "2 shards merged into 1" in run("compact", features.path).output
    assert "0 shards merged into 0" in run("compact", features.path, "--target-mb", "0.001").output


def test_repair_names_files_that_are_there(features: FeatureStore) -> None:
    (features.path / "shards" / "junk.h5").write_bytes(b"junk")
    told = run("repair", features.path.parent / "x").output  # the digest may be left out
    assert Path(told.splitlines()[0].removeprefix("set aside ")).read_bytes() == b"junk"


@pytest.mark.parametrize("size", ["inf", "nan", "0", "-1"])
def test_a_size_that_is_none_is_wrong_usage(features: FeatureStore, size: str) -> None:
    result = run("compact", features.path, "--target-mb", size)
    assert result.exit_code == 2
    assert "Invalid value for" in result.stderr
    assert "--target-mb" in result.stderr


def test_a_damaged_shard_is_a_warning_of_info(features: FeatureStore) -> None:
    (features.path / "shards" / "junk.h5").write_bytes(b"junk")
    result = run("info", features.path)
    assert result.exit_code == 0
    assert "warning: junk.h5 cannot be used, its videos count as missing" in result.stderr


def test_a_store_from_another_spec_is_an_error(features: FeatureStore) -> None:
    features.spec_file.write_text(features.spec_file.read_text().replace("conformance", "other"))
    with pytest.raises(SpecMismatchError, match="was changed"):
        run("info", features.path)
