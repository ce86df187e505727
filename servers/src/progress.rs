//! A bar on standard error for work that takes long; nothing at all where that is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that goes away when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of `total` bytes, or of as many as come.
    pub(crate) fn bytes(total: Option<u64>) -> Self {
        let shape = match total {
            Some(_) => "{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}",
            None => "{spinner} {bytes}  {bytes_per_sec}",
        };
        Self::new(total, shape)
    }

    /// Of about `total` entries.
    pub(crate) fn entries(total: u64) -> Self {
        Self::new(Some(total), "{wide_bar} {human_pos}/{human_len} entries  {per_sec}  {eta}")
    }

    /// Of `total` seconds.
    pub(crate) fn seconds(total: u64) -> Self {
        Self::new(Some(total), "{wide_bar} {pos}/{len} s")
    }

    /// Of what is copied, told in words too.
    pub(crate) fn copying() -> Self {
        Self::new(None, "{spinner} {msg}  {bytes}  {bytes_per_sec}")
    }

    fn new(total: Option<u64>, shape: &str) -> Self {
        let style = ProgressStyle::with_template(shape).expect("the templates above are right");
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        Self(bar.with_style(style))
    }

    /// This is what is done now.
    pub(crate) fn say(&self, what: String) {
        self.0.set_message(what);
    }

    /// That much is done by now.
    pub(crate) fn at(&self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
