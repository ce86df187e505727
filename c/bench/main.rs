//! Measures the C library beside Rust, in turns.
//!
//!     cargo bench -p virtuallog-c [-- TURNS [SECONDS]]
//!
//! Over the embedded log and over a cluster of three processes. One JSON object a line, one line a figure,
//! with its bar where it has one; exit status 1 when one is missed. Of each figure Rust, here, and C, by
//! `bench.c`, take TURNS turns (default 9) of SECONDS (default 1) each, and each begins every second time:
//! the disk and the machine are now faster, now slower, so what counts is the median of what two neighbouring
//! turns are to each other. The logs lie under the target folder, on the disk that is built on. The command
//! line has to be built before: `cargo build --release -p virtuallog-server`.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use virtuallog::{Start, VirtualLog};

const PAYLOAD: usize = 100;
const BATCH: usize = 1000;
const IN_FLIGHT: usize = 1024;
/// Of each figure: what C's is set against Rust's, and the least share or the most microseconds more.
const BARS: &[(&str, f64)] =
    &[("one", 5.0), ("pipelined", 0.8), ("pushed", 0.8), ("many", 0.9), ("subscribed", 0.9)];

const OPERATIONS: usize = 1_000_000;
const GROWTH_BYTES_MAX: f64 = 32e6;

/// A turn of a figure in Rust, as `bench.c` has it.
async fn rust(name: &str, log: &VirtualLog, seconds: Duration) -> virtuallog::Result<f64> {
    let payload = Bytes::from(vec![0; PAYLOAD]);
    let start = Instant::now();
    let mut count = 0;
    match name {
        "one" => {
            let mut times = Vec::new();
            while start.elapsed() < seconds {
                let before = Instant::now();
                tokio::task::block_in_place(|| log.append_blocking(payload.clone(), None))?;
                times.push(before.elapsed().as_secs_f64() * 1e6);
            }
            return Ok(median(&mut times));
        }
        // Rust has one form of what are two in C.
        "pipelined" | "pushed" => {
            let mut under_way = VecDeque::new();
            while start.elapsed() < seconds || !under_way.is_empty() {
                while start.elapsed() < seconds && under_way.len() < IN_FLIGHT {
                    under_way.push_back(log.append(Bytes::copy_from_slice(&payload)));
                }
                if let Some(append) = under_way.pop_front() {
                    append.await?;
                    count += 1;
                }
            }
        }
        "many" => {
            while start.elapsed() < seconds {
                log.append_many(vec![payload.clone(); BATCH]).await?;
                count += BATCH;
            }
        }
        "subscribed" => {
            let tail = log.check_tail().await?.position;
            while start.elapsed() < seconds {
                let mut reader = log.subscribe(Start::First).await?;
                while reader.position() < tail && start.elapsed() < seconds {
                    let batch = reader.next_batch(1024).await?;
                    count += batch.iter().filter(|entry| entry.payload.len() == PAYLOAD).count();
                }
            }
        }
        other => unreachable!("`{other}` is no figure"),
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// The C program with a log of its own.
struct InC {
    process: Child,
    say: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl InC {
    fn start(program: &Path, url: &str) -> InC {
        let mut process = Command::new(program)
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let say = process.stdin.take().expect("it was piped");
        let answers = BufReader::new(process.stdout.take().expect("it was piped")).lines();
        InC { process, say, answers }
    }

    /// A turn of a figure.
    fn turn(&mut self, name: &str, seconds: Duration) -> f64 {
        writeln!(self.say, "{name} {}", seconds.as_secs_f64()).expect("it listens");
        let answer = self.answers.next().expect("it answers").expect("text");
        answer.parse().expect("a number")
    }

    fn end(mut self) {
        drop(self.say);
        assert!(self.process.wait().expect("it was started").success());
    }
}

/// All turns of each figure, as pairs of Rust's and C's.
async fn turns(
    urls: [String; 2],
    program: &Path,
    count: usize,
    seconds: Duration,
) -> virtuallog::Result<Vec<Vec<(f64, f64)>>> {
    let log = VirtualLog::open(&urls[0]).await?;
    let mut c = InC::start(program, &urls[1]);
    let mut all = Vec::new();
    for (name, _) in BARS {
        let mut pairs = Vec::new();
        for turn in 0..count {
            let early = (turn % 2 == 1).then(|| c.turn(name, seconds));
            let in_rust = rust(name, &log, seconds).await?;
            pairs.push((in_rust, early.unwrap_or_else(|| c.turn(name, seconds))));
        }
        all.push(pairs);
    }
    c.end();
    log.close().await?;
    Ok(all)
}

/// By how many bytes the C program grows.
fn growth(program: &Path, url: &str) -> f64 {
    let arguments = [url, "growth", &OPERATIONS.to_string()];
    let run = Command::new(program).args(arguments).stderr(Stdio::inherit()).output();
    let run = run.expect("it starts");
    assert!(run.status.success(), "{}", run.status);
    String::from_utf8(run.stdout).expect("it is text").trim().parse().expect("a number")
}

/// The C program, built beside this one.
fn program(deps: &Path) -> PathBuf {
    let program = deps.join("bench-c");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let link = deps.join(format!("libvirtuallog.so.{}", abi()));
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink("libvirtuallog_c.so", &link).expect("a link");
    let built = Command::new("cc")
        .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-I"])
        .args([
            here.join("include"),
            here.join("bench/bench.c"),
            "-o".into(),
            program.clone(),
            link,
        ])
        .arg(format!("-Wl,-rpath,{}", deps.display()))
        .status();
    assert!(built.expect("there is a compiler").success(), "bench.c does not compile");
    program
}

fn abi() -> String {
    let version: Vec<&str> = env!("CARGO_PKG_VERSION").split('.').collect();
    if version[0] == "0" { format!("0.{}", version[1]) } else { version[0].into() }
}

/// A cluster of three processes, ended by pid.
struct Cluster {
    dev: Child,
    url: String,
}

impl Cluster {
    fn start(target: &Path, dir: &Path) -> Cluster {
        let mut dev = Command::new(target.join("virtuallog"))
            .args(["dev", "--nodes", "3", "--dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo build --release -p virtuallog-server");
        let mut line = String::new();
        BufReader::new(dev.stdout.take().expect("it was piped"))
            .read_line(&mut line)
            .expect("a line");
        let url = line.split("\"url\":\"").nth(1).and_then(|rest| rest.split('"').next());
        Cluster { url: url.expect("it tells its URL").into(), dev }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.dev.id().to_string()).status();
        let _ = self.dev.wait();
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints the figures of one store; false where a bar is missed.
fn report(place: &str, figures: &[Vec<(f64, f64)>]) -> bool {
    let mut held = true;
    for ((name, bar), pairs) in BARS.iter().zip(figures) {
        let of =
            |pick: fn(&(f64, f64)) -> f64| median(&mut pairs.iter().map(pick).collect::<Vec<_>>());
        let (rust, c) = (of(|pair| pair.0), of(|pair| pair.1));
        let (figure, unit, holds) = match *name {
            "one" => {
                let more = of(|(rust, c)| c - rust);
                (more, "us over Rust at p50", more <= *bar)
            }
            _ => {
                let share = of(|(rust, c)| c / rust);
                (share, "of Rust's", share >= *bar)
            }
        };
        held &= holds;
        println!(
            "{{\"bench\":\"c, {place}, {name}\",\"rust\":{rust:.1},\"c\":{c:.1},\"figure\":{figure:.2},\
             \"unit\":\"{unit}\",\"bar\":{bar},\"holds\":{holds}}}"
        );
    }
    held
}

fn main() -> ExitCode {
    let numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<f64>().ok());
    let numbers: Vec<f64> = numbers.collect();
    let count = numbers.first().map_or(9, |count| *count as usize);
    let seconds = Duration::from_secs_f64(numbers.get(1).copied().unwrap_or(1.0));
    let here = std::env::current_exe().expect("it has a path");
    let deps = here.parent().expect("it is in a folder");
    let target = deps.parent().expect("that is in another");
    let program = program(deps);
    let folder =
        tempfile::Builder::new().prefix("bench-c-").tempdir_in(target).expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");

    let cluster = Cluster::start(target, &folder.path().join("cluster"));
    let mut held = true;
    // A store each where it is a directory, and a log each: nobody reads more than it wrote.
    let (dir, nodes) = (folder.path().display(), &cluster.url);
    for (place, urls) in [
        ("embedded", ["rust", "c"].map(|side| format!("file:{dir}/{side}/log"))),
        ("cluster", ["rust", "c"].map(|side| format!("{nodes}{side}"))),
    ] {
        let program = program.clone();
        let work = async move { turns(urls, &program, count, seconds).await };
        let figures = runtime.block_on(async { tokio::spawn(work).await });
        held &= report(place, &figures.expect("it does not panic").expect("it appends"));
    }
    let grown = growth(&program, &format!("file:{dir}/growth/log"));
    let holds = grown <= GROWTH_BYTES_MAX;
    held &= holds;
    println!(
        "{{\"bench\":\"c, growth over {OPERATIONS} operations\",\"figure\":{:.2},\"unit\":\"MB\",\
         \"bar\":{},\"holds\":{holds}}}",
        grown / 1e6,
        GROWTH_BYTES_MAX / 1e6
    );
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
