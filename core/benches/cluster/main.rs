//! A cluster of real processes against physical limits and its bars, side by side in one run.
//!
//! Every node is a process of its own: this program, started again with other arguments
//! (`processes.rs`). Servers, client and disk share one machine, so a figure is comparable to others
//! of the same run and to nothing else. "Echo" is 100 bytes there and back between two processes
//! over TCP; "synced write" is a write and `fdatasync` of a file with zeros. As with `embedded`, each
//! section runs in a process of its own, and all files lie under the target folder.
//!
//! `cargo bench -p virtuallog --bench cluster [-- SECTION…]`; `PAIRS=n`, `SECONDS=s`, `SWAPS=n` and
//! `KILLS=n` make it longer or shorter. Read next: `speed.rs`, `faults.rs`, `memory.rs`.

#[expect(dead_code, reason = "of the bare things only the synced write is compared with here")]
#[path = "../embedded/bare.rs"]
mod bare;
mod faults;
mod load;
mod memory;
mod processes;
mod speed;
#[path = "../embedded/stats.rs"]
mod stats;

use std::process::{Command, ExitCode};

use stats::Row;

type Section = fn() -> Vec<Row>;

const SECTIONS: &[(&str, Section)] = &[
    ("latency", speed::latency),
    ("throughput", speed::throughput),
    ("one_node", speed::one_node),
    ("subscribe", speed::subscribe),
    ("read", speed::read),
    ("swap", faults::swap),
    ("kill", faults::kill),
    ("memory", memory::memory),
    ("overload", memory::overload),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["--node", dir, listen] => return processes::node(dir, listen),
        ["--echo"] => return processes::echo(),
        ["--subscriber", url] => return processes::subscriber(url),
        ["--section", name] => {
            let section = SECTIONS.iter().find(|(known, _)| *known == name);
            for row in section.expect("a known section").1() {
                println!("{}", row.encode());
            }
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if let Some(unknown) = words.iter().find(|arg| !SECTIONS.iter().any(|(name, _)| name == *arg)) {
        let names: Vec<_> = SECTIONS.iter().map(|(name, _)| *name).collect();
        eprintln!("no section is called `{unknown}`: there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut held = true;
    println!("{}", Row::heading());
    for (name, _) in SECTIONS.iter().filter(|(name, _)| words.is_empty() || words.contains(name)) {
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
