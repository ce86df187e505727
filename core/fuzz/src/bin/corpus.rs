//! Between `corpus/NAME.hex` and a folder with a file for each input, as libFuzzer wants it.
//!
//! `corpus unpack NAME DIR` fills the folder with the target's seeds and its corpus; `corpus pack NAME
//! DIR` makes the corpus of what is there, without the seeds; `corpus run NAME FILE…` runs inputs.
//! `corpus names` lists the targets. The folder has to be there.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use virtuallog_fuzz::{TARGETS, Target, corpus, target};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["names"] => {
            TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.len_max));
            Ok(())
        }
        ["unpack", name, dir] => with(name, |target| unpack(target, dir.as_ref())),
        ["pack", name, dir] => with(name, |target| pack(target, dir.as_ref())),
        ["run", name, ref files @ ..] => with(name, |target| run(target, files)),
        _ => Err(io::Error::other(
            "write `names`, or `unpack`, `pack` or `run`, a target, and where",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corpus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn with(name: &str, work: impl FnOnce(&Target) -> io::Result<()>) -> io::Result<()> {
    match target(name) {
        Some(target) => work(target),
        None => Err(io::Error::other(format!("no target is called `{name}`: see `corpus names`"))),
    }
}

fn kept(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let path = corpus::path(target.name);
    let wrong = |line| io::Error::other(format!("{} line {line}: no hexadecimal", path.display()));
    corpus::parse(&fs::read_to_string(&path)?).map_err(wrong)
}

fn unpack(target: &Target, dir: &Path) -> io::Result<()> {
    for (number, input) in (target.seeds)().into_iter().chain(kept(target)?).enumerate() {
        fs::write(dir.join(format!("{number:06}")), input)?;
    }
    Ok(())
}

fn pack(target: &Target, dir: &Path) -> io::Result<()> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(dir)? {
        inputs.push(fs::read(entry?.path())?);
    }
    let seeds = (target.seeds)();
    inputs.retain(|input| !seeds.contains(input));
    fs::write(corpus::path(target.name), corpus::text(inputs))
}

fn run(target: &Target, files: &[&str]) -> io::Result<()> {
    for file in files {
        target.check(&fs::read(file)?);
        println!("{file}: nothing is wrong");
    }
    Ok(())
}
