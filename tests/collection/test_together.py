"""`torchrun` builds one collection with two processes; both return it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.collection.conftest import TINY

from semblance.collection.store import Collection

PROGRAM = """
import json, sys
from semblance.collection.build import learn

done = learn(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
print(f"done {done.outcome} {done.info['model']}\\n", end="", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="gloo's rendezvous on Windows needs a build of torch with libuv")
def test_two_processes_make_one_collection(built: Path, digits: Path, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    out = tmp_path / "both.smb"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*torchrun, str(script), str(digits), str(out), json.dumps(TINY)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    collection = Collection.open(out)
    collection.verify()
    lines = sorted(line for line in run.stdout.splitlines() if line.startswith("done"))
    assert lines == [f"done {outcome} {collection.info['model']}" for outcome in ("built", "followed")]
    alone = Collection.open(built).metrics()[0]
    together = collection.metrics()[0]
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {"both.smb", "program.py"}
