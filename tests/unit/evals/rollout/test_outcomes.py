import gzip
import json
from pathlib import Path

import pytest

from evals.rollout.outcomes import Outcome, read_log
from orchestrator.core.errors import BAD_INPUT, DataError

GOOD = {"id": "r1", "arm": "new", "success": True}


def written(folder: Path, *lines: object, name: str = "live.jsonl") -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path = folder / name
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def test_a_log_is_read_as_one_outcome_for_each_request(tmp_path: Path) -> None:
    full = {
        "id": "r2", "arm": "old", "unit": "user-7", "success": False, "over_refusal": True, "invalid_call": False,
        "latency_s": 0.8,
    }  # fmt: skip
    path = written(tmp_path, "\ufeff" + json.dumps(GOOD), "", full, full, {**full, "latency_s": None})
    assert read_log([path]) == [Outcome(id="r1", arm="new", success=True), Outcome.model_validate(full)]


def test_what_was_not_known_may_come_later_and_from_another_file(tmp_path: Path) -> None:
    asked = written(tmp_path, {"id": "r1", "arm": "new", "latency_s": 1}, {"id": "r2", "arm": "old"}, name="a.jsonl")
    later = tmp_path / "b.jsonl.gz"
    later.write_bytes(gzip.compress(b'{"id": "r1", "arm": "new", "success": true, "unit": "u"}\n'))
    first, second = read_log([asked, later])
    assert first == Outcome(id="r1", arm="new", unit="u", success=True, latency_s=1.0)
    assert second.success is None
    assert read_log([later, asked])[0] == first


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "the line is no JSON object. Allowed: one JSON object a line"),
        ('{"id": "r2", "id": "r3", "arm": "old"}', "id"),
        ({"arm": "old"}, "id is missing. Allowed: a text that is not empty."),
        ({"id": "", "arm": "old"}, "id is ''"),
        ({"id": 2, "arm": "old"}, "id is 2. Allowed: a text"),
        ({"id": "r2"}, "arm is missing. Allowed: old, new."),
        ({"id": "r2", "arm": "New"}, "arm is 'New'. Allowed: old, new."),
        ({"id": "r2", "arm": "old", "sucess": True}, "there is no field 'sucess'. Allowed: id, arm, unit, success, "),
        ({"id": "r2", "arm": "old", "success": "yes"}, "success is 'yes'. Allowed: true, false, or null"),
        ({"id": "r2", "arm": "old", "success": 1}, "success is 1. Allowed: true, false, or null"),
        ({"id": "r2", "arm": "old", "unit": 7}, "unit is 7. Allowed: a text that is not empty, or null"),
        ({"id": "r2", "arm": "old", "latency_s": 0}, "latency_s is 0. Allowed: a number of seconds above 0"),
        ({"id": "r2", "arm": "old", "latency_s": "1.2"}, "latency_s is '1.2'"),
        ({"id": "r2", "arm": "old", "latency_s": True}, "latency_s is True"),
        ('{"id": "r2", "arm": "old", "latency_s": NaN}', "NaN"),
        ({**GOOD, "success": False}, "success of 'r1' is False, and True at "),
        ({**GOOD, "arm": "old"}, "arm of 'r1' is 'old', and 'new' at "),
        ({**GOOD, "unit": "u"}, ""),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(tmp_path: Path, line: object, said: str) -> None:
    path = written(tmp_path, GOOD, line)
    if not said:
        assert read_log([path])[0].unit == "u"
        return
    with pytest.raises(DataError) as raised:
        read_log([path])
    assert str(raised.value).startswith(f"{path}:2: ")
    assert said in str(raised.value)
    assert raised.value.exit_code == BAD_INPUT


def test_further_bad_lines_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD, "{", {"id": "r2"}, {"id": "r3", "arm": "x"})
    with pytest.raises(DataError, match=r"live.jsonl:2: .*\(2 other lines cannot be used either\)"):
        read_log([path])


def test_a_file_that_is_no_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: the file cannot be read"):
        read_log([tmp_path / "none.jsonl"])
    with pytest.raises(DataError, match="the file cannot be read"):
        read_log([tmp_path])
    with pytest.raises(DataError, match=r"live.jsonl: there is no outcome. docs/rollout.md"):
        read_log([written(tmp_path, "")])
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é", "arm": "old"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.jsonl:1: .*UTF-8"):
        read_log([tmp_path / "latin.jsonl"])
