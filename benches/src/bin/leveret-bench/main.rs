//! The load generator's command line.

#[cfg(target_os = "linux")]
mod options;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    match options::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leveret-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("leveret-bench needs Linux (epoll and /proc)");
    ExitCode::FAILURE
}
