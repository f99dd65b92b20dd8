"""Calls as MCP clients send them: a JSON-RPC 2.0 request `tools/call` that is the whole reply, or a batch of them.

    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "...", "arguments": {...}}}

The id is a string or an integer and `arguments` may be absent, as the protocol has it; `_meta` is allowed in `params`.
The module `json` says what is an attempt at a call.
"""

from orchestrator.chat.formats.json import read_whole
from orchestrator.chat.formats.reply import Attempt, ReplyFormat, json_type, marks_calls, named_call, not_a_call


def _requested_call(item: object) -> Attempt:
    if not isinstance(item, dict):
        return not_a_call(f"a request is an object, not {json_type(item)}")
    if set(item) != {"jsonrpc", "id", "method", "params"}:
        return not_a_call("a request has the keys jsonrpc, id, method and params")
    if item["jsonrpc"] != "2.0" or item["method"] != "tools/call":
        return not_a_call('a request has "jsonrpc": "2.0" and "method": "tools/call"')
    if isinstance(item["id"], bool) or not isinstance(item["id"], (str, int)):
        return not_a_call("the id of a request is a string or an integer")
    params = item["params"]
    if not isinstance(params, dict) or not {"name"} <= set(params) <= {"name", "arguments", "_meta"}:
        return not_a_call("the params of a request are an object with name and arguments")
    return named_call(params["name"], params.get("arguments", {}), id=str(item["id"]))


MCP = ReplyFormat(
    name="mcp",
    is_shown_in=lambda template: "tools/call" in template and not marks_calls(template),
    read=lambda text, _schemas: read_whole(text, _requested_call),
    beginnings=("{", "["),
    precedence=4,
)
