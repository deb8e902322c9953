"""The engine: bytes, dtypes, bounds, refusals, and what a killed process leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from registry.errors import BadFile, Faults, JobFailed, Refused
from registry.files import direct_output
from registry.formats.hashing import hash_file
from registry.formats.safetensors_header import read_header
from registry.merging import stream
from registry.merging.job import merge
from registry.merging.reproduce import reproduce
from registry.store import Store
from tests.patience import PATIENCE
from tests.registry.merging.models import NAMES, POSITIONS, UNET, read, recipe, tensors, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path / "a.safetensors", tensors(1)), written(tmp_path / "b.safetensors", tensors(2))


def test_a_merge_is_the_method_on_every_tensor_and_the_integers_of_the_first(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    done = merge(recipe(*pair, params={"alpha": 0.3}), store, tmp_path / "out.safetensors")
    found, a, b = read(done.output), tensors(1), tensors(2)
    assert done.result["keys"] == {"merged": len(NAMES), "copied": 1, "skipped": 0}
    assert all(found[name].equal(a[name].lerp(b[name], 0.3)) for name in NAMES)
    assert found[POSITIONS].equal(a[POSITIONS]) and found[POSITIONS].dtype == torch.int64


def test_weight_nothing_gives_the_first_source_to_the_bit(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    done = merge(recipe(*pair, params={"alpha": 0.0}), store, tmp_path / "out.safetensors")
    assert done.result["tensors_sha256"] == hash_file(pair[0])[0].tensors_sha256


@pytest.mark.parametrize(
    ("method", "params"),
    [("weighted_sum", {"alpha": 0.37}), ("slerp", {"alpha": 0.37}), ("ties", {"density": 0.3}), ("della", {}), ("cosine", {}), ("sce", {})],
)
def test_the_bytes_do_not_depend_on_threads_or_memory(
    method: str, params: dict[str, object], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CHUNK", 1 << 10)  # many chunks a tensor, an odd last one
    monkeypatch.setattr(stream, "BLOCK", 1 << 8)
    paths = [written(tmp_path / f"{n}.safetensors", tensors(n, shape=(37, 91), dtype=torch.float16)) for n in (1, 2, 3)]
    sources = paths[:2] if method in ("weighted_sum", "slerp", "cosine") else paths
    hashes = set()
    for threads, memory in ((1, 512), (3, 512), (4, 200)):
        output = tmp_path / f"out-{threads}-{memory}" / "out.safetensors"
        hashes.add(
            merge(recipe(*sources, method=method, params=params), store, output, threads=threads, memory_mib=memory).result["sha256"]
        )
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("word", "dtype"),
    [
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
        ("fp32", torch.float32),
        ("fp8_e4m3", torch.float8_e4m3fn),
        ("fp8_e5m2", torch.float8_e5m2),
    ],
)
def test_any_float_in_and_out(word: str, dtype: torch.dtype, store: Store, tmp_path: Path) -> None:
    a, b = tensors(1, dtype=dtype), tensors(2, dtype=torch.float16)
    paths = written(tmp_path / "a.safetensors", a), written(tmp_path / "b.safetensors", b)
    kept = read(merge(recipe(*paths), store, tmp_path / "kept.safetensors").output)
    wide = read(merge(recipe(*paths, dtype="fp32"), store, tmp_path / "wide.safetensors").output)
    asked = read(merge(recipe(paths[1], paths[1], dtype=word), store, tmp_path / "asked.safetensors").output)
    for name in NAMES:
        wanted = a[name].float().lerp(b[name].float(), 0.5)
        assert kept[name].dtype == dtype and kept[name].float().equal(wanted.to(dtype).float())
        assert wide[name].equal(wanted) and asked[name].float().equal(b[name].to(dtype).float())


@pytest.mark.parametrize("way", ["past the cache", "refused", "small"])
def test_the_file_is_the_librarys_whatever_is_in_it_and_however_it_is_written(
    way: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd sizes, tensors over many chunks, scalars, none, flags, integers, eight bits: as the reference library would save them."""
    monkeypatch.setattr(stream, "CHUNK", 1 << 10)
    monkeypatch.setattr(stream, "BLOCK", 1 << 8)
    monkeypatch.setattr(direct_output, "LEAST", 0 if way != "small" else 1 << 40)
    monkeypatch.setattr(direct_output, "BUFFER", 1 << 13)
    if way == "refused":
        monkeypatch.setattr(direct_output, "set_direct", lambda descriptor, wanted: False)
    generator = torch.Generator().manual_seed(7)
    floats = {
        f"{UNET}.out.{index}.weight": torch.randn(shape, generator=generator).to(dtype)
        for index, (shape, dtype) in enumerate(
            [
                ((67, 91), torch.float16),
                ((3, 7), torch.bfloat16),
                ((), torch.float32),
                ((1,), torch.float16),
                ((1025,), torch.float64),
                ((33, 5), torch.float8_e4m3fn),
                ((9,), torch.float8_e5m2),
                ((0, 3), torch.float16),
            ]
        )
    }
    others = {
        f"{UNET}.flags": torch.arange(4099) % 3 == 0,
        f"{UNET}.bytes": torch.arange(5, dtype=torch.uint8),
        f"{UNET}.count": torch.tensor(7),
        f"{UNET}.wide": torch.arange(2053, dtype=torch.int16),
    }
    first, second = floats | others, {name: -value.float() for name, value in floats.items()} | others
    paths = written(tmp_path / "a.safetensors", first), written(tmp_path / "b.safetensors", second)
    done = merge(recipe(*paths, params={"alpha": 0.25}), store, tmp_path / "out.safetensors", threads=2)
    wanted = {
        name: value.to(wide).lerp(second[name].to(wide), 0.25).to(value.dtype) if value.numel() else value
        for name, value in floats.items()
        for wide in [torch.float64 if value.dtype == torch.float64 else torch.float32]
    }
    save_file(wanted | others, tmp_path / "wanted.safetensors", metadata={"format": "pt"})
    found, library = read_header(done.output), read_header(tmp_path / "wanted.safetensors")
    assert (found.tensors, found.offsets) == (library.tensors, library.offsets)
    assert done.output.read_bytes()[found.data_start :] == (tmp_path / "wanted.safetensors").read_bytes()[library.data_start :]
    assert done.result["sha256"] == hash_file(done.output)[0].sha256


def test_markers_without_elements_are_carried(store: Store, tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{n}.safetensors", tensors(n) | {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}) for n in (1, 2)]
    assert {"v_pred", "ztsnr"} <= set(read(merge(recipe(*paths), store, tmp_path / "out.safetensors").output))


def test_what_the_dtype_cannot_hold_is_refused_with_key_and_place(store: Store, tmp_path: Path) -> None:
    a = tensors(1)
    a[NAMES[3]][2, 1] = 70000.0
    paths = written(tmp_path / "a.safetensors", a), written(tmp_path / "b.safetensors", tensors(2))
    with pytest.raises(
        JobFailed, match=r"input_blocks\.2\.0\.weight is 70000 at \[2, 1\], more than F16 holds \(65504\)\. Write dtype=bf16"
    ):
        merge(recipe(*paths, params={"alpha": 0.0}, dtype="fp16"), store, tmp_path / "out.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors", "home"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_with_the_source_that_has_them(value: float, store: Store, tmp_path: Path) -> None:
    b = tensors(2)
    b[NAMES[-1]][0, 3] = value
    paths = written(tmp_path / "a.safetensors", tensors(1)), written(tmp_path / "b.safetensors", b)
    with pytest.raises(JobFailed, match=r"conv_in\.weight is .* at \[0, 3\]: b\.safetensors has"):
        merge(recipe(*paths), store, tmp_path / "out.safetensors")
    with pytest.raises(JobFailed, match=r"b\.safetensors has"):  # a copy is looked at too
        merge(recipe(paths[1], paths[0], components=["denoiser"]), store, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_difference_in_a_part_of_the_tensor_is_merged_there(store: Store, tmp_path: Path) -> None:
    """Add-difference to an inpainting UNet: nine input channels, of which the first four are the image's."""
    name, words = f"{UNET}.input_blocks.0.0.weight", "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    inpaint, tuned, base = ({name: torch.full((2, 4, 1, 1), value), words: torch.full((3, 2), value)} for value in (1.0, 5.0, 3.0))
    for model in (inpaint, tuned, base):
        model[f"{UNET}.out.2.weight"] = torch.ones(3)
    inpaint[name], inpaint[words] = torch.full((2, 9, 1, 1), 1.0), torch.full((4, 2), 1.0)
    paths = [written(tmp_path / f"{n}.safetensors", value) for n, value in enumerate((inpaint, tuned, base))]
    with pytest.raises(Faults, match=r"different shapes: \[2, 9, 1, 1\] and \[2, 4, 1, 1\]\. mismatch=overlap"):
        merge(recipe(*paths, method="add_difference"), store, tmp_path / "out.safetensors")
    found = read(merge(recipe(*paths, method="add_difference", mismatch="overlap"), store, tmp_path / "out.safetensors").output)
    assert found[name][:, :4].eq(3.0).all() and found[name][:, 4:].eq(1.0).all()
    assert found[words][:3].eq(3.0).all() and found[words][3:].eq(1.0).all()
    copied = read(merge(recipe(*paths, method="add_difference", mismatch="first"), store, tmp_path / "copied.safetensors").output)
    assert copied[name].equal(inpaint[name])


def test_fp64_arithmetic_is_closer(store: Store, tmp_path: Path) -> None:
    values = [{f"{UNET}.out.2.weight": torch.rand(1000, generator=torch.Generator().manual_seed(n)) * 10**n} for n in (1, 2, 3)]
    paths = [written(tmp_path / f"{n}.safetensors", value) for n, value in enumerate(values)]
    exact = torch.stack([value[f"{UNET}.out.2.weight"].double() for value in values]).mean(dim=0)
    wide = read(merge(recipe(*paths, method="average", precision="fp64"), store, tmp_path / "out.safetensors").output)
    narrow = read(merge(recipe(*paths, method="average"), store, tmp_path / "narrow.safetensors").output)
    errors = [float(((found[f"{UNET}.out.2.weight"].double() - exact) / exact).abs().max()) for found in (wide, narrow)]
    assert errors[0] <= 2**-24 * 1.01 < errors[1]  # the one rounding to fp32 at the end, and nothing else


def test_what_was_written_is_not_read_again_to_be_registered(
    pair: tuple[Path, Path], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in pair:
        store.add(path)
    with monkeypatch.context() as patch:
        patch.setattr(
            "registry.index.storage.hash_cache.hash_file", lambda *arguments, **options: pytest.fail("a file was read to be hashed")
        )
        done = merge(recipe(*pair), store, tmp_path / "out.safetensors")
    hashes = hash_file(done.output)[0]
    assert done.record is not None and done.record.hashes == hashes and done.result["sha256"] == hashes.sha256


# --- whole or not there


def test_a_source_that_changes_meanwhile_is_seen(
    pair: tuple[Path, Path], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meddle(*arguments: object) -> None:
        os.utime(pair[1], ns=(1, 1))

    monkeypatch.setattr(stream, "_reserve", meddle)
    with pytest.raises(JobFailed, match=r"b\.safetensors changed while it was read"):
        merge(recipe(*pair), store, tmp_path / "out.safetensors")
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".tmp*"))


def test_a_full_disk_is_reported_and_leaves_nothing(
    pair: tuple[Path, Path], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stream, "_reserve", full)
    with pytest.raises(JobFailed, match=r"out.safetensors cannot be written: the disk is full\. It needs [\d,]+ bytes"):
        merge(recipe(*pair), store, tmp_path / "out.safetensors")
    assert not list(tmp_path.glob(".tmp*"))


SLOW_MERGE = """
import sys, time
from pathlib import Path
from registry.merging import stream
from registry.merging.job import merge
from registry.store import Store
from tests.registry.merging.models import recipe
original = stream._put
def slow(*arguments):
    original(*arguments)
    arguments[0].flush()
    print("wrote", flush=True)
    time.sleep(0.2)
stream._put = slow
folder = Path(sys.argv[1])
merge(recipe(folder / "a.safetensors", folder / "b.safetensors"), Store(folder / "home"), folder / "out.safetensors")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_merge_leaves_no_model(how: signal.Signals, pair: tuple[Path, Path], tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_MERGE, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == "wrote\n"
    process.send_signal(how)
    process.wait(timeout=PATIENCE)
    process.stdout.close()
    left = [path for path in tmp_path.iterdir() if path.name not in ("a.safetensors", "b.safetensors", "home")]
    left = [path for path in left if not path.name.endswith("-lock")]
    assert len(left) == (how == signal.SIGKILL)  # ctrl-C cleans up
    for path in left:
        assert path.name.startswith(".tmp-out.safetensors-")
        with pytest.raises(BadFile):
            read_header(path)


@pytest.mark.slow
def test_a_second_merge_to_the_same_output_is_refused_and_a_killed_ones_half_is_removed(
    pair: tuple[Path, Path], store: Store, tmp_path: Path
) -> None:
    root, output = Path(__file__).resolve().parents[3], tmp_path / "out.safetensors"
    with subprocess.Popen([sys.executable, "-c", SLOW_MERGE, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "wrote\n"
        with pytest.raises(Refused, match=r"out\.safetensors is being written by another process"):
            merge(recipe(*pair, params={"alpha": 0.7}), store, output)
        process.kill()
    store.add(pair[0])
    (half,) = (item for item in store.garbage().items if not item.path.endswith("-lock"))
    assert half.why == "unfinished" and Path(half.path).name.startswith(".tmp-out.safetensors-") and half.bytes > 0
    done = merge(recipe(*pair, params={"alpha": 0.7}), store, output)
    assert not list(tmp_path.glob(".tmp-*")) and store.garbage().items == []
    assert done.record is not None and done.record.recipe is not None and done.record.recipe["params"] == {"alpha": 0.7}


def test_gc_deletes_what_a_killed_merge_left(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    store.add(pair[0])
    half = tmp_path / ".tmp-out.safetensors-0123456789abcdef"
    half.write_bytes(bytes(1000))
    foreign = tmp_path / ".tmp-another-tools.part"
    foreign.write_bytes(b"x")
    assert store.garbage(apply=True).bytes == 1000
    assert not half.exists() and foreign.exists()


def test_a_recipe_is_registered_only_with_the_bytes_that_were_written(
    pair: tuple[Path, Path], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, other = tmp_path / "out.safetensors", written(tmp_path / "other.safetensors", tensors(5))

    def replaced(_folder: Path) -> None:
        if other.exists():
            other.replace(output)

    monkeypatch.setattr("registry.formats.atomic_file.sync_folder", replaced)
    with pytest.raises(JobFailed, match="replaced by another process"):
        merge(recipe(*pair, params={"alpha": 0.3}), store, output)
    monkeypatch.undo()
    assert [record.recipe for record in store.records() if record.recipe] == []


@pytest.mark.slow
def test_memory_stays_under_the_cap(store: Store, tmp_path: Path) -> None:
    """96 MiB tensors in fp32, three at a time, under a cap of 128 MiB."""
    big = torch.zeros(24 << 20)
    big[:5] = torch.tensor([3.0, -1.0, 2.0, 0.5, 4.0])
    paths = [written(tmp_path / f"{n}.safetensors", {f"{UNET}.out.2.weight": (big * n).half()}) for n in (1, 2, 3)]
    del big
    before = stream.anonymous_mib()
    done = merge(recipe(*paths, method="ties"), store, tmp_path / "out.safetensors", memory_mib=128, threads=2)
    assert done.result["peak_mib"] - before < 128 + 100  # what the libraries keep for themselves is not ours


def test_reproduce_gives_the_same_hash_also_when_a_source_was_moved(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    for path in pair:
        store.add(path)
    merge(recipe(*pair, params={"alpha": 0.4}), store, tmp_path / "mix.safetensors")
    moved = tmp_path / "elsewhere" / "renamed.safetensors"
    moved.parent.mkdir()
    os.rename(pair[1], moved)
    store.scan(moved.parent, hash=True)
    again = reproduce("mix", store, tmp_path / "scratch")
    assert again.same and again.expected == store.find("mix").hashes.sha256


def test_reproduce_knows_the_licences_of_then(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    """They are in the header; one that is set or changed later changes nothing of what was made."""
    store.add(pair[0], name="first", licence="mit")
    merge(recipe("first", pair[1]), store, tmp_path / "out.safetensors")
    for source, licence in (("first", "cc-by-nc-4.0"), (str(pair[1]), "apache-2.0")):
        store.add(store.find(source).path or "", licence=licence)
    (tmp_path / "scratch").mkdir()
    assert reproduce("out", store, tmp_path / "scratch").same
