"""The fields of KubeRay's v1 API, and whether a manifest has others.

From the field reference of KubeRay v1.6.2, docs/reference/api.md in ray-project/kuberay at commit
0a9eabde561ab59ab4bbe626072c359da9214484 (also docs.ray.io, "KubeRay CRD API reference"); those of
pods from the reference of Kubernetes v1.28, to which that page links.
"""

from __future__ import annotations

from typing import Any

STRINGS = "strings"  # a mapping of strings to strings
ANY = "any"
# Type -> field -> the type that is in it, a set of permitted values, or ANY. [T]: a list of T.
FIELDS: dict[str, dict[str, Any]] = {
    "RayCluster": {
        "apiVersion": {"ray.io/v1"},
        "kind": ANY,
        "metadata": ANY,
        "spec": "ClusterSpec",
    },
    "RayJob": {"apiVersion": {"ray.io/v1"}, "kind": ANY, "metadata": ANY, "spec": "RayJobSpec"},
    "ClusterSpec": {
        "upgradeStrategy": ANY,
        "authOptions": "AuthOptions",
        "suspend": ANY,
        "managedBy": ANY,
        "autoscalerOptions": "AutoscalerOptions",
        "headServiceAnnotations": STRINGS,
        "enableInTreeAutoscaling": {True, False},
        "gcsFaultToleranceOptions": ANY,
        "headGroupSpec": "HeadGroupSpec",
        "rayVersion": ANY,
        "workerGroupSpecs": ["WorkerGroupSpec"],
    },
    "AuthOptions": {
        "enableK8sTokenAuth": {True, False},
        "secretName": ANY,
        "mode": {"disabled", "token"},
    },
    "AutoscalerOptions": {
        "resources": ANY,
        "image": ANY,
        "imagePullPolicy": ANY,
        "securityContext": ANY,
        "idleTimeoutSeconds": ANY,
        "upscalingMode": {"Default", "Aggressive", "Conservative"},
        "version": {"v1", "v2"},
        "env": ANY,
        "envFrom": ANY,
        "volumeMounts": ANY,
    },
    "HeadGroupSpec": {
        "template": "PodTemplate",
        "headService": ANY,
        "enableIngress": ANY,
        "resources": STRINGS,
        "labels": STRINGS,
        "rayStartParams": STRINGS,
        "serviceType": {"ClusterIP", "NodePort", "LoadBalancer"},
    },
    "WorkerGroupSpec": {
        "suspend": ANY,
        "groupName": ANY,
        "replicas": ANY,
        "minReplicas": ANY,
        "maxReplicas": ANY,
        "idleTimeoutSeconds": ANY,
        "resources": STRINGS,
        "labels": STRINGS,
        "rayStartParams": STRINGS,
        "template": "PodTemplate",
        "scaleStrategy": ANY,
        "numOfHosts": ANY,
    },
    "RayJobSpec": {
        "activeDeadlineSeconds": ANY,
        "backoffLimit": ANY,
        "rayClusterSpec": "ClusterSpec",
        "submitterPodTemplate": "PodTemplate",
        "metadata": STRINGS,
        "clusterSelector": STRINGS,
        "submitterConfig": ANY,
        "managedBy": ANY,
        "deletionStrategy": ANY,
        "entrypoint": ANY,
        "runtimeEnvYAML": ANY,
        "jobId": ANY,
        "submissionMode": {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"},
        "entrypointResources": ANY,
        "entrypointNumCpus": ANY,
        "entrypointNumGpus": ANY,
        "ttlSecondsAfterFinished": ANY,
        "preRunningDeadlineSeconds": ANY,
        "shutdownAfterJobFinishes": {True, False},
        "suspend": ANY,
    },
    "PodTemplate": {"metadata": ANY, "spec": "PodSpec"},
    "PodSpec": {  # those of Kubernetes that a training pod may want
        "affinity": ANY,
        "containers": ["Container"],
        "nodeSelector": STRINGS,
        "restartPolicy": ANY,
        "serviceAccountName": ANY,
        "terminationGracePeriodSeconds": ANY,
        "tolerations": ["Toleration"],
        "volumes": ["Volume"],
    },
    "Container": {
        "name": ANY,
        "image": ANY,
        "env": ANY,
        "envFrom": ANY,
        "ports": ANY,
        "resources": "Resources",
        "volumeMounts": ANY,
    },
    "Resources": {"limits": STRINGS, "requests": STRINGS},
    "Toleration": dict.fromkeys(("key", "operator", "value", "effect", "tolerationSeconds"), ANY),
    "Volume": {"name": ANY, "persistentVolumeClaim": ANY, "emptyDir": ANY},
}


def wrong_fields(value: Any, kind: Any, where: str) -> list[str]:
    """What in `value`, which should be a `kind` of FIELDS, the API would not take."""
    if kind == ANY:
        return []
    if isinstance(kind, set):
        return [] if value in kind else [f"{where} is {value!r}"]
    if isinstance(kind, list):
        each = (wrong_fields(item, kind[0], f"{where}[{i}]") for i, item in enumerate(value))
        return [line for lines in each for line in lines]
    if not isinstance(value, dict):
        return [f"{where} is no mapping"]
    if kind == STRINGS:
        return [f"{where}.{k} is no string" for k, v in value.items() if not isinstance(v, str)]
    known = FIELDS[kind]
    wrong = [f"{where}.{name} is no field of {kind}" for name in value if name not in known]
    for name in value.keys() & known.keys():
        wrong += wrong_fields(value[name], known[name], f"{where}.{name}")
    return wrong
