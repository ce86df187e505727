//! The server `virtuallogd`: the library's [`virtuallog_server::run_daemon`] and nothing beside it.

fn main() -> std::process::ExitCode {
    virtuallog_server::run_daemon(Vec::new())
}
