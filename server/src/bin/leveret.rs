//! The broker. Called by the name of one of RabbitMQ's tools, it is that tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    leveret_server::bootstrap::main(std::env::args_os())
}
