//! Gives the shared library its soname: the versions that a program built against this one runs with.
//!
//! Before 1.0 each minor version may change the ABI, so it is part of the name; from then on only the
//! major one is.

fn main() {
    let part = |name: &str| std::env::var(name).expect("cargo sets it");
    let (major, minor) = (part("CARGO_PKG_VERSION_MAJOR"), part("CARGO_PKG_VERSION_MINOR"));
    let abi = if major == "0" { format!("0.{minor}") } else { major };
    if part("CARGO_CFG_TARGET_OS") == "linux" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libvirtuallog.so.{abi}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
