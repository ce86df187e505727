//! The generated code is what the `.proto` file says, so that a build needs no `protoc`.
//!
//! After a change of the `.proto` file, or of the generator's version, write it anew:
//!
//! ```text
//! VIRTUALLOG_GENERATE=1 cargo test -p virtuallog-server --test grpc_generated
//! ```

use std::path::Path;

use protox::prost::Message;

const PROTO: &str = "virtuallog_v1.proto";
const WRITE: &str = "VIRTUALLOG_GENERATE";

#[test]
fn generated_code_is_up_to_date() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = protox::compile([PROTO], [here.join("proto")]).expect("the file is right");
    let code = tempfile::tempdir().expect("a temporary directory");
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(code.path())
        .compile_fds(files.clone())
        .expect("code for it");
    let code = std::fs::read(code.path().join("virtuallog.v1.rs")).expect("it was written");
    // What reflection tells has no comments.
    files.file.iter_mut().for_each(|file| file.source_code_info = None);

    let made = [("virtuallog.v1.rs", code), ("virtuallog.v1.bin", files.encode_to_vec())];
    for (name, now) in made {
        let path = here.join("src/grpc/generated").join(name);
        if std::env::var_os(WRITE).is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(&path, &now).expect("written");
        }
        let kept = std::fs::read(&path).unwrap_or_default();
        let advice = "differs from the `.proto` file: run this test with VIRTUALLOG_GENERATE=1";
        assert!(kept == now, "{} {advice}", path.display());
    }
}
