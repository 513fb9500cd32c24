"""The Helm chart, rendered and checked against the schemas of Kubernetes and the settings of the workers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.grafana_dashboards import DASHBOARDS
from support.validators import INFRA
from worker.contract import redis_keys, settings
from worker.contract.input_size import InputSize

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed: make .venv/.dev")

CHART = INFRA / "helm" / "maskmill"
ALERTS = yaml.safe_load((INFRA / "prometheus" / "alerts.yml").read_text("utf-8"))
OF_OPERATORS = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PrometheusRule"}
PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
PLAIN = {"redis": {"url": "redis://redis:6379/0"}, "s3": {"allow": ["photos", "masks"]}}
FULL = {
    "image": {"digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "worker": {
        "cpus": 16,
        "memory": "32Gi",
        "graceSeconds": 120,
        "settings": {"MASKMILL_LIMITS__MAX_MEGAPIXELS": "50", "MASKMILL_PLAN__PROCESSES": "2"},
    },
    "redis": {
        "url": "rediss://redis.example:6380/2",
        "prefix": "shop:",
        "existingSecret": {"name": "redis", "usernameKey": "username"},
        "caSecret": {"name": "ca"},
    },
    "s3": {
        "endpointUrl": "https://s3.example:9000",
        "region": "eu-central-1",
        "addressingStyle": "path",
        "allow": ["photos", "masks/shop/"],
        "existingSecret": {"name": "s3"},
        "caSecret": {"name": "ca"},
    },
    "model": {"source": "s3://models/birefnet_lite", "name": "birefnet_lite", "size": 1024, "precision": "int8"},
    "networkPolicy": {
        "metricsFrom": [PEER],
        "redisTo": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
        "s3To": [{"ipBlock": {"cidr": "10.0.0.2/32"}}],
        "extraEgress": [{"ports": [{"protocol": "TCP", "port": 443}]}],
    },
    "keda": {"enabled": True, "maxReplicas": 40},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "nodeSelector": {"node.kubernetes.io/instance-type": "metal"},
    "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "batch",
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "photos"},
}
IDENTITY = PLAIN | {
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/masks"}},
    "podDisruptionBudget": {"maxUnavailable": 1},
    "model": {"existingClaim": "models"},
    "keda": {"enabled": True, "minReplicas": 1},
}
BARE = PLAIN | {
    "serviceAccount": {"create": False},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "replicas": 3,
}
SENTINEL = FULL | {
    "redis": {
        "url": "sentinels://one.example:26380,two.example,three.example/mymaster/2",
        "port": 6380,
        "prefix": "shop:",
        "existingSecret": {"name": "redis", "usernameKey": "username", "sentinelPasswordKey": "sentinel-password"},
    }
}
"""Redis behind Sentinels."""

SETS = {"sentinel": SENTINEL, "plain": PLAIN, "full": FULL, "identity": IDENTITY, "bare": BARE}


def rendered(values: dict[str, Any], name: str = "shop") -> dict[str, dict[str, Any]]:
    """Return the rendered objects by kind."""
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values, name=name, namespace="masks")
    texts.pop("maskmill/templates/NOTES.txt")
    objects = [found for text in texts.values() for found in yaml.safe_load_all(text) if found]
    assert len({found["kind"] for found in objects}) == len(objects)
    return {found["kind"]: found for found in objects}


def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return objects["Deployment"]["spec"]["template"]["spec"]


def variables(objects: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod(objects)["containers"][0]["env"]}


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_helm_and_kubernetes_accept_it(values):
    report = helm.lint(CHART, values, strict=True)
    assert not report["errors"] and all(message["severity"] < 2 for message in report["messages"]), report

    objects = rendered(values)
    for kind, found in objects.items():
        if kind not in OF_OPERATORS:
            kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


def test_only_the_requested_objects_are_rendered():
    always = {"Deployment", "Service"}
    optional = {"ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"}

    assert set(rendered(PLAIN)) == always | optional
    assert set(rendered(BARE)) == always
    assert set(rendered(IDENTITY)) == always | optional | {"ScaledObject"}
    assert set(rendered(FULL)) == always | optional | OF_OPERATORS | {"ConfigMap"}


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_pods_have_guaranteed_whole_cores_and_enough_time_to_stop(values):
    objects = rendered(values)
    spec = pod(objects)

    for container in spec["containers"] + spec.get("initContainers", []):
        resources = container["resources"]
        assert resources["requests"] == resources["limits"] and resources["limits"]["cpu"].isdecimal()
    assert spec["terminationGracePeriodSeconds"] > float(variables(objects)["MASKMILL_WORKER__GRACE_SECONDS"])


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_pods_have_only_the_rights_they_need(values):
    spec = pod(rendered(values))
    context = spec["containers"][0]["securityContext"]

    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_workers_can_load_the_rendered_settings(monkeypatch, tmp_path):
    """Secrets are laid out as by the kubelet: links to a link that it replaces atomically."""
    objects = rendered(FULL)
    place = tmp_path / "secrets"
    (place / "..2026_11_24").mkdir(parents=True)
    (place / "..data").symlink_to("..2026_11_24")
    [volume] = [volume for volume in pod(objects)["volumes"] if volume["name"] == "secrets"]
    for item in (item for source in volume["projected"]["sources"] for item in source["secret"]["items"]):
        (place / "..2026_11_24" / item["path"]).write_text(f"value of {item['key']}\n")
        (place / item["path"]).symlink_to(f"..data/{item['path']}")
    for name, value in variables(objects).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASKMILL_SECRETS_DIR", str(place))

    found = settings.load()

    assert found.redis.url == "rediss://redis.example:6380/2" and found.redis.prefix == "shop:"
    assert found.redis.username == "value of username"
    assert found.redis.password.get_secret_value() == "value of password"
    assert found.s3.secret_access_key.get_secret_value() == "value of secret-access-key"
    assert found.s3.allow == ("photos", "masks/shop/")
    assert (
        found.model.size == InputSize.square(1024) and found.plan.processes == 2 and found.limits.max_megapixels == 50
    )
    mounts = {mount["mountPath"] for mount in pod(objects)["containers"][0]["volumeMounts"]}
    assert {str(found.redis.ca_file.parent), str(found.s3.ca_file.parent), "/run/maskmill/secrets"} <= mounts


@pytest.mark.parametrize("values", [PLAIN, IDENTITY], ids=["plain", "identity"])
def test_a_few_settings_are_enough(values, monkeypatch):
    for name, value in variables(rendered(values)).items():
        monkeypatch.setenv(name, value)

    found = settings.load()

    assert found.redis.url == "redis://redis:6379/0" and found.s3.access_key_id is None


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"worker": {"cpus": 1.5}}, "cpus"),
        ({"worker": {"cpu": 2}}, "cpu"),
        ({"worker": {"settings": {"MASKMILL_REDIS__PASSWORD": "x"}}}, "PASSWORD"),
        ({"worker": {"settings": {"MASKMILL_MODLE__SIZE": "512"}}}, "MODLE"),
        ({"redis": {"url": "redis://user:hunter2@redis:6379/0"}}, "url"),
        ({"redis": {"url": ""}}, "url"),
        ({"model": {"size": 500}}, "size"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"keda": {"maxReplicas": 0}}, "maxReplicas"),
    ],
)
def test_invalid_values_are_refused(wrong, named):
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmError, match=named):
        chart.render(PLAIN | wrong, name="shop", namespace="masks")


def test_it_scales_with_queued_and_running_work():
    objects = rendered(FULL)
    spec = objects["ScaledObject"]["spec"]
    keys = {trigger["name"]: trigger["metadata"]["listName"] for trigger in spec["triggers"]}

    assert keys == {
        "express": redis_keys.queue("shop:", redis_keys.EXPRESS_QUEUE),
        "queued": redis_keys.queue("shop:", redis_keys.QUEUE),
        "in_work": redis_keys.unacked("shop:"),
        "jobs": redis_keys.active("shop:"),
    }
    assert set(redis_keys.QUEUES) == {redis_keys.QUEUE, redis_keys.EXPRESS_QUEUE}
    assert set(re.findall(r"[a-z_]+", spec["advanced"]["scalingModifiers"]["formula"])) == set(keys)
    assert {trigger["metadata"]["address"] for trigger in spec["triggers"]} == {"redis.example:6380"}
    assert {trigger["metadata"]["databaseIndex"] for trigger in spec["triggers"]} == {"2"}
    # KEDA requires strings for all values in the metadata of a trigger.
    assert all(isinstance(value, str) for trigger in spec["triggers"] for value in trigger["metadata"].values())
    assert spec["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    assert "replicas" not in objects["Deployment"]["spec"] and "replicas" in rendered(PLAIN)["Deployment"]["spec"]
    given = {entry["parameter"] for entry in objects["TriggerAuthentication"]["spec"]["secretTargetRef"]}
    assert given == {"username", "password", "ca", "tls"}


def test_sentinels_are_asked_by_workers_and_by_keda(monkeypatch):
    objects = rendered(SENTINEL)
    monkeypatch.setenv("MASKMILL_REDIS__URL", variables(objects)["MASKMILL_REDIS__URL"])
    found = settings.load().redis.sentinels()
    [volume] = [volume for volume in pod(objects)["volumes"] if volume["name"] == "secrets"]
    files = {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
    triggers = objects["ScaledObject"]["spec"]["triggers"]
    given = {entry["parameter"] for entry in objects["TriggerAuthentication"]["spec"]["secretTargetRef"]}
    ports = {port["port"] for rule in objects["NetworkPolicy"]["spec"]["egress"] for port in rule["ports"]}

    assert found is not None and found.tls
    assert "MASKMILL_REDIS__SENTINEL_PASSWORD" in files
    for trigger in triggers:
        assert trigger["type"] == "redis-sentinel"
        assert trigger["metadata"]["addresses"] == ",".join(f"{host}:{port}" for host, port in found.hosts)
        assert trigger["metadata"]["sentinelMaster"] == found.primary
        assert trigger["metadata"]["databaseIndex"] == str(found.database) == "2"
        assert trigger["metadata"]["enableTLS"] == "true"
    assert given == {"username", "password", "sentinelPassword"}
    assert {6380, 26379, 26380} <= ports


def test_only_redis_s3_and_dns_can_be_reached():
    spec = rendered(FULL)["NetworkPolicy"]["spec"]

    assert spec["ingress"] == [{"ports": [{"protocol": "TCP", "port": "metrics"}], "from": [PEER]}]
    assert [rule["ports"][0]["port"] for rule in spec["egress"]] == [53, 6380, 9000, 443]
    assert [len(rule.get("to", [])) for rule in spec["egress"]] == [0, 1, 1, 0]
    assert rendered(PLAIN)["NetworkPolicy"]["spec"]["ingress"] == []
    assert [rule["ports"][0]["port"] for rule in rendered(PLAIN)["NetworkPolicy"]["spec"]["egress"]] == [53, 6379, 443]


@pytest.mark.parametrize("name", ["shop", "maskmill", "x" * 53])
def test_selectors_find_the_pods(name):
    objects = rendered(FULL, name)
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]

    for selector in (
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
    ):
        assert selector.items() <= labels.items()
    monitor = objects["ServiceMonitor"]["spec"]
    service = objects["Service"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= service.items()
    # The alerts select the nodes by this name.
    assert f'up{{job="{service[monitor["jobLabel"]]}"}}' in str(ALERTS)
    assert all(len(found["metadata"]["name"]) <= 63 for found in objects.values())


def test_alerts_and_dashboards_equal_those_in_infra():
    objects = rendered(FULL)

    assert objects["PrometheusRule"]["spec"] == ALERTS
    assert objects["ConfigMap"]["data"] == {f"maskmill-{path.name}": path.read_text("utf-8") for path in DASHBOARDS}


def test_templates_name_secrets_but_contain_none():
    text = "".join(path.read_text("utf-8") for path in Path(CHART / "templates").iterdir())

    assert "kind: Secret" not in text and "secretKeyRef" not in text


def test_a_packaged_chart_contains_alerts_and_dashboards(tmp_path):
    """In the repository they are links; an archive must contain the files."""
    with helm.Chart.load(CHART) as chart:
        archive = chart.save(tmp_path)
    with helm.Chart.load(archive) as chart:
        files = {entry["name"] for entry in chart.files}

    assert {"files/alerts.yml"} | {f"files/dashboards/{path.name}" for path in DASHBOARDS} <= files


def test_a_release_names_what_its_workers_may_touch():
    with helm.Chart.load(CHART) as chart, pytest.raises(Exception, match=r"s3\.allow is empty"):
        chart.render({"redis": {"url": "redis://redis:6379/0"}}, name="shop", namespace="masks")

    given = variables(rendered(PLAIN | {"s3": {"allow": ["*"]}}))
    assert "MASKMILL_S3__ALLOW" not in given
    assert variables(rendered(PLAIN))["MASKMILL_S3__ALLOW"] == '["photos","masks"]'
