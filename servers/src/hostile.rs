//! Doors for a fuzzer to what the daemon reads and nobody else can: see `core/fuzz`.

/// The daemon's settings file. Panics when a value in force is not shown as it can be written.
pub fn config_file(text: &str) {
    crate::daemon::settings::fuzz(text);
}
