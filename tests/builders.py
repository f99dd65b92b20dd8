"""Small real things that tests share: samples, configs, plans, and a Qwen3 model folder with random weights."""

from pathlib import Path
from typing import Any

from orchestrator.config.schema import LoraConfig, ModelConfig, ResourcesConfig, RunConfig, TrainConfig
from orchestrator.core.files import dump_jsonl, write_text_atomic
from orchestrator.core.records import (
    AdapterRecord,
    FunctionCall,
    FunctionSpec,
    JsonObject,
    Message,
    Sample,
    SampleKind,
    ToolCall,
    ToolSpec,
    TrialRecord,
)
from orchestrator.run.paths import RunDir, SplitName
from orchestrator.training.plan import TrainPlan


def make_tool(name: str = "get_weather", **properties: JsonObject) -> ToolSpec:
    """A tool whose parameters are all required; a `city` when none is given."""
    given = properties or {"city": {"type": "string"}}
    parameters = {"type": "object", "properties": given, "required": sorted(given), "additionalProperties": False}
    return ToolSpec(function=FunctionSpec(name=name, description=f"Does {name}.", parameters=parameters))


def make_call(name: str = "get_weather", **arguments: Any) -> ToolCall:
    """A call of a tool."""
    return ToolCall(function=FunctionCall(name=name, arguments=arguments))


def user(text: str) -> Message:
    """What the user says."""
    return Message(role="user", content=text)


def assistant(text: str = "", *calls: ToolCall) -> Message:
    """What the assistant says or calls."""
    return Message(role="assistant", content=text, tool_calls=calls)


def make_sample(*turns: Message, id: str = "s0", kind: SampleKind = "tool_call", **fields: Any) -> Sample:
    """A sample that calls for the weather in Rome, or one of the given turns."""
    messages = turns or (user("What is the weather in Rome"), assistant("", make_call(city="Rome")))
    fields = {"tools": (make_tool(),), "source": "test", **fields}
    return Sample(id=id, messages=messages, kind=kind, **fields)


def weather_samples(*cities: str) -> list[Sample]:
    """One sample of a call for each city."""
    return [
        make_sample(user(f"What is the weather in {city}"), assistant("", make_call(city=city)), id=f"s-{city}")
        for city in cities
    ]


def write_samples(run: RunDir, part: SplitName, samples: list[Sample]) -> None:
    """Samples as one part of a run's data."""
    write_text_atomic(run.split(part), dump_jsonl(samples))


def names_in(folder: Path) -> list[str]:
    """Names of all that lies in a folder, hidden files too, sorted."""
    return sorted(path.name for path in folder.iterdir())


def make_config(storage: Path, *, base: str = "tiny", **sections: Any) -> RunConfig:
    """A config whose runs lie in `storage`; `sections` are RunConfig's own fields."""
    fields = {"resources": ResourcesConfig(storage_path=str(storage)), "model": ModelConfig(base=base), **sections}
    return RunConfig(**fields)


def toy_run(storage: Path, name: str, **sections: JsonObject) -> RunConfig:
    """A run on the tiny base with 80 easy samples, which takes seconds once its processes are up."""
    settings: JsonObject = {
        "name": name,
        "model": {"base": "tiny"},
        "data": {"sources": [{"path": "synthetic", "catalogue": "easy", "limit": 80}], "max_length": 512},
        "resources": {"storage_path": str(storage)},
    }
    for section, fields in sections.items():
        settings[section] = {**settings.get(section, {}), **fields}
    return RunConfig.model_validate(settings)


def prepared(config: RunConfig) -> RunDir:
    """The folder of a run whose data is prepared."""
    from orchestrator.data.prepare.prepare import prepare_data
    from orchestrator.run.folder import open_run

    run = open_run(config)
    prepare_data(config, run, base_dir=Path.cwd())
    return run


def make_plan(*, base: str = "tiny", max_steps: int = 60, eval_steps: int = 6, **fields: Any) -> TrainPlan:
    """One worker of one CPU that trains r 16, alpha 32 at 2e-4."""
    settled = {
        "model": ModelConfig(base=base),
        "lora": LoraConfig(r=16, alpha=32),
        "train": TrainConfig(),
        "train_tokens": "/data/tokens/train",
        "val_tokens": "/data/tokens/val",
        "num_workers": 1,
        "cpus_per_worker": 1.0,
        "gpus_per_worker": 0,
        "max_steps": max_steps,
        "eval_steps": eval_steps,
        "warmup_steps": 2,
    }
    return TrainPlan.model_validate({**settled, **fields})


def make_trial(trial_id: str = "t0", *, eval_loss: float | None = 0.5, step: int | None = 10) -> TrialRecord:
    """A completed trial of r 4, alpha 8 at 1e-3."""
    return TrialRecord(
        trial_id=trial_id,
        status="completed",
        hyperparameters={"r": 4, "alpha": 8, "learning_rate": 1e-3},
        curve=(),
        best_eval_loss=eval_loss,
        best_step=step,
    )


def write_other_base(folder: Path, model_folder: Path, family: str, **sizes: Any) -> Path:
    """A small base of another family of transformers, such as `gemma2`, with the tokenizer of `model_folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024}
    tokens = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    settings = AutoConfig.for_model(family, **{**shape, **heads, **tokens, "bos_token_id": None, **sizes})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_model_folder(folder: Path) -> Path:
    """A Qwen3 of two layers with random weights, its tokenizer and Qwen3's template, as the hub would give them."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from orchestrator.toy.pretrain import build_tokenizer
    from orchestrator.toy.synthetic import generate_samples

    texts = [sample.model_dump_json() for sample in generate_samples(100, seed=0, catalogue="full")]
    tokenizer = build_tokenizer(iter(texts))
    torch.manual_seed(0)
    settings = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_peft_checkpoint(folder: Path, model_folder: Path, *, seed: int = 0) -> Path:
    """What a training checkpoint holds: PEFT's files of a LoRA of rank 4 on that model, its weights drawn by `seed`."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from orchestrator.models.adapters import peft_config

    torch.manual_seed(seed)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model_folder), peft_config(LoraConfig(r=4, alpha=8, dropout=0.0))
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(folder)
    return folder


def write_tiny_adapter(
    folder: Path,
    *,
    rank: int = 8,
    targets: tuple[str, ...] | str = "all-linear",
    seed: int = 0,
    std: float = 0.3,
    use_dora: bool = False,
) -> Path:
    """A LoRA on the tiny base with random weights, by PEFT; rank 4 is scaled as rsLoRA. `std` 0 leaves it inert."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from orchestrator.models.adapters import peft_config
    from orchestrator.toy.tiny import tiny_base_folder

    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32)
    lora = LoraConfig.model_validate(
        {"r": rank, "alpha": 16, "target_modules": targets, "use_rslora": rank == 4, "use_dora": use_dora}
    )
    model = get_peft_model(base, peft_config(lora))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=std)
            elif "lora_magnitude" in name:
                weight.mul_(1 + 0.2 * torch.rand_like(weight))
    model.save_pretrained(str(folder))
    return folder


def keep_tiny(run: RunDir, folder: Path, *, base: str = "tiny") -> AdapterRecord:
    """An adapter on the tiny base as one that a run's trial of the folder's name made."""
    from orchestrator.models.adapters import keep_adapter
    from orchestrator.models.base import load_tokenizer
    from orchestrator.toy.tiny import tiny_base_folder

    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    return keep_adapter(folder, run, make_trial(folder.name), model=ModelConfig(base=base), tokenizer=tokenizer)


def write_learned_adapter(folder: Path, samples: list[Sample], lora: LoraConfig) -> Path:
    """A LoRA on the tiny base that has learned by heart what the assistant says last in each sample; by PEFT."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from orchestrator.chat.rendering import chat_format, render_prompt
    from orchestrator.models.adapters import peft_config
    from orchestrator.models.base import load_tokenizer
    from orchestrator.toy.tiny import tiny_base_folder

    torch.manual_seed(0)
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    form = chat_format(tokenizer, thinking=False)
    base = AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32)
    model = get_peft_model(base, peft_config(lora))
    rows = [
        (len(render_prompt(tokenizer, sample.messages[:-1], sample.tools)), form.encode(_whole(form, sample)))
        for sample in samples
    ]
    longest = max(len(ids) for _, ids in rows)
    padded = torch.tensor([ids + [0] * (longest - len(ids)) for _, ids in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for _, ids in rows])
    labels = torch.tensor([[-100] * start + ids[start:] + [-100] * (longest - len(ids)) for start, ids in rows])
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=8e-3)
    for _ in range(25):
        model(input_ids=padded, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(str(folder))
    return folder


def _whole(form: Any, sample: Sample) -> str:
    offered = [tool.model_dump(mode="json") for tool in sample.tools]
    return str(form.text(form.plain(sample.messages), offered, prompt=False))
