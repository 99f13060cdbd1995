"""A download survives what passes, ends in one clear error where it does not, and is checked to the last bit."""

import pytest
from conftest import assert_same_encoder
from servers import WEIGHTS

import tools


@pytest.mark.parametrize(
    "faults", [["cut"], ["cut", "cut", 503], [503, 500], ["truncated"], ["html"], ["damaged"], ["slow"], [429]]
)
@pytest.mark.parametrize("digest", ["sha256", "git"])
def test_a_fault_on_the_way_does_not_matter(tmp_path, hub, bert_files, load_state, faults, digest):
    hub.digest = digest
    hub.faults[WEIGHTS] = [*faults]
    assert_same_encoder(tools.load_model("me/tiny", tmp_path), load_state(bert_files()))
    ranges = [start for method, path, start in hub.requests if method == "GET" and path.endswith("safetensors")]
    assert len(ranges) == len(faults) + (faults != ["slow"])
    assert faults[0] != "cut" or ranges[1].startswith("bytes=")


@pytest.mark.parametrize(
    ("path", "faults", "message"),
    [
        (WEIGHTS, [503] * 9, "503"),
        (WEIGHTS, ["truncated"] * 9, "file should be of size"),
        (WEIGHTS, ["damaged"] * 9, "model.safetensors came damaged"),
        ("/me/tiny/resolve/main/vocab.txt", ["damaged"] * 9, "vocab.txt came damaged"),
        (WEIGHTS, [403], "403"),
        # out of reach is not the same as not there: guessing the casing would be wrong
        ("HEAD /me/tiny/resolve/main/tokenizer_config.json", [503] * 99, "LocalEntryNotFoundError"),
    ],
)
def test_a_fault_that_stays_is_one_clear_error_and_leaves_nothing(
    tmp_path, hub, bert_files, load_state, path, faults, message
):
    hub.faults[path] = faults
    with pytest.raises(
        FileNotFoundError, match=rf"(?s)'me/tiny'.*{message}.*put its archive at .*me--tiny\.tar\.gz by hand"
    ):
        tools.load_model("me/tiny", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.tar.gz"))
    hub.faults.clear()  # and the next run trusts nothing that this one left
    assert_same_encoder(tools.load_model("me/tiny", tmp_path / "cache"), load_state(bert_files()))
