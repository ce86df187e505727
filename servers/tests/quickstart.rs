//! The quickstart on the command line prints what the quickstart in every language prints.

use std::path::Path;
use std::process::Command;

#[test]
fn the_quickstart_prints_what_is_expected() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file:{}/store/fruit", dir.path().display());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart/main.sh");
    let bin = Path::new(env!("CARGO_BIN_EXE_virtuallog")).parent().expect("a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let run = Command::new("sh").args([script, &url]).env("PATH", path).output().expect("sh");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let expected = include_str!("../../examples/quickstart/expected.txt");
    assert_eq!(String::from_utf8_lossy(&run.stdout), expected);
}
