"""The Helm chart: rendered by Helm, checked against the schemas of Kubernetes and against the host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import typer

from cloister.errors import ConfigurationError
from cloister_host._cli import app
from cloister_host.http.endpoints import Endpoints
from cloister_host.unseal.private import read_private
from support import require
from support.documents import DOCS, run_command

CHART = Path(__file__).parents[3] / "infra" / "kubernetes" / "cloister-host"
SECRETS = {
    "provider": "shamir",
    "shamir": {"sharesSecret": "shares", "shares": ["share-1.txt", "share-4.txt"]},
}


@pytest.fixture(scope="module")
def yaml():
    require.module("yaml", install="pip install pyyaml")
    import yaml

    return yaml


@pytest.fixture(scope="module")
def example(yaml):
    """The values of the page."""
    (text,) = re.findall(
        r"^```yaml\n(.*?)^```", (DOCS / "kubernetes.md").read_text(), re.DOTALL | re.MULTILINE
    )
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def helm(tmp_path_factory):
    binary = require.helm()
    home = tmp_path_factory.mktemp("helm")

    def helm(*arguments, values):
        file = home / "values.json"
        file.write_text(json.dumps(values))
        return subprocess.run(
            [binary, *arguments, "--values", file],
            env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return helm


@pytest.fixture(scope="module")
def rendered(helm, yaml):
    known: dict[str, dict[str, dict]] = {}

    def rendered(values):
        if (key := json.dumps(values, sort_keys=True)) not in known:
            known[key] = render(values)
        return known[key]

    def render(values):
        done = helm("template", "prod", CHART, "--namespace", "cloister", values=values)
        assert done.returncode == 0, done.stderr
        found = {document["kind"]: document for document in yaml.safe_load_all(done.stdout) if document}
        assert len(found) == done.stdout.count("\nkind:")
        return found

    return rendered


def merged(values, changes):
    """Values with others laid over them, as Helm does it."""
    out = deepcopy(values)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = merged(out[name], value) if both else value
    return out


OPTIONS = {
    "as on the page": {},
    "shares and a gateway": {"unseal": SECRETS, "tls": {"secretName": "", "elsewhere": True}},
    "another provider": {"unseal": {"provider": "tpm2", "extraArgs": ["--tpm=/dev/tpmrm0"]}},
    "no extras": {
        "autoscaling": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "serviceMonitor": {"enabled": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "topologySpread": False,
    },
    "everything": {
        "imagePullSecrets": [{"name": "pull"}],
        "attester": {"extraResources": {"example.com/tsm": 1}},
        "sandbox": {
            "acceptMissingLayers": ["cgroup", "landlock"],
            "seccompProfile": {"type": "Localhost", "localhostProfile": "cloister.json"},
            "appArmorProfile": {"type": "Unconfined"},
        },
        "egressTrustAnchors": {"configMap": "anchors", "files": ["partner.pem"]},
        "extraArgs": ["--witness=https://w.example", "--witness-key=w+abc+def"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "vault"},
        "service": {"type": "LoadBalancer", "annotations": {"internal": "true"}},
        "serviceAccount": {"annotations": {"role": "x"}},
        "networkPolicy": {
            "ingressFrom": [{"namespaceSelector": {"matchLabels": {"app": "x"}}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"app": "prometheus"}}}],
            "database": {"podSelector": {"matchLabels": {"app": "pg"}}, "namespaceSelector": {}},
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/24"}}], "ports": [{"port": 1792}]}],
        },
        "serviceMonitor": {"labels": {"release": "prometheus"}},
        "nodeSelector": {"confidential": "snp"},
        "tolerations": [{"key": "confidential", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    },
}
each = pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)


@each
def test_helm_finds_nothing_to_complain_about(helm, example, changes):
    done = helm("lint", "--strict", CHART, values=merged(example, changes))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@each
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_kubernetes_knows_every_field(rendered, example, changes, version):
    require.module("kubernetes_validate", install="pip install kubernetes-validate")
    import kubernetes_validate

    checked = []
    for kind, document in rendered(merged(example, changes)).items():
        if kind != "ServiceMonitor":  # a custom resource of the Prometheus operator
            kubernetes_validate.validate(document, version, strict=True)
            checked.append(kind)
    assert {"Deployment", "Service", "ConfigMap"} <= set(checked)


@each
def test_the_host_understands_its_arguments(rendered, example, changes):
    container = rendered(merged(example, changes))["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    name, *arguments = container["args"]
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, arguments)
    with pytest.raises(Exception, match="No such option"):  # typer's own copy of Click has the class
        command.make_context(name, [*arguments, "--no-such-option"])


@each
def test_every_file_that_is_named_is_mounted(rendered, example, changes):
    pod = rendered(merged(example, changes))["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    first = {mount["name"] for one in pod.get("initContainers", ()) for mount in one["volumeMounts"]}
    assert first | set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    own = [argument.partition("=")[2] for argument in container["args"] if "=/" in argument]
    for path in own:
        assert path.startswith(("/opt/hsm/", "/dev/")) or any(path.startswith(mount) for mount in mounts), (
            path
        )


@each
def test_pods_have_no_privileges(rendered, example, changes):
    pod = rendered(merged(example, changes))["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert all(volume.keys() & {"emptyDir", "secret", "configMap"} for volume in pod["volumes"])
    assert all(volume.get("emptyDir", {}).get("medium", "Memory") == "Memory" for volume in pod["volumes"])


@each
def test_everything_means_the_same_pods(rendered, example, changes):
    found = rendered(merged(example, changes))
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [found["Deployment"]["spec"]["selector"]["matchLabels"], found["Service"]["spec"]["selector"]]
    if "PodDisruptionBudget" in found:
        selectors.append(found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
    if "NetworkPolicy" in found:
        selectors.append(found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])
    if "ServiceMonitor" in found:
        service = found["Service"]["metadata"]["labels"].items()
        assert found["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items() <= service
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    if "HorizontalPodAutoscaler" in found:
        target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
        assert target == found["Deployment"]["metadata"]["name"]
        assert "replicas" not in found["Deployment"]["spec"]  # or each upgrade would undo what it scaled


@each
def test_probes_ask_what_the_host_answers_in_the_way_it_serves(rendered, example, changes):
    values = merged(example, changes)
    container = rendered(values)["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    # its routes do not depend on what it is made of
    application = Endpoints.application(MagicMock(spec=Endpoints), lifespan=MagicMock())
    routes = {route.path for route in application.routes}
    scheme = "HTTP" if values["tls"].get("elsewhere") else "HTTPS"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in routes
        assert asked["scheme"] == scheme
    # a database that is away makes a replica unready, and must not have it restarted
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert "/metrics" in routes


def test_the_host_accepts_a_pin_as_the_pod_gets_it(rendered, example, tmp_path):
    """Of a Secret's file, which is the group's too, the pod makes one that is the host's alone."""
    (first,) = rendered(example)["Deployment"]["spec"]["template"]["spec"]["initContainers"]
    # as Kubernetes lays a Secret out: a link to a file in a folder that is swapped on a change
    secret, private = tmp_path / "secret", tmp_path / "private"
    (secret / "..data").mkdir(parents=True)
    private.mkdir()
    (secret / "..data" / "pin").write_bytes(b"4711")
    (secret / "..data" / "pin").chmod(0o440)
    (secret / "pin").symlink_to(secret / "..data" / "pin")
    with pytest.raises(ConfigurationError):
        read_private(secret / "pin", what="PIN file", limit=100)
    script = first["command"][2]
    subprocess.run([sys.executable, "-c", script, secret, private], check=True, timeout=60)
    assert [path.name for path in private.iterdir()] == ["pin"]
    assert read_private(private / "pin", what="PIN file", limit=100) == b"4711"
    mounted = {mount["name"]: mount["mountPath"] for mount in first["volumeMounts"]}
    assert first["command"][3:] == [mounted["unseal-secret"], mounted["unseal"]]


def test_a_pod_drains_before_it_is_killed(rendered, example):
    pod = rendered(example)["Deployment"]["spec"]["template"]["spec"]
    notice = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < notice < pod["terminationGracePeriodSeconds"]


def test_a_rollout_takes_nobody_away(rendered, example):
    strategy = rendered(example)["Deployment"]["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_public_addresses_are_reached_and_private_ones_are_not(rendered, example):
    egress = rendered(example)["NetworkPolicy"]["spec"]["egress"]
    blocks = [to["ipBlock"] for rule in egress for to in rule["to"] if "ipBlock" in to]
    open_to_all = [block for block in blocks if block["cidr"].endswith("/0")]
    assert len(open_to_all) == 2
    excepted = {cidr for block in open_to_all for cidr in block["except"]}
    assert {"10.0.0.0/8", "169.254.0.0/16", "fc00::/7", "fe80::/10"} <= excepted
    assert [block for block in blocks if block not in open_to_all] == [{"cidr": "10.20.0.0/24"}]


@pytest.mark.parametrize("changes", [{}, OPTIONS["everything"]], ids=["by default", "with named callers"])
def test_replicas_reach_each_other(rendered, example, changes):
    policy = rendered(merged(example, changes))["NetworkPolicy"]["spec"]
    own = {"podSelector": policy["podSelector"]}
    assert any(own in rule["from"] for rule in policy["ingress"])
    assert any(own in rule["to"] for rule in policy["egress"])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"database": {"url": "postgresql://u:secret@db/x"}}, "must not hold a password"),
        ({"database": {"url": "sqlite:///x"}}, "database/url|database.url"),
        ({"unseal": {"provider": "file"}}, "provider"),
        ({"unseal": {"provider": "shamir"}}, "sharesSecret"),
        ({"unseal": {"pkcs11": {"pinSecret": {"name": ""}}}}, "pinSecret"),
        ({"attester": {"name": "simulated"}}, "attester"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"tls": {"secretName": ""}}, "tls"),
        ({"tls": {"elsewhere": True}}, "tls"),
        ({"autoscaling": {"minReplicas": 9, "maxReplicas": 3}}, "minReplicas"),
        ({"drain": {"seconds": 51}}, "graceSeconds"),
        ({"networkPolicy": {"database": {"cidrs": []}}}, "where the database is"),
        ({"egressTrustAnchors": {"files": ["a.pem"]}}, "configMap"),
        ({"sandbox": {"acceptMissingLayers": ["user"]}}, "acceptMissingLayers"),
        ({"replicas": 3}, "replicas"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(helm, example, changes, why):
    done = helm("template", "prod", CHART, values=merged(example, changes))
    assert done.returncode != 0
    assert re.search(why, done.stderr), done.stderr
    assert "secret@db" not in done.stderr


def test_the_defaults_alone_are_refused(helm):
    assert helm("template", "prod", CHART, values={}).returncode != 0


def test_the_page_works_as_written(example, tmp_path, yaml):
    binary = require.helm()
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(example))
    (tmp_path / "infra").symlink_to(CHART.parents[1])
    (commands,) = re.findall(
        r"^```sh\n(.*?)^```", (DOCS / "kubernetes.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "helm").symlink_to(binary)
    run_command(f'PATH="$PWD/bin:$PATH"\n{commands}', tmp_path, {})
    assert "kind: Deployment" in (tmp_path / "rendered.yaml").read_text()
