"""What goes to one peer in a row leaves at once, and nothing changes its place."""

from mitmproxy.connection import Client, Server
from mitmproxy.proxy.commands import CloseConnection, Command, SendData
from mitmproxy.test import tflow

from signalbox.proxy.layer import LARGE_SEND, coalesced
from signalbox.proxy.stream import SendNow

CLIENT: Client = tflow.tclient_conn()
SERVER: Server = tflow.tserver_conn()


def told(*commands: Command) -> list[tuple[str, object]]:
    """Whose each command is and what it sends, as mitmproxy gets them."""
    names = {CLIENT.id: "client", SERVER.id: "server"}
    return [
        (names[command.connection.id], command.data if isinstance(command, SendData) else type(command))
        for command in coalesced(commands)
        if isinstance(command, SendData | CloseConnection)
    ]


def test_a_head_and_its_body_are_sent_at_once():
    assert told(SendData(SERVER, b"head"), SendData(SERVER, b"body"), SendData(SERVER, b"end")) == [
        ("server", b"headbodyend")
    ]


def test_peers_are_distinguished_and_other_commands_keep_their_place():
    assert told(
        SendData(SERVER, b"a"),
        SendData(CLIENT, b"b"),
        SendData(CLIENT, b"c"),
        CloseConnection(CLIENT),
        SendData(SERVER, b"d"),
    ) == [("server", b"a"), ("client", b"bc"), ("client", CloseConnection), ("server", b"d")]


def test_a_command_goes_out_before_the_next_but_one_is_made():
    """What comes after a hook is made only when the hook has been run."""
    made = []

    def commands():
        for command in (SendData(SERVER, b"a"), CloseConnection(CLIENT), SendData(SERVER, b"b")):
            made.append(command)
            yield command

    steps = coalesced(commands())
    assert isinstance(next(steps), SendData)
    assert isinstance(next(steps), CloseConnection)
    assert len(made) == 2


def test_much_data_is_not_copied():
    much = bytes(LARGE_SEND)
    assert told(SendData(SERVER, b"head"), SendData(SERVER, much)) == [("server", b"head"), ("server", much)]
    assert next(iter(coalesced([SendData(SERVER, much)]))).data is much


def test_what_is_to_leave_now_is_sent_before_the_next_is_made():
    made = []

    def commands():
        for command in (SendData(SERVER, b"a"), SendNow(), SendData(SERVER, b"b")):
            made.append(command)
            yield command

    steps = coalesced(commands())
    assert [next(steps).data, len(made)] == [b"a", 2]
    assert [command.data for command in steps] == [b"b"]


def test_nothing_comes_of_nothing():
    assert list(coalesced([])) == []
