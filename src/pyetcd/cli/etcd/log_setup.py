"""From `--log-*` settings to the outputs of the process. Refusals in etcd's words."""

from __future__ import annotations

from typing import Final

from pyetcd import logs
from pyetcd.cli.etcd.rotation_config import rotation_of
from pyetcd.logs.files import File, Rotation
from pyetcd.logs.journal import SOCKET, Journal
from pyetcd.logs.sinks import Sink, Writer
from pyetcd.member.config import LogConfig
from pyetcd.member.config_check import ConfigError

JOURNAL: Final = "systemd/journal"
# What zap knows beyond our levels: both silence errors and leave only the last words.
_ONE_FILE: Final = "--log-outputs requires a single file path when --log-rotate-config-json is defined"


def set_up_logs(config: LogConfig) -> None:
    """Open the outputs and switch the process to them. ConfigError for a mistake or an output that cannot be
    opened.
    """
    if config.logger == "capnslog":
        raise ConfigError("--logger=capnslog is removed in v3.5")
    if config.logger != "zap":
        raise ConfigError(f"unknown logger option {logs.quote(config.logger)}")
    outputs = config.outputs or ("default",)
    if len(outputs) > 1 and "default" in outputs:
        raise ConfigError('multi logoutput for "default" is not supported yet')
    rotation = _rotation(config, outputs) if config.rotation else None
    level = logs.level_named(config.level or "info")
    if level is None:
        raise ConfigError(f"unrecognized level: {logs.quote(config.level)}")
    log_format = config.format or "json"
    if log_format not in logs.FORMATS:
        raise ConfigError(f"unknown log format: {log_format}, supported values json, console")
    logs.setup(level, log_format, _sinks(outputs, rotation))


def _sinks(outputs: tuple[str, ...], rotation: Rotation | None) -> list[Sink]:
    if JOURNAL in outputs:
        if len(outputs) > 1:
            given = "[" + " ".join(logs.quote(output) for output in outputs) + "]"
            raise ConfigError(
                "running with systemd/journal but other '--log-outputs' values "
                f"({given}) are configured with 'default'; override 'default' value with something else"
            )
        try:
            return [Journal(Writer(2))]
        except OSError as error:
            why = f"dial unixgram {SOCKET}: connect: {_reason(error)}"
            raise ConfigError(f"can't find journal ({why})") from None
    if "/dev/null" in outputs:
        return []
    sinks: list[Sink] = []
    for output in sorted(set(outputs)):
        if output in ("default", "stderr"):
            if not any(isinstance(sink, Writer) and sink.fd == 2 for sink in sinks):
                sinks.append(Writer(2))
        elif output == "stdout":
            sinks.append(Writer(1))
        else:
            path = output.removeprefix("file://")
            try:
                sinks.append(File(path, rotation))
            except OSError as error:
                raise ConfigError(f"open sink {logs.quote(output)}: {_reason(error)}") from None
    return sinks


def _reason(error: OSError) -> str:
    text = (error.strerror or str(error)).lower()
    return f"open {error.filename}: {text}" if error.filename else text


def _rotation(config: LogConfig, outputs: tuple[str, ...]) -> Rotation:
    files = [output for output in outputs if output not in ("default", "stderr", "stdout")]
    if len(files) > 1 or (len(outputs) == 1 and not files):
        raise ConfigError(_ONE_FILE)
    return rotation_of(config.rotation_json)
