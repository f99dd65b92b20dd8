"""The judge model gives its opinion on which replies refuse, in engines like those that made the replies."""

from collections.abc import Sequence

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from evals.engines import answer_all
from evals.generate import EngineSettings, Prompt
from evals.journal import Journal, engine_record
from evals.judge import JUDGED_KINDS, judge_prompts, judgements_of
from evals.records import Case, Generation, Scores
from orchestrator.cluster import worker_shape
from orchestrator.config import ModelConfig, RunConfig
from orchestrator.jsonl import dump_jsonl, parse_line, read_jsonl
from orchestrator.models.base import base_folder, compute_dtype, load_tokenizer
from orchestrator.models.base_weights import base_sha256
from orchestrator.progress import bar, say
from orchestrator.runs import RunDir, digest_of, package_versions, write_text_atomic
