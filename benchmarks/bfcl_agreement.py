"""Does `evals.judge.calls` judge calls as the Berkeley Function Calling Leaderboard does? On its own questions.

    python benchmarks/bfcl_agreement.py --bfcl-python /path/to/venv/bin/python --seed 0 --replies 60

`--bfcl-python` is the interpreter of an environment with the `bfcl-eval` package, which holds the leaderboard's checker
and its questions; `pip install --no-deps bfcl-eval` is enough, since its table of models, which needs the clients of
every vendor, is replaced by two entries. For every question that the checker scores, replies are made from the accepted
calls and then changed at random: values of other types, texts written otherwise, arguments left out, added or renamed,
calls repeated, left out or in another order. Both judge the same calls. Printed are, for each category, how many
verdicts and how many codes are the same, what the checker broke off on, and the first disagreements; the exit status is
1 if there are any.
"""

import argparse
import copy
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evals.cases.suites import cases_from_bfcl_file
from evals.judge.calls import CallJudgement, judge_calls
from evals.records import AcceptedCall, Case
from orchestrator.chat.formats.reply import ParsedReply
from orchestrator.core.records import FunctionCall, ToolCall
from orchestrator.notation.source_literals import write_source

CATEGORIES = (
    "simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple",
)  # fmt: skip
RENAMED_CODES = {"dict_checker:unclear": "value_error:dict_key"}
MAX_SHOWN = 5

CHECKER = """
import json, sys, types
models = types.ModuleType("bfcl_eval.constants.model_config")
models.MODEL_CONFIG_MAPPING = {
    name: types.SimpleNamespace(underscore_to_dot=renames) for name, renames in (("renamed", True), ("asis", False))
}
sys.modules[models.__name__] = models
from bfcl_eval.constants.enums import Language
from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
for line in open(sys.argv[1], encoding="utf-8"):
    task = json.loads(line)
    try:
        found = ast_checker(task["function"], task["calls"], task["answer"], Language[task["language"].upper()],
                            task["category"], task["model"])
        verdict = [found["valid"], None if found["valid"] else found["error_type"]]
    except Exception as error:
        verdict = [None, type(error).__name__]
    print(json.dumps(verdict))
"""

Call = tuple[str, dict[str, Any]]
Value = Any


def right_calls(case: Case, drawn: random.Random) -> list[Call]:
    """Calls of accepted values drawn at random; some parameters that may be absent are."""
    return [(call.name, _right_arguments(call, drawn)) for call in case.accepted_calls]


def _right_arguments(call: AcceptedCall, drawn: random.Random) -> dict[str, Any]:
    arguments = {}
    for name, values in call.arguments.items():
        given = [value for value in values if value != ""]
        if not given or ("" in values and name not in call.required and drawn.random() < 0.5):
            continue
        value = _resolved(copy.deepcopy(drawn.choice(given)), drawn)
        if call.language != "python" and drawn.random() < 0.95:
            value = write_source(value, call.types.get(name, ""), call.item_types.get(name), call.language)
        arguments[name] = value
    return arguments


def _resolved(value: Value, drawn: random.Random) -> Value:
    """An accepted object as a call gives it: for each entry one accepted value."""
    if isinstance(value, list):
        return [_resolved(item, drawn) if isinstance(item, dict) else item for item in value]
    if not isinstance(value, dict):
        return value
    chosen = {key: drawn.choice(part) if isinstance(part, list) and part else part for key, part in value.items()}
    return {key: part for key, part in chosen.items() if part != "" or drawn.random() < 0.1}


def _other_type(value: Value, drawn: random.Random) -> Value:
    others: list[Any] = [None, True, False, 0, 1, 7, 2.5, "", "x", [], {}, [value], {"value": value}, str(value)]
    if isinstance(value, bool):
        others += [int(value), str(value).lower()]
    if isinstance(value, int | float):
        others += [float(value), int(value), -value, value + 1, value * 1.0000000001, bool(value)]
    if isinstance(value, str):
        others += [value.split(), list(value[:3]), f"'{value}'", f'"{value}"', value + "L", value + "f", value + "\n"]
    return drawn.choice(others)


def _other_text(text: str, drawn: random.Random) -> str:
    place = drawn.randrange(len(text) + 1)
    return drawn.choice(
        [
            text.upper(), text.lower(), text.title(), text.replace(" ", ""), text.replace(" ", "_"), f" {text} ",
            text.replace(",", ""), text.replace(".", "-"), text.replace("'", '"'), text.replace('"', "'"),
            text[:place] + drawn.choice(" ,./-_*^\t\n;:!'\"()[]{}") + text[place:], text[:place], text + "s",
            text[::-1], text * 2,
        ]
    )  # fmt: skip


def _changed(value: Value, drawn: random.Random) -> Value:
    """A value that differs, in its type or a little."""
    if drawn.random() < 0.35:
        return _other_type(value, drawn)
    if isinstance(value, str):
        return _other_text(value, drawn)
    if isinstance(value, list):
        return _changed_list(value, drawn)
    return _changed_object(value, drawn) if isinstance(value, dict) else _other_type(value, drawn)


def _changed_list(items: list[Any], drawn: random.Random) -> list[Any]:
    items = list(items)
    place = drawn.randrange(len(items)) if items else 0
    match drawn.randrange(5) if items else 0:
        case 0:
            items.insert(place, drawn.choice([*items, "x", 1, {}]))
        case 1:
            del items[place]
        case 2:
            drawn.shuffle(items)
        case _:
            items[place] = _changed(items[place], drawn)
    return items


def _changed_object(members: dict[str, Any], drawn: random.Random) -> dict[str, Any]:
    members = dict(members)
    name = drawn.choice(list(members)) if members else ""
    match drawn.randrange(5) if members else 0:
        case 0:
            members[drawn.choice(["extra", name.upper(), f"{name} "])] = 1
        case 1:
            del members[name]
        case 2:
            members = dict(sorted(members.items(), reverse=True))
        case _:
            members[name] = _changed(members[name], drawn)
    return members


def _change_argument(call: Call, declared: Sequence[str], drawn: random.Random) -> None:
    arguments = call[1]
    name = drawn.choice(list(arguments)) if arguments else ""
    match drawn.randrange(8) if arguments else 1:
        case 0:
            del arguments[name]
        case 1:
            arguments[drawn.choice([*declared, f"{name}_", "extra"])] = drawn.choice(["", "x", 1, True, [], {}, None])
        case 2:
            arguments[drawn.choice([*declared, f"{name}2"])] = arguments.pop(name)
        case _:
            arguments[name] = _changed(arguments[name], drawn)


def changed_calls(case: Case, drawn: random.Random) -> list[Call]:
    """Right calls with up to three changes, mostly of one argument."""
    calls = right_calls(case, drawn)
    names = [tool.function.name for tool in case.tools]
    for _ in range(drawn.choice((0, 0, 1, 1, 1, 1, 2, 3))):
        place = drawn.randrange(len(calls)) if calls else -1
        change = drawn.random()
        if place < 0 or change < 0.04:
            calls.insert(max(place, 0), (drawn.choice([*names, "unknown"]), {}))
        elif change < 0.08:
            calls.append(copy.deepcopy(calls[place]))
        elif change < 0.11:
            del calls[place]
        elif change < 0.2:
            drawn.shuffle(calls)
        elif change < 0.24:
            calls[place] = (drawn.choice([*names, calls[place][0].upper(), "unknown"]), calls[place][1])
        else:
            declared = [name for call in case.accepted_calls for name in call.types]
            _change_argument(calls[place], declared, drawn)
    return calls


def judge(case: Case, calls: Sequence[Call]) -> CallJudgement:
    """What this project says of the calls."""
    given = tuple(ToolCall(function=FunctionCall(name=name, arguments=arguments)) for name, arguments in calls)
    return judge_calls(case, ParsedReply(calls=given, prose="", thinking=None, problems=()))


def read_rows(path: Path) -> dict[str, Any]:
    """The rows of a file of the leaderboard by their ids."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {row["id"]: row for row in rows}


class Comparison:
    """The tasks of one category, as the checker takes them, and what this project says of each."""

    def __init__(self, data: Path, category: str, *, replies: int, seed: int) -> None:
        questions = data / f"BFCL_v4_{category}.json"
        answers = data / "possible_answer" / questions.name
        self.cases = cases_from_bfcl_file(questions, answers, suite=category, limit=None)
        self.category, self.replies, self.seed = category, replies, seed
        self.functions = {key: row["function"] for key, row in read_rows(questions).items()}
        self.answers = {key: row["ground_truth"] for key, row in read_rows(answers).items()}
        self.judged: list[tuple[str, str | None]] = []
        self.seconds = 0.0

    def tasks(self) -> Iterator[str]:
        """One line of JSON for each reply; judges each on the way."""
        for case in self.cases:
            drawn = random.Random(f"{self.seed}:{case.id}")
            for _ in range(self.replies):
                calls = changed_calls(case, drawn)
                dotted = drawn.random() < 0.3
                if dotted:
                    calls = [(case.original_names.get(name, name), arguments) for name, arguments in calls]
                yield self._task(case, calls, "asis" if dotted else "renamed")

    def _task(self, case: Case, calls: list[Call], model: str) -> str:
        task = {
            "function": self.functions[case.id], "answer": self.answers[case.id], "category": self.category,
            "language": case.accepted_calls[0].language, "model": model,
            "calls": [{name: arguments} for name, arguments in calls],
        }  # fmt: skip
        line = json.dumps(task)
        started = time.perf_counter()
        match = judge(case, json.loads(json.dumps(calls))).match
        self.seconds += time.perf_counter() - started
        self.judged.append((f"{case.id} {json.dumps(calls)}", None if match is None else match.reason))
        return line

    def report(self, verdicts: Sequence[tuple[bool | None, str | None]]) -> int:
        """Print how far the two agree; the number of replies on which they do not."""
        counts: Counter[str] = Counter()
        codes: Counter[str] = Counter()
        differing = []
        for (reply, ours), (valid, code) in zip(self.judged, verdicts, strict=True):
            theirs = RENAMED_CODES.get(code or "", code)
            counts["crashes"] += valid is None
            counts["crashes_accepted"] += valid is None and ours is None
            counts["accepted"] += bool(valid)
            counts["verdicts"] += valid is not None and valid is (ours is None)
            counts["codes"] += valid is not None and theirs == ours
            codes[str(code)] += valid is False
            if valid is not None and theirs != ours:
                differing.append(f"    {code or 'accepted'} there, {ours or 'accepted'} here: {reply}")
        judged = len(self.judged) - counts["crashes"]
        print(
            f"{self.category}: {len(self.cases)} questions, {len(self.judged)} replies, {counts['accepted']} accepted; "
            f"verdicts alike {counts['verdicts']}/{judged}, codes alike {counts['codes']}/{judged}; the checker broke "
            f"off on {counts['crashes']} (accepted here: {counts['crashes_accepted']}); "
            f"{len(self.judged) / max(self.seconds, 1e-9):,.0f} replies a second here"
        )
        print("    codes there: " + ", ".join(f"{code} {count}" for code, count in codes.most_common() if count))
        print("\n".join(differing[:MAX_SHOWN])) if differing else None
        return len(differing)


def ask(python: str, write: Callable[[Path], None]) -> list[tuple[bool | None, str | None]]:
    """The checker's verdicts on the tasks that `write` puts into a file."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder) / "tasks.jsonl"
        write(tasks)
        done = subprocess.run([python, "-c", CHECKER, str(tasks)], check=True, stdout=subprocess.PIPE, text=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def data_folder(python: str) -> Path:
    """Where the leaderboard's package keeps its questions."""
    code = "import bfcl_eval; print(bfcl_eval.__path__[0])"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip()) / "data"


def main() -> int:
    """Compare the two on every category."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bfcl-python", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replies", type=int, default=20, help="replies for each question")
    options = parser.parse_args()
    data = data_folder(options.bfcl_python)
    differing = total = 0
    for category in CATEGORIES:
        comparison = Comparison(data, category, replies=options.replies, seed=options.seed)

        def write(path: Path, comparison: Comparison = comparison) -> None:
            with path.open("w", encoding="utf-8") as file:
                file.writelines(f"{task}\n" for task in comparison.tasks())

        differing += comparison.report(ask(options.bfcl_python, write))
        total += len(comparison.judged)
    print(f"{total} replies, {differing} judged differently")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
