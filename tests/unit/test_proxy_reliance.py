"""What the router relies on inside mitmproxy.

mitmproxy does not promise how its HTTP stream works inside, and `proxy/` builds on that. When
one of these tests fails after an upgrade, what it names is to be read again in mitmproxy's own code before
the pin in pyproject.toml moves. Names are looked up by each test, so that one that is gone fails alone.
"""

import dataclasses
import inspect
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import pytest

from signalbox.proxy import connections, hook_dispatch, http1, layer, quick_http1
from signalbox.proxy.stream import RoutedStream

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what its add-ons import

HTTP = "mitmproxy.proxy.layers.http"


def in_http(name: str) -> Any:
    return resolve_name(f"{HTTP}:{name}")


@pytest.fixture
def parts() -> dict[str, Any]:
    """One of each object that the router looks into, as mitmproxy makes it."""
    from mitmproxy.addons.proxyserver import Proxyserver
    from mitmproxy.addons.termlog import TermLog
    from mitmproxy.addons.view import View
    from mitmproxy.connection import Server
    from mitmproxy.proxy.context import Context
    from mitmproxy.test import taddons, tflow

    servers = Proxyserver()
    with taddons.context(servers, loadcore=False) as master:
        context = Context(tflow.tclient_conn(), master.options)
        context.server = Server(address=("upstream.invalid", 80))
        parent = in_http("HttpLayer")(context.fork(), in_http("HTTPMode").transparent)
        return {
            "context": context,
            "client": context.client,
            "server": context.server,
            "layer": parent,
            "stream": in_http("HttpStream")(parent.context.fork(), 1),
            "HTTP/1 client": in_http("Http1Client")(context.fork()),
            "HTTP/1 server": in_http("Http1Server")(context.fork()),
            "HTTP/2 client": in_http("Http2Client")(context.fork()),
            "options": master.options,
            "add-on manager": master.master.addons,
            "proxyserver": servers,
            "termlog": TermLog(),
            "view": View(),
            "flow": tflow.tflow(resp=True),
        }


OBJECTS = {
    "context": "client server layers options fork",
    "client": "id error peername sockname proxy_mode tls",
    "server": "address connected error via transport_protocol timestamp_start timestamp_tcp_setup",
    "layer": (
        "context mode streams connections waiting_for_establishment command_sources event_to_child"
        " get_connection"
    ),
    "stream": (
        "context stream_id client_state server_state request_body_buf response_body_buf _paused"
        " _paused_event_queue state_wait_for_request_headers state_consume_request_body"
        " state_wait_for_response_headers state_stream_response_body state_done state_errored"
    ),
    "HTTP/1 client": "conn buf state stream_id request response read_headers read_body done",
    "HTTP/1 server": "conn buf state stream_id read_headers read_body wait done send",
    "HTTP/2 client": "our_stream_id their_stream_id stream_queue",
    "options": "_options update",
    "add-on manager": "chain get register remove clear",
    "proxyserver": "connections servers",
    "termlog": "logger",
    "view": "add update",
    "flow": "client_conn server_conn request response error live marked comment is_replay copy metadata",
}


@pytest.mark.parametrize(
    ("what", "name"), [(what, name) for what, names in OBJECTS.items() for name in names.split()]
)
def test_an_object_has_what_is_used_of_it(parts, what, name):
    assert hasattr(parts[what], name)


SIGNATURES = {
    "mitmproxy.proxy.layer:Layer.handle_event": "self event",
    "mitmproxy.proxy.layer:NextLayer.data_client": "self",
    f"{HTTP}:HttpLayer._handle_event": "self event",
    f"{HTTP}:HttpLayer.make_stream": "self stream_id",
    f"{HTTP}:HttpLayer.event_to_child": "self child event",
    f"{HTTP}:HttpLayer.get_connection": "self event reuse",
    f"{HTTP}:HttpLayer.register_connection": "self command",
    f"{HTTP}:HttpStream.__init__": "self context stream_id",
    f"{HTTP}:HttpStream._handle_event": "self event",
    f"{HTTP}:HttpStream.make_server_connection": "self",
    f"{HTTP}:HttpStream.check_body_size": "self request",
    f"{HTTP}:HttpStream.handle_protocol_error": "self event",
    f"{HTTP}:HttpStream.state_wait_for_request_headers": "self event",
    f"{HTTP}:HttpStream.state_consume_request_body": "self event",
    f"{HTTP}:HttpStream.state_wait_for_response_headers": "self event",
    f"{HTTP}:HttpStream.state_stream_response_body": "self event",
    f"{HTTP}:HttpStream.check_invalid": "self request",
    f"{HTTP}:Http1Client.read_headers": "self event",
    f"{HTTP}:Http1Client.read_body": "self event",
    f"{HTTP}:Http1Server.read_headers": "self event",
    f"{HTTP}:Http1Server.read_body": "self event",
    f"{HTTP}:Http1Server.send": "self event",
    f"{HTTP}:validate_request": "mode request validate_inbound_headers",
    "mitmproxy.proxy.server:ConnectionHandler.handle_connection": "self connection",
    "mitmproxy.proxy.server:ConnectionHandler.close_connection": "self connection half_close",
    "mitmproxy.proxy.server:ConnectionHandler.hook_task": "self hook",
    "mitmproxy.proxy.server:ConnectionHandler.wakeup": "self request",
    "mitmproxy.utils.asyncio_utils:create_task": "coro name keep_ref client",
    "mitmproxy.proxy.commands:CloseTcpConnection.__init__": "self connection half_close",
    "mitmproxy.proxy.layers:TCPLayer.__init__": "self context ignore",
    "mitmproxy.proxy.layers.tls:parse_client_hello": "data",
    "mitmproxy.net.tls:starts_like_tls_record": "d",
    "mitmproxy.proxy.mode_servers:ProxyConnectionHandler.open_connection": "self command",
    "mitmproxy.proxy.mode_servers:ProxyConnectionHandler.handle_hook": "self hook",
    "mitmproxy.proxy.mode_servers:ProxyConnectionHandler.server_event": "self event",
    "mitmproxy.net.http.http1.read:connection_close": "http_version headers",
    "mitmproxy.net.http.http1:expected_http_body_size": "request response",
    "mitmproxy.addons.next_layer:NextLayer.next_layer": "self nextlayer",
    "mitmproxy.addons.clientplayback:ClientPlayback.check": "self f",
    "mitmproxy.addons.view:View.add": "self flows",
    "mitmproxy.addons.view:View.update": "self flows",
    "mitmproxy.addonmanager:AddonManager.trigger_event": "self event",
    "mitmproxy.addonmanager:AddonManager.register": "self addon",
    "mitmproxy.addonmanager:AddonManager.remove": "self addon",
    "mitmproxy.addonmanager:AddonManager.clear": "self",
    "mitmproxy.addonmanager:traverse": "chain",
    "mitmproxy.addonmanager:safecall": "",
    "mitmproxy.log:LegacyLogEvents.__init__": "self master",
}


@pytest.mark.parametrize(("function", "parameters"), SIGNATURES.items(), ids=SIGNATURES)
def test_a_function_takes_what_it_is_given(function, parameters):
    assert " ".join(inspect.signature(resolve_name(function)).parameters) == parameters


FIELDS = {
    f"{HTTP}:SendHttp": "event connection",
    f"{HTTP}:DropStream": "stream_id",
    f"{HTTP}:GetHttpConnection": "address tls via transport_protocol",
    f"{HTTP}:GetHttpConnectionCompleted": "command reply",
    f"{HTTP}:RegisterHttpConnection": "connection err",
    f"{HTTP}:RequestHeaders": "stream_id request end_stream replay_flow",
    f"{HTTP}:RequestData": "stream_id data",
    f"{HTTP}:RequestEndOfMessage": "stream_id",
    f"{HTTP}:RequestProtocolError": "stream_id message code",
    f"{HTTP}:ResponseHeaders": "stream_id response end_stream",
    f"{HTTP}:ResponseData": "stream_id data",
    f"{HTTP}:ResponseTrailers": "stream_id trailers",
    f"{HTTP}:ResponseEndOfMessage": "stream_id",
    f"{HTTP}:ResponseProtocolError": "stream_id message code",
    "mitmproxy.proxy.events:ConnectionClosed": "connection",
    "mitmproxy.proxy.events:DataReceived": "connection data",
    "mitmproxy.proxy.server:ConnectionIO": "handler reader writer",
}


@pytest.mark.parametrize(("kind", "fields"), FIELDS.items(), ids=FIELDS)
def test_a_value_has_the_fields_that_are_read_and_set(kind, fields):
    assert " ".join(field.name for field in dataclasses.fields(resolve_name(kind))) == fields


@pytest.mark.parametrize(
    ("kind", "heard"),
    [
        (f"{HTTP}:HttpRequestHeadersHook", "requestheaders"),
        (f"{HTTP}:HttpRequestHook", "request"),
        (f"{HTTP}:HttpResponseHeadersHook", "responseheaders"),
        (f"{HTTP}:HttpResponseHook", "response"),
        (f"{HTTP}:HttpErrorHook", "error"),
        (f"{HTTP}:HttpConnectHook", "http_connect"),
        ("mitmproxy.proxy.layer:NextLayerHook", "next_layer"),
        ("mitmproxy.proxy.server_hooks:ClientConnectedHook", "client_connected"),
    ],
)
def test_a_hook_is_heard_under_its_name(kind, heard):
    assert resolve_name(kind).name == heard


@pytest.mark.parametrize(
    ("kind", "blocks"),
    [
        ("mitmproxy.proxy.commands:StartHook", True),
        (f"{HTTP}:GetHttpConnection", True),
        ("mitmproxy.proxy.commands:RequestWakeup", False),
        ("mitmproxy.proxy.commands:CloseConnection", False),
    ],
)
def test_a_stream_waits_for_a_command_or_does_not(kind, blocks):
    assert bool(resolve_name(kind).blocking) is blocks


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("CONNECT_FAILED", 502),
        ("GENERIC_SERVER_ERROR", 502),
        ("REQUEST_VALIDATION_FAILED", 400),
        ("DESTINATION_UNKNOWN", 400),
        ("KILL", None),
        ("CANCEL", None),
    ],
)
def test_a_broken_connection_has_a_code_and_that_a_status(name, status):
    assert resolve_name(f"{HTTP}._events:ErrorCode.{name}").http_status_code() == status


def test_what_waits_for_a_connection_or_a_hook_is_kept_where_it_is_looked_for(parts):
    stream, parent = parts["stream"], parts["layer"]
    assert stream._paused is None
    assert list(stream._paused_event_queue) == []
    assert (parent.command_sources, dict(parent.waiting_for_establishment)) == ({}, {})
    assert dict(parent.connections) == {}
    assert stream.context.layers[-2:] == [parent, stream]


def test_nothing_of_ours_hides_what_it_does_not_mean_to():
    """A new release may use a name that the router's own classes have taken."""
    quick = (quick_http1.QuickClientHttp1, quick_http1.QuickUpstreamHttp1)
    wire = (*quick, http1.ClientHttp1, http1.UpstreamHttp1, connections.DirectConnectionHandler)
    classes = (RoutedStream, *wire, layer.RouterLayer, hook_dispatch.CachingAddonManager)
    theirs = {
        kind: next(base for base in kind.__mro__ if not base.__module__.startswith("signalbox"))
        for kind in classes
    }
    hidden = {
        name
        for kind in classes
        for name in vars(kind)
        if not name.startswith("__") and name != "_abc_impl" and hasattr(theirs[kind], name)
    }
    assert hidden == {
        "_handle_event",
        "check_body_size",
        "check_invalid",
        "clear",
        "event_to_child",
        "get_connection",
        "handle_connection",
        "handle_event",
        "handle_protocol_error",
        "make_server_connection",
        "make_stream",
        "mark_done",
        "read_body",
        "read_headers",
        "register",
        "register_connection",
        "remove",
        "send",
        "server_event",
        "state_consume_request_body",
        "state_wait_for_request_headers",
        "state_wait_for_response_headers",
        "trigger",
        "trigger_event",
    }


def test_a_layer_that_has_not_started_and_the_add_on_manager_can_become_ours(parts):
    layer.take_over(parts["layer"], SimpleNamespace(is_plain=False))
    hook_dispatch.install(parts["add-on manager"])
    assert type(parts["layer"]) is layer.RouterLayer


def test_the_way_to_a_connections_socket():
    annotations = inspect.get_annotations(resolve_name("mitmproxy.proxy.server:ConnectionHandler"))
    assert "transports" in annotations


def test_a_listener_says_where_it_is():
    listener = resolve_name("mitmproxy.proxy.mode_servers:ServerInstance")
    assert "mode" in inspect.signature(listener).parameters
    assert hasattr(listener, "listen_addrs")


def test_an_option_says_whether_it_was_set(parts):
    unset = resolve_name("mitmproxy.optmanager:unset")
    option = parts["options"]._options["connection_strategy"]
    assert option.value is unset
    parts["options"].update(connection_strategy=option.default)
    assert option.value is not unset


@pytest.mark.parametrize(
    "kind", ["proxyserver:Proxyserver", "next_layer:NextLayer", "termlog:TermLog", "view:View"]
)
def test_an_add_on_is_found_by_its_class_in_lower_case(parts, kind):
    name = resolve_name("mitmproxy.addonmanager:_get_name")
    found = resolve_name(f"mitmproxy.addons.{kind}")
    assert name(found.__new__(found)) == kind.partition(":")[2].lower()


def test_what_is_paused_says_what_it_waits_for():
    assert resolve_name("mitmproxy.proxy.layer:Paused")._fields[0] == "command"


def test_bodies_are_read_by_h11_in_a_way_that_can_be_wrapped():
    speaker = resolve_name(f"{HTTP}._http1:Http1Connection")
    assert "body_reader" in inspect.get_annotations(speaker)
    h11 = resolve_name("h11")
    assert h11.Data(data=b"x").data == b"x"
    assert issubclass(h11.RemoteProtocolError, h11.ProtocolError)
    make = resolve_name(f"{HTTP}._http1:make_body_reader")
    assert type(make(None)) is resolve_name("h11._readers:ChunkedReader")


def test_what_cannot_be_parsed_is_answered_by_the_reading_of_heads_alone(parts):
    """The one thing that is sent while a head is read is mitmproxy's page of what it refuses."""
    from mitmproxy.proxy import commands, events

    server = parts["HTTP/1 server"]
    assert list(server.handle_event(events.Start())) == []
    assert server.state == server.read_headers
    told = list(server.handle_event(events.DataReceived(server.conn, b"POST\r\n\r\n")))
    assert [type(one) for one in told[:2]] == [commands.SendData, commands.CloseConnection]


def test_a_message_can_be_given_the_bytes_that_are_shown():
    response = resolve_name("mitmproxy.http:Response").make(200, b"x")
    response.data.content = b"y"
    assert response.raw_content == b"y"
