//! The real binary over real directories: every command, what it prints, how it ends.
//!
//! Nothing here waits by the clock: a test that needs something from another process waits for a line
//! of its output. Standard output is no terminal in a test, so reports are JSON.

mod binaries;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use binaries::{Run, Running, finish, virtuallog};

/// A directory with a store in it, gone at the end of the test.
struct Store {
    dir: TempDir,
}

impl Store {
    fn new() -> Self {
        Store { dir: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn url(&self, name: &str) -> String {
        format!("file:{}/store/{name}", self.path().display())
    }

    /// `virtuallog COMMAND URL ARGS…` for the log `log`.
    fn run(&self, command: &str, args: &[&str]) -> Run {
        self.feed(command, args, b"")
    }

    fn feed(&self, command: &str, args: &[&str], input: &[u8]) -> Run {
        let mut line = virtuallog(&[command, &self.url("log")]);
        finish(line.args(args), input)
    }

    fn with_entries(entries: &str) -> Self {
        let store = Store::new();
        store.feed("append", &[], entries.as_bytes()).json();
        store
    }

    fn start(&self, command: &str, args: &[&str]) -> Running {
        let mut line = virtuallog(&[command, &self.url("log")]);
        Running::start(line.args(args))
    }
}

#[test]
fn lines_go_in_and_come_out() {
    let store = Store::new();
    let report = store.feed("append", &[], b"one\n\nthree").json();
    assert_eq!(
        (&report["count"], &report["first"], &report["last"]),
        (&json!(3), &json!(0), &json!(2))
    );
    assert!(report["entries_per_s"].is_u64() && report["seconds"].is_f64(), "{report}");
    assert_eq!(report["bytes"], 8);
    assert_eq!(store.run("read", &[]).text(), "one\n\nthree\n");
    assert_eq!(store.run("read", &["--from", "1", "--to", "2"]).text(), "\n");
    assert_eq!(store.run("check-tail", &[]).json(), json!({ "position": 3, "sealed": false }));
}

#[test]
fn a_file_can_be_cut_as_one_likes() {
    let store = Store::new();
    let file = store.path().join("input");
    std::fs::write(&file, b"a|b|\n").expect("a file");
    let file = file.to_str().expect("text");
    assert_eq!(store.run("append", &[file, "--delimiter", "|"]).json()["count"], 3);
    assert_eq!(store.run("append", &[file, "--whole"]).json()["count"], 1);
    let text = store.run("append", &[file, "--text"]);
    assert!(text.text().starts_with("appended 1 entry, positions 4 to 4\n"), "{text:?}");
    assert_eq!(store.run("read", &[]).text(), "a\nb\n\n\na|b|\n\na|b|\n");
    assert_eq!(store.feed("append", &["-"], b"").json()["first"], Value::Null);
}

#[test]
fn what_read_gives_as_json_append_takes_back() {
    let store = Store::new();
    store.feed("append", &["--whole"], b"two\nlines \xe2\x82\xac").json();
    store.feed("append", &["--whole"], b"\xff\x00").json();
    let read = store.run("read", &["--json"]);
    let rows = read.rows();
    assert_eq!(rows[0]["payload"], "two\nlines €");
    assert_eq!(rows[1]["payload_base64"], "/wA=");
    assert_eq!(rows[1]["position"], 1);
    let time = rows[0]["written_at"].as_str().expect("a time");
    assert!(time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");

    let copy = Store::new();
    assert_eq!(copy.feed("append", &["--json"], read.stdout.as_bytes()).json()["count"], 2);
    let payloads = |row: &Value| (row["payload"].clone(), row["payload_base64"].clone());
    let copied = copy.run("read", &["--json"]).rows();
    assert_eq!(
        copied.iter().map(payloads).collect::<Vec<_>>(),
        rows.iter().map(payloads).collect::<Vec<_>>()
    );
}

#[test]
fn the_url_may_come_from_the_environment() {
    let store = Store::new();
    let url = store.url("log");
    std::fs::write(store.path().join("lines"), "x\ny\n").expect("a file");
    let run = |args: &[&str], input: &[u8]| {
        finish(virtuallog(args).env("VIRTUALLOG_URL", &url).current_dir(store.path()), input)
    };
    assert_eq!(run(&["append"], b"a\n").json()["count"], 1);
    assert_eq!(run(&["append", "lines"], b"").json()["count"], 2);
    assert_eq!(run(&["trim", "1"], b"").json()["effective"], 1);
    assert_eq!(run(&["read"], b"").text(), "x\ny\n");
    finish(&mut virtuallog(&["read"]), b"").error(2, "INVALID", "URL");
}

#[test]
fn tail_shows_the_last_entries() {
    let store = Store::with_entries("1\n2\n3\n4\n");
    assert_eq!(store.run("tail", &["--lines", "2"]).text(), "3\n4\n");
    assert_eq!(store.run("tail", &["--lines", "0"]).text(), "");
    assert_eq!(store.run("tail", &[]).text(), "1\n2\n3\n4\n");
    assert_eq!(store.run("tail", &["-n", "1", "--json"]).json()["position"], 3);
}

#[test]
fn tail_follows_a_log_that_another_process_writes() {
    let store = Store::with_entries("before\n");
    let mut follower = store.start("tail", &["--follow"]);
    assert_eq!(follower.line(), "before");
    let mut writer = store.start("append", &[]);
    for word in ["first", "second"] {
        writeln!(writer.stdin(), "{word}").expect("the writer reads");
        assert_eq!(follower.line(), word);
    }
    drop(writer.child.stdin.take());
    let report: Value = serde_json::from_str(&writer.line()).expect("JSON");
    assert_eq!((&report["first"], &report["last"]), (&json!(1), &json!(2)));
    assert!(writer.wait().success());

    // The next writer goes on with another engine, and then ends the log: the follower sees both.
    store.run("reconfigure", &["--to", "local"]).json();
    store.feed("append", &[], b"third\n").json();
    assert_eq!(follower.line(), "third");
    store.run("seal", &["--forever"]).json();
    assert_eq!(follower.line(), "");
    assert!(follower.wait().success());
}

#[test]
fn ctrl_c_ends_following() {
    let store = Store::with_entries("one\n");
    let mut follower = store.start("tail", &["--follow"]);
    assert_eq!(follower.line(), "one");
    follower.signal(Signal::INT);
    let status = follower.wait();
    assert_eq!(status.code(), Some(130), "{status:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let store = Store::with_entries(&"some line of text\n".repeat(100_000));
    let mut reader = store.start("read", &[]);
    assert_eq!(reader.line(), "some line of text");
    reader.lines = None;
    let status = reader.wait();
    assert!(status.success(), "{status:?}");
}

#[test]
fn logs_are_created_listed_and_deleted() {
    let store = Store::new();
    let url = |name| store.url(name);
    let run = |args: &[&str]| finish(&mut virtuallog(args), b"");
    assert_eq!(run(&["create", &url("b")]).json()["done"], "created");
    run(&["create", &url("a"), "--loglet", "local"]).json();
    assert_eq!(run(&["logs", &url("")]).rows(), [json!({ "name": "a" }), json!({ "name": "b" })]);
    assert_eq!(run(&["logs", &url(""), "--text"]).text(), "a\nb\n");
    run(&["create", &url("a")]).error(1, "CONFLICT", "a");
    assert_eq!(run(&["delete", &url("a")]).json()["done"], "deleted");
    assert_eq!(run(&["logs", &url("")]).rows(), [json!({ "name": "b" })]);
    run(&["delete", &url("a")]).error(1, "NOT_FOUND", "a");
    run(&["logs", &url("b")]).error(2, "INVALID", "b");
}

#[test]
fn a_plan_does_nothing_and_is_then_executed() {
    let store = Store::with_entries("one\ntwo\n");
    let before = store.run("chain", &[]).json();
    let plan = store.run("reconfigure", &["--to", "local", "--plan"]).json();
    assert_eq!(plan["version"], before["version"]);
    assert_eq!(plan["from"], "local");
    assert_eq!(plan["to"], "local");
    assert_eq!(plan["seals_segment"], 0);
    assert_eq!((&plan["tail"], &plan["bytes_to_move"]), (&json!(2), &json!(0)));
    assert_eq!(plan["objections"], json!([]));
    assert_eq!(store.run("chain", &[]).json(), before);

    let version = plan["version"].to_string();
    let exactly = ["--to", "local", "--if-version", &version];
    let after = store.run("reconfigure", &exactly).json();
    let segments = after["segments"].as_array().expect("segments");
    assert_eq!(segments.len(), 2);
    assert_eq!((&segments[0]["state"], &segments[0]["stop"]), (&json!("sealed"), &json!(2)));
    assert_eq!((&segments[1]["state"], &segments[1]["start"]), (&json!("active"), &json!(2)));
    assert_eq!(after, store.run("chain", &[]).json());

    // The same plan again is another one: the chain has moved on.
    store.run("reconfigure", &exactly).error(1, "CONFLICT", "version");
    assert_eq!(store.run("chain", &[]).json(), after);
    store.feed("append", &[], b"three\n").json();
    assert_eq!(store.run("read", &[]).text(), "one\ntwo\nthree\n");
}

#[test]
fn the_chain_is_shown_as_a_table() {
    let store = Store::with_entries("one\n");
    store.run("reconfigure", &["--to", "local"]).json();
    let text = store.run("chain", &["--text"]);
    let lines: Vec<&str> = text.text().lines().collect();
    assert!(
        lines[0].starts_with("log log, chain version ") && lines[0].ends_with(", open"),
        "{text:?}"
    );
    assert_eq!(lines[1], "segment  loglet  from  to  state");
    assert_eq!(lines[2], "0        local   0     1   sealed");
    assert!(lines[3].ends_with("local   1     -   active"), "{text:?}");
}

#[test]
fn trimmed_entries_and_segments_are_gone() {
    let store = Store::with_entries("one\ntwo\nthree\n");
    store.run("reconfigure", &["--to", "local"]).json();
    store.feed("append", &[], b"four\n").json();
    let trimmed = store.run("trim", &["3"]).json();
    assert_eq!(trimmed, json!({ "requested": 3, "effective": 3, "limited_by": null }));
    let error = store.run("read", &["--from", "1"]).error(1, "TRIMMED", "3");
    assert_eq!(error["position"], 3);
    assert_eq!(store.run("read", &[]).text(), "four\n");
    let chain = store.run("reconfigure", &["--truncate"]).json();
    assert_eq!(chain["segments"].as_array().map(Vec::len), Some(1), "{chain}");
    assert_eq!(store.run("trim", &["100"]).json()["limited_by"], "tail");
    assert_eq!(store.run("trim", &["1"]).json()["limited_by"], "already_trimmed");
}

#[test]
fn sealing_needs_the_word_and_is_for_ever() {
    let store = Store::with_entries("one\n");
    store.run("seal", &[]).error(2, "INVALID", "--forever");
    assert_eq!(store.run("seal", &["--forever"]).json(), json!({ "position": 1, "sealed": true }));
    assert_eq!(store.run("check-tail", &[]).json(), json!({ "position": 1, "sealed": true }));
    assert_eq!(store.run("chain", &[]).json()["life"], "ended");
    store.feed("append", &[], b"two\n").error(1, "SEALED", "");
    assert_eq!(store.run("read", &[]).text(), "one\n");
}

#[test]
fn verify_reads_everything_and_finds_damage() {
    let store = Store::with_entries(&"a line of some length\n".repeat(1000));
    let report = store.run("verify", &[]).json();
    let expected = json!({ "segments": 1, "entries": 1000, "bytes": 21_000, "problems": [] });
    assert_eq!(report, expected);

    let hits = damage(&store.path().join("store"), b"a line of some length");
    assert!(hits > 0, "no entry was found in the files");
    let run = store.run("verify", &[]);
    assert_eq!(run.status, Some(1), "{run:?}");
    assert!(run.stdout.contains("CORRUPT"), "{run:?}");
    store.run("read", &[]).error(1, "CORRUPT", "");
}

/// Flips one bit in the middle of the occurrences of `text` in each file; the most that a file has.
fn damage(dir: &Path, text: &[u8]) -> usize {
    let mut files = Vec::new();
    files_below(dir, &mut files);
    let flip = |path: PathBuf| {
        let mut bytes = std::fs::read(&path).expect("readable");
        let windows = bytes.windows(text.len()).enumerate();
        let at: Vec<usize> = windows.filter(|(_, w)| *w == text).map(|(at, _)| at).collect();
        if let Some(middle) = at.get(at.len() / 2) {
            bytes[*middle] ^= 1;
            std::fs::write(&path, bytes).expect("writable");
        }
        at.len()
    };
    files.into_iter().map(flip).max().unwrap_or(0)
}

#[test]
fn bench_measures() {
    let store = Store::new();
    let quick = ["--seconds", "0.2", "--json"];
    for args in [&["--in-flight", "16", "--size", "10", "--tasks", "3"][..], &["--blocking"]] {
        let report = store.run("bench", &[args, &quick].concat()).json();
        assert_eq!(report["errors"], 0);
        for field in ["appends_per_s", "bytes_per_s"] {
            assert!(report[field].as_u64() > Some(0), "{field}: {report}");
        }
        let micros = |field: &str| report[field].as_f64().expect("a number");
        assert!(micros("p50_us") > 0.0 && micros("p50_us") <= micros("p99_us"), "{report}");
        assert!(micros("p99_us") <= micros("p999_us") && micros("p999_us") <= micros("max_us"));
    }
}

#[test]
fn what_is_not_there_is_not_created_by_looking() {
    let store = Store::new();
    for command in ["read", "tail", "chain", "check-tail", "verify"] {
        store.run(command, &[]).error(1, "NOT_FOUND", "");
    }
    store.run("append", &["--no-create"]).error(1, "NOT_FOUND", "");
    store.run("reconfigure", &["--to", "local"]).error(1, "NOT_FOUND", "");
    store.run("trim", &["1"]).error(1, "NOT_FOUND", "");
    store.run("append", &["no-such-file"]).error(1, "NOT_FOUND", "no-such-file");
    assert!(!store.path().join("store").exists(), "something was created");

    store.feed("append", &[], b"one\n").json();
    let other = finish(&mut virtuallog(&["read", &store.url("other")]), b"");
    other.error(1, "NOT_FOUND", "other");
}

#[test]
fn wrong_urls_say_what_to_write() {
    let store = Store::new();
    let read = |url: &str| finish(&mut virtuallog(&["read", url]), b"");
    read("fiel:dir/log").error(2, "INVALID", "file:");
    read("just/a/path").error(2, "INVALID", "file:");
    read("file:dir/log?colour=blue").error(2, "INVALID", "timeout");
    read("file:dir/bad name").error(2, "INVALID", "name");
    let deep = format!("file:{}/no/such/parent/log", store.path().display());
    finish(&mut virtuallog(&["append", &deep]), b"x\n").error(1, "NOT_FOUND", "");
}

#[test]
fn a_second_writer_writes_through_the_one_that_holds_the_store() {
    let store = Store::with_entries("one\n");
    let mut follower = store.start("tail", &["--follow"]);
    assert_eq!(follower.line(), "one");
    let mut owner = store.start("append", &[]);
    writeln!(owner.stdin(), "two").expect("the owner reads");
    // Once its entry is there the owner surely holds the store.
    assert_eq!(follower.line(), "two");
    assert_eq!(store.feed("append", &[], b"three\n").json()["first"], 2);
    store.run("reconfigure", &["--to", "local"]).json();
    writeln!(owner.stdin(), "four").expect("the owner reads");
    assert_eq!(follower.line(), "three");
    assert_eq!(follower.line(), "four");
    assert_eq!(store.run("read", &[]).text(), "one\ntwo\nthree\nfour\n");
}

#[test]
fn an_oversize_entry_is_refused_and_those_before_it_are_reported() {
    let store = Store::new();
    let mut input = b"one\ntwo\n".to_vec();
    input.extend(vec![b'x'; (1 << 20) + 1]);
    let error = store.feed("append", &[], &input).error(1, "TOO_LARGE", "");
    assert_eq!(error["appended"], json!({ "count": 2, "first": 0, "last": 1 }));
    assert_eq!(store.run("read", &[]).text(), "one\ntwo\n");
}

#[test]
fn an_append_in_doubt_is_status_3_and_can_be_resolved() {
    let store = Store::new();
    store.run("create", &[]).json();
    let url = store.url("log?timeout=0.0005");
    let lines: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    // Half a millisecond is too short for a sync, nearly always.
    let in_doubt = (0..50).find_map(|_| {
        let run = finish(&mut virtuallog(&["append", &url]), lines.as_bytes());
        (run.status == Some(3)).then_some(run)
    });
    let error = in_doubt.expect("one of them times out").error(3, "DEADLINE", "resolve");
    assert_eq!((&error["in_doubt"], &error["retryable"]), (&json!(true), &json!(false)));
    let token = error["token"].as_str().expect("a token");
    let answer = store.run("resolve", &[token]).json();
    assert_eq!(answer["in_log"], json!(answer["position"].is_u64()), "{answer}");
    if let Some(position) = answer["position"].as_u64() {
        let range = [position.to_string(), (position + 1).to_string()];
        let entry = store.run("read", &["--from", &range[0], "--to", &range[1]]);
        let before = error["appended"]["count"].as_u64().unwrap_or(0);
        assert_eq!(entry.text(), format!("{before}\n"), "{error}");
    }
    store.run("resolve", &["nonsense"]).error(2, "INVALID", "nonsense");
}

#[test]
fn a_write_that_fails_loses_nothing_that_was_acknowledged() {
    let store = Store::with_entries("0\n");
    // The system refuses writes beyond a file size of some megabytes, in the middle of the journal.
    let script = r#"trap "" XFSZ; ulimit -f 10000; exec "$0" append "$1""#;
    let mut limited = Command::new("sh");
    limited.args(["-c", script, env!("CARGO_BIN_EXE_virtuallog"), &store.url("log")]);
    let lines: String = (1..2_000_000).map(|number| format!("{number}\n")).collect();
    let run = finish(&mut limited, lines.as_bytes());
    let error: Value = serde_json::from_str(run.stderr.trim()).expect("one JSON object");
    assert!(["UNAVAILABLE", "DISK_FULL"].iter().any(|code| error["code"] == *code), "{error}");
    let in_doubt = error["in_doubt"].as_bool().expect("a boolean");
    assert_eq!(run.status, Some(if in_doubt { 3 } else { 1 }), "{error}");
    let appended = error["appended"]["count"].as_u64().expect("some were appended");

    // The next owner goes on behind everything that was acknowledged.
    store.feed("append", &[], b"more\n").json();
    let read = store.run("read", &[]);
    let count = read.text().lines().count() as u64 - 1;
    assert!(count > appended, "{appended} were acknowledged, {count} are there");
    let expected = (0..count).map(|number| number.to_string()).chain(["more".into()]);
    assert!(read.text().lines().eq(expected), "{count} entries are not the first lines");
    assert_eq!(store.run("verify", &[]).json()["problems"], json!([]));
}

#[test]
fn a_file_that_was_cut_is_told_and_not_taken_for_the_whole() {
    let store = Store::with_entries(&"a line of some length\n".repeat(10_000));
    let mut files = Vec::new();
    files_below(&store.path().join("store/loglets"), &mut files);
    let length = |path: &PathBuf| std::fs::metadata(path).expect("a file").len();
    let largest = files.into_iter().max_by_key(length).expect("the loglet has a file");
    let half = length(&largest) / 2;
    let file = std::fs::OpenOptions::new().write(true).open(&largest).expect("writable");
    file.set_len(half).expect("cut");
    store.run("read", &[]).error(1, "CORRUPT", "shorter");
    store.feed("append", &[], b"more\n").error(1, "DATA_LOSS", "shorter");
    assert_eq!(store.run("verify", &[]).status, Some(1));
}

fn files_below(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_below(&path, files) } else { files.push(path) }
    }
}

#[test]
fn bad_json_lines_are_named() {
    let store = Store::new();
    let lines = b"{\"payload\":\"a\"}\nnonsense\n";
    let error = store.feed("append", &["--json"], lines).error(2, "INVALID", "line 2");
    assert_eq!(error["appended"]["count"], 1);
}

#[test]
fn positions_beyond_the_tail_are_told() {
    let store = Store::with_entries("one\n");
    store.run("read", &["--from", "5"]).error(2, "INVALID", "tail");
}

#[test]
fn a_swap_to_an_unknown_kind_changes_nothing() {
    let store = Store::with_entries("one\n");
    let before = store.run("chain", &[]).json();
    store.run("reconfigure", &["--to", "nosuch:3"]).error(2, "INVALID", "nosuch");
    assert_eq!(store.run("chain", &[]).json(), before);
    store.feed("append", &[], b"two\n").json();
}

#[test]
fn a_directory_that_is_no_store_is_left_alone() {
    let store = Store::new();
    let dir = store.path().join("store");
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::write(dir.join("diary"), "dear diary").expect("a file");
    store.feed("append", &[], b"one\n").error(2, "INVALID", "not a store");
    assert_eq!(std::fs::read(dir.join("diary")).expect("still there"), b"dear diary");
}

#[test]
fn wrong_usage_is_status_2_and_help_is_0() {
    let run = |args: &[&str]| finish(&mut virtuallog(args), b"");
    run(&["frobnicate"]).error(2, "INVALID", "frobnicate");
    run(&["read", "memory:x", "--from", "minus"]).error(2, "INVALID", "minus");
    run(&["reconfigure", "memory:x"]).error(2, "INVALID", "--to");
    assert!(run(&["--help"]).text().contains("reconfigure"));
    assert!(run(&["reconfigure", "--help"]).text().contains("--plan"));
    assert!(run(&["--version"]).text().starts_with("virtuallog "));
    let text = run(&["read", "nonsense", "--text"]);
    assert!(text.stderr.starts_with("virtuallog: ") && text.stderr.ends_with("(INVALID)\n"));
}
