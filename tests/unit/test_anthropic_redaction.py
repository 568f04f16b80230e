"""What is told of an error, and that no prompt and no key is in it."""

import html
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.errors import HEAD, read_error
from signalbox.anthropic.redaction import one_line, without_quotes_of, without_secrets

PROMPT = "my diary of 1999, page one"
FAULT = {"type": "string_type", "loc": ["body", "messages", 0, "content"], "msg": "Input should be a string"}
QUOTING = FAULT | {"input": {"role": "user", "content": PROMPT}, "ctx": {"message": PROMPT}}
TOLD = "Input should be a string (at body.messages.0.content)"
PYDANTIC = f"""1 validation error for Request
messages.0.content
  Input should be a string [type=string_type, input_value=['{PROMPT}', "it's"], input_type=list]
    For further information visit https://errors.pydantic.dev/2.10/v/string_type"""


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"detail": [QUOTING]}, TOLD),
        ({"detail": [QUOTING, FAULT]}, f"{TOLD}; {TOLD}"),
        ({"detail": QUOTING}, TOLD),
        ({"input": PROMPT, "detail": {"input": PROMPT, "msg": "no"}}, "no"),
        ({"error": {"type": "bad", "message": [QUOTING]}}, f"bad: {TOLD}"),
        ({"error": {"message": {"error": QUOTING}, "code": 422}}, f"422: {TOLD}"),
        ({"error": {"type": "bad", "message": json.dumps([QUOTING])}}, f"bad: {TOLD}"),
        ({"error": json.dumps({"detail": [QUOTING]})}, TOLD),
        ({"message": {"content": PROMPT}}, ""),
        ([{"error": {"message": [QUOTING]}}], TOLD),
        ({"detail": f"{[QUOTING]}"}, None),
        ({"detail": f"upstream said: {json.dumps([QUOTING])}"}, None),
        ({"detail": json.dumps(json.dumps([QUOTING]))}, None),
        ({"detail": PYDANTIC}, None),
        ({"error": {"message": f"Invalid message={{'role': 'user', 'content': '{PROMPT}'}}"}}, None),
        ({"error": {"message": f"Invalid value: '{PROMPT}'. Expected an object."}}, None),
        ({"error": {"message": f"cannot read `{PROMPT}"}}, None),
        ({"error": {"message": 'bad: {"content": "diary"}'}}, 'bad: {"content": "…"}'),
        (f"error: input_value='{PROMPT}'", None),
        (f"unexpected b'{PROMPT}'", None),
    ],
)
def test_a_detail_is_the_message_without_quoted_input(body, detail):
    raw = body if isinstance(body, str) else json.dumps(body)
    told = read_error(raw.encode()).detail
    assert "diary" not in told
    assert detail is None or told == detail


def test_an_error_that_is_cut_in_the_middle_of_its_input_is_read_up_to_there():
    long = {"detail": [FAULT | {"input": PROMPT * HEAD}]}
    assert read_error(json.dumps(long).encode()).detail == TOLD
    first = {"detail": [{"input": PROMPT * HEAD} | FAULT]}
    assert "diary" not in read_error(json.dumps(first).encode()).detail


def test_every_cut_of_an_error_is_read_without_its_input():
    error = {"type": "bad", "message": "no", "input": [PROMPT, {"a": "b"}]}
    raw = json.dumps({"type": "error", "error": error})
    details = [read_error(raw[:end].encode()).detail for end in range(len(raw) + 1)]
    assert not any("diary" in detail for detail in details)
    assert details[-1] == "bad: no"


@pytest.mark.parametrize(
    "message",
    [
        "Unknown parameter: 'reasoning_effort'. Supported values are: 'low', 'medium'.",
        "model `claude-sonnet-4-5` isn't known; the user's plan doesn't have it",
        "messages.1.content.0: Input tag 'image' found using 'type' does not match",
        "{'msg': 'Field required'}",
    ],
)
def test_quoted_names_stay(message):
    assert one_line(message) == message


KEY = "sk-up/key-fake+01="


@pytest.mark.parametrize(
    "said",
    [
        KEY,
        "sk\\u002dup/key\\u002Dfake+01=",
        "sk\\\\u002dup\\/key-fake\\u002b01\\u003d",
        "sk%2dup%2Fkey-fake%2B01%3D",
        "sk%252Dup%252fkey%2dfake%2b01%3d",
        "sk&#45;up&#x2f;key-fake+01&#61;",
        "%73k-up\\/key-fake\\u002b01=",
        "".join(f"\\u{ord(char):04x}" for char in KEY),
        "".join(f"%{ord(char):02X}" for char in KEY),
    ],
)
def test_a_secret_is_masked_however_it_is_written(said):
    for before, after in (("", ""), (r"no key \"", r"\" %41 \u0041"), (r"\n%", "%zz"), (r"é\\ ", "&#45;")):
        whole = (before + said + after).encode()
        assert without_secrets(whole, [KEY]) == (before + "***" + after).encode()
    assert without_secrets(f"{said} {said}".encode(), ["key-of-another", KEY]) == b"*** ***"


def test_text_without_secrets_is_unchanged():
    for said in (b"", b"\\", b"%", b'{"a": "\\u002d \\/ %2d"}', bytes(range(256))):
        assert without_secrets(said, [KEY]) == said


@pytest.mark.parametrize(
    "said", ["{}", "Bearer {}.", "{}{}", '{{"a": "{}"}}'], ids=["alone", "between", "twice", "json"]
)
@pytest.mark.parametrize(
    "secret", ["plain-key-for-tests", "a/b+c=d-for-tests", 'quo"ted-\\-tests', "schlüssel"]
)
def test_a_secret_is_masked_within_other_text(said, secret):
    for written in (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret).replace("/", "\\/")[1:-1],
        quote(secret, ""),
    ):
        raw = said.replace("{}", written).encode()
        assert without_secrets(raw, [secret]) == said.replace("{}", "***").encode()


def test_a_secret_within_another_leaves_nothing_of_it():
    assert without_secrets(b"abcdefgh and abcd", ["abcd", "abcdefgh"]) == b"*** and ***"
    assert without_secrets(b"a key \xff", ["half-\udcff-key"]) == b"a key \xff"


SPELLED_ONE_BY_ONE = (
    lambda char: char,
    lambda char: f"\\{char}" if char in "/\"'\\" else char,
    lambda char: f"\\u{ord(char):04x}",
    lambda char: f"\\\\u{ord(char):04X}",
    lambda char: quote(char, "") if char not in "_.-~" else char,
    lambda char: f"%25{ord(char):02x}",
    lambda char: f"&#{ord(char)};",
    html.escape,
)


@given(
    st.text("abcdef0123456789xyzK%&\\/\"'#;u+-", max_size=32).map("sk-fake-{}-".format),
    st.lists(st.sampled_from(SPELLED_ONE_BY_ONE), min_size=41, max_size=41),
    st.sampled_from(["", "a ", '{"text": "', "100 % of \\n"]),
)
def test_a_secret_of_any_characters_is_masked_however_each_is_written(secret, spelled, before):
    assert len(secret) <= len(spelled)
    written = "".join(spell(char) for spell, char in zip(spelled, secret, strict=False))
    whole = f"{before}{written} and more".encode()
    assert without_secrets(whole, [secret]) == f"{before}*** and more".encode()


@pytest.mark.slow
@pytest.mark.parametrize("secret", ["50%&-key-for\\tests", "schlüssel-für-tests", KEY])
def test_masking_is_fast_also_for_secrets_with_characters_that_escapes_begin_with(secret):
    """Generous: 15 ms on a quiet machine, for which one regular expression of all spellings took 400."""
    body = json.dumps({"text": 'if (a && b["c"] % 2)\n\tprint("\\u0041")\n' * 60_000}).encode()
    fastest = min(timed(lambda: without_secrets(body, [secret])) for _ in range(3))
    assert len(body) > 2_000_000
    assert fastest < 0.25


def timed(do) -> float:
    before = time.process_time()
    do()
    return time.process_time() - before


def test_a_secret_in_the_entities_of_html_is_masked():
    secret = 'key-"of<tests>-&-000'
    page = f"<p>{html.escape(secret)} was refused; AT&amp;T</p>".encode()
    assert without_secrets(page, [secret]) == b"<p>*** was refused; AT&amp;T</p>"


# prompts without quotation marks


@pytest.mark.parametrize(
    ("said", "error", "told"),
    [
        (PROMPT, f"blocked: {PROMPT}", "blocked: …"),
        (
            f"First.\n\n  {PROMPT} and more",
            "blocked: diary of 1999, page one, as it was",
            "blocked: … one, as it was",
        ),
        ("my diary", "blocked: my diary is secret", "blocked: … is secret"),
        ("why is the sky blue", "the sky is not supported", "the sky is not supported"),
        ("hi", "this model takes no images", "this model takes no images"),
        ("", "this model takes no images", "this model takes no images"),
    ],
)
def test_what_an_error_repeats_of_a_prompt_is_left_out(said, error, told):
    assert without_quotes_of(said, error) == told


def test_to_look_for_a_long_prompt_takes_a_moment():
    began = time.process_time()
    without_quotes_of("word " * 200_000, "word " * 40 + "other " * 10)
    assert time.process_time() - began < 0.5
