//! URLs: what each form means, what each mistake is told, and no text that panics.

use proptest::prelude::*;

use super::*;

fn file(dir: &str, name: Option<&str>) -> LogUrl {
    let location = Location::File { dir: dir.into() };
    LogUrl { location, name: name.map(String::from), params: Params::default() }
}

fn message(url: &str) -> String {
    LogUrl::parse(url).expect_err(url).to_string()
}

#[test]
fn what_a_url_names() {
    let parse = |url| LogUrl::parse(url).unwrap();
    let memory = parse("memory:orders");
    assert_eq!((memory.location, memory.name.as_deref()), (Location::Memory, Some("orders")));
    let store = parse("memory:/");
    assert_eq!((store.location, store.name), (Location::Memory, None));
    let fresh = parse("memory:?timeout=1");
    assert_eq!((fresh.location, fresh.name.as_deref()), (Location::Fresh, Some("log")));

    for (url, dir, name) in [
        ("file:data/orders", "data", Some("orders")),
        ("file:./orders", ".", Some("orders")),
        ("file:../a b/orders", "../a b", Some("orders")),
        ("file:a%20b/orders", "a%20b", Some("orders")),
        ("file:a//orders", "a", Some("orders")),
        ("file:data/", "data", None),
        ("file:./", ".", None),
        ("file:/srv/data/orders", "/srv/data", Some("orders")),
        ("file:///srv/data/orders", "/srv/data", Some("orders")),
        ("file:////srv/data/orders", "/srv/data", Some("orders")),
        ("file:///srv/data/", "/srv/data", None),
        ("file:///orders", "/", Some("orders")),
        ("file:/", "/", None),
        ("file:C:/x", "C:", Some("x")),
        ("file:data/...", "data", Some("...")),
    ] {
        assert_eq!(parse(url), file(dir, name), "{url}");
    }
}

#[test]
fn parameters() {
    let url = "file:d/n?timeout=0.25s&mode=read&create=false&entry_bytes_max=9&\
               in_flight_bytes_max=10&loglet=native:3";
    let expected = Params {
        timeout: Some(Some(Duration::from_millis(250))),
        mode: Some(Mode::Read),
        create: Some(false),
        entry_bytes_max: Some(9),
        in_flight_bytes_max: Some(10),
        loglet: Some("native:3".into()),
    };
    assert_eq!(LogUrl::parse(url).unwrap().params, expected);
    for (value, timeout) in [
        ("5", Some(Duration::from_secs(5))),
        ("5s", Some(Duration::from_secs(5))),
        ("500ms", Some(Duration::from_millis(500))),
        ("0.000000001", Some(Duration::from_nanos(1))),
        ("none", None),
    ] {
        let url = LogUrl::parse(&format!("memory:x?timeout={value}")).unwrap();
        assert_eq!(url.params.timeout, Some(timeout), "{value}");
    }
    for wrong in ["", "0", "0s", "-1", "+1", "1e3", "5m", "1.", ".5", "1.0000000001", "ms", "inf"] {
        assert!(message(&format!("memory:x?timeout={wrong}")).contains("500ms"), "{wrong}");
    }
    assert!(message("memory:x?limit=3").contains("`in_flight_bytes_max`"));
    assert!(message("memory:x?mode=read&mode=read").contains("twice"));
    for wrong in ["", "mode", "mode=r", "create=1", "entry_bytes_max=1MiB", "loglet=", "mode=read&"]
    {
        assert!(LogUrl::parse(&format!("memory:x?{wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn a_near_miss_gets_a_hint() {
    for (url, hint) in [
        ("", "file:DIR/NAME"),
        ("./x/y", "`file:./x/y`"),
        ("/srv/x", "`file:/srv/x`"),
        ("orders", "`file:./orders`"),
        ("files:a/b", "`file:a/b`"),
        ("FILE:a/b", "`file:a/b`"),
        ("mem:x", "`memory:x`"),
        ("Memory:x", "`memory:x`"),
        ("vlog://h/x", "`virtuallog://h/x`"),
        ("redis://h/x", "this build has"),
        ("file:", "file:DIR/NAME"),
        ("file:name", "`file:./name`"),
        ("file:name?mode=read", "`file:./name`"),
        ("file://host/x", "`file:///host/x`"),
        ("file:~/x", "not expanded"),
        ("file:a/..", "`file:a/../`"),
        ("file:a/b c", "is not a log's name"),
        ("memory://x", "`memory:x`"),
        ("memory:a/b", "`memory:b`"),
        ("memory:ä", "is not a log's name"),
        ("memory:..", "is not a log's name"),
        ("memory:_cluster", "choose another"),
        ("virtuallog:h/x", "`virtuallog://HOST:PORT/NAME`"),
        ("virtuallog://h", "for the store"),
        ("virtuallog://h/a/b", "no directories"),
        ("virtuallog://h:0/x", "`HOST:PORT`"),
        ("virtuallog://h:70000/x", "`HOST:PORT`"),
        ("virtuallog://,h/x", "`HOST:PORT`"),
        ("virtuallog://user@h/x", "`HOST:PORT`"),
    ] {
        let error = LogUrl::parse(url).expect_err(url);
        assert_eq!(error.code(), ErrorCode::Invalid, "{url}");
        assert!(error.message().contains(hint), "{url}: {error}");
    }
    assert!(check_name(&"n".repeat(128)).is_ok() && check_name(&"n".repeat(129)).is_err());
    for later in ["zookeeper://h/x/y", "etcd://h/x/y"] {
        let error = LogUrl::parse(later).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Incompatible);
        assert!(error.message().contains("`file:DIR/NAME`"), "{error}");
    }
}

#[test]
fn a_cluster_is_a_list_of_hosts() {
    let hosts = |url: &str| match LogUrl::parse(url).unwrap().location {
        Location::Cluster { hosts } => hosts,
        other => panic!("{other:?}"),
    };
    assert_eq!(hosts("virtuallog://a/x"), ["a:7400"]);
    assert_eq!(hosts("virtuallog://a:1,b,10.0.0.1:2/"), ["a:1", "b:7400", "10.0.0.1:2"]);
    assert_eq!(hosts("virtuallog://[::1],[::1]:9/x"), ["[::1]:7400", "[::1]:9"]);
    let url = LogUrl::parse("virtuallog://a,b:9/n?mode=read").unwrap();
    assert_eq!(url.to_string(), "virtuallog://a:7400,b:9/n?mode=read");
    assert_eq!(LogUrl::parse(&url.to_string()).unwrap(), url);
}

#[test]
fn a_store_and_a_log_are_told_apart() {
    let (log, store) = (LogUrl::parse("file:d/n?mode=read"), LogUrl::parse("file:d/"));
    let (log, store) = (log.unwrap(), store.unwrap());
    assert_eq!(log.log_name().unwrap(), "n");
    assert!(store.store_only().is_ok());
    assert!(store.log_name().unwrap_err().message().contains("add the log's name"));
    assert!(log.store_only().unwrap_err().message().contains("write `file:d/`"));
}

fn params() -> impl Strategy<Value = Params> {
    let timeout = prop::option::of(prop::option::of((0..u64::MAX, 1..1_000_000_000u32)));
    let mode = prop::option::of(prop_oneof![Just(Mode::Read), Just(Mode::Write)]);
    let bytes = || prop::option::of(1..usize::MAX);
    let loglet = prop::option::of("[a-z]{1,8}(:[0-9/:=?]{1,9})?");
    (timeout, mode, prop::option::of(any::<bool>()), bytes(), bytes(), loglet).prop_map(
        |(timeout, mode, create, entry_bytes_max, in_flight_bytes_max, loglet)| Params {
            timeout: timeout.map(|time| time.map(|(secs, nanos)| Duration::new(secs, nanos))),
            mode,
            create,
            entry_bytes_max,
            in_flight_bytes_max,
            loglet,
        },
    )
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), scheme in "(memory|file|files|etcd)?:?/{0,3}") {
        let _ = LogUrl::parse(&text);
        let _ = LogUrl::parse(&format!("{scheme}{text}"));
        let _ = LogUrl::parse(&format!("file:d/n?{text}"));
    }

    #[test]
    fn whatever_parses_is_written_and_read_again(
        text in "(memory:|file:)[a./~% ]{0,12}(\\?mode=read)?",
    ) {
        if let Ok(url) = LogUrl::parse(&text) {
            prop_assert_eq!(LogUrl::parse(&url.to_string()).unwrap(), url);
        }
    }

    #[test]
    fn round_trip(
        dir in prop::option::of("/?[A-Za-z0-9 %._:#-]{1,8}(/[A-Za-z0-9 %._-]{1,8}){0,3}"),
        name in prop::option::of("[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"),
        params in params(),
    ) {
        let location = match dir {
            None => Location::Memory,
            Some(dir) => Location::File { dir: dir.into() },
        };
        let url = LogUrl { location, name, params };
        prop_assert_eq!(LogUrl::parse(&url.to_string()).unwrap(), url);
    }
}
