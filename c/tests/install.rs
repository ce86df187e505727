//! What is installed is found, by pkg-config and by CMake, and used by programs outside of this tree: in C and
//! C++, with the shared and with the static library. The programs of the cluster come along.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{built, done, root};
use tempfile::TempDir;

/// What is installed: what Cargo built for this test, or, for a release, what lies in the folder that `FROM`
/// names.
fn from() -> PathBuf {
    std::env::var_os("FROM").map_or_else(built, PathBuf::from)
}

struct Installed {
    /// Gone with everything in it at the end.
    folder: TempDir,
    prefix: PathBuf,
}

/// Installs into a folder, and puts the quickstarts beside it as a project of their own.
fn installed() -> Installed {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let prefix = folder.path().join("prefix");
    let mut install = Command::new(root().join("c/install/install"));
    done(install.env("FROM", from()).env("PREFIX", &prefix).env_remove("DESTDIR"));
    for file in ["main.c", "main.cpp"] {
        fs::copy(root().join("examples/quickstart").join(file), folder.path().join(file))
            .expect("a copy");
    }
    for file in ["CMakeLists.txt", "cluster.cpp"] {
        fs::copy(root().join("c/tests/outside").join(file), folder.path().join(file))
            .expect("a copy");
    }
    Installed { folder, prefix }
}

impl Installed {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// With the library where it was installed, and no path of Cargo's.
    fn quickstart_runs(&self, program: &Path) {
        let name = program.file_name().expect("it has a name").to_string_lossy();
        let mut quickstart = Command::new(program);
        quickstart.arg(format!("file:{}/{name}-store/fruit", self.path().display()));
        let said = done(quickstart.env("LD_LIBRARY_PATH", self.prefix.join("lib")));
        let expected = fs::read_to_string(root().join("examples/quickstart/expected.txt"));
        assert_eq!(said, expected.expect("it is there"), "{name}");
    }
}

#[test]
fn pkg_config_finds_it() {
    let installed = installed();
    for (compiler, standard, source) in
        [("cc", "-std=c99", "main.c"), ("c++", "-std=c++17", "main.cpp")]
    {
        for is_static in [false, true] {
            let mut ask = Command::new("pkg-config");
            ask.env("PKG_CONFIG_PATH", installed.prefix.join("lib/pkgconfig"));
            ask.args(["--cflags", "--libs", "virtuallog"]).args(is_static.then_some("--static"));
            let flags = done(&mut ask);
            // The linker takes the shared library where there are both.
            let flags = match is_static {
                true => flags.replace("-lvirtuallog", "-l:libvirtuallog.a"),
                false => flags,
            };
            let program = installed.path().join(format!("{source}-{is_static}"));
            let mut compile = Command::new(compiler);
            compile.arg(standard).arg(installed.path().join(source)).arg("-o").arg(&program);
            done(compile.args(flags.split_whitespace()));
            installed.quickstart_runs(&program);
        }
    }
}

#[test]
fn cmake_finds_it() {
    let installed = installed();
    // Found by where it lies, so it may be moved.
    let moved = Installed { prefix: installed.path().join("moved"), ..installed };
    fs::rename(moved.path().join("prefix"), &moved.prefix).expect("it can be moved");
    let build = moved.path().join("build");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(moved.path()).arg("-B").arg(&build);
    done(configure.arg(format!("-DCMAKE_PREFIX_PATH={}", moved.prefix.display())));
    done(Command::new("cmake").arg("--build").arg(&build));
    for program in ["c-virtuallog", "cpp-virtuallog", "c-static", "cpp-static"] {
        moved.quickstart_runs(&build.join(program));
    }
    // With the programs that were installed, found from where the library lies; and nothing else is there.
    let said = done(Command::new(build.join("cluster")).env_clear());
    assert_eq!(said, "1 runs\n2 runs\n3 is stopped\none\ntwo\nthree\nINVALID\nCLOSED\n");
}

/// As a user has it who was given the files: no Rust, no checkout, and the programs of the package.
#[test]
fn every_scenario_passes_where_it_is_installed() {
    let installed = installed();
    let tests = root().join("c/tests/conformance");
    let (include, lib) = (installed.prefix.join("include"), installed.prefix.join("lib"));
    for (compiler, standard, api) in
        [("c++", "-std=c++17", "api_cpp.cpp"), ("cc", "-std=c11", "api_c.c")]
    {
        let object = installed.path().join(format!("{api}.o"));
        let mut compile = Command::new(compiler);
        compile.args([standard, "-c", "-I"]).arg(&include).arg(tests.join(api));
        done(compile.arg("-o").arg(&object));
        let runner = installed.path().join(format!("conformance-{api}"));
        let mut link = Command::new("c++");
        link.args(["-std=c++17", "-I"]).arg(&include).arg(tests.join("runner.cpp")).arg(object);
        link.arg("-o").arg(&runner).arg("-L").arg(&lib).args(["-lvirtuallog", "-pthread"]);
        done(link.arg(format!("-Wl,-rpath,{}", lib.display())));
        let mut scenarios = Command::new(&runner);
        scenarios.env_clear().current_dir(installed.path());
        scenarios.arg(root().join("bindings/conformance"));
        let said = done(scenarios.arg(installed.path().join(format!("stores-{api}"))));
        assert!(said.ends_with(" passed, 0 failed\n"), "{said}");
    }
}

/// A release weighs what it may, and needs no newer system than it says.
#[test]
fn what_is_too_large_or_too_new_is_refused() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let dist = folder.path().join("dist");
    fs::create_dir(&dist).expect("a directory can be made");
    let program = |name: &str, bytes: usize| {
        let version = env!("CARGO_PKG_VERSION");
        let mut script = format!("#!/bin/sh\necho {name} {version}\nexit\n").into_bytes();
        script.resize(bytes, b'\n');
        fs::write(dist.join(name), script).expect("it is written");
        let may = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dist.join(name), may).expect("they are set");
    };
    for library in ["libvirtuallog_c.so", "libvirtuallog_c.a"] {
        fs::write(dist.join(library), "").expect("it is written");
    }
    let install = || {
        let mut install = Command::new(root().join("c/install/install"));
        install.env("FROM", &dist).env("PREFIX", folder.path().join("prefix"));
        install.env_remove("DESTDIR").output().expect("it runs")
    };
    program("virtuallog", 1000);
    program("virtuallogd", 15_000_000);
    assert!(install().status.success(), "it is not too large");
    program("virtuallogd", 15_000_001);
    let refused = install();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("virtuallogd is too large"));
    if cfg!(target_os = "linux") {
        let needs = |most: &str| {
            let mut asked = Command::new(root().join(".ci/glibc"));
            asked.arg(most).arg(from().join("libvirtuallog_c.so")).output().expect("it runs")
        };
        assert!(needs("99.0").status.success(), "{:?}", needs("99.0"));
        assert!(!needs("2.1").status.success(), "{:?}", needs("2.1"));
    }
}

#[test]
fn destdir_comes_before_the_prefix_and_is_written_nowhere() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let mut install = Command::new(root().join("c/install/install"));
    install.env("FROM", from()).env("PREFIX", "/opt/virtuallog").env("DESTDIR", folder.path());
    done(&mut install);
    let there = folder.path().join("opt/virtuallog");
    let found = fs::read_to_string(there.join("lib/pkgconfig/virtuallog.pc")).expect("it is there");
    assert!(found.starts_with("prefix=/opt/virtuallog\n"), "{found}");
    for program in ["virtuallog", "virtuallogd"] {
        let said = done(Command::new(there.join("bin").join(program)).arg("--version"));
        assert_eq!(said, format!("{program} {}\n", env!("CARGO_PKG_VERSION")));
    }
}
