//! The habits of this repository, checked like everything else.
//!
//! Each test is one habit; `CONTRIBUTING.md` gives the reasons. A test names every place that breaks
//! its habit, as `file:line`. Where something is allowed in a few named places, the table is exact
//! both ways: a place that is not named fails, and so does a name that is not needed any more.
//!
//! Source is read as text, line by line, in the shape that rustfmt gives it. That is crude, and
//! enough: a habit that needs a parser is not one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lines of a file that are not tests, at most.
const FILE_LINES_MAX: usize = 800;
/// Lines of a function, at most.
const FUNCTION_LINES_MAX: usize = 80;
/// Files (`path`) and functions (`path:name`) that are longer. The list is only ever made shorter.
const LONGER: &[&str] = &[];

/// Folders whose Rust code is ours.
const RUST: &[&str] = &["core", "bindings", "c", "python", "node", "servers", "examples"];
/// Documents for people, which speak of the tree.
const DOCUMENTS: &[&str] = &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];

/// What each module of the core may use of its siblings. Left out: `testing`, which may use all.
const LAYERS: &[(&str, &str)] = &[
    ("lib", ""),
    ("env", ""),
    ("entry", ""),
    ("error", "token"),
    ("token", "error"),
    ("url", "error"),
    ("loglet", "entry error"),
    ("metastore", "error"),
    ("storage", "env error"),
    ("loglets", "cluster entry env error loglet storage store url wire"),
    ("metastores", "cluster env error metastore storage url wire"),
    ("resolve", "env error log loglet token"),
    ("ticket", "error token"),
    ("parcel", "error resolve store ticket token"),
    ("appender", "env error log loglet parcel resolve store ticket token"),
    ("reader", "entry env error log loglet"),
    ("reconfig", "env error log loglet metastore"),
    ("log", "appender env error home loglet loglets metastore store token"),
    ("directory", "error guest loglet loglets metastore metastores owner storage"),
    (
        "store",
        "cluster directory env error home log loglet loglets metastore metastores storage url virtuallog",
    ),
    ("virtuallog", "appender entry env error log parcel reader resolve store ticket token"),
    ("cluster", "error loglet wire"),
    ("guest", "cluster directory env error loglet loglets metastore owner wire"),
    ("home", "env error log metastore store url"),
    ("owner", "env error metastore metastores server storage wire"),
    ("relocate", "env error home log loglets metastore store url"),
    (
        "server",
        "cluster env error log loglet loglets metastore metastores storage store url virtuallog wire",
    ),
    ("wire", "error"),
];

/// What each package may depend on of our own, and of others where that is what matters.
const PACKAGES: &[(&str, &str)] = &[
    ("core/protocol", "bytes crc-fast prost thiserror"),
    ("core", "virtuallog-protocol *"),
    ("core/fuzz", "virtuallog virtuallog-protocol virtuallog-server *"),
    ("core/sim", "virtuallog mimalloc"),
    ("bindings", "virtuallog *"),
    ("c", "virtuallog-bindings *"),
    ("python", "virtuallog-bindings virtuallog-server *"),
    ("node", "virtuallog-bindings *"),
    ("servers", "virtuallog *"),
    ("examples", "virtuallog *"),
];
/// Direct dependencies of the core, at most.
const CORE_DEPENDENCIES_MAX: usize = 12;

/// What is done in few places, by the words that give it away, and the places.
const NAMED_PLACES: &[(&str, &[&str], &[&str])] = &[
    (
        "a thread is started",
        &["thread::spawn", "thread::Builder", "thread::scope"],
        &[
            "core/sim/src/main.rs",
            "core/src/server/batch_thread.rs",
            "core/src/storage/mod.rs",
            "core/src/store.rs",
            "servers/src/commands/append.rs",
        ],
    ),
    (
        "a task is spawned",
        &["runtime.spawn(", "tokio::spawn", "spawn_blocking", "task::spawn"],
        &[
            "bindings/src/local_cluster.rs",
            "bindings/src/log.rs",
            "bindings/src/op.rs",
            "bindings/src/reader.rs",
            "core/src/appender.rs",
            "core/src/appender/patience.rs",
            "core/src/env/mod.rs",
            "core/src/reader.rs",
            "core/src/reconfig.rs",
            "core/src/guest/appends.rs",
            "core/src/guest/mod.rs",
            "core/src/log.rs",
            "core/src/loglets/native/appends.rs",
            "core/src/metastores/paxos/inner.rs",
            "core/src/owner.rs",
            "core/src/server/log_server.rs",
            "core/src/server/node.rs",
            "core/src/server/sequencers.rs",
            "core/src/wire/tcp.rs",
            "servers/src/commands/bench.rs",
        ],
    ),
    ("the system's clock is read", &["SystemTime::now"], &["core/src/env/mod.rs"]),
    (
        "randomness is drawn",
        &["getrandom::"],
        &["core/src/env/mod.rs", "core/src/storage/recovery.rs"],
    ),
    (
        "the environment is read",
        &["env::var"],
        &[
            "bindings/src/local_cluster.rs",
            "bindings/src/logging.rs",
            "bindings/src/programs.rs",
            "bindings/src/runtime.rs",
            "core/fuzz/src/bin/fuzz.rs",
            "servers/src/cli.rs",
            "servers/src/commands/append.rs",
        ],
    ),
    (
        "the file system is touched",
        &["fs::", "File::open", "OpenOptions"],
        &[
            "bindings/src/local_cluster.rs",
            "core/fuzz/src/bin/corpus.rs",
            "core/src/directory.rs",
            "core/src/owner.rs",
            "core/src/storage/direct.rs",
            "core/src/storage/disk.rs",
            "servers/src/commands/cut.rs",
            "servers/src/commands/dev.rs",
            "servers/src/daemon/settings.rs",
        ],
    ),
    (
        "a lint against unsafe code is lifted",
        &["allow(unsafe_code)"],
        &[
            "bindings/src/runtime.rs",
            "c/src/lib.rs",
            "core/fuzz/src/allocation.rs",
            "python/src/entry.rs",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let text = std::fs::read_to_string(root().join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files of ours below `folder`, relative to the root, with `/` between names.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else { return found };
    for entry in entries {
        let entry = entry.expect("the folder can be listed");
        let name = entry.file_name().into_string().expect("names are ASCII");
        let path = if folder == "." { name.clone() } else { format!("{folder}/{name}") };
        let hidden = name.starts_with('.') && name != ".ci";
        if hidden
            || matches!(
                name.as_str(),
                "target" | "__pycache__" | "node_modules" | "dist" | "generated"
            )
            || name.ends_with("-data")
        {
            continue;
        }
        match entry.path().is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// Our Rust files.
fn sources() -> Vec<String> {
    let all = RUST.iter().flat_map(|folder| files(folder));
    all.filter(|path| path.ends_with(".rs")).collect()
}

/// True for a file that holds nothing but tests, benches or what only they use.
fn is_test(path: &str) -> bool {
    let name = path.rsplit('/').next().expect("a path has a last part");
    let folder = |name: &str| path.split('/').any(|part| part == name);
    name == "tests.rs" || name.ends_with("_tests.rs") || folder("tests") || folder("benches")
}

/// The lines of a file with their numbers, without the tests at its end.
fn code(path: &str) -> Vec<(usize, String)> {
    let text = read(path);
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.enumerate().map(|(index, line)| (index + 1, line.to_owned())).collect()
}

/// As [`code`], without lines that are comments.
fn statements(path: &str) -> Vec<(usize, String)> {
    let mut lines = code(path);
    lines.retain(|(_, line)| !line.trim_start().starts_with("//"));
    lines
}

fn none(habit: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{habit}\n  {}", broken.join("\n  "));
}

#[test]
fn every_file_says_first_what_it_promises() {
    let missing: Vec<_> =
        sources().into_iter().filter(|path| !read(path).starts_with("//! ")).collect();
    none("open with `//!`:", &missing);
}

/// The functions of a file: line, name, length.
fn functions(path: &str) -> Vec<(usize, String, usize)> {
    let text = read(path);
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let prefix = |word: &&&str| {
            word.starts_with("pub") || ["const", "async", "unsafe", "extern"].contains(*word)
        };
        let first = words.iter().take_while(prefix).count();
        if words.get(first) != Some(&"fn") || line.ends_with(';') || line.ends_with('}') {
            continue;
        }
        let name = words.get(first + 1).copied().unwrap_or_default();
        let name = name.split(['(', '<']).next().unwrap_or_default();
        // What a macro makes has no shape to go by.
        if name.starts_with('$') {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        // It ends at the first line as far in as its first one that closes a body or, in a trait,
        // has none.
        let end = lines[at + 1..].iter().position(|line| {
            line.strip_prefix(indent)
                .is_some_and(|rest| rest == "}" || (rest.starts_with(')') && rest.ends_with(';')))
        });
        found.push((at + 1, name.to_owned(), end.map_or(1, |end| end + 2)));
    }
    found
}

#[test]
fn files_are_read_in_one_sitting_and_functions_on_one_screen() {
    let mut long = BTreeMap::new();
    for path in sources() {
        for (line, name, length) in functions(&path) {
            if length > FUNCTION_LINES_MAX {
                let what = format!("{path}:{line}: `{name}` has {length} lines");
                long.insert(format!("{path}:{name}"), what);
            }
        }
        let length = if is_test(&path) { read(&path).lines().count() } else { code(&path).len() };
        if length > FILE_LINES_MAX {
            long.insert(path.clone(), format!("{path}: {length} lines"));
        }
    }
    let mut broken = Vec::new();
    for key in LONGER {
        if long.remove(*key).is_none() {
            broken.push(format!("{key}: short enough now: take it off the list"));
        }
    }
    broken.extend(long.into_values());
    let most = format!("at most {FILE_LINES_MAX} lines a file, {FUNCTION_LINES_MAX} a function:");
    none(&most, &broken);
}

#[test]
fn no_recipe_hides_a_failure() {
    let makefile = read("Makefile");
    let hides = |line: &&str| {
        line.strip_prefix('\t')
            .is_some_and(|recipe| recipe.trim_start_matches('@').starts_with('-'))
    };
    let broken: Vec<_> = makefile.lines().filter(hides).map(str::to_owned).collect();
    none("a recipe that fails makes make fail (no prefix `-`):", &broken);
}

#[test]
fn nothing_is_left_to_do_later() {
    // Put together here, so that this file does not break its own habit.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("db", "g!("),
        concat!("#[ig", "nore"),
        concat!("```ig", "nore"),
    ];
    let mut broken = Vec::new();
    let ours = |path: &String| {
        [".rs", ".py", ".pyi", ".ts", ".mjs", ".cjs", ".sh", ".toml", ".md"]
            .iter()
            .any(|end| path.ends_with(end))
    };
    for path in files(".").into_iter().filter(ours) {
        for (index, line) in read(&path).lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("{path}:{}: `{word}`", index + 1));
            }
        }
    }
    none("do it, or open an issue:", &broken);
}

#[test]
fn few_places_do_what_few_places_should() {
    let mut broken = Vec::new();
    for (what, words, places) in NAMED_PLACES {
        let mut seen = BTreeSet::new();
        for path in sources() {
            let public = path.contains("/src/") && !path.contains("/src/testing/");
            if !public || is_test(&path) {
                continue;
            }
            for (line, text) in statements(&path) {
                // Not a part of a longer name, such as `rustix::fs::` or `metafs::`.
                let whole = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric());
                let hit = |word: &&&str| text.match_indices(**word).any(|(at, _)| whole(at));
                if words.iter().any(|word| hit(&word)) {
                    seen.insert(path.clone());
                    if !places.contains(&path.as_str()) {
                        broken.push(format!("{path}:{line}: {what}"));
                    }
                }
            }
        }
        let stale = places.iter().filter(|place| !seen.contains(**place));
        broken.extend(stale.map(|place| format!("{place}: no longer a place where {what}")));
    }
    none("only in the places that `NAMED_PLACES` names:", &broken);
}

#[test]
fn modules_of_the_core_know_only_what_is_below_them() {
    let mut broken = Vec::new();
    for path in files("core/src").into_iter().filter(|path| path.ends_with(".rs")) {
        let module = path.trim_start_matches("core/src/").split(['/', '.']).next();
        let module = module.expect("a path has a first part");
        if module == "testing" || is_test(&path) {
            continue;
        }
        let Some((_, may)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            broken.push(format!("{path}: give `{module}` a line in `LAYERS`"));
            continue;
        };
        for (line, text) in statements(&path) {
            let uses = text.match_indices("crate::").map(|(at, word)| &text[at + word.len()..]);
            for name in
                uses.map(|rest| rest.split(|c: char| c != '_' && !c.is_alphanumeric()).next())
            {
                let name = name.expect("a split gives something");
                // Names that the root exports are no modules.
                let is_module = name.starts_with(char::is_lowercase) && name != module;
                if is_module && !may.split(' ').any(|other| other == name) {
                    broken.push(format!("{path}:{line}: `{module}` uses `{name}`"));
                }
            }
        }
    }
    none("a module uses only what `LAYERS` lists for it:", &broken);
}

/// The names in a `Cargo.toml` section, each with its whole line.
fn dependencies(manifest: &str, section: &str) -> BTreeMap<String, String> {
    let text = read(manifest);
    let lines = text.lines().skip_while(|line| *line != section).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let named = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let name = |line: &str| line.split([' ', '.', '=']).next().unwrap_or_default().to_owned();
    named.map(|line| (name(line), line.to_owned())).collect()
}

#[test]
fn packages_depend_downwards() {
    let mut broken = Vec::new();
    for (package, may) in PACKAGES {
        let manifest = format!("{package}/Cargo.toml");
        let may: Vec<&str> = may.split(' ').collect();
        for (name, line) in dependencies(&manifest, "[dependencies]") {
            let ours = name.starts_with("virtuallog");
            if !may.contains(&name.as_str()) && (ours || !may.contains(&"*")) {
                broken.push(format!("{manifest}: `{name}`"));
            }
            // Nothing but tests uses what is for tests; a fuzzer and a simulator are some.
            if line.contains("testing") && !["core/fuzz", "core/sim"].contains(package) {
                broken.push(format!("{manifest}: `{name}` with the feature `testing`"));
            }
        }
    }
    let core = dependencies("core/Cargo.toml", "[dependencies]").len();
    if core > CORE_DEPENDENCIES_MAX {
        broken.push(format!("core/Cargo.toml: {core} direct dependencies"));
    }
    none("a package depends only on what `PACKAGES` lists for it:", &broken);
}

#[test]
fn there_is_one_version() {
    let version = dependencies("Cargo.toml", "[workspace.package]").remove("version");
    let version = version.expect("the workspace has a version").replace("version = ", "");
    let mut broken = Vec::new();
    let (mut crates, mut projects) = (0, 0);
    for path in files(".") {
        if path.ends_with("/Cargo.toml") {
            crates += 1;
            if !read(&path).contains("\nversion.workspace = true\n") {
                broken.push(format!("{path}: `version.workspace = true`"));
            }
        }
        if path.ends_with("pyproject.toml") {
            projects += 1;
            let text = read(&path);
            let taken_from_cargo = text.contains("\ndynamic = [\"version\"]\n");
            if !taken_from_cargo && !text.contains(&format!("\nversion = {version}\n")) {
                broken.push(format!("{path}: the version is {version}"));
            }
        }
    }
    let node = files("node").into_iter().filter(|path| path.ends_with("/package.json"));
    for path in node {
        if !read(&path).contains(&format!("\n  \"version\": {version},\n")) {
            broken.push(format!("{path}: the version is {version}"));
        }
    }
    assert!(crates >= PACKAGES.len() && projects >= 1, "the manifests were found");
    none("one version for everything:", &broken);
}

#[test]
fn the_error_table_has_every_code_and_every_class() {
    let table = read("bindings/errors.toml");
    let classes = read("python/python/virtuallog/errors.py");
    let typescript = read("node/ts/errors.ts");
    let mut broken = Vec::new();
    let rows: Vec<&str> = table.split("[[error]]").skip(1).collect();
    for code in virtuallog::ErrorCode::ALL {
        let row = |row: &&&str| row.contains(&format!("\nname = \"{}\"\n", code.name()));
        let Some(row) = rows.iter().find(row) else {
            broken.push(format!("bindings/errors.toml: no `{}`", code.name()));
            continue;
        };
        let number = format!("number = {}", *code as u32);
        let retryable = format!("retryable = {}", code.retryable());
        for line in [number, retryable] {
            if !row.contains(&format!("\n{line}\n")) {
                broken.push(format!("bindings/errors.toml: {}: `{line}`", code.name()));
            }
        }
        let class = row.split("class = \"").nth(1).and_then(|rest| rest.split('"').next());
        let class = class.unwrap_or("no class");
        if !classes.contains(&format!("class {class}(")) {
            broken.push(format!("python/python/virtuallog/errors.py: no `{class}`"));
        }
    }
    for code in virtuallog::ErrorCode::ALL {
        for line in [
            format!("  | '{}'\n", code.name()),
            format!("  {}: {},\n", code.name(), code.retryable()),
        ] {
            if !typescript.contains(&line) {
                broken.push(format!("node/ts/errors.ts: `{}`", line.trim()));
            }
        }
    }
    assert_eq!(rows.len(), virtuallog::ErrorCode::ALL.len(), "rows of bindings/errors.toml");
    none("one error table:", &broken);
}

/// The lines of a document outside of code blocks, with their numbers.
fn prose(path: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (index, line) in read(path).lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((index + 1, line.to_owned()));
        }
    }
    lines
}

#[test]
fn documents_name_files_that_exist() {
    let all = files(".");
    let is_there = |name: &str| match name.contains('/') {
        true => root().join(name).exists(),
        false => all.iter().any(|path| path.rsplit('/').next() == Some(name)),
    };
    let ends = [".rs", ".md", ".toml", ".py", ".pyi", ".ts", ".mjs", ".sh", ".txt", ".hex"];
    let mut broken = Vec::new();
    for document in DOCUMENTS {
        for (line, text) in prose(document) {
            for span in text.split('`').skip(1).step_by(2) {
                let plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
                let is_path = span.chars().all(plain)
                    && (span.contains('/') || ends.iter().any(|end| span.ends_with(end)));
                let built = ["target", ".venv", "node/node_modules"]
                    .iter()
                    .any(|dir| span.starts_with(dir));
                if is_path && !built && !is_there(span) {
                    broken.push(format!("{document}:{line}: `{span}`"));
                }
            }
        }
    }
    none("documents name what is there:", &broken);
}

#[test]
fn the_readme_shows_the_tested_quickstarts() {
    let readme = read("README.md");
    for file in ["main.rs", "main.py", "main.mjs", "main.sh"] {
        let path = format!("examples/quickstart/{file}");
        let marker = format!("<!-- {path} -->\n```");
        let block = readme.split(&marker).nth(1).unwrap_or_else(|| panic!("no `{marker}`"));
        let block = block.split_once('\n').map_or("", |(_, rest)| rest);
        let block = block.split("```").next().unwrap_or_default();
        assert_eq!(block, read(&path), "README.md shows {path} as it is");
    }
}

#[test]
fn prose_has_one_sentence_a_line() {
    let mut broken = Vec::new();
    let own = |path: &String| path.ends_with(".md");
    for path in files(".").into_iter().filter(own) {
        for (line, text) in prose(&path) {
            // Without the number of a list's item.
            let text = text.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
            let letters: Vec<char> = text.trim_start_matches(". ").chars().collect();
            let two = letters.windows(3).any(|three| {
                matches!(three[0], '.' | '?' | '!') && three[1] == ' ' && three[2].is_uppercase()
            });
            if two && !text.starts_with('|') && !text.starts_with("<!--") {
                broken.push(format!("{path}:{line}"));
            }
        }
    }
    none("one sentence a line, so that a diff shows what changed:", &broken);
}
