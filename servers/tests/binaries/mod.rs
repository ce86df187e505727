//! The real binaries as children of a test: run to their end, or kept running.
//!
//! Nothing here waits by the clock: whoever needs something from a child waits for a line of its output
//! or for its end. Whatever becomes of a test, its children end with it, each by its own number.

// Each file of tests uses its part.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{
    Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A child that is killed and waited for, whatever becomes of the test.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// `None`: nobody reads it any more.
    pub(crate) lines: Option<BufReader<ChildStdout>>,
    /// `None`: it goes where the test's own goes.
    pub(crate) errors: Option<BufReader<ChildStderr>>,
}

pub(crate) fn virtuallog(args: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_virtuallog"), args)
}

/// One that does not outlive the thread that starts it.
pub(crate) fn virtuallogd(args: &[&str]) -> Command {
    let parent = format!("--parent={}", std::process::id());
    let mut command = program(env!("CARGO_BIN_EXE_virtuallogd"), &[&*parent]);
    command.args(args);
    command
}

/// With nothing of ours in its environment.
fn program(path: &str, args: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VIRTUALLOG_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn finish(command: &mut Command, input: &[u8]) -> Run {
    let pipe = Stdio::piped;
    let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // A command that fails early does not read its input: that is its good right.
    let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    feed.join().expect("the input was written");
    Run {
        status: status.code(),
        stdout: String::from_utf8(stdout).expect("text"),
        stderr: String::from_utf8(stderr).expect("text"),
    }
}

/// Runs a daemon that is to refuse.
pub(crate) fn refused(daemon: &mut Command) -> Run {
    let mut running = Running::start(daemon.stderr(Stdio::piped()));
    assert_eq!(running.line(), "", "it started");
    let mut stderr = String::new();
    running.errors.as_mut().expect("a pipe").read_to_string(&mut stderr).expect("text");
    Run { status: running.wait().code(), stdout: String::new(), stderr }
}

/// `virtuallog ARGS…` with nothing to read.
pub(crate) fn run(args: &[&str]) -> Run {
    finish(&mut virtuallog(args), b"")
}

impl Run {
    /// The only line of standard output, of a command that did well.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows();
        assert_eq!(rows.len(), 1, "{self:?}");
        rows[0].clone()
    }

    pub(crate) fn rows(&self) -> Vec<Value> {
        assert_eq!(self.status, Some(0), "{self:?}");
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.status, Some(0), "{self:?}");
        &self.stdout
    }

    /// The error, of a command that failed with this status and code and whose message has `word`.
    pub(crate) fn error(&self, status: i32, code: &str, word: &str) -> Value {
        assert_eq!(self.status, Some(status), "{self:?}");
        let error: Value = serde_json::from_str(self.stderr.trim()).expect("one JSON object");
        assert_eq!(error["code"], code, "{self:?}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(word), "`{word}` is not in: {message}");
        for field in ["in_doubt", "retryable", "position"] {
            assert!(error.get(field).is_some(), "no {field}: {self:?}");
        }
        error
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = child.stdout.take().map(BufReader::new);
        let errors = child.stderr.take().map(BufReader::new);
        Running { child, lines, errors }
    }

    pub(crate) fn line(&mut self) -> String {
        next_line(self.lines.as_mut().expect("somebody reads it"))
    }

    pub(crate) fn json(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The next line of standard error, which was piped.
    pub(crate) fn error_line(&mut self) -> String {
        next_line(self.errors.as_mut().expect("it was piped"))
    }

    pub(crate) fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("a pipe")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.child.id(), signal);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// To a process that a test started, or that was started for it.
pub(crate) fn signal_to(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process has a number");
    kill_process(pid, signal).expect("it runs");
}

fn next_line(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    line.trim_end_matches('\n').to_owned()
}
