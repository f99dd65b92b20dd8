"""A Modelfile for Ollama, with the template that was trained where Ollama's language can say it."""

import json
from pathlib import Path

from evals.export.chatml import chatml_of, go_template
from evals.export.gguf import ADAPTER_FILE
from evals.export.llama_cpp import MODEL_FILE
from orchestrator.chat.rendering import reply_stop_ids
from orchestrator.chat.serve_command import TEMPLATE
from orchestrator.config.schema import RunConfig
from orchestrator.models.base import base_tokenizer

MODELFILE = "Modelfile"
SERVED_WITH = f"--jinja --chat-template-file {TEMPLATE}"
"""How llama.cpp's server is told the template that was trained."""
UNTOLD = (
    "Ollama cannot be told the chat template that was trained, and would use another one.\n"
    f"llama.cpp's server can, with `{SERVED_WITH}`."
)
"""What is said where there is no TEMPLATE."""
_TOLD = (
    "TEMPLATE renders what was trained. But Ollama writes tools and arguments as JSON without spaces, leaves out keys\n"
    "of schemas that it does not know, and puts messages of one role that follow each other into one, so those\n"
    "prompts differ from those that were scored. llama.cpp's server renders them as scored, with\n"
    f"`{SERVED_WITH}`."
)


def write_modelfile(config: RunConfig, folder: Path) -> bool:
    """Write the Modelfile of a GGUF export that has its template; returns whether Ollama can be told the template.

    Replies end where they were scored to end, and are drawn as they were scored.
    """
    tokenizer = base_tokenizer(config.model)
    tokenizer.chat_template = (folder / TEMPLATE).read_text(encoding="utf-8")
    thinking = config.data.thinking
    form = None if thinking else chatml_of(tokenizer)
    is_whole = (folder / MODEL_FILE).is_file()
    lines = [f"# {line}" for line in (_TOLD if form else UNTOLD).splitlines()]
    lines += [f"FROM ./{MODEL_FILE}"] if is_whole else ["FROM ./base.gguf", f"ADAPTER ./{ADAPTER_FILE}"]
    if form is not None:
        lines.append(f'TEMPLATE """{go_template(form)}"""')
    for token in sorted(reply_stop_ids(tokenizer, thinking=thinking)):
        lines.append(f"PARAMETER stop {json.dumps(tokenizer.convert_ids_to_tokens(token), ensure_ascii=False)}")
    room = config.eval.max_model_len or config.data.max_length + config.eval.max_new_tokens
    lines += [f"PARAMETER temperature {config.eval.temperature:g}", "PARAMETER repeat_penalty 1"]
    lines += [f"PARAMETER num_ctx {room}"]
    (folder / MODELFILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return form is not None
