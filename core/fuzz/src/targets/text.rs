//! What people and programs write: URLs, tokens, names, the daemon's file, and requests over gRPC.

use prost::Message;
use virtuallog::Token;
use virtuallog::url::{LogUrl, check_name, parse_host};
use virtuallog_server::grpc::proto;
use virtuallog_server::hostile;

pub(super) fn url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(url) = LogUrl::parse(text) {
        let shown = url.to_string();
        let again = LogUrl::parse(&shown).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(again, url, "{shown}");
        let _ = (url.log_name().is_ok(), url.store_only().is_ok());
    }
    if let Ok(host) = parse_host(text) {
        assert_eq!(parse_host(&host).ok(), Some(host));
    }
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.to_string().parse::<Token>().ok(), Some(token));
    }
    let _ = check_name(text);
}

pub(super) fn urls() -> Vec<Vec<u8>> {
    let texts = [
        "memory:",
        "memory:name",
        "memory:/",
        "file:dir/name",
        "file:///abs/dir/name",
        "file:./~/x",
        "virtuallog://[::1]:7400,host/name?timeout=0.5s&mode=read",
        "etcd://host/x",
        "file:dir/",
        "file:a/b?create=false&entry_bytes_max=1048576&in_flight_bytes_max=9&loglet=native:3",
        "memory:x?timeout=500ms",
        "memory:x?timeout=none",
        "000000000000000000000000000000ab.7.3.9",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(super) fn config(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        hostile::config_file(text);
    }
}

pub(super) fn lines() -> Vec<Vec<u8>> {
    let json = [
        r#"{"position":1,"payload":"text"}"#,
        r#"{"payload_base64":"AAEC"}"#,
        r#"{"payload":"a","payload_base64":"AA=="}"#,
    ];
    let json = json.join("\n");
    let inputs = [(0, "one\ntwo\n\nlast"), (1, "one--two----"), (2, "whole"), (3, &json)];
    inputs.iter().map(|(kind, text)| [&[*kind][..], text.as_bytes()].concat()).collect()
}

pub(super) fn configs() -> Vec<Vec<u8>> {
    let texts = [
        "data = \"dir\"\nlisten = \"127.0.0.1:0\"\nzone = \"a\"\nroles = [\"log\", \"sequencer\"]\n",
        "heartbeat = \"100ms\"\nsuspect-after = \"2s\"\nsegment-bytes-max = \"4GiB\"\n",
        "segment-age-max = \"none\"\nlog = \"warn,virtuallog::server=debug\"\nlog-format = \"json\"\n",
        "join = \"a:1,b\"\ninsecure = true\nadvertise = \"[::1]:7400\"\ndrain-timeout = \"0s\"\n",
        "rebuild-after = \"10m\"\n[table]\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn round_trip<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    assert_eq!(M::decode(&message.encode_to_vec()[..]).as_ref(), Ok(&message));
    Some(message)
}

/// One request, of the kind that the first byte says.
pub(super) fn grpc(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 8 {
        0 => drop(round_trip::<proto::AppendRequest>(bytes)),
        1 => drop(round_trip::<proto::ReadRequest>(bytes)),
        2 => drop(round_trip::<proto::SubscribeRequest>(bytes)),
        3 => drop(round_trip::<proto::TrimRequest>(bytes)),
        4 => drop(round_trip::<proto::ReconfigureRequest>(bytes)),
        5 => {
            let request = round_trip::<proto::ResolveRequest>(bytes);
            let _ = request.map(|request| request.token.parse::<Token>().is_ok());
        }
        6 => {
            let request = round_trip::<proto::CreateRequest>(bytes);
            let _ = request.map(|request| check_name(&request.log).is_ok());
        }
        _ => drop(round_trip::<proto::ListRequest>(bytes)),
    }
}

pub(super) fn requests() -> Vec<Vec<u8>> {
    use proto::reconfigure_request::{Change, Extend, Modify};
    use proto::subscribe_request::Start;
    let log = || "log".to_owned();
    let token = "000000000000000000000000000000ab.7.3.9".to_owned();
    let change = |change| proto::ReconfigureRequest {
        log: log(),
        if_version: Some(3),
        change: Some(change),
    };
    let append = proto::AppendRequest {
        log: log(),
        payloads: vec!["one".into(), "".into()],
        ..proto::AppendRequest::default()
    };
    let extend = change(Change::Extend(Extend { loglet: "native:3".into() }));
    let modify = change(Change::Modify(Modify { segment: 1, loglet: "local".into() }));
    vec![
        [&[0][..], &append.encode_to_vec()].concat(),
        [
            &[1][..],
            &proto::ReadRequest { log: log(), start: Some(1), end: Some(2) }.encode_to_vec(),
        ]
        .concat(),
        [
            &[2][..],
            &proto::SubscribeRequest { log: log(), start: Some(Start::Edge(2)) }.encode_to_vec(),
        ]
        .concat(),
        [
            &[2][..],
            &proto::SubscribeRequest { log: log(), start: Some(Start::Position(9)) }
                .encode_to_vec(),
        ]
        .concat(),
        [&[3][..], &proto::TrimRequest { log: log(), keep_from: 4 }.encode_to_vec()].concat(),
        [&[4][..], &extend.encode_to_vec()].concat(),
        [&[4][..], &modify.encode_to_vec()].concat(),
        [&[5][..], &proto::ResolveRequest { log: log(), token }.encode_to_vec()].concat(),
        [&[6][..], &proto::CreateRequest { log: log(), loglet: "local".into() }.encode_to_vec()]
            .concat(),
    ]
}
