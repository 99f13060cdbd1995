"""Data quality: planted issues are found in each split, listed, and dropped from train only."""

import pandas as pd
import pytest

from textbert.data import quality

CLEAN = [
    ("train", 0, "the soup was cold"),
    ("train", 1, "a lovely place"),
    ("train", 0, "never again"),
    ("dev", 1, "good tea"),
    ("dev", 0, "bad tea"),
]
PLANTED = {  # (split, label, text) -> the issues of this row
    ("train", 0, "The  SOUP was cold "): [quality.REPEATED],
    ("train", 0, "a lovely place"): [quality.REPEATED, quality.CONTRADICTORY],
    ("train", 1, "Good tea"): [quality.LEAKED],
    ("train", 0, "<p>Fish &amp; chips</p>"): [quality.HAS_HTML],
    ("dev", 1, "a nice cafÃ©"): [quality.HAS_MOJIBAKE],
}


def make_data(rows):
    data = pd.DataFrame(rows, columns=["split", "binary", "text"], index=range(10, 10 + len(rows)))
    return data.assign(row=data.index - 8)


@pytest.fixture
def data():
    """A table of both splits with a row for each issue at its end."""
    return make_data([*CLEAN, *PLANTED])


def test_clean_texts_have_no_issues():
    data = make_data(CLEAN)
    issues = quality.find_issues(data)
    assert issues.columns.tolist() == [name for name in quality.ADVICE if name != quality.HAS_NEAR_DUPLICATE]
    assert quality.find_issues(data, data["row"]).columns.tolist() == list(quality.ADVICE) and issues.index.equals(
        data.index
    )
    assert not issues.to_numpy().any()
    assert quality.count_issues(data, issues)[["train", "dev"]].sum().sum() == 0
    assert len(quality.list_examples(data, issues)) == 0 and len(quality.drop_from_train(data, issues)) == len(data)


def test_each_planted_issue_is_found(data):
    issues = quality.find_issues(data)
    names = quality.name_issues(issues)
    assert names[-5:].tolist() == ["; ".join(issues) for issues in PLANTED.values()]
    assert names[:5].tolist() == ["", quality.CONTRADICTORY, "", quality.LEAKED, ""]


def test_counts_are_by_split_with_advice(data):
    counts = quality.count_issues(data, quality.find_issues(data))
    assert counts.columns.tolist() == ["train", "dev", "what to do"] and counts.columns.name is None
    assert counts["train"].to_dict() == {
        **{quality.REPEATED: 2, quality.CONTRADICTORY: 2, quality.LEAKED: 1},
        **{quality.HAS_HTML: 1, quality.HAS_MOJIBAKE: 0},
    }
    assert counts["dev"].tolist() == [0, 0, 1, 0, 1] and counts["what to do"].equals(
        pd.Series(quality.ADVICE)[counts.index].rename("what to do")
    )


def test_issues_that_some_text_has_are_lines(data):
    assert quality.describe_issues(quality.count_issues(data, quality.find_issues(data))) == [
        f"repeats an earlier text: 2 of train ({quality.ADVICE[quality.REPEATED]})",
        f"appears with both labels: 2 of train ({quality.ADVICE[quality.CONTRADICTORY]})",
        f"is in both train and dev: 1 of train, 1 of dev ({quality.ADVICE[quality.LEAKED]})",
        f"has HTML: 1 of train ({quality.ADVICE[quality.HAS_HTML]})",
        f"has mojibake (wrong encoding): 1 of dev ({quality.ADVICE[quality.HAS_MOJIBAKE]})",
    ]
    clean = make_data(CLEAN)
    assert quality.describe_issues(quality.count_issues(clean, quality.find_issues(clean))) == []


def test_examples_are_the_first_of_each_issue_in_each_split(data):
    data.loc[10, "text"] = "the soup was cold" + 300 * " "
    examples = quality.list_examples(data, quality.find_issues(data), limit=1)
    assert examples.columns.tolist() == ["split", "row", "issues", "text"]
    assert examples["row"].tolist() == [3, 5, 7, 9, 10, 11]  # the second contradiction is not the first repetition
    assert examples["text"].str.len().max() <= 200


def test_only_training_texts_are_dropped(data):
    kept = quality.drop_from_train(data, quality.find_issues(data))
    assert kept["text"].tolist() == [
        CLEAN[0][2],
        *(text for _, _, text in CLEAN[2:]),
        *(text for _, _, text in [*PLANTED][3:]),
    ]


@pytest.mark.parametrize(
    ("train", "is_rare"), [([50, 50], False), ([980, 20], True), ([20, 80], False), ([19, 81], True)]
)
def test_balance_has_a_hint_for_a_rare_class_that_agrees_with_train(train, is_rare):
    counts = pd.DataFrame({"train": train, "dev": [1200, 5]})
    lines = quality.describe_balance(counts, ["ham", "spam"]).splitlines()
    assert lines[:2] == [f"train: {train[0]} 'ham', {train[1]} 'spam'", "dev: 1,200 'ham', 5 'spam'"]
    assert lines[2] == f"The rarer class makes up {min(train) / sum(train):.0%} of train."
    hint = "".join(lines[3:])
    assert bool(hint) == is_rare
    assert not is_rare or ("FALSE_POSITIVE_COST" in hint and "CLASS_WEIGHTS" in hint and "but not both" in hint)
