"""Tags and `_target_` in a YAML text, which ask for a call in other tools, call nothing here: the only effect would be a folder."""

from pathlib import Path

import pytest

from tests.faults.mutations import outcome_of
from tests.faults.targets import command
from tests.registry.adapters import made_adapters

ASKS = {
    "tag": "!!python/object/apply:os.mkdir ['{mark}']",
    "new": "!!python/object/new:os.mkdir ['{mark}']",
    "name": "!!python/name:os.mkdir ''",
    "target": "{{_target_: os.mkdir, path: '{mark}'}}",
    "target of a list": "{{_target_: os.mkdir, _args_: ['{mark}']}}",
    "resolver": "'${{oc.create:${{_target_: os.mkdir}}}}'",
}


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    return tmp_path / "called"


def test_these_texts_would_call(mark: Path) -> None:
    import yaml

    yaml.unsafe_load(ASKS["tag"].format(mark=mark))
    assert mark.is_dir()


@pytest.mark.parametrize("ask", ASKS)
def test_a_recipe_calls_nothing(ask: str, mark: Path, tmp_path: Path) -> None:
    from registry.errors import Refused
    from registry.merging.plan import plan_merge
    from registry.merging.recipe import read_recipe
    from registry.store import Store

    store = Store()
    one, other = made_adapters.checkpoint(tmp_path / "a.safetensors"), made_adapters.checkpoint(tmp_path / "b.safetensors", 3)
    file = tmp_path / "recipe.yaml"
    for line in ("params: {{alpha: {ask}}}", "params: {ask}", "extra: {ask}", "name: {ask}"):
        text = line.format(ask=ASKS[ask].format(mark=mark))
        file.write_text(f"method: weighted_sum\nsources: ['{one}', '{other}']\n{text}\n")
        if line.startswith("name") and ask == "resolver":
            continue  # a name is a text, whatever it has
        with pytest.raises(Refused):
            plan_merge(read_recipe(file), store, tmp_path / "out.safetensors")
    store.close()
    assert not mark.exists()


@pytest.mark.parametrize("ask", ASKS)
def test_the_config_of_a_run_calls_nothing(ask: str, mark: Path, tmp_path: Path) -> None:
    from registry.errors import Refused
    from train.config import TrainConfig, read_yaml, to_plain

    plain = {**to_plain(TrainConfig()), "name": "x"}
    file = tmp_path / "config.yaml"
    for name in ("steps", "optim", "data"):
        import yaml

        rest = yaml.safe_dump({key: value for key, value in plain.items() if key != name})
        file.write_text(f"{rest}{name}: {ASKS[ask].format(mark=mark)}\n")
        with pytest.raises(Refused):
            read_yaml(file)
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("line", ["lr: {ask}", "params: {ask}", "extra: {ask}", "args: {ask}"])
def test_a_preset_calls_nothing(ask: str, line: str, mark: Path, tmp_path: Path) -> None:
    preset = tmp_path / "conf" / "optim" / "mine.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text(f"name: adamw\n{line.format(ask=ASKS[ask].format(mark=mark))}\n")
    outcome, shown = outcome_of(command("train", "--config-dir", tmp_path / "conf", "optim=mine", "base=pocket", "--cfg", "job"))
    assert outcome in ("refused", "done"), shown  # args of an optimizer are any values: the settings are shown, and nothing is called
    assert not mark.exists()
