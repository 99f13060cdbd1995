"""Precision, versions, and what each of several processes computes and prints."""

import os
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import accelerate
import numpy as np
import pytest
import torch
from conftest import ROOT
from tiny import make_features, make_model

from textbert.features import batching
from textbert.model.prediction import predict_logits
from textbert.training import distributed

SHAPES = """
import torch
from textbert.training.distributed import make_accelerator

make_accelerator()
weights = torch.ones(16, 16, dtype=torch.bfloat16)
for again in range(2):
    for rows in range(16, 1300):
        torch.ones(rows, 16, dtype=torch.bfloat16) @ weights
    print("AGAIN" if again == 0 else "", flush=True)
"""


def test_precision_is_one_that_this_machine_has():
    assert distributed.choose_mixed_precision() in ("no", "bf16")
    if not torch.cuda.is_available() and not torch.cpu.get_capabilities().get("amx_bf16"):
        assert distributed.choose_mixed_precision() == "no"


@pytest.mark.parametrize("has_amx", [True, False, None], ids=["AMX", "no AMX", "torch without get_capabilities"])
def test_precision_and_padding_depend_on_amx(monkeypatch, has_amx):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has_amx})
    if has_amx is None:  # torch 2.9 and older
        monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert distributed.choose_mixed_precision() == ("bf16" if has_amx else "no")
    assert batching.has_tensor_cores_or_amx.__wrapped__() == bool(has_amx)
    assert distributed.get_environment()["device"].endswith("bfloat16" if has_amx else "float32")


@pytest.mark.parametrize(("precision", "name"), [("no", "float32"), ("bf16", "bfloat16")])
def test_environment_has_versions_and_precision(monkeypatch, precision, name):
    monkeypatch.setattr(distributed, "choose_mixed_precision", lambda: precision)
    environment = distributed.get_environment()
    assert list(environment)[0] == "python" and environment["torch"] == metadata.version("torch")
    assert environment["pytorch-pretrained-bert"] == "0.6.2"
    assert environment["device"].endswith(f"CPU cores, training in {name}")


@pytest.mark.parametrize(("apple", "name"), [(False, "CPU"), (True, "Apple GPU")])
def test_environment_has_the_device_of_accelerate(monkeypatch, apple, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
    assert distributed.get_environment()["device"].startswith(f"{name}, ")


def test_fewer_processes_than_started_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(accelerate, "Accelerator", lambda **_: SimpleNamespace(num_processes=1))
    with pytest.raises(RuntimeError, match="WORLD_SIZE is 2 but only 1 process joined"):
        distributed.make_accelerator()


@pytest.mark.parametrize(("world", "cpu"), [(None, None), (1, None), (3, True)])
def test_accelerate_is_told_about_processes_on_cpus(monkeypatch, world, cpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        accelerate, "Accelerator", lambda **options: SimpleNamespace(num_processes=world or 1, **options)
    )
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    if world:
        monkeypatch.setenv("WORLD_SIZE", str(world))
        monkeypatch.setenv("RANK", "0")
    accelerator = distributed.make_accelerator()
    assert accelerator.cpu is cpu and accelerator.mixed_precision == distributed.choose_mixed_precision()


def make_processes(count):
    """Return a stand-in for the accelerator of each of so many processes."""
    options = {"num_processes": count, "device": "cpu", "reduce": lambda tensor: tensor}
    return [SimpleNamespace(process_index=rank, is_main_process=rank == 0, **options) for rank in range(count)]


@pytest.mark.parametrize(("rows", "processes"), [(7, 1), (7, 2), (7, 7), (7, 9), (1, 3)])
def test_shards_make_up_the_batch(rows, processes):
    batch = np.arange(rows)[::-1]
    shards = [distributed.shard_batch(batch, accelerator) for accelerator in make_processes(processes)]
    assert sorted(np.concatenate([shard for shard, weight in shards if weight == 1.0])) == list(range(rows))
    assert all(len(shard) == 1 for shard, weight in shards if weight == 0.0)
    assert max(len(shard) for shard, _ in shards) - min(len(shard) for shard, _ in shards) <= 1


def test_all_reduce_sum_returns_floats():
    (accelerator,) = make_processes(1)
    sums = distributed.all_reduce_sum(accelerator, torch.tensor(0.5), True, 3)
    assert sums == [0.5, 1.0, 3.0] and {type(value) for value in sums} == {float}


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_shards_of_a_prediction_add_up(tokenizers, monkeypatch, processes):
    features, model, rows = make_features(tokenizers["uncased"]), make_model(spread=0.2), np.array([7, 0, 12, 3])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: processes)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    shards = []
    for rank in range(processes):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shards.append(distributed.predict_distributed(model, features, 3, rows))
    np.testing.assert_allclose(sum(shards), predict_logits(model, features, 4, rows, progress=False), atol=1e-5)
    assert sum((shard != 0).any(1).astype(int) for shard in shards).tolist() == [1, 1, 1, 1]  # each row by one process


def test_world_size_without_an_address_is_one_process(monkeypatch, capsys, fresh_accelerator):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert distributed.make_accelerator().num_processes == 1
    assert "WORLD_SIZE is '4', but MASTER_ADDR is not set" in capsys.readouterr().out
    assert "RANK" not in os.environ


def test_kernel_cache_is_enlarged_unless_its_size_is_set(monkeypatch, fresh_accelerator):
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    distributed.make_accelerator()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    distributed.make_accelerator()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "8192"


@pytest.mark.skipif(distributed.choose_mixed_precision() != "bf16", reason="no bfloat16 on this CPU")
def test_kernel_of_a_repeated_shape_is_not_compiled_again(tmp_path):
    """More shapes than the 1,024 that oneDNN caches by default, twice."""
    (tmp_path / "shapes.py").write_text(SHAPES)
    environment = {**os.environ, "ONEDNN_VERBOSE": "2", "PYTHONPATH": str(ROOT)}
    environment.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)
    result = subprocess.run(
        [sys.executable, "shapes.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    first, second = result.stdout.split("AGAIN")
    assert first.count("create:cache_miss") > 1100
    assert second.count("create:cache_miss") == 0 and second.count("create:cache_hit") > 1100


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LOCAL_RANK": "0"}, ""),
        ({"LOCAL_RANK": "3", "RANK": "7", "GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, ""),
        ({"WORLD_SIZE": "1", "RANK": "3", "LOCAL_RANK": "3", "MASTER_ADDR": "127.0.0.1"}, ""),
        ({"WORLD_SIZE": "", "LOCAL_RANK": "", "MASTER_ADDR": "127.0.0.1"}, ""),
        ({"WORLD_SIZE": "abc", "LOCAL_RANK": "0"}, "WORLD_SIZE is 'abc', which is not a number of processes"),
        ({"WORLD_SIZE": "0", "MASTER_ADDR": "127.0.0.1"}, "WORLD_SIZE is '0', which is not a number of processes"),
        ({"WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1"}, "WORLD_SIZE is '4', but RANK is not set"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_SIZE is '4', but MASTER_ADDR"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2"}, ""),
    ],
)
def test_variables_left_by_a_launcher_do_not_stop_a_single_process(
    monkeypatch, capsys, fresh_accelerator, variables, message
):
    for name in (*distributed.WORLD_SIZE_VARS, *distributed.RANK_VARS, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distributed.make_accelerator().num_processes == 1
    printed = capsys.readouterr().out
    assert message in printed and bool(message) == bool(printed)


@pytest.mark.parametrize("rank", ["4", "-1", "x"])
def test_impossible_rank_is_refused(monkeypatch, rank):
    for name, value in {"WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "RANK": rank}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match=f"RANK is '{rank}' and WORLD_SIZE is '4', expected a rank from 0 to 3"):
        distributed.make_accelerator()


def test_missing_package_is_reported_as_not_installed(monkeypatch):
    version = metadata.version

    def find(package):
        if package in ("accelerate", "scikit-learn"):
            raise metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(metadata, "version", find)
    environment = distributed.get_environment()
    assert environment["accelerate"] == environment["scikit-learn"] == "not installed"
    assert environment["numpy"] == version("numpy")
