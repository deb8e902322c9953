"""Hydra, tamed: what reaches a job, and what is refused before it starts."""

import json
from pathlib import Path

import pytest

from loraloom.commands.train import job as train_job
from loraloom.hydra.job import Job, Request
from loraloom.hydra.run import configure, run_job
from registry.errors import Faults, Refused
from tests.loraloom.toy import Mode, Toy

EVIL = [
    "a cat, in (a red) hat!",
    "[brackets] {braces} ~tilde",
    "Umläute, ß, 猫",
    "costs ${5} or ${oc.env:HOME} or \\${x}",
    "2024_01",
    "1e3",
    "true",
    "a=b=c",
    " spaces at both ends ",
    "it's \"quoted\" 'twice'",
    "back\\slash\\",
    "C:\\models\\a b.safetensors",
    "50% #1 @home *.png; rm -rf /",
    "glob(*)",
    "two\nlines\tand a tab",
    "",
    "/.*(a|b){1,2}.*/",
    "None",
]


def refused(job: Job[Toy], *argv: str) -> str:
    with pytest.raises(Refused) as caught:
        run_job(job, argv)
    return str(caught.value)


@pytest.mark.parametrize("text", EVIL)
def test_a_text_arrives_as_typed(toy: Job[Toy], toy_runs: list[Request[Toy]], text: str) -> None:
    assert run_job(toy, [f"prompt={text}", f"knobs.label={text}"]) == 0
    assert (toy_runs[0].config.prompt, toy_runs[0].config.knobs.label) == (text, text)


@pytest.mark.slow
def test_a_text_arrives_as_typed_in_every_run_of_a_sweep(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    text = 'a cat, ${x} \\${y} it\'s [red], "blue" \\'
    assert run_job(toy, ["--multirun", f"prompt={text}", "steps=1,2"]) == 0
    assert [(run.config.prompt, run.config.steps) for run in toy_runs] == [(text, 1), (text, 2)]


@pytest.mark.slow
def test_quoted_texts_keep_hydras_rules(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    run_job(toy, ["-m", 'prompt="a, b","${sampler}"', "sampler=euler,heun"])
    assert [run.config.prompt for run in toy_runs] == ["a, b", "a, b", "euler", "heun"]


def test_an_open_setting_takes_lists_numbers_and_what_the_grammar_cannot_read(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    for argument in ("size=64", "size=96x64", "size=[96,64]", 'size=["a, b",c]', "size=/.*(a|b).*/"):
        run_job(toy, [argument])
    assert [run.config.size for run in toy_runs] == [64, "96x64", [96, 64], ["a, b", "c"], "/.*(a|b).*/"]


def test_null_is_none_where_it_may_be(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    run_job(toy, ["negative=null", "prompt=null"])
    assert (toy_runs[0].config.negative, toy_runs[0].config.prompt) == (None, "null")


def test_values_come_as_the_schema_has_them(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    run_job(toy, ["mode=careful", "knobs={rank: 8}", "words=[a,'b c']", "knobs.rate=1"])
    config = toy_runs[0].config
    assert (config.mode, config.knobs.rank, config.words, config.knobs.rate) == (Mode.careful, 8, ["a", "b c"], 1.0)


def test_a_whole_number_that_no_float_holds_is_no_number(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    assert "knobs.rate=999" in refused(toy, f"knobs.rate={'9' * 400}")
    assert toy_runs == []


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_typo_is_refused_with_every_sign(toy: Job[Toy], toy_runs: list[Request[Toy]], sign: str) -> None:
    assert "there is no setting 'stpes'. Did you mean 'steps'?" in refused(toy, f"{sign}stpes=5")
    assert toy_runs == []


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("rank=4", "Did you mean 'knobs.rank'?"),
        ("knobs.rnak=4", "Did you mean 'knobs.rank'?"),
        ("knobs={rnak: 4}", "Did you mean 'knobs.rank'?"),
        ("mdoel=small", "Did you mean 'model'?"),
        ("model=smal", "Did you mean 'small'? There are: large, small."),
        ("model=zzz", "Known: large, small."),
        ("knobs=wdie", "Did you mean 'wide'?"),
        ("steps=abc", "expected a whole number."),
        ("steps=1e1", "Did you mean 10?"),
        ("steps=(1", "expected a whole number."),
        ("knobs={rank: x}", "knobs.rank: expected a whole number."),
        ("mode=carefull", "expected quick or careful. Did you mean 'careful'?"),
        ("words=a", "expected a list of texts, [...] or null."),
        ("words=[a!, b]", """Did you mean 'words=["a!",b]'?"""),
        ("words=a,b", "--multirun runs. A list is 'words=[a,b]'."),
        ("steps=1,2", "several values make a sweep, which --multirun runs."),
        ("model=small,large", "several presets make a sweep"),
        ("~steps", "a setting cannot be taken away"),
        ("steps", "'steps' is no setting. Expected KEY=VALUE; --help lists them."),
        ("hydra.run.dir=x", "this setting of Hydra cannot act here: runs make their own folders. Give out=DIR"),
        ("hydra/launcher=basic", "launchers and sweepers act only with --multirun."),
        ("hydra.mode=MULTIRUN", "--multirun (-m) is how loraloom sweeps"),
        ("--config-name=x", "a job has one config"),
        ("--info=defalts", "Did you mean 'defaults'"),
        ("--dry-run", "settings have no dashes. Did you mean 'dry_run=true'?"),
        ("--steps=5", "settings have no dashes. Did you mean 'steps=5'?"),
        ("--cfg=jb", "Did you mean 'job'?"),
        ("--cfg", "--cfg needs a value after it."),
        ('prompt="${nothing}"', "the signs themselves are written \\${...}"),
        ("--multrun", "Did you mean '--multirun'?"),
        ("model=large", "prompt=... must be given: what to draw."),
        ("steps=0", "steps must be at least 1, got 0."),
    ],
)
def test_what_is_wrong_is_refused_with_what_to_do(toy: Job[Toy], toy_runs: list[Request[Toy]], argument: str, words: str) -> None:
    assert words in refused(toy, argument)
    assert toy_runs == []
    assert list(Path.cwd().iterdir()) == []


def test_a_setting_with_dashes_and_a_space_is_answered_with_itself(toy: Job[Toy]) -> None:
    assert "--steps 5: settings have no dashes. Did you mean 'steps=5'?" in refused(toy, "--steps", "5")
    assert "Did you mean '--config-dir'?" in refused(toy, "--config_dir", "mine")
    assert "does not know --." in refused(toy, "--", "5")


def test_no_number_is_offered_that_a_float_does_not_hold(toy: Job[Toy]) -> None:
    assert "Did you mean" not in refused(toy, "steps=1e99")


def test_of_two_values_the_last_wins_with_a_note(toy: Job[Toy], toy_runs: list[Request[Toy]], capsys: pytest.CaptureFixture[str]) -> None:
    run_job(toy, ["steps=3", "+steps=5"])
    assert toy_runs[0].config.steps == 5
    assert capsys.readouterr().err == "note: steps=3 is ignored: overridden by +steps=5\n"


@pytest.mark.parametrize(
    ("before", "after", "value"), [("{a: 1, b: 2}", "{a: 3}", {"a": 3}), ("{a: 1}", "[3]", [3]), ("[1]", "{a: 3}", {"a": 3})]
)
def test_nothing_is_left_of_a_record_that_is_overridden(
    toy: Job[Toy], toy_runs: list[Request[Toy]], capsys: pytest.CaptureFixture[str], before: str, after: str, value: object
) -> None:
    run_job(toy, [f"size={before}", f"size={after}"])
    assert toy_runs[0].config.size == value
    assert capsys.readouterr().err == f"note: size={before} is ignored: overridden by size={after}\n"


@pytest.mark.parametrize(
    ("words", "rank", "label", "ignored"),
    [
        (["knobs=wide", "knobs={rank: 4}"], 4, "wide", None),
        (["knobs={rank: 4}", "knobs=wide"], 4, "wide", None),
        (
            ["knobs={rank: 4}", "knobs={label: mine}", "knobs=wide"],
            64,
            "mine",
            "knobs={rank: 4} is ignored: overridden by knobs={label: mine}",
        ),
        (["knobs.rank=4", "knobs={rank: 8}"], 8, None, "knobs.rank=4 is ignored: overridden by knobs={rank: 8}"),
        (["knobs={rank: 8}", "knobs.rank=4"], 4, None, "knobs={rank: 8} is ignored: overridden by knobs.rank=4"),
        (["knobs={rank: 8, label: mine}", "knobs.rank=4"], 4, "mine", None),
        (["knobs=wide", "~knobs"], 2, None, "knobs=wide is ignored: overridden by ~knobs"),
        (["knobs=wide", "~knobs=wide"], 2, None, "knobs=wide is ignored: overridden by ~knobs=wide"),
        (["~knobs", "knobs=wide"], 64, "wide", "~knobs is ignored: overridden by knobs=wide"),
    ],
)
def test_a_record_of_a_section_goes_with_its_preset_and_what_it_overrides_is_said(
    toy: Job[Toy],
    toy_runs: list[Request[Toy]],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    rank: int,
    label: str | None,
    ignored: str | None,
) -> None:
    run_job(toy, words)
    assert (toy_runs[0].config.knobs.rank, toy_runs[0].config.knobs.label) == (rank, label)
    assert capsys.readouterr().err == (f"note: {ignored}\n" if ignored else "")


def test_a_sweep_drops_no_preset_for_a_record_beside_it(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    words = refused(toy, "--multirun", "steps=1,2", "knobs=wide", "knobs={rank: 4}")
    assert "knobs=wide and knobs={rank: 4}: a sweep takes one of them. Give what is in the record by its own name: knobs.rank=..." in words
    assert toy_runs == []


def test_all_faults_are_reported_at_once(toy: Job[Toy]) -> None:
    with pytest.raises(Faults) as caught:
        run_job(toy, ["stpes=5", "model=smal", "mode=x", "words=[!]", "steps=3", "knobs.rank=y"])
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["stpes=5", "model=smal", "mode=x", "words=[!]", "knobs.rank=y"]


def test_a_value_out_of_range_is_reported_with_what_cannot_be_read() -> None:
    with pytest.raises(Faults) as caught:
        configure(train_job(), "stpes=5", "optim.lr=-1", "batch_size=0")
    assert [fault.split()[0] for fault in caught.value.faults] == ["stpes=5:", "batch_size", "optim.lr"]


@pytest.mark.slow
def test_what_the_plan_finds_is_reported_with_what_is_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(Faults) as caught:
        run_job(train_job(), ["steps=0", "lora.rank=-1", "base=nobase", f"data.path={tmp_path / 'nodata'}", "optim.name=adm"])
    reported = str(caught.value)
    for words in ("steps must be at least 1", "lora.rank must be at least 1", "'nobase'", "nodata", "Unknown optimizer 'adm'"):
        assert words in reported, words


def test_what_was_given_is_reported_apart_from_defaults(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    run_job(toy, ["knobs=wide", "knobs.rank=32", "prompt=a, b"])
    assert dict(toy_runs[0].given) == {"knobs.rank": 32, "knobs.label": "wide", "prompt": "a, b"}
    assert toy_runs[0].config.steps == 20


def test_the_last_line_on_stdout_is_the_run_folder(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(toy, []) == 0
    assert capsys.readouterr().out.splitlines() == [str(Path.cwd() / "runs" / "toy" / "1")]
    assert [path.name for path in Path.cwd().iterdir()] == ["runs"]


def test_a_dry_run_prints_the_plan_and_makes_nothing(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(toy, ["dry_run=true", "steps=3"]) == 0
    assert capsys.readouterr().out == "plan: 3 steps\n"
    assert run_job(toy, ["--json", "dry_run=true", "steps=3"]) == 0
    assert json.loads(capsys.readouterr().out) == {"steps": 3, "given": {"dry_run": True, "steps": 3}}
    assert list(Path.cwd().iterdir()) == []


def test_help_lists_our_settings_and_presets(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(toy, ["--help"]) == 0
    page = capsys.readouterr().out
    assert "knobs.rank   2      how wide" in page  # as composed: the preset taken by default says 2
    assert "model=small * Learns in a minute." in page
    assert "loraloom toy steps=3" in page
    assert "Powered by Hydra" not in page


def test_help_as_json(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(toy, ["--help", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    mode = {"name": "mode", "default": "quick", "type": "quick or careful", "help": "how", "choices": ["quick", "careful"], "closed": True}
    assert page["settings"][4] == mode
    assert page["presets"]["model"]["small"] == "Learns in a minute."


def test_cfg_job_prints_the_config(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(toy, ["--cfg", "job", "steps=7"]) == 0
    assert "steps: 7\n" in capsys.readouterr().out
    assert "Did you mean 'steps'?" in refused(toy, "--cfg", "job", "stpes=7")


def test_presets_of_ones_own(toy: Job[Toy], toy_runs: list[Request[Toy]], tmp_path: Path) -> None:
    (tmp_path / "my own" / "knobs").mkdir(parents=True)
    (tmp_path / "my own" / "knobs" / "mine.yaml").write_text("rank: 7\n")
    run_job(toy, ["--config-dir", str(tmp_path / "my own"), "knobs=mine"])
    assert toy_runs[0].config.knobs.rank == 7
    assert "is no folder" in refused(toy, "--config-dir", "nowhere")
    (tmp_path / "my own" / "knobs" / "mine.yaml").write_text("7")
    assert "NAME: VALUE lines" in refused(toy, "--config-dir", str(tmp_path / "my own"), "knobs=mine")


@pytest.mark.slow
def test_a_sweep_leaves_one_folder_that_lists_its_runs(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(toy, ["--multirun", "knobs.rank=1,2", "model=small", "steps=range(1,3)"]) == 0
    (folder,) = map(Path, capsys.readouterr().out.splitlines())
    result = json.loads((folder / "result.json").read_text())
    assert [(run["number"], run["exit_code"], run["overrides"]) for run in result["runs"]] == [
        (0, 0, ["knobs.rank=1", "model=small", "steps=1"]),
        (1, 0, ["knobs.rank=1", "model=small", "steps=2"]),
        (2, 0, ["knobs.rank=2", "model=small", "steps=1"]),
        (3, 0, ["knobs.rank=2", "model=small", "steps=2"]),
    ]
    assert result["runs"][0]["settings"] == {"knobs.rank": 1, "steps": 1}
    assert [run["folder"] for run in result["runs"]] == [str(Path.cwd() / "runs" / "toy" / str(n)) for n in (1, 2, 3, 4)]


def test_a_sweep_with_one_bad_run_is_refused_before_it_begins(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    message = refused(toy, "-m", "steps=1,0,-1")
    assert "2 of the sweep's runs are refused" in message
    assert "got 0." in message
    assert "got -1." in message
    assert toy_runs == []
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
def test_a_run_of_a_sweep_that_fails_does_not_stop_the_others(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(toy, ["-m", 'prompt="fail","go"']) == 1
    (folder,) = map(Path, capsys.readouterr().out.splitlines())
    runs = json.loads((folder / "result.json").read_text())["runs"]
    assert [(run["exit_code"], run["error"]) for run in runs] == [(1, "the toy broke"), (0, None)]


@pytest.mark.slow
def test_an_interrupt_stops_the_sweep_and_leaves_what_was_done(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_job(toy, ["-m", 'prompt="go","stop","never"'])
    (result,) = Path.cwd().glob("runs/sweeps/*/result.json")
    assert [run["exit_code"] for run in json.loads(result.read_text())["runs"]] == [0, 130]
    assert [run.config.prompt for run in toy_runs] == ["go"]


def test_a_dry_sweep_plans_every_run(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    run_job(toy, ["-m", "steps=1,2", "dry_run=true", "--json"])
    assert [plan["steps"] for plan in json.loads(capsys.readouterr().out)] == [1, 2]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
def test_two_sweeps_in_one_second_do_not_collide(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    run_job(toy, ["-m", "steps=1"])
    run_job(toy, ["-m", "steps=1"])
    first, second = capsys.readouterr().out.splitlines()
    assert first != second


def test_settings_that_are_no_utf8_are_refused_before_the_job(tmp_path: Path) -> None:
    """A path of such a name could not be written to config.yaml, inputs.json or a header; it is found before anything is computed."""
    for setting in (f"out={tmp_path}/\udcff", f"data.path={tmp_path}/\udcff", "name=x\udcff"):
        message = refused(train_job(), "base=pocket", setting)  # type: ignore[arg-type]
        assert message.startswith("Not UTF-8: ") and r"\xff" in message
