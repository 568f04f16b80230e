"""Files of certificates for a session."""

import stat

from signalbox.claude.certificates import CA, CA_KEY, authority_folder, bundle, readable


def test_authority_is_the_users_if_he_has_one_and_else_in_the_state_folder(tmp_path):
    home, state = tmp_path / "home", tmp_path / "state"
    own = home / ".mitmproxy"
    own.mkdir(parents=True)
    (own / CA).touch()
    assert authority_folder(home, state) == state / "mitmproxy"
    (own / CA_KEY).touch()
    assert authority_folder(home, state) == own


def test_bundle_is_named_after_its_content_and_made_once(tmp_path):
    one, two = tmp_path / "one.pem", tmp_path / "two.pem"
    one.write_text("first")
    two.write_text("second\n\n")
    made = bundle([one, two], tmp_path / "state")
    assert made.read_text() == "first\nsecond\n"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert bundle([one, two], tmp_path / "state") == made
    assert bundle([two, one], tmp_path / "state") != made


def test_files_that_cannot_be_read_are_left_out_and_named(tmp_path):
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.touch()
    found, faults = readable([there, gone, tmp_path])
    assert found == [there]
    assert faults == [
        f"{gone} is left out: No such file or directory",
        f"{tmp_path} is left out: Is a directory",
    ]
