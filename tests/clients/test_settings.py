"""``client.toml``: what is written comes back, from wherever it is read, and nothing unknown is let in."""

import tomllib
from pathlib import Path

import pytest

from clients.settings import ClientSettings, load_client_settings, write_client_settings
from fedrec.errors import ConfigError

DATASET = "d1" * 32


def test_what_is_written_comes_back_with_paths_from_where_the_file_lies(tmp_path: Path) -> None:
    path = tmp_path / "shop" / "client.toml"
    path.parent.mkdir()
    write_client_settings(
        path, name="shop-7", dataset=DATASET, events="../data/events.csv", columns={"user_id": "Customer ID"}
    )
    settings = load_client_settings(path)
    assert (settings.name, settings.dataset, settings.not_private) == ("shop-7", DATASET, False)
    assert settings.events == path.parent / "../data/events.csv"
    assert settings.ledger_files == (
        path.parent / "ledger.sqlite",
        path.parent / "ledger.key",
        path.parent / "ledger.witness.json",
    )
    assert (settings.federation, settings.policy) == (path.parent / "federation", path.parent / "policy.toml")
    assert settings.replies == (path.parent / "ledger.replies").resolve()
    assert settings.columns == {"user_id": "Customer ID"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_path_that_is_absolute_stays_so(tmp_path: Path) -> None:
    write_client_settings(tmp_path / "client.toml", name="a", dataset=DATASET, events="/srv/events.parquet")
    assert load_client_settings(tmp_path / "client.toml").events == Path("/srv/events.parquet")


def test_a_store_is_named_as_a_file_is(tmp_path: Path) -> None:
    write_client_settings(tmp_path / "client.toml", name="a", dataset=DATASET, store="../shop.sqlite")
    settings = load_client_settings(tmp_path / "client.toml")
    assert settings.store == settings.source == tmp_path / "../shop.sqlite"
    assert settings.events is None


def test_every_setting_is_written_under_its_meaning(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    write_client_settings(path, name="shop-7", dataset=DATASET, events="e.csv")
    text = path.read_text()
    assert set(tomllib.loads(text)) == set(ClientSettings.model_fields) - {"store"}, "a file or a store, not both"
    for name, field in ClientSettings.model_fields.items():
        assert (f"# {field.description}\n" in text) is (name != "store")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("\nsurprise = 1", "client.toml: surprise: Extra inputs are not permitted"),
        ("\nnot_private = 'perhaps'", "client.toml: not_private: Input should be a valid boolean"),
        ("\ncolumns = 1", "client.toml: columns: Input should be a valid dictionary"),
        ("\n= 1", "client.toml: cannot be read as TOML"),
        ("\nstore = 's.sqlite'", "client.toml: Value error, events or store: expected one of the two"),
    ],
)
def test_what_is_unknown_or_malformed_is_refused_by_name(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text(f'name = "a"\ndataset = "{DATASET}"\nevents = "e.csv"{change}\n')
    with pytest.raises(ConfigError, match=message):
        load_client_settings(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a b"}, "name: Value error, name='a b': expected 1 to 64 letters"),
        ({"dataset": "d1"}, "dataset: String should match pattern"),
        ({"events": 7}, "events: Input is not a valid path"),
        ({"events": None}, "client.toml: Value error, events or store: expected one of the two"),
        (
            {"events": None, "store": "s.sqlite", "columns": {"user_id": "who"}},
            "client.toml: Value error, columns: a store has no columns to name; leave the table empty",
        ),
    ],
)
def test_nothing_malformed_is_written(values: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    with pytest.raises(ConfigError, match=message):
        write_client_settings(path, **({"name": "a", "dataset": DATASET, "events": "e.csv"} | values))
    assert not path.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"client\.toml: cannot be read: No such file or directory$"):
        load_client_settings(tmp_path / "client.toml")
