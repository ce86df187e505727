//! The quickstart in Rust prints what the quickstart in every language prints.

use std::process::Command;

#[test]
fn the_quickstart_prints_what_is_expected() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file:{}/store/fruit", dir.path().display());
    let run = Command::new(env!("CARGO_BIN_EXE_quickstart")).arg(url).output().expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let expected = include_str!("../quickstart/expected.txt");
    assert_eq!(String::from_utf8_lossy(&run.stdout), expected);
}
