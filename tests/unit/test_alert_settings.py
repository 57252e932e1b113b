"""Settings of notifications: read from the same places as all others, checked by name, and apart from those of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowlake.alerts.channels import configured, named
from flowlake.core.alert_settings import ALERT_SECRETS, AlertSettings, PriceLevel, price_levels
from flowlake.core.errors import UsageError
from flowlake.core.secret import Secret
from flowlake.core.settings import load_alert_settings, load_settings

EMAIL = {"email_host": "mail", "email_from": "a@b.c", "email_to": "x@y.z"}
TELEGRAM = {"telegram_token": "1:planted", "telegram_chat": "@desk"}
WEBHOOK = {"webhook_url": "https://host/planted", "webhook_secret": "planted"}


def environ(**settings: object) -> dict[str, str]:
    return {f"FLOWLAKE_ALERT_{name.upper()}": str(value) for name, value in settings.items()}


def refused(tmp_path: Path, **settings: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        configured(load_alert_settings(environ(**settings), tmp_path))
    assert "planted" not in str(caught.value)
    return caught.value


def test_nothing_is_on_by_itself(tmp_path: Path) -> None:
    assert configured(load_alert_settings({}, tmp_path)) == []
    with pytest.raises(UsageError, match="no channel is configured"):
        named([], "")


def test_all_channels_can_be_on(tmp_path: Path) -> None:
    made = configured(load_alert_settings(environ(**EMAIL, **TELEGRAM, **WEBHOOK, file_path="x"), tmp_path))
    assert [channel.name for channel in made] == ["email", "webhook", "telegram", "file"]
    assert [channel.per_hour for channel in made] == [20, 20, 20, None]
    assert named(made, "file") == made[3:]
    with pytest.raises(UsageError, match="there is no channel 'telegram'"):
        named(made[:1], "telegram")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"email_host": "mail", "email_to": "x@y.z"}, "alert_email_from"),
        ({"email_from": "a@b.c"}, "alert_email_host"),
        ({"email_user": "me"}, "alert_email_host"),
        ({**EMAIL, "email_user": "me"}, "alert_email_password"),
        ({**EMAIL, "email_password": "planted"}, "alert_email_user"),
        ({**EMAIL, "email_user": "me", "email_password": "planted", "email_security": "plain"}, "alert_email_security"),
        ({**EMAIL, "email_to": "x@y.z\r\nBcc: all@y.z"}, "alert_email_to"),
        ({**EMAIL, "email_to": "Desk <x@y.z>"}, "alert_email_to"),
        ({**EMAIL, "email_to": " , "}, "alert_email_to"),
        ({**EMAIL, "email_from": "nobody"}, "alert_email_from"),
        ({**EMAIL, "email_security": "ssl"}, "alert_email_security"),
        ({**EMAIL, "email_port": "99999"}, "alert_email_port"),
        ({**EMAIL, "email_min_tier": "loud"}, "alert_email_min_tier"),
        ({"webhook_url": "https://host/planted"}, "alert_webhook_secret"),
        ({**WEBHOOK, "webhook_url": "ftp://host/planted"}, "alert_webhook_url"),
        ({**WEBHOOK, "webhook_url": "https://me:planted@host/"}, "alert_webhook_url"),
        ({**WEBHOOK, "webhook_url": "https://host:planted/"}, "alert_webhook_url"),
        ({**WEBHOOK, "webhook_url": "https://[planted/"}, "alert_webhook_url"),
        ({**WEBHOOK, "webhook_url": "https://host/pla nted"}, "alert_webhook_url"),
        ({**WEBHOOK, "webhook_secret": "planted\n"}, "alert_webhook_secret"),
        ({**WEBHOOK, "webhook_url": "https://a..planted/"}, "alert_webhook_url"),
        ({**EMAIL, "email_host": "mail..example"}, "alert_email_host"),
        ({**EMAIL, "email_host": "smtp://mail"}, "alert_email_host"),
        ({**EMAIL, "email_user": "me", "email_password": "plantedé"}, "alert_email_password"),
        ({"telegram_token": "1:planted"}, "alert_telegram_chat"),
        ({**TELEGRAM, "telegram_token": "1:planted/../x"}, "alert_telegram_token"),
        ({**TELEGRAM, "telegram_chat": "desk"}, "alert_telegram_chat"),
        ({**TELEGRAM, "telegram_api": "http://elsewhere"}, "alert_telegram_api"),
        ({"timeout_seconds": "0"}, "alert_timeout_seconds"),
        ({"give_up_hours": "never"}, "alert_give_up_hours"),
        ({"per_hour": "0"}, "alert_per_hour"),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, object], names: str, tmp_path: Path) -> None:
    error = refused(tmp_path, **settings)
    assert names in error.what
    assert error.cure


def test_a_password_may_travel_openly_on_this_machine_only(tmp_path: Path) -> None:
    told = environ(**EMAIL | {"email_host": "localhost"}, email_user="me", email_password="p w", email_security="plain")
    assert configured(load_alert_settings(told, tmp_path))[0].name == "email"


def test_the_file_takes_settings_and_the_watch_list_but_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "flowlake.toml"
    file.write_text('alert_file_path = "x"\n[watch]\nAAPL = ["above 200", "below 150.5"]\n"BRK.B" = "above 400"\n')
    found = load_alert_settings({}, tmp_path)
    assert found.watch == (
        PriceLevel("AAPL", "above", 200.0),
        PriceLevel("AAPL", "below", 150.5),
        PriceLevel("BRK.B", "above", 400.0),
    )
    assert load_alert_settings({"FLOWLAKE_WATCH": "X above 1"}, tmp_path).watch == (PriceLevel("X", "above", 1.0),)
    assert load_settings({}, tmp_path).lake == "./lake", "a run reads the same file and takes no notice"
    for name in ALERT_SECRETS:
        file.write_text(f'{name} = "planted"\n')
        with pytest.raises(UsageError, match="is a secret") as caught:
            load_alert_settings({}, tmp_path)
        assert "planted" not in str(caught.value)


def test_the_secrets_file_holds_them(tmp_path: Path) -> None:
    file = tmp_path / "secrets.toml"
    file.write_text('alert_email_password = "planted"\nbucket_secret = "other"\n')
    told = {"FLOWLAKE_SECRETS_FILE": str(file)}
    assert load_alert_settings(told, tmp_path).email_password.reveal() == "planted"
    assert load_settings(told, tmp_path).bucket_secret.reveal() == "other"


@pytest.mark.parametrize("text", ["AAPL", "AAPL over 3", "AAPL above -3", "AAPL above 0", "AAPL above nan", "AAPL above 1e9999"])
def test_what_is_no_level(text: str) -> None:
    with pytest.raises(UsageError, match="is no price level"):
        price_levels(text)


def test_a_level_reads_as_it_was_written() -> None:
    text = "AAPL above 200, AAPL above 200, BRK.B below 0.5"
    assert [str(level) for level in price_levels(text)] == ["AAPL above 200", "BRK.B below 0.5"]


def test_no_secret_shows_or_travels_with_a_run(tmp_path: Path) -> None:
    told = environ(**TELEGRAM, **WEBHOOK, email_password="planted too")
    alerts = load_alert_settings(told, tmp_path)
    assert "planted" not in repr(alerts)
    assert alerts.redacted("a planted b 1:planted c planted too") == "a *** b *** c ***"
    run = load_settings(told, tmp_path)
    assert not [value for value in vars(run).values() if isinstance(value, Secret) and value]
    assert AlertSettings().redacted("same") == "same"
