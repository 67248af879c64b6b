"""`get --decode k8s`: envelopes made by hand, field by field, and hostile ones.

That the tables are right was tried with the objects in the testdata of k8s.io/api 0.36.2, which have every
field set: all kinds of the tables are decoded to what is in the JSON file beside each.
"""

from __future__ import annotations

import json
import struct
import time
from base64 import b64encode

import pytest
import yaml
from ctl_runner import Etcdctl
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.cli.etcdctl import kubernetes
from pyetcd.cli.etcdctl.kubernetes import NoObject, decode
from pyetcd.cli.etcdctl.kubernetes_tables import KINDS, MESSAGES
from pyetcd.cli.etcdctl.output_json import dumps
from pyetcd.cli.etcdctl.output_yaml import document


def varint(n: int) -> bytes:
    n &= 2**64 - 1
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def message(*fields: tuple[int, int | str | bytes | float]) -> bytes:
    """Fields in order: integers as varints, floats as doubles, the rest by length."""
    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 1) + struct.pack("<d", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def enveloped(api_version: str, kind: str, *fields: tuple[int, int | str | bytes]) -> bytes:
    """As an API server writes it: the last two are always there, though empty."""
    type_meta = message((1, api_version), (2, kind))
    return b"k8s\0" + message((1, type_meta), (2, message(*fields)), (3, ""), (4, ""))


def entry(key: str, value: str | bytes) -> bytes:
    return message((1, key), (2, value))


METADATA = message(
    (1, "web"),
    (2, ""),  # zeros are written, too
    (3, "default"),
    (4, ""),
    (5, "3f0c8a52"),
    (6, ""),
    (7, 0),
    (8, message((1, 1700000000), (2, 0))),
    (11, entry("app", "web")),
    (11, entry("tier", "")),
    (17, message((1, "kubectl"), (4, message((1, 1700000001))), (7, message((1, '{"f:data":{}}'))))),
)
SHOWN_METADATA = {
    "name": "web",
    "namespace": "default",
    "uid": "3f0c8a52",
    "creationTimestamp": "2023-11-14T22:13:20Z",
    "labels": {"app": "web", "tier": ""},
    "managedFields": [
        {"manager": "kubectl", "time": "2023-11-14T22:13:21Z", "fieldsV1": {"f:data": {}}},
    ],
}


def test_a_config_map_is_shown_as_kubectl_shows_it() -> None:
    value = enveloped("v1", "ConfigMap", (1, METADATA), (2, entry("a", "1\n2\n")), (4, 1))
    assert decode(value) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": SHOWN_METADATA,
        "data": {"a": "1\n2\n"},
        "immutable": True,
    }


def test_a_pods_parts_are_where_kubernetes_has_them() -> None:
    """A volume's source and a probe's handler are messages of their own that JSON does not show as such."""
    probe = message(
        (1, message((2, message((1, "/ok"), (2, message((1, 0), (2, 8080), (3, ""))), (4, "HTTP"))))),
        (2, 5),
    )
    container = message(
        (1, "main"),
        (2, "nginx"),
        (8, message((1, entry("cpu", message((1, "100m")))))),
        (10, probe),
    )
    volume = message((1, "settings"), (2, message((19, message((1, message((1, "web")))))))
    )
    spec = message((1, volume), (2, container), (4, -1), (14, message((8, 2000), (4, 1000), (4, 1001))))
    status = message((1, "Running"), (7, message((1, 1700000000))))
    shown = decode(enveloped("v1", "Pod", (1, METADATA), (2, spec), (3, status)))
    assert shown["spec"] == {
        "volumes": [{"name": "settings", "configMap": {"name": "web"}}],
        "containers": [
            {
                "name": "main",
                "image": "nginx",
                "resources": {"limits": {"cpu": "100m"}},
                "livenessProbe": {
                    "httpGet": {"path": "/ok", "port": 8080, "scheme": "HTTP"},
                    "initialDelaySeconds": 5,
                },
            }
        ],
        "terminationGracePeriodSeconds": -1,
        "securityContext": {"8": 2000, "supplementalGroups": [1000, 1001]},
    }
    assert shown["status"] == {"phase": "Running", "startTime": "2023-11-14T22:13:20Z"}


def test_special_kinds_have_the_form_they_have_in_json() -> None:
    spec = message((1, "me"), (2, 15), (3, message((1, -1), (2, 120000))), (4, message((1, 5), (2, 1))))
    lease = decode(enveloped("coordination.k8s.io/v1", "Lease", (2, spec)))
    assert lease["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "1969-12-31T23:59:59.000120Z",
        "renewTime": "1970-01-01T00:00:05.000000001Z",
    }
    secret = decode(enveloped("v1", "Secret", (2, entry("k", b"\xff\0")), (3, "Opaque")))
    assert dumps(secret) == '{"apiVersion":"v1","kind":"Secret","data":{"k":"/wA="},"type":"Opaque"}'
    schema = message(
        (5, "object"),
        (9, 2.5),
        (11, -4.0),
        (8, message((1, '{"a": 1.50}'))),
        (24, message((1, message((5, "string"))))),
        (30, message((1, 0))),
        (29, entry("x", message((33, message((1, 1), (2, message((5, "string")))))))),
    )
    version = message((1, "v1"), (2, 1), (4, message((1, schema))))
    definition = decode(
        enveloped("apiextensions.k8s.io/v1", "CustomResourceDefinition", (2, message((7, version))))
    )
    assert dumps(definition["spec"]) == (
        '{"versions":[{"name":"v1","served":true,"schema":{"openAPIV3Schema":{"type":"object",'
        '"maximum":2.5,"minimum":-4,"default":{"a":1.50},"items":{"type":"string"},'
        '"additionalProperties":false,"properties":{"x":{"additionalItems":{"type":"string"}}}}}}]}'
    )


def test_of_a_kind_that_is_not_known_the_metadata_is() -> None:
    value = enveloped(
        "example.io/v1alpha1",
        "Widget",
        (1, METADATA),
        (2, message((1, "text"), (2, 7), (3, b"\xff\xfe"), (5, ""), (4, message((1, 5))), (7, 1), (7, 2))),
        (9, 2.0),
    )
    assert json.loads(dumps(decode(value))) == {
        "apiVersion": "example.io/v1alpha1",
        "kind": "Widget",
        "metadata": SHOWN_METADATA,
        "2": {
            "1": "text",
            "2": 7,
            "3": {"base64": "//4="},
            "5": "",
            "4": {"1": 5},
            "7": [1, 2],
        },
        "9": {"fixed64": 0x4000000000000000},
    }


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ((2, 5), {"2": 5}),  # a message was to be there
        ((2, b"\xff"), {"2": {"base64": b"\xff"}}),
        ((4, 7), {"4": 7}),  # no truth value
        ((99, "new"), {"99": "new"}),
        ((2, message((1, "k"), (2, "v"), (3, "more"))), {"2": {"1": "k", "2": "v", "3": "more"}}),
        ((1, message((8, message((1, 10**15))))), {"metadata": {"8": {"1": 10**15}}}),
        ((1, message((1, b"\xff"))), {"metadata": {"1": {"base64": b"\xff"}}}),
        ((1, message((1, "a"), (1, "b"))), {"metadata": {"name": "a", "1": "b"}}),
        (
            (1, message((17, message((7, message((1, "no json"))))))),
            {"metadata": {"managedFields": [{"7": {"1": "no json"}}]}},
        ),
    ],
)
def test_what_is_not_as_it_should_be_is_shown_by_its_number(
    field: tuple[int, int | str | bytes], shown: dict[str, object]
) -> None:
    assert decode(enveloped("v1", "ConfigMap", field)) == {"apiVersion": "v1", "kind": "ConfigMap", **shown}


def test_an_envelope_with_another_content_is_left_as_it_is() -> None:
    value = b"k8s\0" + message((1, message((1, "v1"), (2, "Pod"))), (2, b"\1"), (3, "gzip"), (4, ""), (8, 1))
    assert decode(value) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "envelope": {"8": 1},
        "contentEncoding": "gzip",
        "contentType": "",
        "raw": b"\1",
    }


def test_custom_resources_are_json() -> None:
    value = b'{"apiVersion":"example.io/v1","kind":"Widget","spec":{"ratio":1.50,"big":1e400,"n":1234567890}}'
    assert dumps(decode(value)).encode() == value


def test_an_encrypted_value_is_called_so() -> None:
    data = b"\x01\x02:\x03"
    assert decode(b"k8s:enc:kms:v2:vault:" + data) == {
        "encrypted": {"provider": "kms", "version": "v2", "key": "vault", "data": data}
    }


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "not an object of Kubernetes"),
        (b"12345", "not an object of Kubernetes"),
        (b'{"a":1}', "not an object of Kubernetes"),
        (b'{"kind":1,"apiVersion":1}', "not an object of Kubernetes"),
        (b'{"kind":"A","apiVersion":NaN}', "neither an object of Kubernetes nor JSON"),
        (b'{"kind"', "neither an object of Kubernetes nor JSON"),
        (b"{" + b'"a":{' * 100_000, "neither an object of Kubernetes nor JSON"),
        (b'{"kind":"A","apiVersion":' + b"[" * 200 + b"]" * 200 + b"}", "nested too deep"),
        (b"k8s:enc:aescbc:", "encrypted, but not as Kubernetes does it"),
        (b"k8s\0\x0a\xff", "damaged: cut off inside a varint"),
        (b"k8s\0\x12\x05a", "damaged: cut off inside a field"),
        (b"k8s\0" + message((0, 1)), "damaged: field 0"),
        (b"k8s\0" + message((2, b"\x0f")), "damaged: wire type 7"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_object_is_refused_with_a_reason(value: bytes, why: str) -> None:
    with pytest.raises(NoObject, match=f"^{why}$"):
        decode(value)


def test_an_empty_envelope_is_an_object_without_anything() -> None:
    assert decode(b"k8s\0") == {}


def test_every_kind_in_the_tables_is_one_that_the_decoder_knows() -> None:
    fields = [field.split(" ") for table in MESSAGES.values() if table for field in table.split("|")]
    kinds = {kind.lstrip("-~*%") for _, _, kind in fields} - set(MESSAGES)
    assert kinds == set(kubernetes.CONVERTED)
    assert set(KINDS.values()) <= set(MESSAGES)
    assert all(MESSAGES[name].startswith("1 metadata ") for name in KINDS.values())


def test_values_nested_without_end_are_shown_as_far_as_they_are_looked_into() -> None:
    value = b""
    for _ in range(5_000):
        value = message((1, value), (3, 7))
    shown = decode(enveloped("example.io/v1", "Widget", (2, value)))
    assert len(document(shown)) > len(value) / 2
    assert json.loads(dumps(shown))["2"]["3"] == 7


@pytest.mark.parametrize("kind", ["Widget", "CustomResourceDefinition"])
def test_hostile_nesting_costs_no_more_than_its_size(kind: str) -> None:
    """Each level is a map's entry that turns out at its end to be none, and is shown as something else."""
    value = message((5, "x" * 1000))
    for _ in range(90):
        value = message((29, message((1, "k"), (2, value), (3, "unfit"))), (29, entry("k", b"\1")))
    schema = message((7, message((4, message((1, value))))))
    began = time.monotonic()
    decode(enveloped("apiextensions.k8s.io/v1", kind, (2, schema)))
    assert time.monotonic() - began < 5


FIELDS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(max_size=40)),
    max_size=12,
)
KNOWN = sorted(kind.split(" ") for kind in KINDS)


@given(st.sampled_from([*KNOWN, ["example.io/v1", "Widget"]]), FIELDS, FIELDS, st.data())
def test_whatever_is_in_an_envelope_it_is_shown_or_refused_by_name(
    kind: list[str],
    outer: list[tuple[int, int | str | bytes]],
    inner: list[tuple[int, int | str | bytes]],
    data: st.DataObject,
) -> None:
    value = enveloped(kind[0], kind[1], *outer, (2, message(*inner)), (2, message((1, message(*inner)))))
    changed = bytearray(value)
    for at in data.draw(st.lists(st.integers(4, len(value) - 1), max_size=3)):
        changed[at] = data.draw(st.integers(0, 255))
    for one in (value, bytes(changed)):
        try:
            shown = decode(one)
        except NoObject:
            assert one != value
            continue
        json.loads(dumps(shown))
        assert yaml.safe_load(document(shown)) is not None


@given(FIELDS)
def test_nothing_of_an_unknown_message_is_lost(fields: list[tuple[int, int | str | bytes]]) -> None:
    """From what is shown, the fields can be written again, those of each number in their order."""
    shown = decode(enveloped("example.io/v1", "Widget", (2, message(*fields))))["2"]

    def again(value: object) -> bytes:
        if isinstance(value, str):
            return value.encode()
        assert isinstance(value, dict)
        if "base64" in value:
            return bytes(value["base64"])
        parts = []
        for number, item in value.items():
            for one in item if isinstance(item, list) else [item]:
                if isinstance(one, dict) and ("fixed64" in one or "fixed32" in one):
                    size = 8 if "fixed64" in one else 4
                    (bits,) = one.values()
                    tag = varint(int(number) << 3 | (1 if size == 8 else 5))
                    parts.append(tag + bits.to_bytes(size, "little"))
                else:
                    parts.append(message((int(number), one if isinstance(one, int) else again(one))))
        return b"".join(parts)

    assert sorted(again(shown)) == sorted(message(*fields)), "the same bytes, if in another order"


POD = enveloped("v1", "Pod", (1, METADATA))


def test_a_get_shows_objects_in_each_format_that_can(ctl: Etcdctl) -> None:
    ctl("put", "/registry/a", stdin=POD)
    ctl("put", "/registry/b", "plain")
    ran = ctl("get", "/registry/", "--prefix", "--decode", "k8s")
    assert ran.text.startswith("# /registry/a\napiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n")
    assert ran.text.endswith("---\n# /registry/b\n# not an object of Kubernetes\nplain\n")
    pod, plain = yaml.safe_load_all(ran.out)
    assert pod["metadata"]["labels"] == {"app": "web", "tier": ""}
    assert plain == "plain"
    for form, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        answer = load(ctl("get", "/registry/", "--prefix", "--decode=k8s", "-w", form).out)
        assert [kv["key"] for kv in answer["kvs"]] == ["L3JlZ2lzdHJ5L2E=", "L3JlZ2lzdHJ5L2I="]
        assert answer["kvs"][0]["value"]["metadata"]["name"] == "web"
        assert answer["kvs"][1]["value"] == b64encode(b"plain").decode()
        assert answer["count"] == 2
    values = ctl("get", "/registry/a", "--decode=k8s", "--print-value-only").text
    assert values.startswith("apiVersion: v1\n")
    assert ctl("get", "/registry/a", "--decode=k8s", "--hex").text.startswith("# \\x2f\\x72")
    assert ctl("get", "nothing", "--decode=k8s").text == ""


def test_keys_and_values_that_are_no_text_are_written_so_that_they_are(ctl: Etcdctl) -> None:
    ctl("put", "a\nkind: Pod", stdin=b"\xff\x1b[31m")
    ran = ctl("get", "a", "--prefix", "--decode=k8s")
    assert ran.text == '# "a\\nkind: Pod"\n# not an object of Kubernetes\nbase64: /xtbMzFt\n'


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--decode=xml"], 4, 'unknown decoding "xml", there is k8s'),
        (["--decode=k8s", "-w", "fields"], 4, "--decode is only for `--write-out=simple`, json and yaml"),
        (["--decode=k8s", "-w", "table"], 4, "--decode is only for `--write-out=simple`, json and yaml"),
    ],
)
def test_what_cannot_be_decoded_so_is_told(
    ctl: Etcdctl, arguments: list[str], code: int, error: str
) -> None:
    ran = ctl("get", "a", *arguments)
    assert (ran.code, ran.err.decode()) == (code, f"Error: {error}\n")
