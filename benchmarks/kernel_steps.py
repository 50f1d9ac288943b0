"""Write the tables of step times that the benchmarks of published DeepSeek-R1 runs read.

    python benchmarks/kernel_steps.py

It needs AIConfigurator: pip install 'tune[kernels]'. Another release of it gives other tables, so they are
kept in benchmarks/data/deepseek_r1_gb200.
"""

from __future__ import annotations

from pathlib import Path

import deepseek_r1_run
import deepseek_r1_users

from tune.config import compose_overrides
from tune.sim.kernel_steps import kernel_rows, kernel_shape
from tune.spec.step_table import render_step_table


def write_table(path: Path, overrides: tuple[str, ...]) -> None:
    """Write the steps of both pools of a configuration, whose own tables are left out."""
    untabled = [each for each in overrides if not each.startswith("cluster.calibration.")]
    spec = compose_overrides(tuple(untabled)).settings.trial_spec
    prefill, decode = (kernel_shape(spec, engine) for engine in (spec.prefill, spec.decode))
    tables = {"prefill": kernel_rows(prefill, "prefill"), "decode": kernel_rows(decode, "decode")}
    path.write_text(render_step_table(tables), encoding="utf-8")
    print(f"{path.name}: {', '.join(f'{len(rows)} rows of {phase}' for phase, rows in tables.items())}")


def main() -> None:
    """Write both tables."""
    write_table(deepseek_r1_run.STEPS, deepseek_r1_run.OVERRIDES)
    write_table(deepseek_r1_users.STEPS, (*deepseek_r1_users.OVERRIDES, "load.concurrency=12"))


if __name__ == "__main__":
    main()
