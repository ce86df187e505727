//! The real `virtuallogd`: its settings and where they come from, what it refuses, how it ends.

mod binaries;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use binaries::{Running, finish, refused, run, virtuallog, virtuallogd};

/// A daemon on a free port, and its ready line.
fn start(data: &Path, args: &[&str]) -> (Running, Value) {
    let data = data.to_str().expect("text");
    let mut command = virtuallogd(&["--data", data, "--listen", "127.0.0.1:0"]);
    let mut daemon = Running::start(command.args(args).stderr(Stdio::piped()));
    let ready = daemon.json();
    (daemon, ready)
}

fn address(ready: &Value) -> &str {
    ready["address"].as_str().expect("an address")
}

#[test]
fn each_setting_comes_from_flag_variable_file_or_default() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.toml");
    let settings = "zone = 'file'\nroles = ['log', 'sequencer']\nheartbeat = '1s'\ninsecure = true\n\
                    join = ['one', 'two:1']\nsegment-bytes-max = 1048576\n";
    std::fs::write(&file, settings).expect("a file");
    let file = file.to_str().expect("text");
    let config = |args: &[&str]| {
        let mut command = virtuallogd(&["config", "--config", file, "--heartbeat", "3s"]);
        command.args(args).env("VIRTUALLOG_ZONE", "variable").env("VIRTUALLOG_HEARTBEAT", "2s");
        finish(&mut command, b"")
    };
    let found = config(&[]).json();
    let origin = |source, origin| json!({ "source": source, "origin": origin });
    for (name, value, from) in [
        ("heartbeat", "3s", origin("flag", "--heartbeat")),
        ("zone", "variable", origin("environment", "VIRTUALLOG_ZONE")),
        ("roles", "log,sequencer", origin("file", file)),
        ("insecure", "true", origin("file", file)),
        ("join", "one:7400,two:1", origin("file", file)),
        ("segment-bytes-max", "1MiB", origin("file", file)),
        ("drain-timeout", "20s", json!({ "source": "default" })),
        ("listen", "127.0.0.1:7400", json!({ "source": "default" })),
    ] {
        let mut expected = from;
        expected["value"] = value.into();
        assert_eq!(found[name], expected, "{name}");
    }
    assert_eq!(found["advertise"], json!({ "value": null, "source": "default" }));
    let table = config(&["--text"]);
    let line = |name: &str| table.text().lines().find(|line| line.starts_with(name));
    let zone: Vec<_> = line("zone").expect("a row").split_whitespace().collect();
    assert_eq!(zone, ["zone", "variable", "variable", "VIRTUALLOG_ZONE"]);
}

#[test]
fn what_is_wrong_is_named_with_its_source() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.toml");
    let path = file.to_str().expect("text");
    for (text, word) in [
        ("zones = 'a'", "no setting is called `zones`"),
        ("heartbeat = 'often'", "`often` is no value for `heartbeat`: write a time with its unit"),
        ("listen = {}", "`listen` takes a string"),
        ("[server]\nzone = 'a'", "no setting is called `server`"),
        ("zone = ", "not TOML"),
    ] {
        std::fs::write(&file, text).expect("a file");
        let error = refused(&mut virtuallogd(&["--config", path])).error(2, "INVALID", word);
        assert!(error["message"].as_str().expect("a message").contains(path), "{error}");
    }
    let data = dir.path().join("data");
    let data = data.to_str().expect("text");
    let refuse = |args: &[&str], word| {
        refused(virtuallogd(&["--data", data]).args(args)).error(2, "INVALID", word)
    };
    refuse(&["--listen", "nowhere:port"], "flag --listen: `nowhere:port`");
    refuse(&["--roles", "log,king"], "flag --roles");
    refuse(&["--join", "a,,b"], "flag --join");
    refuse(&["--zones", "a"], "--zones");
    refuse(&["--listen", "0.0.0.0:0"], "insecure");
    refused(virtuallogd(&["--data", data]).env("VIRTUALLOG_LOG_FORMAT", "xml")).error(
        2,
        "INVALID",
        "variable VIRTUALLOG_LOG_FORMAT: `xml` is no value for `log-format`: write `text` or `json`",
    );
    refused(&mut virtuallogd(&["--config", data])).error(1, "NOT_FOUND", data);
    refused(&mut virtuallogd(&[])).error(2, "INVALID", "--data");
    assert!(!Path::new(data).exists(), "a refused daemon leaves nothing behind");
}

#[test]
fn it_says_when_it_is_up_and_ends_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    for signal in [Signal::TERM, Signal::INT] {
        let (mut daemon, ready) = start(&data, &["--log-format", "json"]);
        assert_eq!(ready["ready"], true);
        assert_eq!((&ready["node"], &ready["cluster"]), (&Value::Null, &Value::Null));
        assert_eq!(ready["pid"], daemon.child.id());
        assert_eq!(ready["url"], format!("virtuallog://{}/", address(&ready)));
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0));
        let mut log = String::new();
        daemon.errors.as_mut().expect("piped").read_to_string(&mut log).expect("text");
        let mut messages = log.lines().map(|line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            line["message"].as_str().expect("a message").to_owned()
        });
        assert_eq!(messages.next_back().as_deref(), Some("closed"), "{log}");
    }
    let mut told =
        virtuallogd(&["--data", data.to_str().expect("text"), "--listen", "127.0.0.1:0"]);
    let mut told = Running::start(told.args(["--text", "--log", "off"]));
    let line = told.line();
    assert!(line.contains("virtuallog init 127.0.0.1:"), "{line}");
}

#[test]
fn one_directory_and_one_port_have_one_owner() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let (daemon, _) = start(&data, &[]);
    let data = data.to_str().expect("text");
    let second = &mut virtuallogd(&["--data", data, "--listen", "127.0.0.1:0", "--log", "off"]);
    refused(second).error(1, "LOCKED", &daemon.child.id().to_string());

    let owner = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = owner.local_addr().expect("an address").to_string();
    let other = dir.path().join("other");
    let other = other.to_str().expect("text");
    let third = &mut virtuallogd(&["--data", other, "--listen", &taken, "--log", "off"]);
    refused(third).error(1, "UNAVAILABLE", &taken);
}

#[test]
fn garbage_on_the_port_does_no_harm() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut daemon, ready) = start(&dir.path().join("data"), &[]);
    let address = address(&ready);
    run(&["init", address]).json();
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut garbage = vec![0; 64 << 10];
    for round in 0..32 {
        for byte in &mut garbage {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (noise >> 56) as u8;
        }
        let mut socket = TcpStream::connect(address).expect("it listens");
        let start =
            ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "VLW\u{1}", "VL"];
        let start = start.get(round % 5).unwrap_or(&"").as_bytes();
        // The other side may hang up at any byte.
        let _ = socket.write_all(start).and_then(|()| socket.write_all(&garbage[round * 100..]));
    }
    // Some that say nothing, and stay.
    let _silent: Vec<_> =
        (0..32).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    let url = format!("virtuallog://{address}/log");
    finish(&mut virtuallog(&["append", &url]), b"still here\n").json();
    assert_eq!(run(&["read", &url]).text(), "still here\n");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
}
