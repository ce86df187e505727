//! Measures the C library beside Rust, in the same run: medians of interleaved rounds.
//!
//!     cargo bench -p virtuallog-c [-- ROUNDS [SECONDS]]
//!
//! Over the embedded log and over a cluster of three processes. One JSON object a line, one line a figure,
//! with its bar where it has one; exit status 1 when one is missed. Each figure takes SECONDS (default 1) of
//! each of ROUNDS (default 5), in Rust, here, and in C, by `bench.c`; one awaited append in short turns of
//! both, since a disk is now faster, now slower. The logs lie under the target folder,
//! on the disk that is built on. The command line has to be built before: `cargo build --release -p
//! virtuallog-server`.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use virtuallog::{Start, VirtualLog};

const PAYLOAD: usize = 100;
const BATCH: usize = 1000;
const IN_FLIGHT: usize = 1024;
/// Of each figure: what C's is set against Rust's, and the least share or the most microseconds more.
const BARS: &[(&str, f64)] =
    &[("one", 5.0), ("pipelined", 0.8), ("pushed", 0.8), ("many", 0.9), ("subscribed", 0.9)];

/// Turns of one awaited append in a round.
const TURNS: u32 = 10;

const OPERATIONS: usize = 1_000_000;
const GROWTH_BYTES_MAX: f64 = 32e6;

type Figures = BTreeMap<String, f64>;

/// One round of each figure in Rust, as `bench.c` has it.
async fn rust(url: &str, seconds: Duration) -> virtuallog::Result<Figures> {
    let log = VirtualLog::open(url).await?;
    let payload = Bytes::from(vec![0; PAYLOAD]);
    let mut figures = Figures::new();

    let (mut under_way, mut count, start) = (VecDeque::new(), 0, Instant::now());
    while start.elapsed() < seconds || !under_way.is_empty() {
        while start.elapsed() < seconds && under_way.len() < IN_FLIGHT {
            under_way.push_back(log.append(Bytes::copy_from_slice(&payload)));
        }
        if let Some(append) = under_way.pop_front() {
            append.await?;
            count += 1;
        }
    }
    let pipelined = f64::from(count) / start.elapsed().as_secs_f64();
    figures.insert("pipelined".into(), pipelined);
    // Rust has no other form of it.
    figures.insert("pushed".into(), pipelined);

    let (mut count, start) = (0, Instant::now());
    while start.elapsed() < seconds {
        let batch = vec![payload.clone(); BATCH];
        log.append_many(batch).await?;
        count += BATCH;
    }
    figures.insert("many".into(), count as f64 / start.elapsed().as_secs_f64());

    let tail = log.check_tail().await?.position;
    let (mut count, start) = (0, Instant::now());
    while start.elapsed() < seconds {
        let mut reader = log.subscribe(Start::First).await?;
        while reader.position() < tail && start.elapsed() < seconds {
            let batch = reader.next_batch(1024).await?;
            count += batch.iter().filter(|entry| entry.payload.len() == PAYLOAD).count();
        }
    }
    figures.insert("subscribed".into(), count as f64 / start.elapsed().as_secs_f64());
    log.close().await?;
    Ok(figures)
}

/// One awaited append in turns: the medians in Rust and in C, in microseconds.
async fn one(
    program: &Path,
    urls: (&str, &str),
    seconds: Duration,
) -> virtuallog::Result<(f64, f64)> {
    let payload = Bytes::from(vec![0; PAYLOAD]);
    let turn = (seconds / TURNS).as_secs_f64();
    let log = VirtualLog::open(urls.0).await?;
    let mut c = Command::new(program)
        .args([urls.1, "one", &turn.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(c.stdout.take().expect("it was piped")).lines();
    let mut say = c.stdin.take().expect("it was piped");
    let mut times = Vec::new();
    for _ in 0..TURNS {
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < turn {
            let before = Instant::now();
            let appended = || log.append_blocking(payload.clone(), None).expect("it appends");
            tokio::task::block_in_place(appended);
            times.push(before.elapsed());
        }
        tokio::task::block_in_place(|| {
            say.write_all(b".").and_then(|()| say.flush()).expect("it listens");
            lines.next().expect("it says when its turn is over").expect("text");
        });
    }
    drop(say);
    let last = lines.next().expect("a figure").expect("text");
    c.wait().expect("it ends");
    times.sort();
    let median = times[times.len() / 2].as_secs_f64() * 1e6;
    log.close().await?;
    Ok((median, last.split_once(' ').expect("a name and a value").1.parse().expect("a number")))
}

fn c(program: &Path, url: &str, seconds: Duration) -> Figures {
    run(program, &[url, &seconds.as_secs_f64().to_string()])
}

fn run(program: &Path, arguments: &[&str]) -> Figures {
    let run = Command::new(program).args(arguments).stderr(Stdio::inherit()).output();
    let run = run.expect("it starts");
    assert!(run.status.success(), "{}", run.status);
    let said = String::from_utf8(run.stdout).expect("it is text");
    let figure = |line: &str| {
        let (name, value) = line.split_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    said.lines().map(figure).collect()
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
fn report(place: &str, rounds: &[(Figures, Figures)]) -> bool {
    let mut held = true;
    for (name, bar) in BARS {
        let of = |pick: fn(&(Figures, Figures)) -> &Figures| {
            median(&mut rounds.iter().map(|round| pick(round)[*name]).collect::<Vec<_>>())
        };
        let (rust, c) = (of(|round| &round.0), of(|round| &round.1));
        let (figure, unit, holds) = match *name {
            "one" => (c - rust, "us over Rust at p50", c - rust <= *bar),
            _ => (c / rust, "of Rust's", c / rust >= *bar),
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
    let rounds = numbers.first().map_or(5, |rounds| *rounds as usize);
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
    for (place, store) in [
        ("embedded", format!("file:{}/", folder.path().display())),
        ("cluster", cluster.url.clone()),
    ] {
        let mut figures = Vec::new();
        for round in 0..rounds {
            // A store each where it is a directory, and a log each: nobody reads more than it wrote.
            let inner = |side: &str| match place {
                "embedded" => format!("{store}{side}/log-{round}"),
                _ => format!("{store}{side}-{round}"),
            };
            let (url, program_too) = (inner("rust"), program.clone());
            let alone = (format!("{url}-one"), format!("{}-one", inner("c")));
            let in_rust = runtime.block_on(async {
                let work = async move {
                    let one = one(&program_too, (&alone.0, &alone.1), seconds).await?;
                    Ok::<_, virtuallog::Error>((one, rust(&url, seconds).await?))
                };
                tokio::spawn(work).await
            });
            let (one, mut in_rust) = in_rust.expect("it does not panic").expect("it appends");
            let mut in_c = c(&program, &inner("c"), seconds);
            in_rust.insert("one".into(), one.0);
            in_c.insert("one".into(), one.1);
            figures.push((in_rust, in_c));
        }
        held &= report(place, &figures);
    }
    let url = format!("file:{}/growth/log", folder.path().display());
    let grown = run(&program, &[&url, "growth", &OPERATIONS.to_string()])["growth"];
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
