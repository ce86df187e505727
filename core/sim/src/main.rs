//! The simulator's command line: what `make sim` and CI run.
//!
//! `sim --seed N` replays a seed, with `--trace` it tells everything that happens, and with `--mistake NAME`
//! a mistake is planted; `--seeds N` runs many, counts, and
//! ends with one line of JSON; `--twice` runs each seed twice and compares; `--regressions` runs
//! every seed that ever found a mistake; `--planted` looks for seeds that find each planted mistake and
//! prints the table of them, `--check-planted` runs that table, and looks for another seed where one finds
//! nothing any more. The exit status tells whether all held.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use virtuallog::testing::sim::{self, MISTAKES, Mistake, Options, Report};

/// Simulations allocate all the time: a quarter less of a processor than with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds that found mistakes, one a line, with what each found behind it: `SEED`, or `SEED/FAULTS` where
/// that took so many seconds of faults.
const REGRESSIONS: &str = include_str!("../../src/testing/sim/regressions.txt");
/// For each planted mistake a seed that finds it, and by which invariant.
const PLANTED: &str = include_str!("../../src/testing/sim/planted.txt");

/// How a line ends that names no seed.
const NOT_FOUND: &str = "not found";

/// What was asked for.
struct Asked {
    start: u64,
    seeds: u64,
    faults: Duration,
    calm: Duration,
    threads: usize,
    most: u64,
    only: Option<String>,
    mistake: Option<Mistake>,
}

fn main() -> ExitCode {
    let mut asked = Asked {
        start: 1,
        seeds: 1,
        faults: Duration::from_secs(60),
        calm: Duration::from_secs(60),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        most: 200,
        only: None,
        mistake: None,
    };
    let (mut mode, mut floors, mut trace) = ("many", false, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(1);
        match word.as_str() {
            "--seed" => (mode, asked.start) = ("one", number()),
            "--seeds" => asked.seeds = number(),
            "--start" => asked.start = number(),
            "--commit" => asked.start = u64::from_str_radix(&commit()[..12], 16).unwrap_or(1),
            "--faults" => asked.faults = Duration::from_secs(number()),
            "--calm" => asked.calm = Duration::from_secs(number()),
            "--threads" => asked.threads = number() as usize,
            "--most" => asked.most = number(),
            "--only" => asked.only = words.next(),
            "--mistake" => {
                let name = words.next().unwrap_or_default();
                asked.mistake = MISTAKES.iter().copied().find(|mistake| mistake.name() == name);
                if asked.mistake.is_none() {
                    eprintln!("`{name}` is no mistake: see core/src/testing/sim/mistakes.rs");
                    return ExitCode::FAILURE;
                }
            }
            "--trace" => trace = true,
            "--floors" => floors = true,
            "--twice" => mode = "twice",
            "--regressions" => mode = "regressions",
            "--planted" => mode = "planted",
            "--check-planted" => mode = "check planted",
            _ => {
                eprintln!("`{word}` is no option: see the top of core/sim/src/main.rs");
                return ExitCode::FAILURE;
            }
        }
    }
    let good = match mode {
        "one" => one(&asked, trace),
        "twice" => twice(&asked),
        "regressions" => {
            many(&asked, REGRESSIONS.lines().map(|line| old(&asked, line)).collect(), false)
        }
        "planted" => planted(&asked),
        "check planted" => check_planted(&asked),
        _ => {
            let seeds = asked.start..asked.start + asked.seeds;
            many(&asked, seeds.map(|seed| options(&asked, seed)).collect(), floors)
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The commit that this is, as git says.
fn commit() -> String {
    let said = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output();
    let said = said.ok().and_then(|said| String::from_utf8(said.stdout).ok()).unwrap_or_default();
    if said.len() < 12 { "0".repeat(40) } else { said.trim().to_owned() }
}

fn options(asked: &Asked, seed: u64) -> Options {
    let Asked { faults, calm, mistake, .. } = *asked;
    Options { faults, calm, mistake, ..Options::of_seed(seed) }
}

/// What a line of [`REGRESSIONS`] says.
fn old(asked: &Asked, line: &str) -> Options {
    let word = line.split(' ').next().unwrap_or_default();
    let (seed, faults) = word.split_once('/').unwrap_or((word, ""));
    let seed = seed.parse().expect("a line begins with a seed");
    let faults = faults.parse().map_or(asked.faults, Duration::from_secs);
    Options { faults, ..options(asked, seed) }
}

fn tell(job: &Options, report: &Report) {
    println!("seed {} of commit {}: {}", report.seed, commit(), report.plan);
    for broken in &report.broken {
        println!("  broken: {broken}");
    }
    println!("  replay it: make sim SEED={} FAULTS={}", report.seed, job.faults.as_secs());
}

fn one(asked: &Asked, shown: bool) -> bool {
    let begun = Instant::now();
    let job = Options { shown, ..options(asked, asked.start) };
    let report = sim::run(&job);
    tell(&job, &report);
    println!("{:#?}", report.counters);
    let (simulated, real) = (report.simulated.as_secs_f64(), begun.elapsed().as_secs_f64());
    println!(
        "{simulated:.0} s simulated in {real:.2} s, {:.0} times as fast; {} events, digest {:016x}",
        simulated / real,
        report.events,
        report.digest
    );
    report.broken.is_empty()
}

/// Simulates in several threads; `each` gets what came of it.
fn all(asked: &Asked, jobs: &[Options], each: impl Fn(&Options, Report) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..asked.threads.max(1) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    each(job, sim::run(job));
                }
            });
        }
    });
}

fn many(asked: &Asked, jobs: Vec<Options>, floors: bool) -> bool {
    let begun = Instant::now();
    let counters: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let (failed, simulated) = (AtomicU64::new(0), AtomicU64::new(0));
    all(asked, &jobs, |job, report| {
        let mut counters = counters.lock().expect("no panic under this lock");
        for (name, count) in &report.counters {
            *counters.entry(name).or_default() += count;
        }
        simulated.fetch_add(report.simulated.as_secs(), Ordering::Relaxed);
        if !report.broken.is_empty() {
            failed.fetch_add(1, Ordering::Relaxed);
            tell(job, &report);
        }
    });
    let counters = counters.into_inner().expect("no panic under this lock");
    let missed: Vec<&str> = match floors {
        true => sim::floors(jobs.len() as u64)
            .filter(|(name, least)| counters.get(name).copied().unwrap_or(0) < *least)
            .map(|(name, _)| name)
            .collect(),
        false => Vec::new(),
    };
    for name in &missed {
        println!("too seldom: {name}: {}", counters.get(name).copied().unwrap_or(0));
    }
    let (failed, simulated) = (failed.into_inner(), simulated.into_inner());
    let real = begun.elapsed().as_secs_f64();
    let counted: Vec<String> = counters.iter().map(|(n, c)| format!("\"{n}\":{c}")).collect();
    println!(
        "{{\"commit\":\"{}\",\"seeds\":{},\"start\":{},\"failed\":{failed},\"simulated_s\":{simulated},\
         \"real_s\":{real:.1},{}}}",
        commit(),
        jobs.len(),
        asked.start,
        counted.join(",")
    );
    println!("test result: {} passed; {failed} failed", jobs.len() as u64 - failed);
    failed == 0 && missed.is_empty()
}

fn twice(asked: &Asked) -> bool {
    let mut good = true;
    for seed in asked.start..asked.start + asked.seeds {
        let (first, second) = (sim::run(&options(asked, seed)), sim::run(&options(asked, seed)));
        let same = (first.digest, first.events) == (second.digest, second.events);
        if !first.broken.is_empty() {
            tell(&options(asked, seed), &first);
        }
        println!(
            "seed {seed}: {:016x} {:016x}, {} events",
            first.digest, second.digest, first.events
        );
        good &= same && first.events > 0 && first.broken.is_empty() && second.broken.is_empty();
    }
    println!("test result: {}", if good { "1 passed; 0 failed" } else { "0 passed; 1 failed" });
    good
}

/// Looks for a seed that finds each mistake, from the start up to the most that are tried.
fn planted(asked: &Asked) -> bool {
    let found: Mutex<BTreeMap<String, String>> = Mutex::default();
    let next = AtomicU64::new(0);
    let wanted: Vec<Mistake> = MISTAKES
        .iter()
        .copied()
        .filter(|mistake| asked.only.as_ref().is_none_or(|only| mistake.name() == *only))
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..asked.threads.max(1) {
            scope.spawn(|| {
                while let Some(mistake) = wanted.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    let line = look_for(asked, *mistake);
                    println!("{line}");
                    found.lock().expect("no panic under it").insert(mistake.name(), line);
                }
            });
        }
    });
    let found = found.into_inner().expect("no panic under it");
    let missing = found.values().filter(|line| line.ends_with(NOT_FOUND)).count();
    println!("{} found, {missing} not found", found.len() - missing);
    missing == 0
}

fn look_for(asked: &Asked, mistake: Mistake) -> String {
    for seed in asked.start..asked.start + asked.most {
        let report = sim::run(&Options { mistake: Some(mistake), ..options(asked, seed) });
        if let Some(broken) = report.broken.first() {
            // What the seed finds without the mistake says nothing about it.
            if !sim::run(&options(asked, seed)).broken.is_empty() {
                continue;
            }
            let tried = seed - asked.start + 1;
            let broken: String = broken.chars().take(90).collect();
            return format!("{} {seed} {tried} {}", mistake.name(), broken.replace('\n', " "));
        }
    }
    format!("{} - {} {NOT_FOUND}", mistake.name(), asked.most)
}

/// Whether each mistake of the table is still found: by the seed that found it, or by another one where
/// the product changed so much that this seed takes another course.
fn check_planted(asked: &Asked) -> bool {
    let jobs: Vec<Options> = PLANTED
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?;
            let mistake = MISTAKES.iter().find(|mistake| mistake.name() == name)?;
            let seed = words.next()?.parse().ok()?;
            Some(Options { mistake: Some(*mistake), ..options(asked, seed) })
        })
        .collect();
    let missed = AtomicU64::new(0);
    all(asked, &jobs, |job, report| {
        if report.broken.is_empty() {
            let mistake = job.mistake.expect("each job has one");
            let line = look_for(asked, mistake);
            missed.fetch_add(u64::from(line.ends_with(NOT_FOUND)), Ordering::Relaxed);
            println!("{mistake:?} is not found by seed {} any more: {line}", job.seed);
        }
    });
    let missed = missed.into_inner();
    println!("test result: {} passed; {missed} failed", jobs.len() as u64 - missed);
    missed == 0 && !jobs.is_empty()
}
