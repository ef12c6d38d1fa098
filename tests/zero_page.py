"""The page on ZeroGPU with the real `spaces` package, as a process of its own: what was lent for what, in told.json.

Stand-ins: a server for ZeroGPU's device API, and a worker's GPU, which is the CPU. Who computes is noted by process.
Arguments: a model folder, and an empty folder.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

asked: list[tuple[str, dict[str, list[str]]]] = []


class DeviceApi(BaseHTTPRequestHandler):
    """Lends whatever is asked for."""

    def do_POST(self) -> None:
        url = urlparse(self.path)
        asked.append((url.path, parse_qs(url.query)))
        lent = {"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "token"}
        body = json.dumps(lent).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), DeviceApi)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {
    "SPACES_ZERO_GPU": "true",
    "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{server.server_port}",
    "ZEROGPU_OFFLOAD_DIR": str(Path(sys.argv[2]) / "offload"),
}

import spaces  # noqa: E402
from spaces.zero import torch as device  # noqa: E402
from spaces.zero import utils  # noqa: E402

utils.self_cgroup_device_path = lambda: "here"
device.init = lambda _: None
device.size = lambda: 0
device.move = lambda callback=None: None

import gradio_client  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402

import hieramp  # noqa: E402
from app import computing, page, view_requests  # noqa: E402
from app.context import AppContext  # noqa: E402
from app.visitor_limits import VisitorLimits  # noqa: E402
from hieramp.var.model import VAR  # noqa: E402

torch.set_num_threads(1)
NOTES = Path(sys.argv[2]) / "notes"
step = VAR.step


def noted(self: VAR, *given: Any, **more: Any) -> Any:
    with NOTES.open("a") as notes:
        notes.write(f"{os.getpid()}\n")
    return step(self, *given, **more)


VAR.step = noted  # type: ignore[method-assign]


def computed() -> list[int]:
    """The processes that computed since this was asked last, each once."""
    found = sorted({int(line) for line in NOTES.read_text().split()}) if NOTES.exists() else []
    NOTES.unlink(missing_ok=True)
    return found


def main() -> None:
    model = hieramp.load(sys.argv[1], "cpu")
    demo = page.build(model, VisitorLimits(ipc=50), job_root=Path(sys.argv[2]) / "jobs")
    context = AppContext.make(
        model, job_root=Path(sys.argv[2]) / "more"
    )  # before the first worker, which would not know it
    page.launch(demo, prevent_thread_lock=True, quiet=True)
    told: dict[str, Any] = {"main": os.getpid(), "opened": [path for path, _ in asked], "while_built": computed()}
    client = gradio_client.Client(demo.local_url, verbose=False)
    answers: dict[str, Any] = {}
    workers: dict[str, list[list[int]]] = {}
    calls: dict[str, dict[str, Any]] = {
        "/generate": {"class_name": "cat", "seed": 7, "count": 1},
        "/saliency": {"class_name": "cat"},
        "/count_tokens": {"class_name": "cat", "samples": 2},
        "/compare_schedules": {"classes": 1, "samples": 1},
        "/ablate": {"class_name": "cat", "columns": "mid_strength", "column_values": "1, 2"},
        "/estimate": {"classes": "cat", "ipc": 2},
    }
    for name, given in calls.items():
        for _ in range(2):
            answers[name] = client.predict(**given, api_name=name)
            workers.setdefault(name, []).append(computed())
    job = client.predict(classes="cat,dog", ipc=2, api_name="/distill")
    while job["state"] in ("waiting", "running"):
        time.sleep(0.2)
        job = client.predict(job["job_id"], api_name="/job")
    workers["/distill"] = [computed()]
    for _ in range(3):
        view_models = list(context.grow(view_requests.first_request(model)))
        workers.setdefault("grow", []).append(computed())
    *_, piece = context.pieces("saved", view_requests.first_request(model), {"what": "maps"})
    told["saved"], workers["saved"] = piece.answer["name"], [computed()]
    try:
        context.answer("block_view", view_requests.first_request(model), 0, 99)
    except hieramp.errors.UserError as error:
        told["wrong"] = str(error)
    view_request = view_requests.read_request(model, view_requests.defaults(model) | calls["/generate"])
    told |= {
        "workers": workers,
        "picture_is_the_same": answers["/generate"]
        == json.loads(json.dumps(computing.handlers.generate(model, view_request))),
        "job": {name: job[name] for name in ("state", "done")},
        "file": job["file"] if isinstance(job["file"], str) else (job["file"] or {}).get("path"),
        "scenes": len(view_models),
        "is_finished": view_models[-1]["finals"] is not None,
        "seconds": [int(query["durationSeconds"][0]) for path, query in asked if path == "/schedule"],
        "calls": Counter(path for path, _ in asked),
        "spaces": spaces.__name__,
    }
    (Path(sys.argv[2]) / "told.json").write_text(json.dumps(told))  # the workers write to our output too
    for worker in psutil.Process().children(recursive=True):
        worker.kill()  # else they keep our output open, and whoever reads it waits for them
    os._exit(0)


if __name__ == "__main__":
    main()
