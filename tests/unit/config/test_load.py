"""Layers, paths and messages of the configuration."""

import os
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config.errors import NAMES_ELSEWHERE, keys_at
from orchestrator.config.load import load_config, write_resolved
from orchestrator.config.schema import PROFILES, RunConfig, ServableRank
from orchestrator.core.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the config file; commands are started elsewhere."""
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (tmp_path / "configs").mkdir()
    return tmp_path / "configs"


def load(folder: Path, text: str, *overrides: str) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    assert caught.value.exit_code == 3
    return str(caught.value)


# Layers


def test_defaults_lie_under_the_profile_under_the_file_under_overrides(folder: Path) -> None:
    text = "profile: max_quality\nlora: {r: 32}\ntrain: {seed: 5}\n"
    config = load(folder, text, "train.seed=6")
    assert config.lora.r == 32
    assert config.lora.alpha == PROFILES["max_quality"]["lora"]["alpha"] == 256
    assert config.train.seed == 6
    assert config.train.max_grad_norm == RunConfig().train.max_grad_norm


def test_a_profile_can_be_an_override(folder: Path) -> None:
    assert load(folder, "profile: balanced", "profile=fast_dev").train.max_steps == 60


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_arrives_whole(folder: Path, profile: str) -> None:
    config = load(folder, f"profile: {profile}").model_dump(mode="json")
    for section, values in PROFILES[profile].items():
        space = values.get("space", {})
        assert {key: config["search"]["space"][key] for key in space} == space
        assert {key: config[section][key] for key in values if key != "space"} == {
            key: value for key, value in values.items() if key != "space"
        }


def test_the_search_of_a_profile_gives_way_to_the_users_values(folder: Path) -> None:
    search = load(folder, "profile: max_quality\nsearch: {num_trials: 5, space: {r: [64]}}\n", "search.keep=1").search
    assert (search.num_trials, search.keep, search.space.r, search.space.alpha) == (5, 1, (64,), (32, 64, 128, 256))


def test_epochs_unset_the_max_steps_of_the_profile(folder: Path) -> None:
    train = load(folder, "profile: fast_dev\ntrain: {epochs: 2}").train
    assert (train.epochs, train.max_steps) == (2.0, None)


@pytest.mark.parametrize("override", ["train.epochs=2", "train={epochs: 2}"])
def test_epochs_as_an_override_unset_the_max_steps_of_the_file(folder: Path, override: str) -> None:
    train = load(folder, "train: {max_steps: 9}", override).train
    assert (train.epochs, train.max_steps) == (2.0, None)


def test_epochs_and_max_steps_of_one_layer_both_stay(folder: Path) -> None:
    train = load(folder, "{}", "train.max_steps=7", "train.epochs=2").train
    assert (train.epochs, train.max_steps) == (2.0, 7)


def test_an_empty_section_keeps_its_defaults(folder: Path) -> None:
    assert load(folder, "name: run\ntrain:\n  # seed: 3\n").train == RunConfig().train


# Values


@pytest.mark.parametrize(
    ("written", "value"), [("2e-4", 2e-4), ("1e-3", 1e-3), ("5E+0", 5.0), ("1.5e-3", 1.5e-3), ("0.01", 0.01)]
)
def test_numbers_in_scientific_notation_are_numbers(folder: Path, written: str, value: float) -> None:
    assert load(folder, f"train: {{learning_rate: {written}}}").train.learning_rate == value
    assert load(folder, "{}", f"search.space.learning_rate=[{written}]").search.space.learning_rate == (value,)


def test_a_date_is_a_fine_name(folder: Path) -> None:
    assert load(folder, "name: 2024-01-31").name == "2024-01-31"


def test_overrides_reach_into_lists(folder: Path) -> None:
    config = load(
        folder, "data: {sources: [{path: a.jsonl}]}", "data.sources.0.limit=5", "data.sources.1={path: b.jsonl}"
    )
    assert [source.limit for source in config.data.sources] == [5, None]
    assert [Path(source.path).name for source in config.data.sources] == ["a.jsonl", "b.jsonl"]


def test_an_override_replaces_a_list(folder: Path) -> None:
    config = load(folder, "data: {sources: [{path: a}, {path: b}]}", "data.sources=[{path: synthetic}]")
    assert [source.path for source in config.data.sources] == ["synthetic"]


def test_an_override_can_add_a_gate(folder: Path) -> None:
    gates = load(folder, "gates: {refusal_recall: {min: 0.5}}", "gates.tool_call_validity.min=0.9").gates
    assert {name: gate.min for name, gate in gates.items()} == {"refusal_recall": 0.5, "tool_call_validity": 0.9}


# Paths


def test_source_paths_start_at_their_own_folder(folder: Path) -> None:
    config = load(folder, "data: {sources: [{path: ../a.jsonl}]}", "data.sources.1={path: b.jsonl}")
    assert [source.path for source in config.data.sources] == [
        str(folder.parent / "a.jsonl"),
        str(Path.cwd() / "b.jsonl"),
    ]


def test_suite_paths_start_at_their_own_folder(folder: Path) -> None:
    suite = "{name: s, path: q.jsonl, answers: ../a.jsonl}"
    suites = load(folder, f"eval: {{suites: [{suite}]}}", "eval.suites.1={name: t, path: p.csv}").eval.suites
    assert [(suite.path, suite.answers) for suite in suites] == [
        (str(folder / "q.jsonl"), str(folder.parent / "a.jsonl")),
        (str(Path.cwd() / "p.csv"), None),
    ]


def test_a_chat_template_is_named_or_taken_from_a_file(folder: Path) -> None:
    text = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "mine.jinja").write_text(text, encoding="utf-8")
    (Path.cwd() / "other.jinja").write_text(text + "!", encoding="utf-8")
    assert load(folder, "{}").model.chat_template == "own"
    assert load(folder, "model: {chat_template: hermes}").model.chat_template == "hermes"
    assert load(folder, "model: {chat_template: qwen2_5}").model.chat_template == "qwen2_5"
    config = load(folder, "model: {chat_template: mine.jinja}")
    assert config.model.chat_template == text
    assert load(folder, "{}", "model.chat_template=other.jinja").model.chat_template == text + "!"
    write_resolved(config, folder / "resolved.json")
    (folder / "mine.jinja").unlink()
    assert load_config(folder / "resolved.json") == config
    (folder / "mine.jinja").write_text(text, encoding="utf-8-sig")  # as editors of Windows save it
    assert load(folder, "model: {chat_template: mine.jinja}").model.chat_template == text


def test_a_chat_template_that_is_nowhere_or_none_is_refused(folder: Path) -> None:
    message = refusal(folder, "model: {chat_template: hermse}")
    assert message.startswith("model.chat_template: hermse: this is neither a file nor a template's name. Allowed: ")
    assert message.endswith("Perhaps hermes is meant.")
    assert "Check the name or the path." in refusal(folder, "model: {chat_template: ./nothing.jinja}")
    (folder / "mine.jinja").write_text("no template", encoding="utf-8")
    assert "holds no Jinja template" in refusal(folder, "model: {chat_template: mine.jinja}")
    (folder / "mine.jinja").write_bytes(b"\xff{{")
    assert "mine.jinja: the file is not UTF-8 text." in refusal(folder, "model: {chat_template: mine.jinja}")
    (folder / "mine.jinja").write_text(" \n", encoding="utf-8")
    assert "mine.jinja: the file is empty." in refusal(folder, "model: {chat_template: mine.jinja}")
    (folder / "mine.jinja").write_bytes(b"\x00\x01\x02")
    assert "holds no Jinja template" in refusal(folder, "model: {chat_template: mine.jinja}")
    (folder / "mine.jinja").write_text("{{ x }}" * 150_000, encoding="utf-8")
    message = refusal(folder, "model: {chat_template: mine.jinja}")
    assert (
        "mine.jinja: the file has 1,050,000 bytes, too many for a chat template. Allowed: at most 1,048,576 bytes"
        in message
    )
    os.mkfifo(folder / "pipe")
    assert "pipe: this is no regular file. Allowed" in refusal(folder, "model: {chat_template: pipe}")
    (folder / "base").mkdir()
    message = refusal(folder, "model: {chat_template: base}")
    assert message.startswith("model.chat_template: base: this is a folder. Allowed: a Jinja file, or own, hermes, ")
    (folder / "base" / "chat_template.jinja").touch()
    message = refusal(folder, "model: {chat_template: base}")
    assert message.endswith(f"Name {(folder / 'base' / 'chat_template.jinja').resolve()}.")
    assert "Perhaps qwen3 or " in refusal(folder, "model: {chat_template: qwen-3}")


def test_a_local_judge_becomes_absolute_and_others_stay(folder: Path) -> None:
    bases = {"./judge": str(folder / "judge"), "some/judge": "some/judge"}
    for base, expected in bases.items():
        judge = load(folder, f"eval: {{judge: {{base: {base}}}}}").eval.judge
        assert judge is not None
        assert judge.base == expected


@pytest.mark.parametrize("text", ["eval: {suites: {}}", "eval: {suites: [1]}", "eval: 3", "eval: {judge: x}"])
def test_suites_and_judges_of_the_wrong_shape_are_refused_in_one_line(folder: Path, text: str) -> None:
    message = refusal(folder, text)
    assert ": eval" in message
    assert "\n" not in message


def test_a_wrong_suite_says_which_and_what_is_allowed(folder: Path) -> None:
    message = refusal(folder, "eval: {suites: [{name: s, path: a, format: bfclx}]}")
    assert "eval.suites.0.format: 'bfclx' is not allowed here. Allowed: auto, canonical, cases, xstest" in message


def test_the_storage_path_starts_at_the_current_folder(folder: Path) -> None:
    assert load(folder, "resources: {storage_path: out}").resources.storage_path == str(Path.cwd() / "out")
    assert load(folder, "{}").resources.storage_path == str(Path.cwd() / "runs")


def test_a_local_base_becomes_absolute_and_others_stay(folder: Path) -> None:
    (folder / "beside").mkdir()
    Path("here").mkdir()
    expected = {
        "tiny": "tiny",
        "smollm2-135m": "smollm2-135m",
        "Qwen/Qwen3-0.6B": "Qwen/Qwen3-0.6B",
        "beside": str(folder / "beside"),
        "here": str(Path.cwd() / "here"),
        "./missing": str(folder / "missing"),
        "~/missing": str(Path.home() / "missing"),
    }
    assert {base: load(folder, f"model: {{base: {base}}}").model.base for base in expected} == expected


def test_a_folder_called_tiny_does_not_hide_the_built_in_base(folder: Path) -> None:
    (folder / "tiny").mkdir()
    assert load(folder, "model: {base: tiny}").model.base == "tiny"


@pytest.mark.parametrize("base", ["~nobody-is-called-this/model", '"/a\\0b"'])
def test_a_base_that_can_be_no_path_is_refused(folder: Path, base: str) -> None:
    assert "is no path" in refusal(folder, f"model: {{base: {base}}}")


def test_a_name_too_long_for_a_folder_is_left_to_the_hub(folder: Path) -> None:
    assert load(folder, f"model: {{base: {'x' * 300}}}").model.base == "x" * 300


# Resolved JSON


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    profile=st.sampled_from(sorted(PROFILES)),
    rank=st.sampled_from(get_args(ServableRank)),
    learning_rate=st.floats(min_value=1e-9, max_value=10),
    max_steps=st.none() | st.integers(min_value=1),
)
def test_resolved_json_reads_back_as_the_same_config(
    tmp_path: Path, profile: str, rank: int, learning_rate: float, max_steps: int | None
) -> None:
    document = {
        "profile": profile,
        "lora": {"r": rank},
        "train": {"learning_rate": learning_rate, "max_steps": max_steps},
        "resources": {"storage_path": str(tmp_path)},
    }
    config = RunConfig.model_validate(document)
    write_resolved(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == config


def test_a_resolved_yaml_stays_the_same_config(folder: Path) -> None:
    config = load(folder, "profile: fast_dev\ntrain: {epochs: 2}\ndata: {sources: [{path: a.jsonl}]}")
    write_resolved(config, folder / "config.json")
    assert load_config(folder / "config.json") == config


def test_overrides_apply_to_resolved_json(folder: Path) -> None:
    write_resolved(load(folder, "profile: fast_dev"), folder / "config.json")
    assert load_config(folder / "config.json", ["train.max_steps=3"]).train.max_steps == 3


# Messages


def test_a_problem_of_a_whole_section_names_both_places_it_may_come_from(folder: Path) -> None:
    file = folder / "run.yaml"
    assert refusal(folder, "train: {seed: 1}", "train.batch_size=3").startswith(
        f"{file} and --set: train: batch_size 3"
    )
    assert refusal(folder, "{}", "resources.num_workers=3").startswith(f"{file} and --set: train.batch_size 8 must be")
    assert refusal(folder, "train: {batch_size: 3}", "lora.r=8").startswith(f"{file}: train: batch_size 3")


def test_a_wrong_key_names_its_path_the_nearest_and_the_allowed(folder: Path) -> None:
    message = refusal(folder, "train: {batchsize: 3}")
    assert message.startswith(f"{folder / 'run.yaml'}: train.batchsize: there is no such key. Allowed: learning_rate, ")
    assert message.endswith("Perhaps train.batch_size is meant.")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("lora: {rank: 8}", "lora.r"),
        ("lora: {lora_alpha: 8}", "lora.alpha"),
        ("train: {num_train_epochs: 8}", "train.epochs"),
        ("train: {gradient_accumulation_steps: 8}", "train.batch_size"),
        ("max_seq_length: 8", "data.max_length"),
    ],
)
def test_names_that_other_trainers_use_are_known(folder: Path, text: str, meant: str) -> None:
    assert refusal(folder, text).endswith(f"Perhaps {meant} is meant.")


def test_every_name_of_other_trainers_stands_for_a_setting() -> None:
    for name, key in NAMES_ELSEWHERE.items():
        section, _, setting = key.rpartition(".")
        assert setting in keys_at((section,))
        assert name not in keys_at((section,))


def test_a_key_in_the_wrong_section_is_found_in_its_own(folder: Path) -> None:
    assert "Perhaps train.batch_size is meant." in refusal(folder, "batch_size: 3")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora: {r: 7}", "lora.r: 7 is not allowed here. Allowed: 1, 2, 4, 8, 16, 32, 64, 128, 256."),
        ("profile: nope", "profile: 'nope' is not allowed here. Allowed: fast_dev, balanced, max_quality."),
        ("train: {max_steps: 0}", "0 is not allowed here. Allowed: a whole number at least 1, or null."),
        ("data: {split: {val: 1.5}}", "1.5 is not allowed here. Allowed: a number above 0 and below 1."),
        ("lora: {use_rslora: maybe}", "lora.use_rslora: 'maybe' is not allowed here. Allowed: true or false."),
        ("data: {sources: [{path: a, limit: x}]}", "data.sources.0.limit: 'x' is not allowed here."),
        ("data: {sources: [{limit: 1}]}", "data.sources.0.path: this key is required. Allowed: text."),
        ("model: {revision: 123}", "123 is not allowed here. Allowed: text, or null. Put the value in quotes."),
        ("train: {batch_size: 3}", "train: batch_size 3 must be a multiple of micro_batch_size 2."),
        ("search: {searcher: grid}", "search: searcher 'grid' needs space.learning_rate as a list"),
        (
            "gates: {tool_call_validity: {}}",
            "gates.tool_call_validity: a gate needs min, max or both, or max_ratio_to and value.",
        ),
        ("gates: {latency_p50_s: {max_ratio_to: base}}", "gates.latency_p50_s: max_ratio_to and value belong together"),
        ("gates: {latency_p50_s: {value: 0.6}}", "gates.latency_p50_s: max_ratio_to and value belong together"),
        (
            "gates: {validity: {min: 1}}",
            "gates.validity: there is no such key. Allowed: case_accuracy, tool_call_validity, ",
        ),
    ],
)
def test_a_wrong_value_says_what_is_allowed(folder: Path, text: str, expected: str) -> None:
    message = refusal(folder, text)
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("abc", "'abc' is not allowed here. Allowed: a mapping with the keys min, max, or a list"),
        ("{min: 2, max: 1}", "search.space.learning_rate: min 2 must be below max 1."),
        ("{min: -1, max: 1}", "search.space.learning_rate.min: -1 is not allowed here. Allowed: a number above 0."),
        ("[1e-4, x]", "search.space.learning_rate.1: 'x' is not allowed here. Allowed: a number above 0."),
        (
            "{min: 1, maxx: 2}",
            "search.space.learning_rate.maxx: there is no such key. Allowed: min, max. Perhaps "
            "search.space.learning_rate.max is meant.",
        ),
        ("{min: 1e-4}", "search.space.learning_rate.max: this key is required. Allowed: a number above 0."),
    ],
)
def test_a_union_answers_for_the_branch_that_was_meant(folder: Path, value: str, expected: str) -> None:
    message = refusal(folder, "{}", f"search.space.learning_rate={value}")
    assert expected in message
    assert message.startswith("--set: search.space.learning_rate")
    assert "\n" not in message


def test_an_empty_list_of_sources_is_refused(folder: Path) -> None:
    assert refusal(folder, "{}", "data.sources=[]").startswith(
        "--set: data.sources: [] is not allowed here. Allowed: a list of at least 1, each item a mapping with the keys "
    )


def test_every_wrong_setting_is_listed_with_its_place(folder: Path) -> None:
    lines = refusal(folder, "foo: 1\ntrain: {learning_rate: -1}", "lora.r=7").splitlines()
    assert lines[0] == "3 settings are wrong:"
    assert sorted(line.strip().split(" ")[0:2] for line in lines[1:]) == sorted(
        [
            ["--set:", "lora.r:"],
            [f"{folder / 'run.yaml'}:", "foo:"],
            [f"{folder / 'run.yaml'}:", "train.learning_rate:"],
        ]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b\n", "run.yaml:2: the key 'name' appears twice."),
        ("train:\n  seed: 1\n  seed: 2\n", "run.yaml:3: the key 'seed' appears twice."),
        ("name: a\nlora: [1\n", "run.yaml:3: expected"),
        ("on: 1\n", "run.yaml:1: this key is not text."),
        ("[a, b]: 1\n", "run.yaml:1: this key is not text."),
        ("name: !!int x\n", "run.yaml: this is not YAML"),
        ("name: !!python/object:os.system {}\n", "run.yaml:1: could not determine a constructor"),
        ("- a\n", "run.yaml: the file holds a list."),
        ("", "run.yaml: the file is empty."),
    ],
)
def test_a_file_that_is_no_mapping_of_settings_is_refused_with_its_line(folder: Path, text: str, expected: str) -> None:
    assert expected in refusal(folder, text)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("nonsense", "--set: 'nonsense' is not a setting. Allowed: dotted.key=value"),
        ("train..seed=1", "is not a setting"),
        ("name=[1", "--set name:1: expected"),
        ("lora.r.x=1", "--set: lora.r: this is the value 16 and has no key 'x'."),
        ("data.sources.5.limit=1", "--set: data.sources: this is a list of 1 and has no item '5'."),
        ("data.sources.x=1", "--set: data.sources: this is a list of 1 and has no item 'x'."),
    ],
)
def test_an_override_that_cannot_apply_is_refused(folder: Path, override: str, expected: str) -> None:
    assert expected in refusal(folder, "{}", override)


def test_files_that_cannot_be_read_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file") as caught:
        load_config(folder / "missing.yaml")
    assert caught.value.where == str(folder / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(folder)
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(folder / "binary.yaml")
    (folder / "broken.json").write_text('{\n"name": }')
    with pytest.raises(ConfigError, match=r"broken\.json:2: this is not JSON"):
        load_config(folder / "broken.json")
    (folder / "twice.json").write_text('{"train": {"seed": 1, "seed": 2}}')
    with pytest.raises(ConfigError, match=r"twice\.json: the key 'seed' appears twice"):
        load_config(folder / "twice.json")


YAML_TEXT = st.text(alphabet="ab1.-+e:,[]{}&*!|>#'\"?~ \n\t", max_size=30) | st.text(max_size=30)
KEYS = ("name", "train", "train.seed", "data.sources", "data.sources.0", "model.base", "gates", "lora.target_modules")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.just("{}") | YAML_TEXT, key=st.sampled_from(KEYS), value=YAML_TEXT)
def test_any_text_is_a_config_or_a_config_error(tmp_path: Path, text: str, key: str, value: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with suppress(ConfigError):
        write_resolved(load_config(path, [f"{key}={value}"]), tmp_path / "config.json")
        assert load_config(tmp_path / "config.json").name


# The starter


def test_the_starter_config_is_valid_and_teaches(folder: Path) -> None:
    text = files("orchestrator.config").joinpath("starter.yaml").read_text(encoding="utf-8")
    config = load(folder, text)
    assert config.model.base == "tiny"
    assert config.train.max_steps == 100
    assert all(f"\n{section}:" in text for section in RunConfig.model_fields)
    before_gates, gates = text.replace("\ngates: {}", "").split("# gates:")
    uncommented = f"{before_gates}gates:{gates.replace('#   ', '  ')}"
    assert set(load(folder, uncommented).gates) == {"tool_call_validity", "over_refusal_rate"}
