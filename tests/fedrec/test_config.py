"""Every setting has a bound, every bound is held, and what a run writes down reads back as the same settings."""

import math
import tomllib
import typing

import pytest
import tomli_w
from pydantic import BaseModel

from fedrec.cli.simulate import resolve_settings
from fedrec.config import Config, load_config, parse_config, read_toml
from fedrec.errors import ConfigError, RunError
from fedrec.privacy.policy import METRICS

# Setting -> values just outside its bounds, or of another type.
OUTSIDE = {
    "data.min_events": [2, 3.5, "many"],
    "data.max_history": [0],
    "data.split": ["random"],
    "data.merge_repeats": ["perhaps"],
    "data.mask_history": ["perhaps"],
    "data.time_cut": [3],
    "data.event_columns": ["user_id=Customer"],
    "data.catalogue_columns": [["title"]],
    "data.events": [3],
    "data.catalogue": [3],
    "data.cold_items": [-0.1, 1.0, math.nan],
    "partition.scheme": ["by-column:", "random", ""],
    "partition.clients": [0, -1, 2.5],
    "partition.held_out_clients": [-1, 2.5],
    "partition.people_per_client": [0],
    "partition.panel_fraction": [-0.01, 1.0],
    "partition.dirichlet_alpha": [0.0, math.inf],
    "items.encoder": [3],
    "items.local_files_only": ["perhaps"],
    "items.dimensions": [0],
    "items.damping": [-0.1],
    "model.backbone": [3],
    "model.width": [0],
    "model.layers": [0],
    "model.heads": [0],
    "model.feed_forward": [0],
    "model.history": [0],
    "model.text_window": [0],
    "model.text_decay": [0.0, 1.1],
    "model.text_scale": [0.0, math.nan],
    "model.full_softmax": [0],
    "model.negatives": [0],
    "pretraining.base": [3],
    "pretraining.epochs": [-1],
    "pretraining.learning_rate": [0.0, math.inf],
    "pretraining.batch_people": [0],
    "pretraining.weight_decay": [-0.1],
    "pretraining.dropout": [-0.1, 1.0],
    "pretraining.judge_share": [-0.1, 1.0],
    "pairs.weight": [-0.1, math.inf, math.nan],
    "pairs.window": [0],
    "pairs.suggestions": [-1, 2.5],
    "pairs.sharpness": [0.0, math.inf],
    "pairs.recent": [0, 4_097],
    "pairs.decay": [0.0, 1.1],
    "pairs.shrinkage": [-0.1, math.inf],
    "statistics.noise_share": [-0.1, 1.0, math.nan],
    "statistics.popularity_share": [-0.1, 1.1],
    "statistics.weight": [-0.1, math.inf, math.nan],
    "statistics.threshold": [-0.1, math.inf],
    "statistics.shrinkage": [-0.1, math.inf],
    "adapter.kind": ["prefix"],
    "adapter.rank": [0, 1.5],
    "adapter.targets": ["some"],
    "adapter.norms": ["perhaps"],
    "adapter.gains": ["perhaps"],
    "local.memory_weight": [-0.1],
    "local.memory_sharpness": [0.0],
    "local.memory_window": [0],
    "local.memory_recent": [0],
    "local.memory_decay": [0.0, 1.1],
    "local.memory_shrinkage": [-0.1],
    "local.repeat_weight": [-0.1],
    "local.repeat_decay": [0.0, 1.1],
    "local.basket_weight": [-0.1],
    "local.popular_weight": [-0.1],
    "local.popular_half_life_days": [0.0, math.inf],
    "local.popular_shrinkage": [-0.1],
    "local.tuning_steps": [-1],
    "local.tuning_rate": [0.0, math.inf],
    "privacy.enabled": ["perhaps"],
    "privacy.epsilon": [0.0, -1.0, math.inf, math.nan],
    "privacy.delta": [0.0, 1.0, -0.1, math.nan],
    "privacy.clip_norm": [0.0, math.inf],
    "privacy.clipping": ["none"],
    "privacy.sampling_rate": [0.0, 1.1, math.nan],
    "privacy.expected_people": [0],
    "privacy.batch_cap": [0, 2.5],
    "privacy.max_people": [0, 2.5],
    "privacy.metrics": [["hr@10", "hr@10"], "hr@10"],
    "privacy.metrics_every": [0, 2.5],
    "privacy.metric_noise_multiplier": [0.0, math.inf, math.nan],
    "privacy.trust": ["nobody"],
    "federation.rounds": [0],
    "federation.clients_per_round": [0],
    "federation.over_selection": [0.9, 3.1, math.nan],
    "federation.deadline_s": [0.0, math.inf],
    "federation.aggregation": ["median"],
    "federation.trim": [0.05, 0.5],
    "federation.weights": ["num-examples"],
    "federation.local_steps": [0],
    "federation.local_learning_rate": [0.0],
    "federation.server_learning_rate": [0.0, math.nan],
    "federation.warmup_rounds": [-1],
    "federation.ema": [-0.1, 1.0],
    "federation.min_replies": [0.0, 1.1],
    "federation.engine": ["spark"],
    "federation.workers": [-1],
    "compare": ["perhaps"],
    "seed": [-1, 2**32],
}


def fields():
    """Every setting by its dotted name."""
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from ((f"{name}.{inner}", info) for inner, info in section.model_fields.items())
        else:
            yield name, field


def nested(name, value):
    section, _, key = name.rpartition(".")
    return {section: {key: value}} if section else {key: value}


def test_every_setting_is_in_the_table_of_bounds():
    assert {name for name, _ in fields()} == OUTSIDE.keys()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OUTSIDE.items() for value in values])
def test_a_value_outside_its_bound_is_one_line_that_names_the_setting(name, value):
    with pytest.raises(ConfigError) as refusal:
        parse_config(nested(name, value), source="a.toml")
    message = str(refusal.value)
    assert message.startswith(f"a.toml: {name}={value!r}: ")
    assert "\n" not in message
    assert refusal.value.exit_code == 2


UNKNOWN = {
    "privacy.epsilom": nested("privacy.epsilom", 1),
    "sed": nested("sed", 1),
    "data.event_columns.user_id": nested("data.event_columns", {"user_id": {"x": 1}}),
}


@pytest.mark.parametrize(("name", "values"), UNKNOWN.items())
def test_an_unknown_key_or_shape_is_named(name, values):
    with pytest.raises(ConfigError, match=rf"^a\.toml: {name}="):
        parse_config(values, source="a.toml")


@pytest.mark.parametrize("name", [*METRICS, "hr@20", "loss"])
def test_metrics_are_exactly_those_that_a_policy_knows(name):
    values = {"privacy": {"metrics": [name]}}
    if name in METRICS:
        assert parse_config(values, source="a.toml").privacy.metrics == (name,)
    else:
        with pytest.raises(ConfigError, match=rf"^a\.toml: privacy\.metrics\.0='{name}': Input should be"):
            parse_config(values, source="a.toml")


def test_every_setting_says_what_it_means():
    for name, field in fields():
        assert field.description, name


def test_every_number_has_a_bound():
    for name, field in fields():
        numbers = {int, float} & {field.annotation, *typing.get_args(field.annotation)}
        if numbers and bool not in (field.annotation, *typing.get_args(field.annotation)):
            assert any(isinstance(value, int | float) for value in OUTSIDE[name]), name


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        Config().privacy.epsilon = 1.0


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"privacy": {"epsilon": 1 / 3, "delta": 1e-12}, "seed": 2**32 - 1, "compare": True},
        {"data": {"split": "next-basket"}, "local": {"popular_weight": 1.0}},
        {"data": {"events": "a b/ü.csv", "catalogue": "i.csv", "event_columns": {"user_id": "Customer ID"}}},
    ],
)
def test_settings_survive_config_toml(values, tmp_path):
    config = parse_config(values, source="here")
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    assert load_config(path) == config


def test_the_tiny_file_names_only_what_differs_from_the_defaults(tmp_path):
    path = tmp_path / "few.toml"
    path.write_text("seed = 3\n[federation]\nrounds = 7\n", encoding="utf-8")
    config = load_config(path)
    assert (config.seed, config.federation.rounds) == (3, 7)
    assert config.privacy == Config().privacy


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe", None])
def test_a_file_that_is_not_toml_is_one_line(content, tmp_path):
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.toml: cannot be read( as TOML)?: ") as refusal:
        read_toml(path)
    assert "\n" not in str(refusal.value)


def resolved(flags, tmp_path, content=""):
    path = tmp_path / "a.toml"
    path.write_text(content, encoding="utf-8")
    return resolve_settings(flags, config=path, out=None, resume=False)


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    content = "seed = 5\n[privacy]\nepsilon = 2.0\ndelta = 1e-6\n"
    config = resolved({"privacy.epsilon": 3.0, "privacy.delta": None, "seed": None}, tmp_path, content)
    assert (config.privacy.epsilon, config.privacy.delta, config.seed) == (3.0, 1e-6, 5)
    assert config.federation == Config().federation


def test_false_and_zero_flags_are_not_taken_for_absent(tmp_path):
    config = resolved({"privacy.enabled": False, "partition.panel_fraction": 0.0, "seed": 0}, tmp_path, "seed = 5")
    assert (config.privacy.enabled, config.partition.panel_fraction, config.seed) == (False, 0.0, 0)


def test_a_next_basket_has_defaults_of_its_own_and_a_setting_that_is_given_wins(tmp_path):
    config = resolved({"data.split": "next-basket"}, tmp_path, "[local]\npopular_weight = 1.5\n")
    assert (config.local.basket_weight, config.local.popular_weight) == (0.0, 1.5)
    assert config.local.repeat_weight > Config().local.repeat_weight
    assert config.local.memory_weight == Config().local.memory_weight
    assert parse_config({"data": {"split": "leave-last-out"}}, source="here") == Config()


def test_resumed_settings_come_from_the_run(tmp_path):
    (tmp_path / "config.toml").write_text("seed = 9\n", encoding="utf-8")
    assert resolve_settings({}, config=None, out=tmp_path, resume=True).seed == 9
    assert tomllib.loads((tmp_path / "config.toml").read_text(encoding="utf-8")) == {"seed": 9}


def test_resume_needs_a_run():
    with pytest.raises(ConfigError, match="--resume: needs --out"):
        resolve_settings({}, config=None, out=None, resume=True)


def test_resume_of_an_empty_folder_says_so(tmp_path):
    with pytest.raises(RunError, match=r"no run to resume: expected a folder with config\.toml; leave out --resume"):
        resolve_settings({}, config=None, out=tmp_path, resume=True)


@pytest.mark.parametrize("name", ["batch_cap", "max_people"])
def test_a_cap_on_batches_needs_a_bound_on_people_and_the_other_way_round(name):
    with pytest.raises(ConfigError, match=r"^a\.toml: privacy=.*batch_cap and max_people: expected both or neither"):
        parse_config({"privacy": {name: 5}}, source="a.toml")
    both = parse_config({"privacy": {"batch_cap": 5, "max_people": 9}}, source="a.toml").privacy
    assert (both.batch_cap, both.max_people) == (5, 9)
