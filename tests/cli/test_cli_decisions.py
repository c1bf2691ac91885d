"""What plans tell of those who feel them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_plan_tells_who_feels_it_and_until_when(cli: Any, web: Path, vmm: Any) -> None:
    assert cli("apply", web).status == 0
    web.write_text(web.read_text().replace("memory: 256MiB", "memory: 128MiB"))
    said = cli("plan", web)
    assert "~ stop client web: memory 268435456 -> 134217728 [restarts it; web is away until it has booted]" in said.out
    steps = {step["id"]: step for step in cli("plan", web, "-o", "json").json["steps"]}
    assert steps["stop/client/web"]["felt"] == [{"clients": ["web"], "until": "booted"}]
    assert "felt" not in steps["start/client/web"]
