"""YAML into nodes with lines."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config import document
from signalbox.config.document import DocumentError, Mapping, Scalar, Sequence


def fault_of(text: str) -> str:
    with pytest.raises(DocumentError) as caught:
        document.read_yaml(text)
    return caught.value.finding.within("rules.yaml")


@pytest.mark.parametrize("text", ["on", "off", "no", "2024-01-01", "08:30", "1_000", "0x10", "1e3", "true"])
def test_a_plain_scalar_is_text(text):
    root, _ = document.read_yaml(f"key: {text}")
    assert root.items["key"] == Scalar(1, text, plain=True)


@pytest.mark.parametrize("text", ["", "~", "null"])
def test_empty_tilde_and_null_are_null_unless_quoted(text):
    root, _ = document.read_yaml(f'plain: {text}\nquoted: "{text}"')
    assert root.get("plain") is None
    assert root.get("quoted") == Scalar(2, text, plain=False)


@pytest.mark.parametrize(
    "text", ["", "   \n\n", "# only a comment\n", "---\n", "\ufeff".encode().decode("utf-8-sig")]
)
def test_an_empty_document_is_an_empty_mapping(text):
    assert document.read_yaml(text) == (Mapping(1), [])


def test_lines_are_those_of_the_file_with_crlf_too():
    root, _ = document.read_yaml("a: 1\r\nb:\r\n  - x\r\n  - y\r\n")
    assert root.lines == {"a": 1, "b": 2}
    assert [item.line for item in root.items["b"].items] == [3, 4]


def test_duplicate_keys_are_all_found_with_the_line_of_the_second():
    _, faults = document.read_yaml("a: 1\nb:\n  - {c: 1}\n  - c: 1\n    c: 2\na: 3\n")
    assert [fault.within("rules.yaml") for fault in faults] == [
        'rules.yaml:5: duplicate key "c", first on line 4 (at $.b[1])',
        'rules.yaml:6: duplicate key "a", first on line 1 (at $)',
    ]


def test_aliases_and_merge_keys_work_and_own_keys_win():
    root, _ = document.read_yaml("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 5}\nd: *a\n")
    assert {key: node.text for key, node in root.items["c"].items.items()} == {"x": "5", "y": "2", "z": "4"}
    assert root.items["d"] == root.items["a"]


@pytest.mark.parametrize("glob", ["*haiku*", "*", "*-x", "[*haiku*, b]"])
def test_unquoted_glob_error_says_to_use_quotes(glob):
    assert "put globs in quotes" in fault_of(f"rules:\n  - match: {glob}\n").removeprefix("rules.yaml:2: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [\n  b\n", "rules.yaml:2: while parsing a flow sequence (from line 1)"),
        ("a:\n\t- b\n", "rules.yaml:2: tabs may not indent: use spaces"),
        ('a: "b\n\n', "rules.yaml:2: while scanning a quoted scalar (from line 1)"),
        ("a: b: c\n", "rules.yaml:1: mapping values are not allowed"),
        ("a:\n  b: 1\n c: 2\n", "rules.yaml:3: while parsing a block mapping"),
        ("a: 1\n---\nb: 2\n", "rules.yaml:2: a second document begins here"),
        ("a: &a\n  - *a\n", "rules.yaml:2: the alias *a stands inside what it names (at $.a[0])"),
        ("a: 1\nb: \0\n", "rules.yaml:2: the character U+0000 may not stand in YAML"),
        ("- a\n", "rules.yaml:1: expected keys and values"),
        ("a: !!python/object:x {}\n", "rules.yaml:1: the tag"),
        ("? [a]\n: b\n", "rules.yaml:1: a key must be text"),
        ("a: {<<: b}\n", "rules.yaml:1: << takes keys and values"),
        ("a: {b: ${C}}\n", "put ${...} in quotes"),
    ],
)
def test_broken_yaml_is_one_line_with_its_place(text, expected):
    fault = fault_of(text)
    assert expected in fault
    assert fault.splitlines() == [fault]


def test_any_depth_is_refused_without_exhausting_the_stack():
    assert fault_of("[" * 100_000) == "rules.yaml:1: nested more than 64 deep (at $)"


def test_aliases_that_stand_for_billions_are_refused():
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 12))
    assert "too large once its aliases are followed" in fault_of(bomb)


def test_bytes_that_are_not_utf8_are_named_with_their_line():
    with pytest.raises(DocumentError) as caught:
        document.decode_utf8(b"a: 1\nb: \xff\n")
    assert caught.value.finding.line == 2


def test_a_byte_order_mark_is_no_part_of_the_text():
    assert document.decode_utf8(b"\xef\xbb\xbfa: 1") == "a: 1"


@given(st.text(alphabet=st.sampled_from("ab:-[]{}*&!|>'\"# \n\t,?%@~<\\$\u00e4\x85\u2028")))
def test_any_text_gives_a_tree_or_an_error_within_the_file(text):
    line = 1
    try:
        document.read_yaml(text)
    except DocumentError as broken:
        line = broken.finding.line
    assert 1 <= line <= len(text.splitlines()) + 1


@given(
    st.recursive(
        st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=9,
    )
)
def test_documents_of_another_yaml_writer_are_read_back(value):
    def plain(node):
        match node:
            case Scalar():
                return node.text
            case Sequence():
                return [plain(item) for item in node.items]
            case Mapping():
                return {key: plain(item) for key, item in node.items.items()}

    root, faults = document.read_yaml(yaml.safe_dump({"key": value}, default_style='"', allow_unicode=False))
    assert (plain(root), faults) == ({"key": value}, [])
