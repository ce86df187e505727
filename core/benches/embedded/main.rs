//! The embedded log against physical limits and against its own parts, side by side in one run.
//!
//! Every figure that is compared is a ratio of medians over interleaved pairs, because runs on one
//! machine differ by more than most changes do. "Bare" is a group-commit writer without format,
//! index or checks on the same disk. Each section runs in a process of its own, so that none
//! inherits another's memory; all files lie under the target folder and are removed.
//!
//! `cargo bench -p virtuallog [-- SECTION…]`; `PAIRS=n` and `SECONDS=s` make it longer or shorter.

mod bare;
mod sections;
mod stats;

use std::process::{Command, ExitCode};

use stats::Row;

type Section = fn() -> Vec<Row>;

const SECTIONS: &[(&str, Section)] = &[
    ("throughput", sections::throughput),
    ("latency", sections::latency),
    ("virtualization", sections::virtualization),
    ("swap", sections::swap),
    ("read", sections::read),
    ("many_logs", sections::many_logs),
    ("memory", sections::memory),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [flag, name] = &args[..]
        && flag == "--section"
    {
        let section = SECTIONS.iter().find(|(known, _)| known == name).expect("a known section");
        for row in section.1() {
            println!("{}", row.encode());
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = args.iter().find(|arg| !SECTIONS.iter().any(|(name, _)| name == arg)) {
        let names: Vec<_> = SECTIONS.iter().map(|(name, _)| *name).collect();
        eprintln!("no section is called `{unknown}`: there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut held = true;
    println!("{}", Row::heading());
    for (name, _) in
        SECTIONS.iter().filter(|(name, _)| args.is_empty() || args.contains(&name.to_string()))
    {
        let exe = std::env::current_exe().expect("this program has a path");
        let output = Command::new(exe).args(["--section", name]).output().expect("it runs again");
        if !output.status.success() {
            eprintln!("{name}: {}", String::from_utf8_lossy(&output.stderr));
            held = false;
        }
        for row in String::from_utf8_lossy(&output.stdout).lines().filter_map(Row::decode) {
            println!("{row}");
            held &= row.holds();
        }
    }
    match held {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
