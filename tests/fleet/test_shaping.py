"""Links of real engines that are as slow as their profiles say, and the same applications without."""

from __future__ import annotations

from pathlib import Path

import pytest

import rolecall as rc

HERE = Path(__file__).parent
WAN_RTT_S = 0.080
APP = """
name: shaped
parameters: {shape: false}
shape: ${shape}
nodes: {a: {network: wan}, b: {network: wan}}
roles:
  a: {asker: {class: "shaped_roles:Asker"}}
  b: {echo: {class: "shaped_roles:Echo"}}
relationships: {a: {echo: b/echo}}
"""


@pytest.mark.timeout(60)
def test_processes_are_as_far_apart_as_their_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    (tmp_path / "app.yaml").write_text(f"{APP}import_from: [{str(HERE)!r}]\n")

    def rtt_s(engine: str, shape: str) -> float:
        history = rc.run_sync(tmp_path / "app.yaml", engine=engine, sets=[f"shape={shape}"])
        return float(history.last("rtt_s") or 0)

    assert WAN_RTT_S <= rtt_s("processes", "true") < 5 * WAN_RTT_S
    assert rtt_s("processes", "false") < WAN_RTT_S
    assert rtt_s("sim", "false") == pytest.approx(WAN_RTT_S, rel=0.2)
