"""From nothing to a merchant who is ready, by the commands that two people would type."""

import json
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fedrec.keycheck import node_fingerprint
from tests.tiny_run import Bench, Outcome, event_rows, fedrec, write_csv

ADDRESS = "127.0.0.1:8443"
SIZES = ("--clients", 3, "--people-per-client", 12)
EPSILON_8 = "Each person at a client has (epsilon = 8, delta = 1e-05)-differential privacy"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """An operator with keys and a base, and a merchant's events of other people."""
    bench = Bench.at(tmp_path_factory.mktemp("operator"), {"partition": {}})
    run(bench, "keys", "authority", "authority")
    run(bench, "keys", "server", "server-keys", "--authority", "authority", "--host", "127.0.0.1")
    run(bench, "pretrain", *bench.inputs, "--out", "base")
    run(bench, *new("spring"))
    return bench


def run(bench: Bench, *words: object, code: int = 0) -> Outcome:
    """A command, typed in the bench's folder."""
    with chdir(bench.folder):
        outcome = fedrec(*words, home=bench.folder)
    assert outcome.exit_code == code, outcome.stderr
    return outcome


def new(name: str, *more: object) -> list[object]:
    given = ("--base", "base", "--catalogue", "items.csv", "--server-keys", "server-keys", "--config", "tiny.toml")
    return ["federation", "new", name, *given, *SIZES, "--address", ADDRESS, *more]


def join(name: str, *more: object, of: str = "spring") -> list[object]:
    return ["join", f"{of}/invitation", "--data", "mine.csv", "--name", name, "--out", name, "--min-people", 10, *more]


@pytest.fixture
def merchant(bench: Bench) -> Bench:
    """The bench with events of a merchant's own, a few of them unusable, and no merchant's folder."""
    rows = [{key: row[key] for key in ("user_id", "item_id", "timestamp")} for row in event_rows(people=12, seed=3)]
    write_csv(bench.folder / "mine.csv", [*rows, {"user_id": "p000", "item_id": "i77", "timestamp": 5}])
    for name in ("shop-7", "shop-8", "bare", "autumn"):
        shutil.rmtree(bench.folder / name, ignore_errors=True)
    return bench


def fingerprint(bench: Bench) -> str:
    return str(json.loads(run(bench, *new("autumn", "--json")).stdout)["fingerprint"])


def test_the_operator_is_told_what_merchants_will_be_asked_and_what_to_send(merchant: Bench) -> None:
    said = run(merchant, *new("autumn", "--deadline", 90)).stdout
    assert "deadline_s = 90.0" in (merchant.folder / "autumn" / "config.toml").read_text()
    assert "3 rounds at 127.0.0.1:8443" in said
    assert "Each merchant will be asked for a noised update in each round." in said
    assert EPSILON_8 in said
    assert "neighbouring data sets differ in one person" in said
    assert "autumn/invitation: send it to the merchants; it holds no secret" in said
    assert "over another channel, such as the telephone" in said


def test_a_merchant_joins_and_checks_with_two_commands(merchant: Bench) -> None:
    told = json.loads(run(merchant, *new("autumn", "--json")).stdout)
    assert told["statement"].startswith(EPSILON_8)
    joined = json.loads(run(merchant, *join("shop-7", "--json")).stdout)
    assert joined["people"] == 12
    assert {rule["rule"]: rule["dropped"] for rule in joined["cleaning"] if rule["dropped"]} == {"unknown_item": 1}
    assert [Path(path).name for path in joined["send"]] == ["node.pub", "reply.pub"]
    assert joined["next"] == "fedrec client --config shop-7/client.toml"
    checked = json.loads(run(merchant, "client", "--config", "shop-7/client.toml", "--check", "--json").stdout)
    same = ("run_id", "server_key", "fingerprint", "private", "statement")
    assert {name: checked[name] for name in same} == {name: joined[name] for name in same}
    assert (checked["epsilon"], checked["max_epsilon"], checked["delta"], checked["address"]) == (0, 8, 1e-5, ADDRESS)


def test_a_merchant_joins_with_a_store_and_a_second_time_in_the_same_ledger(merchant: Bench, tmp_path: Path) -> None:
    store = tmp_path / "shop.sqlite"
    run(merchant, "store", "import", store, "--data", "mine.csv")
    run(merchant, "store", "choose", store, "--user", "p001", "--no-training")
    given = ["--store" if word == "--data" else store if word == "mine.csv" else word for word in join("shop-7")]
    said = run(merchant, *given).stdout
    assert "no_training: of a person who said no to training" in said
    assert "11 people take part." in said
    run(merchant, "client", "--config", "shop-7/client.toml", "--check")
    again = ["shop-8" if word == "shop-7" else word for word in given]
    assert "would be a fresh budget" in run(merchant, *again, code=3).stderr
    more = json.loads(run(merchant, *again, "--ledger", "shop-7/ledger.sqlite", "--json").stdout)
    assert (more["ledger"], more["people"]) == ("shop-7/ledger.sqlite", 11)
    both = run(merchant, *join("bare"), "--store", store, code=2)
    assert "--data or --store: expected one of the two" in both.stderr


def test_joining_says_in_words_what_is_dropped_agreed_and_sent(merchant: Bench) -> None:
    said = run(merchant, *join("shop-7")).stdout
    assert "  1  unknown_item: item without a row in the catalogue" in said
    assert "missing_user" not in said, "rules that dropped nothing"
    assert "12 people take part. Nobody else learns this number." in said
    assert "You agree to: 3 rounds, in which a noised update leaves this machine." in said
    assert EPSILON_8 in said
    assert "ask the operator for theirs, over another channel" in said
    assert "shop-7/keys/node.pub" in said
    shown = node_fingerprint(merchant.folder / "shop-7" / "keys" / "node.pub")
    assert f"over the other channel the fingerprint of the first: {shown}" in said, "what fedrec enrol add shows"
    text = run(merchant, "client", "--config", "shop-7/client.toml", "--check").stdout
    assert "shop-7 in the federation spring at 127.0.0.1:8443" in text
    assert "epsilon 0 of 8 at delta 1e-05, per person at a client" in text


def test_two_merchants_share_no_key_and_no_data_set(merchant: Bench) -> None:
    run(merchant, *join("shop-7", "--certificate-request"))
    run(merchant, *join("shop-8"))
    one, other = (merchant.folder / name for name in ("shop-7", "shop-8"))
    for name in ("keys/node.pub", "keys/reply.pub", "client.toml", "ledger.key"):
        assert (one / name).read_bytes() != (other / name).read_bytes()
    assert (one / "keys" / "tls.csr").exists()
    assert not (other / "keys" / "tls.csr").exists()
    for path in one.rglob("*"):
        if path.suffix == ".key" or path.name in ("client.toml", "ledger.sqlite"):
            assert path.stat().st_mode & 0o077 == 0, path
    assert one.stat().st_mode & 0o777 == 0o700


def test_the_fingerprint_that_was_told_must_be_the_invitations(merchant: Bench) -> None:
    other = fingerprint(merchant)
    refused = run(merchant, *join("shop-7", "--fingerprint", other), code=2)
    assert "not the one given; it is not this operator's" in refused.stderr
    own = json.loads(run(merchant, *join("shop-7", "--json")).stdout)["fingerprint"]
    said = run(merchant, *join("shop-8", "--fingerprint", own.upper())).stdout
    assert "the one that you were told" in said


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--max-epsilon", 7.9), 3, f"error: --max-epsilon 7.9: the federation asks for more. {EPSILON_8}"),
        (("--min-people", 13), 3, "error: policy min_people: fewer people here, allowed >= 13"),
        (("--map", "user_id=Kunde"), 2, "mine.csv: no column 'Kunde' for the field 'user_id'"),
        (("--map", "user_id"), 2, "--map user_id: expected FIELD=COLUMN"),
        (("--data", "gone.csv"), 2, "error: gone.csv: no such file; --data expects your events, CSV or Parquet"),
        (("--name", "shop seven"), 2, "name='shop seven': expected 1 to 64 letters"),
    ],
)
def test_what_is_refused_is_refused_at_once_and_leaves_nothing(
    more: tuple[object, ...], code: int, message: str, merchant: Bench
) -> None:
    refused = run(merchant, *join("shop-7", *more), code=code)
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert [path.name for path in merchant.folder.glob("*shop*")] == []


def test_no_folder_is_joined_twice(merchant: Bench) -> None:
    run(merchant, *join("shop-7"))
    refused = run(merchant, *join("shop-7"), code=2)
    assert "shop-7: exists; choose another place" in refused.stderr


def test_a_federation_that_protects_nobody_needs_the_merchants_word_and_says_so_every_time(merchant: Bench) -> None:
    said = run(merchant, *new("bare", "--no-dp")).stdout
    assert "NOT PRIVATE" in said
    assert "an update as it is" in said
    refused = run(merchant, *join("shop-8", of="bare"), code=3)
    assert "this federation is NOT PRIVATE" in refused.stderr
    said = run(merchant, *join("shop-8", "--allow-not-private", of="bare")).stdout
    assert "NOT PRIVATE" in said
    assert "There is no policy, and nothing bounds what the updates tell." in said
    assert "not_private = true" in (merchant.folder / "shop-8" / "client.toml").read_text()
    checked = run(merchant, "client", "--config", "shop-8/client.toml", "--check").stdout
    assert "promise      NOT PRIVATE: no noise was added" in checked
    assert not (merchant.folder / "shop-8" / "policy.toml").exists()


def test_nothing_of_the_merchants_data_lies_outside_its_file(merchant: Bench) -> None:
    run(merchant, *join("shop-7"))
    for path in (merchant.folder / "shop-7").rglob("*"):
        if path.is_file() and path.name != "catalogue.parquet":
            assert b"p000" not in path.read_bytes(), path


def test_the_base_in_the_invitation_is_the_operators_to_the_bit(merchant: Bench) -> None:
    run(merchant, *join("shop-7"))
    base, copy = merchant.folder / "base", merchant.folder / "shop-7" / "federation" / "base"
    assert not (copy / "panel.safetensors").exists(), "public people stay with the operator all the same"
    for name in ("items.safetensors", "ranker.safetensors"):
        one, other = load_file(base / name), load_file(copy / name)
        assert all((one[key] == other[key]).all() for key in one)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--address", "127.0.0.2:8443"), 2, "tls.crt is for 127.0.0.1; make another with fedrec keys server --host"),
        (("--epsilon", 0), 2, "privacy.epsilon=0.0: Input should be greater than 0"),
        (("--server-keys", "thief"), 2, "server.key: the key cannot be read"),
        (
            ("--base", "gone"),
            2,
            "error: gone: not a usable base: No such file or directory; make one with fedrec pretrain",
        ),
        (("--config", "gone.toml"), 2, "error: gone.toml: cannot be read: No such file or directory"),
    ],
)
def test_what_an_operator_gets_wrong_is_one_line(
    words: tuple[object, ...], code: int, message: str, merchant: Bench
) -> None:
    refused = run(merchant, *new("autumn", *words), code=code)
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (merchant.folder / "autumn").exists()
