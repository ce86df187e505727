//! Programs in C and in C++ against the library: the scenarios that every language runs, the examples, and
//! calls as no careful program makes them.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{built, done, root};

/// Compiles and links sources, C or C++ by their names, into a program in `folder`.
fn program(folder: &Path, name: &str, sources: &[PathBuf]) -> PathBuf {
    let mut objects = Vec::new();
    for source in sources {
        let is_c = source.extension().is_some_and(|extension| extension == "c");
        let (compiler, standard) = if is_c { ("cc", "-std=c11") } else { ("c++", "-std=c++17") };
        let file = source.file_name().expect("a source has a name").to_string_lossy();
        let object = folder.join(format!("{name}-{file}.o"));
        let mut compile = Command::new(compiler);
        compile.args([
            standard,
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Wshadow",
            "-Werror",
            "-g",
            "-c",
        ]);
        compile.arg("-I").arg(root().join("c/include")).arg(source).arg("-o").arg(&object);
        done(&mut compile);
        objects.push(object);
    }
    // The soname is another one than the file's, which programs look for when they are run.
    let soname = done(Command::new("sh").arg("-c").arg(format!(
        "readelf -d '{}/libvirtuallog_c.so' | sed -n 's/.*SONAME.*\\[\\(.*\\)\\]/\\1/p'",
        built().display()
    )));
    let link = folder.join(soname.trim());
    if !link.exists() {
        std::os::unix::fs::symlink(built().join("libvirtuallog_c.so"), &link).expect("a link");
    }
    let program = folder.join(name);
    let mut linking = Command::new("c++");
    linking.args(objects).arg("-o").arg(&program).arg(&link).arg("-pthread");
    linking.arg(format!("-Wl,-rpath,{}", folder.display()));
    done(&mut linking);
    program
}

/// Cargo's own paths would come before those that the program was linked with.
fn run(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

fn conformance(api: &str) {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let tests = root().join("c/tests/conformance");
    let sources = [tests.join("runner.cpp"), tests.join(api)];
    let runner = program(folder.path(), "conformance", &sources);
    let said = done(
        run(&runner).arg(root().join("bindings/conformance")).arg(folder.path().join("stores")),
    );
    println!("{said}");
    assert!(said.ends_with(" passed, 0 failed\n"), "{said}");
}

#[test]
fn every_scenario_in_c() {
    conformance("api_c.c");
}

#[test]
fn every_scenario_in_cpp() {
    conformance("api_cpp.cpp");
}

/// Each example in this language prints what it prints in every other one.
fn examples(file: &str) {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let mut scenarios = 0;
    for scenario in root().join("examples").read_dir().expect("they are there") {
        let scenario: PathBuf = scenario.expect("it can be listed").path();
        let source = scenario.join(file);
        if !source.exists() {
            continue;
        }
        let name = scenario.file_name().expect("it has a name").to_string_lossy().into_owned();
        let example = program(folder.path(), &name, &[source]);
        let url = format!("file:{}/{name}-store/log", folder.path().display());
        let said = done(run(&example).arg(url));
        let expected = std::fs::read_to_string(scenario.join("expected.txt")).expect("it is there");
        assert_eq!(said, expected, "{name}");
        scenarios += 1;
    }
    assert!(scenarios >= 1, "no example was found");
}

#[test]
fn the_examples_in_c() {
    examples("main.c");
}

#[test]
fn the_examples_in_cpp() {
    examples("main.cpp");
}

/// The first programs that the README shows, each after the other over the same log.
#[test]
fn what_the_readme_shows() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let readme = std::fs::read_to_string(root().join("c/README.md")).expect("it is there");
    for (language, file, expected) in [("c", "hello.c", "at 0\n"), ("cpp", "hello.cpp", "hello\n")]
    {
        let block = readme.split(&format!("```{language}\n")).nth(1).expect("there is one");
        let source = folder.path().join(file);
        std::fs::write(&source, block.split("```").next().expect("a part")).expect("it is written");
        let hello = program(folder.path(), &format!("hello-{language}"), &[source]);
        assert_eq!(done(run(&hello).current_dir(folder.path())), expected, "{file}");
    }
}

#[test]
fn calls_that_no_careful_program_makes() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let calls = program(folder.path(), "calls", &[root().join("c/tests/calls.c")]);
    let said = done(run(&calls).arg(folder.path()).args(["1", "100000"]));
    assert!(said.ends_with("100000 calls, 0 failed\n"), "{said}");
}

/// A program in C is ended by the signal; those in the other languages ignore it.
#[test]
fn a_peer_that_went_is_no_signal() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let sockets = program(folder.path(), "sockets", &[root().join("c/tests/sockets.c")]);
    let said = done(run(&sockets).arg(folder.path()));
    assert!(said.ends_with(" written, 0 to sockets\n"), "{said}");
}

#[test]
fn memory_stays_flat() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let bench = program(folder.path(), "bench", &[root().join("c/bench/bench.c")]);
    let url = format!("file:{}/store/log", folder.path().display());
    let said = done(run(&bench).args([&url, "growth", "100000"]));
    assert!(said.trim().parse::<f64>().is_ok_and(|bytes| bytes < 16e6), "{said}");
}

#[test]
fn what_only_cpp_has() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let program = program(folder.path(), "cpp", &[root().join("c/tests/cpp.cpp")]);
    let said = done(run(&program).arg(folder.path()));
    assert!(said.ends_with(" passed, 0 failed\n"), "{said}");
}
