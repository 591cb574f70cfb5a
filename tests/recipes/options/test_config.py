"""Options from YAML: numbers as YAML 1.2 reads them, what is ambiguous refused, nothing built that a file asks for."""

from pathlib import Path

import pytest

from recipes.options.yaml_mapping import LONGEST, NotReadable, dump_mapping, read_mapping


def value(text):
    return read_mapping(f"key: {text}\n")["key"].value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100", "100"),
        ("-3", "-3"),
        ("1e-3", "1e-3"),
        ("1.10", "1.10"),
        ("0.5", "0.5"),
        ("0", "0"),
        ("0o17", "15"),
        ("0x1F", "31"),
        ("-.INF", "-inf"),
        (".nan", "nan"),
        ("yes", "yes"),
        ("2024-01-01", "2024-01-01"),
        ("400MB", "400MB"),
        ("npz:a_1:b", "npz:a_1:b"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("", None),
        ("~", None),
        ("'0100'", "0100"),
        ('"true"', "true"),
        ("=", "="),
    ],
)
def test_the_core_schema(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0100", "leading zeros"),
        ("010", "leading zeros"),
        ("08", "leading zeros"),
        ("-007.5", "leading zeros"),
        ("1:00", "colons"),
        ("1:30:00.5", "colons"),
        ("1_000", "underscores"),
        ("1_0.5e3", "underscores"),
        ("0x_1F", "underscores"),
        ("0b11", "the prefix 0b"),
    ],
)
def test_what_the_versions_of_yaml_read_differently(text, what):
    with pytest.raises(NotReadable, match=rf"line 2: key must be a number without {what}.*got {text}: write a plain"):
        read_mapping(f"a: 1\nkey: {text}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a stands in line 1 already"),
        ("a: " + "[" * 50_000, "line 1: a must be one number or text; got a list"),
        ("a: " + "{b: " * 50_000, "line 1: a must be one number or text; got a mapping"),
        ("[a]: 1\n", "line 1: an option must be one number or text; got a list"),
        ("a: &x 1\nb: *x\n", "line 1: anchors and aliases are not read"),
        ("<<: *x\n", "line 1: anchors and aliases are not read"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1: tags are not read; got tag:yaml.org,2002:python/object"),
        ("!!python/object:kl.Gaussian\na: 1\n", "line 1: tags are not read"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document begins"),
        ("- 3\n", "must hold a mapping"),
        ("a: [\n", "must be one number"),
        ("a: {", "must be one number"),
        ('a: "\\UFFFFFFFF"\n', "is not YAML"),
        ("a: \x07\n", "is not YAML"),
        ("a: 'x\n", "is not YAML"),
        ("#" * (LONGEST + 1), "too many for options"),
    ],
)
def test_what_is_no_flat_mapping(text, message):
    with pytest.raises(NotReadable, match=message):
        read_mapping(text)


@pytest.mark.parametrize("text", ["", "# nothing\n", "null\n", "---\n"])
def test_a_file_of_nothing(text):
    assert read_mapping(text) == {}


def test_what_is_written_is_read_back():
    texts = [
        "yes",
        "0100",
        "08",
        "1:00",
        "1_000",
        "0o17",
        "1e3",
        "1.10",
        ".inf",
        "null",
        "",
        "~",
        "true",
        "TRUE",
        "a b",
    ]
    texts += [
        " a",
        "#a",
        "a: b",
        "- a",
        "x\ny",
        "é",
        "\x07",
        "=",
        "<<",
        "0b1",
        "2024-01-01",
        "!a",
        "&a",
        "*a",
        "'",
        '"',
    ]
    written = {f"key{i}": text for i, text in enumerate(texts)}
    assert {key: found.value for key, found in read_mapping(dump_mapping(written)).items()} == written
    numbers = {"a": 7, "b": 1e-06, "c": 0.1, "d": True, "e": None, "f": 10**20, "g": float("inf")}
    found = {key: read.value for key, read in read_mapping(dump_mapping(numbers)).items()}
    assert [float(found[key]) for key in "abcfg"] == [7, 1e-06, 0.1, 1e20, float("inf")]
    assert (found["d"], found["e"]) == (True, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train-size: 0100\n", "options.yaml line 1: train-size must be a number without leading zeros"),
        ("train-size: 1:00\n", "options.yaml line 1: train-size must be a number without colons"),
        ("train-size: 60\ntrain_size: 70\n", "line 2: train_size stands in line 1 already, written with - or _"),
        ("epochs: 2\nepochs: 3\n", "line 2: epochs stands in line 1 already"),
        ("epochs: 2.5\n", "'2.5' from --config"),
        ("grayscale: yes\n", "line 1: grayscale must be true or false; got yes: write true or false, not yes"),
        ("name: true\n", "line 1: name must be one number or text; got true: a text needs quotes"),
    ],
)
def test_from_the_command_line(kl, text, message):
    Path("options.yaml").write_text(text)
    result = kl("fit", "--config", "options.yaml")
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1


def test_numbers_reach_the_options(kl):
    Path("options.yaml").write_text("train-size: 0o200\nlabel_noise: 1e-1\nbandwidth: 3\nname: 'yes'\nno_exact: TRUE\n")
    printed = kl("fit", "--config", "options.yaml", "--print-config").out
    found = {key: read.value for key, read in read_mapping(printed).items()}
    assert (found["train_size"], found["label_noise"], found["bandwidth"]) == ("128", "0.1", "3")
    assert (found["name"], found["no_exact"]) == ("yes", True)
