"""The `etcd` executable: from the command line to a running member.

Exit codes are etcd's: 2 for a mistake in the flags, 1 for settings that make no sense or a start that fails.
The order of what is logged is etcd's as well: what the settings themselves give rise to, then `Running: `,
then the start. Heavy imports (YAML, the server) happen only on the paths that need them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from pyetcd import logs
from pyetcd.cli.etcd.assemble import from_settings, with_defaults
from pyetcd.cli.etcd.flags import (
    SECRETS,
    FlagError,
    HelpWanted,
    Settings,
    UrlKeyError,
    VariableError,
    VariableShadowed,
    add_environment,
    parse_arguments,
)
from pyetcd.cli.etcd.log_setup import set_up_logs
from pyetcd.cli.etcd.no_effect import warn_of_no_effect
from pyetcd.cli.etcd.rotation_config import rotation_of
from pyetcd.member.config import ServerConfig
from pyetcd.member.config_check import ConfigError, UnsetAdvertiseClientUrls, check_start, validate

_DEPRECATED = {
    "max-snapshots": "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
    "v2-deprecation": "--v2-deprecation is deprecated and scheduled for removal in v3.8. "
    "The default value is enforced, ignoring user input.",
}

_log = logs.get("etcdmain")


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run `etcd` with these arguments (the program's name first) until it ends; returns the exit code."""
    argv = list(sys.argv if arguments is None else arguments)
    variables = os.environ if environment is None else environment
    if len(argv) > 1 and argv[1] in ("gateway", "grpc-proxy"):
        from pyetcd.cli.etcd.proxies import main as proxy_main

        return proxy_main(argv)
    try:
        settings = parse_arguments(argv[1:])
    except HelpWanted:
        return _print_help()
    except FlagError as error:
        from pyetcd.cli.etcd.help import USAGE

        print(f"{error}\n{USAGE}", file=sys.stderr)
        return 2
    if settings.values.get("version") and not settings.rest:
        return _print_version()
    config = _configured(settings, argv, variables)
    if isinstance(config, int):
        logs.flush()
        return config
    return _run(config)


def _print_help() -> int:
    from pyetcd.cli.etcd.help import USAGE, flags_text

    print(USAGE, file=sys.stderr, flush=True)
    print(flags_text())
    return 0


def _print_version() -> int:
    from importlib.metadata import PackageNotFoundError, version

    from pyetcd.cli.etcd.help import version_text

    try:
        own = version("pyetcd")
    except PackageNotFoundError:  # run from a source tree
        own = "from source"
    sys.stdout.write(version_text(f"none (pyetcd {own})"))
    return 0


def _configured(settings: Settings, argv: Sequence[str], variables: Mapping[str, str]) -> ServerConfig | int:
    """The checked configuration, logs set up; or the exit code if there is none."""
    config: ServerConfig | None = None
    failure: Exception | None = None
    path = ""
    try:
        if settings.rest:
            raise ConfigError(f"{logs.quote(settings.rest[0])} is not a valid flag")
        path = str(settings.values.get("config-file", "") or variables.get("ETCD_CONFIG_FILE", ""))
        if path:
            config = _from_file(path)
        else:
            add_environment(settings, variables)
            config = from_settings(settings)
        set_up_logs(config.logging)
        if config.audit.path:
            rotation_of(config.audit.rotation_json)
        validate(config)
    except VariableShadowed as error:
        _log.fatal(str(error), {"environment-variable": error.variable})
        return 1
    except UrlKeyError as error:
        print(error, file=sys.stderr)
        return 1
    except (ConfigError, VariableError) as error:
        failure = error
    if path and config is not None:
        _log.info(
            "loaded server configuration, other configuration command line flags and environment variables "
            "will be ignored if provided",
            {"path": path},
        )
    for name, text in _DEPRECATED.items():
        if config is not None and name in config.explicit:
            _log.warn(text)
    _log.info("Running: ", {"args": _without_secrets(argv)})
    if failure is not None or config is None:
        _log.warn("failed to verify flags", {"error": failure})
        if isinstance(failure, UnsetAdvertiseClientUrls):
            _log.warn("advertise client URLs are not set", {"error": failure})
        return 1
    warn_of_no_effect(config)
    return config


def _from_file(path: str) -> ServerConfig:
    from pyetcd.cli.etcd.config_file import parse_file
    from pyetcd.storage.files import OsFiles

    try:
        data = OsFiles().read(path)
    except OSError as error:
        raise ConfigError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    return parse_file(data)


def _without_secrets(argv: Sequence[str]) -> list[str]:
    shown: list[str] = []
    hide_next = False
    for argument in argv:
        name, equals, _ = argument.lstrip("-").partition("=")
        secret = argument.startswith("-") and name in SECRETS
        shown.append(
            "***"
            if hide_next
            else argument[: argument.index("=") + 1] + "***"
            if secret and equals
            else argument
        )
        hide_next = secret and not equals
    return shown


def _run(config: ServerConfig) -> int:
    import signal

    # Until the member is there to be stopped, SIGINT just ends the process, as SIGTERM does: without this it
    # would be met by Python's traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    from pyetcd.cli.etcd.data_dir import DataDirError, look_at_data_dir
    from pyetcd.cli.etcd.default_host import default_host
    from pyetcd.cli.etcd.host import OwnProcess
    from pyetcd.cli.etcd.run import run
    from pyetcd.loop import run as run_loop
    from pyetcd.storage.files import OsFiles

    host, why_not = default_host()
    config = with_defaults(config, host)
    if why_not:
        _log.info("failed to detect default host", {"error": why_not})
    try:
        look_at_data_dir(OsFiles(), config.data_dir)
        check_start(config)
        code = run_loop(run(config, OwnProcess()))
    except DataDirError as error:
        _log.fatal(error.message, error.fields)
        return 1
    except ConfigError as error:
        _log.fatal("discovery failed", {"error": error})
        return 1
    finally:
        logs.flush()
    return code if code >= 0 else _die_of(-code)


def _die_of(number: int) -> int:
    """Everything is closed: end by the signal that asked for it, as etcd does, so that a parent sees which.
    The first process of a container cannot be ended by its own signal; it exits with 0."""
    import os
    import signal

    if os.getpid() != 1:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return 0
