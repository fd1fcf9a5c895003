"""cluster.yaml and its cloud variant: Ray accepts them, and they name what this repository has."""

import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FILES = ("cluster.yaml", "docs/cluster-aws.yaml")
NODES = 7


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


@pytest.mark.cluster  # imports Ray's launcher; starts nothing
@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_it(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load(name))
    validate_config(config)  # Ray's own JSON schema, and its checks of the node types
    types = config["available_node_types"]
    workers = sum(kind["min_workers"] for kind in types.values())
    assert workers == config["max_workers"] == NODES - 1


@pytest.mark.parametrize("name", FILES)
def test_the_launcher_finds_the_start_commands_it_looks_for(name: str) -> None:
    config = load(name)
    (head,) = config["head_start_ray_commands"]
    assert "ray start" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "$RAY_HEAD_IP" in config["worker_start_ray_commands"][0]


@pytest.mark.parametrize("name", FILES)
def test_its_commands_are_ours_and_accepted(name: str) -> None:
    from cli.host_ray import parser

    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        for command in load(name)[key]:
            words = command.replace("$RAY_HEAD_IP", "192.0.2.10").split()
            assert words[:2] == ["flashblocks", "ray"]
            parser().parse_args(words[2:])


@pytest.mark.parametrize("name", FILES)
def test_the_package_is_installed_from_the_lock_file(name: str) -> None:
    config = load(name)
    setup = "\n".join(config["setup_commands"])
    assert "--require-hashes -r ~/flashblocks/requirements.lock" in setup
    assert "--no-deps" in setup
    mounts = config["file_mounts"]
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    assert all(target == f"~/flashblocks/{source}" for target, source in mounts.items())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {each.removesuffix("*") for each in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    # One by one: Ray hashes every file below a mount, and a whole tree has a virtual environment in it.
    assert set(mounts.values()) == {"pyproject.toml", "requirements.lock", project["project"]["readme"], *packages}


def test_the_edge_hosts_are_among_the_workers() -> None:
    config = load("cluster.yaml")
    found = re.search(r"--edge (\S+)", config["worker_start_ray_commands"][0])
    assert found is not None
    assert set(found.group(1).split(",")) < set(config["provider"]["worker_ips"])


def test_on_a_cloud_the_node_types_say_what_a_host_is_for() -> None:
    types = load("docs/cluster-aws.yaml")["available_node_types"]
    assert types["sequencer"]["resources"] == {"sequencer": 1}
    assert types["edge"]["resources"] == {"edge": 1}
    assert types["head"]["resources"] == {}


def kuberay_groups() -> dict[str, Any]:
    """Name → group of pods of the RayCluster for Kubernetes."""
    spec = load("docs/kuberay.yaml")["spec"]
    return {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}


@pytest.mark.parametrize("name", ["head", "sequencer", "edge"])
def test_on_kubernetes_ray_is_started_as_flashblocks_ray_start_does_it(name: str) -> None:
    from actors.ray_host import RayOptions, command, environment

    group = kuberay_groups()[name]
    head = name == "head"
    options = RayOptions(address="192.0.2.7", head=head, head_address="" if head else "192.0.2.1")
    ours = dict(word.removeprefix("--").split("=", 1) for word in command(options, "ray")[2:] if "=" in word)
    for made_by_the_operator in ("address", "node-ip-address"):
        ours.pop(made_by_the_operator, None)
    theirs = dict(group["rayStartParams"])
    resources = json.loads(json.loads(theirs.pop("resources", '"{}"')))
    assert theirs == {key: value for key, value in ours.items() if key != "resources"}
    assert resources == ({} if head else {name: 1})
    (container,) = group["template"]["spec"]["containers"]
    found = {each["name"]: each["value"] for each in container["env"]}
    assert found == {key: value for key, value in environment(options).items() if key != "RAY_AUTH_MODE"}


def test_on_kubernetes_every_host_has_its_nodes_address_and_keeps_its_data() -> None:
    config = load("docs/kuberay.yaml")
    assert config["spec"]["rayVersion"] == version("ray")
    assert config["spec"]["authOptions"] == {"mode": "token"}
    groups = kuberay_groups()
    assert [groups[name]["replicas"] for name in ("sequencer", "edge")] == [5, 1]
    for name, group in groups.items():
        pod = group["template"]["spec"]
        assert pod["hostNetwork"] is True
        (apart,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert apart["labelSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
        mounts = pod["containers"][0].get("volumeMounts", [])
        assert [mount["mountPath"] for mount in mounts] == ([] if name == "head" else ["/var/lib/flashblocks"])
