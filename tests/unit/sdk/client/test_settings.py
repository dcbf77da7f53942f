"""Where settings come from, in which order, and what is refused."""

from __future__ import annotations

import pytest

from cloister.config import SETTINGS, Settings
from cloister.errors import ConfigurationError
from cloister.identity import ApiKey, identity_from
from cloister.protocol import RequestBinding

ENVIRONMENT = {
    "CLOISTER_URL": "https://env.example",
    "CLOISTER_TENANT": "env",
    "CLOISTER_POLICY": "env.toml",
}
FILE = """
[default]
url = "https://file.example"
tenant = "file"
policy = "policies/file.toml"
api_key_file = "admin.key"

[prod]
url = "https://prod.example"
tenant = "prod"
policy = "prod.toml"
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cloister.toml").write_text(FILE)
    return tmp_path


def test_explicit_beats_environment_beats_file(folder):
    settings = Settings.load(
        directory=folder, environment={"CLOISTER_TENANT": "env"}, url="https://a.example"
    )
    assert settings.url == "https://a.example"
    assert settings.tenant == "env"
    assert settings.policy == folder / "policies/file.toml"
    assert settings.api_key_file == folder / "admin.key"


def test_the_file_is_found_from_a_folder_below(folder):
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    assert Settings.load(directory=below, environment={}).tenant == "file"


def test_a_profile_selects_a_table(folder):
    assert Settings.load(directory=folder, environment={"CLOISTER_PROFILE": "prod"}).tenant == "prod"


def test_everything_from_the_environment_needs_no_file(tmp_path):
    assert Settings.load(directory=tmp_path, environment=ENVIRONMENT).url == "https://env.example"


def test_what_is_missing_is_named_by_its_variable(tmp_path):
    with pytest.raises(ConfigurationError, match="CLOISTER_TENANT"):
        Settings.load(directory=tmp_path, environment={"CLOISTER_URL": "https://x", "CLOISTER_POLICY": "p"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[default]\nurll = 'x'", "unknown setting"),
        ("[default", "TOML"),
        ("default = 1", "no profile"),
    ],
)
def test_a_file_with_a_mistake_is_refused(tmp_path, text, says):
    (tmp_path / "cloister.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        Settings.load(directory=tmp_path, environment=ENVIRONMENT)


def test_a_profile_that_is_not_there_is_refused(folder):
    with pytest.raises(ConfigurationError, match="no profile"):
        Settings.load(directory=folder, environment={}, profile="staging")


def test_an_unknown_argument_is_refused(folder):
    with pytest.raises(ConfigurationError, match="unknown setting"):
        Settings.load(directory=folder, environment={}, verify=False)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon", "100000"])
def test_a_timeout_that_is_no_time_is_refused(tmp_path, seconds):
    with pytest.raises(ConfigurationError, match="TIMEOUT"):
        Settings.load(directory=tmp_path, environment={**ENVIRONMENT, "CLOISTER_TIMEOUT_SECONDS": seconds})


def test_an_unknown_identity_is_refused(tmp_path):
    settings = Settings.load(directory=tmp_path, environment=ENVIRONMENT, identity="magic")
    with pytest.raises(ConfigurationError, match="IDENTITY"):
        identity_from(settings)


def test_an_api_key_file_must_hold_an_api_key(tmp_path):
    (tmp_path / "k").write_text("hunter2\n")
    with pytest.raises(ConfigurationError) as caught:
        ApiKey.from_file(tmp_path / "k")
    assert "hunter2" not in str(caught.value)


def test_an_api_key_shows_nothing(tmp_path):
    (tmp_path / "k").write_text("clk_a_secretsecret\n")
    key = ApiKey.from_file(tmp_path / "k")
    assert "secret" not in repr(key)
    binding = RequestBinding(kid="r", jti="j", body={})
    credential = key.credential(deployment="d", request=binding)
    assert credential == {"type": "api-key", "value": "clk_a_secretsecret"}


def test_every_setting_has_one_prefix_and_a_help_text():
    assert all(s.variable == f"CLOISTER_{s.name.upper()}" and s.help.endswith(".") for s in SETTINGS)
