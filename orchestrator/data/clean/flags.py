"""Findings in samples that are kept: a person should look at them, because a machine cannot decide."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from orchestrator.core.records import BENIGN, HARMFUL, JsonObject, Sample

FlagCode = Literal["secret", "harmful_not_refused", "benign_refused", "undeclared_argument", "control_token"]

OPEN_KEYWORDS = frozenset(
    {"additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames", "$ref", "$dynamicRef"}
    | {"allOf", "anyOf", "oneOf", "if", "dependentSchemas"}
)
"""Schema keywords that may allow an argument which `properties` does not name."""


class _Secret(NamedTuple):
    """A published form of credential: every one contains `literal` and matches `pattern`."""

    name: str
    literal: str
    pattern: re.Pattern[str]


_SECRETS = (
    _Secret("a private key", "PRIVATE KEY-----", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")),
    _Secret("an AWS access key", "AKIA", re.compile(r"\bAKIA[0-9A-Z]{16}\b")),
    _Secret("an AWS access key", "ASIA", re.compile(r"\bASIA[0-9A-Z]{16}\b")),
    _Secret("a GitHub token", "ghp_", re.compile(r"\bghp_[A-Za-z0-9]{36,}")),
    _Secret("a GitHub token", "gho_", re.compile(r"\bgho_[A-Za-z0-9]{36,}")),
    _Secret("a GitHub token", "ghs_", re.compile(r"\bghs_[A-Za-z0-9]{36,}")),
    _Secret("a GitHub token", "github_pat_", re.compile(r"\bgithub_pat_[A-Za-z0-9_]{22,}")),
    _Secret("a Slack token", "xox", re.compile(r"\bxox[abposr]-[A-Za-z0-9-]{10,}")),
    _Secret("a Google API key", "AIza", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    _Secret("an OpenAI or Anthropic key", "sk-", re.compile(r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}")),
    _Secret("a Hugging Face token", "hf_", re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")),
    _Secret("a Stripe key", "k_live_", re.compile(r"\b[rs]k_live_[0-9A-Za-z]{16,}")),
    _Secret("a JSON web token", "eyJ", re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")),
)
"""Passwords and keys without a form of their own are missed. The literal is looked for first: it is far faster."""

_CONTROL = re.compile(r"<\|\w{1,40}\|>")
"""How most tokenizers write the tokens that divide turns."""


class Flag(NamedTuple):
    """One finding and what it is, without repeating a secret."""

    code: FlagCode
    detail: str


def find_flags(sample: Sample, text: str, *, is_kind_inferred: bool) -> Iterator[Flag]:
    """What stands out in a sample whose JSON is `text`.

    A label that the last turn seems to contradict is flagged only where the kind was inferred, for words can
    mislead; a given kind that contradicts is a reason for the quarantine.
    """
    found = next((secret for secret in _SECRETS if secret.literal in text and secret.pattern.search(text)), None)
    if found:
        yield Flag("secret", f"it seems to hold {found.name}; a model may repeat it")
    if is_kind_inferred and HARMFUL in sample.tags and sample.kind != "refusal":
        yield Flag("harmful_not_refused", f"it is tagged harmful, but the last turn reads as {sample.kind}")
    if is_kind_inferred and BENIGN in sample.tags and sample.kind == "refusal":
        yield Flag("benign_refused", "it is tagged benign, but the last turn reads as a refusal")
    if "<|" in text and (control := _CONTROL.search(text)):
        yield Flag("control_token", f"it holds {control[0]}, which a tokenizer may read as the border of a turn")
    undeclared = next(_undeclared_arguments(sample), None)
    if undeclared:
        detail = f"{undeclared[:160]} is given, which the tool's schema does not name; is it misspelt or made up?"
        yield Flag("undeclared_argument", detail)


def _undeclared_arguments(sample: Sample) -> Iterator[str]:
    """Arguments that fit their schema only because JSON Schema allows whatever it does not name."""
    named: dict[str, JsonObject] = {
        tool.function.name: tool.function.parameters.get("properties", {})
        for tool in sample.tools
        if not OPEN_KEYWORDS & tool.function.parameters.keys()
    }
    for message in sample.messages:
        for call in message.tool_calls:
            known = named.get(call.function.name)
            if known is not None:
                yield from (f"{call.function.name}.{key}" for key in call.function.arguments if key not in known)
