//! Doors for a fuzzer to what the daemon reads and nobody else can: see `core/fuzz`.

/// What `append` cuts into entries, in the way that the first byte says. Panics when an entry is larger
/// than any log takes, or when what a cut took away is not what was to be taken.
pub fn entries(input: &[u8]) {
    crate::commands::cut::fuzz(input);
}

/// The daemon's settings file. Panics when a value in force is not shown as it can be written.
pub fn config_file(text: &str) {
    crate::daemon::settings::fuzz(text);
}
