"""Which chat templates can be trained with: each that TRL ships, on one tokenizer, with the same conversations.

    python benchmarks/chat_templates.py --base FOLDER                # all of them, as `check` judges
    python benchmarks/chat_templates.py --base FOLDER gptoss gemma   # some
    python benchmarks/chat_templates.py --base FOLDER --rows FILE    # tokens of other conversations

Each template is given by `model.chat_template`, then hermes to all that are not ready by themselves. Tokens are those
of train, per conversation that is trained on. The data is prepared once, and of a check only the parts run that the
template decides: tokens, and parity with evaluation and with vLLM. A template may be a file.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

from evals.check.card import ParityCard
from evals.check.parity import check_parity
from orchestrator.chat.named_templates import HERMES, OWN, template_names
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError
from orchestrator.data.card import NOT_SHOWN, TokenCard
from orchestrator.data.prepare.prepare import prepare_data
from orchestrator.data.tokens.store import refuse_left_out, tokenize_run
from orchestrator.run.folder import check_dir
from orchestrator.toy.synthetic import generate_samples

NUM_CONVERSATIONS = 60


class Found(NamedTuple):
    """What a check says of one template; `reason` is the first thing to change, or what is left out."""

    reason: str
    tokens: float = 0.0
    learned: float = 0.0
    rows: int = 0
    samples: int = 0

    @property
    def is_ready(self) -> bool:
        """Whether anything is trained on."""
        return self.samples > 0


def write_conversations(path: Path) -> None:
    """Generated conversations, some with parallel calls, system messages and results, as rows of messages and tools."""
    with path.open("w", encoding="utf-8") as file:
        for sample in generate_samples(NUM_CONVERSATIONS, seed=3, catalogue="full"):
            row = sample.model_dump(mode="json", include={"messages", "tools", "kind"}, exclude_none=True)
            file.write(json.dumps(row) + "\n")


def check_template(base: Path, name: str, rows: Path, work: Path) -> Found:
    """What a check says of one template."""
    tree = {
        "name": "templates",
        "model": {"base": str(base), "chat_template": name},
        "data": {"sources": [{"path": str(rows)}], "max_length": 8192},
        "resources": {"storage_path": str(work)},
    }
    config = RunConfig.model_validate(tree)
    folder = check_dir(config)
    try:
        if not folder.card.is_file():
            prepare_data(config, folder, base_dir=work)
        tokens = tokenize_run(config, folder)
        refuse_left_out(config, tokens)
        parity = check_parity(config, folder)
    except InputError as error:
        return Found(str(error))
    if parity.problems:
        return Found(f"{parity.problems[0].code}: {parity.problems[0].detail}")
    return _found(tokens["train"], parity)


def _found(train: TokenCard, parity: ParityCard) -> Found:
    lost = [row for row in train.left_out if row.reason in NOT_SHOWN]
    notes = [f"{len(lost)} left out: {lost[0].detail}"] if lost else []
    if parity.served_otherwise is not None:
        notes.append(f"vLLM reads {parity.served_otherwise.count} otherwise")
    if train.unlearned_turns:
        notes.append(f"{train.unlearned_turns} turns not learned")
    samples = train.samples
    return Found("; ".join(notes), train.tokens / samples, train.learned_tokens / samples, train.rows, samples)


def _cell(reason: str) -> str:
    """A reason as one cell of a table."""
    return " ".join(reason.split())[:160].replace("|", "\\|")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder of a base in Hugging Face format")
    parser.add_argument("--rows", type=Path, help="conversations instead of generated ones")
    parser.add_argument("names", nargs="*", help="templates; all by default")
    args = parser.parse_args()
    names = args.names or [name for name in template_names() if name not in (OWN, HERMES)]
    num_own = num_hermes = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = args.rows.resolve() if args.rows else work / "rows.jsonl"
        if not args.rows:
            write_conversations(rows)
        hermes = check_template(args.base, HERMES, rows, work)
        print("| Template | Ready by | Conversations | Rows | Tokens | Learned | Remark |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name in names:
            own = check_template(args.base, name, rows, work)
            num_own += own.is_ready
            num_hermes += not own.is_ready and hermes.is_ready
            ready_by = "itself" if own.is_ready else HERMES if hermes.is_ready else "nothing"
            shown = own if own.is_ready else hermes
            cells = f"{shown.samples} | {shown.rows} | {shown.tokens:.1f} | {shown.learned:.1f}"
            print(f"| {Path(name).stem} | {ready_by} | {cells} | {_cell(own.reason)} |", flush=True)
    print(f"\n{num_own} of {len(names)} are ready by themselves, {num_hermes} more by {HERMES}.")


if __name__ == "__main__":
    main()
