//! A directory that several processes write to: real second processes, which are this binary again.
//!
//! The other process obeys commands, one a line, and answers in lines that begin with `> `. What it
//! says is enough to wait for, so nothing sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use virtuallog::testing::history::{Final, Outcome, Recorder, What, check};
use virtuallog::{ErrorCode, LogPos, Start, Tail, VirtualLog};

/// Says to this binary that it is the other process.
const OTHER: &str = "VIRTUALLOG_TEST_OTHER";

/// Another process that uses the library.
struct Other {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Other {
    fn start() -> Other {
        let binary = std::env::current_exe().expect("this binary");
        let mut command = Command::new(binary);
        command.args(["the_other_process", "--exact", "--nocapture"]).env(OTHER, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let commands = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        Other { child, commands, answers }
    }

    /// One that has opened the log.
    fn open(url: &str) -> Other {
        let mut other = Other::start();
        assert_eq!(other.ask(&format!("open {url}")), "ok");
        other
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("it reads");
    }

    fn hear(&mut self) -> String {
        loop {
            let line = self.answers.next().expect("it answers").expect("text");
            // The test harness may have said something on the same line before.
            if let Some((_, answer)) = line.split_once("> ") {
                return answer.to_owned();
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.hear()
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No test: what the other process does.
#[test]
fn the_other_process() {
    if std::env::var_os(OTHER).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut log = None;
        for line in std::io::stdin().lines() {
            let line = line.expect("text");
            let words: Vec<&str> = line.split(' ').collect();
            if let Some(answer) = obey(&mut log, &words).await {
                println!("> {answer}");
            }
        }
    });
}

fn said<T>(result: virtuallog::Result<T>, ok: impl FnOnce(T) -> String) -> String {
    result.map_or_else(|error| format!("{error:?}").replace('\n', " "), ok)
}

async fn obey(log: &mut Option<VirtualLog>, words: &[&str]) -> Option<String> {
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    if words[0] == "open" {
        let opened = VirtualLog::open(words[1]).await;
        return Some(said(opened, |opened| {
            *log = Some(opened);
            "ok".into()
        }));
    }
    let log = log.as_ref().expect("opened first");
    Some(match words[0] {
        "append" => said(log.append(words[1].to_owned()).await, |at| at.to_string()),
        "extend" => said(log.reconfig_extend("local", None).await, |c| c.version.to_string()),
        "tail" => said(log.check_tail().await, |tail| tail.position.to_string()),
        "close" => said(log.close().await, |()| "ok".into()),
        // As many appends as are asked for at once; each tells its value and outcome.
        "burst" => {
            for value in number(1)..number(1) + number(2) {
                let append = log.append(value.to_string());
                tokio::spawn(async move {
                    println!("> {value} {}", said(append.await, |at| at.to_string()));
                });
            }
            return None;
        }
        other => format!("`{other}` is no command"),
    })
}

fn url(dir: &Path, name: &str) -> String {
    format!("file:{}/{name}", dir.display())
}

async fn open(url: &str) -> VirtualLog {
    VirtualLog::open(url).await.expect("opens")
}

async fn all(log: &VirtualLog) -> Vec<(u64, String)> {
    let mut reader = log.read(log.first().await.expect("first"), None).await.expect("a reader");
    let mut all = Vec::new();
    while let Some(entry) = reader.next().await.expect("an entry") {
        let text = String::from_utf8(entry.payload.to_vec()).expect("text");
        all.push((entry.position.0, text));
    }
    all
}

fn texts(all: &[(u64, String)]) -> Vec<&str> {
    all.iter().map(|(_, text)| &**text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = url(dir.path(), "log");
    let mut owner = Other::open(&url);
    let log = open(&url).await;
    let mode = std::fs::metadata(dir.path().join("socket")).expect("a socket").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let mut follower = log.subscribe(Start::First).await.expect("a subscription");
    for round in 0..10u64 {
        assert_eq!(owner.ask(&format!("append a{round}")), (2 * round).to_string());
        let mine = log.append(format!("b{round}")).await.expect("appended");
        assert_eq!(mine, LogPos(2 * round + 1));
        for _ in 0..2 {
            follower.next().await.expect("an entry").expect("one");
        }
    }
    assert_eq!(follower.position(), LogPos(20));
    assert_eq!(all(&log).await.len(), 20);
    assert_eq!(owner.ask("tail"), "20");
    // A third one, and one that is made here.
    let mut third = Other::open(&url);
    assert_eq!(third.ask("append c"), "20");
    assert_eq!(log.append("d").await.expect("appended"), LogPos(21));
    log.close().await.expect("closes");
    assert_eq!(owner.ask("append e"), "22");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_administers() {
    let dir = tempfile::tempdir().expect("a directory");
    let (here, store) = (url(dir.path(), "log"), url(dir.path(), ""));
    let mut owner = Other::open(&here);
    assert_eq!(owner.ask("append one"), "0");
    let log = open(&here).await;
    log.reconfig_extend("local", None).await.expect("extended");
    assert_eq!(owner.ask("append two"), "1");
    assert_eq!(owner.ask("extend"), log.chain().await.expect("a chain").version.to_string());
    assert_eq!(log.append("three").await.expect("appended"), LogPos(2));
    log.reconfig_modify(0, "local", None).await.expect("modified");
    assert_eq!(texts(&all(&log).await), ["one", "two", "three"]);
    let trimmed = log.prefix_trim(LogPos(1)).await.expect("trimmed");
    assert_eq!(trimmed.effective, LogPos(1));
    let other = url(dir.path(), "other");
    virtuallog::create(&other, None).await.expect("created");
    assert_eq!(virtuallog::logs(&store).await.expect("logs"), ["log", "other"]);
    virtuallog::delete(&other).await.expect("deleted");
    assert_eq!(virtuallog::logs(&store).await.expect("logs"), ["log"]);
    let missing = VirtualLog::open(&format!("{other}?create=false")).await.expect_err("missing");
    assert_eq!(missing.code(), ErrorCode::NotFound);
    let sealed = log.seal().await.expect("sealed");
    assert_eq!(sealed, Tail { position: LogPos(3), sealed: true });
    assert!(owner.ask("append four").starts_with("SEALED"));
    assert_eq!(texts(&all(&log).await), ["two", "three"]);
}

/// What the other process says of its burst.
fn heard(other: &mut Other) -> (u64, Option<u64>) {
    let answer = other.hear();
    let (value, outcome) = answer.split_once(' ').expect("a value and an outcome");
    (value.parse().expect("a number"), outcome.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_owner_loses_and_doubles_nothing_of_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = url(dir.path(), "log");
    let mut appended = BTreeMap::new();
    let log = {
        let owner = Other::open(&url);
        let log = open(&url).await;
        log.append("first").await.expect("appended");
        owner.kill();
        log
    };
    assert_eq!(log.append("second").await.expect("taken over"), LogPos(1));
    log.close().await.expect("closes");
    for round in 0..10u64 {
        let mut owner = Other::open(&url);
        let log = open(&url).await;
        owner.tell(&format!("burst {} 200", round * 1000));
        let values = round * 1000 + 500..round * 1000 + 900;
        let appends: Vec<_> = values.map(|value| (value, log.append(value.to_string()))).collect();
        // Somewhere in the middle of both.
        for _ in 0..round * 10 {
            heard(&mut owner);
        }
        owner.kill();
        for (value, append) in appends {
            let at = append.await.expect("resolved");
            assert_eq!(appended.insert(at.0, value.to_string()), None);
        }
        log.close().await.expect("closes");
    }
    let log = open(&url).await;
    let all = all(&log).await;
    let distinct: BTreeSet<_> = all.iter().map(|(_, text)| text).collect();
    assert_eq!(distinct.len(), all.len(), "nothing is there twice");
    let all: BTreeMap<_, _> = all.into_iter().collect();
    for (at, text) in appended {
        assert_eq!(all.get(&at), Some(&text));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_closes_and_another_takes_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = url(dir.path(), "log");
    let mut owner = Other::open(&url);
    let log = open(&url).await;
    let mut third = Other::open(&url);
    let appends: Vec<_> = (0..300).map(|n| log.append(n.to_string())).collect();
    third.tell("burst 1000 300");
    assert_eq!(owner.ask("close"), "ok");
    let mut positions = BTreeSet::new();
    for append in appends {
        positions.insert(append.await.expect("appended").0);
    }
    for _ in 0..300 {
        positions.insert(heard(&mut third).1.expect("appended"));
    }
    assert_eq!(positions, (0..600).collect());
    assert_eq!(all(&log).await.len(), 600);
    // Whoever owns it now, the others go on writing, the first one too.
    assert_eq!(owner.ask(&format!("open {url}")), "ok");
    assert_eq!(owner.ask("append a"), "600");
    assert_eq!(third.ask("append b"), "601");
    assert_eq!(log.append("c").await.expect("appended"), LogPos(602));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_make_one_history() {
    const EACH: u64 = 400;
    let dir = tempfile::tempdir().expect("a directory");
    let url = url(dir.path(), "log");
    let mut owner = Other::open(&url);
    let (log, recorder) = (open(&url).await, Arc::new(Recorder::default()));
    // Its calls begin after this and end before their answers are heard.
    let invoked = recorder.now();
    owner.tell(&format!("burst 100000 {EACH}"));
    let seen = recorder.clone();
    let owner = tokio::task::spawn_blocking(move || {
        for _ in 0..EACH {
            let (value, position) = heard(&mut owner);
            let outcome = position.map_or(Outcome::Unknown, Outcome::Ok);
            seen.done(invoked, What::Append { value, outcome });
        }
        owner
    });
    let writers: Vec<_> = (0..8u64)
        .map(|writer| {
            let (log, recorder) = (log.clone(), recorder.clone());
            tokio::spawn(async move {
                for n in 0..EACH / 8 {
                    let (value, invoked) = (writer * 1000 + n, recorder.now());
                    let position = log.append(value.to_string()).await.expect("appended").0;
                    recorder.done(invoked, What::Append { value, outcome: Outcome::Ok(position) });
                    let invoked = recorder.now();
                    let Tail { position, sealed } = log.check_tail().await.expect("a tail");
                    recorder.done(invoked, What::Tail { position: position.0, sealed });
                }
            })
        })
        .collect();
    for _ in 0..5 {
        log.reconfig_extend("local", None).await.expect("swapped");
    }
    for writer in writers {
        writer.await.expect("runs");
    }
    let _owner = owner.await.expect("runs");
    let number = |(at, text): &(u64, String)| (*at, text.parse().expect("a number"));
    let entries: Vec<_> = all(&log).await.iter().map(number).collect();
    let last = Final { base: 0, tail: entries.len() as u64, entries };
    assert_eq!(last.tail, 2 * EACH);
    check(&recorder.take(), &last).expect("linearizable");
}

/// What stands in the socket's place is of no importance, and neither is what is said to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_socket_and_garbage_do_no_harm() {
    let dir = tempfile::tempdir().expect("a directory");
    let (url, socket) = (url(dir.path(), "log"), dir.path().join("socket"));
    let log = open(&url).await;
    log.append("one").await.expect("appended");
    log.close().await.expect("closes");
    assert!(!socket.exists(), "it goes with the owner");
    drop(UnixListener::bind(&socket).expect("a stale one"));
    let log = open(&url).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"VLW\x01", &[0xff; 4096], b""] {
        let mut stream = UnixStream::connect(&socket).expect("connected");
        // It may be closed before all of it is written.
        let _ = stream.write_all(garbage);
    }
    let mut other = Other::open(&url);
    assert_eq!(other.ask("append two"), "1");
    log.close().await.expect("closes");
    assert_eq!(other.ask("append three"), "2");
    other.kill();
    assert!(socket.exists(), "nobody was there to remove it");
    let log = open(&url).await;
    assert_eq!(texts(&all(&log).await), ["one", "two", "three"]);
    std::fs::remove_file(&socket).expect("removed");
    // An owner that is not to be found.
    let locked = Other::start().ask(&format!("open {url}"));
    assert!(locked.starts_with("LOCKED"), "{locked}");
    assert!(locked.contains(&std::process::id().to_string()), "{locked}");
    log.append("four").await.expect("appended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_path_is_no_obstacle() {
    let dir = tempfile::tempdir().expect("a directory");
    let long = (0..4).fold(dir.path().to_owned(), |dir, n| dir.join(n.to_string().repeat(60)));
    std::fs::create_dir_all(&long).expect("made");
    let url = url(&long, "log");
    let mut owner = Other::open(&url);
    let log = open(&url).await;
    assert_eq!(owner.ask("append one"), "0");
    assert_eq!(log.append("two").await.expect("appended"), LogPos(1));
    owner.kill();
    assert_eq!(log.append("three").await.expect("appended"), LogPos(2));
    let mut other = Other::open(&url);
    assert_eq!(other.ask("append four"), "3");
}
