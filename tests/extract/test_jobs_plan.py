"""Parts of about equal work, parts from a batch system's environment, and plans as files: arithmetic without a video."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from extract.jobs.cost import Cost, makespan
from extract.jobs.plan import Plan, cut, imbalance, list_digest, load
from extract.parts import choose_part, parse_part, slurm_part
from store.errors import ListError, SpecError
from store.videos import Video, VideoList

IDS = tuple(f"v{number:02d}" for number in range(20))
VIDEOS = VideoList(tuple(Video(name, Path(name)) for name in IDS), ())


def plan_of(*parts: tuple[str, ...]) -> Plan:
    return Plan(("/features/x-0",), list_digest(VIDEOS), ("extract", "list.csv"), parts, tuple(float(len(part)) for part in parts))


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_keeps_every_video_once_and_stays_within_grahams_bound(seed: int) -> None:
    generator = np.random.default_rng(seed)
    costs = {f"v{number}": float(cost) for number, cost in enumerate(generator.lognormal(0, 1.2, 200))}
    for parts in (1, 3, 16, 64):
        lists = cut(costs, parts)
        assert sorted(itertools.chain(*lists)) == sorted(costs)
        sums = [sum(costs[key] for key in part) for part in lists]
        bound = max(max(costs.values()), sum(costs.values()) / parts)
        assert max(sums) <= 4 / 3 * bound + 1e-9
        assert all(part == sorted(part, key=list(costs).index) for part in lists)


def test_a_small_cut_is_the_best_of_all() -> None:
    costs = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 3.0, "e": 3.0}
    best = min(
        max(sum(costs[key] for key, side in zip(costs, sides, strict=True) if side == which) for which in (0, 1))
        for sides in itertools.product((0, 1), repeat=5)
    )
    sums = [sum(costs[key] for key in part) for part in cut(costs, 2)]
    assert (best, max(sums)) == (9.0, 10.0)  # LPT's known example: 10 against 9, within 7/6


def test_fewer_videos_than_parts_and_none_at_all() -> None:
    assert cut({"a": 1.0, "b": 2.0}, 5) == [["b"], ["a"]]
    assert cut({}, 3) == []
    with pytest.raises(SpecError, match="parts is 0; it must be from 1 to 10000"):
        cut({"a": 1.0}, 0)


def test_imbalance_is_the_largest_over_the_mean() -> None:
    assert imbalance([1.0, 2.0, 3.0]) == 1.5
    assert imbalance([0.0, 0.0]) == 1.0


def test_the_time_that_parts_take_at_once() -> None:
    assert [makespan([3.0, 3.0, 2.0, 2.0, 2.0], at_once) for at_once in (1, 2, 3, 64)] == [12.0, 7.0, 5.0, 3.0]


def test_the_cost_of_other_numbers_of_videos() -> None:
    cost = Cost(60, 1500, 0.5, 6e6)
    assert cost.of(1000).line() == "1,000 such videos: 25,000 clips, 8.33 hours of one task, 0.1 GB of features"
    assert cost.of(6000).line(at_once=10).endswith(", 50 hours of one task, 0.6 GB of features; 5 h 00 min with 10 at once")
    assert Cost(1, 2, None, None).of(2).line(64) == "2 such videos: 4 clips"


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    plan = plan_of(IDS[:3], IDS[3:])
    plan.save(tmp_path / "jobs" / "a.plan.json")
    assert load(tmp_path / "jobs" / "a.plan.json") == plan


def test_a_plan_of_one_store_from_before_is_read(tmp_path: Path) -> None:
    plan = plan_of(IDS[:3], IDS[3:])
    data = {**vars(plan), "format": 1, "store": plan.store}
    del data["stores"], data["once"]
    (tmp_path / "a.plan.json").write_text(json.dumps(data))
    assert load(tmp_path / "a.plan.json") == plan


@pytest.mark.parametrize("text", ["", "[]", "{}", "nothing", '{"format": 1}', "[" * 100_000])
def test_a_file_that_is_no_plan_is_an_error_that_names_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SpecError, match=r"x\.json is no plan of `actioncache jobs plan`"):
        load(tmp_path / "x.json")


def test_a_plan_of_another_format_and_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"format": 9}))
    with pytest.raises(SpecError, match="has format 9; this version reads formats 1 and 2"):
        load(tmp_path / "x.json")
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        load(tmp_path / "y.json")


def array(task: int, first: int, last: int, step: int = 1, count: int | None = None) -> dict[str, str]:
    number = (last - first) // step + 1 if count is None else count
    names = ("ID", "MIN", "MAX", "STEP", "COUNT")
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in zip(names, (task, first, last, step, number), strict=True)}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, None),
        (array(0, 0, 7), "1/8"),
        (array(7, 0, 7), "8/8"),
        (array(3, 1, 8), "3/8"),
        (array(30, 10, 80, 10), "3/8"),
        (array(5, 5, 5), "1/1"),
    ],
)
def test_a_task_of_an_array_knows_its_part(environment: dict[str, str], part: str | None) -> None:
    assert slurm_part(environment)[0] == part


def test_an_array_with_gaps_is_refused() -> None:
    with pytest.raises(
        SpecError, match="this job array has 3 tasks numbered from 1 to 9, so the place of task 4 is not known; give --part"
    ):
        slurm_part(array(4, 1, 9, 1, 3))
    with pytest.raises(SpecError, match="SLURM_ARRAY_TASK_ID is 'x'"):
        slurm_part({**array(4, 1, 9), "SLURM_ARRAY_TASK_ID": "x"})


def test_parts_of_an_array_are_the_list() -> None:
    parts = [choose_part(VIDEOS, environment=array(task, 0, 2)) for task in range(3)]
    assert sorted(video_id for part in parts for video_id in part.videos.ids) == sorted(IDS)
    assert [part.name for part in parts] == ["1of3", "2of3", "3of3"]
    assert parts[1].origin.startswith("part 2/3, as task 1 of a Slurm job array (0 to 2)")


def test_what_the_user_says_goes_before_the_environment() -> None:
    assert choose_part(VIDEOS, "all", environment=array(1, 0, 2)).videos.ids == list(IDS)
    chosen = choose_part(VIDEOS, "2/4", environment=array(1, 0, 2))
    assert (chosen.videos.ids, chosen.name, chosen.origin) == (list(IDS[1::4]), "2of4", "")


def test_a_part_of_a_plan_is_what_the_plan_says(tmp_path: Path) -> None:
    plan = plan_of(IDS[5:7], IDS[:2], IDS[9:])
    plan.save(tmp_path / "a.plan.json")
    assert choose_part(VIDEOS, "2/3", tmp_path / "a.plan.json").videos.ids == list(IDS[:2])
    assert choose_part(VIDEOS, None, tmp_path / "a.plan.json", environment=array(2, 0, 2)).videos.ids == list(IDS[9:])
    assert choose_part(VIDEOS, None, tmp_path / "a.plan.json").videos.ids == [*IDS[5:7], *IDS[:2], *IDS[9:]]
    with pytest.raises(SpecError, match=r"part 1/4 was asked for, but .*a\.plan\.json has 3 parts"):
        choose_part(VIDEOS, "1/4", tmp_path / "a.plan.json")


def test_a_plan_of_videos_that_the_list_has_no_more(tmp_path: Path) -> None:
    plan_of(("v03", "gone")).save(tmp_path / "a.plan.json")
    with pytest.raises(ListError, match="gone"):
        choose_part(VIDEOS, "1/1", tmp_path / "a.plan.json")


def test_shares_of_a_part_are_the_part() -> None:
    shares = [choose_part(VIDEOS, "2/3", share=f"{place}/2") for place in (1, 2)]
    assert sorted(shares[0].videos.ids + shares[1].videos.ids) == sorted(IDS[1::3])
    assert [share.name for share in shares] == ["2of3-1of2", "2of3-2of2"]


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/2/3", "a/b", "-1/2", "1 / 2"])
def test_a_part_that_is_none(text: str) -> None:
    with pytest.raises(SpecError, match=r"write I/N with 1 <= I <= N"):
        parse_part(text)
