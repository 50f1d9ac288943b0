"""Test what action=plan prints of a job: steps, their needs and times, and values that are placeholders."""

from __future__ import annotations

from support.composed import composed

from tune.cli.plan_summary import summarise_plan
from tune.deploy.plan import render


def lines(*overrides: str) -> list[str]:
    settings = composed("cluster=slurm", *overrides)
    return summarise_plan(render(settings.trial_spec, settings.cluster), settings).splitlines()


def test_job_in_an_image() -> None:
    text = lines("cluster.container_image=/img.sqsh", "cluster.partition=batch", "cluster.time_limit=30")
    assert "node 13  prefill_w13   node:gpu 13:0 13:1 13:2 13:3" in text
    (prefill,) = (line for line in text if line.startswith("srun      prefill_w0:"))
    assert "--ntasks=4 --ntasks-per-node=4 --distribution=block --mpi=pmix" in prefill
    assert "--container-image=/img.sqsh" in prefill
    (client,) = (line for line in text if line.startswith("srun      client:"))
    assert "--mpi=none ..." in client, "the client runs outside of the image"
    assert text[-3:] == [
        "needs     on /img.sqsh: nats-server, etcd, python3 with dynamo.frontend, trtllm-llmapi-launch, "
        "python3 with dynamo.trtllm",
        "          on the nodes: python3 with tune.client",
        "duration  about 38 min a trial; the job ends after 30 min: too short (cluster.time_limit)",
    ]


def test_job_without_an_image() -> None:
    text = lines("stack=dynamo_v1")
    assert "image     none (cluster.container_image): steps run on the nodes as they are" in text
    assert not [line for line in text if "--container-image" in line]
