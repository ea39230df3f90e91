"""What docs/launch/ shows can be started: shell parses, YAML has its fields, the image is made of what is there."""

import pathlib
import re
import shlex
import subprocess

import pytest
import yaml

from experiments import train
from lilo_jax import config as configuration
from lilo_jax.config import Options
from lilo_jax.processes import hosts

ROOT = pathlib.Path(__file__).parent.parent
LAUNCH = ROOT / "docs" / "launch"
BLOCKS = re.findall(r"```bash\n(.*?)```", (LAUNCH / "index.md").read_text("utf-8"), re.DOTALL)
MODULE = re.compile(r"python -m experiments\.train ([^\"]*)")


@pytest.mark.parametrize("text", [*BLOCKS, (LAUNCH / "train.sbatch").read_text("utf-8")])
def test_shell_parses(text):
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False).returncode == 0


def test_options_of_every_command_are_known():
    found = [shlex.split(line) for block in BLOCKS for line in MODULE.findall(block.replace("\\\n", " "))]
    assert len(found) == 4
    for options in found:
        given = [option for option in options if not option.startswith("--distributed.")]
        if len(given) < len(options):
            given = options[: options.index("--distributed.coordinator")]
            assert set(options[len(given) :: 2]) <= {f"--distributed.{name}" for name in hosts.OPTIONS}
        parsed = configuration.parse(Options(config=train.config()), given, prog="train", description="")
        assert parsed.launch.output_dir.endswith("runs/mine")


def test_the_job_set_starts_a_host_for_every_four_chips():
    content = yaml.safe_load((LAUNCH / "jobset.yaml").read_text("utf-8"))
    assert (content["apiVersion"], content["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = content["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = int(container["resources"]["limits"]["google.com/tpu"])
    assert spec["parallelism"] == spec["completions"] == rows * columns / chips
    assert pod["terminationGracePeriodSeconds"] > configuration.Launch().grace
    options = container["command"][3:]
    parsed = configuration.parse(Options(config=train.config()), options, prog="train", description="")
    assert parsed.config.mesh.fsdp == rows * columns
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_image_is_made_of_what_the_context_holds():
    lines = (LAUNCH / "Dockerfile").read_text("utf-8").splitlines()
    copied = [source for line in lines if line.startswith("COPY") for source in line.split()[1:-1]]
    kept = [line[1:] for line in (LAUNCH / "Dockerfile.dockerignore").read_text("utf-8").splitlines() if line[0] == "!"]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)
    for line in lines:
        if line.startswith("RUN"):
            assert subprocess.run(["bash", "-n", "-c", line.removeprefix("RUN ")], check=False).returncode == 0
