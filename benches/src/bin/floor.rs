//! Runs the floor: a one-thread relay that shows what sockets and one core allow.

use std::process::ExitCode;

use clap::Parser;

/// A one-thread AMQP relay without routing, queues or storage: the limit for any broker here
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:5673")]
    listen: String,
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let options = Options::parse();
    let serve = || {
        let floor = leveret_benches::floor::Floor::bind(&options.listen)?;
        println!("listening on port {}", floor.port()?);
        floor.run()
    };
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("floor needs Linux (epoll); it cannot listen on {}", Options::parse().listen);
    ExitCode::FAILURE
}
