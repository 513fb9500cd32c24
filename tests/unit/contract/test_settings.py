from __future__ import annotations

import pytest
from pydantic import SecretStr

from worker.contract import settings
from worker.contract.errors import SettingsError
from worker.contract.input_size import InputSize
from worker.contract.settings import S3Settings


def explained(loaded):
    return {row.variable: row for row in settings.explain(loaded)}


def test_defaults_are_loaded_and_shown_as_defaults(monkeypatch):
    monkeypatch.delenv("MASKMILL_MODEL__SOURCE")
    rows = explained(settings.load())

    assert rows["MASKMILL_MODEL__SOURCE"].value == "default"
    assert {row.origin for row in rows.values()} == {"default"}


def test_sources_take_precedence_in_order(monkeypatch, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "MASKMILL_REDIS__PASSWORD").write_text("from-file\n")
    (secrets / "MASKMILL_S3__REGION").write_text("region-of-secrets")
    (tmp_path / "maskmill.toml").write_text('[s3]\nregion = "region-of-toml"\nendpoint_url = "http://toml"\n')
    (tmp_path / ".env").write_text("MASKMILL_JOBS__CHUNK_IMAGES=8\nMASKMILL_S3__ENDPOINT_URL=http://dotenv\n")
    monkeypatch.setenv("MASKMILL_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("MASKMILL_CONFIG", str(tmp_path / "maskmill.toml"))
    monkeypatch.setenv("MASKMILL_JOBS__CHUNK_IMAGES", "4")

    loaded = settings.load()
    rows = explained(loaded)

    assert loaded.jobs.chunk_images == 4 and rows["MASKMILL_JOBS__CHUNK_IMAGES"].origin == "environment"
    assert loaded.s3.endpoint_url == "http://dotenv" and rows["MASKMILL_S3__ENDPOINT_URL"].origin == ".env"
    assert loaded.s3.region == "region-of-secrets" and rows["MASKMILL_S3__REGION"].origin == str(secrets)
    assert loaded.redis.password.get_secret_value() == "from-file"


def test_secrets_are_never_shown(monkeypatch):
    monkeypatch.setenv("MASKMILL_REDIS__PASSWORD", "hunter2")
    monkeypatch.setenv("MASKMILL_S3__SECRET_ACCESS_KEY", "hunter3")

    loaded = settings.load()
    shown = repr(loaded) + "".join(row.value for row in settings.explain(loaded))

    assert "hunter" not in shown


@pytest.mark.parametrize("variable", ["MASKMOM_REDIS__URL", "MATILDA__URL", "MY_MASKMILL_REDIS__URL", "MASKMIL"])
def test_variables_of_other_programs_are_left_alone(monkeypatch, variable):
    monkeypatch.setenv(variable, "x")

    settings.load()


def test_a_typo_in_a_file_is_refused_with_the_name_of_the_file(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("MASKMILL_MODLE__SIZE=512\nREDIS_PASSWORD=of-compose\n")
    with pytest.raises(SettingsError, match=r"MASKMILL_MODLE__SIZE in \.env; did you mean MASKMILL_MODEL__SIZE"):
        settings.load()
    (tmp_path / ".env").unlink()

    (tmp_path / "s.toml").write_text("[modle]\nsize = 512\n")
    monkeypatch.setenv("MASKMILL_CONFIG", str(tmp_path / "s.toml"))
    with pytest.raises(SettingsError, match=r"\[modle\] in .*s\.toml; did you mean model"):
        settings.load()
    monkeypatch.delenv("MASKMILL_CONFIG")

    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "MASKMILL_REDS__PASSWORD").write_text("hunter2")
    monkeypatch.setenv("MASKMILL_SECRETS_DIR", str(tmp_path / "secrets"))
    with pytest.raises(SettingsError, match="did you mean MASKMILL_REDIS__PASSWORD") as caught:
        settings.load()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MASKMILL_REDIS__URL", "redis://user:hunter2@host/0", "MASKMILL_REDIS__URL"),
        ("MASKMILL_REDIS__URL", "http://host", "MASKMILL_REDIS__URL"),
        ("MASKMILL_REDIS__URL", "redis://host/0?password=hunter2", "MASKMILL_REDIS__URL"),
        ("MASKMILL_REDIS__URL", "rediss://host/0?ssl_cert_reqs=none", "MASKMILL_REDIS__URL"),
        ("MASKMILL_REDIS__URL", "sentinel://u:hunter2@a:1/mymaster", "MASKMILL_REDIS__SENTINEL_PASSWORD"),
        ("MASKMILL_REDIS__URL", "sentinel://a:1,b:2", "the name of the primary"),
        ("MASKMILL_REDIS__URL", "sentinel://a:1,b:2/my master", "the name of the primary"),
        ("MASKMILL_REDIS__URL", "sentinel://a:1/mymaster/hunter2", "the number of a database"),
        ("MASKMILL_REDIS__URL", "sentinel://a:1/mymaster?db=2", "the name of the primary"),
        ("MASKMILL_REDIS__URL", "sentinel://a:1;sentinel://b:2/mymaster", "the name of the primary"),
        ("MASKMILL_REDIS__URL", "sentinel://a:1,,b:2/mymaster", "separated by commas"),
        ("MASKMILL_REDIS__URL", "sentinel://a:x/mymaster", "separated by commas"),
        ("MASKMILL_REDIS__URL", "sentinel://a:1,a:1/mymaster", "names a Sentinel twice"),
        ("MASKMILL_REDIS__URL", "sentinal://a:1/mymaster", "sentinel://host1:26379"),
        ("MASKMILL_REDIS__SENTINEL_PASSWORD", "hunter2", "write sentinel://"),
        ("MASKMILL_REDIS__SENTINEL_PASWORD", "hunter2", "did you mean MASKMILL_REDIS__SENTINEL_PASSWORD"),
        ("MASKMILL_REDIS__FAILOVER_SECONDS", "inf", "MASKMILL_REDIS__FAILOVER_SECONDS"),
        ("MASKMILL_REDIS__WAIT_REPLICAS", "-1", "MASKMILL_REDIS__WAIT_REPLICAS"),
        ("MASKMILL_REDIS__CA_FILE", "ca.crt", "write rediss://"),
        ("MASKMILL_REDIS__CERT_FILE", "my.crt", "MASKMILL_REDIS__KEY_FILE"),
        ("MASKMILL_S3__READ_TIMEOUT_SECONDS", "inf", "MASKMILL_S3__READ_TIMEOUT_SECONDS"),
        ("MASKMILL_ENGINE__SILENCE_SECONDS", "nan", "MASKMILL_ENGINE__SILENCE_SECONDS"),
        ("MASKMILL_JOBS__CHUNK_IMAGES", "0", "MASKMILL_JOBS__CHUNK_IMAGES"),
        ("MASKMILL_MODEL__SIZE", "500", "MASKMILL_MODEL__SIZE"),
        ("MASKMILL_REDIS__HOST", "x", "MASKMILL_REDIS__HOST"),
        (
            "MASKMILL_REDIS__URLL",
            "redis://h",
            "no such setting; did you mean MASKMILL_REDIS__URL",
        ),
        ("MASKMILL_MODLE__SIZE", "512", "MASKMILL_MODLE__SIZE; did you mean MASKMILL_MODEL__SIZE"),
        ("maskmill_modle__size", "512", "MASKMILL_MODLE__SIZE"),
        ("MASKMILL_REDIS_URL", "redis://h", "did you mean MASKMILL_REDIS__URL"),
        ("MASKMIL_REDIS__URL", "redis://h", "MASKMIL_REDIS__URL; did you mean MASKMILL_REDIS__URL"),
        ("MASKMILL_S3__ALLOW", "bucket", "JSON"),
        ("MASKMILL_NOTIFY__SECRET", "hunter2", "openssl rand -base64 32"),
        ("MASKMILL_NOTIFY__SECRET", "whsec_aHVudGVyMg==", "MASKMILL_NOTIFY__SECRET"),
        ("MASKMILL_CONFIG", "/nowhere.toml", "MASKMILL_CONFIG"),
    ],
)
def test_a_bad_setting_is_named_without_its_value(monkeypatch, variable, value, expected):
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=expected) as caught:
        settings.load()

    assert "hunter2" not in str(caught.value)


def test_the_secret_url_carries_encoded_credentials():
    redis = settings.RedisSettings(url="redis://host:7000/2", username="mask", password=SecretStr("p/w#1@:"))

    assert redis.secret_url() == "redis://mask:p%2Fw%231%40%3A@host:7000/2"


def test_tls_is_verified_with_the_given_ca_certificate(tmp_path):
    redis = settings.RedisSettings(url="rediss://host:7000", ca_file=tmp_path / "ca.crt")

    url = redis.secret_url()

    assert url.startswith("rediss://host:7000/0?ssl_cert_reqs=required&ssl_ca_certs=")


def test_sentinels_are_listed_with_the_name_of_the_primary_and_a_database():
    redis = settings.RedisSettings(url="sentinel://one,two:7000,[::1]:7001/mymaster/3", password=SecretStr("p"))

    found = redis.sentinels()

    assert found is not None and found.primary == "mymaster" and found.database == 3 and not found.tls
    assert found.hosts == (("one", 26379), ("two", 7000), ("::1", 7001))
    assert redis.secret_url() == "redis://:p@mymaster/3"


def test_sentinels_with_tls_use_the_same_certificates(tmp_path):
    redis = settings.RedisSettings(url="sentinels://one/mymaster", ca_file=tmp_path / "ca.crt")

    assert redis.secret_url().startswith("rediss://mymaster/0?ssl_cert_reqs=required&ssl_ca_certs=")


def test_a_user_at_the_sentinels_needs_a_password():
    with pytest.raises(ValueError, match="MASKMILL_REDIS__SENTINEL_PASSWORD"):
        settings.RedisSettings(url="sentinel://one/mymaster", sentinel_username="mask")


def test_a_client_certificate_is_sent_to_the_server(tmp_path):
    redis = settings.RedisSettings(
        url="rediss://host:7000", cert_file=tmp_path / "my.crt", key_file=tmp_path / "my.key"
    )

    url = redis.secret_url()

    assert url.endswith("my.key") and "&ssl_certfile=" in url and "&ssl_keyfile=" in url


@pytest.mark.parametrize(("text", "size"), [("1024", InputSize.square(1024)), ("1440x2560", InputSize(1440, 2560))])
def test_the_size_of_a_network_is_one_number_or_height_and_width(monkeypatch, text, size):
    monkeypatch.setenv("MASKMILL_MODEL__SIZE", text)

    loaded = settings.load()

    assert loaded.model.size == size
    assert explained(loaded)["MASKMILL_MODEL__SIZE"].value == text


@pytest.mark.parametrize("text", ["100", "0", "1440x2570", "2560*1440"])
def test_an_impossible_size_is_refused(monkeypatch, text):
    monkeypatch.setenv("MASKMILL_MODEL__SIZE", text)

    with pytest.raises(SettingsError, match="MASKMILL_MODEL__SIZE"):
        settings.load()


def test_the_longest_request_adds_up_attempts_and_pauses():
    assert S3Settings().longest_request_seconds == 5 * (5 + 60) + 1 + 2 + 4 + 8
    assert S3Settings(attempts=1, connect_timeout_seconds=1, read_timeout_seconds=2).longest_request_seconds == 3
    assert S3Settings(attempts=10**9).longest_request_seconds > 10**9
