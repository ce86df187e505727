//! The programs in Rust print what those in every language print.

use std::path::Path;
use std::process::Command;

fn prints_what_is_expected(program: &str, path: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file:{}/store/log", dir.path().display());
    let run = Command::new(path).arg(url).output().expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join(program).join("expected.txt");
    let expected = std::fs::read_to_string(expected).expect("it can be read");
    assert_eq!(String::from_utf8_lossy(&run.stdout), expected);
}

#[test]
fn quickstart() {
    prints_what_is_expected("quickstart", env!("CARGO_BIN_EXE_quickstart"));
}

#[test]
fn tailer() {
    prints_what_is_expected("tailer", env!("CARGO_BIN_EXE_tailer"));
}

#[test]
fn live_swap() {
    prints_what_is_expected("live-swap", env!("CARGO_BIN_EXE_live-swap"));
}

#[test]
fn replicated_counter() {
    prints_what_is_expected("replicated-counter", env!("CARGO_BIN_EXE_replicated-counter"));
}
