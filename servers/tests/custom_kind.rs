//! A third party's kind of loglet gets the whole command line: `run` with its provider.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use virtuallog::loglet::{Loglet, LogletError, LogletProvider};
use virtuallog::loglets::memory::MemoryProvider;
use virtuallog::protocol::types::LogId;
use virtuallog::{Error, LogletConfig, LogletId, LogletPos};

/// Loglets of the kind `shelf`, in the memory of this process.
#[derive(Debug)]
struct Shelf(MemoryProvider);

#[async_trait]
impl LogletProvider for Shelf {
    fn kind(&self) -> &str {
        "shelf"
    }

    fn plan(&self, args: &str) -> Result<LogletConfig, Error> {
        Ok(LogletConfig { kind: "shelf".into(), name: "shelf".into(), ..self.0.plan(args)? })
    }

    async fn create(
        &self,
        id: LogletId,
        config: &LogletConfig,
        base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        self.0.create(id, config, base).await
    }

    async fn open(
        &self,
        id: LogletId,
        config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        self.0.open(id, config).await
    }

    async fn retire(&self, log: LogId, live: &[u32], bound: u32) -> Result<(), LogletError> {
        self.0.retire(log, live, bound).await
    }
}

#[test]
fn every_command_works_on_a_kind_of_ones_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file:{}/store/log", dir.path().display());
    let lines = dir.path().join("lines");
    std::fs::write(&lines, "one\ntwo\n").expect("a file");
    let lines = lines.to_str().expect("text");
    let shelf: Arc<dyn LogletProvider> = Arc::new(Shelf(MemoryProvider::new()));
    let run = |command: &str, args: &[&str]| {
        let line = ["virtuallog", command, &url].into_iter().chain(args.iter().copied());
        let code = virtuallog_server::run_from(line.map(Into::into), vec![shelf.clone()]);
        // An exit status can be compared in no other way.
        format!("{code:?}")
    };
    let good = format!("{:?}", ExitCode::SUCCESS);
    let steps: [(&str, &[&str]); 9] = [
        ("create", &["--loglet", "shelf"]),
        ("append", &[lines]),
        ("reconfigure", &["--to", "shelf", "--plan"]),
        ("reconfigure", &["--to", "shelf"]),
        ("append", &[lines]),
        ("chain", &[]),
        ("read", &[]),
        ("trim", &["1"]),
        ("verify", &[]),
    ];
    for (command, args) in steps {
        assert_eq!(run(command, args), good, "{command} {args:?}");
    }
    let failed = format!("{:?}", ExitCode::FAILURE);
    assert_eq!(run("create", &["--loglet", "shelf"]), failed, "there is one of that name");

    // Without the provider the kind is unknown, and nothing is made in its place.
    let line = ["virtuallog", "reconfigure", &url, "--to", "shelf"];
    let code = virtuallog_server::run_from(line.map(Into::into), Vec::new());
    assert_ne!(format!("{code:?}"), good);
}
