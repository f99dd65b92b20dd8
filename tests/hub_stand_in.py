"""The part of the hub's HTTP API that an upload uses, as a process: `python tests/hub_stand_in.py FOLDER [FAULT]`.

It keeps repositories below FOLDER, says its port on its first line, and knows the tokens of `TOKENS`. FAULT is what
goes wrong: `cut` breaks the connection of the first upload of a file, `busy` answers the first commit with HTTP 503,
`late` refuses the first token for Xet, `older` has no Xet. What goes by Xet is kept by the client's own local store.
"""

import base64
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TOKENS = {"hf_writer": True, "hf_reader": False}
"""Whether a token may write."""
COMMIT = "1" * 40
LARGE = (".safetensors", "tokenizer.json")
PRIVATE, CONTENT, LARGE_FILES, LOG, XET = "private.json", "files", "large", "requests.log", "xet"


class Hub(BaseHTTPRequestHandler):
    root: Path
    faults: set[str]
    port: int

    def log_message(self, *_: Any) -> None:
        with (self.root / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{self.command} {urlsplit(self.path).path}\n")

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self.may(writes=False):
            return
        if "/xet-write-token/" in path and "older" not in self.faults:
            return self.xet()
        name = path.removeprefix("/api/models/")
        if path.startswith("/api/models/") and self.repo(name).is_dir():
            private = json.loads((self.repo(name) / PRIVATE).read_text())
            return self.answer({"id": name, "modelId": name, "private": private, "sha": "0" * 40, "siblings": []})
        self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if "cut" in self.faults:
            self.faults.discard("cut")
            self.connection.close()
            return
        (self.root / LARGE_FILES).mkdir(exist_ok=True)
        (self.root / LARGE_FILES / self.path.rpartition("/")[2]).write_bytes(data)
        self.answer({})

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if not self.may(writes=True):
            return
        if path == "/api/repos/create":
            return self.create(json.loads(data))
        if "/preupload/" in path:
            return self.answer({"files": [self.mode(one["path"]) for one in json.loads(data)["files"]]})
        if path.endswith("/info/lfs/objects/batch"):
            return self.answer({"transfer": "basic", "objects": [self.lfs(one) for one in json.loads(data)["objects"]]})
        if "/commit/" in path:
            return self.commit(path.removeprefix("/api/models/").partition("/commit/")[0], data)
        self.answer({"error": "Not found"}, 404)

    def may(self, *, writes: bool) -> bool:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in TOKENS:
            self.answer({"error": "Invalid credentials in Authorization header"}, 401)
            return False
        if writes and not TOKENS[token]:
            self.answer({"error": "Forbidden: you must use a write token"}, 403)
            return False
        return True

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        place = {"url": f"{self.address()}/{name}", "name": name}
        if self.repo(name).is_dir():
            return self.answer({"error": "You already created this model repo", **place}, 409)
        (self.repo(name) / CONTENT).mkdir(parents=True)
        (self.repo(name) / PRIVATE).write_text(json.dumps(asked.get("visibility") == "private"))
        self.answer(place)

    def commit(self, name: str, data: bytes) -> None:
        if "busy" in self.faults:
            self.faults.discard("busy")
            return self.answer({"error": "Service unavailable"}, 503)
        for line in map(json.loads, data.splitlines()):
            value, target = line["value"], self.repo(name) / CONTENT
            if line["key"] == "file":
                (target / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                sent = self.root / LARGE_FILES / value["oid"]
                (target / value["path"]).write_bytes(sent.read_bytes() if sent.is_file() else value["oid"].encode())
        self.answer(
            {"commitUrl": f"{self.address()}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40, "hookOutput": ""}
        )

    def xet(self) -> None:
        if "late" in self.faults:
            self.faults.discard("late")
            return self.answer({"error": "Not yet"}, 401)
        store = {"casUrl": f"local://{self.root / XET}", "accessToken": "xet", "exp": int(time.time()) + 3600}
        self.answer(store)

    def lfs(self, asked: dict[str, Any]) -> dict[str, Any]:
        if (self.root / LARGE_FILES / asked["oid"]).is_file():
            return asked
        return asked | {"actions": {"upload": {"href": f"{self.address()}/upload/{asked['oid']}"}}}

    def mode(self, path: str) -> dict[str, Any]:
        return {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}

    def repo(self, name: str) -> Path:
        return self.root / "repos" / name

    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    Hub.root, Hub.faults = Path(sys.argv[1]), set(sys.argv[2:])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.port = server.server_port
    print(Hub.port, flush=True)  # noqa: T201 - who started it reads the port
    server.serve_forever()
