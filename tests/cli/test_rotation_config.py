"""Log rotation's settings: each text here is what etcd 3.7.1 says of the same JSON."""

from __future__ import annotations

import pytest

from pyetcd.cli.etcd.rotation_config import rotation_of
from pyetcd.logs.files import Rotation
from pyetcd.member.config import DEFAULT_LOG_ROTATION
from pyetcd.member.config_check import ConfigError

DEFAULT = Rotation(max_megabytes=100, max_age_days=0, max_backups=0, local_time=False, compress=False)


@pytest.mark.parametrize("text", [DEFAULT_LOG_ROTATION, "{}", "null", '{"maxsize":null}', '{"other":[1,2]}'])
def test_what_is_not_given_has_its_default(text: str) -> None:
    assert rotation_of(text) == DEFAULT


def test_keys_may_be_in_any_case() -> None:
    given = '{"MaxSize":5,"MAXAGE":6,"maxBackups":7,"localTime":true,"compress":true}'
    expected = Rotation(max_megabytes=5, max_age_days=6, max_backups=7, local_time=True, compress=True)
    assert rotation_of(given) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ('{"maxsize', "unexpected end of JSON input"),
        ('{"MaxSize":5} x', "invalid character 'x' after top-level value"),
        ('{"maxsize" 5}', "invalid character '5' after object key"),
        ('{"maxsize":}', "invalid character '}' looking for beginning of value"),
        ('{"maxsize":NaN}', "invalid character 'N' looking for beginning of value"),
        ('{"maxsize":5 "x":1}', "invalid character '\"' after object key:value pair"),
        ("{maxsize:5}", "invalid character 'm' looking for beginning of object key string"),
        ("'{}'", "invalid character '\\'' looking for beginning of value"),
    ],
)
def test_what_is_no_json_is_refused_in_gos_words(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        rotation_of(text)
    assert str(refused.value) == f"improperly formatted log rotation config: {why}"


@pytest.mark.parametrize(
    ("text", "what", "into"),
    [
        ("[]", "array", "value of type embed.logRotationConfig"),
        ("5", "number", "value of type embed.logRotationConfig"),
        ('{"maxsize":"x"}', "string", "struct field logRotationConfig.Logger.maxsize of type int"),
        ('{"maxsize":1.5}', "number 1.5", "struct field logRotationConfig.Logger.maxsize of type int"),
        ('{"maxsize":1e2}', "number 1e2", "struct field logRotationConfig.Logger.maxsize of type int"),
        ('{"MAXSIZE":{}}', "object", "struct field logRotationConfig.Logger.maxsize of type int"),
        ('{"maxbackups":true}', "bool", "struct field logRotationConfig.Logger.maxbackups of type int"),
        (
            '{"maxage":99999999999999999999}',
            "number 99999999999999999999",
            "struct field logRotationConfig.Logger.maxage of type int",
        ),
        ('{"localtime":"yes"}', "string", "struct field logRotationConfig.Logger.localtime of type bool"),
        ('{"compress":1}', "number", "struct field logRotationConfig.Logger.compress of type bool"),
        ('{"filename":5}', "number", "struct field logRotationConfig.Logger.filename of type string"),
    ],
)
def test_what_does_not_fit_is_refused_in_gos_words(text: str, what: str, into: str) -> None:
    with pytest.raises(ConfigError) as refused:
        rotation_of(text)
    assert str(refused.value) == f"invalid log rotation config: json: cannot unmarshal {what} into Go {into}"
