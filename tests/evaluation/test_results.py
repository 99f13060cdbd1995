"""eval_results.json keeps the names of models that programs which read it rely on."""

from textbert.evaluation.results import to_display_names, to_file_names


def test_names_in_the_file_and_on_the_screen():
    by_model = {"majority class": 1, "TF-IDF": 2, "BERT": 3}
    in_file = to_file_names(by_model)
    assert list(in_file.items()) == [("always the same", 1), ("counting words", 2), ("BERT", 3)]
    assert list(to_display_names(in_file).items()) == list(by_model.items())
    assert list(to_file_names({"BERT minus TF-IDF": 4})) == ["BERT minus counting words"]
