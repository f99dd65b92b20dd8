"""Calls of DeepSeek V4: as those of V3.2, in a section with the tag `tool_calls`."""

from orchestrator.chat.formats.deepseek_v32 import dsml_format

DEEPSEEK_V4 = dsml_format("deepseek_v4", "tool_calls", "deepseek_v4")
