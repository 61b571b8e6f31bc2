"""Settings: which source wins, the origin of each value, and that output hides secrets."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.channels.factory import email_advice
from engine.errors import InvalidSource, WrongCall
from engine.settings import LoadedSettings, Settings, load_settings
from engine.settings.model import SMTP_EXTENSIONS, Email, Web

CONF = Path(__file__).parents[3] / "conf" / "settings.yaml"

FILE = """\
environments:
  default:
    services: {mongo_database: one}
    engine: {lease: 30s, tick: 1s}
  production:
    services: {mongo_database: two}
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TIDEGATE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(FILE, encoding="utf-8")
    return path


def _sources(loaded: LoadedSettings) -> dict[str, tuple[str, str]]:
    return {origin.key: (origin.value, origin.source) for origin in loaded.origins()}


def _refusal(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidSource) as refused:
        load_settings(path)
    return [str(fault).removeprefix(f"{path}:") for fault in refused.value.faults]


def test_the_shipped_file_is_valid_in_every_environment() -> None:
    assert load_settings(CONF).settings.email.transport == "maildir"
    assert load_settings(CONF, environment="production").settings.email.transport == "smtp"


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_settings()
    assert loaded.settings == Settings()
    assert {source for _, source in _sources(loaded).values()} == {"default"}


def test_an_environment_overrides_the_default_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(file).settings.services.mongo_database == "one"
    monkeypatch.setenv("TIDEGATE_ENV", "production")
    loaded = load_settings(file)
    assert loaded.environment == "production"
    assert loaded.settings.services.mongo_database == "two"
    assert loaded.settings.engine.lease == timedelta(seconds=30)


def test_a_flag_wins_over_a_variable_and_that_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_ENGINE__LEASE", "3s")
    monkeypatch.setenv("TIDEGATE_ENGINE__TICK", "2s")
    loaded = load_settings(file, flags={"engine.tick": "5s", "engine.ring_again": None})
    sources = _sources(loaded)
    assert sources["engine.lease"] == ("3s", "environment TIDEGATE_ENGINE__LEASE")
    assert sources["engine.tick"] == ("5s", "--set engine.tick")
    assert sources["engine.ring_again"] == ("20s", "default")
    assert sources["services.mongo_database"] == ("one", f"{file}:3:32")


def test_variables_are_read_as_the_types_of_their_keys(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_LOGS__KEEP", "3")
    monkeypatch.setenv("TIDEGATE_LOGS__STDOUT", "False")
    monkeypatch.setenv("TIDEGATE_EMAIL__PASSWORD", "123456")
    monkeypatch.setenv("TIDEGATE_PATHS__VAR", "/srv/var")
    settings = load_settings(file).settings
    assert (settings.logs.keep, settings.logs.stdout) == (3, False)
    assert settings.email.password.get_secret_value() == "123456"
    assert (settings.log_folder, settings.maildir) == (Path("/srv/var/logs"), Path("/srv/var/maildir"))


def test_an_empty_variable_counts_as_unset(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SERVICES__ELASTIC_URL", "")
    assert load_settings(file).settings.services.elastic_url is None


def test_secrets_are_never_shown(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SERVICES__MONGO_URL", "mongodb://me:hush1@db.example:27017/x?tlsPassword=hush2")
    monkeypatch.setenv("TIDEGATE_SERVICES__BROKER_URL", "rediss://:hush3@broker.example:6379/0")
    monkeypatch.setenv("TIDEGATE_SERVICES__ELASTIC_API_KEY", "hush4")
    monkeypatch.setenv("TIDEGATE_EMAIL__PASSWORD", "hush5")
    loaded = load_settings(file)
    shown = _sources(loaded)
    assert shown["services.mongo_url"][0] == "mongodb://***@db.example:27017/x?***"
    assert shown["services.broker_url"][0] == "rediss://***@broker.example:6379/0"
    assert shown["services.elastic_api_key"][0] == "(set)"
    assert "hush" not in f"{shown} {loaded.settings!r} {loaded.settings}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("SERVICES__MONGO_URL", "http://me:hush@db"), ("SERVICES__BROKER_URL", "hush"), ("SERVICES__ELASTIC_URL", "hush")],
)
def test_a_wrong_address_is_refused_without_showing_it(
    name: str, value: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TIDEGATE_{name}", value)
    with pytest.raises(
        WrongCall, match=f"environment TIDEGATE_{name}: .* is not an address of this service"
    ) as refused:
        load_settings(file)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("name", ["elastic_api_key", "elastic_url", "mongo_url", "broker_url", "cache_url"])
def test_a_secret_with_a_line_break_is_refused_without_showing_it(
    name: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TIDEGATE_SERVICES__{name.upper()}", "mongodb://hunter2\n")
    with pytest.raises((InvalidSource, WrongCall)) as refused:
        load_settings(file)
    assert "contains a line break or another control character" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_secret_of_the_wrong_type_is_refused_without_showing_it(file: Path) -> None:
    refusal = _refusal(file, "environments:\n  default:\n    email: {password: 4711}\n")
    assert refusal == ["3:23: email.password: expected a text (write it in double quotes)"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LOGS__KEEP", "5k", "logs.keep: expected a whole number"),
        ("ENGINE__LEASE", "30", "write 30s for seconds"),
        ("LOGS__LEVEL", "warn", 'did you mean "warning"'),
        ("LOGS__LEVLE", "info", 'unknown key \\(did you mean "level"'),
        ("EMAIL__PORT", "70000", "must be at most 65535"),
    ],
)
def test_a_wrong_variable_is_named(
    name: str, value: str, expected: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TIDEGATE_{name}", value)
    with pytest.raises(WrongCall, match=f"environment TIDEGATE_{name}: .*{expected}"):
        load_settings(file)


def test_a_variable_of_an_unknown_section_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SERVICE__MONGO_URL", "mongodb://db")
    with pytest.raises(WrongCall, match='there is no section "service"') as refused:
        load_settings(file)
    assert refused.value.remedy == 'did you mean "services"?'


def test_an_unknown_flag_is_refused(file: Path) -> None:
    with pytest.raises(WrongCall, match=r"--set engine.leese: engine.leese: unknown key"):
        load_settings(file, flags={"engine.leese": "3s"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("environment: {}\n", "1:1: environment: unknown key (the file holds environments:)"),
        ("environments:\n  default: 3\n", "2:12: environments.default: expected keys and values"),
        ("environments:\n  default:\n    service: {}\n", '3:5: service: unknown key (did you mean "services"?)'),
        (
            "environments:\n  default:\n    engine: {leese: 3s}\n",
            '3:14: engine.leese: unknown key (did you mean "lease"?)',
        ),
        ("environments:\n  default:\n    engine: {lease: 30}\n", "3:21: engine.lease: expected a duration"),
        ("environments:\n  default:\n    logs: {stdout: 1}\n", "3:20: logs.stdout: expected true or false, got 1"),
        ("environments: {}\nmore: 1\n", "2:1: more: unknown key"),
    ],
)
def test_a_mistake_in_the_file_is_reported_with_its_place(text: str, expected: str, file: Path) -> None:
    faults = _refusal(file, text)
    assert len(faults) == 1
    assert faults[0].startswith(expected)


def test_an_unknown_environment_is_refused_with_a_suggestion(file: Path) -> None:
    with pytest.raises(InvalidSource, match=r'no environment "prodution" .did you mean "production"'):
        load_settings(file, environment="prodution")


def test_an_environment_without_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongCall, match='has no environment "production"'):
        load_settings(environment="production")


def test_a_named_missing_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongCall, match=r"the settings file none\.yaml does not exist") as refused:
        load_settings(Path("none.yaml"))
    assert refused.value.remedy == "--settings names it"
    Path(".env").write_text("TIDEGATE_SETTINGS=conf/setings.yaml\n")
    with pytest.raises(WrongCall, match=r"conf/setings\.yaml does not exist") as refused:
        load_settings()
    assert refused.value.remedy == "TIDEGATE_SETTINGS (.env:1) names it"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("pipelining", "pipelining"),
        ("PIPELINING, smtputf8", "pipelining smtputf8"),
        ("", ""),
        ("all", " ".join(SMTP_EXTENSIONS)),
    ],
)
def test_ignored_extensions_are_read_by_their_common_names(given: str, expected: str) -> None:
    assert Email(ignore_extensions=given).ignore_extensions == expected
    assert Email.model_validate({"ignore_extensions": given.split(", ")}).ignore_extensions == expected


@pytest.mark.parametrize("given", ["pipeline", "starttls", 7, None])
def test_an_extension_that_cannot_be_ignored_is_refused(given: object) -> None:
    with pytest.raises(ValidationError, match="extension"):
        Email.model_validate({"ignore_extensions": given})


def test_the_default_timeouts_are_those_of_rfc_5321() -> None:
    assert email_advice(Email(transport="smtp")) == ""
    assert "RFC 5321" in email_advice(Email(transport="smtp", attempt=timedelta(minutes=9)))
    assert email_advice(Email(attempt=timedelta(seconds=5))) == "", "no server, nothing to say"


@pytest.fixture
def folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `file`, in which the engine reads a `.env`."""
    monkeypatch.chdir(file.parent)
    return file.parent


def test_each_source_wins_over_the_one_before(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text(
        "TIDEGATE_ENGINE__LEASE=4s\nTIDEGATE_ENGINE__TICK=4s\nTIDEGATE_ENGINE__RING_AGAIN=4s\n"
        "TIDEGATE_SERVICES__MONGO_DATABASE=four\n"
    )
    monkeypatch.setenv("TIDEGATE_ENGINE__LEASE", "3s")
    monkeypatch.setenv("TIDEGATE_ENGINE__TICK", "3s")
    sources = _sources(load_settings(file, flags={"engine.tick": "2s"}))
    assert sources["engine.tick"] == ("2s", "--set engine.tick")
    assert sources["engine.lease"] == ("3s", "environment TIDEGATE_ENGINE__LEASE")
    assert sources["engine.ring_again"] == ("4s", ".env:3 TIDEGATE_ENGINE__RING_AGAIN")
    assert sources["services.mongo_database"] == ("four", ".env:4 TIDEGATE_SERVICES__MONGO_DATABASE")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("TIDEGATE_EMAIL__PASSWORD=plain", "plain"),
        ("export TIDEGATE_EMAIL__PASSWORD=plain", "plain"),
        ("  TIDEGATE_EMAIL__PASSWORD = plain  ", "plain"),
        ("TIDEGATE_EMAIL__PASSWORD=plain # a comment", "plain"),
        ("TIDEGATE_EMAIL__PASSWORD=pa#ss", "pa#ss"),
        ("TIDEGATE_EMAIL__PASSWORD='pa # ss'", "pa # ss"),
        ('TIDEGATE_EMAIL__PASSWORD="two\\nlines"', "two\nlines"),
        ('TIDEGATE_EMAIL__PASSWORD="two\nlines"', "two\nlines"),
        ("TIDEGATE_EMAIL__PASSWORD=a=b&c", "a=b&c"),
        ("TIDEGATE_EMAIL__PASSWORD=pa$$wo$rd", "pa$$wo$rd"),
        ("NAME=you\nTIDEGATE_EMAIL__PASSWORD=for-${NAME}", "for-you"),
        ("\ufeffTIDEGATE_EMAIL__PASSWORD=plain", "plain"),
        ("TIDEGATE_EMAIL__PASSWORD=plain\r", "plain"),
        ("tidegate_email__password=plain", "plain"),
        ("TIDEGATE_EMAIL__PASSWORD=grün", "grün"),
        ("# TIDEGATE_EMAIL__PASSWORD=plain", ""),
        ("TIDEGATE_EMAIL__PASSWORD=", ""),
    ],
)
def test_the_env_file_is_read_in_the_usual_syntax(line: str, value: str, file: Path, folder: Path) -> None:
    (folder / ".env").write_bytes(f"{line}\n".encode())
    assert load_settings(file).settings.email.password.get_secret_value() == value


def test_an_empty_variable_of_the_process_hides_that_of_the_env_file(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text("TIDEGATE_SERVICES__ELASTIC_URL=http://search\n")
    assert load_settings(file).settings.services.elastic_url is not None
    monkeypatch.setenv("TIDEGATE_SERVICES__ELASTIC_URL", "")
    assert load_settings(file).settings.services.elastic_url is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# one\n\nTIDEGATE_EMAIL__PASSWORD\n", ".env:3:1: expected NAME=value"),
        ("TIDEGATE_EMAIL__PASSWORD='hush\n", ".env:1:1: expected NAME=value"),
        ("my password=hush\n", ".env:1:1: expected NAME=value"),
        ("A=1\nTIDEGATE_LOGS__LEVLE=info\n", ".env:2 TIDEGATE_LOGS__LEVLE: logs.levle: unknown key"),
        ("TIDEGATE_LOG__LEVEL=info\n", '.env:1 TIDEGATE_LOG__LEVEL: there is no section "log"'),
        ("TIDEGATE_EMAIL_PASSWORD=hush\n", ".env:1 TIDEGATE_EMAIL_PASSWORD: the engine does not read this"),
        ("TIDEGATE_EMAIL__PORT=70000\n", ".env:1 TIDEGATE_EMAIL__PORT: email.port: must be at most 65535"),
    ],
)
def test_a_mistake_in_the_env_file_is_reported_with_its_line(
    text: str, expected: str, file: Path, folder: Path
) -> None:
    (folder / ".env").write_text(text)
    with pytest.raises((InvalidSource, WrongCall)) as refused:
        load_settings(file)
    assert str(refused.value).startswith(expected)
    assert "hush" not in f"{refused.value} {refused.value.remedy}"


def test_one_underscore_instead_of_two_is_reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SERVICES_MONGO_URL", "mongodb://me:hush@db")
    with pytest.raises(WrongCall, match="the engine does not read this") as refused:
        load_settings(file)
    assert refused.value.remedy == "did you mean TIDEGATE_SERVICES__MONGO_URL?"


def test_variables_handed_to_other_processes_yield_the_same_settings(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "mine.env").write_text("TIDEGATE_ENV=production\nTIDEGATE_ENGINE__LEASE=4s\nPORT=80\n")
    monkeypatch.setenv("TIDEGATE_ENGINE__LEASE", "3s")
    loaded = load_settings(file, flags={"engine.tick": "2s"}, dotenv=Path("mine.env"))
    assert loaded.environment == "production"
    assert loaded.handed["PORT"] == "80"
    for name, value in loaded.handed.items():
        monkeypatch.setenv(name, value)
    assert load_settings().settings == loaded.settings


def test_every_setting_is_used() -> None:
    root = CONF.parents[1]
    sources = [path for part in ("engine", "actors") for path in (root / part).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources if path.name != "model.py")
    for section, described in Settings.model_fields.items():
        for key in type(getattr(Settings(), section)).model_fields:
            assert f".{key}" in text, f"nobody reads {section}.{key}: {described}"


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ("", ""),
        ("tidegate.example.org", "tidegate.example.org"),
        ("A.example, b.example:8443", "a.example b.example:8443"),
        (["a.example", "[::1]:8400"], "a.example [::1]:8400"),
    ],
)
def test_names_of_hosts_are_read_from_a_text_or_a_list(given: object, hosts: str) -> None:
    assert Web.model_validate({"hosts": given}).hosts == hosts


@pytest.mark.parametrize("given", ["https://a.example", "a.example/path", "a b/c", "*", 7])
def test_what_is_no_name_of_a_host_is_refused(given: object) -> None:
    with pytest.raises(ValidationError):
        Web.model_validate({"hosts": given})
