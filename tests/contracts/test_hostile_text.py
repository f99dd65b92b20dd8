"""Text of data, models, file names and libraries does nothing wherever it is written, and carries no secret along."""

import json
import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_config
from ray._private import worker as ray_worker

from evals.conversation.screen import Screen
from evals.report.page import _environment
from evals.report.text import markdown_cell, markdown_code
from jobs._main import _warnings_in
from orchestrator.config.load import load_config
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import BAD_INPUT, FAILED, ConfigError, DataError, InputError
from orchestrator.core.files import dump_line
from orchestrator.core.process import run_guarded, show, tell
from orchestrator.core.progress import bar, doing, say, say_json, show_table, stage
from orchestrator.core.text import HIDDEN
from orchestrator.models.outside import _names
from orchestrator.run.cluster import _messages_of_ray_in
from orchestrator.run.folder import run_dir
from orchestrator.run.progress import stage_progress
from orchestrator.submit import _Shown, submit_job
from orchestrator.tracking.send import Shown as OfTracker

PACKAGES = Path(__file__).resolve().parents[2]
EFFECTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)
"""What a terminal obeys, and what hides or reorders text on any screen."""

HOSTILE = {
    "clears the screen": "a\x1b[2J\x1b[Hb",
    "sets the title": "a\x1b]0;owned\x07b",
    "writes the clipboard": "a\x1b]52;c;ZXZpbA==\x1b\\b",
    "links": "a\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\b",
    "control characters of eight bits": "a\x9b31mb\x9d0;x\x9c",
    "overwrites its line": "harmless\rEVIL",
    "deletes": "abc\x08\x08\x08EVIL\x7f",
    "reorders": "a\u202egnp.exe\u202c \u2066b\u2069",
    "hides": "a\u200b\u2060\ufeffb\U000e0041\U000e0042",
    "breaks lines unseen": "a\u2028b\x85c",
    "nothing": "a\x00b",
    "half a pair": "a\ud800b",
    "markup": "</td><script>alert(1)</script><img src=x onerror=alert(2)>",
    "a table": "x | `y` | [link](http://evil.example) **b** @someone\n# head",
    "a formula": '=HYPERLINK("http://evil.example")',
}


def _stage(text: str) -> None:
    with pytest.raises(OSError, match="no"), stage(text), doing(text):
        raise OSError("no")


def _bar(text: str) -> None:
    with bar(text, 1) as advance:
        advance(1)


def _screen(text: str) -> None:
    Screen().say(text)


def _ends(error: Callable[[str], Exception]) -> Callable[[str], None]:
    def ends(text: str) -> None:
        def work() -> int:
            raise error(text)

        assert run_guarded("work", work, if_interrupted="") in (FAILED, BAD_INPUT)

    return ends


TERMINAL: dict[str, Callable[[str], None]] = {
    "say": say,
    "tell": tell,
    "show": show,
    "table": lambda text: show_table(text, [text, "b"], [[text, text]]),
    "stage": _stage,
    "bar": _bar,
    "screen": _screen,
    "job log": lambda text: _Shown().print_from(0, text),
    "an input error": _ends(lambda text: DataError(text, where=text, allowed=text, fix=text)),
    "an unexpected error": _ends(RuntimeError),
    "json": lambda text: say_json(json.dumps({"a": text}, ensure_ascii=False)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("writer", TERMINAL)
def test_nothing_that_a_terminal_obeys_is_written_to_it(
    writer: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    TERMINAL[writer](text)
    written = "".join(capsys.readouterr())
    assert EFFECTIVE.search(written) is None
    assert "a" in written


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_for_a_terminal_says_what_it_said(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_json(json.dumps({"a": text}, ensure_ascii=False))
    assert json.loads(capsys.readouterr().out) == {"a": text}


def _html(text: str) -> str:
    return _environment().from_string('<p title="{{ text }}">{{ text }}</p>').render(text=text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_text_is_only_text_in_a_page(text: str) -> None:
    page = _html(text)
    assert EFFECTIVE.search(page) is None
    assert page.count("<") == 2
    assert page.count('"') == 2


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("write", [markdown_cell, markdown_code])
def test_text_is_only_text_in_markdown(write: Callable[[str], str], text: str) -> None:
    cell = write(text).removeprefix("<code>").removesuffix("</code>").replace("@<!-- -->", "")
    assert EFFECTIVE.search(cell) is None
    assert not set("<>\n") & set(cell)
    assert not set("`*[]|#") & set(re.sub(r"\\.", "", cell))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_logs_of_a_run_hold_nothing_that_a_terminal_obeys(text: str, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    with _messages_of_ray_in(log):
        ray_worker.print_to_stdstream({"lines": [text]}, ignore_prefix=False)
    with _warnings_in(log):
        logging.getLogger("py.warnings").warning("%s", text)
    run_guarded("work", lambda: int(text), if_interrupted="", log=lambda: log)
    with log.open("a", encoding="utf-8") as file:
        print(text, file=OfTracker(file))
    written = log.read_text(encoding="utf-8")
    assert EFFECTIVE.search(written) is None
    assert len(written.splitlines()) >= 4


def test_no_table_of_comma_separated_values_is_written_so_none_holds_a_formula() -> None:
    sources = [path for package in ("orchestrator", "evals", "jobs") for path in (PACKAGES / package).rglob("*.py")]
    writers = re.compile(r"csv\.(writer|DictWriter)|to_csv|write_csv")
    assert len(sources) > 200
    assert [path for path in sources if writers.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "name", ["..", "../..", "../x", "/etc", "a/b", "a\\b", "\x1b[2J", "a\nb", "", ".", "\u202ex", "-x"]
)
def test_a_name_makes_no_path(name: str) -> None:
    (given,) = _names((f"/adapters/of/others/{name}",), set())
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", given)
    with pytest.raises(ValueError, match="name"):
        RunConfig.model_validate({"name": name})
    if name not in (".", "..", ""):
        with pytest.raises(ValueError, match="suites"):
            RunConfig.model_validate({"eval": {"suites": [{"name": name, "path": "x.jsonl"}]}})


SECRET = "hf_0123456789abcdefABCDEF"
LEAKS = {
    "in the environment": f"401 for the token {SECRET}",
    "a password in a URL": "cannot reach https://me:pa55word@tracker.example/api",
    "a user in a URL": "cannot reach s3://AKIAEXAMPLE@bucket/x",
    "a signed URL": "403 for https://b.example/x?X-Amz-Credential=AKIA%2Fx&X-Amz-Signature=0123abcd&part=1",
    "a key in a URL": "403 for https://b.example/x?api_key=pa55word&key=pa55word",
}
SECRETS = (SECRET, "pa55word", "AKIA", "0123abcd")


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


def require_no_secret(text: str) -> None:
    assert [part for part in SECRETS if part in text] == []
    assert HIDDEN in text


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS)
@pytest.mark.parametrize("writer", [name for name in TERMINAL if name not in ("json", "screen", "job log")])
def test_secrets_do_not_reach_the_terminal(writer: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    TERMINAL[writer](text)
    require_no_secret("".join(capsys.readouterr()))


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS)
def test_secrets_do_not_reach_the_files_of_a_run(text: str, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    run = run_dir(config)
    run.root.mkdir(parents=True)
    with _messages_of_ray_in(run.log):
        ray_worker.print_to_stdstream({"lines": [text]}, ignore_prefix=False)
    with _warnings_in(run.log):
        logging.getLogger("py.warnings").warning("%s", text)

    def work() -> int:
        with stage_progress(run, "train"):
            raise RuntimeError(text)

    assert run_guarded("train", work, if_interrupted="", log=lambda: run.log) == FAILED
    of_tracker = run.root / "mlflow.log"
    with of_tracker.open("w", encoding="utf-8") as file:
        print(text, file=OfTracker(file))
    for path in (run.log, run.progress, of_tracker):
        require_no_secret(path.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize(
    "setting", ["name", "resources.address", "model.base", "data.sources.0.path", "eval.adapters.0"]
)
@pytest.mark.parametrize("value", [SECRET, "ray://me:pa55word@head:10001", "https://b.example/x?sig=0123abcd"])
def test_a_configuration_with_a_secret_is_refused_without_saying_it(setting: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("data: {sources: [{path: a.jsonl}]}\neval: {adapters: [owner/name]}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refusal:
        load_config(path, [f"{setting}={value}"])
    assert setting in str(refusal.value)
    assert [part for part in SECRETS if part in str(refusal.value)] == []


@pytest.mark.usefixtures("secret")
def test_the_resolved_configuration_holds_nothing_of_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {base: tiny}\n", encoding="utf-8")
    assert SECRET not in dump_line(load_config(path))
    assert SECRET not in "".join(traceback.format_exception(InputError(SECRET)))


def test_an_address_with_a_password_is_refused_without_saying_it() -> None:
    with pytest.raises(InputError, match="user or password") as refusal:
        submit_job(RunConfig(), "check", address="https://me:pa55word@head.example:8265")
    assert "pa55word" not in str(refusal.value)
