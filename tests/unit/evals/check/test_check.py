import shutil
from pathlib import Path

import pytest
from adapters_elsewhere import made
from weather_rows import CITIES, call_for, write

from evals.check.card import show_check
from evals.check.check import check_data, check_path, read_check, take_over_check
from orchestrator.config.schema import RunConfig
from orchestrator.data.tokens.store import tokens_folder
from orchestrator.run.folder import check_dir, run_dir
from orchestrator.run.paths import RunDir


def test_good_data_is_ready_and_the_card_has_every_part(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = check_dir(config)
    card = check_data(config, folder, base_dir=tmp_path)
    assert card.not_ready == ()
    assert card.data is not None
    assert card.data.samples == len(CITIES)
    assert set(card.tokens) == {"train", "val"}
    assert card.parity is not None
    assert (card.parity.calls, card.parity.num_problems) == (len(CITIES), 0)
    assert read_check(folder) == card
    show_check(card, folder, is_new=False, conflict="it is taken")
    shown = capsys.readouterr().out
    assert "would be refused: it is taken" in shown
    assert "by an earlier check" in shown
    assert "12 rows became 12 samples" in shown
    assert "weather  12" in shown
    assert shown.rstrip().splitlines()[-1].startswith("READY with 4 warnings")


def test_an_adapter_to_start_from_is_looked_at_anew_when_it_changes(
    config: RunConfig, tmp_path: Path, model_folder: Path
) -> None:
    start = config.train.model_copy(update={"init_from": str(tmp_path / "start")})
    config, folder = config.model_copy(update={"train": start}), check_dir(config)
    (finding,) = check_data(config, folder, base_dir=tmp_path).not_ready
    assert finding.startswith(f"train.init_from: {tmp_path / 'start'}: there is no such folder.")
    made(tmp_path / "start", model_folder, r=8)
    good = check_data(config, folder, base_dir=tmp_path)
    assert good.not_ready == ()
    made(tmp_path / "start", model_folder, r=5)
    (finding,) = check_data(config, folder, base_dir=tmp_path).not_ready
    assert "the adapter has rank 5" in finding


def test_the_same_check_is_read_and_another_is_made_anew(config: RunConfig, tmp_path: Path) -> None:
    folder = check_dir(config)
    first = check_data(config, folder, base_dir=tmp_path)
    assert check_data(config, folder, base_dir=tmp_path) == first
    write(tmp_path / "a.jsonl", [call_for(city) for city in CITIES[:8]])
    again = check_data(config, folder, base_dir=tmp_path)
    assert again.digest != first.digest
    assert again.data is not None
    assert again.data.samples == 8


def test_bad_data_is_not_ready_with_every_reason_shown(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    write(tmp_path / "a.jsonl", [call_for(city) for city in (*CITIES, 1, 2, 3)])
    folder = check_dir(config)
    card = check_data(config, folder, base_dir=tmp_path)
    assert len(card.not_ready) == 1
    assert "3 of 15 rows (20.0%) could not be used: arguments_do_not_fit_schema x 3" in card.not_ready[0]
    show_check(card, folder, is_new=True, conflict=None)
    shown = capsys.readouterr().out
    assert "arguments_do_not_fit_schema  3     a.jsonl:13: weather.city: 1 is not of type 'string'" in shown
    assert shown.rstrip().splitlines()[-1].startswith("NOT READY")


def test_a_template_that_drops_tools_is_not_ready(config: RunConfig, tmp_path: Path, model_folder: Path) -> None:
    without_tools = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ '<tool_call>\\n' }}"
        "{{ c.function | tojson }}{{ '\\n</tool_call>' }}{% endfor %}{{ '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    (base / "chat_template.jinja").write_text(without_tools)
    config = config.model_copy(update={"model": config.model.model_copy(update={"base": str(base)})})
    card = check_data(config, check_dir(config), base_dir=tmp_path)
    assert any(reason.startswith("tools_dropped") for reason in card.not_ready), card.not_ready


def test_every_turn_is_learned_under_a_template_that_rewrites_earlier_ones(
    config: RunConfig, tmp_path: Path, model_folder: Path
) -> None:
    opening = "'<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n'"
    rewriting = (
        "{{ tools | tojson if tools else '' }}{% for m in messages %}{% if m.role == 'assistant' %}"
        f"{{{{ {opening} if loop.last else '<|im_start|>assistant\\n' }}}}"
        "{{ m.content + '<|im_end|>\\n' }}{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
        f"{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ {opening} }}}}{{% endif %}}"
    )
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    (base / "chat_template.jinja").write_text(rewriting)
    config = config.model_copy(update={"model": config.model.model_copy(update={"base": str(base)})})
    said = [({"role": "user", "content": city}, {"role": "assistant", "content": f"In {city}."}) for city in CITIES]
    rows = [
        {"messages": [*turns, *end]} for turns in said for end in ((), ({"role": "user", "content": "?"}, turns[1]))
    ]
    write(tmp_path / "a.jsonl", rows)
    card = check_data(config, check_dir(config), base_dir=tmp_path)
    assert card.data is not None
    assert card.data.repeats["beginning"].count == len(CITIES)
    train = card.tokens["train"]
    assert (train.rows, train.unlearned_turns) == (2 * train.samples, 0)


def test_a_missing_file_is_not_ready(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").unlink()
    card = check_data(config, check_dir(config), base_dir=tmp_path)
    assert "a.jsonl: the file does not exist" in card.not_ready[0]
    assert read_check(check_dir(config)) is None


@pytest.mark.parametrize("broken", [None, ""], ids=["the file is gone", "the file is empty"])
def test_what_an_earlier_check_set_aside_is_not_shown_for_other_data(
    config: RunConfig, tmp_path: Path, broken: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = check_dir(config)
    write(tmp_path / "a.jsonl", [call_for(city) for city in (*CITIES, 1)])
    check_data(config, folder, base_dir=tmp_path)
    assert "arguments_do_not_fit_schema" in folder.quarantine.read_text()
    if broken is None:
        (tmp_path / "a.jsonl").unlink()
    else:
        (tmp_path / "a.jsonl").write_text(broken)
    card = check_data(config, folder, base_dir=tmp_path)
    assert card.data is None
    show_check(card, folder, is_new=True, conflict=None)
    shown = capsys.readouterr().out
    assert "NOT READY" in shown
    assert "set aside" not in shown.lower()
    assert "arguments_do_not_fit_schema" not in shown


def test_a_kind_that_cannot_be_trained_on_is_not_ready(config: RunConfig, tmp_path: Path) -> None:
    long = [
        {"messages": [{"role": "user", "content": f"Tell {n}"}, {"role": "assistant", "content": "so it was " * 200}]}
        for n in range(3)
    ]
    write(tmp_path / "a.jsonl", [call_for(city) for city in CITIES] + long)
    limits = {"max_length": 400, "max_quarantine_rate": 0.5, "near_duplicate_threshold": 1.0}
    data = config.data.model_copy(update=limits)
    card = check_data(config.model_copy(update={"data": data}), check_dir(config), base_dir=tmp_path)
    assert "among them every sample of kind answer" in card.not_ready[0]
    assert "too_long" in card.not_ready[0]


def test_a_run_takes_over_the_files_of_a_check_of_the_same_data_alone(config: RunConfig, tmp_path: Path) -> None:
    checked, run = check_dir(config), run_dir(config)
    card = check_data(config, checked, base_dir=tmp_path)
    assert not take_over_check(checked, run, "of other data")
    assert not run.card.exists()
    assert take_over_check(checked, run, card.data_digest)
    assert run.card.read_bytes() == checked.card.read_bytes()
    assert (tokens_folder(run, "train") / "state.json").is_file()
    check_path(checked).unlink()
    assert not take_over_check(checked, RunDir(tmp_path / "other"), card.data_digest)


def test_a_check_that_is_not_ready_is_not_taken_over(config: RunConfig, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [call_for(city) for city in (*CITIES, 1, 2, 3)])
    card = check_data(config, check_dir(config), base_dir=tmp_path)
    assert not take_over_check(check_dir(config), run_dir(config), card.data_digest)


def test_a_check_that_was_not_done_to_its_end_is_made_again(config: RunConfig, tmp_path: Path) -> None:
    absent = config.model_copy(update={"model": config.model.model_copy(update={"base": str(tmp_path / "base")})})
    (tmp_path / "base").mkdir()
    first = check_data(absent, check_dir(absent), base_dir=tmp_path)
    assert first.data is not None
    assert first.parity is None
    assert "config.json is missing" in first.not_ready[0]
    (tmp_path / "base").rmdir()
    shutil.copytree(config.model.base, tmp_path / "base")
    assert check_data(absent, check_dir(absent), base_dir=tmp_path).not_ready == ()
